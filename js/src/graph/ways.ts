// How edges run between the places: straight on, forking and joining in the gaps, into the side of round nodes, and
// through tangles on the ways that were kept free for them.

import { type Bend, edgeKey, type Layered, type Point } from "./layered";
import type { LevelBox, LevelWire } from "./level";
import type { Measured, Placing } from "./placing";
import { type Element, meet, type Place, type Stack } from "./series";
import type { Structure } from "./structure";

export const FORK = 10;
export const JOIN = 14;
const ASIDE = 6;
const AROUND = 14;

export class Ways {
  readonly level: Structure;

  constructor(readonly placing: Placing) {
    this.level = placing.level;
  }

  routePorts(height: number): Map<number, Point[]> {
    const ports = new Map<number, Point[]>();
    const fed = new Set(this.level.input.wires.map((wire) => wire.target));
    for (let at = 0; at < this.level.count; at++) {
      const vertex = at + 1;
      if (this.level.boxes[vertex]?.kind !== "port") continue;
      if (fed.has(at)) {
        const way = this.leaveTangle(vertex, this.out(vertex));
        ports.set(at, [...way, [(way[way.length - 1] as Point)[0], height]]);
      } else {
        const way = this.enterTangle(vertex, this.into(vertex));
        ports.set(at, [[(way[0] as Point)[0], 0], ...way]);
      }
    }
    return ports;
  }

  out(vertex: number, wire?: LevelWire): Point {
    const box = this.level.boxes[vertex] as LevelBox;
    return [
      (this.placing.x[vertex] as number) + (wire?.outX ?? box.outX),
      (this.placing.y[vertex] as number) + box.height,
    ];
  }

  into(vertex: number, wire?: LevelWire): Point {
    const box = this.level.boxes[vertex] as LevelBox;
    return [(this.placing.x[vertex] as number) + (wire?.inX ?? box.inX), this.placing.y[vertex] as number];
  }

  flow(wire: LevelWire): Point[] {
    const [source, target] = [wire.source + 1, wire.target + 1];
    if (this.level.input.beside.has(wire.source)) return this.fromBeside(source, target);
    const start = this.out(source, wire);
    const end = this.into(target, wire);
    if (source >= target) return this.backwards(source, target);
    const { stack, from, to } = meet(
      this.level.places[source] as Place[],
      this.level.places[target] as Place[],
    );
    return this.between(source, target, start, end, stack, from, to);
  }

  between(
    source: number,
    target: number,
    start: Point,
    end: Point,
    stack: Stack,
    from: number,
    to: number,
  ): Point[] {
    const element = stack.elements[from] as Element;
    if (from === to && element.kind === "tangle")
      return this.throughTangle(element, source, target, start, end);
    const [, top] = this.placing.spines.get(stack) as Point;
    const measured = this.placing.measured.get(stack) as Measured;
    const bottom = top + (measured.tops[from] as number) + (measured.heights[from] as number);
    const next = top + (measured.tops[to] as number);
    const leaving = this.leaveTangle(source, start);
    const arriving = this.enterTangle(target, end);
    const [sx] = leaving[leaving.length - 1] as Point;
    const [ex] = arriving[0] as Point;
    const joining = element.kind !== "vertex";
    const round = this.level.boxes[target]?.kind === "dot" && arriving.length === 1 && Math.abs(sx - ex) > 20;
    if (joining && round && !(sx < ex && this.level.satellites.has(target))) {
      return [...leaving, ...this.sideways(sx, target)];
    }
    const forking = !joining && (stack.elements[to] as Element).kind !== "vertex";
    const middle = joining ? next - JOIN : forking ? bottom + FORK : (bottom + next) / 2;
    // Different tensors do not share a height where they could be taken for one another.
    const y =
      middle - (this.aside(target, end, "inX") ? ASIDE : 0) + (this.aside(source, start, "outX") ? ASIDE : 0);
    return [...leaving, [sx, y], [ex, y], ...arriving];
  }

  /** Whether an edge ends at another entry or exit of an open group than the main one. */
  private aside(vertex: number, [x]: Point, side: "inX" | "outX"): boolean {
    const box = this.level.boxes[vertex] as LevelBox;
    return box.kind === "open" && Math.abs((this.placing.x[vertex] as number) + box[side] - x) > 1;
  }

  /** Into the side of a small round node. */
  private sideways(x: number, target: number): Point[] {
    const box = this.level.boxes[target] as LevelBox;
    const middle = (this.placing.y[target] as number) + box.height / 2;
    const side =
      (this.placing.x[target] as number) + (x < (this.placing.x[target] as number) ? 0 : box.width);
    return [
      [x, middle],
      [side, middle],
    ];
  }

  private throughTangle(element: Element, source: number, target: number, start: Point, end: Point): Point[] {
    return this.follow(element, this.bendsOf(element, source, target), start, end);
  }

  private bendsOf(element: Element, source: number, target: number): Bend[] {
    return this.placing.tangles.get(element)?.bends.get(edgeKey(source, target)) ?? [];
  }

  private follow(element: Element, bends: Bend[], start: Point, end: Point): Point[] {
    const [left, top] = this.placing.tanglePlaces.get(element) as Point;
    const points: Point[] = [start];
    let x = start[0];
    for (const bend of bends) {
      const next = bend.x === null ? end[0] : left + bend.x;
      points.push([x, top + bend.y], [next, top + bend.y]);
      x = next;
    }
    points.push(end);
    return points;
  }

  private tangleOf(vertex: number): Element | null {
    const places = this.level.places[vertex] as Place[];
    const element = this.level.elementAt(places[places.length - 1] as Place);
    return element.kind === "tangle" ? element : null;
  }

  /** From a vertex in a tangle to below it, on the way that was kept free. */
  leaveTangle(vertex: number, start: Point): Point[] {
    const element = this.tangleOf(vertex);
    const bends = element ? this.bendsOf(element, vertex, -2) : [];
    if (!element || bends.length < 2) return [start];
    const inner = bends.slice(0, -1);
    const last = inner[inner.length - 1] as Bend;
    const [left, top] = this.placing.tanglePlaces.get(element) as Point;
    const drawing = this.placing.tangles.get(element) as Layered;
    return this.follow(element, inner, start, [left + (last.x ?? 0), top + drawing.height]);
  }

  enterTangle(vertex: number, end: Point): Point[] {
    const element = this.tangleOf(vertex);
    const bends = element ? this.bendsOf(element, -1, vertex) : [];
    if (!element || bends.length < 2) return [end];
    const [left, top] = this.placing.tanglePlaces.get(element) as Point;
    const [first, ...rest] = bends as [Bend, ...Bend[]];
    return this.follow(element, rest, [left + (first.x ?? 0), top], end);
  }

  private fromBeside(source: number, target: number): Point[] {
    const box = this.level.boxes[source] as LevelBox;
    const y = (this.placing.y[source] as number) + box.height / 2;
    const host = this.level.boxes[target] as LevelBox;
    const middle = (this.placing.y[target] as number) + host.height / 2;
    const start = (this.placing.x[source] as number) + box.width;
    const end = this.placing.x[target] as number;
    return [
      [start, y],
      [(start + end) / 2, y],
      [(start + end) / 2, middle],
      [end, middle],
    ];
  }

  /** Against the order of execution: around the right of everything. */
  private backwards(source: number, target: number): Point[] {
    const measured = this.placing.measured.get(this.level.stack) as Measured;
    const x = measured.left + measured.right + AROUND;
    const [a, b] = [this.level.boxes[source] as LevelBox, this.level.boxes[target] as LevelBox];
    const [ay, by] = [
      (this.placing.y[source] as number) + a.height / 2,
      (this.placing.y[target] as number) + b.height / 2,
    ];
    return [
      [(this.placing.x[source] as number) + a.width, ay],
      [x, ay],
      [x, by],
      [(this.placing.x[target] as number) + b.width, by],
    ];
  }
}
