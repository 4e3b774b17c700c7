// From the recorded graph to the tree that is drawn: every group with its children in order of execution, identical
// siblings folded into one item, plumbing put into a tray, overlong levels cut into parts, and for each group the
// edges between its children.
//
// Pure and static: what is open or closed, where things lie and what they look like is not known here. An edge
// between two nodes crosses the borders of the groups it leaves and enters; on each level it passes it is one
// `LevelEdge`, from a child or an entry to a child or an exit. So each level can be laid out alone.
//
// The tree grows where somebody looks: the children of a group and the edges of its level are found when they are
// asked for first. A graph of 10,000 nodes whose picture shows 60 of them costs no more than those.

import type { Graph, GraphEdge, GraphGroup, GraphNode } from "../state/synced";
import { foldSiblings } from "./folding";
import { trayOf } from "./plumbing";
import { atOnce, type Reading, read, readSlowly, type Span } from "./reading";

/** A level with more children than this is cut into parts. */
export const LEVEL_MAX = 60;
const PART_SIZE = 40;
/** Groups with more entries (or exits) than this draw them as one. */
const PORTS_MAX = 3;
/** Children that are made in one step. */
const MADE_MAX = 500;

export type ItemKind = "node" | "group" | "fold" | "part" | "tray";

/** One thing that can be drawn: a node, a group, identical siblings, a part of an overlong level, or plumbing. */
export interface Item {
  readonly id: string;
  readonly kind: ItemKind;
  /** The node or group of the kernel that stands for it: what is selected, and whose maps are shown. */
  readonly rep: string;
  readonly node: GraphNode | null;
  readonly group: GraphGroup | null;
  parent: Item | null;
  readonly children: Item[];
  /** Its place among the children of its parent. */
  at: number;
  depth: number;
  /** Where its nodes lie in the tree. */
  readonly spans: readonly Span[];
  /** How many nodes are in it. */
  readonly leaves: number;
  /** How many identical ones it stands for. */
  readonly times: number;
  /** Which of the steps it is that do the same again, from 1; 0 for what is not done again. */
  step: number;
  /** Whether all that an autoencoder gives back passes it. */
  bottleneck: boolean;
  /** Whether it failed, or something in it. */
  readonly failed: boolean;
  readonly level: Level;
  /** The ids of the nodes in it, or its own. */
  ids(): string[];
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
  reading: Reading;
  root: Item;
  /** The item of this name: a node, a group, or several that were gathered. */
  of(id: string): Item | undefined;
  /** All of them by name; `values` makes the whole tree grow. */
  items: Pick<ReadonlyMap<string, Item>, "get" | "has" | "values">;
  edges: readonly GraphEdge[];
}

/** The tree of a graph; members of a fold that are named in `apart` stand alone. */
export function buildHierarchy(graph: Graph, apart: ReadonlySet<string> = new Set()): Hierarchy {
  if (apart.size > 0) return new Tree(graph, apart);
  return wholeTree(graph);
}

/** The same in several steps, as far as the first picture needs it. */
export function* growSlowly(graph: Graph): Generator<void, Hierarchy> {
  yield* readSlowly(graph);
  yield;
  const tree = wholeTree(graph);
  yield* tree.root.growSlowly();
  yield;
  void tree.root.level;
  return tree;
}

function wholeTree(graph: Graph): Tree {
  const tree = folded.get(graph) ?? new Tree(graph, new Set());
  folded.set(graph, tree);
  return tree;
}

/** The trees in which all stacks are whole: what has grown of them is there again when the last one closes. */
const folded = new WeakMap<Graph, Tree>();

class Branch implements Item {
  at = 0;
  depth = 0;
  step = 0;
  readonly leaves: number;
  private inside: Inside | undefined;
  private edges: Level | undefined;

  constructor(
    private readonly tree: Tree,
    readonly id: string,
    readonly kind: ItemKind,
    readonly rep: string,
    readonly spans: readonly Span[],
    readonly failed: boolean,
    readonly node: GraphNode | null = null,
    readonly group: GraphGroup | null = null,
    public parent: Item | null = null,
  ) {
    let leaves = 0;
    for (const [from, to] of spans) leaves += to - from;
    this.leaves = leaves;
  }

  get children(): Item[] {
    return this.grown.items;
  }

  get bottleneck(): boolean {
    return this.node !== null && this.tree.reading.bottleneck === this.id;
  }

  get times(): number {
    return this.grown.times;
  }

  get level(): Level {
    this.edges ??= this.tree.levelOf(this);
    return this.edges;
  }

  ids(): string[] {
    return this.spans.flatMap((span) => this.tree.reading.idsIn(span));
  }

  /** What it is given to hold, in place of what the graph says. */
  hold(inside: Inside): void {
    this.inside = inside;
  }

  /** Nobody else may ask for its children until this has come to its end. */
  *growSlowly(): Generator<void> {
    this.inside ??= yield* this.tree.grow(this);
  }

  private get grown(): Inside {
    this.inside ??= atOnce(this.tree.grow(this));
    return this.inside;
  }
}

/** The children of an item, and how many identical ones they are. */
interface Inside {
  items: Item[];
  times: number;
}

const NOTHING: Inside = { items: [], times: 1 };

type Gather = (kind: "fold" | "part" | "tray", members: Item[]) => Item;

class Tree implements Hierarchy {
  readonly reading: Reading;
  readonly root: Branch;
  readonly edges: readonly GraphEdge[];
  readonly items = {
    get: (id: string) => this.of(id),
    has: (id: string) => this.of(id) !== undefined,
    values: () => {
      const visit = (item: Item) => item.children.forEach(visit);
      visit(this.root);
      return this.known.values();
    },
  };
  private readonly known = new Map<string, Item>();
  /** The child of the level in question that each place is in; -1 outside it, and between two questions. */
  private readonly home: Int32Array;

  constructor(
    readonly graph: Graph,
    private readonly apart: ReadonlySet<string>,
  ) {
    this.reading = read(graph);
    this.edges = graph.edges;
    this.home = new Int32Array(this.reading.order.length).fill(-1);
    this.root = this.make("");
  }

  of(id: string): Item | undefined {
    const known = this.known.get(id);
    if (known) return known;
    // What is gathered is named after its first member, and made together with it.
    const holder = this.reading.parentOf(id.replace(/^((fold|part|tray):)+/, ""));
    const grown = holder === undefined ? undefined : this.of(holder)?.children;
    return grown && this.known.get(id);
  }

  *grow(item: Item): Generator<void, Inside> {
    if (item.kind === "node") return NOTHING;
    const { reading } = this;
    const members: Item[] = [];
    for (const id of reading.childrenOf(item.id))
      if (members.push(this.make(id, item)) % MADE_MAX === 0) yield;
    const gathered: Gather = (kind, some) => this.gather(kind, some, item);
    const found = trayOf(members, reading);
    const rest = found ? members.filter((member) => !found.tray.includes(member)) : members;
    if (found) rest.splice(found.at, 0, gathered("tray", found.tray));
    yield;
    const { items: siblings, times } = yield* foldSiblings(rest, this.apart, gathered, reading);
    const items = divide(siblings, gathered);
    settle(items, item.depth + 1);
    return { items, times };
  }

  private make(id: string, parent: Item | null = null): Branch {
    const { reading } = this;
    const node = reading.nodeOf(id) ?? null;
    const group = node ? null : (reading.groupOf(id) ?? null);
    const [spans, failed] = [[reading.spanOf(id)], reading.failed.has(id)];
    const item = new Branch(this, id, node ? "node" : "group", id, spans, failed, node, group, parent);
    this.known.set(id, item);
    return item;
  }

  /** Several siblings as one item; what leaves it is what its last member makes. */
  private gather(kind: "fold" | "part" | "tray", members: Item[], parent: Item): Item {
    const first = members[0] as Item;
    const last = members[members.length - 1] as Item;
    const spans = joined(members);
    const failed = members.some((member) => member.failed);
    const id = `${kind}:${first.id}`;
    const item = new Branch(this, id, kind, last.rep, spans, failed, null, null, parent);
    item.hold({ items: members, times: kind === "fold" ? members.length : 1 });
    for (const member of members) member.parent = item;
    this.known.set(id, item);
    return item;
  }

  /** Every edge that begins or ends in an item and in no child of it alone, from child to child. */
  levelOf(item: Item): Level {
    const { children } = item;
    const { order, place, source, target, incoming, outgoing } = this.reading;
    const { home } = this;
    children.forEach((child, at) => {
      for (const [from, to] of child.spans) home.fill(at, from, to);
    });
    const homeOf = (node: number) => home[place[node] as number] ?? -1;
    const raws: number[] = [];
    for (const [from, to] of item.spans) {
      for (let at = from; at < to; at++) {
        const node = order[at] as number;
        const own = home[at] as number;
        for (const raw of outgoing(node))
          if (this.placed(target[raw]) && homeOf(target[raw] as number) !== own) raws.push(raw);
        for (const raw of incoming(node))
          if (this.placed(source[raw]) && homeOf(source[raw] as number) < 0) raws.push(raw);
      }
    }
    const passes = raws
      .sort((a, b) => a - b)
      .map((raw): Pass => {
        const [from, to] = [homeOf(source[raw] as number), homeOf(target[raw] as number)];
        return { raw, from, to, producer: (this.edges[raw] as GraphEdge).source };
      });
    for (const [from, to] of item.spans) home.fill(-1, from, to);
    return merged(passes, children.length);
  }

  private placed(node: number | undefined): boolean {
    return (this.reading.place[node ?? -1] ?? -1) >= 0;
  }
}

/** All spans in order, those that touch as one. */
function joined(members: readonly Item[]): Span[] {
  const out: Span[] = [];
  for (const { spans } of members) {
    for (const [from, to] of spans) {
      const last = out[out.length - 1];
      if (last && last[1] === from) out[out.length - 1] = [last[0], to];
      else out.push([from, to]);
    }
  }
  return out.sort((a, b) => a[0] - b[0]);
}

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

/** Numbers the children of an item, and of those that were gathered among them. */
function settle(items: readonly Item[], depth: number): void {
  items.forEach((item, at) => {
    item.at = at;
    item.depth = depth;
    if (item.kind !== "node" && item.kind !== "group") settle(item.children, depth + 1);
  });
}

/** An edge of the graph on one level: from one child to another, -1 for outside. */
interface Pass {
  raw: number;
  from: number;
  to: number;
  producer: string;
}

/** One level edge for all edges of one producer between the same two ends. */
function merged(passes: readonly Pass[], children: number): Level {
  const level: Level = { edges: [], entries: [], exits: [] };
  for (const { from, to, producer } of passes) {
    if (from < 0) note(level.entries, producer);
    if (to < 0) note(level.exits, producer);
  }
  for (const side of ["entries", "exits"] as const) if (level[side].length > PORTS_MAX) level[side] = ["*"];

  const known = new Map<string, LevelEdge>();
  for (const { raw, from, to, producer } of passes) {
    const source = from < 0 ? children + Math.max(0, level.entries.indexOf(producer)) : from;
    const exit = children + level.entries.length + Math.max(0, level.exits.indexOf(producer));
    const target = to < 0 ? exit : to;
    const key = `${source}>${target}>${producer}`;
    const same = known.get(key);
    if (same) same.raw.push(raw);
    else {
      const edge = { source, target, producer, raw: [raw] };
      known.set(key, edge);
      level.edges.push(edge);
    }
  }
  return level;
}

/** One more than fit is enough to know that they share one. */
function note(list: string[], value: string): void {
  if (list.length <= PORTS_MAX && !list.includes(value)) list.push(value);
}

// ---------------------------------------------------------------------------------------------- open and closed

export type Open = ReadonlySet<string>;

export function canOpen(item: Item): boolean {
  return !item.node && item.leaves > 0 && item.parent !== null;
}

/** A fold is never open: its members are taken out of it, one by one. */
export function isOpen(item: Item, open: Open): boolean {
  return item.parent === null || (canOpen(item) && item.kind !== "fold" && open.has(item.id));
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
  return item.ids();
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
