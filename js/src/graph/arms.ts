// A U as it is drawn: the encoder descends on the left, the decoder rises on the right, what is between them lies at
// the bottom, and each skip runs straight across.
//
// The parts are levels of their own, laid out as any other; the right one is turned upside down, and both arms are
// stretched until what belongs together stands side by side.

import type { Point } from "./layered";
import type { Frame, LevelBox, LevelInput, LevelLayout, LevelWire, Margin, Route } from "./level";
import {
  bottomOf,
  heightOf,
  levelOut,
  makeRoom,
  move,
  type Part,
  type Placed,
  type Plain,
  partOf,
  UNDER,
  upsideDown,
} from "./parts";
import type { UShape } from "./ushape";

const ACROSS = 76;
const BELOW = 26;
const BELOW_OPEN = 34;
const OVER = 16;
const ASIDE = 20;
const LANE = 14;
const BROAD = 420;

export function layoutU(
  input: LevelInput,
  shape: UShape,
  plain: Plain,
  { frames, margin }: Framing = { frames: [], margin: { left: 0, right: 0, top: 0, bottom: 0 } },
): LevelLayout {
  const left = partOf(input, shape.down, plain);
  const right = upsideDown(partOf(input, shape.up, plain));
  const skips = shape.skips.map((wires) => input.wires[wires[0] as number] as LevelWire);
  for (const members of frames) for (const part of [left, right]) makeRoom(part, members, margin);
  levelOut(left, right, skips);
  move(left, margin.left, 0);

  const { middle, routes } =
    shape.bottom.length > 0
      ? overBottom(input, shape, left, right, partOf(input, shape.bottom, plain), margin)
      : underBoth(input, shape, left, right, margin);
  for (const at of shape.skips.flat()) {
    const wire = input.wires[at] as LevelWire;
    const [from, to] = [left.boxes.get(wire.source), right.boxes.get(wire.target)] as [Placed, Placed];
    routes.push({
      wire: at,
      points: [...leave(from, wire), ...arrive(to, wire)],
      kind: "skip",
      bundled: false,
    });
  }
  const drawn = frames.map((members) => frameAround(members, [left, right], margin));
  return assemble(input, shape, { left, middle, right, routes, frames: drawn });
}

/** Sets the right arm aside, and what is at the bottom between the two; returns that and the ways around it. */
function overBottom(
  input: LevelInput,
  shape: UShape,
  left: Part,
  right: Part,
  middle: Part,
  margin: Margin,
): { middle: Part; routes: Route[] } {
  const [a, b, c, d] = boundsOf(shape, input.wires);
  const box = (part: Part, vertex: number) => part.boxes.get(vertex) as Placed;
  const [from, into, out, to] = [box(left, a), box(middle, b), box(middle, c), box(right, d)];
  // Closed cards at the bottom are met from their sides, and need room there.
  const sides = into.kind !== "open" && out.kind !== "open" && middle.width <= BROAD;
  const [spine, edge] = [from.x + from.outX, margin.left + left.width + margin.right];
  const room = sides ? middle.width + 2 * ASIDE - (edge - spine) - (to.x + to.inX) : 0;
  move(right, edge + Math.max(ACROSS + margin.left, room), 0);
  const far = to.x + to.inX;
  const centred = (spine + far - middle.width) / 2;
  // The way up runs beside what is broad, which makes room for it as far as it can.
  const x = sides ? centred : Math.max(0, Math.min(centred, far - LANE - middle.width));
  const under = Math.max(bottomOf(left), bottomOf(right)) + margin.bottom;
  move(middle, x, under + (sides ? BELOW : BELOW_OPEN));
  const lane = x + middle.width + LANE;

  const routes: Route[] = [];
  input.wires.forEach((wire, at) => {
    const draw = (points: Point[]) => routes.push({ wire: at, points, kind: "flow", bundled: false });
    if (wire.source === a && wire.target === b) draw(intoBottom(from, into, wire, sides));
    else if (wire.source === c && wire.target === d) draw(outOfBottom(out, to, wire, sides, lane, into.y));
  });
  return { middle, routes };
}

/** Nothing at the bottom: from under the left arm to under the right one. */
function underBoth(input: LevelInput, shape: UShape, left: Part, right: Part, margin: Margin) {
  move(right, margin.left + left.width + margin.right + ACROSS + margin.left, 0);
  const middle: Part = { width: 0, height: 0, boxes: new Map(), routes: [], rails: [], ports: new Map() };
  const [a, d] = boundsOf(shape, input.wires);
  const [from, to] = [left.boxes.get(a), right.boxes.get(d)] as [Placed, Placed];
  const y = Math.max(bottomOf(left), bottomOf(right)) + margin.bottom + BELOW;
  const routes: Route[] = [];
  input.wires.forEach((wire, at) => {
    if (wire.source !== a || wire.target !== d) return;
    const [start, end] = [from.x + (wire.outX ?? from.outX), to.x + (wire.inX ?? to.inX)];
    const points: Point[] = [
      [start, from.y + from.height],
      [start, y],
      [end, y],
      [end, to.y + to.height],
    ];
    routes.push({ wire: at, points, kind: "flow", bundled: false });
  });
  return { middle, routes };
}

interface Framing {
  frames: number[][];
  margin: Margin;
}

function frameAround(members: readonly number[], parts: Part[], margin: Margin): Frame {
  const own = new Set(members);
  const part = parts.find(({ boxes }) => members.some((vertex) => boxes.has(vertex))) as Part;
  const inside = members.flatMap((vertex) => part.boxes.get(vertex) ?? []);
  const [x, y] = [Math.min(...inside.map((box) => box.x)), Math.min(...inside.map((box) => box.y))];
  let far = Math.max(...inside.map((box) => box.x + box.width));
  const low = Math.max(...inside.map((box) => box.y + box.height));
  for (const { points, ends } of part.routes)
    if (ends.every((end) => own.has(end))) far = Math.max(far, ...points.map(([px]) => px));
  return {
    x: x - margin.left,
    y: y - margin.top,
    width: far - x + margin.left + margin.right,
    height: low - y + margin.top + margin.bottom,
  };
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
  if (bottom.length === 0) {
    const { source, target } = between(first, third);
    return [source, target, source, target] as const;
  }
  const [enter, leave] = [between(first, second), between(second, third)];
  return [enter.source, enter.target, leave.source, leave.target] as const;
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

interface Assembly {
  left: Part;
  middle: Part;
  right: Part;
  /** Between the parts. */
  routes: Route[];
  frames: Frame[];
}

function assemble(
  input: LevelInput,
  shape: UShape,
  { left, middle, right, routes: around, frames }: Assembly,
): LevelLayout {
  const parts = [left, middle, right];
  const routes = [...parts.flatMap((part): Route[] => part.routes), ...around];
  const boxes = Array.from({ length: input.count }, (_, at) => {
    const box = parts.map((part) => part.boxes.get(at)).find(Boolean);
    return box ?? { ...(input.box(at, false) as LevelBox), x: 0, y: 0 };
  });
  const rails = parts.flatMap((part) => part.rails);
  let width = 0;
  let height = 0;
  for (const box of [...boxes, ...frames]) {
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
    frames,
  };
}
