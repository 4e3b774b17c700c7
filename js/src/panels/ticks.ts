// Round numbers for an axis. Pure.

/** Multiples of 1, 2 or 5 times a power of ten inside the range, about `wish` of them. */
export function niceTicks(from: number, to: number, wish: number): number[] {
  const span = to - from;
  if (!(span > 0) || !Number.isFinite(span)) return [from];
  const rough = span / Math.max(1, wish);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * (rough / power >= 5 ? 10 : rough / power >= 2 ? 5 : rough / power >= 1 ? 2 : 1);
  const first = Math.ceil(from / step - 1e-9);
  const last = Math.floor(to / step + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => {
    const value = (first + i) * step;
    // 3 * 0.1 should read 0.3.
    return Number.parseFloat(value.toPrecision(12));
  });
}
