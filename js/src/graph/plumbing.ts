// Which nodes are plumbing: what makes masks, positions and rotary tables, out of constants and of inputs that only
// say where to look. Nothing learned is in them, and what the network computes passes beside them.

import type { Graph, GraphNode } from "../state/synced";
import { type Item, leavesOf } from "./hierarchy";

const RANDOM = /^(rand|normal|bernoulli|multinomial|poisson)/;
const COUNTING = /^(u?int|bool)/;

/** Who reads a node, and what a node reads. */
export interface Links {
  sources(id: string): readonly string[];
  targets(id: string): readonly string[];
}

export function plumbingOf(graph: Graph, links: Links): Set<string> {
  const nodes = new Map(graph.nodes.map((node) => [node.id, node]));
  const learned = new Set<string>();
  for (const node of graph.nodes) {
    if (holdsWeights(node) || links.sources(node.id).some((id) => learned.has(id))) learned.add(node.id);
  }
  if (learned.size === 0) return new Set();

  // Backwards: what reaches a layer with weights before it meets anything that was computed with some.
  const feeding = new Set<string>();
  for (const node of [...graph.nodes].reverse()) {
    const feeds = (id: string) => {
      const target = nodes.get(id);
      return feeding.has(id) || (target !== undefined && target.params > 0);
    };
    if (!learned.has(node.id) && links.targets(node.id).some(feeds)) feeding.add(node.id);
  }

  const side = new Set<string>();
  for (const node of graph.nodes) {
    if (learned.has(node.id) || node.status === "failed") continue;
    const from = links.sources(node.id);
    const aside =
      node.kind === "input"
        ? COUNTING.test(node.dtype) && !feeding.has(node.id)
        : node.kind === "constant"
          ? !RANDOM.test(node.op)
          : node.kind !== "output" && from.length > 0 && from.every((id) => side.has(id));
    if (aside) side.add(node.id);
  }
  const read = graph.nodes.some((node) => node.kind === "input");
  return new Set(read ? [...side].filter((id) => nodes.get(id)?.kind !== "input") : []);
}

function holdsWeights(node: GraphNode): boolean {
  return node.params > 0 || (node.kind === "constant" && node.op === "parameter");
}

/**
 * The members of a level that go into its tray, and where it stands: after the inputs that it reads. What needs a
 * sibling that stays outside stays outside too, as does a constant that is only read outside; one alone needs no
 * tray.
 */
export function trayOf(
  members: readonly Item[],
  plumbing: ReadonlySet<string>,
  links: Links,
): { tray: Item[]; at: number } | null {
  const plain = members.map((member) => isPlumbing(member, plumbing));
  const many = plain.filter(Boolean).length;
  if (many < 2 || many === members.length) return null;

  const own = members.map(leavesOf);
  const home = new Map(own.flatMap((leaves, at) => leaves.map((id) => [id, at] as const)));
  const chosen = new Set<number>();
  let after = members.findIndex((member) => member.node?.kind !== "input");
  members.forEach((member, at) => {
    if (!plain[at]) return;
    const from = own[at]?.flatMap((id) => links.sources(id)).map((id) => home.get(id)) ?? [];
    const within = (place: number | undefined) =>
      place === undefined || place === at || chosen.has(place) || members[place]?.node?.kind === "input";
    const read = member.node?.kind !== "constant" || links.targets(member.id).some((id) => plumbing.has(id));
    if (!read || !from.every(within)) return;
    chosen.add(at);
    for (const place of from) {
      if (place !== undefined && members[place]?.node?.kind === "input") after = Math.max(after, place + 1);
    }
  });
  const tray = members.filter((_, at) => chosen.has(at));
  if (tray.length < 2) return null;
  const before = members.slice(0, after).filter((member) => !tray.includes(member));
  return { tray, at: before.length };
}

function isPlumbing(item: Item, plumbing: ReadonlySet<string>): boolean {
  if (item.node) return plumbing.has(item.id);
  return item.children.length > 0 && item.children.every((child) => isPlumbing(child, plumbing));
}
