// The interventions of one view: which there are, what they do to the predictions, and the way back. What they do to
// the network the kernel knows; here they are a list.

import {
  batch,
  computed,
  effect,
  type ReadonlySignal,
  type Signal,
  signal,
  untracked,
} from "@preact/signals";
import { type Changed, changedBy } from "../state/changes";
import { Latest } from "../state/latest";
import type { Run, Synced } from "../state/synced";
import { isCancelled, type WireError } from "../wire/client";
import type { Compared, Intervention, Operation, Operations, Reply, RequestOptions } from "../wire/types";

export type Ask = <K extends Operation>(
  op: K,
  params: Operations[K]["params"],
  options?: RequestOptions<K>,
) => Promise<Reply<K>>;

/** An intervention on the shelf; `key` stays its own while it is changed. */
export interface Item extends Intervention {
  key: number;
}

export interface Outcome {
  sample: number;
  classes: Compared[];
  /** By the key of the item. */
  calls: ReadonlyMap<number, string>;
  errors: ReadonlyMap<number, string>;
  /** Of a language model, the last token: the classes are what may come after it. */
  token?: number;
  /** How many are in force. */
  on: number;
  ms: number;
}

const STEPS_BACK = 50;

export class Shelf {
  readonly items: Signal<Item[]> = signal([]);
  readonly outcome = signal<Outcome | null>(null);
  readonly error = signal("");
  readonly canUndo: ReadonlySignal<boolean>;
  /** The lines that do the same in Python. */
  readonly python: ReadonlySignal<string>;

  private readonly past: Signal<Item[][]> = signal([]);
  private keys = 0;

  constructor(
    private readonly synced: Synced,
    private readonly ask: Ask,
    /** Where the rest of the page learns of the changed network. */
    private readonly made: Signal<Changed | null> = signal(null),
  ) {
    this.canUndo = computed(() => this.past.value.length > 0);
    this.python = computed(() => pythonOf(this.items.value, this.outcome.value));
  }

  /** The predictions, and with them the whole page, follow every change of the list, and every new run. */
  follow(): () => void {
    const newest = new Latest((question: Question) => this.fetch(question));
    const end = effect(() => {
      const items = this.items.value;
      const run = this.synced.run.value;
      if (!run) return;
      if (items.length > 0) newest.ask({ items, sample: run.sample });
      else {
        untracked(() => {
          this.outcome.value = null;
          this.made.value = null;
          this.error.value = "";
        });
      }
    });
    return () => {
      end();
      newest.stop();
    };
  }

  add(intervention: Omit<Intervention, "on">): void {
    this.remember();
    this.keys += 1;
    this.items.value = [...this.items.peek(), { ...intervention, on: true, key: this.keys }];
  }

  /** Changes an item; of a slider that is dragged only the first step is remembered. */
  change(key: number, to: Partial<Intervention>, { remember = true } = {}): void {
    if (remember) this.remember();
    this.items.value = this.items.peek().map((item) => (item.key === key ? { ...item, ...to } : item));
  }

  remove(key: number): void {
    this.remember();
    this.items.value = this.items.peek().filter((item) => item.key !== key);
  }

  clear(): void {
    this.remember();
    this.items.value = [];
  }

  undo(): void {
    const before = this.past.peek().at(-1);
    if (!before) return;
    this.past.value = this.past.peek().slice(0, -1);
    this.items.value = before;
  }

  /** The item that ablates this channel (or head), if there is one. */
  ablating(layer: string, part: "channel" | "head", index: number): Item | undefined {
    return this.items.value.find(
      (item) => item.kind === "ablate" && item.layer === layer && item[part] === index,
    );
  }

  /** Ablates a channel, or takes that back. */
  toggleAblation(layer: string, part: "channel" | "head", index: number, value: "zero" | "mean"): void {
    const there = this.ablating(layer, part, index);
    if (there) this.remove(there.key);
    else this.add({ layer, kind: "ablate", [part]: index, value });
  }

  private remember(): void {
    this.past.value = [...this.past.peek(), this.items.peek()].slice(-STEPS_BACK);
  }

  private async fetch({ items, sample }: Question): Promise<void> {
    try {
      const interventions = items.map(({ key: _, ...intervention }) => intervention);
      const { meta } = await this.ask("intervene", { sample, interventions }, { slot: "intervene" });
      if (this.items.peek().length === 0) return;
      const byKey = (texts: string[]) => new Map(items.map((item, i) => [item.key, texts[i] ?? ""]));
      const inForce = interventions.filter(({ on }, i) => on && !meta.errors[i]);
      batch(() => {
        const [calls, errors] = [byKey(meta.calls), byKey(meta.errors)];
        this.outcome.value = { ...meta, calls, errors, on: inForce.length };
        this.made.value = changedBy(inForce, meta.predictions as Run["predictions"]);
        this.error.value = "";
      });
    } catch (error) {
      if (isCancelled(error)) return;
      this.error.value = (error as WireError).message;
      this.made.value = null;
    }
  }
}

interface Question {
  items: Item[];
  sample: number;
}

/** What stands on the shelf, in words: channel 7 of a layer. */
export function partOf(item: Pick<Intervention, "channel" | "unit" | "head">): string {
  if (item.unit) return `unit (${item.unit.join(", ")})`;
  if (item.head != null) return `head ${item.head}`;
  if (item.channel != null) return `channel ${item.channel}`;
  return "whole layer";
}

export function pythonOf(items: readonly Item[], outcome: Outcome | null): string {
  const calls = items.filter((item) => item.on).map((item) => outcome?.calls.get(item.key) ?? "");
  const known = calls.filter((call) => call !== "");
  if (!outcome || known.length === 0) return "";
  const sample = outcome.sample;
  const head = `engine = nnviz.Engine(model)\nengine.trace(inputs[${sample}:${sample + 1}])\n`;
  const body = `    output = engine.output(inputs[${sample}:${sample + 1}])`;
  if (known.length === 1) return `${head}with ${known[0]}:\n${body}`;
  return `${head}with (\n${known.map((call) => `    ${call},\n`).join("")}):\n${body}`;
}
