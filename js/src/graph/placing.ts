// Sizes and places: every stack is measured around its spine, from the inside out, and then put where it belongs.

import { type Layered, layered, type Point } from "./layered";
import type { LevelBox } from "./level";
import type { Edge, Element, Stack } from "./series";
import type { Lane, Structure } from "./structure";

const GAP = 24;
const SLIM_GAP = 14;
const PORT_GAP = 18;
const BUNDLE_GAP = 32;
const SIDE_GAP = 22;
const THIN_GAP = 12;
const BESIDE = 20;
const LANE = 14;
const LANES_MAX = 4;

/** A stack's extents around its spine, and where its elements begin. */
export interface Measured {
  left: number;
  right: number;
  height: number;
  tops: number[];
  heights: number[];
}

export class Placing {
  /** The upper left corner of every vertex. */
  readonly x: number[] = [];
  readonly y: number[] = [];
  readonly measured = new Map<Stack, Measured>();
  /** The spine and the top of every stack. */
  readonly spines = new Map<Stack, Point>();
  readonly tangles = new Map<Element, Layered>();
  readonly tanglePlaces = new Map<Element, Point>();
  readonly width: number;
  readonly height: number;

  constructor(readonly level: Structure) {
    const { left, right, height } = this.measure(level.stack);
    this.place(level.stack, left, 0);
    this.width = left + right;
    this.height = height;
  }

  /** Extents around the spine, which the main edges follow from top to bottom. */
  private measure(stack: Stack): Measured {
    const known = this.measured.get(stack);
    if (known) return known;
    const lanes = this.level.lanes.get(stack) ?? [];
    const result: Measured = { left: 0, right: 0, height: 0, tops: [], heights: [] };
    const rights: number[] = [];
    let y = 0;
    stack.elements.forEach((element, at) => {
      const previous = stack.elements[at - 1];
      if (previous) y += this.gap(previous, element, lanes, at);
      const [left, right, height] = this.extent(element);
      result.tops.push(y);
      result.heights.push(height);
      rights.push(right);
      result.left = Math.max(result.left, left);
      result.right = Math.max(result.right, right);
      y += height;
    });
    result.height = y;
    this.placeLanes(lanes, rights, stack);
    for (const lane of lanes) result.right = Math.max(result.right, lane.x + 2);
    this.measured.set(stack, result);
    return result;
  }

  private extent(element: Element): [left: number, right: number, height: number] {
    if (element.kind === "vertex") return this.around(element.vertex);
    if (element.kind === "tangle") return this.measureTangle(element);
    const [places, sides] = this.arrange(element.branches);
    let [left, right, height] = [0, 0, 0];
    places.forEach((x, at) => {
      const branch = sides[at] as Measured;
      left = Math.max(left, branch.left - x);
      right = Math.max(right, branch.right + x);
      height = Math.max(height, branch.height);
    });
    return [left, right, height];
  }

  /** A vertex with those that stand beside it. */
  around(vertex: number): [left: number, right: number, height: number] {
    const box = this.level.boxes[vertex] as LevelBox;
    const guests = this.level.guests(vertex);
    const wide = guests.reduce((most, guest) => Math.max(most, guest.width), 0);
    const tall = guests.reduce((sum, guest) => sum + guest.height + 6, -6);
    return [box.inX + (wide > 0 ? wide + BESIDE : 0), box.width - box.inX, Math.max(box.height, tall)];
  }

  /** Where the spines of the branches of a bundle lie beside its own. */
  private arrange(branches: Stack[]): [places: number[], sides: Measured[]] {
    const sides = branches.map((branch) => this.measure(branch));
    const main = this.level.mainBranch(branches);
    const places: number[] = [];
    const thin = (at: number) => this.level.weight(branches[at] as Stack) === 0;
    let edge: number;
    if (main >= 0) {
      places[main] = 0;
      edge = (sides[main] as Measured).right;
    } else {
      const total = sides.reduce(
        (sum, side, at) => sum + side.left + side.right + (at > 0 ? SIDE_GAP : 0),
        0,
      );
      edge = -total / 2 - SIDE_GAP;
    }
    sides.forEach((side, at) => {
      if (at === main) return;
      const x = edge + (thin(at) ? THIN_GAP : SIDE_GAP) + side.left;
      places[at] = x;
      edge = x + side.right;
    });
    return [places, sides];
  }

  private measureTangle(element: Element & { kind: "tangle" }): [number, number, number] {
    const inside = new Set(element.vertices);
    // Where edges come in from above and go out below, they pass the other rows of the tangle on ways of their own.
    const outer: Edge[] = [];
    const [above, below] = [-1, -2];
    for (const [a, b] of this.level.trunk) {
      if (!inside.has(a) && inside.has(b) && !outer.some((edge) => edge[1] === b)) outer.push([above, b]);
      if (inside.has(a) && !inside.has(b) && !outer.some((edge) => edge[0] === a)) outer.push([a, below]);
    }
    const vertices = [
      ...(outer.some(([a]) => a === above) ? [above] : []),
      ...element.vertices,
      ...(outer.some(([, b]) => b === below) ? [below] : []),
    ];
    const drawing = layered(vertices, [...element.edges, ...outer], (vertex) => {
      const [left, right, height] = vertex < 0 ? [0, 0, 0] : this.around(vertex);
      return { width: left + right, height };
    });
    this.tangles.set(element, drawing);
    const spine = (drawing.centres.get(above) ?? drawing.centres.get(below))?.[0] ?? drawing.width / 2;
    return [spine, drawing.width - spine, drawing.height];
  }

  private gap(above: Element, below: Element, lanes: Lane[], at: number): number {
    if (above.kind === "vertex" && above.vertex === this.level.top) return 0;
    if (below.kind === "vertex" && below.vertex === this.level.bottom) return 0;
    const busy = lanes.some(
      (lane) =>
        lane.from === at - 1 ||
        lane.targets.some((t) => t.element === at && this.level.entersFromTop(t.vertex, below)),
    );
    const extra = busy ? 6 : 0;
    if (above.kind !== "vertex" || below.kind !== "vertex") {
      // Branches reach a round node from its side: the main one needs no room for them above it.
      const round = below.kind === "vertex" && this.level.boxes[below.vertex]?.kind === "dot";
      const straight = above.kind === "bundle" && this.level.mainBranch(above.branches) >= 0;
      return round && straight ? PORT_GAP + extra : BUNDLE_GAP;
    }
    const [a, b] = [this.level.boxes[above.vertex] as LevelBox, this.level.boxes[below.vertex] as LevelBox];
    if (a.kind === "port" || b.kind === "port") return PORT_GAP + extra;
    if (a.kind === "slim" || b.kind === "slim" || a.kind === "dot" || b.kind === "dot")
      return SLIM_GAP + extra;
    return GAP + extra;
  }

  private placeLanes(lanes: Lane[], rights: number[], stack: Stack): void {
    const done: Lane[] = [];
    for (const lane of [...lanes].sort((a, b) => a.to - a.from - (b.to - b.from) || a.from - b.from)) {
      const last = stack.elements[lane.to] as Element;
      const bySide = lane.targets.some(
        (t) => t.element === lane.to && !this.level.entersFromTop(t.vertex, last),
      );
      let x = Math.max(0, ...rights.slice(lane.from + 1, bySide ? lane.to + 1 : lane.to)) + LANE;
      for (const other of done)
        if (other.from < lane.to && lane.from < other.to) x = Math.max(x, other.x + LANE);
      lane.x = x;
      done.push(lane);
    }
    this.bundleLanes(lanes);
  }

  /** Where too many lanes run side by side, they become one rail. */
  private bundleLanes(lanes: Lane[]): void {
    for (const cluster of overlapping(lanes)) {
      const most = Math.max(
        ...cluster.map(
          (lane) => cluster.filter((other) => other.from <= lane.from && other.to > lane.from).length,
        ),
      );
      if (most <= LANES_MAX) continue;
      const x = Math.min(...cluster.map((lane) => lane.x));
      const base = Math.max(x, ...cluster.map((lane) => lane.x - LANE * (cluster.length - 1)));
      for (const lane of cluster) {
        lane.x = base;
        lane.bundled = true;
      }
    }
  }

  private place(stack: Stack, spine: number, top: number): void {
    const measured = this.measured.get(stack) as Measured;
    this.spines.set(stack, [spine, top]);
    stack.elements.forEach((element, at) => {
      const y = top + (measured.tops[at] as number);
      const height = measured.heights[at] as number;
      if (element.kind === "vertex") {
        this.put(element.vertex, spine, y, height);
      } else if (element.kind === "tangle") {
        const drawing = this.tangles.get(element) as Layered;
        const centre = (drawing.centres.get(-1) ?? drawing.centres.get(-2))?.[0] ?? drawing.width / 2;
        this.tanglePlaces.set(element, [spine - centre, y]);
        for (const vertex of element.vertices) {
          const [cx, cy] = drawing.centres.get(vertex) as Point;
          const [left, right, tall] = this.around(vertex);
          this.put(vertex, spine - centre + cx - (left + right) / 2 + left, y + cy - tall / 2, tall);
        }
      } else {
        const [places, sides] = this.arrange(element.branches);
        const first = this.level.isEdge(stack.elements[at - 1]);
        const last = this.level.isEdge(stack.elements[at + 1]);
        element.branches.forEach((branch, index) => {
          const room = height - (sides[index] as Measured).height;
          // In the middle between a fork and a join; at the end that is open, against the one that is not.
          const slack = first === last ? (first ? 0 : room / 2) : first ? room : 0;
          this.place(branch, spine + (places[index] as number), y + slack);
        });
      }
    });
  }

  private put(vertex: number, spine: number, y: number, height: number): void {
    const box = this.level.boxes[vertex] as LevelBox;
    this.x[vertex] = spine - box.inX;
    this.y[vertex] = y + (height - box.height) / 2;
    const guests = this.level.satellites.get(vertex) ?? [];
    let top = y + (height - this.level.guests(vertex).reduce((sum, guest) => sum + guest.height + 6, -6)) / 2;
    for (const guest of guests) {
      const own = this.level.boxes[guest] as LevelBox;
      this.x[guest] = spine - box.inX - BESIDE - own.width;
      this.y[guest] = top;
      top += own.height + 6;
    }
  }
}

/** Spans that overlap, directly or through others, together. */
export function overlapping<T extends { from: number; to: number }>(spans: T[]): T[][] {
  const clusters: T[][] = [];
  let end = Number.NEGATIVE_INFINITY;
  for (const span of [...spans].sort((a, b) => a.from - b.from)) {
    if (span.from >= end) clusters.push([]);
    (clusters[clusters.length - 1] as T[]).push(span);
    end = Math.max(end, span.to);
  }
  return clusters;
}
