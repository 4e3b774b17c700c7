// How much of the network ran for an answer, where only what changed was computed anew.

import type { Recomputed } from "../wire/types";
import { percent } from "./format";

/** A share that was rounded away on the way here is not none. */
const HARDLY = 1e-5;

export function RecomputedShare({ of }: { of?: Recomputed | null | undefined }) {
  if (!of || of.share > 0.99) return null;
  return (
    <span
      class="nn-soft"
      data-role="recomputed"
      title={`Only what a change reaches was computed anew, the rest is known: ${of.told}`}
    >
      {`recomputed ${percent(Math.max(of.share, HARDLY))}`}
    </span>
  );
}
