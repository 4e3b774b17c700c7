// Where everything in ordered rows stands from left to right: neighbours above each other, long edges straight. Four
// drawings are made, each with what can stand below (or above) its middle neighbour doing so, pushed to the left (or
// to the right), and every vertex comes to the mean of its two middle places in them.
//
// U. Brandes and B. Köpf, "Fast and Simple Horizontal Coordinate Assignment", Graph Drawing 2001.

import type { Neighbours, Rows } from "./rows";

export interface Widths {
  /** From where on vertices are points of long edges, which take no room. */
  count: number;
  width(vertex: number): number;
  /** What stays free between two vertices, and between two points. */
  gap: number;
  pointGap: number;
}

/** The middle of every vertex. */
export function columnsOf({ rows, ups, downs }: Rows, widths: Widths): number[] {
  const total = ups.length;
  const crossed = conflicts(rows, ups, widths.count);
  const drawings: number[][] = [];
  for (const downwards of [true, false]) {
    for (const leftwards of [true, false]) {
      const turned = downwards ? rows : [...rows].reverse();
      const faced = leftwards ? turned : turned.map((row) => [...row].reverse());
      const roots = aligned(faced, downwards ? ups : downs, crossed, total);
      const places = compacted(faced, roots, widths);
      drawings.push(leftwards ? places : places.map((x) => -x));
    }
  }
  return balanced(drawings);
}

/** Edges that must give way: those that cross a long one between two of its points. */
function conflicts(rows: Rows["rows"], ups: Neighbours, count: number): Set<number> {
  const found = new Set<number>();
  const place = placesIn(rows, ups.length);
  const long = (vertex: number) =>
    vertex >= count ? (ups[vertex] as readonly number[]).find((one) => one >= count) : undefined;
  for (const row of rows) {
    let [left, from] = [-1, 0];
    row.forEach((vertex, at) => {
      const inner = long(vertex);
      if (inner === undefined && at < row.length - 1) return;
      const right = inner === undefined ? Number.POSITIVE_INFINITY : (place[inner] as number);
      for (const other of row.slice(from, at + 1)) {
        for (const up of ups[other] as readonly number[]) {
          const there = place[up] as number;
          const both = other >= count && up >= count;
          if (!both && (there < left || there > right)) found.add(pairOf(up, other, ups.length));
        }
      }
      [left, from] = [right, at + 1];
    });
  }
  return found;
}

/** A number for two of so many vertices, whichever comes first. */
function pairOf(a: number, b: number, total: number): number {
  return a < b ? a * total + b : b * total + a;
}

function placesIn(rows: Rows["rows"], total: number): Int32Array {
  const place = new Int32Array(total);
  for (const row of rows)
    row.forEach((vertex, at) => {
      place[vertex] = at;
    });
  return place;
}

/** Chains of vertices that stand in one column; each is known by its first one. */
function aligned(
  rows: Rows["rows"],
  before: Neighbours,
  crossed: ReadonlySet<number>,
  total: number,
): Int32Array {
  const place = placesIn(rows, total);
  const root = Int32Array.from({ length: total }, (_, vertex) => vertex);
  const continued = new Uint8Array(total);
  for (const row of rows) {
    let last = -1;
    for (const vertex of row) {
      const near = [...(before[vertex] as readonly number[])].sort(
        (a, b) => (place[a] as number) - (place[b] as number),
      );
      const middle = (near.length - 1) / 2;
      for (let at = Math.floor(middle); at <= Math.ceil(middle) && at >= 0; at++) {
        const other = near[at] as number;
        const there = place[other] as number;
        if (there <= last || continued[other] === 1 || crossed.has(pairOf(vertex, other, total))) continue;
        root[vertex] = root[other] as number;
        continued[other] = 1;
        last = there;
        break;
      }
    }
  }
  return root;
}

/** All columns as far to the left as they can, then back to the right where there is room before the next. */
function compacted(rows: Rows["rows"], root: Int32Array, { count, width, gap, pointGap }: Widths): number[] {
  const room = (vertex: number) => (vertex < count ? width(vertex) + gap : pointGap);
  // For each column those beside it, and how far apart the two stand: column, distance, column, distance, ...
  const before: number[][] = Array.from(root, () => []);
  const after: number[][] = Array.from(root, () => []);
  for (const row of rows) {
    for (let at = 1; at < row.length; at++) {
      const [a, b] = [row[at - 1] as number, row[at] as number];
      const [one, other, apart] = [root[a] as number, root[b] as number, (room(a) + room(b)) / 2];
      after[one]?.push(other, apart);
      before[other]?.push(one, apart);
    }
  }
  const left: (number | undefined)[] = [];
  const leftOf = (column: number): number => {
    const known = left[column];
    if (known !== undefined) return known;
    let x = 0;
    const beside = before[column] ?? [];
    for (let at = 0; at < beside.length; at += 2)
      x = Math.max(x, leftOf(beside[at] as number) + (beside[at + 1] as number));
    left[column] = x;
    return x;
  };
  const final: (number | undefined)[] = [];
  const finalOf = (column: number): number => {
    const known = final[column];
    if (known !== undefined) return known;
    let right = Number.POSITIVE_INFINITY;
    const beside = after[column] ?? [];
    for (let at = 0; at < beside.length; at += 2)
      right = Math.min(right, finalOf(beside[at] as number) - (beside[at + 1] as number));
    const x = Number.isFinite(right) ? Math.max(leftOf(column), right) : leftOf(column);
    final[column] = x;
    return x;
  };
  return Array.from(root, finalOf);
}

/** The four drawings on top of the narrowest of them: what was pushed to the left by its left side, and so on. */
function balanced(drawings: readonly (readonly number[])[]): number[] {
  const sides = drawings.map((xs) => [Math.min(...xs), Math.max(...xs)] as const);
  const narrow = sides.reduce((best, side) => (side[1] - side[0] < best[1] - best[0] ? side : best));
  const shifts = sides.map(([left, right], at) => (at % 2 === 0 ? narrow[0] - left : narrow[1] - right));
  return (drawings[0] as readonly number[]).map((_, vertex) => {
    const places = drawings.map((xs, at) => (xs[vertex] as number) + (shifts[at] as number));
    places.sort((a, b) => a - b);
    return ((places[1] as number) + (places[2] as number)) / 2;
  });
}
