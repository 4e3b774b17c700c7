// All maps of a layer on one canvas. Only rows in sight are painted and only their tiles exist as elements: buttons
// without a face, there for focus, labels and pointers. Every tile is painted in the turn in which its bytes came.

import { useComputed } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Store } from "../state/store";
import { markedSpot, Scrubbing } from "./choose";
import { lut, scales } from "./lut";
import { paintTile, Surface } from "./paint";
import type { Planes } from "./planes";
import { layout, ordered, pixelAt, place, positions, reveal, rowsIn, type Sheet, SMALLEST } from "./sheet";

interface Props {
  store: Store;
  layer: string;
  planes: Planes | null;
  /** What to keep room for while nothing is here yet. */
  expected: { count: number; map: [number, number] } | null;
  /** The planes are those of the selected layer and run, all of them. */
  settled: boolean;
  painted(done: boolean): void;
}

const MORE_ROWS = 2;
const LABEL_FROM = 26;

export function SheetView({ store, layer, planes, expected, settled, painted }: Props) {
  const { view, synced } = store;
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const surface = useRef(new Surface());
  const [area, setArea] = useState({ width: 0, height: 0 });
  const [topRow, setTopRow] = useState(0);
  const scrolled = useRef(0);
  const dpr = window.devicePixelRatio || 1;

  const count = planes?.count ?? expected?.count ?? 0;
  const map = planes?.shape ?? expected?.map ?? [1, 1];
  const size = view.tile.value;
  const sheet = useMemo(
    () => layout({ count, width: area.width, size, map: [map[0], map[1]], dpr }),
    [count, area.width, size, map[0], map[1], dpr],
  );
  const order = view.order.value;
  const strength = planes?.strength;
  const channels = useMemo(
    () => (strength ? ordered(strength, order) : Int32Array.from({ length: count }, (_, i) => i)),
    [strength, order, count],
  );
  const pitch = sheet.height + sheet.gap;
  const rows = rowsIn(sheet, topRow * pitch, area.height, MORE_ROWS);
  const span = positions(sheet, rows);
  const bandTop = rows.first * pitch;
  const bandHeight = Math.max(0, (rows.end - rows.first) * pitch - sheet.gap);
  const [colormap, sign, range] = [view.colormap.value, view.sign.value, view.range.value];

  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const inner = element.firstElementChild as HTMLElement;
    const measure = () => setArea({ width: inner.clientWidth, height: element.clientHeight });
    measure();
    const watch = new ResizeObserver(measure);
    watch.observe(element);
    watch.observe(inner);
    return () => watch.disconnect();
  }, []);

  const complete = useRef(false);
  useLayoutEffect(() => {
    complete.current = false;
    const target = canvas.current;
    if (!target || !planes || area.width === 0) return;
    const scale = scales(planes.low, planes.high, range, sign, colormap);
    const pixels = (length: number) => Math.round(length * dpr);
    const memory = surface.current.open(target, pixels(area.width), pixels(bandHeight));
    const [height, width] = planes.tile;
    complete.current = span.to > span.from;
    for (let position = span.from; position < span.to; position++) {
      const channel = channels[position] as number;
      if (channel >= planes.loaded) {
        complete.current = false;
        continue;
      }
      const { x, y } = place(sheet, position);
      paintTile(
        memory,
        { bytes: planes.bytes, start: planes.start(channel), height, width },
        { x: pixels(x), y: pixels(y - bandTop), width: pixels(sheet.width), height: pixels(sheet.height) },
        lut(planes.low[channel] as number, planes.high[channel] as number, scale(channel)),
      );
    }
    surface.current.close(target);
  }, [planes, channels, sheet, span.from, span.to, colormap, sign, range, dpr]);

  // In a second step: maps that wait for those of another layer are not painted once more for that.
  useLayoutEffect(() => painted(settled && complete.current));

  // First the picture of a layer, then what can be touched of it.
  const [touchable, setTouchable] = useState<string | null>(null);
  useEffect(() => setTouchable(planes?.node ?? null), [planes?.node]);

  const selected = synced.selection.value.channel;
  useLayoutEffect(() => {
    // Asking the element itself where it stands would cost a layout at every click.
    if (scrolled.current > 0 && box.current) box.current.scrollTop = 0;
    scrolled.current = 0;
    setTopRow(0);
  }, [layer]);
  useLayoutEffect(() => {
    const element = box.current;
    if (!element || selected === null || area.height === 0) return;
    const position = channels.indexOf(selected);
    if (position < 0) return;
    const top = reveal(sheet, position, scrolled.current, area.height);
    if (top !== scrolled.current) element.scrollTop = top;
  }, [selected, channels, sheet, area.height]);

  useZoomWheel(store, box, sheet);
  const pointer = usePointer(store, planes);
  const notes = planes ? notesOf(planes, channels, span) : "";
  // The bytes of maps change with every frame while somebody paints, what can be touched of them does not.
  const buttons = useMemo(
    () =>
      Array.from({ length: planes && touchable === planes.node ? span.to - span.from : 0 }, (_, i) => {
        const position = span.from + i;
        const channel = channels[position] as number;
        if (!planes || channel >= planes.loaded) return null;
        return (
          <Tile
            key={channel}
            store={store}
            planes={planes}
            sheet={sheet}
            position={position}
            channel={channel}
            pressed={channel === selected}
            first={selected === null ? position === span.from : channel === selected}
          />
        );
      }),
    [store, planes?.node, planes?.loaded, notes, touchable, sheet, channels, span.from, span.to, selected],
  );

  return (
    <div
      class="nn-sheet"
      data-light={colormap === "diverging"}
      ref={box}
      onScroll={(event) => {
        scrolled.current = event.currentTarget.scrollTop;
        setTopRow(Math.floor(scrolled.current / pitch));
      }}
    >
      {/* biome-ignore lint/a11y/noStaticElementInteractions: the tiles inside are buttons; this hears them together */}
      <div class="nn-sheet-all" style={{ height: `${sheet.total}px` }} {...pointer} onKeyDown={walk}>
        <canvas
          ref={canvas}
          class="nn-crisp"
          style={{ top: `${bandTop}px`, width: `${area.width}px`, height: `${bandHeight}px` }}
        />
        {(planes?.loaded ?? 0) < count && <Ghosts sheet={sheet} top={bandTop} height={bandHeight} />}
        {buttons}
      </div>
    </div>
  );
}

/** Where tiles will be: one element for all of them, with the sheet's columns and rows cut out of it. */
function Ghosts({ sheet, top, height }: { sheet: Sheet; top: number; height: number }) {
  const { columns, gap } = sheet;
  const [across, down] = [sheet.width + gap, sheet.height + gap];
  const style = {
    top: `${top}px`,
    width: `${columns * across - gap}px`,
    height: `${height}px`,
    maskImage: [
      `repeating-linear-gradient(90deg, #000 0 ${sheet.width}px, transparent 0 ${across}px)`,
      `repeating-linear-gradient(#000 0 ${sheet.height}px, transparent 0 ${down}px)`,
    ].join(),
    maskComposite: "intersect",
  };
  return <div class="nn-ghost" style={style} />;
}

/** What the buttons say of these channels, as one text that changes when it does. */
function notesOf(planes: Planes, channels: Int32Array, span: { from: number; to: number }): string {
  const notes = [planes.word, ...planes.shape].map(String);
  for (let position = span.from; position < span.to; position++) {
    const channel = channels[position] as number;
    notes.push(`${planes.bad.get(channel) ?? 0}${planes.low[channel] === planes.high[channel]}`);
  }
  return notes.join();
}

interface TileProps {
  store: Store;
  planes: Planes;
  sheet: Sheet;
  position: number;
  channel: number;
  pressed: boolean;
  /** The one that Tab reaches; arrows go on from there. */
  first: boolean;
}

function Tile({ store, planes, sheet, position, channel, pressed, first }: TileProps) {
  const { x, y } = place(sheet, position);
  const style = { left: `${x}px`, top: `${y}px`, width: `${sheet.width}px`, height: `${sheet.height}px` };
  const bad = planes.bad.get(channel) ?? 0;
  const flat = planes.low[channel] === planes.high[channel];
  const note = bad > 0 ? `, ${bad} values NaN or infinite` : flat ? ", constant" : "";
  return (
    <button
      type="button"
      class="nn-tile"
      data-channel={channel}
      data-note={bad > 0 ? "bad" : flat ? "flat" : undefined}
      style={style}
      tabIndex={first ? 0 : -1}
      aria-pressed={pressed}
      aria-label={`${planes.word} ${channel}${note}`}
      onFocus={() => {
        store.view.announce.value = `${planes.word} ${channel}${note}`;
      }}
    >
      {sheet.width >= LABEL_FROM && sheet.height >= 16 && <span>{channel}</span>}
      {pressed && <TileMark store={store} planes={planes} />}
    </button>
  );
}

function TileMark({ store, planes }: { store: Store; planes: Planes }) {
  const spot = useComputed(() => markedSpot(store, planes)).value;
  if (!spot) return null;
  const [rows, columns] = planes.shape;
  const at = { left: `${(100 * (spot.x + 0.5)) / columns}%`, top: `${(100 * (spot.y + 0.5)) / rows}%` };
  return <i class="nn-tile-mark" style={at} />;
}

/** Pointers on the sheet: hover tells, press and drag scrub, double click enlarges; Enter on a tile chooses it. */
function usePointer(store: Store, planes: Planes | null) {
  const current = useRef(planes);
  current.current = planes;
  const scrubbing = useMemo(() => new Scrubbing(store, () => current.current), [store]);
  const { view } = store;

  function tileOf(event: Event): HTMLElement | null {
    return (event.target as HTMLElement).closest<HTMLElement>("[data-channel]");
  }

  function at(tile: HTMLElement) {
    const channel = Number(tile.dataset.channel);
    return (event: PointerEvent): [number, number] => {
      // The element of a channel may be drawn anew while the pointer drags.
      const live = tile.isConnected ? tile : tile.ownerDocument.querySelector(`[data-channel="${channel}"]`);
      const { left, top, width, height } = (live ?? tile).getBoundingClientRect();
      const [rows, columns] = current.current?.shape ?? [1, 1];
      return pixelAt((event.clientX - left) / width, (event.clientY - top) / height, rows, columns);
    };
  }

  return {
    onPointerDown(event: PointerEvent) {
      const tile = tileOf(event);
      if (!tile || !current.current || event.ctrlKey || event.metaKey) return;
      scrubbing.press(event, tile, Number(tile.dataset.channel), at(tile));
    },
    onPointerMove(event: PointerEvent) {
      if (scrubbing.on) return scrubbing.move(event);
      const tile = tileOf(event);
      if (!tile || !current.current) {
        view.spot.value = null;
        return;
      }
      const channel = Number(tile.dataset.channel);
      const [y, x] = at(tile)(event);
      const before = view.spot.peek();
      if (before?.channel !== channel || before.y !== y || before.x !== x)
        view.spot.value = { channel, y, x };
    },
    onPointerUp: (event: PointerEvent) => scrubbing.release(event),
    onPointerCancel: (event: PointerEvent) => scrubbing.release(event, true),
    onPointerLeave() {
      if (!scrubbing.on) view.spot.value = null;
    },
    onClick(event: MouseEvent) {
      // A click without a pointer comes from the keyboard or from a screen reader.
      const tile = tileOf(event);
      if (tile && event.detail === 0) store.selectChannel(Number(tile.dataset.channel));
    },
    onDblClick(event: MouseEvent) {
      if (tileOf(event)) view.zoom.value = true;
    },
  };
}

/** Arrows go from tile to tile as they stand on the sheet. */
function walk(event: KeyboardEvent): void {
  const here = (event.target as HTMLElement).closest<HTMLElement>("[data-channel]");
  if (!here || !event.key.startsWith("Arrow") || event.ctrlKey || event.altKey || event.metaKey) return;
  const from = here.getBoundingClientRect();
  const middle = from.left + from.width / 2;
  let best: HTMLElement | null = null;
  let least = Number.POSITIVE_INFINITY;
  for (const tile of here.parentElement?.querySelectorAll<HTMLElement>("[data-channel]") ?? []) {
    const { left, top, width } = tile.getBoundingClientRect();
    const dx = left + width / 2 - middle;
    const dy = top - from.top;
    const ahead = { ArrowLeft: -dx, ArrowRight: dx, ArrowUp: -dy, ArrowDown: dy }[event.key] ?? 0;
    const sideways = event.key === "ArrowLeft" || event.key === "ArrowRight" ? Math.abs(dy) : Math.abs(dx);
    if (ahead > 1 && sideways < 1 && ahead < least) [best, least] = [tile, ahead];
  }
  if (!best) return;
  event.preventDefault();
  event.stopPropagation();
  best.focus({ preventScroll: true });
  best.scrollIntoView({ block: "nearest" });
}

/** Ctrl with the wheel, and the pinch of a trackpad: larger or smaller tiles, the row under the pointer stays. */
function useZoomWheel(store: Store, box: { current: HTMLDivElement | null }, sheet: Sheet) {
  const now = useRef(sheet);
  const anchor = useRef<{ position: number; offset: number } | null>(null);
  now.current = sheet;

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const onWheel = (event: WheelEvent) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const { tile } = store.view;
      const wish = tile.peek() * Math.exp(-event.deltaY * (event.deltaMode === 1 ? 0.05 : 0.004));
      const next = Math.min(Math.max(wish, SMALLEST), now.current.room);
      if (next === tile.peek()) return;
      const offset = event.clientY - element.getBoundingClientRect().top;
      const { columns, height, gap } = now.current;
      const row = Math.max(0, Math.floor((element.scrollTop + offset) / (height + gap)));
      anchor.current ??= { position: row * columns, offset };
      tile.value = next;
    };
    element.addEventListener("wheel", onWheel, { passive: false });
    return () => element.removeEventListener("wheel", onWheel);
  }, [store]);

  useLayoutEffect(() => {
    const held = anchor.current;
    if (!held || !box.current) return;
    anchor.current = null;
    const { y } = place(sheet, Math.min(held.position, sheet.count - 1));
    box.current.scrollTop = Math.max(0, y + sheet.height / 2 - held.offset);
  }, [sheet]);
}
