import { describe, expect, it } from "vitest";
import { buildHierarchy, canOpen, type Hierarchy, type Item } from "../src/graph/hierarchy";
import type { Point } from "../src/graph/layered";
import { type Drawing, type DrawnBox, Layouter } from "../src/graph/layout";
import { openAtFirst } from "../src/graph/opening";
import { rehearsal } from "../src/graph/rehearsal";
import { chain, Draft, densenet, flat, itemsIn, resnet, SAMPLES, unet } from "./graphs";

function everything(hierarchy: Hierarchy): Set<string> {
  return new Set(
    itemsIn(hierarchy.root)
      .filter(canOpen)
      .map((item) => item.id),
  );
}

function cases(): [string, Hierarchy, Drawing][] {
  return Object.entries(SAMPLES).flatMap(([name, make]) => {
    const hierarchy = buildHierarchy(make());
    const layouter = new Layouter(hierarchy);
    const right = new Layouter(hierarchy, "right");
    return [
      [`${name}, closed`, hierarchy, layouter.draw(new Set())],
      [`${name}, as it opens`, hierarchy, layouter.draw(openAtFirst(hierarchy.root))],
      [`${name}, all open`, hierarchy, layouter.draw(everything(hierarchy))],
      [`${name}, as it opens, to the right`, hierarchy, right.draw(openAtFirst(hierarchy.root))],
      [`${name}, all open, to the right`, hierarchy, right.draw(everything(hierarchy))],
    ] as [string, Hierarchy, Drawing][];
  });
}

const overlap = (a: DrawnBox, b: DrawnBox) =>
  a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;

const holds = (outer: DrawnBox, inner: DrawnBox) =>
  inner.x >= outer.x &&
  inner.y >= outer.y &&
  inner.x + inner.width <= outer.x + outer.width &&
  inner.y + inner.height <= outer.y + outer.height;

/** Whether a straight piece of a line runs through the inside of a box, its rim left out. */
function cuts(a: Point, b: Point, box: DrawnBox): boolean {
  const rim = 1.5;
  const [left, right] = [Math.min(a[0], b[0]), Math.max(a[0], b[0])];
  const [top, bottom] = [Math.min(a[1], b[1]), Math.max(a[1], b[1])];
  return (
    left < box.x + box.width - rim &&
    right > box.x + rim &&
    top < box.y + box.height - rim &&
    bottom > box.y + rim
  );
}

function touches([x, y]: Point, box: DrawnBox): boolean {
  const near = (value: number, low: number, high: number) => value >= low - 1 && value <= high + 1;
  return near(x, box.x, box.x + box.width) && near(y, box.y, box.y + box.height);
}

describe.each(cases())("the drawing of %s", (_, hierarchy, drawing) => {
  const boxes = drawing.boxes;
  const closed = boxes.filter((box) => !box.open);

  it("keeps siblings apart", () => {
    for (const a of boxes) {
      for (const b of boxes) {
        if (a !== b && a.item.parent === b.item.parent)
          expect(overlap(a, b), `${a.item.id} on ${b.item.id}`).toBe(false);
      }
    }
  });

  it("keeps children inside their group and everything inside the drawing", () => {
    for (const box of boxes) {
      const parent = box.item.parent && drawing.byId.get(box.item.parent.id);
      if (parent) expect(holds(parent, box), box.item.id).toBe(true);
      expect(box.x).toBeGreaterThanOrEqual(0);
      expect(box.y).toBeGreaterThanOrEqual(0);
      expect(box.x + box.width).toBeLessThanOrEqual(drawing.width);
      expect(box.y + box.height).toBeLessThanOrEqual(drawing.height);
    }
  });

  it("runs no line through a card", () => {
    for (const { key, points } of drawing.segments) {
      for (let at = 1; at < points.length; at++) {
        for (const box of closed) {
          const [a, b] = [points[at - 1] as Point, points[at] as Point];
          expect(cuts(a, b, box), `${key} through ${box.item.id}`).toBe(false);
        }
      }
    }
  }, 30_000);

  it("ends every arrow at a card", () => {
    for (const { key, points, arrow } of drawing.segments) {
      if (!arrow) continue;
      const end = points[points.length - 1] as Point;
      expect(
        closed.some((box) => touches(end, box)),
        key,
      ).toBe(true);
    }
  });

  it("draws every edge between two drawn items from its producer to its consumer", () => {
    const drawn = new Map<string, DrawnBox>();
    const visit = (item: Item, shown: DrawnBox | undefined) => {
      const own =
        shown ?? (drawing.byId.get(item.id)?.open === false ? drawing.byId.get(item.id) : undefined);
      if (own) drawn.set(item.id, own);
      for (const child of item.children) visit(child, own);
    };
    visit(hierarchy.root, undefined);
    hierarchy.edges.forEach((edge, raw) => {
      const [from, to] = [drawn.get(edge.source), drawn.get(edge.target)];
      if (!from || !to || from === to) return;
      const segments = drawing.segments.filter((segment) => segment.raw.includes(raw));
      expect(segments.length, `${edge.source} > ${edge.target}`).toBeGreaterThan(0);
      expect(segments.some(({ points }) => touches(points[0] as Point, from))).toBe(true);
      expect(segments.some(({ points }) => touches(points[points.length - 1] as Point, to))).toBe(true);
      // The decoder of a U rises again.
      if (from.item.node?.kind !== "constant" && hierarchy.graph.model !== "U") {
        const place = ({ x, y, width, height }: DrawnBox) =>
          drawing.direction === "down" ? y + height / 2 : x + width / 2;
        expect(place(to), `${edge.source} before ${edge.target}`).toBeGreaterThan(place(from));
      }
    });
  });
});

describe("a level", () => {
  const draw = (graph = chain(3), open: string[] = []) => {
    const hierarchy = buildHierarchy(graph);
    return new Layouter(hierarchy).draw(new Set(open));
  };
  const box = (drawing: Drawing, id: string) => drawing.byId.get(id) as DrawnBox;
  const centre = (one: DrawnBox) => one.x + one.width / 2;

  it("stacks a chain in one column, in order of execution", () => {
    const drawing = draw(chain(40));
    for (let at = 1; at < drawing.boxes.length; at++) {
      const [above, below] = [drawing.boxes[at - 1], drawing.boxes[at]] as [DrawnBox, DrawnBox];
      expect(centre(below)).toBe(centre(above));
      expect(below.y).toBeGreaterThan(above.y + above.height);
    }
    expect(drawing.segments.every(({ points }) => points.length === 2)).toBe(true);
  });

  it("runs a chain to the right in one row, with slender cards", () => {
    const drawing = new Layouter(buildHierarchy(chain(6)), "right").draw(new Set());
    for (let at = 1; at < drawing.boxes.length; at++) {
      const [before, after] = [drawing.boxes[at - 1], drawing.boxes[at]] as [DrawnBox, DrawnBox];
      expect(after.y + after.height / 2).toBe(before.y + before.height / 2);
      expect(after.x).toBeGreaterThan(before.x + before.width);
    }
    expect(drawing.width).toBeGreaterThan(drawing.height);
    expect(box(drawing, "conv1").narrow).toBe(true);
  });

  it("keeps the header of an open group above what it holds, also where the network runs to the right", () => {
    const drawing = new Layouter(buildHierarchy(resnet()), "right").draw(new Set(["layer2"]));
    const group = box(drawing, "layer2");
    for (const name of ["layer2.0", "layer2.1"])
      expect(box(drawing, name).y).toBeGreaterThanOrEqual(group.y + 30);
  });

  it("draws one open group alone: its frame, what it holds, and nothing else", () => {
    const hierarchy = buildHierarchy(resnet());
    const layer = hierarchy.of("layer2") as Item;
    const drawing = new Layouter(hierarchy).draw(new Set(["layer2"]), layer);
    expect(drawing.boxes.map((one) => one.item.id)).toEqual(["layer2", "layer2.0", "layer2.1"]);
    expect([drawing.width, drawing.height]).toEqual([drawing.boxes[0]?.width, drawing.boxes[0]?.height]);
  });

  it("runs a residual beside the block, into the side of the addition", () => {
    const drawing = draw(resnet(), ["layer1", "layer1.0"]);
    const skip = drawing.segments.find((segment) => segment.kind === "skip");
    const add = box(drawing, "layer1.0/add");
    const points = skip?.points as Point[];
    expect(points[points.length - 1]).toEqual([add.x + add.width, add.y + add.height / 2]);
    const right = Math.max(...points.map(([x]) => x));
    for (const name of ["conv1", "bn1", "relu", "conv2", "bn2"]) {
      const one = box(drawing, `layer1.0.${name}`);
      expect(right).toBeGreaterThan(one.x + one.width);
    }
    expect(centre(box(drawing, "layer1.0.conv1"))).toBe(centre(add));
  });

  it("sets a downsampling branch beside the main path, which goes straight on", () => {
    const drawing = draw(resnet(), ["layer2", "layer2.0"]);
    const down = box(drawing, "layer2.0.downsample");
    const main = box(drawing, "layer2.0.conv1");
    expect(down.x).toBeGreaterThan(main.x + main.width);
    expect(centre(main)).toBe(centre(box(drawing, "layer2.0/add")));
    expect(drawing.segments.some((segment) => segment.kind === "skip")).toBe(false);
  });

  it("nests long skips in lanes that do not touch", () => {
    const drawing = draw(unet(4));
    const lanes = drawing.segments.filter((segment) => segment.kind === "skip");
    expect(lanes).toHaveLength(4);
    const columns = lanes.map(({ points }) => Math.max(...points.map(([x]) => x)));
    expect(new Set(columns).size).toBe(4);
  });

  it("bundles the skips of a dense block into one rail", () => {
    const drawing = draw(densenet(16), ["block"]);
    const skips = drawing.segments.filter((segment) => segment.kind === "skip");
    expect(skips.length).toBeGreaterThan(100);
    expect(skips.every((segment) => segment.bundled)).toBe(true);
    expect(drawing.rails.filter((rail) => rail.thick)).toHaveLength(1);
  });

  it("sets a constant that is used once beside its use", () => {
    const d = new Draft();
    const x = d.module("conv", "Conv2d", d.input([1, 3, 8, 8]));
    d.output(d.op("add", [x, d.constant("bias", [3, 1, 1])]));
    const drawing = draw(d.done());
    const [bias, add] = [box(drawing, "const:bias"), box(drawing, "/add")];
    expect(bias.x + bias.width).toBeLessThan(add.x);
    expect(centre(add)).toBe(centre(box(drawing, "conv")));
  });

  it("draws parts that nothing connects", () => {
    const d = new Draft();
    d.module("used", "Conv2d", d.input([1, 3, 8, 8]));
    d.module("alone", "Conv2d", [], [1, 1]);
    const drawing = draw(d.done());
    expect(drawing.boxes).toHaveLength(3);
  });

  it("gives the same layout again where nothing changed inside", () => {
    const layouter = new Layouter(buildHierarchy(resnet()));
    const before = layouter.draw(new Set(["layer1"]));
    layouter.draw(new Set(["layer1", "layer1.0"]));
    expect(layouter.draw(new Set(["layer1"]))).toEqual(before);
  });

  it("draws a group that was foreseen as any other", () => {
    const hierarchy = buildHierarchy(resnet());
    const open = new Set(["layer1"]);
    const layouter = new Layouter(hierarchy);
    const closed = layouter.draw(new Set());
    layouter.foresee(hierarchy.of("layer1") as Item, open);
    expect(layouter.draw(new Set())).toEqual(closed);
    expect(layouter.draw(open)).toEqual(new Layouter(hierarchy).draw(open));
  });

  it("rehearses in short steps, with a level that has branches, joins and skips", () => {
    const steps = rehearsal();
    let count = 0;
    let step = steps.next();
    for (; !step.done; step = steps.next()) count++;
    const { boxes, segments } = step.value;
    expect(count).toBeGreaterThan(4);
    expect(boxes.length).toBeGreaterThan(30);
    expect(boxes.every(({ x, y }) => Number.isFinite(x) && Number.isFinite(y))).toBe(true);
    // Beside each other, and past each other.
    expect(new Set(boxes.map(({ spine }) => Math.round(spine))).size).toBeGreaterThan(3);
    expect(segments.some(({ points }) => points.length > 4)).toBe(true);
  });

  it("cuts an overlong level into parts that open", () => {
    const hierarchy = buildHierarchy(flat(2500));
    const layouter = new Layouter(hierarchy);
    expect(layouter.draw(new Set()).boxes.length).toBeLessThanOrEqual(60);
    const part = hierarchy.root.children[0] as Item;
    expect(part.kind).toBe("part");
    expect(layouter.draw(new Set([part.id])).boxes.length).toBeLessThanOrEqual(120);
  });
});
