import { Graph, layout } from "@dagrejs/dagre";
import { describe, expect, it } from "vitest";
import { columnsOf } from "../src/graph/columns";
import { inRows, type Rows } from "../src/graph/rows";

type Pair = readonly [number, number];

/** The same numbers for the same seed. */
function chances(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return state / 2147483648;
  };
}

/** Each vertex reads the one before it or a near one, and sometimes both. */
function tangle(count: number, seed: number): Pair[] {
  const chance = chances(seed);
  const edges = new Map<string, Pair>();
  for (let at = 1; at < count; at++) {
    const near = Math.max(0, at - 1 - Math.floor(chance() * 8));
    if (chance() < 0.7) edges.set(`${at - 1}>${at}`, [at - 1, at]);
    edges.set(`${near}>${at}`, [near, at]);
  }
  return [...edges.values()];
}

/** Pairs of lines between the same two rows whose ends are in opposite order, every pair looked at. */
function crossings(lines: readonly { row: number; from: number; to: number }[]): number {
  let count = 0;
  for (const a of lines)
    for (const b of lines) if (a.row === b.row && a.from < b.from && a.to > b.to) count++;
  return count;
}

function ours({ rows, downs }: Rows): number {
  const place = new Map(rows.flatMap((row) => row.map((vertex, at) => [vertex, at] as const)));
  const lines = rows.flatMap((row, at) =>
    row.flatMap((vertex, from) =>
      (downs[vertex] as readonly number[]).map((to) => ({ row: at, from, to: place.get(to) as number })),
    ),
  );
  return crossings(lines);
}

/** What dagre makes of the same edges. */
function theirs(count: number, edges: readonly Pair[]): number {
  const graph = new Graph();
  graph.setGraph({});
  graph.setDefaultEdgeLabel(() => ({}));
  for (let at = 0; at < count; at++) graph.setNode(`${at}`, { width: 100, height: 30 });
  for (const [a, b] of edges) graph.setEdge(`${a}`, `${b}`);
  let found = 0;
  layout(graph, {
    customOrder(ranked, order) {
      order(ranked, {});
      const lines = ranked.edges().map(({ v, w }) => {
        const [from, to] = [ranked.node(v), ranked.node(w)] as { rank: number; order: number }[];
        return { row: from?.rank as number, from: from?.order as number, to: to?.order as number };
      });
      found = crossings(lines);
    },
  });
  return found;
}

describe("a tangle in rows", () => {
  const seeds = [1, 2, 3, 4, 5, 6];

  it("has every vertex below all that it reads, and a point of a long edge in every row between", () => {
    for (const seed of seeds) {
      const edges = tangle(50, seed);
      const { rows, downs, points } = inRows(50, edges);
      const row = new Map(rows.flatMap((one, at) => one.map((vertex) => [vertex, at] as const)));
      expect(row.size).toBe(50 + points.flat().length);
      expect(rows.every((one) => one.some((vertex) => vertex < 50))).toBe(true);
      edges.forEach(([source, target], edge) => {
        const way = [source, ...(points[edge] as number[]), target];
        for (let at = 1; at < way.length; at++) {
          const [above, below] = [way[at - 1] as number, way[at] as number];
          expect(row.get(below)).toBe((row.get(above) as number) + 1);
          expect(downs[above]).toContain(below);
        }
      });
    }
  });

  it("crosses about as few edges as dagre's rows do", () => {
    const pairs = seeds.map((seed) => {
      const edges = tangle(36, seed);
      return [theirs(36, edges), ours(inRows(36, edges))] as const;
    });
    const [dagre, here] = [0, 1].map((side) => pairs.reduce((sum, pair) => sum + (pair[side] as number), 0));
    expect(dagre).toBeGreaterThan(10);
    expect(here).toBeLessThanOrEqual(1.15 * (dagre as number));
  }, 30_000);

  it("has no crossing where there need be none", () => {
    // Three chains whose ends were named crosswise.
    const rows = inRows(6, [
      [0, 5],
      [1, 4],
      [2, 3],
    ]);
    expect(ours(rows)).toBe(0);
  });

  it("pulls down to its reader what is read further down, and keeps no row empty", () => {
    // 0 to 3 are a chain; 4 is read by 3 alone.
    const { rows } = inRows(5, [
      [0, 1],
      [1, 2],
      [2, 3],
      [4, 3],
    ]);
    expect(rows.map((row) => [...row].sort())).toEqual([[0], [1], [2, 4], [3]]);
  });
});

describe("the columns of a tangle", () => {
  const widths = { width: (vertex: number) => 60 + 20 * (vertex % 3), gap: 20, pointGap: 14 };

  it("keep the order of every row, and what is free between its vertices", () => {
    for (const seed of [1, 2, 3, 4]) {
      const found = inRows(50, tangle(50, seed));
      const x = columnsOf(found, { ...widths, count: 50 });
      const room = (vertex: number) => (vertex < 50 ? widths.width(vertex) + widths.gap : widths.pointGap);
      for (const row of found.rows) {
        for (let at = 1; at < row.length; at++) {
          const [a, b] = [row[at - 1] as number, row[at] as number];
          expect((x[b] as number) - (x[a] as number)).toBeGreaterThanOrEqual((room(a) + room(b)) / 2 - 1e-6);
        }
      }
    }
  });

  it("keep a chain straight, also where a long edge passes beside it", () => {
    const chain: Pair[] = [0, 1, 2, 3].map((at) => [at, at + 1]);
    const found = inRows(5, [...chain, [0, 4]]);
    const x = columnsOf(found, { ...widths, width: () => 80, count: 5 });
    expect(new Set([1, 2, 3].map((vertex) => x[vertex])).size).toBe(1);
    expect(new Set((found.points.at(-1) as number[]).map((point) => x[point])).size).toBe(1);
  });
});
