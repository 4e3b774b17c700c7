// A row of numbers and where they stand: values out of tiles, and the grid a long vector is wrapped into. Pure.

import type { Maps } from "../state/data";

export interface Row {
  values: Float32Array;
  exact: boolean;
}

/** The numbers of a vector layer; about right from the bytes until the raw ones are here. */
export function rowOf(maps: Maps, raw: Float32Array | null): Row {
  const { low, high, tiles } = maps;
  if (raw && raw.length === tiles.length) return { values: raw, exact: true };
  // One channel per entry: its range is its value.
  if (low.length === tiles.length) return { values: low, exact: true };
  const [least = 0, most = 0] = [low[0], high[0]];
  return { values: Float32Array.from(tiles, (byte) => least + (byte / 255) * (most - least)), exact: false };
}

/** Least and greatest finite value. */
export function rangeOf(values: Float32Array): [number, number] {
  let least = Number.POSITIVE_INFINITY;
  let most = Number.NEGATIVE_INFINITY;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (value < least) least = value;
    if (value > most) most = value;
  }
  return least <= most ? [least, most] : [0, 0];
}

export interface Grid {
  columns: number;
  rows: number;
  /** Side of a cell; cells are squares that fill the width. */
  cell: number;
}

/** Wraps a long vector into rows of a round number of cells, at most about as high as `height`. */
export function wrap(count: number, width: number, height: number): Grid {
  let columns = 16;
  while (Math.ceil(count / columns) * (width / columns) > height && width / columns > 4) columns *= 2;
  return { columns, rows: Math.ceil(count / columns), cell: width / columns };
}
