import { signal } from "@preact/signals";
import { describe, expect, it, vi } from "vitest";
import { changedBy } from "../src/state/changes";
import { Store } from "../src/state/store";
import { synced, type WidgetModel } from "../src/state/synced";
import { type WireClient, WireError } from "../src/wire/client";
import type { Operation, RequestOptions } from "../src/wire/types";

interface Asked {
  op: Operation;
  params: Record<string, unknown>;
  options: RequestOptions<Operation>;
  resolve(reply: unknown): void;
  reject(error: unknown): void;
}

/** A widget model of twenty lines and a wire that answers when the test says so. */
function page(traits: Record<string, unknown> = {}) {
  const held: Record<string, unknown> = {
    graph: {},
    info: {},
    status: {},
    run: {},
    epoch: 0,
    selection: {},
    ...traits,
  };
  const listeners = new Map<string, Set<() => void>>();
  const model = {
    get: (name: string) => held[name],
    set: (name: string, value: unknown) => {
      held[name] = value;
    },
    save_changes: () => {},
    on: (event: string, call: () => void) => {
      listeners.set(event, (listeners.get(event) ?? new Set()).add(call));
    },
    off: (event: string, call: () => void) => listeners.get(event)?.delete(call),
    send: () => {},
  } as unknown as WidgetModel;
  const asked: Asked[] = [];
  const wire = {
    busy: signal(false),
    dead: signal(false),
    request: (op: Operation, params: Record<string, unknown>, options: RequestOptions<Operation>) =>
      new Promise((resolve, reject) => asked.push({ op, params, options, resolve, reject })),
  };
  const store = new Store(synced(model), wire as unknown as WireClient, "view");
  const push = (name: string, value: unknown) => {
    held[name] = value;
    for (const call of listeners.get(`change:${name}`) ?? []) call();
  };
  const last = (op: Operation) => asked.filter((a) => a.op === op).at(-1) as Asked;
  const counts = () => [...listeners.values()].reduce((n, set) => n + set.size, 0);
  return { store, wire, asked, push, last, held, counts };
}

const RUN = {
  sample: 0,
  epoch: 1,
  run: 1,
  ms: 5,
  consistent: true,
  predictions: { task: "other", classes: [] },
};
const GRAPH = { model: "Net", nodes: [{ id: "conv" }], edges: [], groups: [{ id: "", children: ["conv"] }] };
const META = { node: "conv", kind: "maps", shape: [2, 2, 2], scale: 1, bad: [], ms: 3 };

function tiles(bytes: number[], start: number, total: number) {
  return { data: new Uint8Array(bytes), shape: [bytes.length / 4, 2, 2], start, total };
}

describe("Store", () => {
  it("asks for nothing before there is a run", () => {
    const { asked } = page();
    expect(asked).toEqual([]);
  });

  it("asks for the maps of a selected layer and assembles their parts", async () => {
    const { store, last, push } = page({ graph: GRAPH });
    push("run", RUN);
    store.selectLayer("conv");
    const request = last("maps");
    expect(request.params).toMatchObject({ node: "conv", sample: 0 });
    request.options.onChunk?.({
      meta: META,
      arrays: { tiles: tiles([1, 2, 3, 4], 0, 2) },
      epoch: 1,
      last: false,
    } as never);
    expect(store.maps.value.state).toBe("loading");
    expect(store.maps.value.data?.loaded).toBe(1);
    request.options.onChunk?.({
      arrays: { tiles: tiles([5, 6, 7, 8], 1, 2) },
      epoch: 1,
      last: true,
    } as never);
    request.resolve({ meta: META, arrays: {}, epoch: 1, ms: 1 });
    await Promise.resolve();
    await Promise.resolve();
    expect(store.maps.value.state).toBe("ready");
    expect([...(store.maps.value.data?.tiles ?? [])]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });

  it("keeps a layer it remembers when the maps of another one arrive late", async () => {
    const { store, last, push } = page({ graph: GRAPH });
    push("run", RUN);
    const answer = (node: string) => {
      const request = last("maps");
      const meta = { ...META, node, shape: [1, 2, 2] };
      request.options.onChunk?.({
        meta,
        arrays: { tiles: tiles([1, 2, 3, 4], 0, 1) },
        epoch: 1,
        last: true,
      } as never);
      request.resolve({ meta, arrays: {}, epoch: 1, ms: 1 });
    };
    const settled = async () => {
      for (let i = 0; i < 4; i++) await Promise.resolve();
    };
    store.selectLayer("conv");
    answer("conv");
    await settled();
    store.selectLayer("slow");
    const slow = last("maps");
    store.selectLayer("conv");
    expect(slow.options.signal?.aborted).toBe(true);
    slow.reject(new WireError("cancelled", "cancelled"));
    await settled();
    expect(store.maps.value).toMatchObject({ state: "ready", data: { node: "conv" } });
  });

  it("asks anew, of the changed network, when something is changed, held or given up", async () => {
    const { store, last, push, asked } = page({ graph: GRAPH });
    push("run", RUN);
    store.showStrips(["conv"]);
    store.selectLayer("conv");
    const answer = async (first: number) => {
      const request = last("maps");
      const part = { meta: META, arrays: { tiles: tiles([first, 2, 3, 4, 5, 6, 7, 8], 0, 2) } };
      request.options.onChunk?.({ ...part, epoch: 1, last: true } as never);
      request.resolve({ meta: META, arrays: {}, epoch: 1, ms: 1 });
      const strip = { node: "conv", kind: "maps", start: 0, channels: [0] };
      const drawn = { tiles: { data: new Uint8Array(36 * 36).fill(first) } };
      last("strips").resolve({ meta: { strips: [strip] }, arrays: drawn, epoch: 1, ms: 1 });
      for (let i = 0; i < 6; i++) await Promise.resolve();
    };
    await answer(1);
    const on = [{ layer: "conv", kind: "ablate" as const, on: true }];
    const other = { task: "other" as const, classes: [], note: "changed" };
    store.changes.made.value = changedBy(on, other);
    expect(last("maps").params).toMatchObject({ node: "conv", changed: on });
    expect(last("strips").params).toMatchObject({ nodes: ["conv"], changed: on });
    await answer(9);
    expect(store.maps.value.data).toMatchObject({ changed: 1 });
    expect(store.strips.value.get("conv")?.tiles[0]).toBe(9);
    expect(store.changes.predictions.value).toBe(other);

    // Both are here: to compare them asks for nothing.
    const before = asked.length;
    store.changes.held.value = true;
    expect(store.maps.value.data?.tiles[0]).toBe(1);
    expect(store.maps.value.data?.changed).toBeUndefined();
    expect(store.strips.value.get("conv")?.tiles[0]).toBe(1);
    expect(store.changes.predictions.value?.note).toBeUndefined();
    store.changes.held.value = false;
    expect(store.maps.value.data?.tiles[0]).toBe(9);
    store.changes.made.value = changedBy([], other);
    expect(store.maps.value.data?.tiles[0]).toBe(1);
    expect(asked.length).toBe(before);
  });

  it("says what failed and keeps silent about what was cancelled", async () => {
    const { store, last, push } = page({ graph: GRAPH });
    push("run", RUN);
    store.selectLayer("conv");
    last("maps").reject(new WireError("model_error", "boom", "look at line 3"));
    await vi.waitFor(() => expect(store.maps.value.state).toBe("error"));
    expect(store.maps.value.error).toEqual({ message: "boom", hint: "look at line 3" });
    store.retryMaps();
    last("maps").reject(new WireError("cancelled", "cancelled"));
    await Promise.resolve();
    await Promise.resolve();
    expect(store.maps.value.state).toBe("loading");
  });

  it("asks for the saliency of the output when a class is chosen", () => {
    const { store, last, push } = page({ graph: GRAPH });
    push("run", RUN);
    store.selectClass(3);
    expect(last("saliency").params).toMatchObject({ node: "output", unit: [3] });
  });

  it("backs out one step at a time", () => {
    const { store, push } = page({ graph: GRAPH });
    push("run", RUN);
    store.selectLayer("conv");
    store.selectUnit(1, [0, 1]);
    expect(store.synced.selection.value).toMatchObject({ layer: "conv", channel: 1, pixel: [0, 1] });
    store.back();
    expect(store.synced.selection.value).toMatchObject({ channel: 1, pixel: null });
    store.back();
    expect(store.synced.selection.value).toMatchObject({ layer: "conv", channel: null });
    store.back();
    expect(store.synced.selection.value.layer).toBeNull();
    expect(store.back()).toBe(false);
  });

  it("calls a picture stale when the kernel knows newer weights", () => {
    const { store, push } = page({ graph: GRAPH, status: { state: "ready" } });
    push("run", RUN);
    push("epoch", 1);
    expect(store.state.value).toBe("ready");
    push("epoch", 2);
    expect(store.state.value).toBe("stale");
    push("run", { ...RUN, epoch: 2, run: 2, consistent: false });
    expect(store.state.value).toBe("stale");
  });

  it("tells a reopened picture from a kernel that died", async () => {
    const { store, wire, last, push } = page({ graph: GRAPH, status: { state: "ready" } });
    wire.dead.value = true;
    expect(store.state.value).toBe("static");
    wire.dead.value = false;
    push("run", RUN);
    last("strips")?.resolve({ meta: { strips: [] }, arrays: { tiles: tiles([], 0, 0) }, epoch: 1, ms: 1 });
    last("input").resolve({
      meta: { kind: "other" },
      arrays: { rgb: { data: new Uint8Array(), shape: [0, 0, 3] } },
    });
    await Promise.resolve();
    await Promise.resolve();
    wire.dead.value = true;
    expect(store.state.value).toBe("dead");
  });

  it("asks again what a kernel that was given up did not answer", async () => {
    const { store, wire, asked, last, push } = page({ graph: GRAPH });
    push("run", RUN);
    store.selectLayer("conv");
    wire.dead.value = true;
    last("maps").reject(new WireError("dead", "The kernel is gone."));
    await vi.waitFor(() => expect(store.maps.value.state).toBe("error"));
    const before = asked.filter(({ op }) => op === "maps").length;
    wire.dead.value = false;
    expect(asked.filter(({ op }) => op === "maps")).toHaveLength(before + 1);
    expect(last("maps").params).toMatchObject({ node: "conv" });
  });

  it("leaves no listener behind", () => {
    const { store, counts } = page();
    store.dispose();
    store.synced.dispose();
    expect(counts()).toBe(0);
  });
});
