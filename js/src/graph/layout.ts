// The whole drawing: levels inside levels. Each open group is laid out by itself and becomes a box of its parent's
// level; a level is laid out again only when something inside it opened or closed. Then everything is put into
// one coordinate system, and every edge of the graph knows the segments that draw it, one on each level it passes.
//
// A drawing from left to right is one from top to bottom of cards that lie on their sides, turned at the very end.

import type { Shape } from "../state/synced";
import { closedBox, HEADER, OPEN_MIN_WIDTH, PAD_BOTTOM, PAD_X } from "./cards";
import { type Hierarchy, type Item, isOpen, type Level, type Open } from "./hierarchy";
import type { Point } from "./layered";
import { type LevelBox, type LevelLayout, type LevelWire, layoutLevel } from "./level";
import { formOf, hintOf, nameOf, timesWords } from "./words";

/** Where the network runs to. */
export type Direction = "down" | "right";

export interface DrawnBox {
  item: Item;
  x: number;
  y: number;
  width: number;
  height: number;
  /** Where the main edge comes in: how far from the left side, or from the top if the drawing runs to the right. */
  spine: number;
  open: boolean;
  /** Slender cards stack what wide ones set side by side. */
  narrow: boolean;
}

export interface Segment {
  key: string;
  points: Point[];
  kind: "flow" | "skip" | "port";
  /** Hidden in a rail until it is lit. */
  bundled: boolean;
  /** The drawn item at which it begins; null for an entry of the group. */
  from: Item | null;
  /** Ends at a card: draws an arrow. */
  arrow: boolean;
  /** Indices of the edges of the graph that it draws. */
  raw: number[];
}

export interface Drawing {
  direction: Direction;
  width: number;
  height: number;
  boxes: DrawnBox[];
  byId: ReadonlyMap<string, DrawnBox>;
  segments: Segment[];
  rails: { key: string; points: Point[]; thick: boolean }[];
}

type Parts = Pick<Drawing, "boxes" | "segments" | "rails">;

interface GroupLayout {
  key: string;
  width: number;
  height: number;
  level: LevelLayout;
  /** Where what the level draws begins inside the group's box. */
  offset: Point;
  inner: (GroupLayout | null)[];
  narrow: boolean[];
}

export class Layouter {
  private readonly known = new Map<Item, GroupLayout>();

  constructor(
    readonly hierarchy: Hierarchy,
    readonly direction: Direction = "down",
  ) {}

  /** All of it, or one open group alone, in its frame. */
  draw(open: Open, alone: Item = this.hierarchy.root): Drawing {
    const layout = this.group(alone, open);
    const { width, height } = layout;
    const parts: Parts = { boxes: [], segments: [], rails: [] };
    if (alone.parent) {
      const { inX } = openBox(alone, layout);
      parts.boxes.push({ item: alone, x: 0, y: 0, width, height, spine: inX, open: true, narrow: false });
    }
    this.flatten(alone, layout, [0, 0], parts, false);
    const right = this.direction === "right";
    const { boxes, segments, rails } = right ? turned(parts) : parts;
    return {
      direction: this.direction,
      width: right ? height : width,
      height: right ? width : height,
      boxes,
      segments,
      rails,
      byId: new Map(boxes.map((box) => [box.item.id, box])),
    };
  }

  private group(item: Item, open: Open): GroupLayout {
    const key = openInside(item, open);
    const known = this.known.get(item);
    if (known?.key === key) return known;
    const inner = item.children.map((child) => (isOpen(child, open) ? this.group(child, open) : null));
    const fresh = this.lay(item, key, inner);
    this.known.set(item, fresh);
    return fresh;
  }

  private lay(item: Item, key: string, inner: (GroupLayout | null)[]): GroupLayout {
    const { children, level } = item;
    const right = this.direction === "right";
    const entries = level.entries.length;
    const narrow = children.map(() => false);
    // The level counts its entries first, then the children, then its exits.
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
    const wires = level.edges.map((edge): LevelWire => {
      const [from, to] = [inner[edge.source], inner[edge.target]];
      return {
        source: vertex(edge.source),
        target: vertex(edge.target),
        outX: from ? portX(children[edge.source] as Item, from, "exits", edge.producer) : undefined,
        inX: to ? portX(children[edge.target] as Item, to, "entries", edge.producer) : undefined,
        size: sizeOf(this.hierarchy.edges[edge.raw[0] ?? -1]?.shape),
      };
    });
    const laid = layoutLevel({
      count: children.length + entries + level.exits.length,
      box,
      weight: (at) => weightOf(children[at - entries]),
      wires,
      beside: besides(children, level, entries, inner),
    });
    if (item.parent) straighten(laid, entries, entries + children.length, level.exits.length);
    const { left, ends, top, bottom, least } = this.frame(item, laid);
    const width = Math.max(least, laid.width + ends);
    return {
      key,
      width,
      height: top + laid.height + bottom,
      level: laid,
      offset: [left ?? (width - laid.width) / 2, top],
      inner,
      narrow,
    };
  }

  /** What an open group keeps free around what it holds: its header is above it, however the network runs. */
  private frame(item: Item, laid: LevelLayout) {
    const { entries, exits } = item.level;
    if (!item.parent) return { ends: 0, top: 0, bottom: 0, least: 0 };
    if (this.direction === "down") {
      const top = HEADER + (entries.length > 0 ? 0 : 10);
      const bottom = PAD_BOTTOM + (exits.length > 0 ? 0 : 10);
      return { ends: 2 * PAD_X, top, bottom, least: OPEN_MIN_WIDTH };
    }
    const spare = Math.max(0, OPEN_MIN_WIDTH - laid.height) / 2;
    const top = Math.max(spare, entries.length > 0 ? 4 : PAD_X);
    const bottom = Math.max(spare, exits.length > 0 ? 4 : PAD_X);
    return { left: HEADER, ends: HEADER + PAD_X, top, bottom, least: 0 };
  }

  /** What runs upwards is laid out as what runs down, and turned upside down here; headers stay on top. */
  private flatten(item: Item, layout: GroupLayout, [x, y]: Point, out: Parts, rising: boolean): void {
    const { level, inner } = layout;
    const { children } = item;
    const entries = item.level.entries.length;
    const [left, top] = [x + layout.offset[0], y + layout.offset[1]];
    const down = (py: number) => top + (rising ? level.height - py : py);
    const shift = (points: readonly Point[]): Point[] => points.map(([px, py]) => [px + left, down(py)]);

    children.forEach((child, at) => {
      const box = level.boxes[at + entries] as LevelLayout["boxes"][number];
      const place: Point = [left + box.x, down(box.y) - (rising ? box.height : 0)];
      const within = inner[at];
      const { width, height } = box;
      const narrow = layout.narrow[at] ?? false;
      const spine = place[0] + box.inX;
      out.boxes.push({
        item: child,
        x: place[0],
        y: place[1],
        width,
        height,
        spine,
        open: Boolean(within),
        narrow,
      });
      if (within) this.flatten(child, within, place, out, rising !== level.rising.has(at + entries));
    });

    const drawn = new Map<string, Segment>();
    for (const route of level.routes) {
      const edge = item.level.edges[route.wire] as Level["edges"][number];
      const points = shift(route.points);
      // Several tensors on one way are one line.
      const same = points.join(";");
      const known = drawn.get(same);
      if (known) {
        known.raw.push(...edge.raw);
        continue;
      }
      const target = children[edge.target];
      const segment: Segment = {
        key: `${item.id}|${edge.source}>${edge.target}>${edge.producer}`,
        points,
        kind: route.kind,
        bundled: route.bundled,
        from: children[edge.source] ?? null,
        arrow: target !== undefined && !inner[edge.target],
        raw: [...edge.raw],
      };
      drawn.set(same, segment);
      out.segments.push(segment);
    }
    level.rails.forEach((rail, at) => {
      out.rails.push({ key: `${item.id}|rail${at}`, points: shift(rail.points), thick: rail.thick });
    });
    this.ports(item, layout, shift, [x, y], out, rising);
  }

  /** The short ways from the frame of an open group to its entries, and from its exits to the frame. */
  private ports(
    item: Item,
    { level, width, height }: GroupLayout,
    shift: (points: readonly Point[]) => Point[],
    [left, y]: Point,
    out: Parts,
    rising: boolean,
  ): void {
    if (!item.parent) return;
    const count = item.children.length;
    const entries = item.level.entries.length;
    for (const [at, way] of level.ports) {
      const entry = at < entries;
      const end = entry ? count + at : at;
      const raw = item.level.edges.flatMap((edge) =>
        (entry ? edge.source : edge.target) === end ? edge.raw : [],
      );
      const points = shift(way);
      const [x] = points[entry ? 0 : points.length - 1] as Point;
      const low = entry === rising;
      // Up through the header only where that says nothing.
      const free = x > left + titleWidth(item) && x < left + width - TOGGLE;
      if (low || this.direction === "right" || free) {
        const end: Point = [x, low ? y + height : y];
        if (entry) points.unshift(end);
        else points.push(end);
      }
      const first = points[0] as Point;
      const flat = points.every(([px, py]) => px === first[0] && py === first[1]);
      if (!flat)
        out.segments.push({
          key: `${item.id}|port${at}`,
          points,
          kind: "port",
          bundled: false,
          from: null,
          arrow: false,
          raw,
        });
    }
  }
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

function turned({ boxes, segments, rails }: Parts): Parts {
  const turn = (points: readonly Point[]): Point[] => points.map(([x, y]) => [y, x]);
  return {
    boxes: boxes.map((box) => ({ ...box, x: box.y, y: box.x, width: box.height, height: box.width })),
    segments: segments.map((segment) => ({ ...segment, points: turn(segment.points) })),
    rails: rails.map((rail) => ({ ...rail, points: turn(rail.points) })),
  };
}

/**
 * A group with one way in and one way out keeps them in one column, so that it stands straight in the chain that
 * it is part of; inside, the edge goes over to where it is needed.
 */
function straighten(laid: LevelLayout, entries: number, exit: number, exits: number): void {
  const [inner, outer] = [laid.ports.get(0), laid.ports.get(exit)];
  if (entries !== 1 || exits !== 1 || !inner || !outer) return;
  const from = (inner[0] as Point)[0];
  const to = (outer[outer.length - 1] as Point)[0];
  if (Math.abs(from - to) < 1) return;
  if (laid.rising.size > 0) {
    // A U is left under where it was entered.
    const y = laid.height + SHIFT / 2;
    laid.ports.set(exit, [...outer.slice(0, -1), [to, y], [from, y], [from, y + SHIFT / 2]]);
    laid.height += SHIFT;
    return;
  }
  laid.height += SHIFT;
  for (const box of laid.boxes) box.y += SHIFT;
  const lower = (points: readonly Point[]): Point[] => points.map(([x, y]) => [x, y + SHIFT]);
  for (const route of laid.routes) route.points = lower(route.points);
  for (const rail of laid.rails) rail.points = lower(rail.points);
  for (const [at, way] of laid.ports) laid.ports.set(at, lower(way));
  laid.ports.set(0, [[to, 0], [to, 8], [from, 8], ...lower(inner)]);
}

const SHIFT = 16;
/** What the button takes at the right end of a header. */
const TOGGLE = 30;

function openBox(item: Item, layout: GroupLayout): LevelBox {
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
  level: Level,
  entries: number,
  inner: readonly (GroupLayout | null)[],
): Map<number, number> {
  const out = new Map<number, number>();
  children.forEach((child, at) => {
    if (formOf(child) !== "constant") return;
    const uses = new Set(level.edges.filter((edge) => edge.source === at).map((edge) => edge.target));
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

/** Roughly, on the safe side: fonts differ. */
function titleWidth(item: Item): number {
  return 24 + 8.5 * nameOf(item).length + 7.5 * hintOf(item).length + 8 * timesWords(item).length;
}

/** What is open in an item, as a word: equal words, equal layouts. */
function openInside(item: Item, open: Open): string {
  let key = "";
  for (const child of item.children)
    if (isOpen(child, open)) key += `${child.id}(${openInside(child, open)})`;
  return key;
}
