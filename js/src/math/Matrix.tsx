// A small matrix of numbers, coloured around zero, with the numbers written in where there is room.

import { table, unpack, ZERO } from "../maps/colormaps";
import { short } from "../maps/format";

interface Props {
  label: string;
  values: ArrayLike<number>;
  rows: number;
  columns: number;
  /** What is fully red or blue. */
  reach: number;
  cell: number;
  /** Entries that are padding: drawn hollow. */
  inside?: ArrayLike<number>;
  active?: number | null;
  chosen?: number | null;
  onHover?(entry: number | null): void;
  onChoose?(entry: number): void;
}

const READABLE = 25;

/** Colour of a value, and of text on it. */
export function inks(value: number, reach: number): { background: string; color: string } {
  const share = reach > 0 && Number.isFinite(value) ? Math.max(-1, Math.min(1, value / reach)) : 0;
  const [red, green, blue] = unpack(table("diverging")[ZERO + Math.round(127 * share)] as number);
  const light = 0.299 * red + 0.587 * green + 0.114 * blue;
  return { background: `rgb(${red} ${green} ${blue})`, color: light > 140 ? "#1a1a1a" : "#fff" };
}

/** The largest finite magnitude. */
export function reachOf(values: ArrayLike<number>): number {
  let reach = 0;
  for (let i = 0; i < values.length; i++) {
    const size = Math.abs(values[i] as number);
    if (Number.isFinite(size) && size > reach) reach = size;
  }
  return reach;
}

/** As many digits as fit a cell. */
function digits(value: number): string {
  if (!Number.isFinite(value)) return short(value);
  const size = Math.abs(value);
  if (size > 0 && size < 0.005) return "~0";
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2).replace("-", "−");
}

export function Matrix({ label, values, rows, columns, reach, cell, inside, active, chosen, ...on }: Props) {
  const written = cell >= READABLE;
  return (
    <div
      class="nn-cells"
      role="img"
      aria-label={label}
      data-matrix={label}
      style={{ gridTemplateColumns: `repeat(${columns}, ${cell}px)`, gridAutoRows: `${cell}px` }}
      onPointerLeave={() => on.onHover?.(null)}
    >
      {Array.from({ length: rows * columns }, (_, i) => {
        const value = values[i] as number;
        const out = inside !== undefined && inside[i] === 0;
        return (
          // biome-ignore lint/a11y/noStaticElementInteractions: as above
          // biome-ignore lint/a11y/useKeyWithClickEvents: weights have a field for their value
          <span
            key={i}
            style={out ? undefined : inks(value, reach)}
            data-outside={out || undefined}
            data-active={active === i || undefined}
            data-chosen={chosen === i || undefined}
            title={out ? "padding" : short(value)}
            onPointerEnter={() => on.onHover?.(i)}
            onClick={() => on.onChoose?.(i)}
          >
            {written && !out && digits(value)}
          </span>
        );
      })}
    </div>
  );
}
