// The output of a layer as one picture whose every pixel is a number that can be taken apart: a channel of maps, a
// feature on its patches, tokens by features, or a vector wrapped into rows. Pure.

import { planesOf } from "../maps/planes";
import type { Maps } from "../state/data";
import type { Unit } from "../wire/types";

export interface Board {
  key: string;
  node: string;
  /** Pixels of the picture, in the activation's own counting. */
  rows: number;
  columns: number;
  /** Values of the picture as they came, reduced where the activation is large. */
  height: number;
  width: number;
  values: Float32Array;
  /** How many of them there are; short in the last row of a vector. */
  count: number;
  channels: number;
  channel: number;
  /** What a channel is called; empty where the picture shows all of them. */
  word: string;
  /** What the kernel calls a pixel. */
  unit(y: number, x: number): Unit;
  /** What a click on it selects: channel and pixel. */
  choice(y: number, x: number): { channel: number; pixel: [number, number] };
  /** Where a selection stands. */
  spot(channel: number | null, pixel: readonly [number, number] | null): [number, number] | null;
}

const ROW = 32;

/** The channel that answers most. */
export function strongest(maps: Maps): number {
  let best = 0;
  for (let c = 1; c < maps.strength.length; c++) {
    if ((maps.strength[c] as number) > (maps.strength[best] as number)) best = c;
  }
  return best;
}

export function boardOf(maps: Maps, wish: number | null): Board {
  const channels = maps.low.length;
  const channel = wish !== null && wish < channels ? wish : strongest(maps);
  const common = { key: maps.key, node: maps.node, channel, channels };
  const planes = planesOf(maps);
  if (planes) {
    const [height, width] = planes.tile;
    const start = planes.start(channel);
    const values = decoded(maps, channel, start, height * width);
    const [rows, columns] = planes.shape;
    return {
      ...common,
      ...{ rows, columns, height, width, values, count: rows * columns, word: planes.word },
      unit: (y, x) =>
        maps.kind === "tokens" ? [planes.unit(y, x)[0], channel] : [channel, ...planes.unit(y, x)],
      choice: (y, x) => ({ channel, pixel: planes.unit(y, x) }),
      spot: (of, pixel) => (of === channel && pixel ? planes.spot(pixel) : null),
    };
  }
  if (maps.kind === "tokens") {
    const tokens = maps.tile[0] * maps.tile[1];
    const values = new Float32Array(tokens * channels);
    for (let c = 0; c < channels; c++) {
      decoded(maps, c, c * tokens, tokens).forEach((value, t) => {
        values[t * channels + c] = value;
      });
    }
    const sides = { rows: tokens, columns: channels, height: tokens, width: channels };
    return {
      ...common,
      ...sides,
      ...{ values, count: values.length, word: "" },
      unit: (y, x) => [y, x],
      choice: (y, x) => ({ channel: x, pixel: [y, 0] }),
      spot: (of, pixel) => (of !== null && pixel && pixel[0] < tokens ? [pixel[0], of] : null),
    };
  }
  const count = channels === maps.tiles.length ? channels : maps.tiles.length;
  const columns = Math.min(ROW, count);
  const rows = Math.ceil(count / columns);
  const values = new Float32Array(rows * columns).fill(Number.NaN);
  values.set(channels === count ? maps.low : decoded(maps, 0, 0, count));
  return {
    ...common,
    ...{ rows, columns, height: rows, width: columns, values, count, word: "" },
    unit: (y, x) => [Math.min(count - 1, y * columns + x)],
    choice: (y, x) => ({ channel: Math.min(count - 1, y * columns + x), pixel: [0, 0] }),
    spot: (of) => (of !== null && of < count ? [Math.floor(of / columns), of % columns] : null),
  };
}

function decoded(maps: Maps, channel: number, start: number, count: number): Float32Array {
  const [low = 0, high = 0] = [maps.low[channel], maps.high[channel]];
  return Float32Array.from({ length: count }, (_, i) => {
    return low + ((maps.tiles[start + i] ?? 0) / 255) * (high - low);
  });
}

/** The pixel that answers most: where to begin. */
export function peak(board: Board): [number, number] {
  let best = 0;
  for (let i = 0; i < board.values.length; i++) {
    if (Math.abs(board.values[i] as number) > Math.abs(board.values[best] as number)) best = i;
  }
  const y = Math.floor(best / board.width);
  const x = best % board.width;
  const middle = (at: number, cells: number, sides: number) =>
    Math.min(sides - 1, Math.floor(((at + 0.5) * sides) / cells));
  return [middle(y, board.height, board.rows), middle(x, board.width, board.columns)];
}

/** The next pixel in the order of reading, or the one before; around at the ends. */
export function step(board: Board, [y, x]: readonly [number, number], by: 1 | -1): [number, number] {
  const at = (y * board.columns + x + by + board.count) % board.count;
  return [Math.floor(at / board.columns), at % board.columns];
}

/** The smallest box around places `[n, 2]`, half-open, as `[y0, x0, y1, x1]`; -1 stands for none. */
export function boxOf(places: Int32Array): [number, number, number, number] | null {
  let box: [number, number, number, number] | null = null;
  for (let i = 0; i + 1 < places.length; i += 2) {
    const [y, x] = [places[i] as number, places[i + 1] as number];
    if (y < 0 || x < 0) continue;
    box = box
      ? [Math.min(box[0], y), Math.min(box[1], x), Math.max(box[2], y + 1), Math.max(box[3], x + 1)]
      : [y, x, y + 1, x + 1];
  }
  return box;
}
