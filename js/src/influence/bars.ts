// Numbers by node and group as bars on the cards of the graph, by a style sheet: the graph itself knows nothing of it.

import type { Graph } from "../state/synced";

export interface Bars {
  /** By id: from 0 to 1. */
  of: Map<string, number>;
  /** What 1 stands for. */
  largest: number;
}

/** Square roots: what is a hundredth of the largest can still be seen. */
export function barsOf(graph: Graph, strength: Float32Array): Bars {
  const ids = [...graph.nodes, ...graph.groups].map(({ id }) => id);
  // The input moves by itself, whatever the network does with it.
  const inner = new Set(graph.nodes.filter(({ kind }) => kind === "input").map(({ id }) => id));
  let largest = 0;
  ids.forEach((id, at) => {
    const value = strength[at] as number;
    if (!inner.has(id) && Number.isFinite(value)) largest = Math.max(largest, value);
  });
  const of = new Map<string, number>();
  ids.forEach((id, at) => {
    const value = strength[at] as number;
    if (Number.isFinite(value)) of.set(id, largest > 0 ? Math.min(1, Math.sqrt(value / largest)) : 0);
  });
  return { of, largest };
}

/** A rule for each card; ids come from users, so they are quoted as CSS quotes them. */
export function rulesOf(bars: Bars, owner: string): string {
  return Array.from(
    bars.of,
    ([id, share]) =>
      `[data-influence="${owner}"] .nn-node[data-node="${quoted(id)}"]{--nn-influence:${share.toFixed(3)}}`,
  ).join("\n");
}

function quoted(text: string): string {
  return Array.from(text, (c) =>
    /[\w.@#:/-]/.test(c) ? c : `\\${(c.codePointAt(0) as number).toString(16)} `,
  ).join("");
}
