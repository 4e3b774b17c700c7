// What the input pixel that was clicked does: a bar on every card of the graph, the open layer's maps, the output.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { short, signed } from "../maps/format";
import type { Maps } from "../state/data";
import type { Store } from "../state/store";
import { isCancelled } from "../wire/client";
import type { Reply } from "../wire/types";
import { barsOf, rulesOf } from "./bars";

type Answer = Reply<"influence">;

const HOW = {
  "forward mode": "exact, by forward-mode derivatives",
  "backward twice": "exact, by a gradient of the gradient",
  "finite differences": "about, by finite differences",
};

let cards = 0;

export function InfluenceCard({ store }: { store: Store }) {
  const box = useRef<HTMLElement>(null);
  const [id] = useState(() => `i${++cards}`);
  const [answer, setAnswer] = useState<Answer | null>(null);
  const [error, setError] = useState("");
  const [onMaps, setOnMaps] = useState(false);
  const pixel = store.pixel.value;
  const run = store.synced.run.value;
  const layer = store.shown.value;
  const place = pixel && `${pixel.y},${pixel.x}`;

  useLayoutEffect(() => {
    const root = box.current?.closest<HTMLElement>(".nnviz");
    root?.setAttribute("data-influence", id);
    return () => root?.removeAttribute("data-influence");
  }, [id]);

  useEffect(() => {
    if (!pixel || !run) return;
    let wanted = true;
    const asked = { sample: run.sample, y: pixel.y, x: pixel.x, layer, ...store.changes.params };
    store.request("influence", asked, { slot: "influence" }).then(
      (reply) => {
        if (!wanted) return;
        setAnswer(reply);
        setError("");
      },
      (reason: Error) => {
        if (wanted && !isCancelled(reason)) setError(reason.message);
      },
    );
    return () => {
      wanted = false;
    };
  }, [place, store.picture.value, layer]);

  // The maps of the open layer are those of the influence as long as this is on.
  useEffect(() => {
    const maps = onMaps && answer ? influenceMaps(answer, `${place}`) : null;
    if (!maps || store.shown.peek() !== maps.node) return;
    const before = store.maps.peek();
    const colormap = store.view.colormap.peek();
    store.maps.value = { state: "ready", data: maps };
    store.view.colormap.value = "diverging";
    return () => {
      store.view.colormap.value = colormap;
      if (store.maps.peek().data === maps) store.maps.value = before;
    };
  }, [onMaps, answer]);

  if (!pixel) return null;
  const graph = store.synced.graph.value;
  const bars = answer && graph ? barsOf(graph, answer.arrays.strength.data) : null;
  return (
    <section class="nn-influence" data-panel="influence" data-state={answer ? "ready" : "loading"} ref={box}>
      <h3>
        Influence of ({pixel.y}, {pixel.x})
      </h3>
      {error && (
        <p class="nn-caption nn-caption-bad" role="alert">
          {error}
        </p>
      )}
      {answer && bars && (
        <>
          <style>{rulesOf(bars, id)}</style>
          <p class="nn-soft" data-role="how" title={answer.meta.why || undefined}>
            {HOW[answer.meta.how]} · {answer.meta.ms.toFixed(0)} ms. The bar on a card is how much of its
            activation moves with the pixel; the longest is {short(100 * bars.largest)} % per unit.
          </p>
          {answer.meta.maps && (
            <button type="button" class="nn-chip" aria-pressed={onMaps} onClick={() => setOnMaps(!onMaps)}>
              on the maps
            </button>
          )}
          {answer.meta.classes.length > 0 && (
            <table class="nn-influence-classes">
              <caption>logits, were it changed by {signed(answer.meta.change)}</caption>
              <tbody>
                {answer.meta.classes.map(({ index, name, by }) => (
                  <tr key={index}>
                    <th scope="row">{name}</th>
                    <td>{signed(by)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
        </>
      )}
    </section>
  );
}

function influenceMaps({ meta, arrays }: Answer, place: string): Maps | null {
  const { maps, low, high, reach } = arrays;
  if (!meta.maps || !maps || !low || !high || !reach) return null;
  const [loaded = 0, h = 1, w = 1] = maps.shape;
  const { node, kind, shape, grid } = meta.maps;
  return {
    ...{ key: `influence ${place}|${node}`, node, kind, shape, tile: [h, w], tiles: maps.data },
    ...{ low: low.data, high: high.data, strength: reach.data, loaded, grid: grid ?? null },
    ...{ bad: new Map(), ms: meta.ms, of: "influence" },
  };
}
