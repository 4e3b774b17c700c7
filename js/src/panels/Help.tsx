// All keys and gestures, over the widget until it is closed.

import { useLayoutEffect, useRef } from "preact/hooks";
import type { Store } from "../state/store";

const KEYS: [string, [string[], string][]][] = [
  [
    "Network",
    [
      [["click"], "choose a layer, its maps stream in"],
      [["double click", "Enter"], "open or close a group"],
      [["↑", "↓", "←", "→"], "walk along the edges"],
      [["Alt + Enter"], "one group alone"],
      [["Shift + Enter"], "unfold a whole stack of blocks"],
      [["Backspace"], "out of the group"],
      [["/"], "search, Enter for the next match"],
      [["0", "+", "−"], "fit, zoom"],
      [["o"], "the layers as a list"],
      [["e"], "explain a class: methods side by side"],
      [["c"], "compare two inputs, or two models"],
      [["a"], "change the layer: ablate, scale, patch"],
      [["p"], "paint the input"],
      [["y"], "more about the output"],
    ],
  ],
  [
    "Maps",
    [
      [["click"], "saliency of that unit on the input"],
      [["drag"], "scrub over units, live"],
      [["↑", "↓", "←", "→"], "move the chosen pixel; with Shift by ten"],
      [["[", "]"], "previous and next channel"],
      [["Ctrl + wheel"], "size of the tiles"],
      [["double click"], "one large map, and back"],
    ],
  ],
  [
    "Anywhere",
    [
      [["Esc"], "one step back"],
      [["?"], "this page"],
    ],
  ],
];

export function Help({ store }: { store: Store }) {
  const box = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => box.current?.focus(), []);
  const close = () => {
    store.view.help.value = false;
  };
  return (
    <div class="nn-help-shade">
      <button type="button" class="nn-help-away" aria-label="close help" tabIndex={-1} onClick={close} />
      <div class="nn-help" role="dialog" aria-label="keys and gestures" tabIndex={-1} ref={box}>
        <button type="button" class="nn-close" aria-label="close help" onClick={close}>
          ×
        </button>
        {KEYS.map(([title, rows]) => (
          <section key={title}>
            <h3>{title}</h3>
            <dl>
              {rows.map(([keys, what]) => (
                <div key={what}>
                  <dt>
                    {keys.map((key) => (
                      <kbd key={key}>{key}</kbd>
                    ))}
                  </dt>
                  <dd>{what}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
    </div>
  );
}
