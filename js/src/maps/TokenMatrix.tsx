// A sequence of tokens as one matrix: a row per token, a column per feature, all in the range of the layer. A click
// chooses the unit under it.

import { useComputed } from "@preact/signals";
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Maps } from "../state/data";
import type { Store } from "../state/store";
import { Legend } from "./Controls";
import { table } from "./colormaps";
import { shape, signed } from "./format";
import { entry, layerRange, scaleFor } from "./lut";
import { Surface } from "./paint";

interface Props {
  store: Store;
  maps: Maps;
  settled: boolean;
  painted(done: boolean): void;
}

/** Values [tokens, features], from the bytes of each feature and its range. */
export function matrixOf(maps: Maps): Float32Array {
  const features = maps.low.length;
  const tokens = maps.tile[0] * maps.tile[1];
  const values = new Float32Array(tokens * features);
  for (let d = 0; d < features; d++) {
    const low = maps.low[d] as number;
    const step = ((maps.high[d] as number) - low) / 255;
    for (let t = 0; t < tokens; t++) {
      values[t * features + d] = low + (maps.tiles[d * tokens + t] as number) * step;
    }
  }
  return values;
}

export function TokenMatrix({ store, maps, settled, painted }: Props) {
  const { view, synced } = store;
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const surface = useRef(new Surface());
  const [width, setWidth] = useState(0);
  const dpr = window.devicePixelRatio || 1;
  const features = maps.low.length;
  const tokens = maps.tile[0] * maps.tile[1];
  const values = useMemo(() => matrixOf(maps), [maps]);
  const [colormap, sign] = [view.colormap.value, view.sign.value];
  const scale = useMemo(
    () => scaleFor(...layerRange(maps.low, maps.high), sign, colormap),
    [maps, sign, colormap],
  );
  const wide = Math.round(width * dpr);
  const row = Math.max(1, Math.min(Math.round(16 * dpr), Math.round((380 * dpr) / tokens)));
  const selected = useComputed(() => view.scrub.value ?? synced.selection.value).value;

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
    if (!canvas.current || wide === 0) return painted(false);
    const { words, stride } = surface.current.open(canvas.current, wide, tokens * row);
    const colours = table(colormap);
    for (let t = 0; t < tokens; t++) {
      const at = t * row * stride;
      for (let x = 0; x < wide; x++) {
        // More features than pixels: a pixel shows the strongest of its features, whatever its sign.
        const from = Math.floor((x * features) / wide);
        const end = Math.max(from + 1, Math.floor(((x + 1) * features) / wide));
        let value = values[t * features + from] as number;
        for (let d = from + 1; d < end; d++) {
          const other = values[t * features + d] as number;
          if (Math.abs(other) > Math.abs(value)) value = other;
        }
        words[at + x] = colours[entry(value, scale)] as number;
      }
      for (let r = 1; r < row; r++) words.copyWithin(at + r * stride, at, at + stride);
    }
    surface.current.close(canvas.current);
    painted(settled);
  }, [values, scale, wide, row, settled]);

  const { channel, pixel } = selected;
  const at = (event: PointerEvent | MouseEvent): { token: number; feature: number } => {
    const rect = (canvas.current as HTMLCanvasElement).getBoundingClientRect();
    const inside = (f: number, n: number) => Math.min(n - 1, Math.max(0, Math.floor(f * n)));
    return {
      token: inside((event.clientY - rect.top) / rect.height, tokens),
      feature: inside((event.clientX - rect.left) / rect.width, features),
    };
  };
  const hover = (event: PointerEvent) => {
    const { token, feature } = at(event);
    const raw = store.rawValues(feature)?.[token];
    const value = raw ?? (values[token * features + feature] as number);
    view.hover.value = {
      what: `token ${token} · feature ${feature}`,
      value: `${raw === undefined ? "≈" : "="} ${signed(value)}`,
    };
  };
  const walk = (event: KeyboardEvent) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    const clamp = (value: number, n: number) => Math.min(n - 1, Math.max(0, value));
    const token = clamp((pixel?.[0] ?? 0) + (step[0] as number), tokens);
    store.selectUnit(clamp((channel ?? 0) + (step[1] as number), features), [token, 0]);
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div class="nn-matrix">
      <div class="nn-matrix-box" ref={box}>
        <div
          class="nn-cells"
          role="img"
          // biome-ignore lint/a11y/noNoninteractiveTabindex: arrow keys choose a unit
          tabIndex={0}
          aria-label={`${tokens} tokens by ${features} features; arrow keys choose a unit`}
          onKeyDown={walk}
          style={{ height: `${(tokens * row) / dpr}px` }}
          onPointerMove={hover}
          onPointerLeave={() => {
            view.hover.value = null;
          }}
          onClick={(event) => {
            const { token, feature } = at(event);
            store.selectUnit(feature, [token, 0]);
          }}
        >
          <canvas ref={canvas} class="nn-crisp" />
          {channel !== null && pixel && (
            <i
              class="nn-unit-mark"
              style={{
                left: `${(100 * channel) / features}%`,
                top: `${(100 * pixel[0]) / tokens}%`,
                width: `max(5px, ${100 / features}%)`,
                height: `max(5px, ${100 / tokens}%)`,
              }}
            />
          )}
        </div>
      </div>
      <div class="nn-under">
        <Legend scale={scale} whose="this layer" />
        <span class="nn-soft">tokens × features · {shape([tokens, features])}</span>
      </div>
    </div>
  );
}
