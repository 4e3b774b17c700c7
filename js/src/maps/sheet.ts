// The geometry of the sheet of feature maps: which channel stands where, and which rows are in sight.
// Pure: lengths are CSS pixels, `dpr` says how many device pixels one of them has.

import type { Order } from "../state/view";

export interface SheetWish {
  count: number;
  /** Width at hand. */
  width: number;
  /** The longer side a tile should have, about. */
  size: number;
  /** Height and width of a map in its own pixels. */
  map: [number, number];
  dpr: number;
}

export interface Sheet {
  count: number;
  /** Width at hand. */
  room: number;
  columns: number;
  rows: number;
  /** A tile. */
  width: number;
  height: number;
  gap: number;
  /** The whole sheet. */
  total: number;
}

export interface Rows {
  first: number;
  /** One past the last. */
  end: number;
}

export const SMALLEST = 18;
const NARROW_GAP = 4;
const EVEN_GAP = 6;
/** Device pixels per map pixel from which on an uneven one cannot be seen any more. */
const COARSE = 6;
const WIDE_GAP = 12;
/** A map of one row is drawn as a band of this height. */
const LEAST_SIDE = 18;

/** Channels in the order they are shown; equal strength keeps the lower index first, NaN comes last. */
export function ordered(strength: ArrayLike<number>, order: Order): Int32Array {
  const channels = Int32Array.from({ length: strength.length }, (_, i) => i);
  if (order === "index") return channels;
  const key = (c: number) => {
    const value = strength[c] as number;
    return Number.isNaN(value) ? Number.NEGATIVE_INFINITY : value;
  };
  return channels.sort((a, b) => key(b) - key(a) || a - b);
}

/**
 * The side in CSS pixels at which `cells` map pixels look crisp and that is nearest to `wish`: a whole number of
 * device pixels per map pixel, or of map pixels per device pixel.
 */
export function crisp(cells: number, wish: number, dpr: number): number {
  const device = Math.max(1, wish * dpr);
  if (device >= cells) {
    const factor = device / cells;
    return factor > COARSE ? Math.round(device) / dpr : (Math.round(factor) * cells) / dpr;
  }
  return Math.ceil(cells / Math.round(cells / device)) / dpr;
}

export function layout({ count, width, size, map, dpr }: SheetWish): Sheet {
  const [rows, columns] = map;
  const longest = Math.max(rows, columns, 1);
  const wish = Math.min(Math.max(size, SMALLEST), width);
  let side = crisp(longest, wish, dpr);
  if (side > width) side = Math.floor(wish * dpr) / dpr;
  if (side * dpr > COARSE * longest) {
    // Any size looks even: the tiles fill the width.
    const wide = columns / longest;
    const across = Math.max(1, Math.round((width + EVEN_GAP) / (wish * wide + EVEN_GAP)));
    side = Math.max(1, Math.floor(((width - (across - 1) * EVEN_GAP) / across / wide) * dpr) / dpr);
  }
  const along = (cells: number) =>
    Math.max(Math.round((side * cells * dpr) / longest) / dpr, Math.min(LEAST_SIDE, side));
  const tile = { width: along(columns), height: along(rows) };
  const across = Math.max(1, Math.floor((width + NARROW_GAP) / (tile.width + NARROW_GAP)));
  const spare = across > 1 ? Math.floor((width - across * tile.width) / (across - 1)) : NARROW_GAP;
  const gap = Math.max(NARROW_GAP, Math.min(WIDE_GAP, spare));
  const down = Math.ceil(count / across);
  return {
    count,
    room: width,
    columns: across,
    rows: down,
    ...tile,
    gap,
    total: Math.max(0, down * (tile.height + gap) - gap),
  };
}

/** Where the tile at a position of the order stands. */
export function place(sheet: Sheet, position: number): { x: number; y: number } {
  const row = Math.floor(position / sheet.columns);
  const column = position - row * sheet.columns;
  return { x: column * (sheet.width + sheet.gap), y: row * (sheet.height + sheet.gap) };
}

/** Rows that touch the window from `top` on, `height` high, and `more` rows on both sides. */
export function rowsIn(sheet: Sheet, top: number, height: number, more = 0): Rows {
  const pitch = sheet.height + sheet.gap;
  const first = Math.max(0, Math.floor((top + sheet.gap) / pitch) - more);
  const end = Math.min(sheet.rows, Math.ceil((top + height) / pitch) + more);
  return { first: Math.min(first, sheet.rows), end: Math.max(end, Math.min(first, sheet.rows)) };
}

/** Positions in the order that these rows hold. */
export function positions(sheet: Sheet, rows: Rows): { from: number; to: number } {
  return { from: rows.first * sheet.columns, to: Math.min(sheet.count, rows.end * sheet.columns) };
}

/** The scroll offset that brings a tile into sight, with a little room around it, as near to `top` as possible. */
export function reveal(sheet: Sheet, position: number, top: number, height: number): number {
  const { y } = place(sheet, position);
  const room = Math.min(2 * sheet.gap, Math.max(0, (height - sheet.height) / 2));
  if (y - room < top) return Math.max(0, y - room);
  if (y + sheet.height + room > top + height) return y + sheet.height + room - height;
  return top;
}

/** The map pixel under a point of a tile (fractions of its width and height), kept inside the map. */
export function pixelAt(fx: number, fy: number, rows: number, columns: number): [y: number, x: number] {
  const inside = (f: number, n: number) => Math.min(n - 1, Math.max(0, Math.floor(f * n)));
  return [inside(fy, rows), inside(fx, columns)];
}
