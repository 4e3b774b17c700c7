// Numbers of every layer that only the kernel knows: asked for when the drawing is to be coloured by them.

import { computed, effect, type ReadonlySignal, signal, untracked } from "@preact/signals";
import { isCancelled, type WireError } from "../wire/client";
import type { Operations, Reply, RequestOptions } from "../wire/types";
import type { Changes } from "./changes";
import type { Loadable } from "./data";
import type { Graph, Synced } from "./synced";
import type { ColourBy, View } from "./view";

/** What the graph does not hold. */
const ASKED = ["time", "mean", "dead"] as const;
type Asked = (typeof ASKED)[number];

export interface Measured {
  by: Asked;
  /** By node and group id; NaN where there is nothing to tell. */
  of: ReadonlyMap<string, number>;
}

type Ask = (
  params: Operations["measure"]["params"],
  options: RequestOptions<"measure">,
) => Promise<Reply<"measure">>;

export class Measuring {
  readonly found = signal<Loadable<Measured>>({ state: "idle", data: null });
  private readonly run: ReadonlySignal<number>;
  private stop = new AbortController();

  constructor(
    private readonly synced: Synced,
    private readonly view: View,
    private readonly changes: Changes,
    private readonly ask: Ask,
  ) {
    this.run = computed(() => synced.run.value?.run ?? 0);
  }

  /** Values follow every run, and every change of the network. A time is measured when it is chosen, and holds as long as the graph does. */
  follow(): () => void {
    const ran = computed(() => this.run.value > 0);
    const ends = [
      effect(() => {
        const wanted = this.view.colour.value === "time" && ran.value;
        untracked(() => {
          if (this.found.peek().state === "loading") this.cancel();
          if (wanted && !this.fits("time")) void this.measure();
        });
      }),
      effect(() => {
        const by = this.view.colour.value;
        void this.changes.key.value;
        if (this.run.value > 0 && isAsked(by) && by !== "time") untracked(() => void this.measure());
      }),
    ];
    return () => {
      this.stop.abort();
      for (const end of ends) end();
    };
  }

  /** What the drawing is coloured by, measured now. */
  async measure(): Promise<void> {
    const by = this.view.colour.peek();
    if (!isAsked(by)) return;
    this.cancel();
    const { signal: stopped } = this.stop;
    const data = this.fits(by) ? this.found.peek().data : null;
    this.found.value = { state: "loading", data };
    try {
      const sample = this.synced.run.peek()?.sample ?? 0;
      const onProgress = (progress: { done: number; total: number }) => {
        if (!stopped.aborted) this.found.value = { ...this.found.peek(), progress };
      };
      // A time is that of the network as it is.
      const under = by === "time" ? {} : this.changes.params;
      const reply = await this.ask(
        { by, sample, ...under },
        { slot: "measure", signal: stopped, onProgress },
      );
      const ids = idsOf(this.synced.graph.peek());
      const { data: values } = reply.arrays.values;
      // Of another graph than the one on the screen: the run that brings it asks again.
      const fits = ids.length === values.length;
      const of = new Map(ids.map((id, at) => [id, values[at] as number]));
      this.found.value = fits ? { state: "ready", data: { by, of } } : { state: "idle", data: null };
    } catch (error) {
      const { message, hint } = error as WireError;
      if (stopped.aborted) return;
      this.found.value = isCancelled(error)
        ? { state: "idle", data }
        : { state: "error", data: null, error: { message, hint } };
    }
  }

  cancel(): void {
    this.stop.abort();
    this.stop = new AbortController();
    this.found.value = { state: "idle", data: this.found.peek().data };
  }

  /** Whether what was measured is what is asked for, of the graph on the screen. */
  fits(by: ColourBy | null): boolean {
    const { data } = this.found.value;
    if (data === null || data.by !== by) return false;
    const ids = idsOf(this.synced.graph.value);
    return ids.length === data.of.size && ids.every((id) => data.of.has(id));
  }
}

function idsOf(graph: Graph | null): string[] {
  return graph ? [...graph.nodes, ...graph.groups].map(({ id }) => id) : [];
}

function isAsked(by: ColourBy | null): by is Asked {
  return ASKED.some((one) => one === by);
}
