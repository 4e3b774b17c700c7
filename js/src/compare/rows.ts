// What the list of layers shows, and how the three maps of a layer become colours. Pure.

import { table, ZERO } from "../maps/colormaps";
import { lut, type Scale, scaleFor } from "../maps/lut";
import { ordered } from "../maps/sheet";
import type { Colormap, Range, Sign } from "../state/view";

/** A layer of A, the one of B that stands beside it, and how they were paired. */
export type Pair = [a: string, b: string, by: "path" | "order", group: boolean];

export type Measure = "cka" | "correlation" | "difference";

/** What was measured of each pair so far; NaN where there is nothing to tell. */
export interface Numbers {
  cka: Float32Array;
  difference: Float32Array;
  correlation: Float32Array;
  /** Index of a note, or -1. */
  note: Int32Array;
  measured: Uint8Array;
}

export interface Row {
  /** Of A; of B where only that has it. */
  id: string;
  /** Its place among the pairs; -1 where it has no partner. */
  pair: number;
  only: "A" | "B" | null;
  /** A heading: the part of the network that the rows below it are in. */
  heads: boolean;
}

/** Layers in A's order, those without a partner where they run, and at the end those that only B has. */
export function rowsOf(nodes: Iterable<string>, pairs: Pair[], only: [string[], string[]]): Row[] {
  const place = new Map(pairs.flatMap(([a, , , group], i) => (group ? [] : [[a, i] as const])));
  const lone = new Set(only[0]);
  const rows: Row[] = [];
  let part = "";
  const add = (id: string, pair: number, side: Row["only"]) => {
    const [path] = parts(id);
    const now = side === "B" ? "only in B" : path.slice(0, -1);
    if (now !== part && now !== "") rows.push({ id: now, pair: -1, only: null, heads: true });
    rows.push({ id, pair, only: side, heads: false });
    part = now;
  };
  for (const id of nodes) {
    const pair = place.get(id);
    if (pair !== undefined) add(id, pair, null);
    else if (lone.has(id)) add(id, -1, "A");
  }
  for (const id of only[1]) add(id, -1, "B");
  return rows;
}

/** The path before the last name of an id, and that name. */
export function parts(id: string): [path: string, name: string] {
  const at = Math.max(id.lastIndexOf("."), id.lastIndexOf("/"));
  return [id.slice(0, at + 1), id.slice(at + 1)];
}

/** How long the bar of a value is, from 0 to 1. */
export function bar(measure: Measure, value: number): number {
  if (!Number.isFinite(value)) return 0;
  return Math.min(1, measure === "correlation" ? Math.abs(value) : Math.max(0, value));
}

/** The three maps of every channel of a layer, as bytes with their ranges. */
export interface Plates {
  key: string;
  node: string;
  other: string;
  kind: "maps" | "tokens" | "vector";
  /** Height and width of a plane in its own pixels, and of its picture. */
  shape: { a: [number, number]; b: [number, number] };
  tile: { a: [number, number]; b: [number, number] };
  a: Bytes;
  b: Bytes;
  d: Bytes | null;
  channels: number;
  channelsB: number;
  /** Mean change of each channel; of maps that have none, nothing. */
  strength: Float32Array | null;
  partner: Int32Array | null;
  fit: Float32Array | null;
  /** Tokens before the patches; -1 where the planes are no tokens. */
  skip: number;
}

export interface Bytes {
  values: Uint8Array;
  low: Float32Array;
  high: Float32Array;
}

/** Channels in the order that is shown: what changed most first, or as they are. */
export function orderOf(plates: Plates, order: "changed" | "index"): Int32Array {
  const strength = plates.strength ?? new Float32Array(plates.channels);
  return ordered(strength, order === "changed" ? "strength" : "index");
}

export interface Palette {
  colormap: Colormap;
  sign: Sign;
  range: Range;
}

/** One scale for both sides of a channel: a colour means one value in A and in B. */
export function sideScale(plates: Plates, channel: number, { colormap, sign, range }: Palette): Scale {
  const [low, high] =
    range === "layer"
      ? [least(plates.a.low, plates.b.low), most(plates.a.high, plates.b.high)]
      : [
          Math.min(plates.a.low[channel] as number, plates.b.low[channel] ?? Number.POSITIVE_INFINITY),
          Math.max(plates.a.high[channel] as number, plates.b.high[channel] ?? Number.NEGATIVE_INFINITY),
        ];
  return scaleFor(low, high, sign, colormap);
}

/** The scale of a difference: red is more in B, blue less, white the same. */
export function changeScale(plates: Plates, channel: number, range: Range): Scale | null {
  const { d } = plates;
  if (!d) return null;
  const [low, high] =
    range === "layer" ? [least(d.low), most(d.high)] : [d.low[channel] as number, d.high[channel] as number];
  return scaleFor(low, high, "signed", "diverging");
}

function least(...lists: Float32Array[]): number {
  let found = Number.POSITIVE_INFINITY;
  for (const list of lists) for (const value of list) if (value < found) found = value;
  return found;
}

function most(...lists: Float32Array[]): number {
  let found = Number.NEGATIVE_INFINITY;
  for (const list of lists) for (const value of list) if (value > found) found = value;
  return found;
}

/** The pixels of one plane, as words for an ImageData. */
export function pixels(bytes: Bytes, size: [number, number], channel: number, scale: Scale): Uint32Array {
  const count = size[0] * size[1];
  const from = bytes.values.subarray(channel * count, (channel + 1) * count);
  const [low = 0, high = 0] = [bytes.low[channel], bytes.high[channel]];
  // A difference that is nothing anywhere is white, not the middle of an empty range.
  const flat = scale.colormap === "diverging" && !(scale.to > 0);
  const colours = lut(low, high, scale);
  const white = table("diverging")[ZERO] as number;
  return Uint32Array.from(from, (byte) => (flat ? white : (colours[byte] as number)));
}

/** What the page looks at of a plane: its left top corner as shares of the side, and how much it is enlarged. */
export interface Window {
  x: number;
  y: number;
  times: number;
}

export const WHOLE: Window = { x: 0, y: 0, times: 1 };
const CLOSEST = 16;

/** Enlarges around a point (shares of the frame), as far as there is anything to see. */
export function zoomed(at: Window, factor: number, fx: number, fy: number): Window {
  const times = Math.min(CLOSEST, Math.max(1, at.times * factor));
  if (times === 1) return WHOLE;
  return inside({ x: at.x + fx / at.times - fx / times, y: at.y + fy / at.times - fy / times, times });
}

/** Moves by shares of the frame. */
export function panned(at: Window, dx: number, dy: number): Window {
  return inside({ ...at, x: at.x - dx / at.times, y: at.y - dy / at.times });
}

function inside(at: Window): Window {
  const room = 1 - 1 / at.times;
  const clamp = (value: number) => Math.min(room, Math.max(0, value));
  return { x: clamp(at.x), y: clamp(at.y), times: at.times };
}

/** The pixel of a plane under a point of the frame. */
export function under(at: Window, fx: number, fy: number, rows: number, columns: number): [number, number] {
  const cell = (share: number, count: number) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
  return [cell(at.y + fy / at.times, rows), cell(at.x + fx / at.times, columns)];
}
