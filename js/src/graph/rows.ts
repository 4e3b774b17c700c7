// A tangle in rows: every vertex in a row below all that it reads and as near to it as that allows, and where a long
// edge passes a row, a point of its own. Then the order in each row, so that few edges cross: every row is sorted by
// the mean place of its neighbours in the row before, downwards and upwards in turn, as long as that helps.

export type Neighbours = readonly (readonly number[])[];

export interface Rows {
  /** From top to bottom, each from left to right: vertices, and from `count` on the points of long edges. */
  rows: number[][];
  /** The neighbours of everything in the rows above and below its own. */
  ups: Neighbours;
  downs: Neighbours;
  /** The points of each edge, from top to bottom. */
  points: number[][];
}

/** The rows of `count` vertices; edges are pairs of them and form no circle. */
export function inRows(count: number, edges: readonly (readonly [number, number])[]): Rows {
  const ranks = ranked(count, edges);
  const ups: number[][] = Array.from({ length: count }, () => []);
  const downs: number[][] = Array.from({ length: count }, () => []);
  const join = (above: number, below: number) => {
    downs[above]?.push(below);
    ups[below]?.push(above);
  };
  const points = edges.map(([source, target]) => {
    const own: number[] = [];
    let last = source;
    for (let rank = (ranks[source] as number) + 1; rank < (ranks[target] as number); rank++) {
      const point = ranks.push(rank) - 1;
      ups.push([]);
      downs.push([]);
      own.push(point);
      join(last, point);
      last = point;
    }
    join(last, target);
    return own;
  });
  return { rows: ordered(ranks, ups, downs), ups, downs, points };
}

// --------------------------------------------------------------------------------------------------------- ranks

/** The row of each vertex, counted from 0, no row empty. */
function ranked(count: number, edges: readonly (readonly [number, number])[]): number[] {
  const sources: number[][] = Array.from({ length: count }, () => []);
  const targets: number[][] = Array.from({ length: count }, () => []);
  for (const [source, target] of edges) {
    targets[source]?.push(target);
    sources[target]?.push(source);
  }
  const order = fromSources(sources, targets);
  const ranks: number[] = Array.from({ length: count }, () => 0);
  const lowest = (vertex: number) =>
    Math.max(0, ...(sources[vertex] as number[]).map((one) => (ranks[one] as number) + 1));
  const highest = (vertex: number) =>
    Math.min(...(targets[vertex] as number[]).map((one) => (ranks[one] as number) - 1));
  for (const vertex of order) ranks[vertex] = lowest(vertex);
  // Edges get shorter: what is read more than it reads goes down to its readers, the others back up.
  const more = (vertex: number) =>
    (targets[vertex] as number[]).length - (sources[vertex] as number[]).length;
  for (const vertex of [...order].reverse())
    if ((targets[vertex] as number[]).length > 0 && more(vertex) >= 0) ranks[vertex] = highest(vertex);
  for (const vertex of order) if (more(vertex) < 0) ranks[vertex] = lowest(vertex);
  const used = [...new Set(ranks)].sort((a, b) => a - b);
  const row = new Map(used.map((rank, at) => [rank, at]));
  return ranks.map((rank) => row.get(rank) as number);
}

/** Every vertex after all that it reads. */
function fromSources(sources: Neighbours, targets: Neighbours): number[] {
  const waiting = sources.map((list) => list.length);
  const order = [...waiting.keys()].filter((vertex) => waiting[vertex] === 0);
  for (const vertex of order)
    for (const target of targets[vertex] as readonly number[]) {
      waiting[target] = (waiting[target] as number) - 1;
      if (waiting[target] === 0) order.push(target);
    }
  return order;
}

// --------------------------------------------------------------------------------------------------------- order

/** Sweeps without fewer crossings after which it stays as it is. */
const PATIENCE = 4;
/** Of many points fewer sweeps are made: where thousands of lines cross, no order helps an eye. */
const MOST_MOVES = 20_000;

function ordered(ranks: readonly number[], ups: Neighbours, downs: Neighbours): number[][] {
  let rows = firstRows(ranks, downs);
  const place = new Int32Array(ranks.length);
  settle(rows, place);
  let [best, fewest, since] = [rows, Number.POSITIVE_INFINITY, 0];
  const most = Math.max(2, MOST_MOVES / ranks.length);
  for (let sweep = 0; sweep < most && since < PATIENCE && fewest > 0; sweep++, since++) {
    rows = swept(rows, place, sweep % 2 === 0 ? downs : ups, sweep % 2 === 0, sweep % 4 >= 2);
    const crossings = countCrossings(rows, downs, place);
    if (crossings < fewest) [best, fewest, since] = [rows, crossings, 0];
  }
  return best;
}
/** Each vertex where a walk from the top meets it first. */
function firstRows(ranks: readonly number[], downs: Neighbours): number[][] {
  const rows: number[][] = Array.from({ length: Math.max(-1, ...ranks) + 1 }, () => []);
  const seen = new Set<number>();
  const walk = (vertex: number) => {
    if (seen.has(vertex)) return;
    seen.add(vertex);
    rows[ranks[vertex] as number]?.push(vertex);
    for (const next of downs[vertex] as readonly number[]) walk(next);
  };
  const fromTop = [...ranks.keys()].sort((a, b) => (ranks[a] as number) - (ranks[b] as number));
  fromTop.forEach(walk);
  return rows;
}

function settle(rows: readonly (readonly number[])[], place: Int32Array): void {
  for (const row of rows)
    row.forEach((vertex, at) => {
      place[vertex] = at;
    });
}

/** All rows sorted, one after the other; `place` follows. */
function swept(
  rows: readonly (readonly number[])[],
  place: Int32Array,
  neighbours: Neighbours,
  upwards: boolean,
  fromRight: boolean,
): number[][] {
  const next = rows.map((row) => [...row]);
  for (let step = 0; step < next.length; step++) {
    const at = upwards ? next.length - 1 - step : step;
    next[at] = sorted(next[at] as number[], place, neighbours, fromRight);
    settle([next[at] as number[]], place);
  }
  return next;
}

/** A row by the mean place of its neighbours; who has none keeps its place, equals theirs, or the other way round. */
function sorted(row: number[], place: Int32Array, neighbours: Neighbours, fromRight: boolean): number[] {
  const means = new Map<number, number>();
  for (const vertex of row) {
    const near = neighbours[vertex] as readonly number[];
    if (near.length > 0)
      means.set(vertex, near.reduce((sum, one) => sum + (place[one] as number), 0) / near.length);
  }
  const moving = row
    .filter((vertex) => means.has(vertex))
    .sort((a, b) => {
      const apart = (means.get(a) as number) - (means.get(b) as number);
      return apart || (fromRight ? -1 : 1) * ((place[a] as number) - (place[b] as number));
    });
  let taken = 0;
  return row.map((vertex) => (means.has(vertex) ? (moving[taken++] as number) : vertex));
}

function countCrossings(rows: readonly (readonly number[])[], downs: Neighbours, place: Int32Array): number {
  let crossings = 0;
  rows.forEach((row, at) => {
    // How many ends so far lie at or before a place of the row below, as a tree of sums.
    const sums = new Int32Array((rows[at + 1]?.length ?? 0) + 1);
    let ends = 0;
    for (const vertex of row) {
      const below = (downs[vertex] as readonly number[]).map((one) => place[one] as number);
      for (const end of below) {
        let before = 0;
        for (let sum = end + 1; sum > 0; sum -= sum & -sum) before += sums[sum] as number;
        crossings += ends - before;
      }
      for (const end of below) {
        for (let sum = end + 1; sum < sums.length; sum += sum & -sum) sums[sum] = (sums[sum] as number) + 1;
      }
      ends += below.length;
    }
  });
  return crossings;
}
