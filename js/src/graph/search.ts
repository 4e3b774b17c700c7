// Finding nodes by what a user would type: name, type, operation, hint or shape, in any case; `/.../` is a regular
// expression. Words must all occur. What is searched is what was recorded, whatever of it has been drawn so far.

import type { GraphGroup, GraphNode } from "../state/synced";
import type { Item } from "./hierarchy";
import type { Reading } from "./reading";
import { spell } from "./words";

/** Nodes and groups of which it is written down at once what is searched of them. */
const MADE_AT_ONCE = 200;

/** Ids of the matching nodes and groups, in order of execution. */
export function findIds(reading: Reading, text: string): string[] {
  const found = matcher(text.trim());
  return found
    ? entriesOf(reading)
        .all()
        .filter(found)
        .map(({ id }) => id)
    : [];
}

/** What is searched of one node or group. */
interface Entry {
  id: string;
  thing: GraphNode | GraphGroup;
  /** All of it in one plain form. */
  words: string;
}

function matcher(text: string): ((entry: Entry) => boolean) | null {
  if (text === "") return null;
  const expression = /^\/(.+)\/?$/.exec(text)?.[1]?.replace(/\/$/, "");
  if (expression) {
    try {
      const pattern = new RegExp(expression, "i");
      return ({ thing }) => linesOf(thing).some((line) => pattern.test(line));
    } catch {
      return null; // not finished yet
    }
  }
  const parts = plain(text).split(/\s+/);
  return ({ words }) => parts.every((part) => words.includes(part));
}

/** Shapes read the same however they are written: 64 × 56 × 56, 64x56x56, [64, 56, 56]. */
function plain(text: string): string {
  return text
    .toLowerCase()
    .replace(/(\d)\s*[×x*,]\s*(?=\d)/g, "$1x")
    .replace(/[[\]()]/g, " ")
    .trim();
}

/** Made once, as they are searched again with every letter. */
const made = new WeakMap<Reading, Entries>();

function entriesOf(reading: Reading): Entries {
  const entries = made.get(reading) ?? new Entries(reading);
  made.set(reading, entries);
  return entries;
}

/** Makes what is searched, before the first letter is typed: of 10,000 nodes that is longer than a letter may take. */
export function* prepareSearch(reading: Reading): Generator<void> {
  const entries = entriesOf(reading);
  while (entries.grow(MADE_AT_ONCE)) yield;
}

/** What is searched of each node and group, in order of execution; made in several goes or all at once. */
class Entries {
  private readonly made: Entry[] = [];
  /** Ids that are not yet made, the next one last. */
  private readonly waiting: string[];
  private readonly known = new Map<string, string>();

  constructor(private readonly reading: Reading) {
    this.waiting = [...reading.childrenOf("")].reverse();
  }

  /** Makes some more of them; false where there are no more. */
  grow(count: number): boolean {
    for (let at = 0; at < count; at++) {
      const id = this.waiting.pop();
      if (id === undefined) return false;
      const node = this.reading.nodeOf(id);
      const thing = node ?? this.reading.groupOf(id);
      if (thing) this.made.push({ id, thing, words: wordsOf(thing, this.known) });
      if (!node) this.waiting.push(...[...this.reading.childrenOf(id)].reverse());
    }
    return true;
  }

  all(): readonly Entry[] {
    this.grow(Number.POSITIVE_INFINITY);
    return this.made;
  }
}

/** Thousands of layers share a few types, hints and shapes: what is known of them is not made again. */
function wordsOf(thing: GraphNode | GraphGroup, known: Map<string, string>): string {
  const plainly = (text: string) => {
    let word = known.get(text);
    if (word === undefined) {
      word = plain(text);
      known.set(text, word);
    }
    return word;
  };
  let words = plain(thing.id);
  if (!thing.id.includes(thing.path)) words += `\n${plain(thing.path)}`;
  words += `\n${plainly(thing.type)}`;
  if (!("op" in thing)) return words;
  words += `\n${plainly(thing.op)}\n${plainly(thing.detail)}`;
  for (const shape of thing.output_shapes) words += `\n${plainly(spell(shape))}`;
  return words;
}

function linesOf(thing: GraphNode | GraphGroup): string[] {
  if (!("op" in thing)) return [thing.id, thing.path, thing.type];
  const shapes = thing.output_shapes.map((shape) => spell(shape));
  return [thing.id, thing.path, thing.op, thing.type, thing.detail, ...shapes];
}

/** How many matches each of these items holds, itself not included. */
export function countInside(
  found: readonly string[],
  items: readonly Item[],
  { parentOf }: Reading,
): Map<string, number> {
  const inside = new Map<string, number>();
  const own = new Set(found);
  for (const id of found) {
    for (let up = parentOf(id); up !== undefined; up = parentOf(up))
      inside.set(up, (inside.get(up) ?? 0) + 1);
  }
  // What was gathered has no entry of its own in the tree of groups.
  const count = (item: Item): number => {
    if (item.node || item.kind === "group") return inside.get(item.id) ?? 0;
    return item.children.reduce((sum, child) => sum + count(child) + (own.has(child.id) ? 1 : 0), 0);
  };
  return new Map(items.map((item) => [item.id, count(item)]));
}
