// The parts of the export that need no layout: colours, shadows, names, sizes. The whole is tests/browser/test_export.py.

import { describe, expect, it } from "vitest";
import { fileName, pngScale, readColour, readShadows, shortened } from "../src/graph/export";

describe("computed colours", () => {
  it.each([
    ["rgb(28, 134, 214)", "#1c86d6", 1],
    ["rgba(0, 0, 0, 0.58)", "#000000", 0.58],
    ["color(srgb 1 0.5 0)", "#ff8000", 1],
    ["color(srgb 0.2 0.4 0.6 / 0.04)", "#336699", 0.04],
    ["color(srgb none 1.2 -0.1 / 1)", "#00ff00", 1],
  ])("%s", (written, paint, opacity) => {
    expect(readColour(written)).toEqual({ paint, opacity });
  });

  it("are none where nothing would be seen", () => {
    expect(readColour("rgba(0, 0, 0, 0)")).toBeNull();
    expect(readColour("none")).toBeNull();
  });
});

describe("shadows", () => {
  it("are drawn where they are sheets of paper", () => {
    const stack =
      "rgb(255, 255, 255) 3px 3px 0px -1px, color(srgb 0.5 0.5 0.5 / 0.5) 3px 3px 0px 0px, " +
      "rgba(15, 23, 42, 0.06) 0px 1px 2px 0px";
    expect(readShadows(stack)).toEqual([
      { colour: { paint: "#ffffff", opacity: 1 }, x: 3, y: 3, spread: -1 },
      { colour: { paint: "#808080", opacity: 0.5 }, x: 3, y: 3, spread: 0 },
    ]);
  });

  it("are not where they are rings or blurred, or none", () => {
    expect(readShadows("rgb(25, 118, 210) 0px 0px 0px 1px")).toEqual([]);
    expect(readShadows("none")).toEqual([]);
  });
});

describe("files", () => {
  it("have names that every system takes", () => {
    expect(fileName("ResNet", "svg")).toBe("ResNet.svg");
    expect(fileName("../a:b <c>", "png")).toBe("a_b_c.png");
    expect(fileName("Größe 2", "svg")).toBe("Größe_2.svg");
    expect(fileName("///", "svg")).toBe("network.svg");
  });

  it("of pixels are twice as large as long as browsers draw them", () => {
    expect(pngScale(400, 900)).toBe(2);
    expect(pngScale(400, 32_000)).toBe(0.5);
    expect(pngScale(20_000, 20_000) * 20_000).toBeLessThan(16_001);
  });
});

describe("words that are too long", () => {
  const width = (text: string) => 10 * [...text].length;
  it("end in dots where they are cut", () => {
    expect(shortened("abcdefgh", 50, width)).toBe("abcd…");
    expect(shortened("🦊🦊🦊🦊", 30, width)).toBe("🦊🦊…");
    expect(shortened("abc", 0, width)).toBe("…");
  });
});
