// A part of a level that is laid out by itself and then moved: turned upside down, shifted, stretched row by row.

import type { Point } from "./layered";
import type { LevelInput, LevelLayout, LevelWire, Margin, Route } from "./level";

export type Plain = (input: LevelInput) => LevelLayout;
export type Placed = LevelLayout["boxes"][number];

/** Under an open group, where a skip leaves or reaches it. */
export const UNDER = 10;

/** One part, with its vertices and wires by the numbers that they have on the whole level. */
export interface Part {
  width: number;
  height: number;
  boxes: Map<number, Placed>;
  /** With the vertices at their ends. */
  routes: (Route & { ends: number[] })[];
  rails: LevelLayout["rails"];
  ports: Map<number, Point[]>;
}

export function partOf(input: LevelInput, vertices: readonly number[], plain: Plain): Part {
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
    routes: laid.routes.map((route) => {
      const wire = inside[route.wire] as number;
      const { source, target } = input.wires[wire] as LevelWire;
      return { ...route, wire, ends: [source, target] };
    }),
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

export function move(part: Part, dx: number, dy: number): void {
  for (const box of part.boxes.values()) {
    box.x += dx;
    box.y += dy;
  }
  each(part, ([x, y]) => [x + dx, y + dy]);
}

export function upsideDown(part: Part): Part {
  for (const box of part.boxes.values()) box.y = part.height - box.y - box.height;
  each(part, ([x, y]) => [x, part.height - y]);
  return part;
}

export function bottomOf(part: Part): number {
  return Math.max(...[...part.boxes.values()].map((box) => box.y + box.height));
}

/** Where a skip runs past what it leaves or reaches: at the middle of a card, under an open group. */
export function heightOf(box: Placed): number {
  return box.kind === "open" ? box.y + box.height + UNDER : box.y + box.height / 2;
}

/** Moves the rows of a group, and those below it, so far down that its frame has room. */
export function makeRoom(part: Part, members: readonly number[], margin: Margin): void {
  const inside = members.flatMap((vertex) => part.boxes.get(vertex) ?? []);
  if (inside.length === 0) return;
  const [top, bottom] = [
    Math.min(...inside.map((box) => box.y)),
    Math.max(...inside.map((box) => box.y + box.height)),
  ];
  const rows = rowsOf(part);
  for (const row of rows)
    row.shift = row.top >= bottom ? margin.top + margin.bottom : row.top >= top - 0.5 ? margin.top : 0;
  stretch(part, rows);
}

interface Row {
  top: number;
  bottom: number;
  shift: number;
}

/** Stretches both arms, from the top down, until the two ends of every skip are at one height. */
export function levelOut(left: Part, right: Part, skips: readonly LevelWire[]): void {
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
