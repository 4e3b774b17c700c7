// Activations of another sample in the run of this one: how far each patch brings that sample's prediction back, layer
// by layer and part by part.

import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { percent } from "../maps/format";
import { RecomputedShare } from "../maps/Recomputed";
import { Segments } from "../maps/Segments";
import { SampleChooser } from "../panels/SampleChooser";
import type { Store } from "../state/store";
import type { Each } from "../wire/types";
import { attends, cellName, colours, type HeatMap, layerOf, type Patches, reachOf } from "./knocking";
import type { Shelf } from "./shelf";

const EACH: [Each, string][] = [
  ["layer", "layers"],
  ["position", "positions"],
  ["channel", "channels"],
  ["head", "heads"],
];

export function PatchMap({ store, shelf, patches }: { store: Store; shelf: Shelf; patches: Patches }) {
  const run = store.synced.run.value;
  const [told, setTold] = useState("");
  if (!run) return null;
  const samples = store.synced.info.value?.samples ?? 1;
  if (samples < 2) return null;
  const found = patches.found.value?.run === run.run ? patches.found.value : null;
  const running = patches.running.value;
  const source = patches.source.value;
  return (
    <section
      class="nn-patch"
      aria-label="patches"
      data-running={running}
      data-done={found?.meta.progress === 1}
    >
      <h4>
        Patch from
        <Segments
          label="what is patched"
          value={patches.each.value}
          options={EACH}
          disabled={attends(store.nodes.value.values()) ? [] : ["head"]}
          onChoose={(choice) => {
            patches.each.value = choice;
            if (source !== null) void patches.start(run);
          }}
        />
        {running && (
          <button type="button" class="nn-chip" onClick={() => patches.stop()}>
            stop
          </button>
        )}
      </h4>
      <SampleChooser
        store={store}
        label="the other sample"
        told={(sample) => `patch from sample ${sample}`}
        chosen={source}
        onChoose={(sample) => {
          patches.source.value = sample;
          void patches.start(run);
        }}
      />
      {running && <progress aria-label="patched" value={found?.meta.progress ?? 0} max={1} />}
      {patches.error.value && (
        <p class="nn-change-error" role="alert">
          {patches.error.value}
        </p>
      )}
      <RecomputedShare of={found?.meta.recomputed} />
      {found && (
        <>
          <p class="nn-soft">
            {question(store, found)} Colours reach to ±{percent(reachOf(found))}.
          </p>
          <div
            class="nn-patch-map"
            data-each={found.meta.each}
            data-grid={found.meta.shapes.some((shape) => shape.length === 2)}
          >
            {found.meta.layers.map((layer, i) => (
              <Layer
                key={layer}
                map={found}
                index={i}
                onTell={setTold}
                onChoose={() => store.selectLayer(layer)}
                onPatch={(cell) => patchCell(shelf, found, layer, cell)}
              />
            ))}
          </div>
          <p class="nn-patch-told" aria-live="off">
            {told || hint(found.meta.each)}
          </p>
        </>
      )}
    </section>
  );
}

/** A channel, a head or a whole layer of the map goes to the shelf; a region has no place there. */
function patchCell(shelf: Shelf, map: HeatMap, layer: string, cell: number): void {
  const { each } = map.meta;
  if (each === "position") return;
  const part = each === "layer" ? {} : { [each]: cell };
  shelf.add({ layer, kind: "patch", source: map.source, ...part });
}

function question(store: Store, { meta, source }: HeatMap): string {
  const classes = store.synced.run.value?.predictions.classes ?? [];
  const named = (index: number) =>
    store.synced.info.value?.class_names?.[index] ??
    classes.find((entry) => entry.index === index)?.name ??
    `class ${index}`;
  const [yes, no] = meta.target;
  const what =
    yes === undefined ? "the score" : no === undefined ? named(yes) : `${named(yes)} over ${named(no)}`;
  return `How far each patch from sample ${source} brings ${what} back.`;
}

interface LayerProps {
  map: HeatMap;
  index: number;
  onTell(text: string): void;
  onChoose(): void;
  onPatch(cell: number): void;
}

/** One layer of the heat map: a row of parts, or its regions as they lie. */
function Layer({ map, index, onTell, onChoose, onPatch }: LayerProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const layer = map.meta.layers[index] as string;
  const { rows, columns, values } = layerOf(map, index);
  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context) return;
    const image = new ImageData(columns, rows);
    new Uint32Array(image.data.buffer).set(values.length > 0 ? colours(values, reachOf(map)) : []);
    context.putImageData(image, 0, 0);
  }, [map, values, rows, columns]);
  const best = Math.max(...values.filter(Number.isFinite));
  const cell = (event: MouseEvent) => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    const at = (offset: number, side: number, count: number) =>
      Math.min(count - 1, Math.max(0, Math.floor((offset / Math.max(1, side)) * count)));
    const y = at(event.clientY - box.top, box.height, rows);
    return y * columns + at(event.clientX - box.left, box.width, columns);
  };
  const tell = (i: number) => {
    const value = values[i] as number;
    const where = cellName(map.meta.each, i, columns, rows);
    return `${layer}, ${where}: ${Number.isFinite(value) ? restored(value) : "not known yet"}`;
  };
  return (
    <button
      type="button"
      class="nn-patch-layer"
      data-patched={layer}
      data-best={Number.isFinite(best) ? best : ""}
      aria-label={`${layer}: at most ${Number.isFinite(best) ? restored(best) : "not known yet"}`}
      onClick={(event) => {
        onChoose();
        if (event.shiftKey && canvas.current) onPatch(cell(event));
      }}
      onPointerLeave={() => onTell("")}
    >
      <span class="nn-patch-name" title={layer}>
        {layer}
      </span>
      <canvas
        ref={canvas}
        width={columns}
        height={rows}
        data-rows={rows}
        onPointerMove={(event) => onTell(tell(cell(event)))}
      />
      {map.meta.each === "layer" && <span>{Number.isFinite(best) ? restored(best) : "…"}</span>}
    </button>
  );
}

function restored(value: number): string {
  return `${value < 0 ? "−" : ""}${percent(Math.abs(value))} restored`;
}

function hint(each: Each): string {
  const shelved = each === "position" ? "" : " Shift and a click put the patch on the shelf.";
  return `0 % is no effect, 100 % the whole prediction. A click chooses the layer.${shelved}`;
}
