import { type Signal, signal } from "@preact/signals";
import { describe, expect, it, vi } from "vitest";
import { Comparing, choose } from "../src/compare/comparing";
import {
  bar,
  changeScale,
  orderOf,
  type Pair,
  type Plates,
  panned,
  parts,
  pixels,
  rowsOf,
  sideScale,
  under,
  WHOLE,
  zoomed,
} from "../src/compare/rows";
import { table, ZERO } from "../src/maps/colormaps";
import { colour } from "../src/maps/lut";
import type { Store } from "../src/state/store";
import { NOTHING_SELECTED, type Selection } from "../src/state/synced";
import { WireError } from "../src/wire/client";

/** Two channels of two by two: what A has, what B has, and B less A, all in bytes from 0 to 255. */
function plates(more: Partial<Plates> = {}): Plates {
  const side = (values: number[], low: number[], high: number[]) => ({
    values: Uint8Array.from(values),
    low: Float32Array.from(low),
    high: Float32Array.from(high),
  });
  return {
    key: "k",
    node: "conv",
    other: "conv",
    kind: "maps",
    shape: { a: [2, 2], b: [2, 2] },
    tile: { a: [2, 2], b: [2, 2] },
    a: side([0, 255, 0, 0, 0, 0, 0, 0], [0, 5], [1, 5]),
    b: side([0, 255, 0, 0, 0, 0, 0, 255], [0, 5], [2, 9]),
    d: side([0, 255, 0, 0, 0, 0, 0, 255], [0, 0], [1, 4]),
    channels: 2,
    channelsB: 2,
    strength: Float32Array.from([0.25, 1]),
    partner: null,
    fit: null,
    skip: -1,
    ...more,
  };
}

const PALETTE = { colormap: "viridis", sign: "value", range: "channel" } as const;

describe("the list of layers", () => {
  const pairs: Pair[] = [
    ["stem", "stem", "path", false],
    ["a.conv", "b.conv", "order", false],
    ["a.relu", "a.relu", "path", false],
    ["a", "b", "order", true],
  ];

  it("follows the network, with headings, what only one has in its place or at the end", () => {
    const nodes = ["input", "stem", "a.conv", "a.extra", "a.relu", "output"];
    const rows = rowsOf(nodes, pairs, [["a.extra"], ["b.last"]]);
    expect(rows.map(({ id, pair, only, heads }) => [id, pair, only ?? (heads ? "heading" : "")])).toEqual([
      ["stem", 0, ""],
      ["a", -1, "heading"],
      ["a.conv", 1, ""],
      ["a.extra", -1, "A"],
      ["a.relu", 2, ""],
      ["only in B", -1, "heading"],
      ["b.last", -1, "B"],
    ]);
  });

  it("splits an id where its last name begins", () => {
    expect(parts("layer1.0/add@1")).toEqual(["layer1.0/", "add@1"]);
    expect(parts("fc")).toEqual(["", "fc"]);
  });

  it("draws bars from nothing to one", () => {
    expect(bar("cka", 0.25)).toBe(0.25);
    expect(bar("cka", -0.1)).toBe(0);
    expect(bar("correlation", -0.5)).toBe(0.5);
    expect(bar("difference", 3)).toBe(1);
    expect(bar("cka", Number.NaN)).toBe(0);
  });
});

describe("the three maps", () => {
  it("give one colour one value in A and in B", () => {
    const shown = plates();
    const scale = sideScale(shown, 0, PALETTE);
    expect([scale.from, scale.to]).toEqual([0, 2]);
    // The largest of A is 1, the middle of the scale; that of B is 2, its end.
    expect(pixels(shown.a, [2, 2], 0, scale)[1]).toBe(colour(1, scale));
    expect(pixels(shown.b, [2, 2], 0, scale)[1]).toBe(colour(2, scale));
    const shared = sideScale(shown, 0, { ...PALETTE, range: "layer" });
    expect([shared.from, shared.to]).toEqual([0, 9]);
  });

  it("show no difference as white and equal changes equally far from it", () => {
    const shown = plates();
    const scale = changeScale(shown, 1, "channel");
    expect([scale?.from, scale?.to]).toEqual([-4, 4]);
    const words = pixels(shown.d as NonNullable<Plates["d"]>, [2, 2], 1, scale as NonNullable<typeof scale>);
    const white = table("diverging")[ZERO];
    expect([words[0], words[3]]).toEqual([white, table("diverging")[255]]);
    const same = { values: new Uint8Array(8), low: new Float32Array(2), high: new Float32Array(2) };
    const still = changeScale(plates({ d: same }), 0, "channel") as NonNullable<typeof scale>;
    expect([...pixels(same, [2, 2], 0, still)]).toEqual([white, white, white, white]);
    expect(changeScale(plates({ d: null }), 0, "channel")).toBeNull();
  });

  it("scale a channel that B lacks by A alone", () => {
    const b = { values: new Uint8Array(4), low: new Float32Array(1), high: new Float32Array(1) };
    const scale = sideScale(plates({ b }), 1, PALETTE);
    expect([scale.from, scale.to]).toEqual([5, 5]);
  });

  it("come with what changed most first, or as they are", () => {
    expect([...orderOf(plates(), "changed")]).toEqual([1, 0]);
    expect([...orderOf(plates(), "index")]).toEqual([0, 1]);
  });
});

describe("looking closer", () => {
  it("keeps what is under the pointer under it", () => {
    const before = under(WHOLE, 0.8, 0.3, 100, 100);
    const near = zoomed(WHOLE, 4, 0.8, 0.3);
    expect(near.times).toBe(4);
    expect(under(near, 0.8, 0.3, 100, 100)).toEqual(before);
    expect(zoomed(near, 1e-3, 0.5, 0.5)).toBe(WHOLE);
    expect(zoomed(near, 1e3, 0.5, 0.5).times).toBe(16);
  });

  it("never leaves the map", () => {
    const corner = panned(zoomed(WHOLE, 2, 0.5, 0.5), 5, -5);
    expect(corner).toEqual({ x: 0, y: 0.5, times: 2 });
    expect(under(corner, 1, 1, 8, 8)).toEqual([7, 4]);
  });
});

// ---- what is asked of the kernel

function view(samples = 4) {
  const selection = signal<Selection>({ ...NOTHING_SELECTED });
  const waiting: {
    op: string;
    params: Record<string, unknown>;
    answer(reply: unknown): void;
    fail(e: unknown): void;
    signal?: AbortSignal;
  }[] = [];
  const store = {
    changes: { key: signal(""), params: {} as Record<string, unknown> },
    synced: {
      selection,
      run: signal({ run: 1, sample: 0 }),
      info: signal<Record<string, unknown>>({ samples }),
      select: (change: Partial<Selection>) => {
        selection.value = { ...selection.peek(), ...change };
      },
    },
    request: vi.fn(
      (
        op: string,
        params: Record<string, unknown>,
        options: { onChunk?(part: unknown): void; signal?: AbortSignal },
      ) =>
        new Promise((resolve, reject) => {
          const answer = (reply: unknown) => {
            options.onChunk?.(reply);
            resolve(reply);
          };
          waiting.push({ op, params, answer, fail: reject, signal: options.signal });
        }),
    ),
  };
  return { store: store as unknown as Store, synced: store.synced, waiting };
}

function part(pairs?: Pair[]) {
  const data = (value: number) => ({ data: Float32Array.from([value]) });
  return {
    meta: { pairs, only: pairs && [[], []], notes: [], progress: 1, samples: 0, classes: [] },
    arrays: {
      cka: data(0.5),
      difference: data(0.1),
      correlation: data(0.9),
      note: { data: Int32Array.from([-1]) },
      measured: { data: Uint8Array.from([1]) },
    },
  };
}

const PAIRS: Pair[] = [["conv", "conv", "path", false]];

describe("what a view compares", () => {
  it("is the next sample at first, and what is set from Python when it comes", async () => {
    const { store, synced, waiting } = view();
    const comparing = new Comparing(store);
    const end = comparing.follow();
    expect(waiting.map(({ op, params }) => [op, params.sample, params.other])).toEqual([["compare", 0, 1]]);
    synced.info.value = { samples: 4, compare: { kind: "model", name: "pruned", version: 1 } };
    expect(waiting.at(-1)?.params).toMatchObject({ other: null, examples: "positions" });
    comparing.over.value = "samples";
    expect(waiting.at(-1)?.params).toMatchObject({ other: null, examples: "samples" });
    synced.info.value = { samples: 4, compare: { kind: "sample", name: "sample 3", sample: 3, version: 2 } };
    expect(waiting.at(-1)?.params).toMatchObject({ other: 3, examples: "positions" });
    end();
  });

  it("follows the sample on the screen, and asks nothing twice", () => {
    const { store, synced, waiting } = view();
    const end = new Comparing(store).follow();
    synced.run.value = { run: 2, sample: 2 };
    expect(waiting.map(({ params }) => [params.sample, params.other])).toEqual([
      [0, 1],
      [2, 1],
    ]);
    synced.info.value = { samples: 4 };
    expect(waiting.length).toBe(2);
    end();
  });

  it("lets A and B change places when B's sample comes on the screen", () => {
    const { store, synced, waiting } = view();
    const end = new Comparing(store).follow();
    synced.run.value = { run: 2, sample: 1 };
    expect(waiting.at(-1)?.params).toMatchObject({ sample: 1, other: 0 });
    end();
  });

  it("takes the changes of the page along, and can stand beside the network without them", () => {
    const { store, waiting } = view();
    const comparing = new Comparing(store);
    const end = comparing.follow();
    Object.assign(store.changes.params, { changed: [{ layer: "conv" }] });
    (store.changes.key as Signal<string>).value = "one";
    expect(waiting.at(-1)?.params).toMatchObject({ other: 1, changed: [{ layer: "conv" }] });
    comparing.other.value = "plain";
    expect(waiting.at(-1)?.params).toMatchObject({ other: "plain", changed: [{ layer: "conv" }] });
    (store.changes.key as Signal<string>).value = "";
    expect(waiting.at(-1)?.params.other).toBe(1);
    end();
  });

  it("is stopped, keeps what it has, and goes on when asked", async () => {
    const { store, waiting } = view();
    const comparing = new Comparing(store);
    const end = comparing.follow();
    comparing.stop();
    expect(waiting[0]?.signal?.aborted).toBe(true);
    waiting[0]?.fail(new WireError("cancelled", "cancelled"));
    await vi.waitFor(() => expect(comparing.running.value).toBe(false));
    expect(comparing.error.value).toBe("");
    comparing.again();
    expect(waiting.length).toBe(2);
    end();
    expect(waiting[1]?.signal?.aborted).toBe(true);
  });

  it("asks for the maps of the chosen layer once the pairs are known", async () => {
    const { store, synced, waiting } = view();
    const comparing = new Comparing(store);
    const end = comparing.follow();
    waiting[0]?.answer(part(PAIRS));
    expect(waiting.at(-1)).toMatchObject({
      op: "compare_maps",
      params: { node: "conv", sample: 0, other: 1 },
    });
    const asked = waiting.length;
    await Promise.resolve();
    synced.select({ layer: "head" });
    expect(waiting.length).toBe(asked + 1);
    expect(waiting.at(-1)?.params.node).toBe("head");
    waiting.at(-1)?.fail(new Error("'head' has no partner in B."));
    await vi.waitFor(() => expect(comparing.lacking.value).toContain("no partner"));
    end();
  });

  it("says what went wrong, and takes it up again", async () => {
    const { store, waiting } = view();
    const comparing = new Comparing(store);
    const end = comparing.follow();
    waiting[0]?.fail(Object.assign(new Error("no such thing"), { hint: "Do this." }));
    await vi.waitFor(() => expect(comparing.error.value).toBe("no such thing Do this."));
    expect(comparing.running.value).toBe(false);
    comparing.again();
    expect(waiting.length).toBe(2);
    expect(comparing.error.value).toBe("");
    end();
  });

  it("waits where there is nothing to compare with", () => {
    const { store, waiting } = view(1);
    const end = new Comparing(store).follow();
    expect(waiting).toEqual([]);
    end();
  });

  it("makes a channel the selected one of its layer", () => {
    const { store, synced } = view();
    choose(store, "conv", 3, [1, 2]);
    expect(synced.selection.value).toMatchObject({ layer: "conv", channel: 3, pixel: [1, 2], class: null });
  });
});
