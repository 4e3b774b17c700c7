// From the recorded graph to the tree that is drawn: every group with its children in order of execution, identical
// siblings folded into one item, plumbing put into a tray, overlong levels cut into parts, and for each group the
// edges between its children.
//
// Pure and static: what is open or closed, where things lie and what they look like is not known here. An edge
// between two nodes crosses the borders of the groups it leaves and enters; on each level it passes it is one
// `LevelEdge`, from a child or an entry to a child or an exit. So each level can be laid out alone.

import type { Graph, GraphEdge, GraphGroup, GraphNode } from "../state/synced";
import { foldSiblings } from "./folding";
import { type Links, plumbingOf, trayOf } from "./plumbing";

/** A level with more children than this is cut into parts. */
export const LEVEL_MAX = 60;
const PART_SIZE = 40;
/** Groups with more entries (or exits) than this draw them as one. */
const PORTS_MAX = 3;

export type ItemKind = "node" | "group" | "fold" | "part" | "tray";

/** One thing that can be drawn: a node, a group, identical siblings, a part of an overlong level, or plumbing. */
export interface Item {
  id: string;
  kind: ItemKind;
  /** The node or group of the kernel that stands for it: what is selected, and whose maps are shown. */
  rep: string;
  node: GraphNode | null;
  group: GraphGroup | null;
  parent: Item | null;
  children: Item[];
  /** Its place among the children of its parent. */
  at: number;
  depth: number;
  /** How many nodes are in it. */
  leaves: number;
  /** How many identical ones it stands for. */
  times: number;
  /** Which of the steps it is that do the same again, from 1; 0 for what is not done again. */
  step: number;
  level: Level;
}

/** An end of a level edge: the number of a child, or `children.length + i` for entry i, and after those the exits. */
export interface LevelEdge {
  source: number;
  target: number;
  /** The node that made the tensor. */
  producer: string;
  /** Indices into the edges of the graph. */
  raw: number[];
}

export interface Level {
  edges: LevelEdge[];
  /** Producers whose tensors come in, each an entry; "*" stands for several that share one. */
  entries: string[];
  exits: string[];
}

export interface Hierarchy {
  graph: Graph;
  root: Item;
  items: ReadonlyMap<string, Item>;
  /** The item that stands for a node or group of the kernel most closely. */
  of(id: string): Item | undefined;
  edges: GraphEdge[];
  /** Indices of the edges that leave and reach a node. */
  outgoing(id: string): readonly number[];
  incoming(id: string): readonly number[];
}

/** The tree of a graph; members of a fold that are named in `apart` stand alone. */
export function buildHierarchy(graph: Graph, apart: ReadonlySet<string> = new Set()): Hierarchy {
  const items = new Map<string, Item>();
  const groups = new Map(graph.groups.map((group) => [group.id, group]));
  const nodes = new Map(graph.nodes.map((node) => [node.id, node]));
  const placed = new Set<string>();
  const { links, plumbing } = read(graph);

  function add(item: Item): Item {
    items.set(item.id, item);
    return item;
  }

  function grow(group: GraphGroup | null, id: string, parent: Item | null): Item {
    const item = add(fresh(id, "group", id, parent));
    item.group = group;
    placed.add(id);
    const members: Item[] = [];
    for (const child of childrenOf(group, id)) {
      if (placed.has(child)) continue;
      const node = nodes.get(child);
      if (node) {
        const leaf = add(fresh(child, "node", child, item));
        leaf.node = node;
        leaf.leaves = 1;
        placed.add(child);
        members.push(leaf);
      } else if (groups.has(child)) {
        members.push(grow(groups.get(child) ?? null, child, item));
      }
    }
    const gathered: Gather = (kind, some) => add(gather(kind, some, item));
    const folded = foldSiblings(tuck(members, gathered), apart, gathered, links.sources);
    item.children = divide(folded.items, gathered);
    item.times = folded.times;
    return item;
  }

  function tuck(members: Item[], gathered: Gather): Item[] {
    const found = trayOf(members, plumbing, links);
    if (!found) return members;
    const rest = members.filter((member) => !found.tray.includes(member));
    return [...rest.slice(0, found.at), gathered("tray", found.tray), ...rest.slice(found.at)];
  }

  const orphans = strays(graph);
  function childrenOf(group: GraphGroup | null, id: string): string[] {
    const own = group?.children ?? [];
    const extra = orphans.get(id) ?? [];
    return extra.length === 0 ? own : inOrder([...own, ...extra], graph);
  }

  const root = grow(groups.get("") ?? null, "", null);
  settle(root, 0);
  connect(graph, items, root);
  return {
    graph,
    root,
    items,
    edges: graph.edges,
    of: (id) => items.get(id),
    outgoing: links.outgoing,
    incoming: links.incoming,
  };
}

const NOTHING: readonly number[] = [];

function fresh(id: string, kind: ItemKind, rep: string, parent: Item | null): Item {
  const level = { edges: [], entries: [], exits: [] };
  return {
    id,
    kind,
    rep,
    node: null,
    group: null,
    parent,
    children: [],
    at: 0,
    depth: 0,
    leaves: 0,
    times: 1,
    step: 0,
    level,
  };
}

interface Reading {
  links: Links & Pick<Hierarchy, "outgoing" | "incoming">;
  plumbing: ReadonlySet<string>;
}

/** What stays the same however the graph is drawn. */
const readings = new WeakMap<Graph, Reading>();

function read(graph: Graph): Reading {
  const known = readings.get(graph);
  if (known) return known;
  const [sources, targets] = [new Map<string, string[]>(), new Map<string, string[]>()];
  const [incoming, outgoing] = [new Map<string, number[]>(), new Map<string, number[]>()];
  const nodes = new Set(graph.nodes.map((node) => node.id));
  graph.edges.forEach(({ source, target }, raw) => {
    if (source === target || !nodes.has(source) || !nodes.has(target)) return;
    push(sources, target, source);
    push(targets, source, target);
    push(incoming, target, raw);
    push(outgoing, source, raw);
  });
  const links = {
    sources: (id: string) => sources.get(id) ?? [],
    targets: (id: string) => targets.get(id) ?? [],
    incoming: (id: string) => incoming.get(id) ?? NOTHING,
    outgoing: (id: string) => outgoing.get(id) ?? NOTHING,
  };
  const fresh = { links, plumbing: plumbingOf(graph, links) };
  readings.set(graph, fresh);
  return fresh;
}

/** Nodes and groups that no group lists, under the parent they name, or the root where that is unknown. */
function strays(graph: Graph): Map<string, string[]> {
  const listed = new Set(graph.groups.flatMap((group) => group.children));
  const known = new Set(graph.groups.map((group) => group.id));
  const found = new Map<string, string[]>();
  for (const thing of [...graph.nodes, ...graph.groups]) {
    if (thing.id === "" || listed.has(thing.id)) continue;
    const parent = known.has(thing.parent) && thing.parent !== thing.id ? thing.parent : "";
    push(found, parent, thing.id);
  }
  return found;
}

/** By order of execution: that of the nodes; a group stands where its first node does. */
function inOrder(ids: string[], graph: Graph): string[] {
  const place = new Map<string, number>();
  const parents = new Map(graph.groups.map((group) => [group.id, group.parent]));
  graph.nodes.forEach((node, at) => {
    place.set(node.id, node.kind === "input" ? at - graph.nodes.length : at);
    for (let up: string | undefined = node.parent; up !== undefined && !place.has(up); up = parents.get(up)) {
      place.set(up, at);
      if (up === "") break;
    }
  });
  return [...ids].sort((a, b) => (place.get(a) ?? 0) - (place.get(b) ?? 0));
}

type Gather = (kind: "fold" | "part" | "tray", members: Item[]) => Item;

function divide(members: Item[], gathered: Gather): Item[] {
  let level = members;
  while (level.length > LEVEL_MAX) {
    const count = Math.ceil(level.length / PART_SIZE);
    const size = Math.ceil(level.length / count);
    const parts: Item[] = [];
    for (let at = 0; at < level.length; at += size) {
      parts.push(gathered("part", level.slice(at, at + size)));
    }
    level = parts;
  }
  return level;
}

/** Several siblings as one item; what leaves it is what its last member makes. */
function gather(kind: "fold" | "part" | "tray", members: Item[], parent: Item): Item {
  const first = members[0] as Item;
  const last = members[members.length - 1] as Item;
  const item = fresh(`${kind}:${first.id}`, kind, last.rep, parent);
  item.children = members;
  if (kind === "fold") item.times = members.length;
  for (const member of members) member.parent = item;
  return item;
}

function settle(item: Item, depth: number): void {
  item.depth = depth;
  item.children.forEach((child, at) => {
    child.at = at;
    settle(child, depth + 1);
  });
  if (item.kind !== "node") item.leaves = item.children.reduce((sum, child) => sum + child.leaves, 0);
}

/** Sends every edge down from the lowest group that holds both its ends, one level edge on each level it passes. */
function connect(graph: Graph, items: Map<string, Item>, root: Item): void {
  const passes: Pass[] = [];
  const pass = (level: Item, source: Item | null, target: Item | null, raw: number, producer: string) => {
    passes.push({ level, source, target, raw, producer });
    if (!source) note(level.level.entries, producer);
    if (!target) note(level.level.exits, producer);
  };
  graph.edges.forEach(({ source, target }, raw) => {
    let [a, b] = [items.get(source), items.get(target)];
    if (!a?.node || !b?.node || a === b) return;
    while (a.parent !== b.parent) {
      // The deeper of the two climbs, so that both come to the same level.
      const [up, down]: [Item | null, Item | null] = [a.parent, b.parent];
      if (!up || !down) return;
      if (a.depth >= b.depth) {
        pass(up, a, null, raw, source);
        a = up;
      } else {
        pass(down, null, b, raw, source);
        b = down;
      }
    }
    pass(a.parent ?? root, a, b, raw, source);
  });

  for (const item of items.values()) {
    for (const side of ["entries", "exits"] as const)
      if (item.level[side].length > PORTS_MAX) item.level[side] = ["*"];
  }

  const merged = new Map<Item, Map<string, LevelEdge>>();
  for (const { level: item, source, target, raw, producer } of passes) {
    const { children, level } = item;
    const entry = (): number => children.length + Math.max(0, level.entries.indexOf(producer));
    const exit = (): number =>
      children.length + level.entries.length + Math.max(0, level.exits.indexOf(producer));
    const [a, b] = [source ? source.at : entry(), target ? target.at : exit()];
    const here = merged.get(item) ?? new Map<string, LevelEdge>();
    merged.set(item, here);
    const key = `${a}>${b}>${producer}`;
    const known = here.get(key);
    if (known) known.raw.push(raw);
    else {
      const edge = { source: a, target: b, producer, raw: [raw] };
      here.set(key, edge);
      level.edges.push(edge);
    }
  }
}

interface Pass {
  level: Item;
  /** Null where it comes in from, or goes out to, the level above. */
  source: Item | null;
  target: Item | null;
  raw: number;
  producer: string;
}

/** One more than fit is enough to know that they share one. */
function note(list: string[], value: string): void {
  if (list.length <= PORTS_MAX && !list.includes(value)) list.push(value);
}

function push<T>(map: Map<string, T[]>, key: string, value: T): void {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}

// ---------------------------------------------------------------------------------------------- open and closed

export type Open = ReadonlySet<string>;

export function canOpen(item: Item): boolean {
  return item.children.length > 0 && item.parent !== null;
}

/** A fold is never open: its members are taken out of it, one by one. */
export function isOpen(item: Item, open: Open): boolean {
  return item.parent === null || (item.children.length > 0 && item.kind !== "fold" && open.has(item.id));
}

/** The items that are drawn, open groups before what they hold. The root itself is not drawn. */
export function drawnItems(hierarchy: Hierarchy, open: Open): Item[] {
  const out: Item[] = [];
  const visit = (item: Item) => {
    if (item.parent) out.push(item);
    if (isOpen(item, open)) item.children.forEach(visit);
  };
  visit(hierarchy.root);
  return out;
}

/** How many closed items (the ones with a card) are drawn. */
export function countClosed(item: Item, open: Open): number {
  if (!isOpen(item, open)) return 1;
  return item.children.reduce((sum, child) => sum + countClosed(child, open), 0);
}

/** The item that is drawn for an item: itself, or the outermost closed one that holds it. */
export function shownFor(item: Item, open: Open): Item {
  let shown = item;
  for (let up = item.parent; up; up = up.parent) if (!isOpen(up, open)) shown = up;
  return shown;
}

/** The nodes that it holds, or itself. */
export function leavesOf(item: Item): string[] {
  return item.node ? [item.id] : item.children.flatMap(leavesOf);
}

/** Whether an item is another one, or in it. */
export function within(item: Item, group: Item): boolean {
  for (let up: Item | null = item; up; up = up.parent) if (up === group) return true;
  return false;
}

/** What must be open for the item to be drawn. */
export function above(item: Item): Item[] {
  const out: Item[] = [];
  for (let up = item.parent; up?.parent; up = up.parent) out.push(up);
  return out.reverse();
}
