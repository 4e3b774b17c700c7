// Changing layers on the page: what stands on the shelf, the way back, the Python, and how growing answers arrive.

import { signal } from "@preact/signals";
import { describe, expect, it } from "vitest";
import {
  attends,
  cellName,
  colours,
  type HeatMap,
  KnockOuts,
  layerOf,
  Patches,
  reachOf,
} from "../src/intervene/knocking";
import { type Ask, partOf, Shelf } from "../src/intervene/shelf";
import { NOTHING_SELECTED, type Run, type Synced } from "../src/state/synced";

interface Asked {
  op: string;
  params: Record<string, unknown>;
  options: { onChunk?(part: unknown): void; signal?: AbortSignal };
  answer(meta: unknown): void;
}

function kernel() {
  const asked: Asked[] = [];
  const ask = ((op: string, params: Record<string, unknown>, options = {}) =>
    new Promise((resolve) => {
      asked.push({ op, params, options, answer: (meta) => resolve({ meta, arrays: {}, epoch: 0, ms: 1 }) });
    })) as unknown as Ask;
  const run = signal<Run | null>({ sample: 3, epoch: 0, run: 1 } as Run);
  const synced = { run, selection: signal(NOTHING_SELECTED) } as unknown as Synced;
  return { asked, ask, synced, run };
}

const settle = () => new Promise((resolve) => setTimeout(resolve));

describe("the shelf", () => {
  it("asks for the predictions at every change, one question at a time, the newest next", async () => {
    const { asked, ask, synced } = kernel();
    const shelf = new Shelf(synced, ask);
    const end = shelf.follow();
    expect(asked).toHaveLength(0);
    shelf.add({ layer: "a", kind: "ablate", channel: 1 });
    shelf.add({ layer: "a", kind: "scale", factor: 2 });
    shelf.add({ layer: "b", kind: "clamp", low: 0 });
    expect(asked).toHaveLength(1);
    expect(asked[0]?.params).toEqual({
      sample: 3,
      interventions: [{ layer: "a", kind: "ablate", channel: 1, on: true }],
    });
    asked[0]?.answer({ sample: 3, classes: [], calls: ["x"], errors: [""], ms: 1 });
    await settle();
    expect(asked).toHaveLength(2);
    expect(asked[1]?.params.interventions).toHaveLength(3);
    end();
  });

  it("follows a new run, and forgets what it said when it is empty", async () => {
    const { asked, ask, synced, run } = kernel();
    const shelf = new Shelf(synced, ask);
    const end = shelf.follow();
    shelf.add({ layer: "a", kind: "ablate" });
    asked[0]?.answer({ sample: 3, classes: [], calls: ["x"], errors: [""], ms: 1 });
    await settle();
    run.value = { sample: 5, epoch: 0, run: 2 } as Run;
    expect(asked[1]?.params.sample).toBe(5);
    asked[1]?.answer({ sample: 5, classes: [], calls: ["x"], errors: [""], ms: 1 });
    await settle();
    expect(shelf.outcome.value?.sample).toBe(5);
    shelf.clear();
    expect(shelf.outcome.value).toBeNull();
    end();
  });

  it("goes back step by step; a drag is one step", () => {
    const { ask, synced } = kernel();
    const shelf = new Shelf(synced, ask);
    shelf.add({ layer: "a", kind: "scale", factor: 1 });
    const key = shelf.items.value[0]?.key as number;
    shelf.change(key, {});
    for (const factor of [1.1, 1.5, 2]) shelf.change(key, { factor }, { remember: false });
    shelf.remove(key);
    expect(shelf.items.value).toEqual([]);
    shelf.undo();
    expect(shelf.items.value[0]?.factor).toBe(2);
    shelf.undo();
    expect(shelf.items.value[0]?.factor).toBe(1);
    shelf.undo();
    expect(shelf.items.value).toEqual([]);
    expect(shelf.canUndo.value).toBe(false);
  });

  it("ablates a channel of the ranking, and takes that back", () => {
    const { ask, synced } = kernel();
    const shelf = new Shelf(synced, ask);
    shelf.toggleAblation("a", "channel", 4, "mean");
    expect(shelf.items.value[0]).toMatchObject({
      layer: "a",
      kind: "ablate",
      channel: 4,
      value: "mean",
      on: true,
    });
    expect(shelf.ablating("a", "channel", 4)).toBeDefined();
    expect(shelf.ablating("a", "head", 4)).toBeUndefined();
    shelf.toggleAblation("a", "channel", 4, "mean");
    expect(shelf.items.value).toEqual([]);
  });

  it("writes the Python of what is on", async () => {
    const { asked, ask, synced } = kernel();
    const shelf = new Shelf(synced, ask);
    const end = shelf.follow();
    shelf.add({ layer: "a", kind: "ablate" });
    shelf.add({ layer: "b", kind: "ablate" });
    const answer = { sample: 3, classes: [], calls: ["one()", "two()"], errors: ["", ""], ms: 1 };
    asked[0]?.answer({ ...answer, calls: ["one()"], errors: [""] });
    await settle();
    asked[1]?.answer(answer);
    await settle();
    expect(shelf.python.value).toContain(
      "with (\n    one(),\n    two(),\n):\n    output = engine.output(inputs[3:4])",
    );
    shelf.change(shelf.items.value[0]?.key as number, { on: false });
    expect(shelf.python.value).toContain("with two():\n");
    end();
  });

  it("names parts in words", () => {
    expect(partOf({ channel: 7 })).toBe("channel 7");
    expect(partOf({ channel: null, head: 0 })).toBe("head 0");
    expect(partOf({ unit: [1, 2, 3] })).toBe("unit (1, 2, 3)");
    expect(partOf({})).toBe("whole layer");
  });
});

describe("knock-outs", () => {
  it("fill up, and leave out what is not known yet", async () => {
    const { asked, ask } = kernel();
    const knocks = new KnockOuts(ask);
    void knocks.start("conv", { run: 7, sample: 3 }, 1);
    expect(asked[0]?.params).toEqual({ node: "conv", sample: 3, target: 1, value: "zero", heads: false });
    asked[0]?.options.onChunk?.({
      arrays: {
        channels: { data: Int32Array.from([5, 2, -1]) },
        effects: { data: Float32Array.from([0.5, -0.25, 0]) },
      },
      meta: { progress: 0.5 },
    });
    expect(knocks.found.value?.run).toBe(7);
    expect(knocks.found.value?.rows).toEqual([
      { index: 5, effect: 0.5, share: null },
      { index: 2, effect: -0.25, share: null },
    ]);
    expect(knocks.running.value).toBe(true);
    asked[0]?.answer({});
    await settle();
    expect(knocks.running.value).toBe(false);
  });

  it("end when others are asked for", () => {
    const { asked, ask } = kernel();
    const knocks = new KnockOuts(ask);
    void knocks.start("a", { run: 1, sample: 0 }, null);
    void knocks.start("b", { run: 1, sample: 0 }, null);
    expect(asked[0]?.options.signal?.aborted).toBe(true);
    expect(asked[1]?.options.signal?.aborted).toBe(false);
  });
});

describe("patches", () => {
  const map = (shapes: number[][], parts: number, values: number[]): HeatMap => ({
    meta: { layers: shapes.map((_, i) => `l${i}`), shapes } as HeatMap["meta"],
    run: 1,
    source: 1,
    values: Float32Array.from(values),
    parts,
  });

  it("wait for the other sample", async () => {
    const { asked, ask } = kernel();
    const patches = new Patches(ask);
    await patches.start({ run: 1, sample: 0 });
    expect(asked).toHaveLength(0);
    patches.source.value = 2;
    void patches.start({ run: 1, sample: 0 });
    expect(asked[0]?.params).toEqual({ sample: 0, source: 2, each: "position" });
  });

  it("are read layer by layer, each with its own parts", () => {
    const found = map([[2, 2], [3], []], 4, [
      1,
      2,
      3,
      4,
      5,
      6,
      7,
      Number.NaN,
      8,
      Number.NaN,
      Number.NaN,
      Number.NaN,
    ]);
    expect(layerOf(found, 0)).toEqual({ rows: 2, columns: 2, values: Float32Array.from([1, 2, 3, 4]) });
    expect(layerOf(found, 1)).toEqual({ rows: 1, columns: 3, values: Float32Array.from([5, 6, 7]) });
    expect(layerOf(found, 2).values).toEqual(Float32Array.from([8]));
  });

  it("have colours that reach to the largest part, and not beyond the whole", () => {
    expect(reachOf(map([[2], []], 2, [0.25, -0.5, 1, Number.NaN]))).toBe(0.5);
    expect(reachOf(map([[2]], 2, [3, Number.NaN]))).toBe(1);
    expect(reachOf(map([[2]], 2, [0, Number.NaN]))).toBe(1);
    const [red, white, blue, unknown] = colours(Float32Array.from([0.5, 0, -0.5, Number.NaN]), 0.5);
    expect(white).toBe(0xffffffff);
    expect((red as number) & 255).toBeGreaterThan(((red as number) >> 16) & 255);
    expect((blue as number) & 255).toBeLessThan(((blue as number) >> 16) & 255);
    expect((unknown as number) >>> 24).toBeLessThan(255);
  });

  it("are named", () => {
    expect(cellName("position", 5, 3, 3)).toBe("region (1, 2)");
    expect(cellName("position", 5, 9, 1)).toBe("position 5");
    expect(cellName("head", 2, 4, 1)).toBe("head 2");
    expect(cellName("layer", 0, 1, 1)).toBe("the whole layer");
  });
});

describe("heads", () => {
  it("are offered where something attends", () => {
    const part = (path: string, type = "") => ({ path, type });
    expect(attends([part("layers.0.self_attn"), part("fc")])).toBe(true);
    expect(attends([part("x", "MultiheadAttention")])).toBe(true);
    expect(attends([part("flatten"), part("pattern.conv")])).toBe(false);
  });
});
