// The whole drawing: levels inside levels. Each open group is laid out by itself and becomes a box of its parent's
// level; a level is laid out again only when something inside it opened or closed. Then everything is put into
// one coordinate system, and every edge of the graph knows the segments that draw it, one on each level it passes.
//
// A drawing from left to right is one from top to bottom of cards that lie on their sides, turned at the very end.

import { HEADER, OPEN_MIN_WIDTH, PAD_BOTTOM, PAD_X } from "./cards";
import { behind, straighten, titleIn, titleWidth, type Zone } from "./frames";
import { type Hierarchy, type Item, isOpen, type LevelEdge, type Open } from "./hierarchy";
import { levelInput, openBox } from "./inside";
import type { Point } from "./layered";
import { type LevelInput, type LevelLayout, layoutFramed, layoutLevel } from "./level";
import { type Spliced, splice } from "./splice";

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

export interface GroupLayout {
  key: string;
  width: number;
  height: number;
  level: LevelLayout;
  /** Where what the level draws begins inside the group's box. */
  offset: Point;
  plan: Plan;
  narrow: boolean[];
}

/** What a level draws: its children, or in place of two of them what these hold. */
export type Plan = Spliced<GroupLayout>;

export class Layouter {
  private readonly known = new Map<Item, GroupLayout>();

  constructor(
    readonly hierarchy: Hierarchy,
    readonly direction: Direction = "down",
  ) {}

  /** Lays out a group that may be opened next: what it takes longest for is then known. */
  foresee(item: Item, open: Open): void {
    this.group(item, open);
  }

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
    const plain: Plan = { children: [...item.children], inner, edges: item.level.edges, frames: [] };
    const spliced = splice(item, inner, (layout) => layout.plan.inner);
    const narrow: boolean[] = [];
    let plan = plain;
    let laid: LevelLayout | null = null;
    if (spliced && spliced.children.length === spliced.inner.length) {
      laid = this.framed(item, spliced, narrow);
      if (laid) plan = spliced;
    }
    laid ??= layoutLevel(this.level(item, plain, narrow));
    if (item.parent) straighten(laid, item);
    const { left, ends, top, bottom, least } = this.frame(item, laid);
    const width = Math.max(least, laid.width + ends);
    return {
      key,
      width,
      height: top + laid.height + bottom,
      level: laid,
      offset: [left ?? (width - laid.width) / 2, top],
      plan,
      narrow,
    };
  }

  private level(item: Item, plan: Plan, narrow: boolean[]): LevelInput {
    return levelInput(item, plan, narrow, this.direction, this.hierarchy.edges);
  }

  /** An encoder and its decoder as one U, in frames that have room for their headers. */
  private framed(item: Item, plan: Plan, narrow: boolean[]): LevelLayout | null {
    const entries = item.level.entries.length;
    const right = this.direction === "right";
    const pad = PAD_X;
    const margin = right
      ? { left: HEADER, right: pad, top: pad, bottom: pad }
      : { left: pad, right: pad, top: HEADER + 6, bottom: pad };
    const frames = plan.frames.map(({ members }) => members.map((member) => member + entries));
    const laid = layoutFramed(this.level(item, plan, narrow), frames, margin);
    // Ports keep the numbers that the level of the item has.
    const shift = plan.children.length - item.children.length;
    if (laid) laid.ports = new Map([...laid.ports].map(([at, way]) => [at < entries ? at : at - shift, way]));
    return laid;
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
    const { level, plan } = layout;
    const { children, inner, edges } = plan;
    const entries = item.level.entries.length;
    const [left, top] = [x + layout.offset[0], y + layout.offset[1]];
    const down = (py: number) => top + (rising ? level.height - py : py);
    const shift = (points: readonly Point[]): Point[] => points.map(([px, py]) => [px + left, down(py)]);

    const titles: Zone[] = [];
    plan.frames.forEach(({ item: group }, at) => {
      const { x: fx, y: fy, width, height } = level.frames[at] as LevelLayout["frames"][number];
      const place: Point = [left + fx, down(fy) - (rising ? height : 0)];
      const spine = place[0] + width / 2;
      const frame = { x: place[0], y: place[1], width, height, spine };
      out.boxes.push({ item: group, ...frame, open: true, narrow: false });
      if (this.direction === "down") titles.push(titleIn(group, frame));
    });
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
      const edge = edges[route.wire] as LevelEdge;
      const points = shift(route.points);
      // Several tensors on one way are one line.
      const same = points.join(";");
      const known = drawn.get(same);
      if (known) {
        known.raw.push(...edge.raw);
        continue;
      }
      const target = children[edge.target];
      const [before, after] = behind(points, titles);
      const segment: Segment = {
        key: `${item.id}|${edge.source}>${edge.target}>${edge.producer}`,
        points: after ?? points,
        kind: route.kind,
        bundled: route.bundled,
        from: children[edge.source] ?? null,
        arrow: target !== undefined && !inner[edge.target],
        raw: [...edge.raw],
      };
      drawn.set(same, segment);
      if (before && after)
        out.segments.push({ ...segment, key: `${segment.key}|0`, points: before, arrow: false });
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

function turned({ boxes, segments, rails }: Parts): Parts {
  const turn = (points: readonly Point[]): Point[] => points.map(([x, y]) => [y, x]);
  return {
    boxes: boxes.map((box) => ({ ...box, x: box.y, y: box.x, width: box.height, height: box.width })),
    segments: segments.map((segment) => ({ ...segment, points: turn(segment.points) })),
    rails: rails.map((rail) => ({ ...rail, points: turn(rail.points) })),
  };
}

/** What the button takes at the right end of a header. */
const TOGGLE = 30;

/** What is open in an item, as a word: equal words, equal layouts. */
function openInside(item: Item, open: Open): string {
  let key = "";
  for (const child of item.children)
    if (isOpen(child, open)) key += `${child.id}(${openInside(child, open)})`;
  return key;
}
