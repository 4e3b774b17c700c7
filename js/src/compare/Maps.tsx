// The layer in sight: one channel large, and all channels below.

import type { Store } from "../state/store";
import { Channels, Entries } from "./Channels";
import type { Comparing } from "./comparing";
import { shown } from "./LayerList";
import type { Plates } from "./rows";
import { Three } from "./Three";

interface Both {
  store: Store;
  comparing: Comparing;
}

export function Maps({ store, comparing }: Both) {
  const plates = comparing.plates.value;
  const node = comparing.node.value;
  const lacking = comparing.lacking.value;
  if (lacking && node !== null) {
    return (
      <div class="nn-compare-maps">
        <h4 class="nn-compare-title">{node}</h4>
        <p class="nn-soft">{lacking}</p>
      </div>
    );
  }
  if (!plates) return <div class="nn-compare-maps" aria-busy="true" />;
  return (
    <div class="nn-compare-maps" data-layer={plates.node} data-stale={plates.node !== node}>
      <Title comparing={comparing} plates={plates} />
      <Three store={store} comparing={comparing} plates={plates} />
      {plates.kind === "maps" && plates.channels > 1 && (
        <Channels store={store} comparing={comparing} plates={plates} />
      )}
      {plates.kind === "vector" && <Entries comparing={comparing} plates={plates} />}
    </div>
  );
}

function Title({ comparing, plates }: { comparing: Comparing; plates: Plates }) {
  const found = comparing.found.value;
  const at = found?.pairs.findIndex(([a]) => a === plates.node) ?? -1;
  if (!found || at < 0) return null;
  const [, , by] = found.pairs[at] as (typeof found.pairs)[number];
  const note = found.meta.notes[found.numbers.note[at] as number] ?? "";
  const told = (["cka", "correlation", "difference"] as const).filter((measure) =>
    Number.isFinite(found.numbers[measure][at]),
  );
  const words = { cka: "CKA", correlation: "correlation", difference: "differs by" };
  return (
    <header class="nn-compare-title">
      <h4>
        {plates.node}
        {plates.other !== plates.node && (
          <>
            {" "}
            <span class="nn-soft">↔</span> {plates.other}
          </>
        )}
      </h4>
      {plates.other !== plates.node && <span class="nn-soft">aligned by {by}</span>}
      {told.map((measure) => (
        <span key={measure} class="nn-compare-fact">
          <span class="nn-soft">{words[measure]}</span>{" "}
          <b>{shown(measure, found.numbers[measure][at] as number)}</b>
        </span>
      ))}
      {note && <span class="nn-soft">{note}</span>}
    </header>
  );
}
