// What the panel draws, whatever the layer returned: a stack of planes of bytes. A convolution's maps are planes as
// they are; a sequence of patch tokens becomes one plane per feature by laying the tokens out on their grid.
// Coordinates of a plane are those of the activation, also where the tiles were reduced.

import type { Maps } from "../state/data";

export interface Planes {
  key: string;
  /** What a plane is called: a channel, or a feature of all tokens. */
  word: "channel" | "feature";
  node: string;
  count: number;
  /** Height and width of the pictures in `bytes`. */
  tile: [number, number];
  /** Height and width in the activation's own pixels. */
  shape: [number, number];
  bytes: Uint8Array;
  low: Float32Array;
  high: Float32Array;
  strength: Float32Array;
  /** Channels whose bytes are here. */
  loaded: number;
  bad: ReadonlyMap<number, number>;
  /** Tokens that stand on no plane, such as a class token: they come before the others. */
  extra: number;
  /** First byte of a channel. */
  start(channel: number): number;
  /** The place in words. */
  name(y: number, x: number): string;
  /** What the store calls this place of a plane. */
  unit(y: number, x: number): [number, number];
  /** Back from there; null where the unit is on no plane (a class token). */
  spot(unit: readonly [number, number]): [y: number, x: number] | null;
  /** Index of this place in a channel's raw values. */
  raw(y: number, x: number): number;
}

export function planesOf(maps: Maps): Planes | null {
  if (maps.kind === "maps") return stack(maps);
  if (maps.kind === "tokens" && maps.grid) return patches(maps);
  return null;
}

function common(maps: Maps) {
  const { key, node, low, high, strength, loaded, bad } = maps;
  return { key, node, low, high, strength, loaded, bad, bytes: maps.tiles, count: low.length };
}

function stack(maps: Maps): Planes {
  const [, rows, columns] = maps.shape;
  const [h, w] = maps.tile;
  return {
    ...common(maps),
    word: "channel",
    extra: 0,
    tile: [h, w],
    shape: [rows, columns],
    start: (channel) => channel * h * w,
    name: (y, x) => `${y}, ${x}`,
    unit: (y, x) => [y, x],
    spot: ([y, x]) => [y, x],
    raw: (y, x) => y * columns + x,
  };
}

function patches(maps: Maps): Planes {
  const { rows, cols, skip } = maps.grid as NonNullable<Maps["grid"]>;
  const tokens = maps.tile[0] * maps.tile[1];
  return {
    ...common(maps),
    word: "feature",
    extra: skip,
    tile: [rows, cols],
    shape: [rows, cols],
    start: (channel) => channel * tokens + skip,
    name: (y, x) => `${y}, ${x} · token ${skip + y * cols + x}`,
    unit: (y, x) => [skip + y * cols + x, 0],
    spot: ([token]) => {
      const patch = token - skip;
      return patch >= 0 && patch < rows * cols ? [Math.floor(patch / cols), patch % cols] : null;
    },
    raw: (y, x) => skip + y * cols + x,
  };
}

/** The byte drawn at a place of a plane. */
export function byteAt(planes: Planes, channel: number, y: number, x: number): number {
  const [h, w] = planes.tile;
  const [rows, columns] = planes.shape;
  const row = Math.min(h - 1, Math.floor((y * h) / rows));
  const column = Math.min(w - 1, Math.floor((x * w) / columns));
  return planes.bytes[planes.start(channel) + row * w + column] ?? 0;
}

/** A value in words: exact from the raw floats, otherwise about what the byte says. */
export interface Reading {
  value: number;
  exact: boolean;
}

export function read(
  planes: Planes,
  channel: number,
  y: number,
  x: number,
  raw: Float32Array | null,
): Reading {
  const exact = raw?.[planes.raw(y, x)];
  if (exact !== undefined) return { value: exact, exact: true };
  const [low = 0, high = 0] = [planes.low[channel], planes.high[channel]];
  return { value: low + (byteAt(planes, channel, y, x) / 255) * (high - low), exact: low === high };
}

/** The value of an extra token for one feature. */
export function readExtra(planes: Planes, channel: number, token: number, raw: Float32Array | null): Reading {
  const exact = raw?.[token];
  if (exact !== undefined) return { value: exact, exact: true };
  const [low = 0, high = 0] = [planes.low[channel], planes.high[channel]];
  const byte = planes.bytes[planes.start(channel) - planes.extra + token] ?? 0;
  return { value: low + (byte / 255) * (high - low), exact: low === high };
}

export interface Summary {
  /** Shares of the bytes in equal steps from low to high. */
  bins: number[];
  /** Fraction of zeros, null where bytes cannot tell. */
  zeros: number | null;
}

const BINS = 32;

/** A small histogram of one plane, from its bytes; zeros are counted in the raw values where they are here. */
export function summarize(planes: Planes, channel: number, raw: Float32Array | null): Summary {
  const [h, w] = planes.tile;
  const start = planes.start(channel);
  const bins = new Array<number>(BINS).fill(0);
  for (let i = start; i < start + h * w; i++) {
    const bin = (planes.bytes[i] as number) >> 3;
    bins[bin] = (bins[bin] as number) + 1;
  }
  return { bins, zeros: raw ? fractionOfZeros(raw) : null };
}

function fractionOfZeros(values: Float32Array): number {
  let zeros = 0;
  for (const value of values) if (value === 0) zeros++;
  return values.length > 0 ? zeros / values.length : 0;
}
