// Where a network that gives back what it takes (an autoencoder) is narrowest: the one tensor that all of it passes.

import type { Graph, GraphNode, Shape } from "../state/synced";
import type { Wiring } from "./reading";

/** The node that makes the code; null where nothing comes back, or comes back past the narrow place as well. */
export function bottleneckOf(graph: Graph, wiring: Wiring): string | null {
  const { nodes } = graph;
  for (const [from, input] of nodes.entries()) {
    if (input.kind !== "input" || !input.dtype.startsWith("float")) continue;
    const shape = String(input.output_shapes[0]);
    const back = nodes.findIndex((node) => node.kind === "output" && String(madeBy(node)) === shape);
    const found = back < 0 ? null : narrowest(nodes, wiring, from, back);
    if (found && 2 * sizeOf(madeBy(found)) <= sizeOf(madeBy(input))) return found.id;
  }
  return null;
}

function narrowest(nodes: readonly GraphNode[], wiring: Wiring, from: number, to: number): GraphNode | null {
  const { source, target, incoming, outgoing } = wiring;
  const leads = new Uint8Array(nodes.length);
  leads[to] = 1;
  for (let at = to - 1; at >= from; at--)
    if (outgoing(at).some((raw) => leads[target[raw] as number] === 1)) leads[at] = 1;
  const reached = new Uint8Array(nodes.length);
  reached[from] = 1;
  let best: GraphNode | null = null;
  // Everything passes a node that no edge leads past.
  let furthest = from;
  for (let at = from; at < to; at++) {
    if (at > from && incoming(at).some((raw) => reached[source[raw] as number] === 1)) reached[at] = 1;
    if (reached[at] === 0 || leads[at] === 0) continue;
    const node = nodes[at] as GraphNode;
    if (at > from && furthest <= at && (!best || sizeOf(madeBy(node)) < sizeOf(madeBy(best)))) best = node;
    for (const raw of outgoing(at)) {
      const next = target[raw] as number;
      if (leads[next] === 1) furthest = Math.max(furthest, next);
    }
  }
  return best;
}

function madeBy(node: GraphNode): Shape {
  return node.output_shapes[0] ?? node.input_shapes[0] ?? [];
}

/** Numbers in one sample. */
function sizeOf(shape: Shape): number {
  return shape.slice(1).reduce((product, side) => product * side, 1);
}
