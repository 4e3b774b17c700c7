// What a level draws for many siblings that are alike: one stack ("×12") instead of a card for each. Siblings that
// were taken out of their stack stand alone, and what is left on either side of them stays folded. Blocks that
// alternate between two kinds fold in pairs, and what is done again and again with the same weights folds in steps.

import type { GraphNode } from "../state/synced";
import type { Item } from "./hierarchy";
import type { Reading } from "./reading";
import { repeatsIn } from "./steps";

/** Identical siblings fold from this many on; two of them are quicker seen than unfolded. */
export const FOLD_FROM = 3;

/** Makes one item of several siblings. */
export type Gather = (kind: "fold" | "part", members: Item[]) => Item;

export interface Folded {
  items: Item[];
  /** How many alike the level consists of, where it is nothing else. */
  times: number;
}

/** In several steps, as there may be thousands of them. */
export function* foldSiblings(
  members: Item[],
  apart: ReadonlySet<string>,
  gather: Gather,
  reading: Reading,
): Generator<void, Folded> {
  const items: Item[] = [];
  let times = 1;
  const repeats = yield* repeatsIn(members, reading);
  for (let at = 0; at < members.length; ) {
    const next = repeats[0];
    if (next?.start === at) {
      repeats.shift();
      const alone = next.before.length === 0 && next.end - next.start === members.length;
      if (alone) times = next.steps.length;
      const units = yield* stepsOf(next.steps, gather);
      items.push(...next.before, ...stacks(units, apart, alone, gather));
      at = next.end;
      continue;
    }
    const { length, period } = runAt(members, at, next?.start ?? members.length, reading);
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
function* stepsOf(steps: Item[][], gather: Gather): Generator<void, Item[]> {
  const units: Item[] = [];
  for (const step of steps) {
    const unit = step.length === 1 ? (step[0] as Item) : gather("part", step);
    unit.step = units.push(unit);
    yield;
  }
  return units;
}

function pairs(run: Item[], gather: Gather): Item[] {
  const out: Item[] = [];
  for (let at = 0; at < run.length; at += 2) out.push(gather("part", run.slice(at, at + 2)));
  return out;
}

/** How many siblings from here on repeat: each like the one before it, or like the one before that. */
function runAt(
  members: Item[],
  at: number,
  end: number,
  reading: Reading,
): { length: number; period: 1 | 2 } {
  const size = members[at]?.group?.fold ?? 1;
  let length = 1;
  while (length < size && at + length < end && members[at + length]?.group?.fold === size) length++;
  if (length > 1) return { length, period: 1 };
  // Alike and yet not folded by the recorder: wired in another way, as the layers of a dense block are.
  const follows = (next: number) => {
    const [a, b, c] = [members[next - 2], members[next - 1], members[next]];
    if (next >= end || !a?.group || !b?.group || c?.group?.fold !== 1) return false;
    return alike(a.id, c.id, reading) && !alike(b.id, c.id, reading) && feeds(b, c, reading);
  };
  if (at + 1 >= end || members[at + 1]?.group?.fold !== 1) return { length, period: 1 };
  let last = at + 1;
  while (follows(last + 1)) last++;
  const whole = Math.floor((last - at + 1) / 2) * 2;
  return whole / 2 >= FOLD_FROM ? { length: whole, period: 2 } : { length: 1, period: 1 };
}

/** Whether a tensor goes from one item to another. */
function feeds(from: Item, to: Item, { order, place, source, incoming }: Reading): boolean {
  const inside = (at: number) => from.spans.some(([first, end]) => at >= first && at < end);
  return to.spans.some(([first, end]) =>
    order
      .subarray(first, end)
      .some((node) => incoming(node).some((raw) => inside(place[source[raw] as number] as number))),
  );
}

/** Whether two groups have the same classes, operations, settings, parameters and shapes in the same order. */
function alike(a: string, b: string, reading: Reading): boolean {
  const [one, other] = [reading.nodeOf(a), reading.nodeOf(b)];
  if (one || other) return likeness(one) === likeness(other);
  const [inside, beside] = [reading.childrenOf(a), reading.childrenOf(b)];
  return (
    reading.groupOf(a)?.type === reading.groupOf(b)?.type &&
    inside.length === beside.length &&
    inside.every((child, at) => alike(child, beside[at] as string, reading))
  );
}

function likeness(node: GraphNode | undefined): string {
  if (!node) return "";
  const detail = node.status === "identity" ? "" : node.detail;
  return [node.op, node.kind, node.type, detail, node.params, node.status, node.output_shapes].join();
}
