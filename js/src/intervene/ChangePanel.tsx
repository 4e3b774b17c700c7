// The side of the drawer that changes the selected layer: what can be done with it, what it does to the predictions,
// the shelf of all changes, which channels matter, and what another sample's activations bring.

import { useLayoutEffect } from "preact/hooks";
import { percent, signed } from "../maps/format";
import type { Store } from "../state/store";
import type { Intervention } from "../wire/types";
import { KnockOuts, Patches } from "./knocking";
import { PatchMap } from "./PatchMap";
import { Ranking } from "./Ranking";
import { ShelfList } from "./ShelfList";
import { type Ask, Shelf } from "./shelf";

interface Kept {
  shelf: Shelf;
  knocks: KnockOuts;
  patches: Patches;
}

/** What was changed in each view, while that view lives. */
const kept = new WeakMap<Store, Kept>();

function keptOf(store: Store): Kept {
  let all = kept.get(store);
  if (!all) {
    const ask: Ask = (op, params, options) => store.request(op, params, options);
    const shelf = new Shelf(store.synced, ask, store.changes.made);
    // As long as the view lives: the page shows the changed network whatever else is open.
    store.whenDone(shelf.follow());
    all = { shelf, knocks: new KnockOuts(ask), patches: new Patches(ask) };
    kept.set(store, all);
  }
  return all;
}

export function ChangePanel({ store }: { store: Store }) {
  const { shelf, knocks, patches } = keptOf(store);
  useLayoutEffect(() => {
    return () => {
      knocks.stop();
      patches.stop();
    };
  }, [knocks, patches]);
  return (
    <div class="nn-change" data-panel="change">
      <Actions store={store} shelf={shelf} patches={patches} />
      <ShelfList shelf={shelf} />
      {shelf.error.value && (
        <p class="nn-change-error" role="alert">
          {shelf.error.value}
        </p>
      )}
      <Bars shelf={shelf} />
      {store.changes.made.value && (
        <p class="nn-soft" data-role="unchanged">
          What follows is asked of the network as it is, without the changes.
        </p>
      )}
      <Ranking store={store} shelf={shelf} knocks={knocks} />
      <PatchMap store={store} shelf={shelf} patches={patches} />
    </div>
  );
}

const KINDS: [Intervention["kind"], Partial<Intervention>, string, string][] = [
  ["ablate", { value: "zero" }, "ablate", "set it to zero (or to its mean)"],
  ["scale", { factor: 2 }, "scale", "multiply it"],
  ["clamp", { low: 0, high: 1 }, "clamp", "keep it between two values"],
  ["replace", { value: 1 }, "replace", "put one value in its place"],
];

/** What can be done with what is selected: the layer, a channel of it, or one unit. */
function Actions({ store, shelf, patches }: { store: Store; shelf: Shelf; patches: Patches }) {
  const { layer, channel, pixel } = store.synced.selection.value;
  if (layer === null) return null;
  const unit = channel !== null && pixel ? [channel, ...pixel] : null;
  const part = unit ? { unit } : channel !== null ? { channel } : {};
  const told = unit
    ? `unit (${unit.join(", ")})`
    : channel !== null
      ? `channel ${channel}`
      : "the whole layer; choose a channel in Maps to change only that";
  const source = patches.source.value;
  return (
    <section aria-label="change">
      <p class="nn-change-what">
        <b>{layer}</b> <span class="nn-soft">{told}</span>
      </p>
      <div class="nn-change-kinds">
        {KINDS.map(([kind, options, name, title]) => (
          <button
            key={kind}
            type="button"
            class="nn-chip"
            data-kind={kind}
            title={title}
            onClick={() => shelf.add({ layer, kind, ...part, ...options })}
          >
            {name}
          </button>
        ))}
        {source !== null && (
          <button
            type="button"
            class="nn-chip"
            data-kind="patch"
            title="give it what it is for the other sample"
            onClick={() => shelf.add({ layer, kind: "patch", ...part, source })}
          >
            patch from sample {source}
          </button>
        )}
      </div>
    </section>
  );
}

/** The predictions with the interventions, and a mark where they were without. */
function Bars({ shelf }: { shelf: Shelf }) {
  const outcome = shelf.outcome.value;
  if (!outcome) return null;
  if (outcome.classes.length === 0) {
    const told = "The output is no row of class scores, so there are no bars; maps and thumbnails follow.";
    return <p class="nn-soft">{told}</p>;
  }
  return (
    <section
      class="nn-change-bars"
      aria-label="predictions with the changes"
      data-on={outcome.on}
      data-ms={outcome.ms}
    >
      {outcome.token !== undefined && (
        <p class="nn-soft">What comes after the last token, number {outcome.token}:</p>
      )}
      {outcome.classes.map(({ index, name, before, after, logit_before, logit_after }) => {
        const known = after !== null;
        const change = known ? after - before : 0;
        const logits = `logit ${signed(logit_before)} → ${logit_after === null ? "NaN" : signed(logit_after)}`;
        return (
          <div key={index} class="nn-change-bar" data-class={index} title={`${name}: ${logits}`}>
            <span class="nn-change-name">{name}</span>
            <span class="nn-change-track">
              <i style={{ width: `${100 * (known ? after : 0)}%` }} />
              <b style={{ left: `${100 * before}%` }} />
            </span>
            <span class="nn-change-value">{known ? percent(after) : "NaN"}</span>
            <span class="nn-change-delta" data-sign={Math.sign(Math.round(change * 1000))}>
              {points(change)}
            </span>
          </div>
        );
      })}
    </section>
  );
}

/** A change of a probability, in percentage points. */
function points(change: number): string {
  const value = 100 * change;
  if (Math.abs(value) < 0.05) return "·";
  return `${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(1)}`;
}
