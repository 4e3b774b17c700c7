// One of a few, all in sight.

interface Props<T extends string> {
  label: string;
  value: T;
  options: readonly (readonly [T, string])[];
  disabled?: readonly T[];
  onChoose(value: T): void;
}

export function Segments<T extends string>({ label, value, options, disabled = [], onChoose }: Props<T>) {
  return (
    <fieldset class="nn-segments" aria-label={label}>
      {options.map(([id, name]) => (
        <button
          key={id}
          type="button"
          aria-pressed={value === id}
          disabled={disabled.includes(id)}
          onClick={() => onChoose(id)}
        >
          {name}
        </button>
      ))}
    </fieldset>
  );
}
