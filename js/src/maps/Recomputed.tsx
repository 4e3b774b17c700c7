// How much of the network ran for an answer, where only what changed was computed anew.

import type { Recomputed } from "../wire/types";
import { percent } from "./format";

export function RecomputedShare({ of }: { of?: Recomputed | null | undefined }) {
  if (!of || of.share > 0.99) return null;
  return (
    <span
      class="nn-soft"
      data-role="recomputed"
      title={`Only what a change reaches was computed anew, the rest is known: ${of.told}`}
    >
      {`recomputed ${percent(of.share)}`}
    </span>
  );
}
