// Round numbers for an axis. Pure.

import { short } from "../maps/format";

/** Multiples of 1, 2 or 5 times a power of ten inside the range, about `wish` of them. */
export function niceTicks(from: number, to: number, wish: number): number[] {
  const span = to - from;
  if (!(span > 0) || !Number.isFinite(span)) return [from];
  const rough = span / Math.max(1, wish);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * nearest(rough / power);
  const first = Math.ceil(from / step - 1e-9);
  const last = Math.floor(to / step + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => {
    const value = (first + i) * step;
    // 3 * 0.1 should read 0.3.
    return Number.parseFloat(value.toPrecision(12));
  });
}

/** The one of 1, 2, 5 and 10 that is nearest in ratio. */
function nearest(ratio: number): number {
  if (ratio < Math.SQRT2) return 1;
  if (ratio < Math.sqrt(10)) return 2;
  return ratio < Math.sqrt(50) ? 5 : 10;
}

/** A tick as short as it is exact: 2, 0.5, −1.2e−7. */
export function tickText(value: number): string {
  return short(value).replace(/\.0+$|(\.\d*?)0+$/, "$1");
}
