// The picture of the selected layer, whatever it returned: maps, a vector or tokens; and what stands there while it
// is on its way or when it cannot be had. `data-painted` says that every tile in sight shows the current values.

import { effect, useComputed } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { Changed } from "../panels/Changed";
import type { Maps } from "../state/data";
import type { DataState, Store } from "../state/store";
import type { GraphNode } from "../state/synced";
import { BigMap, Facts } from "./BigMap";
import { Controls, Legend, SizeSlider } from "./Controls";
import { shownChannel } from "./choose";
import { shape, signed } from "./format";
import { scales } from "./lut";
import { type Planes, planesOf, read } from "./planes";
import { Segments } from "./Segments";
import { SheetView } from "./SheetView";
import { TokenMatrix } from "./TokenMatrix";
import { VectorView } from "./VectorView";

const LIFELESS: ReadonlySet<DataState> = new Set(["static", "dead"]);

export function MapsPanel({ store }: { store: Store }) {
  const { view } = store;
  const root = useRef<HTMLElement>(null);
  // Mounted at the click and seen with the answer: what can be got ready meanwhile is.
  const layer = useComputed(() => store.shown.value ?? store.synced.selection.value.layer).value;
  const { state, data, error, progress } = store.maps.value;
  const settled = state === "ready" && data !== null && data.node === layer;
  const planes = useMemo(() => (data ? planesOf(data) : null), [data]);

  const painted = useMemo(
    () => (done: boolean) => {
      if (done) root.current?.setAttribute("data-painted", "true");
      else root.current?.removeAttribute("data-painted");
    },
    [],
  );
  useLayoutEffect(() => {
    if (!settled) painted(false);
  });
  useHover(store, planes);

  let body = null;
  if (layer === null) body = <p class="nn-calm">Click a layer of the network to see what it computes.</p>;
  else if (store.mute.value !== null) body = <p class="nn-calm">{store.mute.value}</p>;
  else if (state === "error" && LIFELESS.has(store.state.value)) {
    body = <p class="nn-calm">Maps need a running kernel.</p>;
  } else if (state === "error") body = <Failed store={store} error={error} />;
  else if (data?.kind === "vector") body = <VectorView {...{ store, maps: data, settled, painted }} />;
  else if (data?.kind === "tokens" && (view.matrix.value || !planes)) {
    body = (
      <>
        {planes && <TokenSwitch store={store} />}
        <Controls store={store} show={["colour"]} />
        <TokenMatrix {...{ store, maps: data, settled, painted }} />
      </>
    );
  } else body = <Stack {...{ store, maps: data, planes, settled, painted }} layer={layer} />;

  return (
    <section
      class="nn-maps"
      data-panel="maps"
      data-layer={layer ?? undefined}
      data-loading={state === "loading"}
      data-changed={data?.changed}
      ref={root}
      aria-label="maps"
    >
      {layer !== null && <Changed store={store} />}
      {body}
      {layer !== null && state === "loading" && <Progress store={store} progress={progress} />}
    </section>
  );
}

interface StackProps {
  store: Store;
  layer: string;
  maps: Maps | null;
  planes: Planes | null;
  settled: boolean;
  painted(done: boolean): void;
}

/** The big map, its facts, the controls, and the sheet of all channels. */
function Stack({ store, layer, maps, planes, settled, painted }: StackProps) {
  const { view } = store;
  const box = useRef<HTMLDivElement>(null);
  const [area, setArea] = useState({ width: 0, height: 0 });
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const measure = () => setArea({ width: element.clientWidth, height: element.clientHeight });
    measure();
    const watch = new ResizeObserver(measure);
    watch.observe(element);
    return () => watch.disconnect();
  }, []);
  const expected = expectedShape(store, layer);
  const alone = view.zoom.value;
  const side = alone
    ? Math.max(160, Math.min(area.width, area.height - 150))
    : Math.max(150, Math.min(0.42 * area.height, 0.52 * area.width, 340));
  const count = planes?.count ?? expected?.count ?? 0;
  const words = `${planes?.word ?? "channel"}${count === 1 ? "" : "s"}`;
  const sides = planes?.shape ?? expected?.map;

  useLayoutEffect(() => {
    if (alone) painted(settled);
  });

  return (
    <div class="nn-stack" ref={box} data-alone={alone}>
      {maps?.kind === "tokens" && <TokenSwitch store={store} />}
      {area.height > 0 && (
        <div class="nn-top">
          {planes ? (
            <>
              <BigMap store={store} planes={planes} side={side} alone={alone} />
              <Facts store={store} planes={planes} />
            </>
          ) : (
            <div class="nn-ghost" style={{ width: `${side}px`, height: `${side}px` }} />
          )}
        </div>
      )}
      <Controls store={store} show={alone ? ["colour", "range"] : ["colour", "range", "order"]} />
      <div class="nn-under">
        {planes ? <StackLegend store={store} planes={planes} /> : <span class="nn-legend">&nbsp;</span>}
        {alone ? (
          <button
            type="button"
            class="nn-link"
            onClick={() => {
              view.zoom.value = false;
            }}
          >
            all {count} {words}
          </button>
        ) : (
          <>
            <span class="nn-soft">
              {count > 0 && `${count} ${words}`}
              {sides && ` · ${shape(sides)}`}
            </span>
            <SizeSlider store={store} most={area.width} />
          </>
        )}
      </div>
      {!alone && <SheetView {...{ store, layer, planes, expected, settled, painted }} />}
    </div>
  );
}

function StackLegend({ store, planes }: { store: Store; planes: Planes }) {
  const { view } = store;
  const channel = useComputed(() => shownChannel(store, planes)).value;
  const range = view.range.value;
  const scale = scales(planes.low, planes.high, range, view.sign.value, view.colormap.value)(channel);
  return <Legend scale={scale} whose={range === "layer" ? "this layer" : `ch ${channel}`} />;
}

function TokenSwitch({ store }: { store: Store }) {
  const { matrix } = store.view;
  return (
    <Segments
      label="picture of the tokens"
      value={matrix.value ? "matrix" : "maps"}
      options={[
        ["maps", "map per feature"],
        ["matrix", "tokens × features"],
      ]}
      onChoose={(choice) => {
        matrix.value = choice === "matrix";
      }}
    />
  );
}

/** Channels and map size as the graph knows them, for the skeleton. */
function expectedShape(store: Store, layer: string): { count: number; map: [number, number] } | null {
  const node = store.nodes.value.get(layer) as GraphNode | undefined;
  const sides = node?.output_shapes?.[0];
  if (sides?.length !== 4) return null;
  const [, channels = 1, height = 1, width = 1] = sides;
  return { count: channels, map: [height, width] };
}

/** What the pointer rests on, in words for the status line; and the raw values it needs for that. */
function useHover(store: Store, planes: Planes | null): void {
  const { view } = store;
  useEffect(() => {
    if (!planes) return;
    const stopAsking = effect(() => {
      const channel = shownChannel(store, planes);
      // A pointer that only passes over a tile needs no raw values of it.
      const timer = setTimeout(() => store.rawValues(channel), view.spot.peek() ? 30 : 0);
      return () => clearTimeout(timer);
    });
    const stopTelling = effect(() => {
      const spot = view.spot.value;
      const held = store.values.value;
      if (!spot) {
        view.hover.value = null;
        return;
      }
      const raw = held && held.key === planes.key && held.channel === spot.channel ? held.data : null;
      const { value, exact } = read(planes, spot.channel, spot.y, spot.x, raw);
      view.hover.value = {
        what: `${planes.word === "channel" ? "ch" : "feature"} ${spot.channel} · (${spot.y}, ${spot.x})`,
        value: `${exact ? "=" : "≈"} ${signed(value)}`,
      };
    });
    return () => {
      stopAsking();
      stopTelling();
    };
  }, [store, planes]);
  useEffect(
    () => () => {
      view.spot.value = null;
    },
    [store],
  );
}

function Failed({ store, error }: { store: Store; error?: { message: string; hint?: string } }) {
  return (
    <div class="nn-failed" role="alert">
      <strong>This layer could not be drawn.</strong>
      <p>{error?.message}</p>
      {error?.hint && <p class="nn-soft">{error.hint}</p>}
      <button type="button" class="nn-chip" onClick={() => store.retryMaps()}>
        Try again
      </button>
    </div>
  );
}

/** Appears only when it takes a moment: the style sheet delays it. */
function Progress({
  store,
  progress,
}: {
  store: Store;
  progress?: { done: number; total: number; note?: string };
}) {
  const known = progress && progress.total > 0;
  return (
    <div class="nn-progress" role="status">
      <progress value={known ? progress.done / progress.total : undefined} max={1} />
      <span class="nn-soft">{progress?.note ?? "reading maps"}</span>
      <button type="button" class="nn-link" onClick={() => store.cancelMaps()}>
        cancel
      </button>
    </div>
  );
}
