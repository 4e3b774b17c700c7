// The most likely classes as bars. A click on one shows which input pixels speak for it.

import { useState } from "preact/hooks";
import { percent, signed } from "../maps/format";
import { Segments } from "../maps/Segments";
import type { Store } from "../state/store";
import type { Prediction } from "../state/synced";
import { turnPage } from "../state/view";

export function Predictions({ store }: { store: Store }) {
  const predictions = store.changes.predictions.value;
  const [logits, setLogits] = useState(false);
  if (!predictions) return null;
  const { classes, task, true: truth } = predictions;
  if (task !== "classification" || classes.length === 0) {
    const shapes = (predictions as { shapes?: string[] }).shapes ?? [];
    return (
      <section class="nn-predictions" aria-label="output">
        <h3>Output</h3>
        {shapes.map((text, i) => (
          <p key={i} class="nn-soft">
            {text}
          </p>
        ))}
        {shapes.length === 0 && <p class="nn-soft">{predictions.note ?? "not a row of class scores"}</p>}
      </section>
    );
  }
  const missing = truth && !classes.some((entry) => entry.index === truth.index) ? truth : null;
  return (
    <section class="nn-predictions" aria-label="predictions">
      <h3>
        Predictions
        <Segments
          label="show"
          value={logits ? "logits" : "softmax"}
          options={[
            ["softmax", "softmax"],
            ["logits", "logits"],
          ]}
          onChoose={(choice) => setLogits(choice === "logits")}
        />
      </h3>
      <div class="nn-classes">
        {classes.map((entry) => (
          <Row key={entry.index} store={store} entry={entry} truth={truth?.index} logits={logits} />
        ))}
        {missing && (
          <>
            <hr />
            <Row store={store} entry={missing} truth={missing.index} logits={logits} />
          </>
        )}
      </div>
      <button
        type="button"
        class="nn-chip"
        title="temperature, lens, other classes (y)"
        onClick={() => turnPage(store.view, "output")}
      >
        more
      </button>
    </section>
  );
}

interface RowProps {
  store: Store;
  entry: Prediction;
  truth?: number;
  logits: boolean;
}

function Row({ store, entry, truth, logits }: RowProps) {
  const { index, name, prob, logit } = entry;
  const right = index === truth || entry.true === true;
  const chosen = store.synced.selection.value.class === index;
  const known = Number.isFinite(logit);
  return (
    <button
      type="button"
      class="nn-class"
      data-class={index}
      aria-pressed={chosen}
      title={`${name}${right ? " (true class)" : ""}: ${percent(prob)}${known ? `, logit ${signed(logit)}` : ""}`}
      onPointerEnter={() => {
        const value = known ? `${percent(prob)} · logit ${signed(logit)}` : percent(prob);
        store.view.hover.value = { what: `class ${index} · ${name}`, value };
      }}
      onPointerLeave={() => {
        store.view.hover.value = null;
      }}
      onClick={() => store.selectClass(chosen ? null : index)}
    >
      <span class="nn-class-name">
        <span>{name}</span>
        {right && (
          <b role="img" aria-label="true class">
            ✓
          </b>
        )}
      </span>
      <span class="nn-class-bar">
        <i style={{ width: `${Math.max(100 * prob, prob > 0 ? 0.8 : 0)}%` }} />
      </span>
      <span class="nn-class-value">
        {logits ? (known ? logit.toFixed(1).replace("-", "−") : "–") : percent(prob)}
      </span>
    </button>
  );
}
