// One map, large, with the unit under the pointer or the chosen one marked; and the facts beside it.

import { useComputed } from "@preact/signals";
import { useLayoutEffect, useMemo, useRef } from "preact/hooks";
import type { Store } from "../state/store";
import { markedSpot, nudge, Scrubbing, shownChannel } from "./choose";
import { percent, short, signed } from "./format";
import { lut, scales } from "./lut";
import { paintTile, Surface } from "./paint";
import { type Planes, read, readExtra, summarize } from "./planes";
import { crisp, pixelAt } from "./sheet";

interface Props {
  store: Store;
  planes: Planes;
  /** The longer side, in CSS pixels, about. */
  side: number;
  /** As the only map of the panel it stands for its tile. */
  alone?: boolean;
}

export function BigMap({ store, planes, side, alone }: Props) {
  const { view } = store;
  const canvas = useRef<HTMLCanvasElement>(null);
  const surface = useRef(new Surface());
  const channel = useComputed(() => shownChannel(store, planes)).value;
  const dpr = window.devicePixelRatio || 1;
  const [rows, columns] = planes.shape;
  const longest = Math.max(rows, columns);
  const wish = crisp(longest, side, dpr);
  const full = wish > side || wish < 0.86 * side ? side : wish;
  const device = (cells: number) =>
    Math.max(Math.round((full * dpr * cells) / longest), Math.round(14 * dpr));
  const [w, h] = [device(columns), device(rows)];
  const [colormap, sign, range] = [view.colormap.value, view.sign.value, view.range.value];

  useLayoutEffect(() => {
    if (!canvas.current || channel >= planes.loaded) return;
    const scale = scales(planes.low, planes.high, range, sign, colormap)(channel);
    const colours = lut(planes.low[channel] as number, planes.high[channel] as number, scale);
    const [height, width] = planes.tile;
    const source = { bytes: planes.bytes, start: planes.start(channel), height, width };
    const memory = surface.current.open(canvas.current, w, h);
    paintTile(memory, source, { x: 0, y: 0, width: w, height: h }, colours);
    surface.current.close(canvas.current);
  }, [planes, channel, w, h, colormap, sign, range]);

  const current = useRef(planes);
  current.current = planes;
  const scrubbing = useMemo(() => new Scrubbing(store, () => current.current), [store]);
  const at = (event: PointerEvent): [number, number] => {
    const {
      left,
      top,
      width: wide,
      height: high,
    } = (canvas.current as HTMLCanvasElement).getBoundingClientRect();
    return pixelAt((event.clientX - left) / wide, (event.clientY - top) / high, ...planes.shape);
  };

  return (
    <div
      class="nn-big"
      role="img"
      // biome-ignore lint/a11y/noNoninteractiveTabindex: arrow keys move the chosen pixel
      tabIndex={0}
      data-role="big-map"
      data-channel={alone ? channel : undefined}
      aria-label={`map of ${planes.word} ${channel}, ${planes.shape.join(" by ")}; arrow keys move the chosen pixel`}
      style={{ width: `${w / dpr}px`, height: `${h / dpr}px` }}
      onPointerDown={(event) => scrubbing.press(event, event.currentTarget, channel, at)}
      onPointerMove={(event) => {
        if (scrubbing.on) return scrubbing.move(event);
        const [y, x] = at(event);
        view.spot.value = { channel, y, x };
      }}
      onPointerUp={(event) => scrubbing.release(event)}
      onPointerCancel={(event) => scrubbing.release(event, true)}
      onPointerLeave={() => {
        if (!scrubbing.on) view.spot.value = null;
      }}
      onDblClick={() => {
        view.zoom.value = !view.zoom.peek();
      }}
      onKeyDown={(event) => {
        if (!nudge(store, planes, channel, event)) return;
        event.preventDefault();
        event.stopPropagation();
      }}
    >
      <canvas ref={canvas} class="nn-crisp" />
      <Mark store={store} planes={planes} channel={channel} />
    </div>
  );
}

function Mark({ store, planes, channel }: { store: Store; planes: Planes; channel: number }) {
  const spot = useComputed(() => markedSpot(store, planes)).value;
  if (!spot || spot.channel !== channel) return null;
  const [rows, columns] = planes.shape;
  return (
    <i
      class="nn-unit-mark"
      data-role="mark"
      style={{
        left: `${(100 * spot.x) / columns}%`,
        top: `${(100 * spot.y) / rows}%`,
        width: `max(7px, ${100 / columns}%)`,
        height: `max(7px, ${100 / rows}%)`,
      }}
    />
  );
}

/** Layer, channel, pixel and value of what is looked at, and how its channel is distributed. */
export function Facts({ store, planes }: { store: Store; planes: Planes }) {
  const channel = useComputed(() => shownChannel(store, planes)).value;
  const spot = useComputed(() => store.view.spot.value ?? markedSpot(store, planes)).value;
  const held = store.values.value;
  const raw = held && held.key === planes.key && held.channel === channel ? held.data : null;
  const summary = useMemo(() => summarize(planes, channel, raw), [planes, channel, raw]);
  const here = spot && spot.channel === channel ? read(planes, channel, spot.y, spot.x, raw) : null;
  const [low = 0, high = 0] = [planes.low[channel], planes.high[channel]];
  const bad = planes.bad.get(channel) ?? 0;

  return (
    <div class="nn-facts">
      <dl>
        <dt>layer</dt>
        <dd class="nn-strong" title={planes.node}>
          {planes.node}
        </dd>
        <dt>{planes.word}</dt>
        <dd>
          {channel} of {planes.count}
        </dd>
        <dt>pixel</dt>
        <dd>{spot && here ? planes.name(spot.y, spot.x) : "–"}</dd>
        <dt>value</dt>
        <dd>{here ? `${here.exact ? "" : "≈ "}${signed(here.value)}` : "–"}</dd>
        <dt>range</dt>
        <dd>
          {short(low)} … {short(high)}
        </dd>
        <dt>zeros</dt>
        <dd>{summary.zeros === null ? "…" : percent(summary.zeros)}</dd>
        {planes.extra > 0 && (
          <>
            <dt>{planes.extra === 1 ? "token 0" : `tokens 0–${planes.extra - 1}`}</dt>
            <dd>
              <Extras store={store} planes={planes} channel={channel} raw={raw} />
            </dd>
          </>
        )}
      </dl>
      <Bars bins={summary.bins} low={low} high={high} />
      {bad > 0 && <p class="nn-note nn-note-bad">{bad} values are NaN or infinite, drawn as the lowest</p>}
      {bad === 0 && low === high && (
        <p class="nn-note">
          {low === 0 ? "dead here: every value is 0" : `constant: every value is ${short(low)}`}
        </p>
      )}
    </div>
  );
}

interface ExtrasProps {
  store: Store;
  planes: Planes;
  channel: number;
  raw: Float32Array | null;
}

/** The tokens beside the patches (a class token, registers): a click chooses that unit. */
function Extras({ store, planes, channel, raw }: ExtrasProps) {
  const { channel: chosen, pixel } = store.synced.selection.value;
  return (
    <>
      {Array.from({ length: planes.extra }, (_, token) => {
        const { value, exact } = readExtra(planes, channel, token, raw);
        return (
          <button
            key={token}
            type="button"
            class="nn-link nn-extra"
            data-token={token}
            aria-pressed={chosen === channel && pixel?.[0] === token}
            title={`token ${token}, on no place of the image: its saliency`}
            onClick={() => store.selectUnit(channel, [token, 0])}
          >
            {exact ? "" : "≈ "}
            {signed(value)}
          </button>
        );
      })}
    </>
  );
}

/** One path for all: a rectangle each would be dozens of elements to change for every frame while somebody paints. */
function bar(x: number, tall: number): string {
  return tall > 0 ? `M${x.toFixed(1)} 48v${-tall.toFixed(2)}h3.4v${tall.toFixed(2)}z` : "";
}

/** How often each value occurs; heights are logarithmic, a lonely maximum stays visible. */
function Bars({ bins, low, high }: { bins: number[]; low: number; high: number }) {
  const most = Math.log1p(Math.max(...bins, 1));
  return (
    <figure class="nn-bars">
      <svg viewBox={`0 0 ${bins.length * 4} 48`} preserveAspectRatio="none" aria-hidden="true">
        <path d={bins.map((n, i) => bar(4 * i + 0.3, (46 * Math.log1p(n)) / most)).join("")} />
      </svg>
      <figcaption>
        <span>{short(low)}</span>
        <span>log count</span>
        <span>{short(high)}</span>
      </figcaption>
    </figure>
  );
}
