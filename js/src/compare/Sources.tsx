// What stands beside what: the sample on the screen, and another sample of the batch or what Python gave.

import { SampleChooser } from "../panels/SampleChooser";
import type { Store } from "../state/store";
import type { Comparing } from "./comparing";

export function Sources({ store, comparing }: { store: Store; comparing: Comparing }) {
  const info = store.synced.info.value;
  const now = store.synced.run.value?.sample ?? 0;
  const given = info?.compare && info.compare.kind !== "sample" ? info.compare : null;
  const other = comparing.other.value;
  const samples = info?.samples ?? 1;
  const changed = store.changes.key.value !== "";
  const b = other === "plain" ? "as it is" : other !== null ? `sample ${other}` : (given?.name ?? "–");
  const ofModels = other === "plain" || (other === null && given !== null && given.kind !== "inputs");
  const model = info?.model ?? "this model";
  return (
    <div class="nn-compare-sources">
      <span class="nn-compare-side" data-side="A" title="A: what is on the screen">
        {ofModels ? (changed ? "changed" : model) : `sample ${now}`}
      </span>
      <span class="nn-compare-side" data-side="B" title={`B: ${b}`}>
        {b}
      </span>
      {given && other !== null && (
        <button
          type="button"
          class="nn-chip"
          title="back to what w.compare_with(...) set"
          onClick={() => {
            comparing.other.value = null;
          }}
        >
          {given.name}
        </button>
      )}
      {changed && other !== "plain" && (
        <button
          type="button"
          class="nn-chip"
          title="the changed network beside the network as it is"
          onClick={() => {
            // Of two so alike CKA is about 1 everywhere.
            comparing.measure.value = "difference";
            comparing.other.value = "plain";
          }}
        >
          without changes
        </button>
      )}
      {samples > 1 && (
        <SampleChooser
          store={store}
          label="sample to compare with"
          told={(sample) => `compare with sample ${sample}`}
          chosen={typeof other === "number" ? other : null}
          onChoose={(sample) => {
            comparing.other.value = sample;
          }}
        />
      )}
    </div>
  );
}
