// The ranking of knock-outs and the heat map of patches, as they grow: what was asked for, and what came so far.

import { type Signal, signal } from "@preact/signals";
import { table, ZERO } from "../maps/colormaps";
import type { Run } from "../state/synced";
import { isCancelled, type WireError } from "../wire/client";
import type { Each, Operations } from "../wire/types";
import type { Ask } from "./shelf";

export interface Ranked {
  index: number;
  /** By how much the score falls. */
  effect: number;
  /** By how much the probability falls, where there is one. */
  share: number | null;
}

export interface Ranking {
  layer: string;
  /** The number of the run that it is of. */
  run: number;
  heads: boolean;
  rows: Ranked[];
  meta: Operations["knock_outs"]["meta"];
}

export interface HeatMap {
  meta: Operations["patch_effects"]["meta"];
  /** The number of the run that it is of. */
  run: number;
  source: number;
  /** `[layers, parts]`, NaN where nothing is known. */
  values: Float32Array;
  parts: number;
}

/** The run that is asked about. */
type Asked = Pick<Run, "run" | "sample">;

/** One growing answer: a new question ends the one before. */
class Growing<T> {
  readonly found: Signal<T | null> = signal(null);
  readonly running = signal(false);
  readonly error = signal("");
  private stopping: AbortController | null = null;

  stop(): void {
    this.stopping?.abort();
  }

  protected async grow(ask: (signal: AbortSignal) => Promise<unknown>): Promise<void> {
    this.stop();
    const stop = new AbortController();
    this.stopping = stop;
    this.running.value = true;
    this.error.value = "";
    try {
      await ask(stop.signal);
    } catch (error) {
      if (!isCancelled(error) && this.stopping === stop) this.error.value = (error as WireError).message;
    }
    if (this.stopping === stop) this.running.value = false;
  }
}

export class KnockOuts extends Growing<Ranking> {
  readonly value: Signal<"zero" | "mean"> = signal("zero");
  readonly heads = signal(false);

  constructor(private readonly ask: Ask) {
    super();
  }

  async start(layer: string, { run, sample }: Asked, target: number | null): Promise<void> {
    const heads = this.heads.peek();
    this.found.value = null;
    await this.grow((signal) =>
      this.ask(
        "knock_outs",
        { node: layer, sample, target, value: this.value.peek(), heads },
        {
          slot: "explain knock-outs",
          signal,
          onChunk: ({ arrays, meta }) => {
            const { channels, effects, probabilities } = arrays;
            if (!channels || !effects || !meta) return;
            const all = Array.from(channels.data, (index, i) => ({
              index,
              effect: effects.data[i] as number,
              share: probabilities?.data[i] ?? null,
            }));
            const rows = all.filter(({ index }) => index >= 0);
            this.found.value = { layer, run, heads, rows, meta };
          },
        },
      ),
    );
  }
}

export class Patches extends Growing<HeatMap> {
  readonly each: Signal<Each> = signal("position");
  readonly source: Signal<number | null> = signal(null);

  constructor(private readonly ask: Ask) {
    super();
  }

  async start({ run, sample }: Asked): Promise<void> {
    const source = this.source.peek();
    if (source === null) return;
    this.found.value = null;
    await this.grow((signal) =>
      this.ask(
        "patch_effects",
        { sample, source, each: this.each.peek() },
        {
          slot: "explain patches",
          signal,
          onChunk: ({ arrays, meta }) => {
            const effects = arrays.effects;
            if (!effects || !meta) return;
            const parts = effects.shape[1] ?? 1;
            this.found.value = { meta, run, source, values: effects.data, parts };
          },
        },
      ),
    );
  }
}

/** The effects of one layer, as rows and columns: a region of a map has both. */
export function layerOf(
  map: HeatMap,
  layer: number,
): { rows: number; columns: number; values: Float32Array } {
  const shape = map.meta.shapes[layer] ?? [];
  const count = shape.reduce((product, side) => product * side, 1);
  const [rows, columns] = shape.length === 2 ? [shape[0] as number, shape[1] as number] : [1, count];
  const start = layer * map.parts;
  return { rows, columns, values: map.values.subarray(start, start + count) };
}

/** What a cell of the heat map is, in words. */
export function cellName(each: Each, index: number, columns: number, rows: number): string {
  if (each === "layer") return "the whole layer";
  if (each === "channel" || each === "head") return `${each} ${index}`;
  return rows > 1 ? `region (${Math.floor(index / columns)}, ${index % columns})` : `position ${index}`;
}

/** How far the colours reach: to the largest effect of a part, and never beyond the whole prediction. */
export function reachOf(map: HeatMap): number {
  const parts = map.meta.layers.map((_, i) => layerOf(map, i).values);
  const several = parts.filter((values) => values.length > 1);
  let reach = 0;
  for (const values of several.length > 0 ? several : parts) {
    for (const value of values) if (Math.abs(value) > reach) reach = Math.abs(value);
  }
  return reach > 0 ? Math.min(1, reach) : 1;
}

/** White is no effect, red brings the prediction back, blue takes it away; gray is not known. */
export function colours(values: Float32Array, reach: number): Uint32Array {
  const diverging = table("diverging");
  return Uint32Array.from(values, (value) => {
    if (!Number.isFinite(value)) return 0x30808080;
    return diverging[ZERO + Math.round(127 * Math.max(-1, Math.min(1, value / reach)))] as number;
  });
}

/** Whether there is an attention among these parts of a network, as far as their names tell. */
export function attends(parts: Iterable<{ path: string; type: string }>): boolean {
  for (const { path, type } of parts) if (/[^l]att(en|n)/i.test(` ${path} ${type}`)) return true; // and no flatten
  return false;
}
