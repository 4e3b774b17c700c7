// Numbers as people read them: a fixed few digits, a real minus sign, thousands in words.

const MINUS = "−";

function tidy(text: string): string {
  return text.replaceAll("-", MINUS).replace("e+", "e");
}

/** A value with its sign, for a hovered number: +5.7172, −0.003142, +1.234e−7. */
export function signed(value: number): string {
  if (!Number.isFinite(value)) return special(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  const far = size >= 1e5 || size < 1e-3;
  const digits = far
    ? value.toExponential(3)
    : size < 1
      ? value.toPrecision(4)
      : value.toFixed(size >= 1000 ? 2 : 4);
  return `${value > 0 ? "+" : ""}${tidy(digits)}`;
}

/** A value where space is short, for ranges and axes: 5.72, −0.01, 1.2e−7. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return special(value);
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e5 || size < 1e-3) return tidy(value.toExponential(1));
  return tidy(size >= 100 ? value.toFixed(0) : size >= 0.1 ? value.toFixed(2) : value.toPrecision(2));
}

function special(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  return value > 0 ? "+∞" : `${MINUS}∞`;
}

/** A fraction in percent; a little that is not nothing never reads as 0 %. */
export function percent(fraction: number): string {
  const value = 100 * fraction;
  if (value === 0) return "0 %";
  if (value < 0.1) return "<0.1 %";
  if (value > 99.9 && value < 100) return ">99.9 %";
  return `${value < 9.95 || (value > 90 && value < 99.95) ? value.toFixed(1) : value.toFixed(0)} %`;
}

/** A count with its unit of size: 11.7 M, 1.8 G, 640. */
export function count(value: number): string {
  for (const [size, letter] of [
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ] as const) {
    if (value >= size)
      return `${(value / size).toFixed(value >= 100 * size ? 0 : 1).replace(/\.0$/, "")} ${letter}`;
  }
  return `${value}`;
}

/** 64 × 112 × 112. */
export function shape(sides: readonly number[]): string {
  return sides.length > 0 ? sides.join(" × ") : "scalar";
}

export function milliseconds(value: number): string {
  return value >= 1000
    ? `${(value / 1000).toFixed(1)} s`
    : `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ms`;
}
