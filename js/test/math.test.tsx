// @vitest-environment happy-dom
// Taking numbers apart: which pixel is which unit, where windows lie, and what is written on the page.

import { h, render } from "preact";
import { expect, test } from "vitest";
import { boardOf, boxOf, peak, step } from "../src/math/board";
import { inks, Matrix, reachOf } from "../src/math/Matrix";
import type { Maps } from "../src/state/data";
import { tileWords } from "../src/weights/Tile";
import { moved } from "../src/weights/weighing";

function maps(change: Partial<Maps>): Maps {
  return {
    ...{ key: "1|a", node: "a", kind: "maps", shape: [2, 2, 3], tile: [2, 3], loaded: 2, grid: null, ms: 1 },
    ...{ tiles: new Uint8Array([0, 51, 102, 153, 204, 255, 255, 0, 0, 0, 0, 0]), bad: new Map() },
    ...{ low: Float32Array.of(-5, 0), high: Float32Array.of(5, 1), strength: Float32Array.of(3, 1) },
    ...change,
  } as Maps;
}

test("a pixel of a map is its channel, row and column, and its value what the byte says", () => {
  const board = boardOf(maps({}), 0);
  expect([...board.values]).toEqual([-5, -3, -1, 1, 3, 5]);
  expect(board.unit(1, 2)).toEqual([0, 1, 2]);
  expect(board.choice(1, 2)).toEqual({ channel: 0, pixel: [1, 2] });
  expect(board.spot(0, [1, 2])).toEqual([1, 2]);
  expect(board.spot(1, [1, 2])).toBeNull();
});

test("without a choice the strongest channel is shown, at the place where it answers most", () => {
  const board = boardOf(maps({}), null);
  expect(board.channel).toBe(0);
  expect(peak(board)).toEqual([0, 0]);
});

test("features of patches are units of tokens, behind the tokens that stand nowhere", () => {
  const tokens = maps({
    kind: "tokens",
    tile: [6, 1],
    shape: [2, 6, 1],
    grid: { rows: 1, cols: 5, skip: 1 },
  });
  expect(boardOf(tokens, 1).unit(0, 2)).toEqual([3, 1]);
  const flat = boardOf({ ...tokens, grid: null }, 1);
  expect([flat.rows, flat.columns]).toEqual([6, 2]);
  expect(flat.unit(3, 1)).toEqual([3, 1]);
});

test("a vector is wrapped into rows", () => {
  const values = Float32Array.from({ length: 40 }, (_, i) => i);
  const board = boardOf(
    maps({
      kind: "vector",
      tiles: new Uint8Array(40),
      tile: [1, 1],
      low: values,
      high: values,
      strength: values,
    }),
    null,
  );
  expect([board.rows, board.columns]).toEqual([2, 32]);
  expect(board.unit(1, 3)).toEqual([35]);
  expect(board.spot(35, null)).toEqual([1, 3]);
});

test("a walk goes through every place and begins again", () => {
  const board = boardOf(maps({}), 0);
  expect(step(board, [0, 2], 1)).toEqual([1, 0]);
  expect(step(board, [1, 2], 1)).toEqual([0, 0]);
  expect(step(board, [0, 0], -1)).toEqual([1, 2]);
});

test("a window is the box around its places, padding left out", () => {
  expect(boxOf(Int32Array.of(-1, -1, 3, 4, 5, 6))).toEqual([3, 4, 6, 7]);
  expect(boxOf(Int32Array.of(-1, -1))).toBeNull();
});

test("colours are white at zero, and text on them can be read", () => {
  expect(inks(0, 1).background).toBe("rgb(255 255 255)");
  expect(inks(1, 1).color).toBe("#fff");
  expect(inks(0.1, 1).color).toBe("#1a1a1a");
  expect(reachOf([1, -3, Number.NaN, Number.NEGATIVE_INFINITY])).toBe(3);
});

test("a matrix writes its numbers where there is room, and leaves padding empty", () => {
  const box = document.createElement("div");
  const props = { label: "patch", values: [1.234, -2, 0.001, 7], rows: 2, columns: 2, reach: 7, cell: 32 };
  render(h(Matrix, { ...props, inside: [1, 1, 1, 0] }), box);
  expect([...box.querySelectorAll("span")].map((cell) => cell.textContent)).toEqual([
    "1.23",
    "−2.00",
    "~0",
    "",
  ]);
  render(h(Matrix, { ...props, cell: 10 }), box);
  expect(box.textContent).toBe("");
});

test("a filter of three inputs is a colour, with zero in the middle", () => {
  const [word = 0] = tileWords({
    values: Float32Array.of(1, 0, -1),
    depth: 3,
    rows: 1,
    columns: 1,
    reach: 1,
  });
  expect([word & 255, (word >> 8) & 255, (word >> 16) & 255]).toEqual([255, 128, 0]);
});

test("classes that a change moved most come first", () => {
  const row = (index: number, prob: number) => ({ index, name: `c${index}`, prob, logit: 0 });
  const found = moved([row(0, 0.9), row(1, 0.1)], [row(1, 0.7), row(0, 0.3)], 1);
  expect(found).toHaveLength(1);
  expect(found[0]).toMatchObject({ name: "c0" });
  expect(found[0]?.gain).toBeCloseTo(-0.6);
});
