// What is near an item of a drawing: producers and consumers along its edges, branches beside it. The keys walk
// along these, and the pointer lights them.

import { type Hierarchy, type Item, type LevelEdge, type Open, shownFor } from "./hierarchy";
import type { Direction, Drawing, DrawnBox, Segment } from "./layout";

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
  const from = middle(own, drawing.direction);
  const distance = (other: Item) => {
    const to = middle(drawing.byId.get(other.id) as DrawnBox, drawing.direction);
    return Math.abs(to.start - from.start) + Math.abs(to.across - from.across) / 4;
  };
  return [...found].filter((other) => drawing.byId.has(other.id)).sort((a, b) => distance(a) - distance(b));
}

/** A box along the direction of the network, and across it. */
function middle({ x, y, width, height }: DrawnBox, direction: Direction) {
  return direction === "down"
    ? { start: y, end: y + height, across: x + width / 2, size: width }
    : { start: x, end: x + width, across: y + height / 2, size: height };
}

/** The nearest item beside this one: as far along as it, or else in another branch of the same group. */
export function beside(item: Item, towards: 1 | -1, drawing: Drawing): Item | null {
  const box = drawing.byId.get(item.id);
  if (!box) return null;
  const own = middle(box, drawing.direction);
  let best: { item: Item; cost: number } | null = null;
  for (const other of drawing.boxes) {
    const place = middle(other, drawing.direction);
    const apart = towards * (place.across - own.across) - (place.size + own.size) / 2;
    const level = place.start < own.end && own.start < place.end;
    if (other.open || other === box || apart < 0 || (!level && other.item.parent !== item.parent)) continue;
    const away = Math.abs(place.start + place.end - own.start - own.end) / 2;
    const cost = apart + (level ? 0 : 1e4 + away);
    if (!best || cost < best.cost) best = { item: other.item, cost };
  }
  return best?.item ?? null;
}

/** The edges of the graph that come into an item from outside it, or leave it. */
function crossing(item: Item, { reading }: Hierarchy, side: Side): number[] {
  if (!item.node) {
    const { edges, entries } = item.level;
    const [first, last] = [item.children.length, item.children.length + entries.length];
    const crosses = ({ source, target }: LevelEdge) =>
      side === "incoming" ? source >= first : target >= last;
    return edges.filter(crosses).flatMap((edge) => edge.raw);
  }
  return [...reading[side](reading.indexOf(item.id) ?? -1)];
}
