import { describe, expect, it } from "vitest";
import { unpack } from "../src/maps/colormaps";
import { count, milliseconds, percent, shape, short, signed } from "../src/maps/format";
import { overlayPicture, overlayTable } from "../src/panels/saliencyPicture";
import { quoted, snippet, unitOf } from "../src/panels/snippet";
import { niceTicks, tickText } from "../src/panels/ticks";
import type { Saliency } from "../src/state/data";
import { NOTHING_SELECTED } from "../src/state/synced";

describe("numbers as text", () => {
  it("have their sign and at least four digits when they are hovered", () => {
    expect(signed(5.71724)).toBe("+5.7172");
    expect(signed(-0.0031416)).toBe("−0.003142");
    expect(signed(0)).toBe("0");
    expect(signed(-1.234e-7)).toBe("−1.234e−7");
    expect(signed(1234567)).toBe("+1.235e6");
    expect(signed(Number.NaN)).toBe("NaN");
    expect(signed(Number.NEGATIVE_INFINITY)).toBe("−∞");
  });

  it("are short on axes", () => {
    expect(short(5.7172)).toBe("5.72");
    expect(short(-0.0123)).toBe("−0.012");
    expect(short(250.4)).toBe("250");
    expect(short(1.23e-7)).toBe("1.2e−7");
  });

  it("never round a little to nothing nor almost all to everything", () => {
    expect(percent(0)).toBe("0 %");
    expect(percent(0.0004)).toBe("<0.1 %");
    expect(percent(0.0312)).toBe("3.1 %");
    expect(percent(0.62)).toBe("62 %");
    expect(percent(0.9999)).toBe(">99.9 %");
    expect(percent(1)).toBe("100 %");
  });

  it("count in thousands, millions and billions", () => {
    expect(count(11_689_512)).toBe("11.7 M");
    expect(count(1_814_073_344)).toBe("1.8 G");
    expect(count(40_000)).toBe("40 k");
    expect(count(640)).toBe("640");
  });

  it("write shapes and times as people read them", () => {
    expect(shape([64, 112, 112])).toBe("64 × 112 × 112");
    expect(shape([])).toBe("scalar");
    expect(milliseconds(4.25)).toBe("4.3 ms");
    expect(milliseconds(1530)).toBe("1.5 s");
  });
});

describe("axis ticks", () => {
  it("are round, inside the range and about as many as wished", () => {
    expect(niceTicks(-1.5, 3.8, 5)).toEqual([-1, 0, 1, 2, 3]);
    expect(niceTicks(0, 0.35, 4)).toEqual([0, 0.1, 0.2, 0.3]);
    for (const [from, to] of [
      [0, 1e-7],
      [-3e6, 12],
      [0.1, 0.11],
    ] as const) {
      const ticks = niceTicks(from, to, 5);
      expect(ticks.length).toBeGreaterThanOrEqual(2);
      expect(ticks.length).toBeLessThanOrEqual(9);
      for (const tick of ticks) {
        expect(tick).toBeGreaterThanOrEqual(from - 1e-12);
        expect(tick).toBeLessThanOrEqual(to + 1e-12);
      }
    }
  });

  it("survive a range without extent", () => {
    expect(niceTicks(2, 2, 5)).toEqual([2]);
    expect(niceTicks(Number.NaN, 1, 5)).toHaveLength(1);
  });

  it("drop zeros that say nothing", () => {
    expect([2, 0.5, -0.2, 100, 0].map(tickText)).toEqual(["2", "0.5", "−0.2", "100", "0"]);
  });
});

describe("the overlay on the input", () => {
  const saliency: Saliency = {
    key: "",
    node: "a",
    unit: [0, 0, 0],
    value: 1,
    scale: { signed: 1, magnitude: 1 },
    box: [1, 2, 3, 4],
    signed: Uint8Array.of(128, 255, 1, 192),
    magnitude: Uint8Array.of(0, 255, 128, 64),
    field: null,
    ms: 0,
  };
  const alpha = (word: number | undefined) => (word as number) >>> 24;

  it("lies where its box says and is transparent everywhere else", () => {
    const words = overlayPicture(saliency, "magnitude", 5, 6);
    for (let y = 0; y < 5; y++) {
      for (let x = 0; x < 6; x++) {
        const inside = y >= 1 && y < 3 && x >= 2 && x < 4;
        const byte = inside ? saliency.magnitude[(y - 1) * 2 + (x - 2)] : 0;
        expect(alpha(words[y * 6 + x]) > 0, `(${y}, ${x})`).toBe((byte ?? 0) > 0);
      }
    }
  });

  it("shows nothing at zero, red for more and blue for less, stronger with the magnitude", () => {
    const table = overlayTable("signed");
    expect(alpha(table[128])).toBe(0);
    const [red, , blue] = unpack(table[200] as number);
    expect(red).toBeGreaterThan(blue);
    const [less, , more] = unpack(table[60] as number);
    expect(more).toBeGreaterThan(less);
    for (let byte = 129; byte < 255; byte++) {
      expect(alpha(table[byte + 1])).toBeGreaterThanOrEqual(alpha(table[byte]));
      expect(alpha(table[byte])).toBe(alpha(table[256 - byte]));
    }
  });

  it("does not write beyond an input that is smaller than its box", () => {
    expect(overlayPicture({ ...saliency, box: [1, 2, 3, 4] }, "signed", 2, 3)).toHaveLength(6);
  });
});

describe("the Python of what is shown", () => {
  const chosen = {
    ...NOTHING_SELECTED,
    layer: "layer2.0.conv1",
    channel: 7,
    pixel: [3, 4] as [number, number],
  };

  it("indexes maps, vectors and tokens as the engine does", () => {
    expect(unitOf("maps", 7, [3, 4])).toEqual([7, 3, 4]);
    expect(unitOf("vector", 7, [0, 0])).toEqual([7]);
    expect(unitOf("tokens", 7, [30, 0])).toEqual([30, 7]);
  });

  it("selects, reads and explains the chosen unit, with and without the explorer", () => {
    expect(snippet({ ...chosen, sample: 2 }, "maps").split("\n")).toEqual([
      'w.select("layer2.0.conv1", channel=7, pixel=(3, 4))',
      "w.feature_maps[7, 3, 4]",
      "w.saliency",
      "",
      "# without the explorer",
      "engine = nnviz.Engine(model)",
      "trace = engine.trace(inputs[2:3])",
      'trace.activation("layer2.0.conv1")[0][7, 3, 4]',
      'engine.unit_saliency(trace, "layer2.0.conv1", unit=(7, 3, 4))',
    ]);
  });

  it("reads a whole layer, and a feature of all tokens", () => {
    const layer = { ...NOTHING_SELECTED, layer: "fc" };
    expect(snippet(layer, "maps")).toContain('trace.stats("fc")');
    expect(snippet({ ...layer, channel: 5 }, "tokens")).toContain("w.feature_maps[:, 5]");
  });

  it("writes a unit of a vector as a tuple of one, and a class as a unit of the output", () => {
    expect(snippet(chosen, "vector")).toContain("unit=(7,)");
    const target = snippet({ ...NOTHING_SELECTED, class: 3 }, "maps");
    expect(target).toContain("w.select(target=3)");
    expect(target).toContain('engine.unit_saliency(trace, "output", unit=(3,))');
  });

  it("quotes whatever a layer is called", () => {
    expect(quoted('a"b\\c\nd')).toBe('"a\\"b\\\\c\\nd"');
  });
});
