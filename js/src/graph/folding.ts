// What a level draws for many siblings that are alike: one stack ("×12") instead of a card for each. Siblings that
// were taken out of their stack stand alone, and what is left on either side of them stays folded. Blocks that
// alternate between two kinds fold in pairs, and what is done again and again with the same weights folds in steps.

import type { GraphNode } from "../state/synced";
import { type Item, leavesOf } from "./hierarchy";
import { repeatsIn, type Sources } from "./steps";

/** Identical siblings fold from this many on; two of them are quicker seen than unfolded. */
export const FOLD_FROM = 3;

/** Makes one item of several siblings. */
export type Gather = (kind: "fold" | "part", members: Item[]) => Item;

export interface Folded {
  items: Item[];
  /** How many alike the level consists of, where it is nothing else. */
  times: number;
}

export function foldSiblings(
  members: Item[],
  apart: ReadonlySet<string>,
  gather: Gather,
  sources: Sources,
): Folded {
  const items: Item[] = [];
  let times = 1;
  const repeats = repeatsIn(members, sources);
  for (let at = 0; at < members.length; ) {
    const next = repeats[0];
    if (next?.start === at) {
      repeats.shift();
      const alone = next.before.length === 0 && next.end - next.start === members.length;
      if (alone) times = next.steps.length;
      items.push(...next.before, ...stacks(stepsOf(next.steps, gather), apart, alone, gather));
      at = next.end;
      continue;
    }
    const { length, period } = runAt(next ? members.slice(0, next.start) : members, at, sources);
    const run = members.slice(at, at + length);
    at += length;
    if (length / period < FOLD_FROM) {
      items.push(...run);
      continue;
    }
    const units = period === 1 ? run : pairs(run, gather);
    const alone = length === members.length;
    if (alone) times = units.length;
    items.push(...stacks(units, apart, alone, gather));
  }
  return { items, times };
}

/** A group that holds nothing but its stack would open to one card that says the same: its first one is out. */
function stacks(units: Item[], apart: ReadonlySet<string>, alone: boolean, gather: Gather): Item[] {
  const out: Item[] = [];
  let rest: Item[] = [];
  const flush = () => {
    out.push(...(rest.length > 1 ? [gather("fold", rest)] : rest));
    rest = [];
  };
  units.forEach((unit, at) => {
    if (apart.has(unit.id) || (alone && at === 0)) {
      flush();
      out.push(unit);
    } else rest.push(unit);
  });
  flush();
  return out;
}

/** A step of several members is one thing, as a step of one is. */
function stepsOf(steps: Item[][], gather: Gather): Item[] {
  return steps.map((step, at) => {
    const unit = step.length === 1 ? (step[0] as Item) : gather("part", step);
    unit.step = at + 1;
    return unit;
  });
}

function pairs(run: Item[], gather: Gather): Item[] {
  const out: Item[] = [];
  for (let at = 0; at < run.length; at += 2) out.push(gather("part", run.slice(at, at + 2)));
  return out;
}

/** How many siblings from here on repeat: each like the one before it, or like the one before that. */
function runAt(members: Item[], at: number, sources: Sources): { length: number; period: 1 | 2 } {
  const size = members[at]?.group?.fold ?? 1;
  let length = 1;
  while (length < size && members[at + length]?.group?.fold === size) length++;
  if (length > 1) return { length, period: 1 };
  // Alike and yet not folded by the recorder: wired in another way, as the layers of a dense block are.
  const follows = (next: number) => {
    const [a, b, c] = [members[next - 2], members[next - 1], members[next]];
    if (!a?.group || !b?.group || c?.group?.fold !== 1 || c.group.type !== a.group.type) return false;
    return alike(a, c) && !alike(b, c) && feeds(b, c, sources);
  };
  if (members[at + 1]?.group?.fold !== 1) return { length, period: 1 };
  let last = at + 1;
  while (follows(last + 1)) last++;
  const whole = Math.floor((last - at + 1) / 2) * 2;
  return whole / 2 >= FOLD_FROM ? { length: whole, period: 2 } : { length: 1, period: 1 };
}

/** Whether a tensor goes from one item to another. */
function feeds(from: Item, to: Item, sources: Sources): boolean {
  const inside = new Set(leavesOf(from));
  return leavesOf(to).some((id) => sources(id).some((source) => inside.has(source)));
}

/** Whether two groups have the same classes, operations, settings, parameters and shapes in the same order. */
function alike(a: Item, b: Item): boolean {
  if (a.leaves !== b.leaves) return false;
  if (a.node || b.node) return likeness(a.node) === likeness(b.node);
  return (
    a.group?.type === b.group?.type &&
    a.children.length === b.children.length &&
    a.children.every((child, at) => alike(child, b.children[at] as Item))
  );
}

function likeness(node: GraphNode | null): string {
  if (!node) return "";
  const detail = node.status === "identity" ? "" : node.detail;
  return [node.op, node.kind, node.type, detail, node.params, node.status, node.output_shapes].join();
}
