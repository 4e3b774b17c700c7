// The table that says how far to trust the maps: which metrics, and what they say so far.

import { effect, type Signal, signal, untracked } from "@preact/signals";
import { Few } from "../state/few";
import { isCancelled, type WireError } from "../wire/client";
import type { Metric, Operations, Table } from "../wire/types";
import type { Ask, Explaining } from "./explaining";

/** What a first table asks: how the score falls and rises, and whether random weights are noticed. */
export const FIRST_METRICS = ["deletion", "insertion", "parameter_randomisation", "agreement"];
/** A map that stays this alike while weights are made random shows the input, not the network. */
export const UNMOVED = 0.5;
const SANITY = "parameter_randomisation";
const KEPT = 8;

export class Judging {
  readonly known = signal<Metric[]>([]);
  readonly chosen: Signal<string[]> = signal(FIRST_METRICS);
  readonly open = signal(false);
  readonly table = signal<Table | null>(null);
  readonly error = signal<{ message: string; hint?: string } | null>(null);
  readonly running = signal(false);
  /** By what was asked: a look at the network as it is, and back, computes nothing twice. */
  private readonly done = new Few<Table>(KEPT);

  constructor(
    private readonly explaining: Explaining,
    private readonly ask: Ask,
  ) {}

  /** While the page is open: the table is of what is shown, once all of it is there. */
  follow(): () => void {
    let asked = "";
    let network = this.explaining.network.peek();
    let stop = new AbortController();
    const end = effect(() => {
      const { wishes, compare } = this.explaining;
      const cards = wishes.value.map((wish) => this.explaining.card(wish).value);
      const under = wishes.value[0]?.under ?? {};
      const now = this.explaining.network.value;
      const keys = cards.filter(({ state }) => state === "ready").map(({ wish }) => wish.key);
      const waiting = cards.some(({ state }) => state === "running" || state === "waiting");
      const wanted = this.open.value && compare.value === "methods" && keys.length > 0 && !waiting;
      const question = wanted ? JSON.stringify([keys, this.chosen.value]) : "";
      untracked(() => {
        if (this.open.value && this.known.value.length === 0) void this.learn();
        // The numbers of one network are no comment on the maps of another.
        if (now !== network) this.table.value = null;
        network = now;
        if (question === asked) return;
        asked = question;
        stop.abort();
        stop = new AbortController();
        this.running.value = false;
        const known = this.done.get(question);
        if (known) this.table.value = known;
        else if (wanted)
          void this.judge({ keys, metrics: this.chosen.value, ...under }, question, stop.signal);
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

  private async judge(
    params: Operations["judge"]["params"],
    question: string,
    stopped: AbortSignal,
  ): Promise<void> {
    this.error.value = null;
    this.running.value = true;
    try {
      const { meta } = await this.ask("judge", params, {
        slot: "explain-judge",
        signal: stopped,
        onChunk: (part) => {
          if (part.meta) this.table.value = part.meta;
        },
      });
      this.table.value = meta;
      this.done.set(question, meta);
    } catch (error) {
      if (stopped.aborted || isCancelled(error)) return;
      const { message, hint } = error as WireError;
      this.error.value = { message, hint };
    } finally {
      if (!stopped.aborted) this.running.value = false;
    }
  }
}
