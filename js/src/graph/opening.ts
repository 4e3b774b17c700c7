// Which groups are open at first, so that the first picture tells something, and which close again when the drawing
// grows beyond what can be drawn. Pure functions of the tree.

import {
  above,
  canOpen,
  countClosed,
  type Hierarchy,
  type Item,
  isOpen,
  type Open,
  within,
} from "./hierarchy";
import { timesOf } from "./words";

const TELLING = 5;
const CALM = 15;
const FIRST_MAX = 60;
const EVER_MAX = 200;
/** A group with this share of all nodes hides the network as long as it is closed. */
const DOMINANT = 0.6;

export function openAtFirst(root: Item): Set<string> {
  const open = new Set<string>();
  for (let next = nextToOpen(root, open); next.length > 0; next = nextToOpen(root, open)) {
    for (const item of next) open.add(item.id);
  }
  return open;
}

/** What hides the network opens; a picture of too few things opens all of its groups, or else the largest. */
function nextToOpen(root: Item, open: Open): Item[] {
  const closed = candidates(root, open);
  const after = (items: Item[]) => countClosed(root, new Set([...open, ...items.map((item) => item.id)]));
  const dominant = closed.find((item) => item.leaves >= DOMINANT * root.leaves && after([item]) <= FIRST_MAX);
  if (dominant) return [dominant];
  const ends = root.children.filter((child) => child.node && child.node.kind !== "module").length;
  if (closed.length === 0 || countClosed(root, open) - ends >= TELLING) return [];
  if (after(closed) <= CALM) return closed;
  const largest = closed.find((item) => after([item]) <= CALM);
  return largest ? [largest] : [];
}

/** Closed groups that are drawn, the largest first, except identical siblings and plumbing: their names say it all. */
function candidates(root: Item, open: Open): Item[] {
  const out: Item[] = [];
  const visit = (item: Item) => {
    if (isOpen(item, open)) item.children.forEach(visit);
    else if (canOpen(item) && item.kind !== "tray" && timesOf(item) === 1) out.push(item);
  };
  visit(root);
  return out.sort((a, b) => b.leaves - a.leaves);
}

/** The siblings that must leave their stacks for an item to be drawn. */
export function outOfFolds(item: Item): string[] {
  return [item, ...above(item)].filter((one) => one.parent?.kind === "fold").map((one) => one.id);
}

/** A group with a single child that can be opened opens it as well: one look inside, not two. */
export function withOnlyChildren(item: Item): string[] {
  const out = [item.id];
  const [only] = item.children;
  if (item.children.length === 1 && only && canOpen(only)) out.push(...withOnlyChildren(only));
  return out;
}

/** Keeps the drawing within bounds: what was opened longest ago closes first, never what `keep` stands in. */
export function withinBounds(
  root: Item,
  items: Hierarchy["items"],
  open: Set<string>,
  keep: Item,
): Set<string> {
  const needed = new Set([keep.id, ...above(keep).map((item) => item.id)]);
  for (const id of [...open]) {
    if (countClosed(root, open) <= EVER_MAX) break;
    const item = items.get(id);
    if (!needed.has(id) && !(item && within(item, keep))) open.delete(id);
  }
  return open;
}
