// What a level is made of, before anything has a place: its stack, the shortcuts that run beside it in lanes, which
// cards are slender, and which branch of a bundle is the main one.

import { edgeKey } from "./layered";
import type { LevelBox, LevelInput } from "./level";
import {
  type Edge,
  type Element,
  meet,
  type Place,
  placesOf,
  readSeries,
  readTrunk,
  type Stack,
} from "./series";

/** A way beside a stack: from below one element to later ones, for all uses of one tensor. */
export interface Lane {
  from: number;
  to: number;
  source: number;
  /** Vertices it arrives at, and in which element. */
  targets: { vertex: number; element: number; wires: number[] }[];
  /** Its column, from the spine of the stack. */
  x: number;
  /** One of many that share a rail. */
  bundled: boolean;
}

export class Structure {
  readonly count: number;
  /** Vertices count from 1 here: 0 is above everything, the one after the last below it; neither is drawn. */
  readonly top = 0;
  readonly bottom: number;
  readonly boxes: LevelBox[] = [];
  readonly lanes = new Map<Stack, Lane[]>();
  /** Guests that stand on the left of a vertex. */
  readonly satellites = new Map<number, number[]>();
  stack: Stack;
  places: Place[][];
  /** Edges that the stack is made of. */
  trunk: Edge[];
  /** Wires between two vertices, by their indices. */
  private readonly pairs = new Map<string, number[]>();
  private readonly vias = new Map<string, { out?: number; in?: number }>();
  private total: number;

  constructor(readonly input: LevelInput) {
    this.count = input.count;
    this.bottom = input.count + 1;
    this.total = input.count + 2;
    for (const [guest, host] of input.beside) {
      this.satellites.set(host + 1, [...(this.satellites.get(host + 1) ?? []), guest + 1]);
    }
    const edges = this.readEdges();
    const series = readSeries(this.standing(), edges);
    this.stack = series.stack;
    this.trunk = series.trunk;
    this.places = placesOf(this.stack, this.total);
    const shortcuts = this.insertVias(series.trunk, series.shortcuts);
    this.chooseBoxes();
    this.collectLanes(shortcuts);
  }

  private readEdges(): Edge[] {
    const edges: Edge[] = [];
    const has = { above: new Set<number>(), below: new Set<number>() };
    this.input.wires.forEach((wire, at) => {
      const [source, target] = [wire.source + 1, wire.target + 1];
      if (this.input.beside.has(wire.source) || source >= target) return;
      const key = edgeKey(source, target);
      const known = this.pairs.get(key);
      if (known) known.push(at);
      else {
        this.pairs.set(key, [at]);
        edges.push([source, target]);
        has.above.add(target);
        has.below.add(source);
      }
    });
    for (let vertex = 1; vertex <= this.count; vertex++) {
      if (this.input.beside.has(vertex - 1)) continue;
      if (!has.above.has(vertex)) edges.push([this.top, vertex]);
      if (!has.below.has(vertex)) edges.push([vertex, this.bottom]);
    }
    return edges;
  }

  /** Everything that takes part in the order from top to bottom. */
  private standing(): number[] {
    const all = Array.from({ length: this.total }, (_, vertex) => vertex);
    return all.filter((vertex) => !this.input.beside.has(vertex - 1));
  }

  /**
   * A lane leaves and reaches the stack between its elements. Where an end of a shortcut stands inside a bundle it
   * first gets a thin branch of its own, down to the end of the bundle (or from its beginning).
   */
  private insertVias(trunk: Edge[], shortcuts: Edge[]): Edge[] {
    const extra: Edge[] = [];
    const lanes: Edge[] = [];
    const ends = { out: new Set(trunk.map(([a]) => a)), in: new Set(trunk.map(([, b]) => b)) };
    const shared = new Map<string, number>();
    for (const [source, target] of shortcuts) {
      const place = meet(this.places[source] as Place[], this.places[target] as Place[]);
      if (place.from === place.to) {
        lanes.push([source, target]); // inside a tangle, which draws it itself
        continue;
      }
      const elements = place.stack.elements;
      const via: { out?: number; in?: number } = {};
      const next = elements[place.from + 1];
      if (this.nested(source, place.stack) && next?.kind === "vertex" && ends.out.has(source)) {
        if (!trunk.some(([a, b]) => a === source && b === next.vertex)) {
          via.out = this.via(shared, `out${source}`);
          extra.push([source, via.out], [via.out, next.vertex]);
        }
      }
      const before = elements[place.to - 1];
      if (this.nested(target, place.stack) && before?.kind === "vertex" && ends.in.has(target)) {
        if (!trunk.some(([a, b]) => a === before.vertex && b === target)) {
          via.in = this.via(shared, `in${target}`);
          extra.push([before.vertex, via.in], [via.in, target]);
        }
      }
      this.vias.set(edgeKey(source, target), via);
      lanes.push([source, target]);
    }
    if (extra.length > 0) this.restack([...trunk, ...unique(extra)], lanes);
    return lanes;
  }

  private nested(vertex: number, stack: Stack): boolean {
    const places = this.places[vertex] as Place[];
    return (
      places[places.length - 1]?.stack !== stack ||
      this.elementAt(places[places.length - 1] as Place).kind !== "vertex"
    );
  }

  elementAt(place: Place): Element {
    return place.stack.elements[place.element] as Element;
  }

  private via(shared: Map<string, number>, key: string): number {
    const vertex = shared.get(key) ?? this.total++;
    shared.set(key, vertex);
    return vertex;
  }

  /** Reads the stack again with the thin branches in it. They have numbers beyond the rest, so it is renumbered. */
  private restack(trunk: Edge[], lanes: Edge[]): void {
    const order = topological(this.standing(), trunk);
    const rank = new Map(order.map((vertex, at) => [vertex, at]));
    const to = (edge: Edge): Edge => [rank.get(edge[0]) as number, rank.get(edge[1]) as number];
    const stack = readTrunk([...order.keys()], trunk.map(to), lanes.map(to));
    rename(stack, order);
    this.stack = stack;
    this.trunk = trunk;
    this.places = placesOf(stack, this.total);
  }

  private chooseBoxes(): void {
    const narrow = new Set<number>();
    const visit = (stack: Stack, slender: boolean) => {
      for (const element of stack.elements) {
        if (element.kind === "vertex") {
          if (slender) narrow.add(element.vertex);
        } else if (element.kind === "tangle") {
          for (const vertex of element.vertices) narrow.add(vertex);
        } else {
          const main = this.mainBranch(element.branches);
          const broad = element.branches.some((branch) => this.weight(branch) > 0);
          element.branches.forEach((branch, at) => {
            visit(branch, slender || (broad && at !== main));
          });
        }
      }
    };
    visit(this.stack, false);
    const port: LevelBox = { kind: "port", width: 0, height: 0, inX: 0, outX: 0 };
    for (let vertex = 0; vertex < this.total; vertex++) {
      const real = vertex > 0 && vertex <= this.count;
      this.boxes.push(real ? this.input.box(vertex - 1, narrow.has(vertex)) : port);
    }
  }

  /** How much of a bundle a branch is; ports and thin branches count nothing. */
  weight(stack: Stack): number {
    let sum = 0;
    for (const element of stack.elements) {
      if (element.kind === "vertex") sum += this.weightOf(element.vertex);
      else if (element.kind === "tangle")
        sum += element.vertices.reduce((all, vertex) => all + this.weightOf(vertex), 0);
      else for (const branch of element.branches) sum += this.weight(branch);
    }
    return sum;
  }

  private weightOf(vertex: number): number {
    return vertex > 0 && vertex <= this.count ? this.input.weight(vertex - 1) : 0;
  }

  /** The branch that goes straight on while the others step aside; -1 where they are equals. */
  mainBranch(branches: Stack[]): number {
    const weights = branches.map((branch) => this.weight(branch));
    const most = Math.max(...weights);
    const rest = weights.reduce((sum, weight) => sum + weight, 0) - most;
    if (most === rest && weights.filter((weight) => weight > 0).length > 1) return -1;
    return most > rest || rest === 0 ? weights.indexOf(most) : -1;
  }

  private collectLanes(shortcuts: Edge[]): void {
    const lanes = new Map<Stack, Map<number, Lane>>();
    for (const [source, target] of shortcuts) {
      const via = this.vias.get(edgeKey(source, target));
      const [a, b] = [via?.out ?? source, via?.in ?? target];
      const { stack, from, to } = meet(this.places[a] as Place[], this.places[b] as Place[]);
      if (from >= to) continue;
      const here = lanes.get(stack) ?? new Map<number, Lane>();
      lanes.set(stack, here);
      const lane = here.get(a) ?? { from, to, source: a, targets: [], x: 0, bundled: false };
      here.set(a, lane);
      lane.to = Math.max(lane.to, to);
      lane.targets.push({ vertex: b, element: to, wires: this.pairs.get(edgeKey(source, target)) ?? [] });
    }
    for (const [stack, here] of lanes) this.lanes.set(stack, [...here.values()]);
  }

  drawn(vertex: number): boolean {
    return vertex > 0 && vertex <= this.count;
  }

  guests(vertex: number): LevelBox[] {
    return (this.satellites.get(vertex) ?? []).map((guest) => this.boxes[guest] as LevelBox);
  }

  /** Lanes arrive at the right side of a card, but at the entries of an open group, which are on its top. */
  entersFromTop(vertex: number, element: Element): boolean {
    return (
      element.kind !== "vertex" || this.boxes[vertex]?.kind === "open" || this.boxes[vertex]?.kind === "port"
    );
  }

  isEdge(element: Element | undefined): boolean {
    return element === undefined || (element.kind === "vertex" && !this.drawn(element.vertex));
  }
}

function unique(edges: Edge[]): Edge[] {
  return [...new Map(edges.map((edge) => [edgeKey(...edge), edge])).values()];
}

/** The lowest number that can come next, always: stays as close as possible to the order of execution. */
function topological(vertices: number[], edges: readonly Edge[]): number[] {
  const waiting = new Map(vertices.map((vertex) => [vertex, 0]));
  const next = new Map(vertices.map((vertex) => [vertex, [] as number[]]));
  for (const [a, b] of edges) {
    waiting.set(b, (waiting.get(b) ?? 0) + 1);
    next.get(a)?.push(b);
  }
  const ready = vertices.filter((vertex) => waiting.get(vertex) === 0);
  const order: number[] = [];
  while (ready.length > 0) {
    let least = 0;
    for (let at = 1; at < ready.length; at++)
      if ((ready[at] as number) < (ready[least] as number)) least = at;
    const [vertex] = ready.splice(least, 1) as [number];
    order.push(vertex);
    for (const target of next.get(vertex) ?? []) {
      const left = (waiting.get(target) ?? 0) - 1;
      waiting.set(target, left);
      if (left === 0) ready.push(target);
    }
  }
  return order;
}

function rename(stack: Stack, names: number[]): void {
  for (const element of stack.elements) {
    if (element.kind === "vertex") element.vertex = names[element.vertex] as number;
    else if (element.kind === "tangle") {
      element.vertices = element.vertices.map((vertex) => names[vertex] as number);
      element.edges = element.edges.map(([a, b]) => [names[a] as number, names[b] as number]);
    } else for (const branch of element.branches) rename(branch, names);
  }
}
