// One of the three pictures: the pointer, the wheel and the keys move the place and the enlargement of all of them.

import { useLayoutEffect, useRef } from "preact/hooks";
import { short } from "../maps/format";
import type { Scale } from "../maps/lut";
import type { Store } from "../state/store";
import { type Comparing, choose } from "./comparing";
import { type Bytes, type Plates, panned, pixels, under, WHOLE, zoomed } from "./rows";

const STEP = 1.3;

export interface Seen {
  store: Store;
  comparing: Comparing;
  plates: Plates;
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

export function Plate({
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
