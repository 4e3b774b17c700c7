// The general layout, for what is neither a chain nor parallel branches: ranks by dagre. Edges run straight down
// through the rows and sideways only between them, so no edge ever crosses a box. Where dagre gives up (or would
// take too long) the ranks are the longest paths and each row is centred.

import { type EdgeLabel, Graph, type GraphLabel, layout, type NodeLabel } from "@dagrejs/dagre";
import { orderRows } from "./ordering";
import type { Edge } from "./series";

export type Point = readonly [x: number, y: number];

export interface Size {
  width: number;
  height: number;
}

export interface Layered {
  /** Centre of each vertex. */
  centres: Map<number, Point>;
  width: number;
  height: number;
  /** Columns an edge passes between its two ends, and the heights at which it changes over. */
  bends: Map<string, Bend[]>;
}

/** At height `y`, between two rows, an edge goes over to column `x`; null is its own end. */
export interface Bend {
  y: number;
  x: number | null;
}

export const COLUMN_GAP = 20;
export const ROW_GAP = 40;
const MANY = 30;
const TOO_MANY = 300;

export function edgeKey(source: number, target: number): string {
  return `${source}>${target}`;
}

export function layered(
  vertices: readonly number[],
  edges: readonly Edge[],
  size: (vertex: number) => Size,
): Layered {
  const placed =
    edges.length <= TOO_MANY
      ? (byDagre(vertices, edges, size) ?? byRank(vertices, edges, size))
      : byRank(vertices, edges, size);
  return finish(vertices, edges, size, placed);
}

interface Rough {
  centres: Map<number, Point>;
  /** Inner points of long edges, top to bottom. */
  via: Map<string, Point[]>;
}

function byDagre(
  vertices: readonly number[],
  edges: readonly Edge[],
  size: (vertex: number) => Size,
): Rough | null {
  const graph = new Graph<GraphLabel, NodeLabel, EdgeLabel>();
  // The best ranks cost more than they are worth where there are many.
  const ranker = vertices.length > MANY ? "tight-tree" : "network-simplex";
  graph.setGraph({ rankdir: "TB", nodesep: COLUMN_GAP, edgesep: 14, ranksep: ROW_GAP, ranker });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const vertex of vertices) graph.setNode(`${vertex}`, { ...size(vertex) });
  for (const [source, target] of edges) graph.setEdge(`${source}`, `${target}`, {});
  try {
    layout(graph, { customOrder: orderRows });
  } catch {
    return null;
  }
  const centres = new Map<number, Point>();
  for (const vertex of vertices) {
    const { x, y } = graph.node(`${vertex}`);
    if (!Number.isFinite(x) || !Number.isFinite(y)) return null;
    centres.set(vertex, [x as number, y as number]);
  }
  const via = new Map<string, Point[]>();
  for (const [source, target] of edges) {
    const points = graph.edge(`${source}`, `${target}`).points ?? [];
    via.set(
      edgeKey(source, target),
      points.slice(1, -1).map(({ x, y }): Point => [x, y]),
    );
  }
  return { centres, via };
}

function byRank(vertices: readonly number[], edges: readonly Edge[], size: (vertex: number) => Size): Rough {
  const rank = new Map(vertices.map((vertex) => [vertex, 0]));
  const inside = edges.filter(([a, b]) => rank.has(a) && rank.has(b)).sort((a, b) => a[0] - b[0]);
  for (const [source, target] of inside) {
    rank.set(target, Math.max(rank.get(target) as number, (rank.get(source) as number) + 1));
  }
  const rows: number[][] = [];
  for (const [vertex, at] of rank) {
    rows[at] ??= [];
    (rows[at] as number[]).push(vertex);
  }
  const centres = new Map<number, Point>();
  let top = 0;
  for (const row of rows) {
    const width = row.reduce((sum, vertex) => sum + size(vertex).width + COLUMN_GAP, -COLUMN_GAP);
    const height = Math.max(...row.map((vertex) => size(vertex).height));
    let x = -width / 2;
    for (const vertex of row) {
      centres.set(vertex, [x + size(vertex).width / 2, top + height / 2]);
      x += size(vertex).width + COLUMN_GAP;
    }
    top += height + ROW_GAP;
  }
  // A long edge passes every row between its ends on the right of that row, where there is no box.
  const via = new Map<string, Point[]>();
  const used = rows.map(() => 0);
  for (const [source, target] of inside) {
    const points: Point[] = [];
    for (let at = (rank.get(source) as number) + 1; at < (rank.get(target) as number); at++) {
      const row = rows[at] as number[];
      const last = row[row.length - 1] as number;
      const [x, y] = centres.get(last) as Point;
      used[at] = (used[at] as number) + 1;
      points.push([x + size(last).width / 2 + 10 + 6 * Math.min(used[at] as number, 8), y]);
    }
    via.set(edgeKey(source, target), points);
  }
  return { centres, via };
}

/** Rows, the gaps between them, and for each edge where in which gap it changes its column. */
function finish(
  vertices: readonly number[],
  edges: readonly Edge[],
  size: (vertex: number) => Size,
  { centres, via }: Rough,
): Layered {
  const rows = rowsOf(vertices, size, centres);
  const rowAt = (y: number) => rows.findIndex((row) => y >= row.top - 0.5 && y <= row.bottom + 0.5);
  let [left, right, bottom] = [0, 0, 0];
  const top = rows[0]?.top ?? 0;
  for (const vertex of vertices) {
    const [x, y] = centres.get(vertex) as Point;
    left = Math.min(left, x - size(vertex).width / 2);
    right = Math.max(right, x + size(vertex).width / 2);
    bottom = Math.max(bottom, y + size(vertex).height / 2);
  }

  // Edges that change column in the same gap do so at heights of their own, one for each source.
  const slots = new Map<number, number[]>();
  const columns = new Map<string, { gap: number; x: number | null }[]>();
  for (const [source, target] of edges) {
    const first = rowAt((centres.get(source) as Point)[1]);
    const last = rowAt((centres.get(target) as Point)[1]);
    const inner = new Map<number, number>();
    for (const [x, y] of via.get(edgeKey(source, target)) ?? []) {
      const row = rowAt(y);
      if (row > first && row < last) inner.set(row, x);
      left = Math.min(left, x);
      right = Math.max(right, x);
    }
    const steps: { gap: number; x: number | null }[] = [];
    for (let row = first + 1; row <= last; row++) {
      const x = inner.get(row) ?? null;
      if (x === null && row < last) continue;
      steps.push({ gap: row, x });
      const slot = slots.get(row) ?? [];
      if (!slot.includes(source)) slot.push(source);
      slots.set(row, slot);
    }
    columns.set(edgeKey(source, target), steps);
  }
  const bends = new Map<string, Bend[]>();
  for (const [source, target] of edges) {
    const key = edgeKey(source, target);
    bends.set(
      key,
      (columns.get(key) ?? []).map(({ gap, x }) => {
        const [above, below] = [rows[gap - 1], rows[gap]] as [Row, Row];
        const slot = slots.get(gap) as number[];
        const share = (slot.indexOf(source) + 1) / (slot.length + 1);
        // The arrow needs the lower end of the gap for itself.
        return {
          y: above.bottom + share * (below.top - above.bottom - 12) + 2 - top,
          x: x === null ? null : x - left,
        };
      }),
    );
  }
  const moved = new Map<number, Point>();
  for (const [vertex, [x, y]] of centres) moved.set(vertex, [x - left, y - top]);
  return { centres: moved, width: right - left, height: bottom - top, bends };
}

interface Row {
  top: number;
  bottom: number;
}

function rowsOf(
  vertices: readonly number[],
  size: (vertex: number) => Size,
  centres: Map<number, Point>,
): Row[] {
  const spans = vertices
    .map((vertex) => {
      const [, y] = centres.get(vertex) as Point;
      return { top: y - size(vertex).height / 2, bottom: y + size(vertex).height / 2 };
    })
    .sort((a, b) => a.top - b.top);
  const rows: Row[] = [];
  for (const span of spans) {
    const row = rows[rows.length - 1];
    if (row && span.top < row.bottom - 0.5) row.bottom = Math.max(row.bottom, span.bottom);
    else rows.push({ ...span });
  }
  return rows;
}
