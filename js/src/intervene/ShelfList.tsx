// The shelf: each intervention with its switch, its numbers, its end, and all of them as Python.

import { useState } from "preact/hooks";
import type { Intervention } from "../wire/types";
import { type Item, partOf, type Shelf } from "./shelf";

export function ShelfList({ shelf }: { shelf: Shelf }) {
  const items = shelf.items.value;
  return (
    <section class="nn-shelf" aria-label="interventions">
      {items.length === 0 && !shelf.canUndo.value && (
        <p class="nn-soft">
          Nothing is changed. What you choose above stands here, with a switch of its own.
        </p>
      )}
      <ul>
        {items.map((item) => (
          <Entry key={item.key} shelf={shelf} item={item} />
        ))}
      </ul>
      {(items.length > 0 || shelf.canUndo.value) && (
        <div class="nn-shelf-tools">
          <button type="button" class="nn-chip" disabled={!shelf.canUndo.value} onClick={() => shelf.undo()}>
            undo
          </button>
          <button type="button" class="nn-chip" disabled={items.length === 0} onClick={() => shelf.clear()}>
            remove all
          </button>
          <Python text={shelf.python.value} />
        </div>
      )}
    </section>
  );
}

function Entry({ shelf, item }: { shelf: Shelf; item: Item }) {
  const error = shelf.outcome.value?.errors.get(item.key) ?? "";
  const name = `${item.kind} ${item.layer}, ${partOf(item)}`;
  return (
    <li data-item={item.key} data-kind={item.kind} data-on={item.on}>
      <input
        type="checkbox"
        aria-label={name}
        checked={item.on}
        onChange={(event) => shelf.change(item.key, { on: event.currentTarget.checked })}
      />
      <span class="nn-shelf-name" title={shelf.outcome.value?.calls.get(item.key) || name}>
        <b>{item.kind}</b>
        <span>{item.layer}</span>
        <span class="nn-soft">{partOf(item)}</span>
      </span>
      <span class="nn-shelf-numbers">
        <Numbers shelf={shelf} item={item} />
      </span>
      <button
        type="button"
        class="nn-close"
        aria-label={`remove ${name}`}
        onClick={() => shelf.remove(item.key)}
      >
        ×
      </button>
      {error && (
        <p class="nn-change-error" role="alert">
          {error}
        </p>
      )}
    </li>
  );
}

function Numbers({ shelf, item }: { shelf: Shelf; item: Item }) {
  switch (item.kind) {
    case "ablate":
      return (
        <select
          aria-label="ablate by"
          value={String(item.value ?? "zero")}
          onChange={(event) =>
            shelf.change(item.key, { value: event.currentTarget.value as "zero" | "mean" })
          }
        >
          <option value="zero">zero</option>
          <option value="mean">mean</option>
        </select>
      );
    case "scale":
      return (
        <>
          <input
            type="range"
            aria-label="factor"
            min={-2}
            max={4}
            step={0.1}
            value={item.factor}
            onPointerDown={() => shelf.change(item.key, {})}
            onInput={(event) =>
              shelf.change(item.key, { factor: Number(event.currentTarget.value) }, { remember: false })
            }
          />
          <span class="nn-shelf-factor">× {(item.factor ?? 1).toFixed(1).replace("-", "−")}</span>
        </>
      );
    case "clamp":
      return (
        <>
          <Field shelf={shelf} item={item} name="low" /> <Field shelf={shelf} item={item} name="high" />
        </>
      );
    case "replace":
      return <Field shelf={shelf} item={item} name="value" />;
    case "patch":
      return <span class="nn-soft">from sample {item.source}</span>;
  }
}

function Field({ shelf, item, name }: { shelf: Shelf; item: Item; name: "low" | "high" | "value" }) {
  return (
    <label class="nn-soft">
      {name}
      <input
        type="number"
        step="any"
        value={String(item[name] ?? "")}
        onChange={(event) => {
          const number = event.currentTarget.valueAsNumber;
          const change: Partial<Intervention> = { [name]: Number.isFinite(number) ? number : null };
          // A clamp may have one end; a replacement needs its number.
          if (Number.isFinite(number) || name !== "value") shelf.change(item.key, change);
        }}
      />
    </label>
  );
}

function Python({ text }: { text: string }) {
  const [open, setOpen] = useState(false);
  if (text === "") return null;
  return (
    <>
      <button type="button" class="nn-chip" aria-pressed={open} onClick={() => setOpen(!open)}>
        Python
      </button>
      {open && (
        <pre class="nn-shelf-python">
          <code>{text}</code>
        </pre>
      )}
    </>
  );
}
