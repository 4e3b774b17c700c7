import { describe, expect, it } from "vitest";
import { table, unpack, ZERO } from "../src/maps/colormaps";
import { colour, decode, entry, layerRange, lut, type Scale, scaleFor, scales } from "../src/maps/lut";
import { paintTile } from "../src/maps/paint";
import { byteAt, planesOf, read, readExtra, summarize } from "../src/maps/planes";
import { crisp, layout, ordered, pixelAt, place, positions, reveal, rowsIn } from "../src/maps/sheet";
import { rangeOf, rowOf, wrap } from "../src/maps/vector";
import type { Maps } from "../src/state/data";
import type { Colormap, Sign } from "../src/state/view";

const COLORMAPS: Colormap[] = ["viridis", "magma", "gray", "diverging"];
const SIGNS: Sign[] = ["value", "signed", "magnitude"];

function maps(change: Partial<Maps>): Maps {
  return {
    key: "1|a",
    node: "a",
    kind: "maps",
    shape: [1, 1, 1],
    tile: [1, 1],
    tiles: new Uint8Array(1),
    low: new Float32Array(1),
    high: new Float32Array(1),
    strength: new Float32Array(1),
    loaded: 1,
    grid: null,
    bad: new Map(),
    ms: 0,
    ...change,
  };
}

describe("colour tables", () => {
  it("begin and end as in matplotlib", () => {
    expect(unpack(table("viridis")[0] as number)).toEqual([0x44, 0x01, 0x54]);
    expect(unpack(table("viridis")[255] as number)).toEqual([0xfd, 0xe7, 0x25]);
    expect(unpack(table("magma")[0] as number)).toEqual([0, 0, 4]);
    expect(unpack(table("magma")[255] as number)).toEqual([0xfc, 0xfd, 0xbf]);
    expect(unpack(table("gray")[77] as number)).toEqual([77, 77, 77]);
  });

  it("are opaque and have 256 entries", () => {
    for (const name of COLORMAPS) {
      expect(table(name)).toHaveLength(256);
      for (const word of table(name)) expect(word >>> 24).toBe(255);
    }
  });

  it("stand on white at zero, blue below and red above, equally far on both sides", () => {
    const diverging = table("diverging");
    expect(unpack(diverging[ZERO] as number)).toEqual([255, 255, 255]);
    const [belowRed, , belowBlue] = unpack(diverging[1] as number);
    const [aboveRed, , aboveBlue] = unpack(diverging[255] as number);
    expect(belowBlue).toBeGreaterThan(belowRed);
    expect(aboveRed).toBeGreaterThan(aboveBlue);
    // Neither side is whiter than the other one step away from zero.
    const paleness = (place: number) => Math.min(...unpack(diverging[place] as number));
    expect(Math.abs(paleness(ZERO - 1) - paleness(ZERO + 1))).toBeLessThanOrEqual(3);
  });
});

/** The definition once more, in plain words and floats: where on the table a value stands, not yet rounded. */
function reference(value: number, low: number, high: number, sign: Sign, colormap: Colormap): number {
  const reach = Math.max(Math.abs(low), Math.abs(high));
  const x = sign === "magnitude" ? Math.abs(value) : value;
  if (colormap === "diverging") {
    const t = reach > 0 ? x / reach : 0; // -1 ... 1
    return Math.min(255, Math.max(0, 127 * t + 128));
  }
  const [from, to] = sign === "magnitude" ? [0, reach] : sign === "signed" ? [-reach, reach] : [low, high];
  const t = to > from ? (x - from) / (to - from) : 0;
  return Math.min(255, Math.max(0, 255 * t));
}

describe("value to colour", () => {
  const ranges: [number, number][] = [
    [-1, 3],
    [0, 5.72],
    [-2.5, -0.25],
    [0.125, 0.5],
    [-3, 3],
    [2, 2],
    [0, 0],
    [-1e-8, 1e6],
  ];

  it("agrees with the definition in floats for every byte, colour map, sign and range", () => {
    for (const colormap of COLORMAPS) {
      for (const sign of SIGNS) {
        for (const [low, high] of ranges) {
          const scale = scaleFor(low, high, sign, colormap);
          const words = lut(low, high, scale);
          for (let byte = 0; byte < 256; byte++) {
            const value = low + (byte / 255) * (high - low);
            const what = `${colormap} ${sign} ${low}..${high} byte ${byte}`;
            const place = entry(value, scale);
            const exact = reference(value, low, high, sign, colormap);
            expect(Math.abs(place - exact), what).toBeLessThanOrEqual(0.5 + 1e-9);
            expect(words[byte], what).toBe(table(colormap)[place]);
          }
        }
      }
    }
  });

  it("keeps zero white in a channel whose range is not around zero", () => {
    const scale = scaleFor(-1, 3, "signed", "diverging");
    expect([scale.from, scale.to]).toEqual([-3, 3]);
    expect(unpack(colour(0, scale))).toEqual([255, 255, 255]);
    expect(entry(-1, scale)).toBe(128 - Math.round(127 / 3));
  });

  it("shows a value and its negative alike as magnitudes", () => {
    const scale = scaleFor(-2, 1, "magnitude", "magma");
    expect(colour(-0.7, scale)).toBe(colour(0.7, scale));
    expect(entry(-2, scale)).toBe(255);
  });

  it("gives every channel the range of the layer where it is shared, NaN ranges aside", () => {
    const low = Float32Array.of(0, -2, Number.NaN);
    const high = Float32Array.of(4, 1, Number.NaN);
    expect(layerRange(low, high)).toEqual([-2, 4]);
    const shared = scales(low, high, "layer", "value", "viridis");
    expect(shared(0)).toEqual(shared(1));
    expect(shared(1)).toMatchObject({ from: -2, to: 4 });
    const own = scales(low, high, "channel", "value", "viridis");
    expect(own(1)).toMatchObject({ from: -2, to: 1 });
  });

  it("draws the same value in the same colour in all channels of a shared range", () => {
    const scale: Scale = scaleFor(-2, 4, "value", "viridis");
    // 1.0 is byte 191 of a channel from -2 to 2 (0.996), and byte 64 of one from 0 to 4 (1.004): one entry apart at most.
    const a = entry(decode(191, -2, 2), scale);
    const b = entry(decode(64, 0, 4), scale);
    expect(Math.abs(a - b)).toBeLessThanOrEqual(1);
  });
});

describe("painting a tile", () => {
  const identity = Uint32Array.from({ length: 256 }, (_, i) => i);

  it("repeats pixels when it enlarges, exactly those under each place", () => {
    const bytes = Uint8Array.of(9, 9, 1, 2, 3, 4, 5, 6);
    const words = new Uint32Array(10 * 8);
    const source = { bytes, start: 2, height: 2, width: 3 };
    paintTile({ words, stride: 10, rows: 8 }, source, { x: 1, y: 1, width: 7, height: 5 }, identity);
    for (let y = 0; y < 8; y++) {
      for (let x = 0; x < 10; x++) {
        const inside = x >= 1 && x < 8 && y >= 1 && y < 6;
        const expected = inside
          ? bytes[2 + Math.floor(((y - 1) * 2) / 5) * 3 + Math.floor(((x - 1) * 3) / 7)]
          : 0;
        expect(words[y * 10 + x], `(${y}, ${x})`).toBe(expected);
      }
    }
  });

  it("averages what falls on one pixel when it reduces", () => {
    const bytes = Uint8Array.of(0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150);
    const words = new Uint32Array(4);
    paintTile(
      { words, stride: 2, rows: 2 },
      { bytes, start: 0, height: 4, width: 4 },
      { x: 0, y: 0, width: 2, height: 2 },
      identity,
    );
    // (0 + 10 + 40 + 50) / 4 and so on.
    expect([...words]).toEqual([25, 45, 105, 125]);
  });

  it("leaves out what lies beyond the target", () => {
    const words = new Uint32Array(4);
    const source = { bytes: Uint8Array.of(7), start: 0, height: 1, width: 1 };
    paintTile({ words, stride: 2, rows: 2 }, source, { x: 1, y: 1, width: 5, height: 5 }, identity);
    expect([...words]).toEqual([0, 0, 0, 7]);
  });
});

describe("the order of channels", () => {
  it("puts the strongest first, keeps equals by index and NaN last", () => {
    const strength = Float32Array.of(1, 3, Number.NaN, 3, 2);
    expect([...ordered(strength, "strength")]).toEqual([1, 3, 4, 0, 2]);
    expect([...ordered(strength, "index")]).toEqual([0, 1, 2, 3, 4]);
  });
});

describe("the sheet", () => {
  const wish = { count: 128, width: 440, size: 60, map: [28, 28] as [number, number], dpr: 1 };

  it("gives each map pixel a whole number of device pixels", () => {
    expect(crisp(28, 60, 1)).toBe(56);
    expect(crisp(28, 60, 2)).toBe(56);
    expect(crisp(112, 60, 1)).toBe(56);
    expect(crisp(56, 60, 1)).toBe(56);
    const sheet = layout(wish);
    expect((sheet.width / 28) % 1).toBe(0);
    expect(sheet.width).toBe(sheet.height);
  });

  it("keeps every tile inside the width and apart from the others, at every size and width", () => {
    for (const width of [120, 340, 441.5, 700]) {
      for (const size of [18, 33, 60, 130, 440, 2000]) {
        for (const map of [
          [7, 7],
          [28, 28],
          [112, 112],
          [1, 100],
          [40, 90],
          [90, 40],
        ] as [number, number][]) {
          for (const dpr of [1, 1.5, 2]) {
            const sheet = layout({ count: 50, width, size, map, dpr });
            const what = `${map} at ${size} in ${width} × ${dpr}`;
            const last = place(sheet, Math.min(sheet.columns, 50) - 1);
            expect(last.x + sheet.width, what).toBeLessThanOrEqual(width + 1e-6);
            expect(sheet.gap, what).toBeGreaterThanOrEqual(4);
            expect(sheet.rows * sheet.columns, what).toBeGreaterThanOrEqual(50);
            expect(place(sheet, 49).y + sheet.height, what).toBeCloseTo(sheet.total, 6);
          }
        }
      }
    }
  });

  it("goes from an overview to a single map across", () => {
    expect(layout({ ...wish, size: 18 }).columns).toBeGreaterThan(12);
    const single = layout({ ...wish, size: 440 });
    expect(single.columns).toBe(1);
    expect(single.width).toBeGreaterThan(400);
  });

  it("knows exactly the rows in the window", () => {
    const sheet = layout(wish);
    const pitch = sheet.height + sheet.gap;
    for (let top = 0; top < sheet.total; top += 7) {
      const seen = rowsIn(sheet, top, 200);
      for (let row = 0; row < sheet.rows; row++) {
        const visible = row * pitch + sheet.height > top && row * pitch < top + 200;
        const listed = row >= seen.first && row < seen.end;
        // A row may be listed for its gap; a visible one is never missing.
        if (visible) expect(listed, `row ${row} at ${top}`).toBe(true);
        if (listed) expect(row * pitch + pitch > top && row * pitch < top + 200 + pitch).toBe(true);
      }
    }
    expect(positions(sheet, { first: 0, end: sheet.rows })).toEqual({ from: 0, to: 128 });
  });

  it("has few tiles in the window of a layer with 2048 channels", () => {
    const sheet = layout({ ...wish, count: 2048, map: [7, 7] });
    const { from, to } = positions(sheet, rowsIn(sheet, 5000, 220, 2));
    expect(to - from).toBeLessThan(100);
  });

  it("scrolls no further than needed to show a tile", () => {
    const sheet = layout(wish);
    expect(reveal(sheet, 0, 0, 200)).toBe(0);
    const far = reveal(sheet, 100, 0, 200);
    const { y } = place(sheet, 100);
    expect(y).toBeGreaterThanOrEqual(far);
    expect(y + sheet.height).toBeLessThanOrEqual(far + 200);
    expect(reveal(sheet, 100, far, 200)).toBe(far);
  });

  it("finds the map pixel under a point and stays inside", () => {
    expect(pixelAt(0.5, 0.25, 8, 4)).toEqual([2, 2]);
    expect(pixelAt(-3, 7, 8, 4)).toEqual([7, 0]);
    expect(pixelAt(0.9999, 0.9999, 8, 4)).toEqual([7, 3]);
  });
});

describe("planes", () => {
  it("speak the activation's coordinates where tiles were reduced", () => {
    const tiles = Uint8Array.of(10, 20, 30, 40);
    const planes = planesOf(
      maps({ shape: [1, 4, 4], tile: [2, 2], tiles, low: Float32Array.of(0), high: Float32Array.of(255) }),
    );
    if (!planes) throw new Error("a stack of maps has planes");
    expect(planes.shape).toEqual([4, 4]);
    expect(byteAt(planes, 0, 3, 1)).toBe(30);
    expect(read(planes, 0, 3, 1, null)).toEqual({ value: 30, exact: false });
    const raw = Float32Array.from({ length: 16 }, (_, i) => i / 8);
    expect(read(planes, 0, 3, 1, raw)).toEqual({ value: 13 / 8, exact: true });
  });

  it("lay patch tokens on their grid and keep the extra ones aside", () => {
    // Two features of 1 + 2 x 2 tokens.
    const tiles = Uint8Array.of(9, 1, 2, 3, 4, 9, 5, 6, 7, 8);
    const planes = planesOf(
      maps({
        kind: "tokens",
        shape: [2, 5, 1],
        tile: [5, 1],
        tiles,
        low: new Float32Array(2),
        high: Float32Array.of(255, 255),
        strength: new Float32Array(2),
        grid: { rows: 2, cols: 2, skip: 1 },
      }),
    );
    if (!planes) throw new Error("patch tokens have planes");
    expect(byteAt(planes, 1, 1, 0)).toBe(7);
    expect(planes.unit(1, 0)).toEqual([3, 0]);
    expect(planes.spot([3, 0])).toEqual([1, 0]);
    expect(planes.spot([0, 0])).toBeNull();
    expect(planes.raw(1, 0)).toBe(3);
    expect(readExtra(planes, 1, 0, null).value).toBe(9);
    expect(readExtra(planes, 1, 0, Float32Array.of(8.75, 0))).toEqual({ value: 8.75, exact: true });
  });

  it("are none for a vector and for words", () => {
    expect(planesOf(maps({ kind: "vector" }))).toBeNull();
    expect(planesOf(maps({ kind: "tokens" }))).toBeNull();
  });

  it("count zeros only in raw values and every byte once in the histogram", () => {
    const planes = planesOf(maps({ shape: [1, 2, 2], tile: [2, 2], tiles: Uint8Array.of(0, 0, 128, 255) }));
    if (!planes) throw new Error("a stack of maps has planes");
    const summary = summarize(planes, 0, null);
    expect(summary.zeros).toBeNull();
    expect(summary.bins.reduce((a, b) => a + b)).toBe(4);
    expect([summary.bins[0], summary.bins[16], summary.bins[31]]).toEqual([2, 1, 1]);
    expect(summarize(planes, 0, Float32Array.of(0, 1e-9, 0, 3)).zeros).toBe(0.5);
  });
});

describe("vectors", () => {
  it("read about right from one row of bytes and exactly from raw values", () => {
    const row = maps({
      kind: "vector",
      shape: [1, 1, 3],
      tile: [1, 3],
      tiles: Uint8Array.of(0, 51, 255),
      low: Float32Array.of(-1),
      high: Float32Array.of(4),
    });
    expect([...rowOf(row, null).values]).toEqual([-1, 0, 4]);
    const raw = Float32Array.of(-1, 0.01, 4);
    expect(rowOf(row, raw)).toEqual({ values: raw, exact: true });
  });

  it("are their own ranges where each entry is a channel", () => {
    const low = Float32Array.of(0.5, -2);
    const entries = maps({ kind: "vector", shape: [2, 1, 1], tiles: new Uint8Array(2), low, high: low });
    expect(rowOf(entries, null)).toEqual({ values: low, exact: true });
  });

  it("range over what is finite", () => {
    expect(rangeOf(Float32Array.of(Number.NaN, 2, Number.POSITIVE_INFINITY, -1))).toEqual([-1, 2]);
    expect(rangeOf(Float32Array.of(Number.NaN))).toEqual([0, 0]);
  });

  it("wrap into a grid that holds every entry and fills the width", () => {
    for (const count of [129, 512, 1000, 4096, 25088]) {
      const grid = wrap(count, 440, 260);
      expect(grid.rows * grid.columns).toBeGreaterThanOrEqual(count);
      expect((grid.rows - 1) * grid.columns).toBeLessThan(count);
      expect(grid.columns * grid.cell).toBeCloseTo(440);
    }
    expect(wrap(512, 440, 260).columns).toBe(32);
  });
});
