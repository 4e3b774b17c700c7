// What is drawn of real networks as they were recorded (tests/fixtures/graph/architectures.py): how much at first,
// what folds, and how their well-known shapes look.

import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { buildHierarchy, type Hierarchy, type Item } from "../src/graph/hierarchy";
import type { Point } from "../src/graph/layered";
import { type Drawing, type DrawnBox, Layouter } from "../src/graph/layout";
import { openAtFirst, withOnlyChildren } from "../src/graph/opening";
import { hintOf, timesWords } from "../src/graph/words";
import { type PackedGraph, unpack } from "../src/state/packed";

const file = new URL("../../tests/fixtures/graph/architectures.json.gz", import.meta.url);
const packed: Record<string, PackedGraph> = JSON.parse(gunzipSync(readFileSync(file)).toString());
const treeOf = (name: string, apart: string[] = []) =>
  buildHierarchy(unpack(packed[name] as PackedGraph), new Set(apart));

function opened(hierarchy: Hierarchy, more: string[] = []): Drawing {
  const open = new Set(openAtFirst(hierarchy.root));
  for (const id of more) for (const one of withOnlyChildren(hierarchy.of(id) as Item)) open.add(one);
  return new Layouter(hierarchy).draw(open);
}

const box = (drawing: Drawing, id: string) => drawing.byId.get(id) as DrawnBox;
const closed = (drawing: Drawing) => drawing.boxes.filter((one) => !one.open);
const touches = ([x, y]: Point, one: DrawnBox) =>
  x >= one.x - 1 && x <= one.x + one.width + 1 && y >= one.y - 1 && y <= one.y + one.height + 1;
const ends = (drawing: Drawing, one: DrawnBox) =>
  drawing.segments.filter(({ points, bundled }) => !bundled && touches(points.at(-1) as Point, one));
const starts = (drawing: Drawing, one: DrawnBox) =>
  drawing.segments.filter(({ points, bundled }) => !bundled && touches(points[0] as Point, one));

describe.each(Object.keys(packed))("%s", (name) => {
  const drawing = opened(treeOf(name));

  it("opens with no more than can be seen at once", () => {
    const most = name === "gpt2" || name === "resnet50" ? 15 : 60;
    expect(drawing.boxes.length).toBeLessThanOrEqual(most);
    expect(drawing.boxes.length).toBeGreaterThan(3);
  });

  it("lays nothing over anything else, and runs no line through a card", () => {
    const cards = closed(drawing);
    for (const a of cards) {
      for (const b of cards) {
        const apart =
          a === b ||
          a.x >= b.x + b.width ||
          b.x >= a.x + a.width ||
          a.y >= b.y + b.height ||
          b.y >= a.y + a.height;
        expect(apart, `${a.item.id} on ${b.item.id}`).toBe(true);
      }
    }
    for (const { key, points } of drawing.segments) {
      for (let at = 1; at < points.length; at++) {
        const [[ax, ay], [bx, by]] = [points[at - 1], points[at]] as [Point, Point];
        for (const { x, y, width, height, item } of cards) {
          const [inX, inY] = [x + width - 1.5 > Math.min(ax, bx), y + height - 1.5 > Math.min(ay, by)];
          const through = inX && inY && Math.max(ax, bx) > x + 1.5 && Math.max(ay, by) > y + 1.5;
          expect(through, `${key} through ${item.id}`).toBe(false);
        }
      }
    }
  });
});

describe("a residual network", () => {
  it("adds two tensors in each of the 16 blocks of ResNet-50", () => {
    const apart = [1, 2, 3, 4].flatMap((layer) => [1, 2, 3, 4, 5].map((block) => `layer${layer}.${block}`));
    const hierarchy = treeOf("resnet50", apart);
    const blocks = [...hierarchy.items.values()].filter((item) => item.group?.type === "Bottleneck");
    expect(blocks).toHaveLength(16);
    const drawing = opened(hierarchy, [
      "layer1",
      "layer2",
      "layer3",
      "layer4",
      ...blocks.map(({ id }) => id),
    ]);
    const adds = drawing.boxes.filter((one) => one.item.node?.op === "add");
    expect(adds).toHaveLength(16);
    for (const add of adds) expect(ends(drawing, add)).toHaveLength(2);
  });
});

describe("a dense network", () => {
  it("draws a closed block with one line in and one out", () => {
    const drawing = opened(treeOf("densenet121"));
    for (const block of [1, 2, 3, 4]) {
      const one = box(drawing, `features.denseblock${block}`);
      expect([ends(drawing, one).length, starts(drawing, one).length]).toEqual([1, 1]);
    }
  });

  it.each([
    [1, 6],
    [2, 12],
    [3, 24],
    [4, 16],
  ])("draws open block %i of %i layers as a chain beside one rail with a tap for each", (block, layers) => {
    const id = `features.denseblock${block}`;
    const hierarchy = treeOf("densenet121");
    const drawing = new Layouter(hierarchy).draw(new Set([id]), hierarchy.of(id) as Item);
    expect(closed(drawing)).toHaveLength(layers + 1);
    const thick = drawing.rails.filter((rail) => rail.thick);
    expect(thick).toHaveLength(1);
    const thin = drawing.rails.filter((one) => !one.thick);
    // One way onto the rail for the input and every layer but the last, one off it for each but the first, and out.
    expect(thin).toHaveLength(2 * layers);
    expect(drawing.segments.filter((segment) => !segment.bundled).length).toBeLessThanOrEqual(layers + 4);
    const [x] = thick.flatMap((rail) => rail.points)[0] as Point;
    for (const { points } of thin) expect(points.some(([px]) => px === x)).toBe(true);
    // All in one column.
    const layersOf = closed(drawing).filter((one) => one.item.group);
    expect(new Set(layersOf.map((one) => one.x)).size).toBe(1);
  });
});

describe("what is unrolled over time", () => {
  it.each([
    ["gru_unrolled", 24],
    ["gru_unrolled_100", 100],
  ])("is one card of %s", (name, steps) => {
    const hierarchy = treeOf(name);
    const fold = hierarchy.root.children.find((item) => item.kind === "fold") as Item;
    expect(timesWords(fold)).toBe(`×${steps} steps`);
    expect(opened(hierarchy).boxes.length).toBeLessThanOrEqual(6);
  });
});

describe("a U-Net", () => {
  it.each([
    [
      "unet",
      [
        ["down.0", "/cat#1"],
        ["down.1", "/cat"],
      ],
    ],
    [
      "deep_unet",
      [
        ["stem", "up.2"],
        ["down.0", "up.1"],
        ["down.1", "up.0"],
      ],
    ],
  ] as [string, [string, string][]][])("reads as a U: %s", (name, pairs) => {
    const drawing = opened(treeOf(name));
    const middle = ({ y, height }: DrawnBox) => y + height / 2;
    for (const [down, up] of pairs) {
      const [left, right] = [box(drawing, down), box(drawing, up)];
      expect(middle(left)).toBe(middle(right));
      expect(left.x + left.width).toBeLessThan(right.x);
    }
    const order = pairs.map(([down]) => box(drawing, down).y);
    expect(order).toEqual([...order].sort((a, b) => a - b));
    const straight = drawing.segments.filter(({ kind, points }) => kind === "skip" && points.length === 2);
    expect(straight).toHaveLength(pairs.length);
  });
});

describe("an autoencoder", () => {
  it("has two outputs and a bottleneck, which is said", () => {
    const hierarchy = treeOf("autoencoder");
    const drawing = opened(hierarchy);
    expect(drawing.boxes.filter((one) => one.item.node?.kind === "output")).toHaveLength(2);
    const named = drawing.boxes.filter(({ item }) => hintOf(item).includes("bottleneck"));
    expect(named.map(({ item }) => item.id)).toEqual(["encoder.2"]);
    const [encoder, decoder] = [box(drawing, "encoder"), box(drawing, "decoder")];
    expect([encoder.x, encoder.width, encoder.height]).toEqual([decoder.x, decoder.width, decoder.height]);
  });

  it("is not seen in a network with skips past its narrow place, nor in one that answers something else", () => {
    for (const name of Object.keys(packed).filter((one) => one !== "autoencoder")) {
      const found = [...treeOf(name).items.values()].filter((item) => item.bottleneck);
      expect(found, name).toEqual([]);
    }
  });
});

describe("a language model", () => {
  it("keeps a look at the indices among the plumbing", () => {
    const drawing = opened(treeOf("gpt2"));
    expect(closed(drawing).some(({ item }) => item.node?.op === "decision")).toBe(false);
    const tray = drawing.boxes.find(({ item }) => item.kind === "tray") as DrawnBox;
    expect(tray.item.children.some(({ node }) => node?.op === "decision")).toBe(true);
  });
});
