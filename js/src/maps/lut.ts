// From a value to its colour. A tile arrives as bytes with `low` and `high` of its channel; which colour a byte has
// depends on the colour map, on how signs are shown and on the range, all chosen in the page. The choice becomes a
// table of 256 colours per channel, so that painting stays one look-up per pixel.
//
// Pure: no DOM, no signals. `colour` is the definition; `lut` is the same in table form.

import type { Colormap, Range, Sign } from "../state/view";
import { table, ZERO } from "./colormaps";

/** How values become colours. `from` and `to` are the values at the two ends of the colour bar. */
export interface Scale {
  from: number;
  to: number;
  colormap: Colormap;
  sign: Sign;
}

/** The value a byte stands for. */
export function decode(byte: number, low: number, high: number): number {
  return low + (byte / 255) * (high - low);
}

/** The scale for values between `low` and `high`. Red-blue always has zero in the middle. */
export function scaleFor(low: number, high: number, sign: Sign, colormap: Colormap): Scale {
  const reach = Math.max(Math.abs(low), Math.abs(high));
  if (sign === "magnitude") return { from: 0, to: reach, colormap, sign };
  if (sign === "signed" || colormap === "diverging") return { from: -reach, to: reach, colormap, sign };
  return { from: low, to: high, colormap, sign };
}

/** The range of all channels together; channels without a finite value do not count. */
export function layerRange(low: ArrayLike<number>, high: ArrayLike<number>): [low: number, high: number] {
  let least = Number.POSITIVE_INFINITY;
  let most = Number.NEGATIVE_INFINITY;
  for (let c = 0; c < low.length; c++) {
    const [a, b] = [low[c] as number, high[c] as number];
    if (!Number.isFinite(a) || !Number.isFinite(b)) continue;
    if (a < least) least = a;
    if (b > most) most = b;
  }
  return least <= most ? [least, most] : [0, 0];
}

/** The scale of every channel: one for all of them, or each its own. */
export function scales(
  low: ArrayLike<number>,
  high: ArrayLike<number>,
  range: Range,
  sign: Sign,
  colormap: Colormap,
): (channel: number) => Scale {
  if (range === "channel") return (c) => scaleFor(low[c] ?? 0, high[c] ?? 0, sign, colormap);
  const shared = scaleFor(...layerRange(low, high), sign, colormap);
  return () => shared;
}

/** The entry of the colour table for a value. A range without extent is one flat colour. */
export function entry(value: number, scale: Scale): number {
  const { from, to, colormap, sign } = scale;
  const shown = sign === "magnitude" ? Math.abs(value) : value;
  if (!(to > from)) return colormap === "diverging" ? ZERO : 0;
  const place =
    colormap === "diverging"
      ? ZERO + Math.round((127 * shown) / to)
      : Math.round((255 * (shown - from)) / (to - from));
  return Math.min(255, Math.max(0, place));
}

export function colour(value: number, scale: Scale): number {
  return table(scale.colormap)[entry(value, scale)] as number;
}

/** The colour of each byte of a channel whose bytes span `low` to `high`. */
export function lut(low: number, high: number, scale: Scale): Uint32Array {
  const colours = table(scale.colormap);
  const words = new Uint32Array(256);
  for (let byte = 0; byte < 256; byte++)
    words[byte] = colours[entry(decode(byte, low, high), scale)] as number;
  return words;
}
