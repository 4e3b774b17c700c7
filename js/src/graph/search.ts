// Finding nodes by what a user would type: name, type, operation, hint or shape, in any case; `/.../` is a regular
// expression. Words must all occur.

import { above, type Hierarchy, type Item } from "./hierarchy";
import { spell } from "./words";

/** Matching nodes and groups, in order of execution. */
export function findItems(hierarchy: Hierarchy, text: string): Item[] {
  const wanted = matcher(text.trim());
  if (!wanted) return [];
  const found: Item[] = [];
  const visit = (item: Item) => {
    if (item.parent && (item.node || item.kind === "group") && wanted(wordsOf(item))) found.push(item);
    item.children.forEach(visit);
  };
  visit(hierarchy.root);
  return found;
}

function matcher(text: string): ((words: string) => boolean) | null {
  if (text === "") return null;
  const expression = /^\/(.+)\/?$/.exec(text)?.[1]?.replace(/\/$/, "");
  if (expression) {
    try {
      const pattern = new RegExp(expression, "i");
      return (words) => words.split("\n").some((line) => pattern.test(line));
    } catch {
      return null; // not finished yet
    }
  }
  const parts = plain(text).split(/\s+/);
  return (words) => {
    const all = plain(words);
    return parts.every((part) => all.includes(part));
  };
}

/** Shapes read the same however they are written: 64 × 56 × 56, 64x56x56, [64, 56, 56]. */
function plain(text: string): string {
  return text
    .toLowerCase()
    .replace(/(\d)\s*[×x*,]\s*(?=\d)/g, "$1x")
    .replace(/[[\]()]/g, " ")
    .trim();
}

function wordsOf(item: Item): string {
  const { node, group } = item;
  if (node) {
    const shapes = node.output_shapes.map((shape) => spell(shape));
    return [node.id, node.path, node.op, node.type, node.detail, ...shapes].join("\n");
  }
  return [item.id, group?.path ?? "", group?.type ?? ""].join("\n");
}

/** How many matches each closed or open item holds, itself not included. */
export function countInside(matches: readonly Item[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const match of matches) {
    for (const item of above(match)) counts.set(item.id, (counts.get(item.id) ?? 0) + 1);
  }
  return counts;
}
