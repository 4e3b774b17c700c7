import { Graph, layout } from "@dagrejs/dagre";
import { describe, expect, it } from "vitest";
import { orderRows, type Ranked } from "../src/graph/ordering";

/** The same numbers for the same seed. */
function chances(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return state / 2147483648;
  };
}

/** A graph in which each vertex reads the one before it or a near one, and sometimes both. */
function tangle(count: number, seed: number) {
  const chance = chances(seed);
  const graph = new Graph();
  graph.setGraph({});
  graph.setDefaultEdgeLabel(() => ({}));
  for (let at = 0; at < count; at++) {
    graph.setNode(`${at}`, { width: 100, height: 30 });
    const near = Math.max(0, at - 1 - Math.floor(chance() * 8));
    if (at > 0 && chance() < 0.7) graph.setEdge(`${at - 1}`, `${at}`);
    if (at > 0) graph.setEdge(`${near}`, `${at}`);
  }
  return graph;
}

/** Pairs of edges between the same two rows whose ends are in opposite order, every pair looked at. */
function crossings(graph: Ranked): number {
  const ends = graph.edges().map(({ v, w }) => {
    const [from, to] = [graph.node(v), graph.node(w)];
    return [from.rank as number, from.order as number, to.order as number] as const;
  });
  let count = 0;
  for (const [rank, from, to] of ends)
    for (const [other, first, last] of ends) if (rank === other && from < first && to > last) count++;
  return count;
}

/** Crossings in dagre's own order, and in ours, of the same rows. */
function compared(count: number, seed: number): [theirs: number, ours: number] {
  let found: [number, number] = [0, 0];
  layout(tangle(count, seed), {
    customOrder(graph, order) {
      const rows = graph as unknown as Ranked;
      order(graph, {});
      const theirs = crossings(rows);
      for (const name of rows.nodes()) rows.node(name).order = undefined;
      orderRows(rows);
      found = [theirs, crossings(rows)];
    },
  });
  return found;
}

describe("the order of the rows", () => {
  it("crosses as few edges as dagre's own order does", () => {
    const pairs = Array.from({ length: 6 }, (_, seed) => compared(36, seed + 1));
    const [theirs, ours] = [0, 1].map((side) => pairs.reduce((sum, pair) => sum + (pair[side] as number), 0));
    expect(theirs).toBeGreaterThan(10);
    expect(ours).toBeLessThanOrEqual(1.1 * (theirs as number));
  }, 30_000);

  it("gives every vertex of a row a place of its own", () => {
    layout(tangle(40, 5), {
      customOrder(graph) {
        const rows = graph as unknown as Ranked;
        orderRows(rows);
        const places = rows.nodes().map((name) => `${rows.node(name).rank}:${rows.node(name).order}`);
        expect(new Set(places).size).toBe(rows.nodes().length);
      },
    });
  });

  it("draws without a crossing what can be drawn without one", () => {
    const graph = new Graph();
    graph.setGraph({});
    graph.setDefaultEdgeLabel(() => ({}));
    for (const name of ["a", "b", "c", "d", "e", "f"]) graph.setNode(name, { width: 10, height: 10 });
    // Two chains whose ends were named crosswise.
    for (const [from, to] of ["ad", "be", "cf"]) graph.setEdge(from as string, to as string);
    layout(graph, {
      customOrder(ranked) {
        orderRows(ranked as unknown as Ranked);
        expect(crossings(ranked as unknown as Ranked)).toBe(0);
      },
    });
  });
});
