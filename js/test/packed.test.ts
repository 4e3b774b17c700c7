/// <reference types="node" />
// The graph as Python packs it: the same fixture as tests/unit/test_graph_json.py.

import { readFileSync } from "node:fs";
import { describe, expect, it, vi } from "vitest";
import { type Graph, synced, type WidgetModel } from "../src/state/synced";

const { packed, rows } = JSON.parse(
  readFileSync(new URL("../../tests/fixtures/graph/packed.json", import.meta.url), "utf8"),
);

function host(graph: unknown) {
  const listeners = new Map<string, () => void>();
  const held: Record<string, unknown> = { graph };
  const model = {
    get: (name: string) => held[name],
    on: (event: string, callback: () => void) => listeners.set(event, callback),
    off: () => undefined,
    set: () => undefined,
    save_changes: () => undefined,
    send: () => undefined,
  } as WidgetModel;
  const set = (name: string, value: unknown) => {
    held[name] = value;
    listeners.get(`change:${name}`)?.();
  };
  return { traits: synced(model), set };
}

function page(graph: unknown) {
  const { traits, set } = host(graph);
  return { graph: traits.graph, push: (value: unknown) => set("graph", value) };
}

/** Rows written out: those of the page read their fields when they are asked. */
function written(graph: Graph | null) {
  const fields = (named: object, sample: object) =>
    Object.fromEntries(Object.keys(sample).map((name) => [name, named[name as keyof typeof named]]));
  const all = (name: "nodes" | "edges" | "groups") => graph?.[name].map((row) => fields(row, rows[name][0]));
  return { ...graph, nodes: all("nodes"), edges: all("edges"), groups: all("groups") };
}

describe("the graph that the page is sent", () => {
  it("is the rows that Python packed, field by field", () => {
    expect(written(page(packed).graph.value)).toEqual(rows);
  });

  it("may come as rows, or not yet", () => {
    expect(page(rows).graph.value).toEqual(rows);
    expect(page({}).graph.value).toBeNull();
  });

  it("follows what comes later", () => {
    const { graph, push } = page({});
    push(packed);
    expect(written(graph.value)).toEqual(rows);
  });

  it("is read in a task of its own where it is large, and what came with it follows it", () => {
    vi.useFakeTimers();
    const { traits, set } = host({});
    const length = 2000;
    const seen: Array<[number | undefined, number]> = [];
    set("graph", { ...packed, nodes: { length, text: { id: [0] } } });
    set("epoch", 7);
    seen.push([traits.graph.value?.nodes.length, traits.epoch.value]);
    traits.epoch.subscribe((epoch) => seen.push([traits.graph.value?.nodes.length, epoch]));
    vi.runAllTimers();
    set("epoch", 8);
    expect(seen).toEqual([
      [undefined, 0],
      [undefined, 0],
      [length, 7],
      [length, 8],
    ]);
    vi.useRealTimers();
  });

  it("stays the same object when it is sent once more", () => {
    const { graph, push } = page(packed);
    const before = graph.value;
    push(structuredClone(packed));
    expect(graph.value).toBe(before);
    push({ ...packed, model: "another" });
    expect(graph.value?.model).toBe("another");
  });

  it("reads tables without rows", () => {
    const none = { length: 0 };
    const empty = { ...packed, model: "", texts: [], shapes: [], nodes: none, edges: none, groups: none };
    const read = { model: "", kind: "run", nodes: [], edges: [], groups: [] };
    expect(page(empty).graph.value).toEqual(read);
    expect(page({ ...empty, kind: "tree" }).graph.value).toEqual({ ...read, kind: "tree" });
  });
});
