// Points to SVG path data: right angles with round corners, and arrow heads.

import type { Point } from "./layered";

const RADIUS = 7;
const HEAD = 6;

export function pathOf(points: readonly Point[], arrow: boolean): string {
  const first = points[0];
  if (!first) return "";
  let path = `M${first[0]} ${first[1]}`;
  for (let at = 1; at < points.length; at++) {
    const here = points[at] as Point;
    const before = points[at - 1] as Point;
    const after = points[at + 1];
    if (!after) {
      const end = arrow ? towards(here, before, HEAD - 1) : here;
      path += `L${end[0]} ${end[1]}`;
    } else {
      const radius = Math.min(RADIUS, length(before, here) / 2, length(here, after) / 2);
      const [a, b] = [towards(here, before, radius), towards(here, after, radius)];
      path += `L${a[0]} ${a[1]}Q${here[0]} ${here[1]} ${b[0]} ${b[1]}`;
    }
  }
  return path;
}

/** A small triangle at the end, pointing where the line goes. */
export function headOf(points: readonly Point[]): string {
  const end = points[points.length - 1] as Point;
  const before = points[points.length - 2] ?? end;
  const size = length(before, end) || 1;
  const [dx, dy] = [(end[0] - before[0]) / size, (end[1] - before[1]) / size];
  const [bx, by] = [end[0] - HEAD * dx, end[1] - HEAD * dy];
  const wide = HEAD * 0.55;
  return `M${end[0]} ${end[1]}L${bx - dy * wide} ${by + dx * wide}L${bx + dy * wide} ${by - dx * wide}Z`;
}

/** Where to write on a line: beside its arrow if that points down or up, otherwise at the middle of its longest part. */
export function labelPlace(points: readonly Point[]): { x: number; y: number; upright: boolean } {
  const [before, end] = [points[points.length - 2], points[points.length - 1]];
  if (before && end && before[0] === end[0] && Math.abs(end[1] - before[1]) >= HEAD) {
    const below = end[1] > before[1] ? -HEAD - 1 : HEAD + 4;
    return { x: end[0], y: end[1] + below, upright: true };
  }
  let best = { size: -1, x: 0, y: 0, upright: true };
  for (let at = 1; at < points.length; at++) {
    const [a, b] = [points[at - 1] as Point, points[at] as Point];
    const size = length(a, b);
    const upright = Math.abs(a[0] - b[0]) < 0.5;
    if (size > best.size) best = { size, x: (a[0] + b[0]) / 2, y: (a[1] + b[1]) / 2, upright };
  }
  return best;
}

function length(a: Point, b: Point): number {
  return Math.hypot(a[0] - b[0], a[1] - b[1]);
}

function towards(from: Point, to: Point, distance: number): Point {
  const size = length(from, to) || 1;
  return [from[0] + ((to[0] - from[0]) * distance) / size, from[1] + ((to[1] - from[1]) * distance) / size];
}
