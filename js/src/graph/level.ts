// One level of one group laid out: where each child lies, and how each edge runs. Chains are stacks, branches stand
// side by side with the main one straight on, residuals and long skips run in lanes on the right, many overlapping
// skips share one rail; only what is neither goes to the general layout.
//
// Pure geometry. A level knows the boxes of its children (a closed card or an open group with entries and exits),
// not what is in them.

import { layoutU } from "./arms";
import { LaneWays } from "./lanes";
import type { Point } from "./layered";
import { Placing } from "./placing";
import { Structure } from "./structure";
import { readU, withFrames } from "./ushape";
import { Ways } from "./ways";

/** What a vertex of a level is; it decides gaps and how edges arrive. */
export type BoxKind = "card" | "slim" | "dot" | "open" | "port" | "beside";

export interface LevelBox {
  kind: BoxKind;
  width: number;
  height: number;
  /** Where the main edge comes in and goes out, from the left side. */
  inX: number;
  outX: number;
}

export interface LevelWire {
  source: number;
  target: number;
  /** Where this edge leaves and arrives, from the left side of its box, if not at the main places. */
  outX?: number;
  inX?: number;
  /** The extent of the tensor without its channels, as a word: equal words, equal resolutions. */
  size?: string;
}

export interface LevelInput {
  /** Vertices, numbered so that edges go upwards. */
  count: number;
  box(vertex: number, narrow: boolean): LevelBox;
  /** How much of the network it is; an entry or exit of the group is nothing. */
  weight(vertex: number): number;
  wires: readonly LevelWire[];
  /** Vertices that stand on the left of another one instead of above it: constants with one use. */
  beside: ReadonlyMap<number, number>;
}

export interface Route {
  wire: number;
  points: Point[];
  kind: "flow" | "skip";
  /** Part of a rail: drawn only when it is asked for. */
  bundled: boolean;
}

export interface LevelLayout {
  width: number;
  height: number;
  boxes: (LevelBox & { x: number; y: number })[];
  routes: Route[];
  /** Lines shared by bundled routes: the rail itself, then the ways onto and off it. */
  rails: { points: Point[]; thick: boolean }[];
  /** For each entry the way down to it from the upper edge, for each exit the way to the lower edge. */
  ports: Map<number, Point[]>;
  /** Vertices in which the network runs upwards: the decoder of a U. */
  rising: ReadonlySet<number>;
  /** Around the vertices that were to be framed. */
  frames: Frame[];
}

export interface Frame {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** What a frame keeps free around what is in it. */
export interface Margin {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

export function layoutLevel(input: LevelInput): LevelLayout {
  const level = new Structure(input);
  const shape = readU(level);
  return shape ? layoutU(input, shape, (part) => stacked(new Structure(part))) : stacked(level);
}

/** A U in whose arms the vertices of two groups stand, each in a frame; null where that is not one. */
export function layoutFramed(input: LevelInput, frames: number[][], margin: Margin): LevelLayout | null {
  const whole = readU(new Structure(input));
  const shape = whole && withFrames(whole, frames);
  return shape && layoutU(input, shape, (part) => stacked(new Structure(part)), { frames, margin });
}

function stacked(level: Structure): LevelLayout {
  const { input } = level;
  const placing = new Placing(level);
  const ways = new Ways(placing);
  const routes: Route[] = [];
  const done = new Set<number>();
  const rails = new LaneWays(ways).routeLanes(routes, done);
  const ports = ways.routePorts(placing.height);
  input.wires.forEach((wire, at) => {
    if (!done.has(at)) routes.push({ wire: at, points: ways.flow(wire), kind: "flow", bundled: false });
  });

  let [left, right] = [0, placing.width];
  for (const [x] of routes.flatMap((route) => route.points)) {
    left = Math.min(left, x);
    right = Math.max(right, x);
  }
  const final = (points: Point[]): Point[] => tidy(points).map(([x, y]) => [round(x - left), round(y)]);
  return {
    width: Math.ceil(right - left),
    height: Math.ceil(placing.height),
    boxes: Array.from({ length: level.count }, (_, at) => ({
      ...(level.boxes[at + 1] as LevelBox),
      x: round((placing.x[at + 1] ?? 0) - left),
      y: round(placing.y[at + 1] ?? 0),
    })),
    routes: routes.map((route) => ({ ...route, points: final(route.points) })),
    rails: rails.map(({ points, thick }) => ({ points: final(points), thick })),
    ports: new Map([...ports].map(([vertex, points]) => [vertex, final(points)])),
    rising: new Set(),
    frames: [],
  };
}

/** Leaves out points that change nothing. */
function tidy(points: Point[]): Point[] {
  const out: Point[] = [];
  for (const point of points) {
    const [a, b] = [out[out.length - 2], out[out.length - 1]];
    if (b && Math.abs(b[0] - point[0]) < 0.5 && Math.abs(b[1] - point[1]) < 0.5) continue;
    if (a && b && straight(a, b, point)) out[out.length - 1] = point;
    else out.push(point);
  }
  return out;
}

function straight(a: Point, b: Point, c: Point): boolean {
  const upright =
    Math.abs(a[0] - b[0]) < 0.5 && Math.abs(b[0] - c[0]) < 0.5 && (b[1] - a[1]) * (c[1] - b[1]) >= 0;
  const level =
    Math.abs(a[1] - b[1]) < 0.5 && Math.abs(b[1] - c[1]) < 0.5 && (b[0] - a[0]) * (c[0] - b[0]) >= 0;
  return upright || level;
}

function round(value: number): number {
  return Math.round(value * 2) / 2;
}
