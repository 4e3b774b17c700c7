// What the layout of one level is told of an item: the boxes of what it holds, as they are closed or open, and the
// wires between them with the places where they come in and go out.

import type { GraphEdge, Shape } from "../state/synced";
import { closedBox } from "./cards";
import type { Item, LevelEdge } from "./hierarchy";
import type { Direction, GroupLayout, Plan } from "./layout";
import type { LevelBox, LevelInput, LevelWire } from "./level";
import { formOf } from "./words";

/** The level counts its entries first, then the children, then its exits. */
export function levelInput(
  item: Item,
  { children, inner, edges }: Plan,
  narrow: boolean[],
  direction: Direction,
  shapes: readonly GraphEdge[],
): LevelInput {
  const right = direction === "right";
  const entries = item.level.entries.length;
  const vertex = (end: number) =>
    end < children.length ? end + entries : end < children.length + entries ? end - children.length : end;
  const box = (at: number, slender: boolean): LevelBox => {
    const child = children[at - entries];
    if (!child) return { kind: "port", width: 0, height: 0, inX: 0, outX: 0 };
    narrow[at - entries] = slender || right;
    const layout = inner[at - entries];
    if (layout) return openBox(child, layout);
    return right ? onItsSide(closedBox(child, true)) : closedBox(child, slender);
  };
  const wires = edges.map((edge): LevelWire => {
    const [from, to] = [inner[edge.source], inner[edge.target]];
    return {
      source: vertex(edge.source),
      target: vertex(edge.target),
      outX: from ? portX(children[edge.source] as Item, from, "exits", edge.producer) : undefined,
      inX: to ? portX(children[edge.target] as Item, to, "entries", edge.producer) : undefined,
      size: sizeOf(shapes[edge.raw[0] ?? -1]?.shape),
    };
  });
  return {
    count: children.length + entries + item.level.exits.length,
    box,
    weight: (at) => weightOf(children[at - entries]),
    wires,
    beside: besides(children, edges, entries, inner),
  };
}

/** The extent of a tensor without its batch and its channels; of a row of features, how many there are. */
function sizeOf(shape: Shape | undefined): string {
  return (shape ?? []).slice((shape ?? []).length > 2 ? 2 : 1).join();
}

/** How much of what the network does is in an item: plumbing and what hands its input on are nothing. */
function weightOf(item: Item | undefined): number {
  return !item || item.kind === "tray" || item.node?.status === "identity" ? 0 : item.leaves;
}

/** A box as it is laid out where the network runs to the right: its width is how far that runs. */
function onItsSide({ kind, width, height }: LevelBox): LevelBox {
  return { kind, width: height, height: width, inX: height / 2, outX: height / 2 };
}

export function openBox(item: Item, layout: GroupLayout): LevelBox {
  const { width, height } = layout;
  const [entry, exit] = [item.level.entries.at(-1), item.level.exits[0]];
  const out = exit === undefined ? undefined : portX(item, layout, "exits", exit);
  const into = entry === undefined ? undefined : portX(item, layout, "entries", entry);
  // What comes below lines up with the exit; edges find the entries by themselves.
  const spine = out ?? into ?? width / 2;
  return { kind: "open", width, height, inX: spine, outX: spine };
}

function portX(
  item: Item,
  layout: GroupLayout,
  side: "entries" | "exits",
  producer: string,
): number | undefined {
  const { entries, exits } = item.level;
  const ports = side === "entries" ? entries : exits;
  if (ports.length === 0) return undefined;
  const at =
    Math.max(0, ports.indexOf(producer)) + (side === "exits" ? entries.length + item.children.length : 0);
  const way = layout.level.ports.get(at);
  const point = side === "entries" ? way?.[0] : way?.[way.length - 1];
  return point ? point[0] + layout.offset[0] : undefined;
}

/** Constants that only one child uses stand beside it, unless that is open: its entries are on its top. */
function besides(
  children: readonly Item[],
  edges: readonly LevelEdge[],
  entries: number,
  inner: readonly (GroupLayout | null)[],
): Map<number, number> {
  const out = new Map<number, number>();
  children.forEach((child, at) => {
    if (formOf(child) !== "constant") return;
    const uses = new Set(edges.filter((edge) => edge.source === at).map((edge) => edge.target));
    const [use] = uses;
    if (
      uses.size === 1 &&
      use !== undefined &&
      use < children.length &&
      !inner[use] &&
      formOf(children[use] as Item) !== "constant"
    )
      out.set(at + entries, use + entries);
  });
  return out;
}
