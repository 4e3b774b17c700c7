// The recorded graph, read once, however it is drawn afterwards: which node lies where in the tree of groups, who
// reads whom, what is plumbing, and where the run failed. All of it in numbers, as a graph may have 10,000 nodes:
// a node is its index in `graph.nodes`, and its *place* is where it comes in the tree, so that a group is a span.

import type { Graph, GraphGroup, GraphNode } from "../state/synced";
import { bottleneckOf } from "./bottleneck";
import { plumbingOf } from "./plumbing";

/** Places from the first one up to, and without, the second. */
export type Span = readonly [from: number, to: number];

export interface Wiring {
  /** The nodes at the ends of each edge; -1 where an edge goes nowhere. */
  source: Int32Array;
  target: Int32Array;
  /** The edges that reach and leave a node, in the order of the graph. */
  incoming(node: number): Int32Array;
  outgoing(node: number): Int32Array;
}

export interface Reading extends Wiring {
  graph: Graph;
  /** Index of a node; undefined for groups. */
  indexOf(id: string): number | undefined;
  nodeOf(id: string): GraphNode | undefined;
  groupOf(id: string): GraphGroup | undefined;
  /** What stands in a group, in order of execution, everything in one group only. */
  childrenOf(id: string): readonly string[];
  parentOf(id: string): string | undefined;
  spanOf(id: string): Span;
  /** Ids of the nodes in a span. */
  idsIn(span: Span): string[];
  /** The node at each place, and the place of each node; -1 for those that no group holds. */
  order: Int32Array;
  place: Int32Array;
  /** How many of the nodes before a place are plumbing. */
  plumbing: Int32Array;
  /** Ids of what failed and of all that holds it. */
  failed: ReadonlySet<string>;
  /** The node that makes the code of an autoencoder. */
  bottleneck: string | null;
  /** For each node a number, the same for those that do the same: apart from what an operation is told. */
  alike(): Int32Array;
}

const readings = new WeakMap<Graph, Reading>();

export function read(graph: Graph): Reading {
  return atOnce(readSlowly(graph));
}

/** Takes all steps one after the other. */
export function atOnce<T>(steps: Iterator<void, T>): T {
  for (let step = steps.next(); ; step = steps.next()) if (step.done) return step.value;
}

/** The same in several steps: of 10,000 nodes all at once keep a page busy for longer than it should be. */
export function* readSlowly(graph: Graph): Generator<void, Reading> {
  const known = readings.get(graph);
  if (known) return known;
  const index = new Map<string, number>();
  graph.nodes.forEach((node, at) => {
    index.set(node.id, at);
  });
  const groups = new Map(graph.groups.map((group) => [group.id, group]));
  yield;
  const tree = readTree(graph, index, groups);
  yield;
  const wiring = readWiring(graph, index);
  yield;
  const side = plumbingOf(graph, wiring);
  const plumbing = new Int32Array(tree.order.length + 1);
  tree.order.forEach((node, at) => {
    plumbing[at + 1] = (plumbing[at] as number) + (side[node] as number);
  });
  yield;
  const idOf = (node: number) => (graph.nodes[node] as GraphNode).id;
  let words: Int32Array | undefined;
  const fresh: Reading = {
    graph,
    ...wiring,
    order: tree.order,
    place: tree.place,
    plumbing,
    failed: failedIn(graph, tree.parents),
    bottleneck: bottleneckOf(graph, wiring),
    indexOf: (id) => index.get(id),
    nodeOf: (id) => graph.nodes[index.get(id) ?? -1],
    groupOf: (id) => groups.get(id),
    childrenOf: (id) => tree.children.get(id) ?? [],
    parentOf: (id) => tree.parents.get(id),
    spanOf(id) {
      const at = tree.place[index.get(id) ?? -1];
      return at === undefined ? (tree.spans.get(id) ?? [0, 0]) : [at, at + 1];
    },
    idsIn: ([from, to]) => Array.from(tree.order.subarray(from, to), idOf),
    alike() {
      words ??= wordsOf(graph);
      return words;
    },
  };
  yield;
  fresh.alike();
  readings.set(graph, fresh);
  return fresh;
}

function wordsOf({ nodes }: Graph): Int32Array {
  const known = new Map<string, number>();
  return Int32Array.from(nodes, ({ kind, path, op, status, output_shapes }) => {
    // What an operation is told may be the time: x[:, 3].
    const word = `${kind === "module" ? path : ""},${op},${status},${output_shapes}`;
    const number = known.get(word) ?? known.size;
    known.set(word, number);
    return number;
  });
}

function readTree(graph: Graph, index: ReadonlyMap<string, number>, groups: ReadonlyMap<string, GraphGroup>) {
  const orphans = strays(graph, groups);
  const parents = new Map<string, string>();
  const children = new Map<string, string[]>();
  const spans = new Map<string, Span>();
  const place = new Int32Array(graph.nodes.length).fill(-1);
  const order: number[] = [];
  const walk = (id: string) => {
    const from = order.length;
    const own = groups.get(id)?.children ?? [];
    const extra = orphans.get(id);
    const kept: string[] = [];
    children.set(id, kept);
    for (const child of extra ? inOrder([...own, ...extra], graph) : own) {
      const node = index.get(child);
      if (parents.has(child) || child === "" || (node === undefined && !groups.has(child))) continue;
      parents.set(child, id);
      kept.push(child);
      if (node === undefined) walk(child);
      else place[node] = order.push(node) - 1;
    }
    spans.set(id, [from, order.length]);
  };
  walk("");
  return { parents, children, spans, place, order: Int32Array.from(order) };
}

/** Nodes and groups that no group lists, under the parent they name, or the root where that is unknown. */
function strays(graph: Graph, groups: ReadonlyMap<string, GraphGroup>): Map<string, string[]> {
  const listed = new Set<string>();
  for (const group of graph.groups) for (const child of group.children) listed.add(child);
  const found = new Map<string, string[]>();
  const look = ({ id, parent: named }: GraphNode | GraphGroup) => {
    if (id === "" || listed.has(id)) return;
    const parent = groups.has(named) && named !== id ? named : "";
    const list = found.get(parent);
    if (list) list.push(id);
    else found.set(parent, [id]);
  };
  graph.nodes.forEach(look);
  graph.groups.forEach(look);
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

function readWiring(graph: Graph, index: ReadonlyMap<string, number>): Wiring {
  const source = new Int32Array(graph.edges.length).fill(-1);
  const target = new Int32Array(graph.edges.length).fill(-1);
  graph.edges.forEach((edge, raw) => {
    const [a, b] = [index.get(edge.source), index.get(edge.target)];
    if (a === undefined || b === undefined || a === b) return;
    source[raw] = a;
    target[raw] = b;
  });
  const count = graph.nodes.length;
  return { source, target, incoming: edgesAt(target, count), outgoing: edgesAt(source, count) };
}

/** For each node the edges that have it at this end. */
function edgesAt(end: Int32Array, count: number): (node: number) => Int32Array {
  const starts = new Int32Array(count + 1);
  for (const node of end) if (node >= 0) starts[node + 1] = (starts[node + 1] as number) + 1;
  for (let node = 0; node < count; node++)
    starts[node + 1] = (starts[node + 1] as number) + (starts[node] as number);
  const edges = new Int32Array(starts[count] as number);
  const next = starts.slice();
  end.forEach((node, raw) => {
    if (node < 0) return;
    edges[next[node] as number] = raw;
    next[node] = (next[node] as number) + 1;
  });
  return (node) => edges.subarray(starts[node], starts[node + 1]);
}

function failedIn(graph: Graph, parents: ReadonlyMap<string, string>): Set<string> {
  const failed = new Set<string>();
  const look = ({ id, status }: GraphNode | GraphGroup) => {
    if (status !== "failed") return;
    for (let up: string | undefined = id; up !== undefined && !failed.has(up); up = parents.get(up))
      failed.add(up);
  };
  graph.nodes.forEach(look);
  graph.groups.forEach(look);
  return failed;
}
