import { describe, expect, it } from "vitest";
import { graphOf, releaseGraph } from "../src/graph/controller";
import { buildHierarchy } from "../src/graph/hierarchy";
import type { Point } from "../src/graph/layered";
import { type Direction, type Drawing, type DrawnBox, Layouter } from "../src/graph/layout";
import { Draft, encoderDecoder, inception, resnet, storeOf, transformer, unet, ushape } from "./graphs";

const draw = (graph = ushape(), open: string[] = [], direction: Direction = "down") =>
  new Layouter(buildHierarchy(graph), direction).draw(new Set(open));
const box = (drawing: Drawing, id: string) => drawing.byId.get(id) as DrawnBox;
/** Along the network from its beginning, and across it. */
const along = (drawing: Drawing, id: string) => {
  const { x, y, width, height } = box(drawing, id);
  return drawing.direction === "down" ? y + height / 2 : x + width / 2;
};
const across = (drawing: Drawing, id: string) => {
  const { x, y, width, height } = box(drawing, id);
  return drawing.direction === "down" ? x + width / 2 : y + height / 2;
};
const skipsOf = (drawing: Drawing) => drawing.segments.filter(({ kind }) => kind === "skip");

describe.each(["down", "right"] as Direction[])(
  "a network that goes down in size and up again, %s",
  (way) => {
    const drawing = draw(ushape(4), [], way);
    const inOrder = (ids: string[]) => ids.map((id) => along(drawing, id));

    it("descends on the left and rises on the right", () => {
      const down = inOrder([
        "input",
        "down0",
        "pool",
        "down1",
        "pool@1",
        "down2",
        "pool@2",
        "down3",
        "middle",
      ]);
      expect(down).toEqual([...down].sort((a, b) => a - b));
      const up = inOrder([
        "middle",
        "up3",
        "join3",
        "up2",
        "join2",
        "up1",
        "join1",
        "up0",
        "join0",
        "head",
        "output",
      ]);
      expect(up).toEqual([...up].sort((a, b) => b - a));
      for (const level of [0, 1, 2, 3])
        expect(across(drawing, `down${level}`)).toBeLessThan(across(drawing, `join${level}`));
      expect(across(drawing, "down0")).toBe(across(drawing, "down3"));
      expect(across(drawing, "join0")).toBe(across(drawing, "join3"));
    });

    it("has what is between them at the bottom, in the middle", () => {
      const lowest = Math.max(...drawing.boxes.map(({ item }) => along(drawing, item.id)));
      expect(along(drawing, "middle")).toBe(lowest);
      expect(across(drawing, "middle")).toBe((across(drawing, "down0") + across(drawing, "join0")) / 2);
    });

    it("sets equal sizes side by side, and runs the skips straight across", () => {
      const joins = ["/cat#3", "/cat#2", "/cat#1", "/cat"];
      joins.forEach((id, level) => {
        expect(along(drawing, id)).toBe(along(drawing, `down${level}`));
      });
      expect(skipsOf(drawing)).toHaveLength(4);
      for (const { points } of skipsOf(drawing)) {
        expect(points).toHaveLength(2);
        const [[ax, ay], [bx, by]] = points as [Point, Point];
        expect(way === "down" ? ay : ax).toBe(way === "down" ? by : bx);
      }
    });
  },
);

describe("a U", () => {
  it("is read from modules that take the skip as an argument as well", () => {
    const drawing = draw(ushape(3, true));
    for (const level of [0, 1, 2]) {
      expect(along(drawing, `down${level}`)).toBe(along(drawing, `up${level}`));
      expect(box(drawing, `down${level}`).x).toBeLessThan(box(drawing, `up${level}`).x);
    }
  });

  it("stays one when something opens in it, and runs upwards in what rises", () => {
    const drawing = draw(ushape(3, true), ["down1", "up1", "middle"]);
    expect(along(drawing, "down0")).toBe(along(drawing, "up0"));
    expect(along(drawing, "down2")).toBe(along(drawing, "up2"));
    expect(along(drawing, "down1.pool")).toBeLessThan(along(drawing, "down1.conv"));
    expect(along(drawing, "up1.up")).toBeGreaterThan(along(drawing, "up1.conv"));
    expect(along(drawing, "middle.0")).toBeLessThan(along(drawing, "middle.1"));
    const [down, up] = [box(drawing, "down1"), box(drawing, "up1")];
    expect(down.y + down.height).toBeCloseTo(up.y + up.height, 0);
    // Headers stay on top.
    for (const id of ["up1.up", "up1.conv"]) expect(box(drawing, id).y).toBeGreaterThanOrEqual(up.y + 30);
  });

  it("is drawn inside a group, which is left below where it is entered", () => {
    const d = new Draft("Wrapped");
    const inner = ushape(2);
    let x = d.input([1, 3, 64, 64]);
    d.group("net", "U", () => {
      for (const node of inner.nodes.filter(({ kind }) => kind === "module" || kind === "op")) {
        const from = inner.edges.filter(({ target }) => target === node.id).map(({ source }) => source);
        const named = from.map((id) =>
          id === "input" ? "input" : d.nodes.some((n) => n.id === id) ? id : `net.${id}`,
        );
        const parts = named.map((id) => (id.includes("/cat") ? id.replace("net./", "net/") : id));
        const name = node.id.replace("/", "");
        x =
          node.kind === "op"
            ? d.op(node.op, parts, node.output_shapes[0])
            : d.module(name, node.type, parts, node.output_shapes[0]);
      }
    });
    d.output(d.module("after", "Conv2d", x));
    const drawing = draw(d.done(), ["net"]);
    expect(skipsOf(drawing)).toHaveLength(2);
    const [before, after] = [box(drawing, "input"), box(drawing, "after")];
    expect(after.x + after.width / 2).toBe(before.x + before.width / 2);
    expect(after.y).toBeGreaterThan(box(drawing, "net").y + box(drawing, "net").height);
  });

  it.each(["down", "right"] as Direction[])("is made by an encoder and its decoder, both open, %s", (way) => {
    const drawing = draw(encoderDecoder(), ["encoder", "decoder"], way);
    for (const level of [0, 1, 2]) {
      const [down, up] = [`encoder.stage${level}`, `decoder.block${level}`];
      expect(along(drawing, down)).toBe(along(drawing, up));
      expect(across(drawing, down)).toBeLessThan(across(drawing, up));
    }
    expect(along(drawing, "encoder.stage3")).toBeGreaterThan(along(drawing, "decoder.block2"));
    expect(skipsOf(drawing).every(({ points }) => points.length === 2)).toBe(true);
    for (const id of ["encoder", "decoder"]) {
      const frame = box(drawing, id);
      expect(frame.open).toBe(true);
      for (const { item, x, y, width, height } of drawing.boxes.filter((one) => one.item.parent?.id === id)) {
        expect(x, item.id).toBeGreaterThanOrEqual(frame.x);
        expect(y, item.id).toBeGreaterThanOrEqual(frame.y + 30);
        expect(x + width).toBeLessThanOrEqual(frame.x + frame.width);
        expect(y + height).toBeLessThanOrEqual(frame.y + frame.height);
      }
    }
    const [a, b] = [box(drawing, "encoder"), box(drawing, "decoder")];
    expect(a.x + a.width < b.x || a.y + a.height < b.y).toBe(true);
  });

  it("draws no line behind the title of a frame", () => {
    const drawing = draw(encoderDecoder(), ["encoder", "decoder"]);
    const { x, y } = box(drawing, "encoder");
    for (const { points } of drawing.segments) {
      const ys = points.filter(([px]) => px > x && px < x + 200).map(([, py]) => py);
      expect(ys.length > 0 && Math.min(...ys) < y + 1 && Math.max(...ys) > y + 29).toBe(false);
    }
  });

  it("stands where it stood when something in it opens", () => {
    const store = storeOf(ushape(4, true)).store;
    const graph = graphOf(store);
    graph.resized({ width: 900, height: 600 });
    for (const id of ["down2", "up1", "middle"]) {
      const before = graph.rectOf(graph.boxOf(id) as DrawnBox);
      graph.toggle(id);
      const after = graph.rectOf(graph.boxOf(id) as DrawnBox);
      const grown = after.x + after.width / 2 - (before.x + before.width / 2);
      expect(Math.abs(grown), id).toBeLessThan(Math.max(41, (after.width - before.width) / 2 + 1));
      expect(after.y, id).toBe(before.y);
      const drawing = graph.drawing.peek() as Drawing;
      for (const level of [0, 3])
        expect(along(drawing, `down${level}`)).toBeCloseTo(along(drawing, `up${level}`), 0);
    }
    releaseGraph(store);
  });

  it("is not seen where skips do not change their size, or lie one after the other", () => {
    for (const graph of [unet(), resnet(), inception(), transformer()]) {
      const drawing = draw(graph);
      const spread = new Set(skipsOf(drawing).map(({ points }) => points.length));
      expect(spread.has(2)).toBe(false);
    }
  });
});
