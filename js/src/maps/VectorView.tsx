// A layer that returns one row of numbers: bars with their signs while they can be told apart, a wrapped grid of
// coloured cells beyond that; with names where they are classes. A click chooses a unit.

import { useComputed } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Maps } from "../state/data";
import type { Store } from "../state/store";
import { Controls, Legend } from "./Controls";
import { table } from "./colormaps";
import { signed } from "./format";
import { entry, scaleFor } from "./lut";
import { Surface } from "./paint";
import { ordered } from "./sheet";
import { rangeOf, rowOf, wrap } from "./vector";

const BARS_UP_TO = 128;
const STRONGEST = 16;
const CELLS_HEIGHT = 260;

interface Props {
  store: Store;
  maps: Maps;
  settled: boolean;
  painted(done: boolean): void;
}

export function VectorView({ store, maps, settled, painted }: Props) {
  const held = store.values.value;
  const raw = held && held.key === maps.key ? held.data : null;
  const { values, exact } = useMemo(() => rowOf(maps, raw), [maps, raw]);
  const names = classNames(store, values.length);
  useEffect(() => {
    if (maps.low.length === 1) store.rawValues(0);
  }, [store, maps]);
  const say = (i: number | null) => {
    if (i === null) store.view.hover.value = null;
    else {
      const what = names?.[i] !== undefined ? `${i} · ${names[i]}` : `unit ${i}`;
      store.view.hover.value = { what, value: `${exact ? "=" : "≈"} ${signed(values[i] as number)}` };
    }
  };
  const choose = (i: number) => store.selectUnit(i, [0, 0]);
  const shared = { store, values, names, say, choose };
  const long = values.length > BARS_UP_TO;

  useLayoutEffect(() => {
    if (!long) painted(settled);
  });

  if (!long) {
    return names ? (
      <div class="nn-vector">
        <Controls store={store} show={["order"]} />
        <List {...shared} indices={ordered(values, store.view.order.value)} />
      </div>
    ) : (
      <div class="nn-vector">
        <Columns {...shared} />
        <Strongest {...shared} named={false} />
      </div>
    );
  }
  return (
    <div class="nn-vector">
      <Controls store={store} show={["colour"]} />
      <Cells {...shared} paintedNow={(done) => painted(done && settled)} />
      <Strongest {...shared} />
    </div>
  );
}

/** `named` says that no other element stands for the units: each is `data-channel` once. */
function Strongest({ named = true, ...shared }: Shared & { named?: boolean }) {
  const indices = ordered(shared.values.map(Math.abs), "strength").subarray(0, STRONGEST);
  return (
    <>
      <h4>
        strongest <span class="nn-soft">of {shared.values.length} units</span>
      </h4>
      <List {...shared} named={named} indices={indices} />
    </>
  );
}

/** Names of the classes where the row is one number per class. */
function classNames(store: Store, length: number): string[] | null {
  const names = store.synced.info.value?.class_names;
  return names && names.length === length ? names : null;
}

interface Shared {
  store: Store;
  values: Float32Array;
  names: string[] | null;
  say(index: number | null): void;
  choose(index: number): void;
}

function extent(values: Float32Array): { zero: number; span: number } {
  const [least, most] = rangeOf(values);
  const low = Math.min(0, least);
  return { zero: -low, span: Math.max(0, most) - low || 1 };
}

function Columns({ store, values, say, choose }: Shared) {
  const { zero, span } = extent(values);
  const selected = store.synced.selection.value.channel;
  return (
    <div class="nn-columns" onPointerLeave={() => say(null)}>
      {Array.from(values, (value, i) => {
        const part = Number.isFinite(value) ? Math.abs(value) / span : 0;
        const bottom = value >= 0 ? zero / span : (zero + value) / span;
        return (
          <button
            key={i}
            type="button"
            data-channel={i}
            aria-pressed={i === selected}
            aria-label={`unit ${i}, ${signed(value)}`}
            title={`unit ${i}: ${signed(value)}`}
            onPointerEnter={() => say(i)}
            onClick={() => choose(i)}
          >
            <i
              class={value < 0 ? "nn-minus" : "nn-plus"}
              style={{ bottom: `${100 * bottom}%`, height: `${100 * part}%` }}
            />
          </button>
        );
      })}
      <hr style={{ bottom: `${(100 * zero) / span}%` }} />
    </div>
  );
}

interface ListProps extends Shared {
  indices: Int32Array;
  named?: boolean;
}

function List({ store, values, names, say, choose, indices, named = true }: ListProps) {
  const { zero, span } = extent(values);
  const selected = store.synced.selection.value.channel;
  return (
    <div class="nn-rows" onPointerLeave={() => say(null)}>
      {Array.from(indices, (i) => {
        const value = values[i] as number;
        const part = Number.isFinite(value) ? Math.abs(value) / span : 0;
        const left = value >= 0 ? zero / span : (zero + value) / span;
        return (
          <button
            key={i}
            type="button"
            data-channel={named ? i : undefined}
            aria-pressed={i === selected}
            title={names?.[i]}
            onPointerEnter={() => say(i)}
            onClick={() => choose(i)}
          >
            <span class="nn-rows-name">{names?.[i] ?? `unit ${i}`}</span>
            <span class="nn-rows-bar">
              <i
                class={value < 0 ? "nn-minus" : "nn-plus"}
                style={{ left: `${100 * left}%`, width: `${100 * part}%` }}
              />
            </span>
            <span>{signed(value)}</span>
          </button>
        );
      })}
    </div>
  );
}

function Cells(props: Shared & { paintedNow(done: boolean): void }) {
  const { store, values, say, choose, paintedNow } = props;
  const { view, synced } = store;
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const surface = useRef(new Surface());
  const [width, setWidth] = useState(0);
  const dpr = window.devicePixelRatio || 1;
  const grid = useMemo(
    () => wrap(values.length, width * dpr, CELLS_HEIGHT * dpr),
    [values.length, width, dpr],
  );
  const [low, high] = useMemo(() => rangeOf(values), [values]);
  const [colormap, sign] = [view.colormap.value, view.sign.value];
  const scale = scaleFor(low, high, sign, colormap);
  const { columns, rows, cell } = grid;
  const tall = Math.round(rows * cell);
  const selected = useComputed(() => synced.selection.value.channel).value;

  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const measure = () => setWidth(element.clientWidth);
    measure();
    const watch = new ResizeObserver(measure);
    watch.observe(element);
    return () => watch.disconnect();
  }, []);

  useLayoutEffect(() => {
    if (!canvas.current || width === 0) return paintedNow(false);
    const { words, stride } = surface.current.open(canvas.current, Math.round(columns * cell), tall);
    const colours = table(colormap);
    const line = cell >= 8 ? 1 : 0;
    for (let i = 0; i < values.length; i++) {
      const word = colours[entry(values[i] as number, scale)] as number;
      const [column, row] = [i % columns, Math.floor(i / columns)];
      const left = Math.round(column * cell);
      const right = Math.round((column + 1) * cell) - line;
      const bottom = Math.min(tall, Math.round((row + 1) * cell)) - line;
      for (let y = Math.round(row * cell); y < bottom; y++)
        words.fill(word, y * stride + left, y * stride + right);
    }
    surface.current.close(canvas.current);
    paintedNow(true);
  });

  const at = (event: PointerEvent | MouseEvent): number | null => {
    const { left, top } = (canvas.current as HTMLCanvasElement).getBoundingClientRect();
    const column = Math.floor(((event.clientX - left) * dpr) / cell);
    const i = Math.floor(((event.clientY - top) * dpr) / cell) * columns + column;
    return column >= 0 && column < columns && i >= 0 && i < values.length ? i : null;
  };
  const move = (event: KeyboardEvent) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (step === undefined) return;
    const next = Math.min(values.length - 1, Math.max(0, (selected ?? -step) + step));
    choose(next);
    say(next);
    event.preventDefault();
    event.stopPropagation();
  };
  const side = cell / dpr;
  return (
    <div ref={box}>
      <div
        class="nn-cells"
        role="img"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: arrow keys move the chosen unit
        tabIndex={0}
        aria-label={`${values.length} units as coloured cells; arrow keys choose one`}
        style={{ width: `${columns * side}px`, height: `${tall / dpr}px` }}
        onPointerMove={(event) => say(at(event))}
        onPointerLeave={() => say(null)}
        onClick={(event) => {
          const i = at(event);
          if (i !== null) choose(i);
        }}
        onKeyDown={move}
      >
        <canvas ref={canvas} class="nn-crisp" />
        {selected !== null && selected < values.length && (
          <i
            class="nn-unit-mark"
            style={{
              left: `${(selected % columns) * side}px`,
              top: `${Math.floor(selected / columns) * side}px`,
              width: `${side}px`,
              height: `${side}px`,
            }}
          />
        )}
      </div>
      <div class="nn-under">
        <Legend scale={scale} whose="this layer" />
        <span class="nn-soft">{values.length} units</span>
      </div>
    </div>
  );
}
