// Two open groups on one level as if what they hold stood there itself: an encoder and the decoder that reads all its
// sizes make a U together, which neither of them is alone. Their frames are drawn around what they hold.

import type { Item, LevelEdge } from "./hierarchy";

/** A level with the children of two of its groups in place of them. */
export interface Spliced<Layout> {
  children: Item[];
  inner: (Layout | null)[];
  edges: LevelEdge[];
  /** The two groups, with the numbers of what they hold. */
  frames: { item: Item; members: number[] }[];
}

/** Looks for two open groups that several tensors lead between; `innerOf` tells what is open in an open one. */
export function splice<Layout>(
  item: Item,
  inner: readonly (Layout | null)[],
  innerOf: (layout: Layout) => readonly (Layout | null)[],
): Spliced<Layout> | null {
  const { children, level } = item;
  const between = new Map<string, number>();
  for (const { source, target } of level.edges) {
    if (source >= target || !inner[source] || !inner[target]) continue;
    const pair = `${source}>${target}`;
    between.set(pair, (between.get(pair) ?? 0) + 1);
  }
  const [pair] = [...between].find(([, count]) => count > 1) ?? [];
  if (!pair) return null;
  const groups = pair.split(">").map(Number);

  const out: Spliced<Layout> = { children: [], inner: [], edges: [], frames: [] };
  const starts = children.map((child, at) => {
    const start = out.children.length;
    const layout = inner[at];
    if (!groups.includes(at) || !layout) {
      out.children.push(child);
      out.inner.push(layout ?? null);
    } else {
      out.children.push(...child.children);
      out.inner.push(...innerOf(layout));
      out.frames.push({ item: child, members: child.children.map((_, of) => start + of) });
    }
    return start;
  });
  const shift = out.children.length - children.length;

  /** Where an edge begins or ends by the new numbers: in a group, at each of those that it holds and the edge reaches. */
  const ends = (end: number, edge: LevelEdge, side: "source" | "target"): [number, readonly number[]][] => {
    const child = children[end];
    const start = starts[end];
    if (!child || start === undefined) return [[end + shift, edge.raw]];
    if (!groups.includes(end)) return [[start, edge.raw]];
    const inside = child.children.length;
    return child.level.edges
      .filter((other) => other.producer === edge.producer)
      .map((other) =>
        side === "source" ? [other.source, other.target, other] : [other.target, other.source, other],
      )
      .filter(([near, far]) => (near as number) < inside && (far as number) >= inside)
      .map(([near, , other]) => [start + (near as number), (other as LevelEdge).raw]);
  };
  for (const edge of level.edges) {
    for (const [source, left] of ends(edge.source, edge, "source")) {
      for (const [target, right] of ends(edge.target, edge, "target")) {
        const raw = edge.raw.filter((one) => left.includes(one) && right.includes(one));
        if (raw.length > 0) out.edges.push({ source, target, producer: edge.producer, raw });
      }
    }
  }
  for (const at of groups) {
    const { level: own, children: held } = children[at] as Item;
    const start = starts[at] as number;
    for (const edge of own.edges) {
      if (edge.source < held.length && edge.target < held.length)
        out.edges.push({ ...edge, source: start + edge.source, target: start + edge.target });
    }
  }
  return out;
}
