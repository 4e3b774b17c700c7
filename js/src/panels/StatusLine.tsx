// The line at the foot: on the left what the pointer rests on, or else what to do next; on the right how long things
// took.

import { milliseconds } from "../maps/format";
import type { Store } from "../state/store";

export function StatusLine({ store }: { store: Store }) {
  const hover = store.view.hover.value;
  const { trace, maps, saliency } = store.timings.value;
  const times = Object.entries({ trace, maps, saliency }).filter(([, ms]) => ms !== undefined);
  return (
    <footer class="nn-status">
      {hover ? (
        <span class="nn-status-left nn-status-value" data-role="hover">
          {hover.what} {hover.value && <b>{hover.value}</b>}
        </span>
      ) : (
        <span class="nn-status-left">{hint(store)}</span>
      )}
      <span class="nn-status-right">
        {store.decides.value && (
          <span title="Python decided on the data (◇): another input may take another path.">
            ◇ this graph is for this input{times.length > 0 && " · "}
          </span>
        )}
        {times.map(([what, ms]) => `${what} ${milliseconds(ms as number)}`).join(" · ")}
      </span>
    </footer>
  );
}

function hint(store: Store): string {
  const { layer, channel, pixel, class: chosen } = store.synced.selection.value;
  const state = store.state.value;
  if (state === "static") return "run the cell to bring the explorer to life";
  if (state === "dead") return "the kernel is gone: run the cell again";
  if (state === "loading") return "the first pass through the network is being recorded";
  if (layer === null && chosen === null) {
    return "click a layer: its maps · a class: its saliency · double click a group: open it · ?: all keys";
  }
  if (channel === null && chosen === null) {
    return "click or drag on a map: what it sees of the input · double click: large · Esc: back";
  }
  if (pixel) return "drag: scrub · arrows on the large map: one pixel · [ ]: channels · Esc: back";
  return "click a layer: its maps · a pixel of a map: its saliency · Esc: back · ?: all keys";
}
