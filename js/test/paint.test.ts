import { describe, expect, it } from "vitest";
import { barsOf, rulesOf } from "../src/influence/bars";
import { entropy, largest, softmax } from "../src/output/softmax";
import { Easel } from "../src/paint/easel";
import { adjusted, border, cover, type Picture, stroke, UNCHANGED, under } from "../src/paint/picture";
import type { Graph } from "../src/state/synced";

/** A picture whose every pixel tells where it is. */
function ramp(width = 9, height = 7): Picture {
  const rgb = new Uint8ClampedArray(3 * width * height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) rgb.set([10 * x, 10 * y, 7], 3 * (y * width + x));
  return { width, height, rgb };
}

function pixel(picture: { width: number }, rgb: ArrayLike<number>, x: number, y: number): number[] {
  const at = 3 * (y * picture.width + x);
  return [rgb[at], rgb[at + 1], rgb[at + 2]] as number[];
}

describe("a picture", () => {
  it("is the same bytes where nothing is adjusted", () => {
    const picture = ramp();
    expect(adjusted(picture, UNCHANGED)).toEqual(picture.rgb);
    expect(adjusted(picture, UNCHANGED)).not.toBe(picture.rgb);
  });

  it("takes a stroke along its line and nowhere else", () => {
    const picture = ramp();
    stroke(picture, [1, 3], [7, 3], 0.5, [255, 255, 255]);
    for (let x = 1; x <= 7; x++) expect(pixel(picture, picture.rgb, x, 3)).toEqual([255, 255, 255]);
    expect(pixel(picture, picture.rgb, 4, 5)).toEqual([40, 50, 7]);
    expect(pixel(picture, picture.rgb, 0, 0)).toEqual([0, 0, 7]);
  });

  it("gets its original back where it is erased", () => {
    const [picture, original] = [ramp(), ramp()];
    stroke(picture, [0, 0], [8, 6], 3, [1, 2, 3]);
    stroke(picture, [0, 0], [8, 6], 6, original);
    expect(picture.rgb).toEqual(original.rgb);
  });

  it("is covered by a box, half-open, as far as it reaches", () => {
    const picture = ramp();
    cover(picture, [5, 7, 99, 99], [1, 1, 1]);
    expect(pixel(picture, picture.rgb, 7, 5)).toEqual([1, 1, 1]);
    expect(pixel(picture, picture.rgb, 6, 5)).toEqual([60, 50, 7]);
    expect(pixel(picture, picture.rgb, 7, 4)).toEqual([70, 40, 7]);
  });

  it("moves by whole pixels without a change of them", () => {
    const picture = ramp();
    const moved = adjusted(picture, { ...UNCHANGED, dx: 2, dy: -1 });
    expect(pixel(picture, moved, 5, 3)).toEqual(pixel(picture, picture.rgb, 3, 4));
    expect(pixel(picture, moved, 0, 0)).toEqual(border(picture));
  });

  it("turns by a quarter, clockwise", () => {
    const picture = ramp(7, 7);
    const turned = adjusted(picture, { ...UNCHANGED, turn: 90 });
    // What was above the middle is now to its right.
    expect(pixel(picture, turned, 5, 3)).toEqual(pixel(picture, picture.rgb, 3, 1));
  });

  it("finds the place under the pointer again, whatever was done to it", () => {
    const adjust = { ...UNCHANGED, dx: 3, dy: -2, turn: 30, zoom: 2 };
    const size = { width: 11, height: 9 };
    const [u, v] = under(adjust, size, 6, 4);
    const [cx, cy] = [5, 4];
    const angle = Math.PI / 6;
    const [a, b] = [u - cx, v - cy];
    expect(2 * (a * Math.cos(angle) - b * Math.sin(angle)) + cx + 3).toBeCloseTo(6, 9);
    expect(2 * (a * Math.sin(angle) + b * Math.cos(angle)) + cy - 2).toBeCloseTo(4, 9);
  });

  it("brightens to white and darkens to black", () => {
    const picture = ramp();
    expect(new Set(adjusted(picture, { ...UNCHANGED, brightness: 1 }))).toEqual(new Set([255]));
    expect(new Set(adjusted(picture, { ...UNCHANGED, brightness: -1 }))).toEqual(new Set([0]));
  });

  it("keeps its mean when it is blurred, and its noise when it is drawn again", () => {
    const flat: Picture = { width: 8, height: 8, rgb: new Uint8ClampedArray(192).fill(90) };
    expect(adjusted(flat, { ...UNCHANGED, blur: 2 })).toEqual(flat.rgb);
    const noisy = adjusted(flat, { ...UNCHANGED, noise: 0.1 });
    expect(noisy).toEqual(adjusted(flat, { ...UNCHANGED, noise: 0.1 }));
    const mean = noisy.reduce((sum, value) => sum + value, 0) / noisy.length;
    expect(Math.abs(mean - 90)).toBeLessThan(12);
    expect(new Set(noisy).size).toBeGreaterThan(20);
  });
});

describe("an easel", () => {
  it("undoes gesture by gesture, and resets to the sample", () => {
    const easel = new Easel(4, ramp());
    easel.begin();
    easel.line([1, 1], [4, 4], 1, [255, 0, 0]);
    const once = easel.picture();
    easel.begin();
    easel.set({ brightness: 0.5 });
    expect(easel.depth.value).toBe(2);
    easel.undo();
    expect(easel.picture()).toEqual(once);
    easel.undo();
    expect(easel.picture()).toEqual(ramp().rgb);
    easel.undo();
    expect(easel.depth.value).toBe(0);
  });

  it("draws where the pointer is, also on a moved picture", () => {
    const easel = new Easel(0, ramp());
    easel.set({ dx: 3 });
    easel.line([5, 2], [5, 2], 0.5, [255, 255, 255]);
    expect(pixel(easel, easel.picture(), 5, 2)).toEqual([255, 255, 255]);
  });

  it("keeps the original to be compared with", () => {
    const easel = new Easel(0, ramp());
    easel.take(new Uint8ClampedArray(3 * 9 * 7));
    expect(easel.before()).toEqual(ramp().rgb);
    easel.reset();
    expect(easel.picture()).toEqual(ramp().rgb);
  });
});

describe("a softmax of logits that are here", () => {
  it("is the formula, at any temperature", () => {
    const logits = Float32Array.of(1, 2, 4);
    for (const temperature of [0.1, 1, 10]) {
      const powers = [1, 2, 4].map((value) => Math.exp(value / temperature));
      const sum = powers.reduce((a, b) => a + b);
      softmax(logits, temperature, false).forEach((p, i) => {
        expect(p).toBeCloseTo((powers[i] as number) / sum, 5);
      });
    }
  });

  it("does not overflow, and leaves probabilities as they are at one", () => {
    expect(softmax(Float32Array.of(1000, 0), 1, false)[0]).toBe(1);
    expect(softmax(Float32Array.of(0.25, 0.75), 1, true)[1]).toBeCloseTo(0.75, 6);
  });

  it("names the largest first, and what is no number last", () => {
    expect(largest(Float32Array.of(1, Number.NaN, 3, 2), 4)).toEqual([2, 3, 0, 1]);
    expect(entropy(Float32Array.of(0.5, 0.5, 0))).toBe(1);
  });
});

describe("bars of influence", () => {
  const graph = {
    nodes: [
      { id: "input", kind: "input" },
      { id: 'a"b', kind: "module" },
      { id: "c", kind: "op" },
    ],
    groups: [{ id: "g" }],
    edges: [],
  } as unknown as Graph;

  it("are square roots of shares of the largest, which is not the input's own", () => {
    const bars = barsOf(graph, Float32Array.of(100, 4, 1, Number.NaN));
    expect(bars.largest).toBe(4);
    expect(Array.from(bars.of)).toEqual([
      ["input", 1],
      ['a"b', 1],
      ["c", 0.5],
    ]);
  });

  it("quote what users named their layers", () => {
    const rules = rulesOf(barsOf(graph, Float32Array.of(1, 4, 1, 0)), "i1");
    expect(rules).toContain('[data-node="a\\22 b"]');
    expect(rules.split("\n")).toHaveLength(4);
  });
});
