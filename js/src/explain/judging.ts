// The table that says how far to trust the maps: which metrics, and what they say so far.

import { effect, type Signal, signal, untracked } from "@preact/signals";
import { isCancelled, type WireError } from "../wire/client";
import type { Metric, Table } from "../wire/types";
import type { Ask, Explaining } from "./explaining";

/** What a first table asks: how the score falls and rises, and whether random weights are noticed. */
export const FIRST_METRICS = ["deletion", "insertion", "parameter_randomisation", "agreement"];
/** A map that stays this alike while weights are made random shows the input, not the network. */
export const UNMOVED = 0.5;
const SANITY = "parameter_randomisation";

export class Judging {
  readonly known = signal<Metric[]>([]);
  readonly chosen: Signal<string[]> = signal(FIRST_METRICS);
  readonly open = signal(false);
  readonly table = signal<Table | null>(null);
  readonly error = signal<{ message: string; hint?: string } | null>(null);
  readonly running = signal(false);

  constructor(
    private readonly explaining: Explaining,
    private readonly ask: Ask,
  ) {}

  /** While the page is open: the table is of what is shown, once all of it is there. */
  follow(): () => void {
    let asked = "";
    let stop = new AbortController();
    const end = effect(() => {
      const { wishes, compare } = this.explaining;
      const cards = wishes.value.map((wish) => this.explaining.card(wish).value);
      const keys = cards.filter(({ state }) => state === "ready").map(({ wish }) => wish.key);
      const waiting = cards.some(({ state }) => state === "running" || state === "waiting");
      const wanted = this.open.value && compare.value === "methods" && keys.length > 0 && !waiting;
      const question = wanted ? JSON.stringify([keys, this.chosen.value]) : "";
      untracked(() => {
        if (this.open.value && this.known.value.length === 0) void this.learn();
        if (question === asked) return;
        asked = question;
        stop.abort();
        stop = new AbortController();
        if (wanted) void this.judge(keys, this.chosen.value, stop.signal);
      });
    });
    return () => {
      end();
      stop.abort();
    };
  }

  toggle(name: string): void {
    const now = this.chosen.peek();
    this.chosen.value = now.includes(name) ? now.filter((one) => one !== name) : [...now, name];
  }

  /** How alike a map stays while weights are made random, the mean over the cascade; null where it is not there. */
  sanityOf(key: string): number | null {
    return this.table.value?.rows.find((row) => row.name === key)?.values[SANITY] ?? null;
  }

  private async learn(): Promise<void> {
    try {
      const { meta } = await this.ask("metrics", {}, { slot: "metrics" });
      this.known.value = meta.metrics;
    } catch (error) {
      if (!isCancelled(error)) console.error("[nnviz]", error);
    }
  }

  private async judge(keys: string[], metrics: string[], stopped: AbortSignal): Promise<void> {
    this.error.value = null;
    this.running.value = true;
    try {
      const { meta } = await this.ask(
        "judge",
        { keys, metrics },
        {
          slot: "explain-judge",
          signal: stopped,
          onChunk: (part) => {
            if (part.meta) this.table.value = part.meta;
          },
        },
      );
      this.table.value = meta;
    } catch (error) {
      if (stopped.aborted || isCancelled(error)) return;
      const { message, hint } = error as WireError;
      this.error.value = { message, hint };
    } finally {
      if (!stopped.aborted) this.running.value = false;
    }
  }
}
