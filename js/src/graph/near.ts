// What is near an item of a drawing: producers and consumers along its edges, branches beside it. The keys walk
// along these, and the pointer lights them.

import { type Hierarchy, type Item, type Open, shownFor } from "./hierarchy";
import type { Drawing, DrawnBox, Segment } from "./layout";

export type Side = "incoming" | "outgoing";

export interface Lit {
  segments: ReadonlySet<Segment>;
  near: ReadonlySet<string>;
}

/** The edges of an item, and the items at their other ends. */
export function light(known: Item, hierarchy: Hierarchy, drawing: Drawing, open: Open): Lit {
  const item = shownFor(known, open);
  const raws = new Set([...crossing(item, hierarchy, "incoming"), ...crossing(item, hierarchy, "outgoing")]);
  const segments = drawing.segments.filter((segment) => segment.raw.some((raw) => raws.has(raw)));
  const near = (["incoming", "outgoing"] as const).flatMap((side) =>
    neighbours(item, side, hierarchy, drawing, open),
  );
  return { segments: new Set(segments), near: new Set(near.map((other) => other.id)) };
}

/** The drawn items that an item takes from, or gives to, nearest first. */
export function neighbours(
  item: Item,
  side: Side,
  hierarchy: Hierarchy,
  drawing: Drawing,
  open: Open,
): Item[] {
  const own = drawing.byId.get(item.id);
  if (!own) return [];
  const found = new Set<Item>();
  for (const raw of crossing(item, hierarchy, side)) {
    const edge = hierarchy.edges[raw];
    const other = edge && hierarchy.of(side === "incoming" ? edge.source : edge.target);
    if (other) found.add(shownFor(other, open));
  }
  const distance = (other: Item) => {
    const box = drawing.byId.get(other.id) as DrawnBox;
    return Math.abs(box.y - own.y) + Math.abs(box.x + box.width / 2 - own.x - own.width / 2) / 4;
  };
  return [...found].filter((other) => drawing.byId.has(other.id)).sort((a, b) => distance(a) - distance(b));
}

/** The nearest item beside this one: on the same height, or else in another branch of the same group. */
export function beside(item: Item, direction: 1 | -1, drawing: Drawing): Item | null {
  const own = drawing.byId.get(item.id);
  if (!own) return null;
  const centre = (box: DrawnBox) => [box.x + box.width / 2, box.y + box.height / 2] as const;
  const [x, y] = centre(own);
  let best: { item: Item; cost: number } | null = null;
  for (const box of drawing.boxes) {
    const [bx, by] = centre(box);
    const apart = direction * (bx - x) - (box.width + own.width) / 2;
    const level = box.y < own.y + own.height && own.y < box.y + box.height;
    if (box.open || box === own || apart < 0 || (!level && box.item.parent !== item.parent)) continue;
    const cost = apart + (level ? 0 : 1e4 + Math.abs(by - y));
    if (!best || cost < best.cost) best = { item: box.item, cost };
  }
  return best?.item ?? null;
}

/** The edges of the graph that come into an item from outside it, or leave it. */
function crossing(item: Item, hierarchy: Hierarchy, side: Side): number[] {
  const inside = new Set<string>();
  const visit = (part: Item) => {
    inside.add(part.id);
    part.children.forEach(visit);
  };
  visit(item);
  const out: number[] = [];
  for (const id of inside) {
    for (const raw of hierarchy[side](id)) {
      const edge = hierarchy.edges[raw];
      if (edge && !inside.has(side === "incoming" ? edge.source : edge.target)) out.push(raw);
    }
  }
  return out;
}
