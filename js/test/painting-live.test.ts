// @vitest-environment happy-dom
// Frames while somebody draws: what is asked, what is shown of the answers, and when it is over.

import { signal } from "@preact/signals";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Board } from "../src/paint/board";
import { Live } from "../src/paint/live";
import type { Maps, Strip } from "../src/state/data";
import type { Store } from "../src/state/store";

const FRAME = 16;

/** A store of which the painter sees enough, and a kernel that answers when the test says so. */
function page() {
  const asked: { picture: number; slot: string; answer(name: string, ms?: number): Promise<void> }[] = [];
  const done: string[] = [];
  const run = signal({ run: 1, epoch: 0, predictions: { task: "classification", classes: [] } });
  const store = {
    shown: signal("conv"),
    strips: signal(new Map<string, Strip>()),
    maps: signal<{ state: string; data: Maps | null }>({ state: "ready", data: null }),
    input: signal(null),
    thumbs: signal(null),
    changes: { params: {}, made: signal(null) },
    synced: {
      run,
      info: signal({ samples: 4 }),
      selection: signal({ sample: 0 }),
      select: (change: { sample: number }) => done.push(`sample ${change.sample}`),
    },
    stop: async () => done.push("stop"),
    refresh: async () => done.push("refresh"),
    request: (_op: string, _params: unknown, { slot, buffers }: { slot: string; buffers: ArrayBuffer[] }) =>
      new Promise((resolve) => {
        asked.push({
          picture: new Uint8Array(buffers[0] as ArrayBuffer)[0] as number,
          slot,
          answer: async (name, ms = 5) => {
            resolve(reply(name, ms));
            for (let i = 0; i < 5; i++) await Promise.resolve();
          },
        });
      }),
  };
  const live = new Live(store as unknown as Store, () => null);
  const draw = (picture: number) => live.ask(Uint8ClampedArray.of(picture, 0, 0), 0);
  const names = () => run.value.predictions.classes.map((entry: { name: string }) => entry.name);
  return { live, store, asked, done, draw, names };
}

function reply(name: string, ms: number) {
  const maps = { data: Uint8Array.of(1, 2, 3, 4), shape: [1, 2, 2] };
  const one = { data: Float32Array.of(1) };
  return {
    epoch: 0,
    meta: {
      predictions: { task: "classification", classes: [{ name }] },
      strips: [],
      maps: { node: "conv", kind: "maps", shape: [1, 2, 2], bad: [] },
      ms,
      recorded: false,
    },
    arrays: { tiles: { data: new Uint8Array() }, maps, low: one, high: one, strength: one },
  };
}

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

describe("painting live", () => {
  it("has three pictures on their way, and then sends the newest of all that were drawn meanwhile", async () => {
    const { asked, draw } = page();
    for (const picture of [1, 2, 3, 4, 5, 6]) draw(picture);
    expect(asked.map((question) => question.picture)).toEqual([1, 2, 3]);
    expect(new Set(asked.map((question) => question.slot)).size).toBe(3);
    await asked[0]?.answer("one");
    expect(asked.map((question) => question.picture)).toEqual([1, 2, 3, 6]);
  });

  it("shows the newest answer once for each picture of the screen, and none that is older", async () => {
    const { asked, draw, names, store } = page();
    const seen: string[][] = [];
    store.synced.run.subscribe(() => seen.push(names()));
    for (const picture of [1, 2, 3]) draw(picture);
    await asked[1]?.answer("two");
    await asked[0]?.answer("one");
    await asked[2]?.answer("three");
    expect(names()).toEqual([]);
    vi.advanceTimersByTime(FRAME);
    expect(names()).toEqual(["three"]);
    vi.advanceTimersByTime(5 * FRAME);
    expect(seen).toEqual([[], ["three"]]);
  });

  it("says that its maps are of another run than the one whose raw values can be read", async () => {
    const { asked, draw, store } = page();
    draw(1);
    await asked[0]?.answer("one");
    vi.advanceTimersByTime(FRAME);
    expect(store.maps.value.data?.live).toBe(true);
  });

  it("asks hardly oftener than the page has shown answers, and still for the newest picture", async () => {
    const { asked, draw } = page();
    const turn = async (picture: number, answers: () => Promise<void>) => {
      draw(picture);
      draw(picture + 1);
      vi.advanceTimersByTime(100 - FRAME);
      await answers();
      vi.advanceTimersByTime(FRAME);
    };
    // A page that shows ten pictures a second, and a kernel that would answer any number of them.
    let answered = 0;
    const all = async () => {
      for (; answered < asked.length; answered++) await asked[answered]?.answer("soon");
    };
    for (let picture = 0; picture < 40; picture += 2) await turn(picture, all);
    const before = asked.length;
    for (let picture = 40; picture < 60; picture += 2) await turn(picture, all);
    expect(asked.length - before).toBeGreaterThanOrEqual(10);
    expect(asked.length - before).toBeLessThanOrEqual(13);
    // Nobody draws any more: what was drawn last is asked for all the same.
    vi.advanceTimersByTime(200);
    expect(asked.at(-1)?.picture).toBe(59);
  });

  it("goes back to every picture of the screen when what held it up is over", async () => {
    const { asked, draw, store } = page();
    let shown = 0;
    store.synced.run.subscribe(() => {
      shown += 1;
    });
    let answered = 0;
    const turn = async (picture: number, ms: number) => {
      draw(picture);
      vi.advanceTimersByTime(ms - FRAME / 2);
      for (; answered < asked.length; answered++) await asked[answered]?.answer(`${picture}`);
      vi.advanceTimersByTime(FRAME / 2);
    };
    for (let picture = 0; picture < 20; picture++) await turn(picture, 5 * FRAME);
    for (let picture = 20; picture < 100; picture++) await turn(picture, FRAME);
    shown = 0;
    for (let picture = 100; picture < 160; picture++) await turn(picture, FRAME);
    expect(shown).toBeGreaterThan(50);
  });

  it("counts answers that were shown, not answers that came", async () => {
    const { asked, draw, live } = page();
    // Two answers for every picture of the screen, of which there are ten a second.
    for (let turn = 0; turn < 20; turn++) {
      draw(2 * turn);
      draw(2 * turn + 1);
      vi.advanceTimersByTime(100 - FRAME);
      await asked.at(-2)?.answer("first");
      await asked.at(-1)?.answer("second");
      vi.advanceTimersByTime(FRAME);
    }
    expect(live.rate.value?.fps).toBeGreaterThan(9);
    expect(live.rate.value?.fps).toBeLessThan(11);
  });

  it("counts neither the time between strokes nor two answers in a row as the rate", async () => {
    const { asked, draw, live } = page();
    // A picture a second, each answered after 50 ms.
    for (let turn = 0; turn < 6; turn++) {
      draw(turn);
      vi.advanceTimersByTime(50 - FRAME);
      await asked.at(-1)?.answer("alone");
      vi.advanceTimersByTime(FRAME);
      vi.advanceTimersByTime(1000);
    }
    expect(live.rate.value?.fps).toBeGreaterThan(17);
    expect(live.rate.value?.fps).toBeLessThan(32);
    // One answer that takes half a second, and the next right after it: four a second, not sixty.
    draw(7);
    draw(8);
    vi.advanceTimersByTime(484);
    await asked.at(-2)?.answer("slow");
    vi.advanceTimersByTime(FRAME);
    await asked.at(-1)?.answer("behind it");
    vi.advanceTimersByTime(FRAME);
    expect(live.rate.value?.fps).toBeLessThan(16);
  });

  it("runs the painted sample when the drawing rests, after the last answer is on the page", async () => {
    const { asked, draw, done, names } = page();
    draw(1);
    await asked[0]?.answer("one");
    // Nobody sees the page: it has no pictures.
    vi.stubGlobal("requestAnimationFrame", () => 1);
    draw(2);
    await asked[1]?.answer("two");
    expect(done).toEqual([]);
    vi.advanceTimersByTime(1000);
    expect(names()).toEqual(["two"]);
    expect(done).toEqual(["sample 4"]);
    vi.unstubAllGlobals();
  });

  it("gives up that run when somebody draws on, and shows nothing once it is stopped", async () => {
    const { asked, draw, done, names, live } = page();
    draw(1);
    await asked[0]?.answer("one");
    vi.advanceTimersByTime(1000);
    draw(2);
    expect(done).toEqual(["sample 4", "stop"]);
    await asked[1]?.answer("two");
    live.stop();
    vi.advanceTimersByTime(1000);
    expect(names()).toEqual(["one"]);
    expect(done).toEqual(["sample 4", "stop"]);
  });
});

describe("the painter's canvas", () => {
  /** A canvas that counts how often the picture is put on it. */
  function canvas() {
    const pen = new Proxy({ drawImage: vi.fn() } as Record<string, unknown>, {
      get: (target, name: string) => target[name] ?? (() => undefined),
    });
    const element = { width: 0, height: 0, getContext: () => pen } as unknown as HTMLCanvasElement;
    return { element, drawn: pen.drawImage as ReturnType<typeof vi.fn> };
  }

  it("is painted once for a picture of the screen while nothing is under way", () => {
    const { element, drawn } = canvas();
    const board = new Board(element, { width: 2, height: 2 });
    for (let turn = 0; turn < 10; turn++) {
      board.point({ ring: [turn, 0], size: 2 });
      board.point({ ring: [turn, 1], size: 2 });
      vi.advanceTimersByTime(FRAME);
    }
    expect(drawn).toHaveBeenCalledTimes(10);
  });

  it("is painted along with the answers, and without one a moment later", () => {
    const { element, drawn } = canvas();
    const board = new Board(element, { width: 2, height: 2 }, () => true);
    const draw = (turn: number) => board.point({ ring: [turn, 0], size: 2 });
    draw(0);
    vi.advanceTimersByTime(FRAME);
    drawn.mockClear();
    draw(1);
    vi.advanceTimersByTime(FRAME - 6);
    expect(drawn).not.toHaveBeenCalled();
    board.now();
    expect(drawn).toHaveBeenCalledTimes(1);
    board.now();
    expect(drawn).toHaveBeenCalledTimes(1);
    draw(2);
    vi.advanceTimersByTime(FRAME);
    expect(drawn).toHaveBeenCalledTimes(1);
    vi.advanceTimersByTime(2 * FRAME);
    expect(drawn).toHaveBeenCalledTimes(2);
  });
});
