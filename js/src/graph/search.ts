// Finding nodes by what a user would type: name, type, operation, hint or shape, in any case; `/.../` is a regular
// expression. Words must all occur. What is searched is what was recorded, whatever of it has been drawn so far.

import type { GraphGroup, GraphNode } from "../state/synced";
import type { Item } from "./hierarchy";
import type { Reading } from "./reading";
import { spell } from "./words";

/** Ids of the matching nodes and groups, in order of execution. */
export function findIds(reading: Reading, text: string): string[] {
  const found = matcher(text.trim());
  return found
    ? entriesOf(reading)
        .filter(found)
        .map(({ id }) => id)
    : [];
}

/** What is searched of one node or group. */
interface Entry {
  id: string;
  /** As they are, for regular expressions. */
  lines(): string[];
  /** All of it in one plain form. */
  words: string;
}

function matcher(text: string): ((entry: Entry) => boolean) | null {
  if (text === "") return null;
  const expression = /^\/(.+)\/?$/.exec(text)?.[1]?.replace(/\/$/, "");
  if (expression) {
    try {
      const pattern = new RegExp(expression, "i");
      return ({ lines }) => lines().some((line) => pattern.test(line));
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

/** Made for the first letter, as they are searched again with every one. */
const made = new WeakMap<Reading, Entry[]>();

function entriesOf(reading: Reading): Entry[] {
  const entries = made.get(reading) ?? readEntries(reading);
  made.set(reading, entries);
  return entries;
}

function readEntries({ nodeOf, groupOf, childrenOf }: Reading): Entry[] {
  const entries: Entry[] = [];
  // Thousands of layers share a few hints and shapes.
  const known = new Map<string, string>();
  const plainly = (text: string) => {
    const word = known.get(text) ?? plain(text);
    known.set(text, word);
    return word;
  };
  const visit = (id: string) => {
    const node = nodeOf(id);
    const group = node ? undefined : groupOf(id);
    if (node) {
      const shapes = () => node.output_shapes.map((shape) => plainly(spell(shape)));
      const words = [
        plain(node.id),
        plain(node.path),
        node.op,
        node.type.toLowerCase(),
        plainly(node.detail),
      ];
      entries.push({ id, lines: () => linesOf(node), words: [...words, ...shapes()].join("\n") });
    } else if (group) {
      entries.push({ id, lines: () => linesOf(group), words: plain(linesOf(group).join("\n")) });
    }
    for (const child of childrenOf(id)) visit(child);
  };
  for (const child of childrenOf("")) visit(child);
  return entries;
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
