// The general layout, for what is neither a chain nor parallel branches: rows and columns. Edges run straight down
// through the rows and sideways only between them, so no edge ever crosses a box.

import { columnsOf } from "./columns";
import { inRows } from "./rows";
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
const POINT_GAP = 14;

export function edgeKey(source: number, target: number): string {
  return `${source}>${target}`;
}

export function layered(
  vertices: readonly number[],
  edges: readonly Edge[],
  size: (vertex: number) => Size,
): Layered {
  return finish(vertices, edges, size, placed(vertices, edges, size));
}

interface Rough {
  centres: Map<number, Point>;
  /** Inner points of long edges, top to bottom. */
  via: Map<string, Point[]>;
}

function placed(vertices: readonly number[], edges: readonly Edge[], size: (vertex: number) => Size): Rough {
  const index = new Map(vertices.map((vertex, at) => [vertex, at]));
  const sizes = vertices.map(size);
  const pairs = edges.map(([a, b]) => [index.get(a) as number, index.get(b) as number] as const);
  const inside = inRows(vertices.length, pairs);
  const x = columnsOf(inside, {
    count: vertices.length,
    width: (at) => (sizes[at] as Size).width,
    gap: COLUMN_GAP,
    pointGap: POINT_GAP,
  });
  const y: number[] = [];
  let top = 0;
  for (const row of inside.rows) {
    const height = Math.max(...row.map((at) => sizes[at]?.height ?? 0));
    for (const at of row) y[at] = top + height / 2;
    top += height + ROW_GAP;
  }
  const at = (place: number): Point => [x[place] as number, y[place] as number];
  return {
    centres: new Map(vertices.map((vertex, place) => [vertex, at(place)])),
    via: new Map(edges.map(([a, b], edge) => [edgeKey(a, b), (inside.points[edge] as number[]).map(at)])),
  };
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
