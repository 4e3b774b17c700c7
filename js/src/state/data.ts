// What came from the kernel, in the form that panels draw: one interface per picture, and how a picture that
// arrives in parts is put together.

import type { Box, Operations, Part, TileKind, TokenGrid } from "../wire/types";

/** The feature maps of one layer as they came: bytes per channel, and what the bytes mean. */
export interface Maps {
  key: string;
  node: string;
  kind: TileKind;
  /** Channels, height, width of the activation itself. */
  shape: [number, number, number];
  /** Height and width of a tile; smaller than the activation where it was reduced. */
  tile: [number, number];
  tiles: Uint8Array;
  low: Float32Array;
  high: Float32Array;
  strength: Float32Array;
  /** Channels whose bytes have arrived. */
  loaded: number;
  grid: TokenGrid | null;
  /** Channels that hold NaN or infinite values, and how many. */
  bad: ReadonlyMap<number, number>;
  ms: number;
  /** What they show, where that is not the activation. */
  of?: "influence";
  /** Of a frame while somebody draws: the run whose raw values can be read is another one. */
  live?: true;
  /** By how many interventions the network is changed whose maps they are. */
  changed?: number;
}

export interface Strip {
  node: string;
  kind: TileKind;
  channels: number[];
  size: number;
  /** count x size x size bytes, each tile normalised by itself. */
  tiles: Uint8Array;
}

export interface InputImage {
  sample: number;
  kind: "image" | "vector" | "other";
  height: number;
  width: number;
  rgb: Uint8Array;
}

export interface Saliency {
  key: string;
  node: string;
  unit: number[];
  value: number;
  /** Largest absolute value of each map: what a byte of 255 stands for. */
  scale: { signed: number; magnitude: number };
  /** The part of the input that was sent; zero outside. */
  box: Box;
  signed: Uint8Array;
  magnitude: Uint8Array;
  field: { box: Box; exact: boolean } | null;
  ms: number;
}

export interface Stats {
  node: string;
  channel: number | null;
  counts: Int32Array;
  edges: Float32Array;
  /** Null where there is no finite value. */
  mean: number | null;
  std: number | null;
  min: number | null;
  max: number | null;
  zeros: number;
  nan: number;
  inf: number;
  numel: number;
}

export interface PixelInfo {
  y: number;
  x: number;
  values: number[];
  saliency: number[] | null;
}

export interface Loadable<T> {
  state: "idle" | "loading" | "ready" | "error";
  data: T | null;
  progress?: { done: number; total: number; note?: string };
  error?: { message: string; hint?: string };
}

type Tiles = NonNullable<Part<"maps">["arrays"]["tiles"]>;

/** Adds one arriving part to the maps; the first part brings the description. */
export function collect(held: Maps | null, key: string, part: Part<"maps">, changed?: number): Maps | null {
  const { tiles } = part.arrays;
  const maps = held ?? (part.meta && tiles ? { ...blank(key, part.meta, tiles), changed } : null);
  if (!maps) return null;
  for (const name of ["low", "high", "strength"] as const) {
    const vector = part.arrays[name];
    if (vector) maps[name].set(vector.data, vector.start);
  }
  if (tiles) {
    const { start } = tiles;
    if (maps.tiles !== tiles.data) maps.tiles.set(tiles.data, start * maps.tile[0] * maps.tile[1]);
    maps.loaded = start + (tiles.shape[0] ?? 0);
  }
  return maps;
}

function blank(key: string, meta: Operations["maps"]["meta"], tiles: Tiles): Maps {
  const { total: channels } = tiles;
  const [rows = 0, h = 1, w = 1] = tiles.shape;
  return {
    key,
    node: meta.node,
    kind: meta.kind,
    shape: meta.shape,
    tile: [h, w],
    // What comes whole stays where it came.
    tiles: rows === channels ? tiles.data : new Uint8Array(channels * h * w),
    low: new Float32Array(channels),
    high: new Float32Array(channels),
    strength: new Float32Array(channels),
    loaded: 0,
    grid: meta.grid ?? null,
    bad: new Map(meta.bad.map(({ channel, count }) => [channel, count])),
    ms: meta.ms,
  };
}
