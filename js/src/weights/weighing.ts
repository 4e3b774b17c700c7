// The state of the page: the weights of the layer, which entry is chosen, and what a change did to the predictions.

import { effect, signal, untracked } from "@preact/signals";
import type { Loadable } from "../state/data";
import type { Store } from "../state/store";
import type { Prediction } from "../state/synced";
import { isCancelled, type WireError } from "../wire/client";
import type { Reply } from "../wire/types";

export interface Chosen {
  index: number[];
  value: number;
}

type Answer = Reply<"weights">;

export class Weighing {
  readonly weights = signal<Loadable<Answer>>({ state: "idle", data: null });
  readonly name = signal<string | null>(null);
  readonly filter = signal(0);
  readonly row = signal(0);
  readonly column = signal(0);
  readonly chosen = signal<Chosen | null>(null);
  readonly refused = signal("");
  /** The predictions before the first change, for the sample on the screen and under the interventions then on. */
  readonly before = signal<{ sample: number; key: string; classes: Prediction[] } | null>(null);
  private layer: string | null = null;

  constructor(readonly store: Store) {}

  follow(): () => void {
    return effect(() => {
      const node = this.store.synced.selection.value.layer;
      // The user's own training, too, changes weights.
      const { run } = this.store.synced.run.value ?? {};
      if (node !== this.layer) {
        this.layer = node;
        this.name.value = this.chosen.value = null;
        this.filter.value = this.row.value = this.column.value = 0;
      }
      const asked = { name: this.name.value, filter: this.filter.value };
      const from = { row: this.row.value, column: this.column.value };
      if (node !== null && run) untracked(() => void this.fetch(node, { ...asked, ...from }));
    });
  }

  private async fetch(
    node: string,
    asked: { name: string | null; filter: number; row: number; column: number },
  ): Promise<void> {
    try {
      const reply = await this.store.request("weights", { node, ...asked }, { slot: "weights" });
      this.weights.value = { state: "ready", data: reply };
    } catch (error) {
      if (isCancelled(error)) return;
      const { message, hint } = error as WireError;
      this.weights.value = { state: "error", data: null, error: { message, hint } };
    }
  }

  /** Changes the chosen entry; the predictions follow. */
  async change(value: number): Promise<void> {
    const chosen = this.chosen.peek();
    const meta = this.weights.peek().data?.meta;
    const run = this.store.synced.run.peek();
    if (!chosen || !meta || !run || !Number.isFinite(value)) return;
    if (meta.changes.length === 0) {
      const { key, predictions } = this.store.changes;
      const classes = predictions.peek()?.classes ?? [];
      this.before.value = { sample: run.sample, key: key.peek(), classes };
    }
    const wish = { node: meta.layer, name: meta.name, index: chosen.index, value };
    await this.tell(wish);
    this.chosen.value = { ...chosen, value };
  }

  async reset(): Promise<void> {
    await this.tell({ index: null });
    this.before.value = this.chosen.value = null;
  }

  private async tell(wish: Parameters<typeof this.ask>[0]): Promise<void> {
    this.refused.value = "";
    try {
      await this.ask(wish);
    } catch (error) {
      if (!isCancelled(error)) this.refused.value = (error as WireError).message;
    }
  }

  private ask(wish: { node?: string; name?: string; index: number[] | null; value?: number }) {
    return this.store.request("change_weight", wish, { slot: "change weight" });
  }
}

/** How much each class gained, those that moved most first; of the same sample only. */
export function moved(before: readonly Prediction[], now: readonly Prediction[], most = 5) {
  const known = new Map(before.map(({ index, prob }) => [index, prob]));
  return now
    .map(({ index, name, prob }) => ({
      name: name || `${index}`,
      prob,
      gain: prob - (known.get(index) ?? 0),
    }))
    .sort((a, b) => Math.abs(b.gain) - Math.abs(a.gain))
    .slice(0, most);
}

const kept = new WeakMap<Store, Weighing>();

/** One for each view, while that view lives. */
export function weighingOf(store: Store): Weighing {
  let weighing = kept.get(store);
  if (!weighing) {
    weighing = new Weighing(store);
    kept.set(store, weighing);
  }
  return weighing;
}
