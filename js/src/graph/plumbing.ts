// Which nodes are plumbing: what makes masks, positions and rotary tables, out of constants and of inputs that only
// say where to look. Nothing learned is in them, and what the network computes passes beside them.

import type { Graph, GraphNode } from "../state/synced";
import type { Item } from "./hierarchy";
import type { Reading, Wiring } from "./reading";

const RANDOM = /^(rand|normal|bernoulli|multinomial|poisson)/;
const COUNTING = /^(u?int|bool)/;

/** 1 for every node that is plumbing, by its index. */
export function plumbingOf(graph: Graph, wiring: Wiring): Uint8Array {
  const { nodes } = graph;
  const { source, target, incoming, outgoing } = wiring;
  const none = new Uint8Array(nodes.length);
  if (!nodes.some((node) => node.kind === "input")) return none;

  const learned = new Uint8Array(nodes.length);
  let any = false;
  nodes.forEach((node, at) => {
    if (!holdsWeights(node) && !incoming(at).some((raw) => learned[source[raw] as number] === 1)) return;
    learned[at] = 1;
    any = true;
  });
  if (!any) return none;

  // Backwards: what reaches a layer with weights before it meets anything that was computed with some.
  const feeding = new Uint8Array(nodes.length);
  const feeds = (raw: number) => {
    const at = target[raw] as number;
    return feeding[at] === 1 || (nodes[at] as GraphNode).params > 0;
  };
  for (let at = nodes.length - 1; at >= 0; at--)
    if (learned[at] === 0 && outgoing(at).some(feeds)) feeding[at] = 1;

  const side = new Uint8Array(nodes.length);
  nodes.forEach((node, at) => {
    if (learned[at] === 1 || node.status === "failed") return;
    const from = incoming(at);
    const aside =
      node.kind === "input"
        ? COUNTING.test(node.dtype) && feeding[at] === 0
        : node.kind === "constant"
          ? !RANDOM.test(node.op)
          : node.kind !== "output" &&
            from.length > 0 &&
            from.every((raw) => side[source[raw] as number] === 1);
    if (aside) side[at] = 1;
  });
  addChecks(graph, wiring, side, learned);
  return side.map((aside, at) => (nodes[at]?.kind === "input" ? 0 : aside));
}

/** Adds what only a decision about indices reads, and that decision: `if pad in ids[:, -1]` looks, and leads nowhere. */
function addChecks(graph: Graph, wiring: Wiring, side: Uint8Array, learned: Uint8Array): void {
  const { nodes } = graph;
  const { source, target, incoming, outgoing } = wiring;
  const leading = new Uint8Array(nodes.length);
  for (let at = nodes.length - 1; at >= 0; at--) {
    const { kind, op } = nodes[at] as GraphNode;
    const to = outgoing(at);
    const looks =
      op === "decision" || (to.length > 0 && to.every((raw) => leading[target[raw] as number] === 1));
    if (kind === "op" && looks && learned[at] === 0) leading[at] = 1;
  }
  const known = (at: number) => {
    const { kind, dtype } = nodes[at] as GraphNode;
    return side[at] === 1 || (kind === "input" && COUNTING.test(dtype));
  };
  nodes.forEach((_, at) => {
    const from = incoming(at);
    if (leading[at] === 1 && from.length > 0 && from.every((raw) => known(source[raw] as number)))
      side[at] = 1;
  });
}

function holdsWeights(node: GraphNode): boolean {
  return node.params > 0 || (node.kind === "constant" && node.op === "parameter");
}

/**
 * The members of a level that go into its tray, and where it stands: after the inputs that it reads. What needs a
 * sibling that stays outside stays outside too, as does a constant that is only read outside; one alone needs no
 * tray.
 */
export function trayOf(members: readonly Item[], reading: Reading): { tray: Item[]; at: number } | null {
  if (reading.plumbing[reading.order.length] === 0) return null;
  const plain = members.map((member) => countIn(member, reading) === member.leaves && member.leaves > 0);
  const many = plain.filter(Boolean).length;
  if (many < 2 || many === members.length) return null;

  const { order, place, source, target, incoming, outgoing } = reading;
  const home = new Int32Array(order.length).fill(-1);
  members.forEach((member, at) => {
    for (const [from, to] of member.spans) home.fill(at, from, to);
  });
  const isPlumbing = (node: number) => {
    const at = place[node] as number;
    return at >= 0 && reading.plumbing[at + 1] !== reading.plumbing[at];
  };
  const sourcesOf = (member: Item): number[] => {
    const found: number[] = [];
    for (const [from, to] of member.spans)
      for (const node of order.subarray(from, to))
        for (const raw of incoming(node)) found.push(home[place[source[raw] as number] as number] ?? -1);
    return found;
  };
  const chosen = new Set<number>();
  let after = members.findIndex((member) => member.node?.kind !== "input");
  members.forEach((member, at) => {
    if (!plain[at]) return;
    const from = sourcesOf(member);
    const within = (other: number) =>
      other < 0 || other === at || chosen.has(other) || members[other]?.node?.kind === "input";
    const node = order[member.spans[0]?.[0] ?? -1] as number;
    const read =
      member.node?.kind !== "constant" || outgoing(node).some((raw) => isPlumbing(target[raw] as number));
    if (!read || !from.every(within)) return;
    chosen.add(at);
    for (const other of from) {
      if (members[other]?.node?.kind === "input") after = Math.max(after, other + 1);
    }
  });
  const tray = members.filter((_, at) => chosen.has(at));
  if (tray.length < 2) return null;
  const before = members.slice(0, after).filter((_, at) => !chosen.has(at));
  return { tray, at: before.length };
}

/** How many of the nodes in an item are plumbing. */
function countIn({ spans }: Item, { plumbing }: Reading): number {
  return spans.reduce((sum, [from, to]) => sum + (plumbing[to] as number) - (plumbing[from] as number), 0);
}
