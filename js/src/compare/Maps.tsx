// The layer in sight: one channel large in A and in B with their difference between them, looked at together, and all
// channels below, those that changed most first.

import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { short, signed } from "../maps/format";
import type { Scale } from "../maps/lut";
import { Segments } from "../maps/Segments";
import type { Store } from "../state/store";
import { type Comparing, choose } from "./comparing";
import { shown } from "./LayerList";
import {
  type Bytes,
  changeScale,
  orderOf,
  type Palette,
  type Plates,
  panned,
  pixels,
  sideScale,
  under,
  WHOLE,
  zoomed,
} from "./rows";

const FIRST_CHANNELS = 60;
const STEP = 1.3;

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

interface Seen {
  store: Store;
  comparing: Comparing;
  plates: Plates;
}

/** A, B − A and B of one channel: one pointer, one enlargement, one place for all three. */
function Three({ store, comparing, plates }: Seen) {
  const { view } = store;
  const channel = comparing.channel.value;
  const palette: Palette = { colormap: view.colormap.value, sign: view.sign.value, range: view.range.value };
  const sides = sideScale(plates, channel, palette);
  const change = changeScale(plates, channel, palette.range);
  const hasB = channel < plates.b.low.length;
  const partner = plates.partner?.[channel];
  const fit = plates.fit?.[channel] ?? 0;
  const word = plates.kind === "maps" ? `channel ${channel}` : plates.kind;
  return (
    <div class="nn-compare-three" data-kind={plates.kind} data-channel={channel}>
      <Plate
        {...{ store, comparing, plates, channel }}
        side="A"
        bytes={plates.a}
        tile={plates.tile.a}
        shape={plates.shape.a}
        scale={sides}
        label={`A: ${word}`}
      />
      {plates.d && change ? (
        <Plate
          {...{ store, comparing, plates, channel }}
          side="B − A"
          bytes={plates.d}
          tile={plates.tile.a}
          shape={plates.shape.a}
          scale={change}
          label={`difference: ${word}`}
        />
      ) : (
        <p class="nn-compare-none nn-soft">other sizes, no difference</p>
      )}
      {hasB ? (
        <Plate
          {...{ store, comparing, plates, channel }}
          side="B"
          bytes={plates.b}
          tile={plates.tile.b}
          shape={plates.shape.b}
          scale={sides}
          label={`B: ${word}`}
          note={
            partner === undefined
              ? ""
              : partner < 0
                ? "no channel goes with it"
                : `channel ${partner} · r ${fit.toFixed(2).replace("-", "−")}`
          }
        />
      ) : (
        <p class="nn-compare-none nn-soft">B has {plates.channelsB} channels</p>
      )}
      <Readout comparing={comparing} plates={plates} channel={channel} word={word} />
    </div>
  );
}

interface PlateProps extends Seen {
  channel: number;
  side: "A" | "B" | "B − A";
  bytes: Bytes;
  tile: [number, number];
  shape: [number, number];
  scale: Scale;
  label: string;
  note?: string;
}

function Plate({
  store,
  comparing,
  plates,
  channel,
  side,
  bytes,
  tile,
  shape,
  scale,
  label,
  note,
}: PlateProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const drag = useRef<{ x: number; y: number; moved: boolean } | null>(null);
  const [h, w] = tile;
  const { from, to, colormap, sign } = scale;
  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context || h * w === 0) return;
    const image = new ImageData(w, h);
    new Uint32Array(image.data.buffer).set(pixels(bytes, tile, channel, scale));
    context.putImageData(image, 0, 0);
  }, [bytes, channel, h, w, from, to, colormap, sign]);
  const at = comparing.window.value;
  const spot = comparing.spot.value;
  const [rows, columns] = shape;
  const [ownRows, ownColumns] = plates.shape.a;
  const place = (event: MouseEvent): [number, number] => {
    const frame = (event.currentTarget as HTMLElement).getBoundingClientRect();
    return [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
  };
  const look = (event: MouseEvent) => {
    comparing.spot.value = under(at, ...place(event), ownRows, ownColumns);
    comparing.values();
  };
  return (
    <figure class="nn-compare-plate" data-side={side}>
      <figcaption>
        <b data-side={side}>{side}</b>
        {note && <span class="nn-soft">{note}</span>}
      </figcaption>
      <div
        class="nn-compare-frame"
        role="img"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: arrow keys move the place, + and - enlarge
        tabIndex={0}
        aria-label={`${label}, ${rows} by ${columns}; arrow keys move the place, plus and minus enlarge`}
        style={{ aspectRatio: plates.kind === "maps" ? `${columns} / ${rows}` : undefined }}
        data-enlarged={at.times > 1}
        onWheel={(event) => {
          event.preventDefault();
          event.stopPropagation();
          comparing.window.value = zoomed(at, event.deltaY < 0 ? STEP : 1 / STEP, ...place(event));
        }}
        onPointerDown={(event) => {
          event.currentTarget.setPointerCapture(event.pointerId);
          drag.current = { x: event.clientX, y: event.clientY, moved: false };
        }}
        onPointerMove={(event) => {
          const { width, height } = event.currentTarget.getBoundingClientRect();
          const held = drag.current;
          if (held && at.times > 1) {
            const [dx, dy] = [event.clientX - held.x, event.clientY - held.y];
            if (!held.moved && Math.hypot(dx, dy) < 4) return;
            drag.current = { x: event.clientX, y: event.clientY, moved: true };
            comparing.window.value = panned(at, dx / width, dy / height);
            return;
          }
          look(event);
        }}
        onPointerUp={(event) => {
          const moved = drag.current?.moved;
          drag.current = null;
          if (moved || plates.kind !== "maps" || plates.node !== comparing.node.peek()) return;
          const [y, x] = under(at, ...place(event), ownRows, ownColumns);
          choose(store, plates.node, channel, unit(plates, y, x));
        }}
        onPointerLeave={() => {
          if (!drag.current) comparing.spot.value = null;
        }}
        onDblClick={() => {
          comparing.window.value = WHOLE;
        }}
        onFocus={() => {
          comparing.spot.value ??= [Math.floor(ownRows / 2), Math.floor(ownColumns / 2)];
          comparing.values();
        }}
        onBlur={() => {
          comparing.spot.value = null;
        }}
        onKeyDown={(event) => {
          if (!steer(event, comparing, plates)) return;
          event.preventDefault();
          event.stopPropagation();
        }}
      >
        <canvas
          ref={canvas}
          width={w}
          height={h}
          style={{
            transform: `scale(${at.times}) translate(${-100 * at.x}%, ${-100 * at.y}%)`,
          }}
        />
        {spot && (
          <i
            class="nn-compare-spot"
            style={{
              left: `${100 * (spot[1] / ownColumns - at.x) * at.times}%`,
              top: `${100 * (spot[0] / ownRows - at.y) * at.times}%`,
              width: `max(7px, ${(100 * at.times) / ownColumns}%)`,
              height: `max(7px, ${(100 * at.times) / ownRows}%)`,
            }}
          />
        )}
      </div>
      <Scales scale={scale} />
    </figure>
  );
}

/** The colours of a map with the values at their ends. */
function Scales({ scale }: { scale: Scale }) {
  const ends = scale.from === scale.to ? [scale.from] : [scale.from, scale.to];
  return (
    <div class="nn-compare-scale" aria-hidden="true">
      {ends.map((value, i) => (
        <span key={i}>{short(value)}</span>
      ))}
    </div>
  );
}

/** The unit of the activation at a place of the plane, as the selection names it. */
function unit(plates: Plates, y: number, x: number): [number, number] {
  return plates.skip < 0 ? [y, x] : [plates.skip + y * plates.shape.a[1] + x, 0];
}

function steer(event: KeyboardEvent, comparing: Comparing, plates: Plates): boolean {
  if (event.ctrlKey || event.altKey || event.metaKey) return false;
  const [rows, columns] = plates.shape.a;
  const [y, x] = comparing.spot.peek() ?? [Math.floor(rows / 2), Math.floor(columns / 2)];
  const far = event.shiftKey ? 10 : 1;
  const moves: Record<string, [number, number]> = {
    ArrowUp: [-far, 0],
    ArrowDown: [far, 0],
    ArrowLeft: [0, -far],
    ArrowRight: [0, far],
  };
  const move = moves[event.key];
  const clamp = (value: number, n: number) => Math.min(n - 1, Math.max(0, value));
  if (move) {
    comparing.spot.value = [clamp(y + move[0], rows), clamp(x + move[1], columns)];
    comparing.values();
    return true;
  }
  const factor = { "+": STEP, "=": STEP, "-": 1 / STEP, "0": 0 }[event.key];
  if (factor === undefined) return false;
  const at = comparing.window.peek();
  const share = (cell: number, count: number, start: number) => ((cell + 0.5) / count - start) * at.times;
  comparing.window.value = zoomed(at, factor, share(x, columns, at.x), share(y, rows, at.y));
  return true;
}

interface ReadoutProps {
  comparing: Comparing;
  plates: Plates;
  channel: number;
  word: string;
}

/** The values at the place of all three. */
function Readout({ comparing, plates, channel, word }: ReadoutProps) {
  const spot = comparing.spot.value;
  const raw = comparing.raw.value;
  const times = comparing.window.value.times;
  if (!spot) {
    return (
      <p class="nn-compare-read nn-soft">
        {word}
        {plates.channels > 1 && plates.kind === "maps" && ` of ${plates.channels}`}
        {times > 1 ? ` · ×${times.toFixed(1)}, Esc for the whole` : " · wheel enlarges all three"}
      </p>
    );
  }
  const [y, x] = spot;
  const at = y * plates.shape.a[1] + x;
  const held = raw?.key === `${plates.key}|${channel}` ? raw : null;
  const same = plates.d !== null;
  const [a, b] = [held?.a[at], same ? held?.b?.[at] : undefined];
  return (
    <p class="nn-compare-read" data-role="read" data-exact={held !== null}>
      <span class="nn-soft">
        {word} ({plates.kind === "vector" ? x : `${y}, ${x}`})
      </span>
      <span>
        <b data-side="A">A</b> {a === undefined ? "…" : signed(a)}
      </span>
      {same && (
        <>
          <span>
            <b data-side="B">B</b> {b === undefined ? "…" : signed(b)}
          </span>
          <span>
            <b>B − A</b> {a === undefined || b === undefined ? "…" : signed(b - a)}
          </span>
        </>
      )}
    </p>
  );
}

/** All channels as small triples. */
function Channels({ store, comparing, plates }: Seen) {
  const [all, setAll] = useState(false);
  const { view } = store;
  const order = useMemo(() => orderOf(plates, comparing.order.value), [plates, comparing.order.value]);
  const chosen = comparing.channel.value;
  const palette: Palette = { colormap: view.colormap.value, sign: view.sign.value, range: view.range.value };
  const shownNow = all ? order : order.subarray(0, FIRST_CHANNELS);
  return (
    <section class="nn-compare-channels" aria-label="channels">
      <header>
        <h4>
          {plates.channels} channels: A <span class="nn-soft">| B − A |</span> B
        </h4>
        <Segments
          label="order"
          value={comparing.order.value}
          options={[
            ["changed", "changed most"],
            ["index", "index"],
          ]}
          onChoose={(one) => {
            comparing.order.value = one;
          }}
        />
        <Segments
          label="range"
          value={palette.range}
          options={[
            ["channel", "per channel"],
            ["layer", "shared"],
          ]}
          onChoose={(one) => {
            view.range.value = one;
          }}
        />
      </header>
      <div class="nn-compare-triples">
        {Array.from(shownNow, (channel) => (
          <Triple
            key={channel}
            plates={plates}
            channel={channel}
            palette={palette}
            chosen={channel === chosen}
            onChoose={() => choose(store, plates.node, channel)}
          />
        ))}
      </div>
      {!all && order.length > FIRST_CHANNELS && (
        <button type="button" class="nn-chip" onClick={() => setAll(true)}>
          all {order.length} channels
        </button>
      )}
    </section>
  );
}

interface TripleProps {
  plates: Plates;
  channel: number;
  palette: Palette;
  chosen: boolean;
  onChoose(): void;
}

function Triple({ plates, channel, palette, chosen, onChoose }: TripleProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [h, w] = plates.tile.a;
  const [hb, wb] = plates.tile.b;
  const gap = Math.max(1, Math.round(w / 14));
  const parts = plates.d ? 3 : 2;
  const { colormap, sign, range } = palette;
  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context || h * w === 0) return;
    context.clearRect(0, 0, canvas.current?.width ?? 0, h);
    const put = (bytes: Bytes, size: [number, number], scale: Scale, x: number) => {
      const image = new ImageData(size[1], size[0]);
      new Uint32Array(image.data.buffer).set(pixels(bytes, size, channel, scale));
      context.putImageData(image, x, 0);
    };
    const scale = sideScale(plates, channel, palette);
    const change = changeScale(plates, channel, range);
    put(plates.a, [h, w], scale, 0);
    if (plates.d && change) put(plates.d, [h, w], change, w + gap);
    if (channel < plates.b.low.length) put(plates.b, [hb, wb], scale, (parts - 1) * (w + gap));
  }, [plates, channel, colormap, sign, range]);
  const strength = plates.strength?.[channel];
  const partner = plates.partner?.[channel];
  const words = [
    `channel ${channel}`,
    partner !== undefined && (partner < 0 ? "no channel of B goes with it" : `with channel ${partner} of B`),
    strength !== undefined && `changes by ${short(strength)} on average`,
  ].filter(Boolean);
  return (
    <button
      type="button"
      class="nn-compare-triple"
      data-channel={channel}
      aria-pressed={chosen}
      aria-label={words.join(", ")}
      title={words.join("\n")}
      onClick={onChoose}
    >
      <canvas ref={canvas} width={parts * w + (parts - 1) * gap} height={Math.max(h, hb)} />
      <span>
        {channel}
        {partner !== undefined && partner >= 0 && <small> ↔ {partner}</small>}
      </span>
    </button>
  );
}

const SHOWN_ENTRIES = 16;

/** The entries of a vector that differ most, as pairs of bars. */
function Entries({ comparing, plates }: { comparing: Comparing; plates: Plates }) {
  useLayoutEffect(() => {
    comparing.values();
  }, [comparing, plates]);
  const raw = comparing.raw.value;
  const held = raw?.key === `${plates.key}|0` ? raw : null;
  const b = held?.b;
  if (!held || !b || b.length !== held.a.length) return null;
  const { a } = held;
  const order = Array.from(a.keys()).sort(
    (i, j) => Math.abs((b[j] as number) - (a[j] as number)) - Math.abs((b[i] as number) - (a[i] as number)),
  );
  let reach = 1e-30;
  for (const list of [a, b]) for (const value of list) reach = Math.max(reach, Math.abs(value));
  return (
    <section class="nn-compare-entries" aria-label="entries that changed most">
      <h4>
        {a.length > SHOWN_ENTRIES ? `${SHOWN_ENTRIES} of ${a.length} entries that changed most` : "entries"}
      </h4>
      {order.slice(0, SHOWN_ENTRIES).map((i) => (
        <div
          key={i}
          class="nn-compare-entry"
          data-entry={i}
          title={`A ${signed(a[i] as number)}, B ${signed(b[i] as number)}`}
        >
          <span>{i}</span>
          <span class="nn-compare-signed" aria-hidden="true">
            {(["A", "B"] as const).map((side) => {
              const value = ((side === "A" ? a : b)[i] as number) / reach;
              const style =
                value < 0
                  ? { right: "50%", width: `${-50 * value}%` }
                  : { left: "50%", width: `${50 * value}%` };
              return <i key={side} data-side={side} style={style} />;
            })}
          </span>
          <b>{signed((b[i] as number) - (a[i] as number))}</b>
        </div>
      ))}
    </section>
  );
}
