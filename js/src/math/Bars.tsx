// Signed numbers as bars from a common zero, one under the other.

import { signed } from "../maps/format";

interface Props {
  title: string;
  rows: { name: string; value: number; note?: string }[];
  chosen?: number | null;
  onChoose?(row: number): void;
  rest?: { count: number; value: number };
}

export function Bars({ title, rows, chosen, onChoose, rest }: Props) {
  const values = rows.map(({ value }) => value);
  const low = Math.min(0, ...values);
  const high = Math.max(0, ...values);
  const span = high - low || 1;
  const zero = (100 * -low) / span;
  return (
    <div class="nn-bars">
      <p class="nn-soft">{title}</p>
      {rows.map(({ name, value, note }, i) => (
        <button
          key={name}
          type="button"
          class="nn-bars-row"
          data-row={name}
          aria-pressed={onChoose ? chosen === i : undefined}
          data-chosen={chosen === i || undefined}
          disabled={!onChoose}
          onClick={() => onChoose?.(i)}
        >
          <span>{name}</span>
          <span class="nn-bars-track">
            <i
              data-negative={value < 0 || undefined}
              style={{
                left: `${value < 0 ? zero - (100 * -value) / span : zero}%`,
                width: `${(100 * Math.abs(value)) / span}%`,
              }}
            />
          </span>
          {note && <small class="nn-soft">{note}</small>}
          <span>{signed(value)}</span>
        </button>
      ))}
      {rest && (
        <p class="nn-soft">
          and {rest.count} more, together {signed(rest.value)}
        </p>
      )}
    </div>
  );
}
