// The order of the vertices in each row of the general layout, so that few edges cross: every row is sorted by the
// mean place of its neighbours in the row before, downwards and upwards in turn, as long as that helps. The method is
// dagre's own; on plain arrays, without a graph of its own for every row, it takes a tenth of the time.

/** The part of dagre's graph that the order is read from and written to. Every edge spans one rank. */
export interface Ranked {
  nodes(): string[];
  node(name: string): { rank?: number; order?: number };
  edges(): { v: string; w: string }[];
}

/** Sweeps without fewer crossings after which it stays as it is. */
const PATIENCE = 4;

type Neighbours = readonly (readonly number[])[];

export function orderRows(graph: Ranked): void {
  const names = graph.nodes();
  const index = new Map(names.map((name, at) => [name, at]));
  const ups: number[][] = names.map(() => []);
  const downs: number[][] = names.map(() => []);
  for (const { v, w } of graph.edges()) {
    const [a, b] = [index.get(v) as number, index.get(w) as number];
    downs[a]?.push(b);
    ups[b]?.push(a);
  }
  const ranks = names.map((name) => graph.node(name).rank ?? 0);
  let rows = firstRows(ranks, downs);
  const place = new Int32Array(names.length);
  settle(rows, place);

  let [best, fewest, since] = [rows, Number.POSITIVE_INFINITY, 0];
  for (let sweep = 0; since < PATIENCE && fewest > 0; sweep++, since++) {
    rows = swept(rows, place, sweep % 2 === 0 ? downs : ups, sweep % 2 === 0, sweep % 4 >= 2);
    const crossings = countCrossings(rows, downs, place);
    if (crossings < fewest) [best, fewest, since] = [rows, crossings, 0];
  }
  for (const row of best) {
    row.forEach((vertex, at) => {
      graph.node(names[vertex] as string).order = at;
    });
  }
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

export function countCrossings(
  rows: readonly (readonly number[])[],
  downs: Neighbours,
  place: Int32Array,
): number {
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
