// A level that goes down in resolution and comes up again, with a skip at each: drawn as the letter that such networks
// are named after. The encoder descends on the left, the decoder rises on the right, what is between them lies at the
// bottom, and each skip runs straight across from a resolution to the same one.
//
// The three parts are levels of their own, laid out as any other; the right one is turned upside down, and both arms
// are stretched until what belongs together stands side by side.

import type { Point } from "./layered";
import type { LevelBox, LevelInput, LevelLayout, LevelWire, Route } from "./level";
import type { Element } from "./series";
import type { Lane, Structure } from "./structure";

/** The vertices of each part, and the wires that run across, the outermost first. */
export interface UShape {
  down: number[];
  bottom: number[];
  up: number[];
  skips: number[][];
}

const ACROSS = 76;
const BELOW = 26;
const BELOW_OPEN = 34;
const UNDER = 10;
const OVER = 16;
const ASIDE = 20;
const LANE = 14;
const BROAD = 420;
/** So much more may come after the decoder than came before the encoder. */
const TAIL_MAX = 6;

// ---------------------------------------------------------------------------------------------------- reading it

export function readU(level: Structure): UShape | null {
  const { elements } = level.stack;
  const nested = nestedLanes(level.lanes.get(level.stack) ?? []);
  const [outer, inner] = [nested[0], nested[nested.length - 1]];
  if (!outer || !inner || !changesSize(nested, level)) return null;
  const ends = nested.flatMap((lane) => [lane.from, lane.to]);
  if (!ends.every((at) => elements[at]?.kind === "vertex")) return null;
  if (elements.length - outer.to > outer.from + TAIL_MAX) return null;

  // What makes smaller ends the left arm, what makes larger begins the right one.
  let [first, last] = [inner.from + 1, inner.to - 1];
  while (first < last && resizes(elements, first, level)) first++;
  while (first < last && resizes(elements, last, level)) last--;
  const bounds = [elements[first - 1], elements[first], elements[last], elements[last + 1]];
  if (first > last || !bounds.every((element) => element?.kind === "vertex")) return null;

  const part = (some: Element[]) =>
    some
      .flatMap(verticesOf)
      .filter((vertex) => level.drawn(vertex))
      .flatMap((vertex) => [...(level.satellites.get(vertex) ?? []), vertex])
      .map((vertex) => vertex - 1)
      .sort((a, b) => a - b);
  const shape = {
    down: part(elements.slice(0, first)),
    bottom: part(elements.slice(first, last + 1)),
    up: part(elements.slice(last + 1)),
    skips: nested.map((lane) => lane.targets[0]?.wires ?? []),
  };
  return holdsTogether(shape, level, bounds as Vertex[]) ? shape : null;
}

type Vertex = Element & { kind: "vertex" };

/** The lanes that run past the middle, if each lies within the one before it. */
function nestedLanes(lanes: readonly Lane[]): Lane[] {
  const past = (at: number) => lanes.filter((lane) => lane.from < at && lane.to > at);
  let most: Lane[] = [];
  for (const { from } of lanes) {
    const here = past(from + 1);
    if (here.length > most.length) most = here;
  }
  const sorted = [...most].sort((a, b) => a.from - b.from);
  const within = sorted.every(({ from, to, targets }, at) => {
    const outside = sorted[at - 1];
    return targets.length === 1 && (!outside || (from > outside.from && to < outside.to));
  });
  return within && sorted.length > 1 ? sorted : [];
}

/** Skips of one size, one within the other, are residuals; those of a U become smaller inwards. */
function changesSize(nested: readonly Lane[], level: Structure): boolean {
  const sizes = nested.map((lane) => level.input.wires[lane.targets[0]?.wires[0] ?? -1]?.size ?? "");
  const runs = sizes.filter((size, at) => size !== sizes[at - 1]);
  return runs.length > 1 && new Set(runs).size === runs.length;
}

/** Whether what comes out of an element has another size than what went in. */
function resizes(elements: readonly Element[], at: number, level: Structure): boolean {
  const [before, here, after] = [elements[at - 1], elements[at], elements[at + 1]];
  if (before?.kind !== "vertex" || here?.kind !== "vertex" || after?.kind !== "vertex") return false;
  const size = (from: Vertex, to: Vertex) =>
    level.input.wires.find((wire) => wire.source === from.vertex - 1 && wire.target === to.vertex - 1)?.size;
  return size(before, here) !== size(here, after);
}

function verticesOf(element: Element): number[] {
  if (element.kind === "vertex") return [element.vertex];
  if (element.kind === "tangle") return element.vertices;
  return element.branches.flatMap((branch) => branch.elements.flatMap(verticesOf));
}

/** Nothing goes from part to part but the skips and what leads around the bottom; ports are at the ends. */
function holdsTogether({ down, bottom, up, skips }: UShape, level: Structure, bounds: Vertex[]): boolean {
  const part = new Map<number, number>();
  for (const [at, vertices] of [down, bottom, up].entries())
    for (const vertex of vertices) part.set(vertex, at);
  const across = new Set(skips.flat());
  const around = new Set(bounds.map((element) => element.vertex - 1));
  const { wires, beside, count } = level.input;
  const hosts = new Set(beside.values());
  const fed = new Set(wires.map((wire) => wire.target));
  for (let vertex = 0; vertex < count; vertex++) {
    if (level.boxes[vertex + 1]?.kind === "port" && part.get(vertex) !== (fed.has(vertex) ? 2 : 0))
      return false;
  }
  return wires.every(({ source, target }, at) => {
    if (across.has(at)) return !hosts.has(target);
    const [from, to] = [part.get(source), part.get(target)];
    if (from === undefined || to === undefined) return false;
    return from === to || (to === from + 1 && around.has(source) && around.has(target));
  });
}

// ---------------------------------------------------------------------------------------------------- drawing it

type Plain = (input: LevelInput) => LevelLayout;
type Placed = LevelLayout["boxes"][number];

/** One part, with its vertices and wires by the numbers that they have on the whole level. */
interface Part {
  width: number;
  height: number;
  boxes: Map<number, Placed>;
  routes: Route[];
  rails: LevelLayout["rails"];
  ports: Map<number, Point[]>;
}

export function layoutU(input: LevelInput, shape: UShape, plain: Plain): LevelLayout {
  const left = partOf(input, shape.down, plain);
  const right = upsideDown(partOf(input, shape.up, plain));
  const middle = partOf(input, shape.bottom, plain);
  const skips = shape.skips.map((wires) => input.wires[wires[0] as number] as LevelWire);
  levelOut(left, right, skips);

  const [a, b, c, d] = boundsOf(shape, input.wires);
  const box = (part: Part, vertex: number) => part.boxes.get(vertex) as Placed;
  const [from, into, out, to] = [box(left, a), box(middle, b), box(middle, c), box(right, d)];
  // Closed cards at the bottom are met from their sides, and need room there.
  const sides = into.kind !== "open" && out.kind !== "open" && middle.width <= BROAD;
  const spine = from.x + from.outX;
  const room = sides ? middle.width + 2 * ASIDE - (left.width - spine) - (to.x + to.inX) : 0;
  move(right, left.width + Math.max(ACROSS, room), 0);
  const far = to.x + to.inX;
  const centred = (spine + far - middle.width) / 2;
  // The way up runs beside what is broad, which makes room for it as far as it can.
  const x = sides ? centred : Math.max(0, Math.min(centred, far - LANE - middle.width));
  move(middle, x, Math.max(bottomOf(left), bottomOf(right)) + (sides ? BELOW : BELOW_OPEN));
  const lane = x + middle.width + LANE;

  const routes = [left, middle, right].flatMap((part) => part.routes);
  input.wires.forEach((wire, at) => {
    const draw = (points: Point[]) => routes.push({ wire: at, points, kind: "flow", bundled: false });
    if (wire.source === a && wire.target === b) draw(intoBottom(from, into, wire, sides));
    else if (wire.source === c && wire.target === d) draw(outOfBottom(out, to, wire, sides, lane, into.y));
  });
  for (const at of shape.skips.flat()) {
    const wire = input.wires[at] as LevelWire;
    const points = [...leave(box(left, wire.source), wire), ...arrive(box(right, wire.target), wire)];
    routes.push({ wire: at, points, kind: "skip", bundled: false });
  }
  return assemble(input, shape, { left, middle, right, routes });
}

function intoBottom(from: Placed, into: Placed, wire: LevelWire, sides: boolean): Point[] {
  const start: Point = [from.x + (wire.outX ?? from.outX), from.y + from.height];
  const middle = into.y + into.height / 2;
  if (sides) return [start, [start[0], middle], [into.x, middle]];
  const x = into.x + (wire.inX ?? into.inX);
  return [start, [start[0], into.y - OVER], [x, into.y - OVER], [x, into.y]];
}

/** `lane` is a column on the right of all that is at the bottom, and `top` where that begins. */
function outOfBottom(
  out: Placed,
  to: Placed,
  wire: LevelWire,
  sides: boolean,
  lane: number,
  top: number,
): Point[] {
  const end: Point = [to.x + (wire.inX ?? to.inX), to.y + to.height];
  const middle = out.y + out.height / 2;
  if (sides) return [[out.x + out.width, middle], [end[0], middle], end];
  const [x, y] = [out.x + (wire.outX ?? out.outX), out.y + out.height];
  const beside = Math.max(end[0], lane);
  const up: Point[] = [
    [beside, y + UNDER],
    [beside, top - OVER],
    [end[0], top - OVER],
  ];
  return [[x, y], [x, y + UNDER], ...up, end];
}

function boundsOf({ down, bottom, up, skips }: UShape, wires: readonly LevelWire[]) {
  const [first, second, third] = [down, bottom, up].map((part) => new Set(part)) as [
    Set<number>,
    Set<number>,
    Set<number>,
  ];
  const across = new Set(skips.flat());
  const between = (from: Set<number>, to: Set<number>) =>
    wires.find((wire, at) => !across.has(at) && from.has(wire.source) && to.has(wire.target)) as LevelWire;
  const [enter, leave] = [between(first, second), between(second, third)];
  return [enter.source, enter.target, leave.source, leave.target] as const;
}

function partOf(input: LevelInput, vertices: readonly number[], plain: Plain): Part {
  const own = new Map(vertices.map((vertex, at) => [vertex, at]));
  const inside = [...input.wires.keys()].filter((at) => {
    const { source, target } = input.wires[at] as LevelWire;
    return own.has(source) && own.has(target);
  });
  const named = (at: number) => vertices[at] as number;
  const laid = plain({
    count: vertices.length,
    box: (at, narrow) => input.box(named(at), narrow),
    weight: (at) => input.weight(named(at)),
    wires: inside.map((at) => {
      const wire = input.wires[at] as LevelWire;
      return { ...wire, source: own.get(wire.source) as number, target: own.get(wire.target) as number };
    }),
    beside: new Map(
      [...input.beside]
        .filter(([guest]) => own.has(guest))
        .map(([guest, host]) => [own.get(guest) as number, own.get(host) as number]),
    ),
  });
  return {
    width: laid.width,
    height: laid.height,
    boxes: new Map(laid.boxes.map((box, at) => [named(at), { ...box }])),
    routes: laid.routes.map((route) => ({ ...route, wire: inside[route.wire] as number })),
    rails: laid.rails,
    ports: new Map([...laid.ports].map(([at, way]) => [named(at), way])),
  };
}

function moved(points: readonly Point[], to: (point: Point) => Point): Point[] {
  return points.map(to);
}

/** All points of a part somewhere else; boxes are moved by themselves. */
function each(part: Part, to: (point: Point) => Point): void {
  for (const route of part.routes) route.points = moved(route.points, to);
  part.rails = part.rails.map((rail) => ({ ...rail, points: moved(rail.points, to) }));
  part.ports = new Map([...part.ports].map(([at, way]) => [at, moved(way, to)]));
}

function move(part: Part, dx: number, dy: number): void {
  for (const box of part.boxes.values()) {
    box.x += dx;
    box.y += dy;
  }
  each(part, ([x, y]) => [x + dx, y + dy]);
}

function upsideDown(part: Part): Part {
  for (const box of part.boxes.values()) box.y = part.height - box.y - box.height;
  each(part, ([x, y]) => [x, part.height - y]);
  return part;
}

function bottomOf(part: Part): number {
  return Math.max(...[...part.boxes.values()].map((box) => box.y + box.height));
}

/** Where a skip runs past what it leaves or reaches: at the middle of a card, under an open group. */
function heightOf(box: Placed): number {
  return box.kind === "open" ? box.y + box.height + UNDER : box.y + box.height / 2;
}

function leave(box: Placed, wire: LevelWire): Point[] {
  const y = heightOf(box);
  if (box.kind !== "open") return [[box.x + box.width, y]];
  const x = box.x + (wire.outX ?? box.outX);
  return [
    [x, y - UNDER],
    [x, y],
  ];
}

function arrive(box: Placed, wire: LevelWire): Point[] {
  const y = heightOf(box);
  if (box.kind !== "open") return [[box.x, y]];
  const x = box.x + (wire.inX ?? box.inX);
  return [
    [x, y],
    [x, y - UNDER],
  ];
}

// ------------------------------------------------------------------------------------------------- side by side

interface Row {
  top: number;
  bottom: number;
  shift: number;
}

/** Stretches both arms, from the top down, until the two ends of every skip are at one height. */
function levelOut(left: Part, right: Part, skips: readonly LevelWire[]): void {
  const arms = [left, right].map((part) => ({ part, rows: rowsOf(part), past: 0, shift: 0 })) as [Arm, Arm];
  for (const { source, target } of skips) {
    const boxes = [left.boxes.get(source), right.boxes.get(target)] as [Placed, Placed];
    const heights = boxes.map((box, at) => heightOf(box) + (arms[at] as Arm).shift);
    const common = Math.max(...heights);
    arms.forEach((arm, at) => {
      spread(arm, boxes[at] as Placed, common - (heights[at] as number));
    });
  }
  for (const { part, rows, past, shift } of arms) {
    for (const row of rows.slice(past)) row.shift = shift;
    stretch(part, rows);
  }
}

interface Arm {
  part: Part;
  rows: Row[];
  /** Rows that have their place, and how far the last of them was shifted. */
  past: number;
  shift: number;
}

/** The rows down to a box move by ever more; those above the first skip all by the same. */
function spread(arm: Arm, box: Placed, more: number): void {
  const end = arm.rows.findIndex((row) => box.y >= row.top - 0.5 && box.y + box.height <= row.bottom + 0.5);
  const count = end + 1 - arm.past;
  for (let at = arm.past; at <= end; at++) {
    const share = arm.past === 0 ? 1 : (at + 1 - arm.past) / count;
    (arm.rows[at] as Row).shift = arm.shift + share * more;
  }
  arm.past = end + 1;
  arm.shift += more;
}

function rowsOf(part: Part): Row[] {
  const spans = [...part.boxes.values()].map(({ y, height }) => ({ top: y, bottom: y + height, shift: 0 }));
  const rows: Row[] = [];
  for (const span of spans.sort((a, b) => a.top - b.top)) {
    const row = rows[rows.length - 1];
    if (row && span.top < row.bottom) row.bottom = Math.max(row.bottom, span.bottom);
    else rows.push(span);
  }
  return rows;
}

function stretch(part: Part, rows: readonly Row[]): void {
  const to = (y: number): number => {
    const at = rows.findIndex((row) => y <= row.bottom);
    const [above, row] = [rows[at - 1], rows[at]];
    if (!row) return y + (rows[rows.length - 1]?.shift ?? 0);
    if (!above || y >= row.top) return y + row.shift;
    const share = (y - above.bottom) / (row.top - above.bottom);
    return y + above.shift + share * (row.shift - above.shift);
  };
  for (const box of part.boxes.values()) {
    const at = to(box.y + box.height / 2) - box.height / 2;
    box.y = at;
  }
  each(part, ([x, y]) => [x, to(y)]);
}

// ------------------------------------------------------------------------------------------------- as one level

function assemble(
  input: LevelInput,
  shape: UShape,
  { left, middle, right, routes }: { left: Part; middle: Part; right: Part; routes: Route[] },
): LevelLayout {
  const parts = [left, middle, right];
  const boxes = Array.from({ length: input.count }, (_, at) => {
    const box = parts.map((part) => part.boxes.get(at)).find(Boolean);
    return box ?? { ...(input.box(at, false) as LevelBox), x: 0, y: 0 };
  });
  const rails = parts.flatMap((part) => part.rails);
  let width = 0;
  let height = 0;
  for (const box of boxes) {
    width = Math.max(width, box.x + box.width);
    height = Math.max(height, box.y + box.height);
  }
  for (const [x, y] of [...routes, ...rails].flatMap((route) => route.points)) {
    width = Math.max(width, x);
    height = Math.max(height, y);
  }
  const ports = new Map<number, Point[]>();
  for (const [at, way] of left.ports) ports.set(at, [[(way[0] as Point)[0], 0], ...way]);
  // An exit is at the top of the decoder, and goes around it to where a group is left.
  for (const [at, way] of right.ports) {
    const [x] = way[way.length - 1] as Point;
    const y = Math.max(2, (way[way.length - 1] as Point)[1]);
    width += LANE;
    ports.set(at, [...way.slice(0, -1), [x, y], [width, y], [width, height]]);
  }
  return {
    width: Math.ceil(width),
    height: Math.ceil(height),
    boxes,
    routes,
    rails,
    ports,
    rising: new Set(shape.up),
  };
}
