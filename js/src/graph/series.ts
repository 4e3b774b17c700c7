// How a level is built: networks are mostly chains of things and of parallel branches, so a level is read as a
// `Stack` of elements from top to bottom: a single vertex that everything passes, a bundle of branches (each a
// stack again), or a tangle, which is neither and is left to a general layout.
//
// Edges that a longer path makes redundant (residuals, concatenations, long skips) are no part of it; they are the
// `shortcuts`, drawn in lanes beside the stack. Vertices are numbers in an order that every edge follows.
// Pure graph theory: no sizes, no coordinates.

export type Edge = readonly [source: number, target: number];

export type Element =
  | { kind: "vertex"; vertex: number }
  | { kind: "bundle"; branches: Stack[] }
  | { kind: "tangle"; vertices: number[]; edges: Edge[] };

export interface Stack {
  elements: Element[];
  /** Vertices in it. */
  size: number;
}

export interface Series {
  stack: Stack;
  /** Edges that the stack is made of. */
  trunk: Edge[];
  shortcuts: Edge[];
}

/** Reads a level; all edges go from a lower to a higher number. */
export function readSeries(vertices: number[], edges: readonly Edge[]): Series {
  const count = Math.max(...vertices) + 1;
  const reach = reachability(count, edges);
  const { kept, redundant } = reduce(count, edges, reach);
  return { stack: stackOf(vertices, kept, redundant, reach), trunk: kept, shortcuts: redundant };
}

/** The same where it is known which edges make the trunk; some of them may be redundant on purpose. */
export function readTrunk(vertices: number[], trunk: readonly Edge[], shortcuts: readonly Edge[]): Stack {
  const count = Math.max(...vertices) + 1;
  return stackOf(vertices, trunk, shortcuts, reachability(count, trunk));
}

/** Rows of bits. */
class Bits {
  private readonly words: Uint32Array;
  constructor(
    private readonly width: number,
    rows: number,
  ) {
    this.words = new Uint32Array(width * rows);
  }
  set(row: number, bit: number): void {
    this.mix(row * this.width + (bit >>> 5), 1 << (bit & 31));
  }
  has(row: number, bit: number): boolean {
    return ((this.words[row * this.width + (bit >>> 5)] as number) & (1 << (bit & 31))) !== 0;
  }
  /** Adds all bits of another row. */
  join(row: number, other: number): void {
    for (let at = 0; at < this.width; at++) {
      this.mix(row * this.width + at, this.words[other * this.width + at] as number);
    }
  }
  private mix(word: number, bits: number): void {
    this.words[word] = (this.words[word] as number) | bits;
  }
}

function reachability(count: number, edges: readonly Edge[]): Bits {
  const reach = new Bits((count >>> 5) + 1, count);
  const next = adjacency(count, edges);
  for (let vertex = count - 1; vertex >= 0; vertex--) {
    for (const target of next[vertex] as number[]) {
      reach.set(vertex, target);
      reach.join(vertex, target);
    }
  }
  return reach;
}

function adjacency(count: number, edges: readonly Edge[]): number[][] {
  const next: number[][] = Array.from({ length: count }, () => []);
  for (const [source, target] of edges) (next[source] as number[]).push(target);
  return next;
}

/** An edge is redundant where another successor of its source also leads to its target. */
function reduce(count: number, edges: readonly Edge[], reach: Bits) {
  const next = adjacency(count, edges);
  const kept: Edge[] = [];
  const redundant: Edge[] = [];
  for (const edge of edges) {
    const [source, target] = edge;
    const detour = (next[source] as number[]).some((other) => other !== target && reach.has(other, target));
    (detour ? redundant : kept).push(edge);
  }
  return { kept, redundant };
}

function stackOf(vertices: number[], trunk: readonly Edge[], shortcuts: readonly Edge[], reach: Bits): Stack {
  const comparable = (a: number, b: number) => a === b || reach.has(a, b) || reach.has(b, a);
  const elements: Element[] = [];
  let between: number[] = [];
  const flush = () => {
    if (between.length > 0) elements.push(...branchesOf(between, trunk, shortcuts, reach));
    between = [];
  };
  for (const vertex of vertices) {
    if (vertices.every((other) => comparable(vertex, other))) {
      flush();
      elements.push({ kind: "vertex", vertex });
    } else between.push(vertex);
  }
  flush();
  return { elements, size: vertices.length };
}

function branchesOf(
  vertices: number[],
  trunk: readonly Edge[],
  shortcuts: readonly Edge[],
  reach: Bits,
): Element[] {
  const inside = new Set(vertices);
  const own = trunk.filter(([a, b]) => inside.has(a) && inside.has(b));
  const parts = components(vertices, own);
  if (parts.length === 1) {
    // A path between two of them that could be left out is an edge like any other here.
    const extra = shortcuts.filter(([a, b]) => inside.has(a) && inside.has(b));
    return [{ kind: "tangle", vertices, edges: [...own, ...extra] }];
  }
  return [{ kind: "bundle", branches: parts.map((part) => stackOf(part, own, shortcuts, reach)) }];
}

/** Weakly connected parts, in order of their first vertex, each in order. */
function components(vertices: number[], edges: readonly Edge[]): number[][] {
  const leader = new Map(vertices.map((vertex) => [vertex, vertex]));
  const find = (vertex: number): number => {
    let top = vertex;
    while (leader.get(top) !== top) top = leader.get(top) as number;
    for (let at = vertex; at !== top; ) {
      const up = leader.get(at) as number;
      leader.set(at, top);
      at = up;
    }
    return top;
  };
  for (const [a, b] of edges) {
    const [low, high] = [find(a), find(b)].sort((x, y) => x - y) as [number, number];
    leader.set(high, low);
  }
  const parts = new Map<number, number[]>();
  for (const vertex of vertices) {
    const top = find(vertex);
    const part = parts.get(top);
    if (part) part.push(vertex);
    else parts.set(top, [vertex]);
  }
  return [...parts.values()];
}

/** Where a vertex stands: from the outermost stack inwards, the element and, in a bundle, the branch. */
export interface Place {
  stack: Stack;
  element: number;
}

export function placesOf(stack: Stack, count: number): Place[][] {
  const places: Place[][] = Array.from({ length: count }, () => []);
  const visit = (here: Stack): number[] => {
    const all: number[] = [];
    here.elements.forEach((element, at) => {
      const inside =
        element.kind === "vertex"
          ? [element.vertex]
          : element.kind === "tangle"
            ? element.vertices
            : element.branches.flatMap(visit);
      for (const vertex of inside) (places[vertex] as Place[]).unshift({ stack: here, element: at });
      all.push(...inside);
    });
    return all;
  };
  visit(stack);
  return places;
}

/** The innermost stack that holds both, and the elements they stand in. */
export function meet(a: Place[], b: Place[]): { stack: Stack; from: number; to: number } {
  let at = 0;
  while (a[at + 1] && b[at + 1] && a[at + 1]?.stack === b[at + 1]?.stack) at++;
  const [x, y] = [a[at] as Place, b[at] as Place];
  return { stack: x.stack, from: x.element, to: y.element };
}
