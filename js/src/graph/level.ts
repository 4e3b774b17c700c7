// One level of one group laid out: where each child lies, and how each edge runs. Chains are stacks, branches stand
// side by side with the main one straight on, residuals and long skips run in lanes on the right, many overlapping
// skips share one rail; only what is neither goes to the general layout.
//
// Pure geometry. A level knows the boxes of its children (a closed card or an open group with entries and exits),
// not what is in them.

import { type Bend, edgeKey, type Layered, layered, type Point } from "./layered";
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

/** What a vertex of a level is; it decides gaps and how edges arrive. */
export type BoxKind = "card" | "slim" | "dot" | "open" | "port" | "beside";

export interface LevelBox {
  kind: BoxKind;
  width: number;
  height: number;
  /** Where the main edge comes in and goes out, from the left side. */
  inX: number;
  outX: number;
}

export interface LevelWire {
  source: number;
  target: number;
  /** Where this edge leaves and arrives, from the left side of its box, if not at the main places. */
  outX?: number;
  inX?: number;
}

export interface LevelInput {
  /** Vertices, numbered so that edges go upwards. */
  count: number;
  box(vertex: number, narrow: boolean): LevelBox;
  /** How much of the network it is; an entry or exit of the group is nothing. */
  weight(vertex: number): number;
  wires: readonly LevelWire[];
  /** Vertices that stand on the left of another one instead of above it: constants with one use. */
  beside: ReadonlyMap<number, number>;
}

export interface Route {
  wire: number;
  points: Point[];
  kind: "flow" | "skip";
  /** Part of a rail: drawn only when it is asked for. */
  bundled: boolean;
}

export interface LevelLayout {
  width: number;
  height: number;
  boxes: (LevelBox & { x: number; y: number })[];
  routes: Route[];
  /** Lines shared by bundled routes: the rail itself, then the ways onto and off it. */
  rails: { points: Point[]; thick: boolean }[];
  /** For each entry the way down to it from the upper edge, for each exit the way to the lower edge. */
  ports: Map<number, Point[]>;
}

export const GAP = 24;
const SLIM_GAP = 14;
const PORT_GAP = 18;
const BUNDLE_GAP = 32;
const FORK = 10;
const JOIN = 14;
const SIDE_GAP = 22;
const THIN_GAP = 12;
const BESIDE = 20;
const ASIDE = 6;
const LANE = 14;
const LANES_MAX = 4;

/** A lane with its place: its column, the height where it begins, and where it goes off to whom. */
interface LaneWay {
  lane: Lane;
  x: number;
  tap: number;
  arrivals: { end: number; wires: number[]; y: number }[];
}

interface Lane {
  from: number;
  to: number;
  source: number;
  /** Vertices it arrives at, and in which element. */
  targets: { vertex: number; element: number; wires: number[] }[];
  x: number;
  bundled: boolean;
}

/** A stack's extents around its spine, and where its elements begin. */
interface Measured {
  left: number;
  right: number;
  height: number;
  tops: number[];
  heights: number[];
}

export function layoutLevel(input: LevelInput): LevelLayout {
  return new LevelBuilder(input).build();
}

class LevelBuilder {
  private readonly count: number;
  private readonly top: number;
  private readonly bottom: number;
  private readonly boxes: LevelBox[] = [];
  private readonly x: number[] = [];
  private readonly y: number[] = [];
  private readonly measured = new Map<Stack, Measured>();
  private readonly lanes = new Map<Stack, Lane[]>();
  private trunk: Edge[] = [];
  private readonly tangles = new Map<Element, Layered>();
  private readonly tanglePlaces = new Map<Element, Point>();
  private readonly spines = new Map<Stack, Point>();
  /** Wires between two vertices, by their indices. */
  private readonly pairs = new Map<string, number[]>();
  private readonly vias = new Map<string, { out?: number; in?: number }>();
  private readonly satellites = new Map<number, number[]>();
  private stack!: Stack;
  private places!: Place[][];
  private total: number;

  constructor(private readonly input: LevelInput) {
    // Vertex 0 is above everything, the last one below everything; neither is drawn.
    this.count = input.count;
    this.top = 0;
    this.bottom = input.count + 1;
    this.total = input.count + 2;
    for (const [guest, host] of input.beside) {
      this.satellites.set(host + 1, [...(this.satellites.get(host + 1) ?? []), guest + 1]);
    }
  }

  build(): LevelLayout {
    const edges = this.readEdges();
    const series = readSeries(this.standing(), edges);
    this.stack = series.stack;
    this.trunk = series.trunk;
    this.places = placesOf(this.stack, this.total);
    const shortcuts = this.insertVias(series.trunk, series.shortcuts);
    this.chooseBoxes();
    this.collectLanes(shortcuts);
    const { left } = this.measure(this.stack);
    this.place(this.stack, left, 0);
    return this.finish();
  }

  // ---- structure ---------------------------------------------------------------------------------------

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

  private elementAt(place: Place): Element {
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
          const broad = element.branches.filter((branch) => this.weight(branch) > 0).length;
          element.branches.forEach((branch, at) => {
            visit(branch, slender || (broad > 1 && at !== main));
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
  private weight(stack: Stack): number {
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
  private mainBranch(branches: Stack[]): number {
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

  // ---- sizes -------------------------------------------------------------------------------------------

  /** Extents around the spine, which the main edges follow from top to bottom. */
  private measure(stack: Stack): Measured {
    const known = this.measured.get(stack);
    if (known) return known;
    const lanes = this.lanes.get(stack) ?? [];
    const result: Measured = { left: 0, right: 0, height: 0, tops: [], heights: [] };
    const rights: number[] = [];
    let y = 0;
    stack.elements.forEach((element, at) => {
      const previous = stack.elements[at - 1];
      if (previous) y += this.gap(previous, element, lanes, at);
      const [left, right, height] = this.extent(element);
      result.tops.push(y);
      result.heights.push(height);
      rights.push(right);
      result.left = Math.max(result.left, left);
      result.right = Math.max(result.right, right);
      y += height;
    });
    result.height = y;
    this.placeLanes(lanes, rights, stack);
    for (const lane of lanes) result.right = Math.max(result.right, lane.x + 2);
    this.measured.set(stack, result);
    return result;
  }

  private extent(element: Element): [left: number, right: number, height: number] {
    if (element.kind === "vertex") return this.around(element.vertex);
    if (element.kind === "tangle") return this.measureTangle(element);
    const [places, sides] = this.arrange(element.branches);
    let [left, right, height] = [0, 0, 0];
    places.forEach((x, at) => {
      const branch = sides[at] as Measured;
      left = Math.max(left, branch.left - x);
      right = Math.max(right, branch.right + x);
      height = Math.max(height, branch.height);
    });
    return [left, right, height];
  }

  /** A vertex with those that stand beside it. */
  private around(vertex: number): [left: number, right: number, height: number] {
    const box = this.boxes[vertex] as LevelBox;
    const guests = this.guests(vertex);
    const wide = guests.reduce((most, guest) => Math.max(most, guest.width), 0);
    const tall = guests.reduce((sum, guest) => sum + guest.height + 6, -6);
    return [box.inX + (wide > 0 ? wide + BESIDE : 0), box.width - box.inX, Math.max(box.height, tall)];
  }

  private guests(vertex: number): LevelBox[] {
    return (this.satellites.get(vertex) ?? []).map((guest) => this.boxes[guest] as LevelBox);
  }

  /** Where the spines of the branches of a bundle lie beside its own. */
  private arrange(branches: Stack[]): [places: number[], sides: Measured[]] {
    const sides = branches.map((branch) => this.measure(branch));
    const main = this.mainBranch(branches);
    const places: number[] = [];
    const thin = (at: number) => this.weight(branches[at] as Stack) === 0;
    let edge: number;
    if (main >= 0) {
      places[main] = 0;
      edge = (sides[main] as Measured).right;
    } else {
      const total = sides.reduce(
        (sum, side, at) => sum + side.left + side.right + (at > 0 ? SIDE_GAP : 0),
        0,
      );
      edge = -total / 2 - SIDE_GAP;
    }
    sides.forEach((side, at) => {
      if (at === main) return;
      const x = edge + (thin(at) ? THIN_GAP : SIDE_GAP) + side.left;
      places[at] = x;
      edge = x + side.right;
    });
    return [places, sides];
  }

  private measureTangle(element: Element & { kind: "tangle" }): [number, number, number] {
    const inside = new Set(element.vertices);
    // Where edges come in from above and go out below, they pass the other rows of the tangle on ways of their own.
    const outer: Edge[] = [];
    const [above, below] = [-1, -2];
    for (const [a, b] of this.trunk) {
      if (!inside.has(a) && inside.has(b) && !outer.some((edge) => edge[1] === b)) outer.push([above, b]);
      if (inside.has(a) && !inside.has(b) && !outer.some((edge) => edge[0] === a)) outer.push([a, below]);
    }
    const vertices = [
      ...(outer.some(([a]) => a === above) ? [above] : []),
      ...element.vertices,
      ...(outer.some(([, b]) => b === below) ? [below] : []),
    ];
    const drawing = layered(vertices, [...element.edges, ...outer], (vertex) => {
      const [left, right, height] = vertex < 0 ? [0, 0, 0] : this.around(vertex);
      return { width: left + right, height };
    });
    this.tangles.set(element, drawing);
    const spine = (drawing.centres.get(above) ?? drawing.centres.get(below))?.[0] ?? drawing.width / 2;
    return [spine, drawing.width - spine, drawing.height];
  }

  private gap(above: Element, below: Element, lanes: Lane[], at: number): number {
    if (above.kind === "vertex" && above.vertex === this.top) return 0;
    if (below.kind === "vertex" && below.vertex === this.bottom) return 0;
    const busy = lanes.some(
      (lane) =>
        lane.from === at - 1 ||
        lane.targets.some((t) => t.element === at && this.entersFromTop(t.vertex, below)),
    );
    const extra = busy ? 6 : 0;
    if (above.kind !== "vertex" || below.kind !== "vertex") {
      // Branches reach a round node from its side: the main one needs no room for them above it.
      const round = below.kind === "vertex" && this.boxes[below.vertex]?.kind === "dot";
      const straight = above.kind === "bundle" && this.mainBranch(above.branches) >= 0;
      return round && straight ? PORT_GAP + extra : BUNDLE_GAP;
    }
    const [a, b] = [this.boxes[above.vertex] as LevelBox, this.boxes[below.vertex] as LevelBox];
    if (a.kind === "port" || b.kind === "port") return PORT_GAP + extra;
    if (a.kind === "slim" || b.kind === "slim" || a.kind === "dot" || b.kind === "dot")
      return SLIM_GAP + extra;
    return GAP + extra;
  }

  private drawn(vertex: number): boolean {
    return vertex > 0 && vertex <= this.count;
  }

  /** Lanes arrive at the right side of a card, but at the entries of an open group, which are on its top. */
  private entersFromTop(vertex: number, element: Element): boolean {
    return (
      element.kind !== "vertex" || this.boxes[vertex]?.kind === "open" || this.boxes[vertex]?.kind === "port"
    );
  }

  private placeLanes(lanes: Lane[], rights: number[], stack: Stack): void {
    const done: Lane[] = [];
    for (const lane of [...lanes].sort((a, b) => a.to - a.from - (b.to - b.from) || a.from - b.from)) {
      const last = stack.elements[lane.to] as Element;
      const bySide = lane.targets.some((t) => t.element === lane.to && !this.entersFromTop(t.vertex, last));
      let x = Math.max(0, ...rights.slice(lane.from + 1, bySide ? lane.to + 1 : lane.to)) + LANE;
      for (const other of done)
        if (other.from < lane.to && lane.from < other.to) x = Math.max(x, other.x + LANE);
      lane.x = x;
      done.push(lane);
    }
    this.bundleLanes(lanes);
  }

  /** Where too many lanes run side by side, they become one rail. */
  private bundleLanes(lanes: Lane[]): void {
    for (const cluster of overlapping(lanes)) {
      const most = Math.max(
        ...cluster.map(
          (lane) => cluster.filter((other) => other.from <= lane.from && other.to > lane.from).length,
        ),
      );
      if (most <= LANES_MAX) continue;
      const x = Math.min(...cluster.map((lane) => lane.x));
      const base = Math.max(x, ...cluster.map((lane) => lane.x - LANE * (cluster.length - 1)));
      for (const lane of cluster) {
        lane.x = base;
        lane.bundled = true;
      }
    }
  }

  // ---- places ------------------------------------------------------------------------------------------

  private place(stack: Stack, spine: number, top: number): void {
    const measured = this.measured.get(stack) as Measured;
    this.spines.set(stack, [spine, top]);
    stack.elements.forEach((element, at) => {
      const y = top + (measured.tops[at] as number);
      const height = measured.heights[at] as number;
      if (element.kind === "vertex") {
        this.put(element.vertex, spine, y, height);
      } else if (element.kind === "tangle") {
        const drawing = this.tangles.get(element) as Layered;
        const centre = (drawing.centres.get(-1) ?? drawing.centres.get(-2))?.[0] ?? drawing.width / 2;
        this.tanglePlaces.set(element, [spine - centre, y]);
        for (const vertex of element.vertices) {
          const [cx, cy] = drawing.centres.get(vertex) as Point;
          const [left, right, tall] = this.around(vertex);
          this.put(vertex, spine - centre + cx - (left + right) / 2 + left, y + cy - tall / 2, tall);
        }
      } else {
        const [places, sides] = this.arrange(element.branches);
        const first = this.isEdge(stack.elements[at - 1]);
        const last = this.isEdge(stack.elements[at + 1]);
        element.branches.forEach((branch, index) => {
          const room = height - (sides[index] as Measured).height;
          // In the middle between a fork and a join; at the end that is open, against the one that is not.
          const slack = first === last ? (first ? 0 : room / 2) : first ? room : 0;
          this.place(branch, spine + (places[index] as number), y + slack);
        });
      }
    });
  }

  private isEdge(element: Element | undefined): boolean {
    return element === undefined || (element.kind === "vertex" && !this.drawn(element.vertex));
  }

  private put(vertex: number, spine: number, y: number, height: number): void {
    const box = this.boxes[vertex] as LevelBox;
    this.x[vertex] = spine - box.inX;
    this.y[vertex] = y + (height - box.height) / 2;
    const guests = this.satellites.get(vertex) ?? [];
    let top = y + (height - this.guests(vertex).reduce((sum, guest) => sum + guest.height + 6, -6)) / 2;
    for (const guest of guests) {
      const own = this.boxes[guest] as LevelBox;
      this.x[guest] = spine - box.inX - BESIDE - own.width;
      this.y[guest] = top;
      top += own.height + 6;
    }
  }

  // ---- routes ------------------------------------------------------------------------------------------

  private finish(): LevelLayout {
    const routes: Route[] = [];
    const done = new Set<number>();
    const rails = this.routeLanes(routes, done);
    this.input.wires.forEach((wire, at) => {
      if (done.has(at)) return;
      const points = this.flow(wire);
      routes.push({ wire: at, points, kind: "flow", bundled: false });
    });
    const measured = this.measured.get(this.stack) as Measured;
    let [left, right] = [0, measured.left + measured.right];
    const ports = this.routePorts(measured.height);
    for (const { points } of routes) {
      for (const [x] of points) {
        left = Math.min(left, x);
        right = Math.max(right, x);
      }
    }
    const shift = (points: Point[]): Point[] => points.map(([x, y]) => [round(x - left), round(y)]);
    return {
      width: Math.ceil(right - left),
      height: Math.ceil(measured.height),
      boxes: Array.from({ length: this.count }, (_, at) => ({
        ...(this.boxes[at + 1] as LevelBox),
        x: round((this.x[at + 1] ?? 0) - left),
        y: round(this.y[at + 1] ?? 0),
      })),
      routes: routes.map((route) => ({ ...route, points: shift(tidy(route.points)) })),
      rails: rails.map(({ points, thick }) => ({ points: shift(tidy(points)), thick })),
      ports: new Map([...ports].map(([vertex, points]) => [vertex, shift(tidy(points))])),
    };
  }

  private routePorts(height: number): Map<number, Point[]> {
    const ports = new Map<number, Point[]>();
    const fed = new Set(this.input.wires.map((wire) => wire.target));
    for (let at = 0; at < this.count; at++) {
      const vertex = at + 1;
      if (this.boxes[vertex]?.kind !== "port") continue;
      if (fed.has(at)) {
        const way = this.leaveTangle(vertex, this.out(vertex));
        ports.set(at, [...way, [(way[way.length - 1] as Point)[0], height]]);
      } else {
        const way = this.enterTangle(vertex, this.into(vertex));
        ports.set(at, [[(way[0] as Point)[0], 0], ...way]);
      }
    }
    return ports;
  }

  private out(vertex: number, wire?: LevelWire): Point {
    const box = this.boxes[vertex] as LevelBox;
    return [(this.x[vertex] as number) + (wire?.outX ?? box.outX), (this.y[vertex] as number) + box.height];
  }

  private into(vertex: number, wire?: LevelWire): Point {
    const box = this.boxes[vertex] as LevelBox;
    return [(this.x[vertex] as number) + (wire?.inX ?? box.inX), this.y[vertex] as number];
  }

  private flow(wire: LevelWire): Point[] {
    const [source, target] = [wire.source + 1, wire.target + 1];
    if (this.input.beside.has(wire.source)) return this.fromBeside(source, target);
    const start = this.out(source, wire);
    const end = this.into(target, wire);
    if (source >= target) return this.backwards(source, target);
    const { stack, from, to } = meet(this.places[source] as Place[], this.places[target] as Place[]);
    return this.between(source, target, start, end, stack, from, to);
  }

  private between(
    source: number,
    target: number,
    start: Point,
    end: Point,
    stack: Stack,
    from: number,
    to: number,
  ): Point[] {
    const element = stack.elements[from] as Element;
    if (from === to && element.kind === "tangle")
      return this.throughTangle(element, source, target, start, end);
    const [, top] = this.spines.get(stack) as Point;
    const measured = this.measured.get(stack) as Measured;
    const bottom = top + (measured.tops[from] as number) + (measured.heights[from] as number);
    const next = top + (measured.tops[to] as number);
    const leaving = this.leaveTangle(source, start);
    const arriving = this.enterTangle(target, end);
    const [sx] = leaving[leaving.length - 1] as Point;
    const [ex] = arriving[0] as Point;
    const joining = element.kind !== "vertex";
    const round = this.boxes[target]?.kind === "dot" && arriving.length === 1 && Math.abs(sx - ex) > 20;
    if (joining && round && !(sx < ex && this.satellites.has(target))) {
      return [...leaving, ...this.sideways(sx, target)];
    }
    const forking = !joining && (stack.elements[to] as Element).kind !== "vertex";
    const middle = joining ? next - JOIN : forking ? bottom + FORK : (bottom + next) / 2;
    // Different tensors do not share a height where they could be taken for one another.
    const y =
      middle - (this.aside(target, end, "inX") ? ASIDE : 0) + (this.aside(source, start, "outX") ? ASIDE : 0);
    return [...leaving, [sx, y], [ex, y], ...arriving];
  }

  /** Whether an edge ends at another entry or exit of an open group than the main one. */
  private aside(vertex: number, [x]: Point, side: "inX" | "outX"): boolean {
    const box = this.boxes[vertex] as LevelBox;
    return box.kind === "open" && Math.abs((this.x[vertex] as number) + box[side] - x) > 1;
  }

  /** Into the side of a small round node. */
  private sideways(x: number, target: number): Point[] {
    const box = this.boxes[target] as LevelBox;
    const middle = (this.y[target] as number) + box.height / 2;
    const side = (this.x[target] as number) + (x < (this.x[target] as number) ? 0 : box.width);
    return [
      [x, middle],
      [side, middle],
    ];
  }

  private throughTangle(element: Element, source: number, target: number, start: Point, end: Point): Point[] {
    return this.follow(element, this.bendsOf(element, source, target), start, end);
  }

  private bendsOf(element: Element, source: number, target: number): Bend[] {
    return this.tangles.get(element)?.bends.get(edgeKey(source, target)) ?? [];
  }

  private follow(element: Element, bends: Bend[], start: Point, end: Point): Point[] {
    const [left, top] = this.tanglePlaces.get(element) as Point;
    const points: Point[] = [start];
    let x = start[0];
    for (const bend of bends) {
      const next = bend.x === null ? end[0] : left + bend.x;
      points.push([x, top + bend.y], [next, top + bend.y]);
      x = next;
    }
    points.push(end);
    return points;
  }

  private tangleOf(vertex: number): Element | null {
    const places = this.places[vertex] as Place[];
    const element = this.elementAt(places[places.length - 1] as Place);
    return element.kind === "tangle" ? element : null;
  }

  /** From a vertex in a tangle to below it, on the way that was kept free. */
  private leaveTangle(vertex: number, start: Point): Point[] {
    const element = this.tangleOf(vertex);
    const bends = element ? this.bendsOf(element, vertex, -2) : [];
    if (!element || bends.length < 2) return [start];
    const inner = bends.slice(0, -1);
    const last = inner[inner.length - 1] as Bend;
    const [left, top] = this.tanglePlaces.get(element) as Point;
    const drawing = this.tangles.get(element) as Layered;
    return this.follow(element, inner, start, [left + (last.x ?? 0), top + drawing.height]);
  }

  private enterTangle(vertex: number, end: Point): Point[] {
    const element = this.tangleOf(vertex);
    const bends = element ? this.bendsOf(element, -1, vertex) : [];
    if (!element || bends.length < 2) return [end];
    const [left, top] = this.tanglePlaces.get(element) as Point;
    const [first, ...rest] = bends as [Bend, ...Bend[]];
    return this.follow(element, rest, [left + (first.x ?? 0), top], end);
  }

  private fromBeside(source: number, target: number): Point[] {
    const box = this.boxes[source] as LevelBox;
    const y = (this.y[source] as number) + box.height / 2;
    const host = this.boxes[target] as LevelBox;
    const middle = (this.y[target] as number) + host.height / 2;
    const start = (this.x[source] as number) + box.width;
    const end = this.x[target] as number;
    return [
      [start, y],
      [(start + end) / 2, y],
      [(start + end) / 2, middle],
      [end, middle],
    ];
  }

  /** Against the order of execution: around the right of everything. */
  private backwards(source: number, target: number): Point[] {
    const measured = this.measured.get(this.stack) as Measured;
    const x = measured.left + measured.right + LANE;
    const [a, b] = [this.boxes[source] as LevelBox, this.boxes[target] as LevelBox];
    const [ay, by] = [(this.y[source] as number) + a.height / 2, (this.y[target] as number) + b.height / 2];
    return [
      [(this.x[source] as number) + a.width, ay],
      [x, ay],
      [x, by],
      [(this.x[target] as number) + b.width, by],
    ];
  }

  private routeLanes(routes: Route[], done: Set<number>): LevelLayout["rails"] {
    const rails: LevelLayout["rails"] = [];
    for (const [stack, lanes] of this.lanes) {
      const ways = lanes.map((lane) => this.laneWay(lane, stack));
      for (const { lane, x, tap, arrivals } of ways) {
        for (const { wires, y, end } of arrivals) {
          for (const at of wires) {
            const wire = this.input.wires[at] as LevelWire;
            done.add(at);
            routes.push({
              wire: at,
              kind: "skip",
              bundled: lane.bundled,
              points: [
                ...this.toLane(lane.source, wire, tap),
                [x, tap],
                [x, y],
                ...this.offLane(end, wire, y),
              ],
            });
          }
        }
      }
      rails.push(...this.railsOf(ways.filter(({ lane }) => lane.bundled)));
    }
    return rails;
  }

  /** From the maker of the tensor (or the end of its thin branch) to the height where the lane begins. */
  private toLane(end: number, wire: LevelWire, tap: number): Point[] {
    const source = wire.source + 1;
    const start = this.out(source, wire);
    if (end === source) {
      const leaving = this.leaveTangle(source, start);
      return [...leaving, [(leaving[leaving.length - 1] as Point)[0], tap]];
    }
    const { stack, from, to } = meet(this.places[source] as Place[], this.places[end] as Place[]);
    const [x, y] = this.out(end);
    const points = this.between(source, end, start, [x, y], stack, from, to);
    const leaving = this.leaveTangle(end, [x, y]);
    return [...points, ...leaving, [(leaving[leaving.length - 1] as Point)[0], tap]];
  }

  private offLane(end: number, wire: LevelWire, y: number): Point[] {
    const target = wire.target + 1;
    const box = this.boxes[target] as LevelBox;
    if (end !== target) {
      const [x, top] = this.into(end);
      const arriving = this.enterTangle(end, [x, top]);
      const { stack, from, to } = meet(this.places[end] as Place[], this.places[target] as Place[]);
      const rest = this.between(end, target, [x, top], this.into(target, wire), stack, from, to);
      return [[(arriving[0] as Point)[0], y], ...arriving, ...rest];
    }
    if (
      Math.abs(y - ((this.y[target] as number) + box.height / 2)) < 0.5 &&
      y >= (this.y[target] as number) &&
      box.height > 0
    ) {
      return [[(this.x[target] as number) + box.width, y]];
    }
    const arriving = this.enterTangle(target, this.into(target, wire));
    return [[(arriving[0] as Point)[0], y], ...arriving];
  }

  private laneWay(lane: Lane, stack: Stack): LaneWay {
    const measured = this.measured.get(stack) as Measured;
    const [spine, top] = this.spines.get(stack) as Point;
    const x = spine + lane.x;
    const tap =
      top + (measured.tops[lane.from] as number) + (measured.heights[lane.from] as number) + FORK - 2;
    const arrivals = lane.targets.map(({ vertex, element, wires }) => {
      const here = stack.elements[element] as Element;
      const box = this.boxes[vertex] as LevelBox;
      const y = this.entersFromTop(vertex, here)
        ? top + (measured.tops[element] as number) - JOIN
        : (this.y[vertex] as number) + box.height / 2;
      return { end: vertex, wires, y };
    });
    return { lane, x, tap, arrivals };
  }

  /** What the lanes of a rail have in common is drawn once: the rail, each way onto it, each way off it. */
  private railsOf(ways: LaneWay[]): LevelLayout["rails"] {
    const rails: LevelLayout["rails"] = [];
    const byX = new Map<number, LaneWay[]>();
    for (const way of ways) byX.set(way.x, [...(byX.get(way.x) ?? []), way]);
    for (const [x, together] of byX) {
      for (const cluster of overlapping(
        together.map((way) => ({ ...way, from: way.lane.from, to: way.lane.to })),
      )) {
        const taps = cluster.map(({ tap }) => tap);
        const ends = new Map(
          cluster.flatMap(({ arrivals }) => arrivals).map((arrival) => [arrival.end, arrival]),
        );
        const last = Math.max(...[...ends.values()].map(({ y }) => y));
        rails.push({
          thick: true,
          points: [
            [x, Math.min(...taps)],
            [x, last],
          ],
        });
        for (const { lane, tap, arrivals } of cluster) {
          const wire = this.input.wires[arrivals[0]?.wires[0] ?? 0] as LevelWire;
          rails.push({
            thick: false,
            points: [...this.toLane(lane.source, wire, tap), [x, tap], [x, Math.min(tap + 12, last)]],
          });
        }
        for (const { end, wires, y } of ends.values()) {
          const wire = this.input.wires[wires[0] ?? 0] as LevelWire;
          rails.push({ thick: false, points: [[x, y - 12], [x, y], ...this.offLane(end, wire, y)] });
        }
      }
    }
    return rails;
  }
}

// -------------------------------------------------------------------------------------------------- small tools

function overlapping<T extends { from: number; to: number }>(spans: T[]): T[][] {
  const clusters: T[][] = [];
  let end = Number.NEGATIVE_INFINITY;
  for (const span of [...spans].sort((a, b) => a.from - b.from)) {
    if (span.from >= end) clusters.push([]);
    (clusters[clusters.length - 1] as T[]).push(span);
    end = Math.max(end, span.to);
  }
  return clusters;
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

/** Leaves out points that change nothing. */
function tidy(points: Point[]): Point[] {
  const out: Point[] = [];
  for (const point of points) {
    const [a, b] = [out[out.length - 2], out[out.length - 1]];
    if (b && Math.abs(b[0] - point[0]) < 0.5 && Math.abs(b[1] - point[1]) < 0.5) continue;
    if (a && b && straight(a, b, point)) out[out.length - 1] = point;
    else out.push(point);
  }
  return out;
}

function straight(a: Point, b: Point, c: Point): boolean {
  const upright =
    Math.abs(a[0] - b[0]) < 0.5 && Math.abs(b[0] - c[0]) < 0.5 && (b[1] - a[1]) * (c[1] - b[1]) >= 0;
  const level =
    Math.abs(a[1] - b[1]) < 0.5 && Math.abs(b[1] - c[1]) < 0.5 && (b[0] - a[0]) * (c[0] - b[0]) >= 0;
  return upright || level;
}

function round(value: number): number {
  return Math.round(value * 2) / 2;
}
