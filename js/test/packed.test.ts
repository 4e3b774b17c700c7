/// <reference types="node" />
// The graph as Python packs it: the same fixture as tests/unit/test_graph_json.py.

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type Graph, synced, type WidgetModel } from "../src/state/synced";

const { packed, rows } = JSON.parse(
  readFileSync(new URL("../../tests/fixtures/graph/packed.json", import.meta.url), "utf8"),
);

function page(graph: unknown) {
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
  const push = (value: unknown) => {
    held.graph = value;
    listeners.get("change:graph")?.();
  };
  return { graph: synced(model).graph, push };
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
