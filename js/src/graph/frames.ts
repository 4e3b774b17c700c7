// What an open group looks like from outside: its box, where edges come in and go out, and what its header says,
// behind which no line is drawn.

import { HEADER } from "./cards";
import type { Item } from "./hierarchy";
import type { Point } from "./layered";
import type { LevelLayout } from "./level";
import { hintOf, nameOf, timesWords } from "./words";

export interface Zone {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

/** Roughly, on the safe side: fonts differ. */
export function titleWidth(item: Item): number {
  return 24 + 8.5 * nameOf(item).length + 7.5 * hintOf(item).length + 8 * timesWords(item).length;
}

/** Where the title of a drawn frame is. */
export function titleIn(item: Item, frame: { x: number; y: number }): Zone {
  return { left: frame.x, right: frame.x + titleWidth(item), top: frame.y, bottom: frame.y + HEADER };
}

/** A way that runs behind a title, as the part before it and the part after it; else nothing. */
export function behind(points: readonly Point[], titles: readonly Zone[]): [] | [Point[], Point[]] {
  for (let at = 1; at < points.length; at++) {
    const [[x, from], [end, to]] = [points[at - 1], points[at]] as [Point, Point];
    if (x !== end) continue;
    for (const { left, right, top, bottom } of titles) {
      if (x < left || x > right || Math.min(from, to) > top || Math.max(from, to) < bottom) continue;
      const [near, far] = from < to ? [top, bottom] : [bottom, top];
      return [
        [...points.slice(0, at), [x, near]],
        [[x, far], ...points.slice(at)],
      ];
    }
  }
  return [];
}

/**
 * A group with one way in and one way out keeps them in one column, so that it stands straight in the chain that
 * it is part of; inside, the edge goes over to where it is needed.
 */
export function straighten(laid: LevelLayout, { children, level }: Item): void {
  const [entries, exits] = [level.entries.length, level.exits.length];
  const exit = entries + children.length;
  const [inner, outer] = [laid.ports.get(0), laid.ports.get(exit)];
  if (entries !== 1 || exits !== 1 || !inner || !outer) return;
  const from = (inner[0] as Point)[0];
  const to = (outer[outer.length - 1] as Point)[0];
  if (Math.abs(from - to) < 1) return;
  if (laid.rising.size > 0) {
    // A U is left under where it was entered.
    const y = laid.height + SHIFT / 2;
    laid.ports.set(exit, [...outer.slice(0, -1), [to, y], [from, y], [from, y + SHIFT / 2]]);
    laid.height += SHIFT;
    return;
  }
  laid.height += SHIFT;
  for (const box of laid.boxes) box.y += SHIFT;
  const lower = (points: readonly Point[]): Point[] => points.map(([x, y]) => [x, y + SHIFT]);
  for (const route of laid.routes) route.points = lower(route.points);
  for (const rail of laid.rails) rail.points = lower(rail.points);
  for (const [at, way] of laid.ports) laid.ports.set(at, lower(way));
  laid.ports.set(0, [[to, 0], [to, 8], [from, 8], ...lower(inner)]);
}

const SHIFT = 16;
