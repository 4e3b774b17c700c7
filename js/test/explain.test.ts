// Attributions on the page: numbers to colours, what is asked for, how parts become maps, and what is cancelled.

import { signal } from "@preact/signals";
import { describe, expect, it } from "vitest";
import { title } from "../src/explain/ExplainCard";
import { Explaining, FIRST } from "../src/explain/explaining";
import { byteOf, type FloatMap, grayOf, overlayWords, reachOf, valueAt } from "../src/explain/floatMap";
import { nameOf } from "../src/explain/JudgeTable";
import { FIRST_METRICS, Judging } from "../src/explain/judging";
import { Changes, changedBy } from "../src/state/changes";
import { NOTHING_SELECTED, type Run, type Synced } from "../src/state/synced";

const map = (values: number[], width: number): FloatMap => ({
  height: values.length / width,
  width,
  values: Float32Array.from(values),
});

describe("colours of raw maps", () => {
  it("reach as far as the share of magnitudes that is asked for", () => {
    const values = map([1, -2, 3, -4, 5, -6, 7, -8, 9, -100], 5);
    expect(reachOf(values, 100)).toBe(100);
    expect(reachOf(values, 90)).toBe(9);
    expect(reachOf(values, 50)).toBe(5);
  });

  it("show the little there is where nearly everything is zero", () => {
    expect(reachOf(map([0, 0, 0, 0, 0, 0, 0, 0, 0, 3], 5), 50)).toBe(3);
    expect(reachOf(map([0, 0], 2), 99)).toBe(0);
    expect(reachOf(map([Number.NaN, 2], 2), 100)).toBe(2);
  });

  it("put zero in the middle, and both ends equally far from it", () => {
    expect([-9, -2, 0, 2, 9].map((value) => byteOf(value, 2, "signed"))).toEqual([1, 1, 128, 255, 255]);
    expect([-2, 0, 1, 2].map((value) => byteOf(value, 2, "absolute"))).toEqual([255, 0, 128, 255]);
    expect(byteOf(1, 0, "signed")).toBe(128);
    expect(byteOf(Number.NaN, 2, "absolute")).toBe(0);
  });

  it("are see-through at zero and lie where the input's pixels are", () => {
    const words = overlayWords(map([0, 5], 2), 2, 4, { reach: 5, sign: "signed", opacity: 1 });
    const alphas = Array.from(words, (word) => word >>> 24);
    expect(alphas).toEqual([0, 0, 235, 235, 0, 0, 235, 235]);
    const faint = overlayWords(map([5], 1), 1, 1, { reach: 5, sign: "signed", opacity: 0.5 });
    expect((faint[0] as number) >>> 24).toBe(118);
  });

  it("read the value under a pixel of the input, also of a coarser map", () => {
    const coarse = map([1, 2, 3, 4], 2);
    expect(valueAt(coarse, { y: 0, x: 3 }, 4, 4)).toBe(2);
    expect(valueAt(coarse, { y: 3, x: 0 }, 4, 4)).toBe(3);
  });

  it("lie on a pale gray input", () => {
    const words = grayOf(Uint8Array.from([0, 0, 0, 255, 255, 255]));
    expect([...words]).toEqual([70, 70, 70, 255, 243, 243, 243, 255]);
  });
});

describe("names", () => {
  it("are written as people write them", () => {
    expect(["grad_cam_plus_plus", "lime", "integrated_gradients"].map(title)).toEqual([
      "grad CAM++",
      "LIME",
      "integrated gradients",
    ]);
  });

  it("of rows tell the options that tell maps of one method apart", () => {
    const key = "integrated_gradients · sample 0 · target 3 · baselines blur · epoch 0";
    expect(nameOf(key, false)).toBe("integrated gradients · baselines blur");
    expect(nameOf("saliency · sample 0 · target 3 · epoch 0", false)).toBe("saliency");
    expect(nameOf("random", true)).toBe("random");
  });
});

const CHANGED = changedBy([{ kind: "ablate", layer: "conv", channel: 3, on: true }], {
  task: "classification",
  classes: [{ index: 9, name: "c9", prob: 1, logit: 3 }],
});

interface Asked {
  op: string;
  // biome-ignore lint/suspicious/noExplicitAny: whatever was asked
  params: any;
  // biome-ignore lint/suspicious/noExplicitAny: as the client takes them
  options: any;
  resolve(reply: unknown): void;
  reject(error: unknown): void;
}

const METHODS = [...FIRST, "lime"].map((name) => ({
  name,
  description: name,
  cost: "F",
  family: "gradient",
  paper: "",
  options: name === "integrated_gradients" ? { baselines: "zero", n_steps: 50 } : {},
}));

function bench() {
  const asked: Asked[] = [];
  const classes = [2, 5].map((index) => ({ index, name: `c${index}`, prob: 0.5, logit: 0 }));
  const run = signal<Run | null>({
    sample: 1,
    epoch: 7,
    run: 1,
    ms: 1,
    consistent: true,
    predictions: { task: "classification", classes },
  });
  const synced = {
    run,
    selection: signal({ ...NOTHING_SELECTED, sample: 1 }),
    info: signal({ samples: 9 }),
  } as unknown as Synced;
  const changes = new Changes(synced);
  // biome-ignore lint/suspicious/noExplicitAny: stands for the wire of any operation
  const ask = (op: string, params: unknown, options: unknown): any =>
    new Promise((resolve, reject) => {
      const one = { op, params, options, resolve, reject } as Asked;
      asked.push(one);
      (options as { signal?: AbortSignal })?.signal?.addEventListener("abort", () =>
        reject({ code: "cancelled", message: "cancelled" }),
      );
      if (op === "methods") resolve({ meta: { methods: METHODS }, arrays: {} });
    });
  const explaining = new Explaining(synced, changes, ask as ConstructorParameters<typeof Explaining>[2]);
  const judging = new Judging(explaining, ask as ConstructorParameters<typeof Judging>[1]);
  const attributes = () => asked.filter(({ op }) => op === "attribute");
  return { explaining, judging, asked, attributes, run, synced, changes };
}

const settled = () => new Promise((resolve) => setTimeout(resolve, 0));

function part(start: number, rows: number, total: number, value: number, progress: number) {
  const array = (sign: number) => ({
    data: new Float32Array(rows * 2).fill(sign * value),
    shape: [rows, 2],
    start,
    total,
  });
  return { arrays: { signed: array(-1), magnitude: array(1) }, meta: { progress }, epoch: 7, last: false };
}

describe("the page of attributions", () => {
  it("begins with methods of every family on the best class", async () => {
    const { explaining, attributes } = bench();
    const end = explaining.follow();
    await settled();
    expect(attributes().map(({ params }) => params.method)).toEqual(FIRST);
    expect(new Set(attributes().map(({ params }) => params.target))).toEqual(new Set([2]));
    expect(attributes()[1]?.params.options).toEqual({ baselines: "zero" });
    end();
  });

  it("draws a part only when all of its rows are here, and keeps it until the next is", async () => {
    const { explaining, attributes } = bench();
    const end = explaining.follow();
    await settled();
    const one = attributes()[0] as Asked;
    const card = explaining.card(explaining.wishes.value[0] as never);
    one.options.onChunk(part(0, 2, 3, 1, 0.1));
    expect(card.value.signed).toBeNull();
    one.options.onChunk(part(2, 1, 3, 1, 0.1));
    expect([...(card.value.signed?.values ?? [])]).toEqual([-1, -1, -1, -1, -1, -1]);
    one.options.onChunk(part(0, 2, 3, 5, 0.5));
    expect(card.value.meta?.progress).toBe(0.1);
    expect(card.value.magnitude?.values[0]).toBe(1);
    one.options.onChunk(part(2, 1, 3, 5, 0.5));
    expect(card.value.meta?.progress).toBe(0.5);
    expect(card.value.magnitude?.values[0]).toBe(5);
    one.resolve({});
    await settled();
    expect(card.value.state).toBe("ready");
    end();
  });

  it("cancels what is no longer shown and asks for nothing twice", async () => {
    const { explaining, attributes } = bench();
    const end = explaining.follow();
    await settled();
    const count = attributes().length;
    explaining.toggle("saliency");
    expect(attributes()[0]?.options.signal.aborted).toBe(true);
    explaining.toggle("lime");
    expect(attributes().length).toBe(count + 1);
    explaining.baseline.value = "blur";
    const redone = attributes().slice(count + 1);
    expect(redone.map(({ params }) => params.method)).toEqual(["integrated_gradients"]);
    end();
    expect(attributes().every(({ options }) => options.signal.aborted)).toBe(true);
  });

  it("shows again at once what is done already", async () => {
    const { explaining, attributes } = bench();
    let end = explaining.follow();
    await settled();
    const one = attributes()[0] as Asked;
    one.options.onChunk(part(0, 3, 3, 1, 1));
    one.resolve({});
    await settled();
    end();
    const count = attributes().length;
    end = explaining.follow();
    expect(explaining.card(explaining.wishes.value[0] as never).value.state).toBe("ready");
    expect(attributes().length).toBe(count + FIRST.length - 1);
    end();
  });

  it("compares samples and classes by one method", async () => {
    const { explaining, synced } = bench();
    const end = explaining.follow();
    await settled();
    explaining.compare.value = "classes";
    expect(explaining.wishes.value.map(({ target }) => target)).toEqual([2, 5]);
    explaining.compare.value = "samples";
    expect(explaining.wishes.value.map(({ sample }) => sample)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(explaining.wishes.value[0]?.target).toBeNull();
    synced.selection.value = { ...synced.selection.value, class: 5 };
    expect(new Set(explaining.wishes.value.map(({ target }) => target))).toEqual(new Set([5]));
    end();
  });

  it("explains the changed network, and that as it is while a finger is held on it", async () => {
    const { explaining, attributes, changes } = bench();
    const end = explaining.follow();
    await settled();
    const plain = explaining.wishes.value.map(({ key }) => key);
    changes.made.value = CHANGED;
    const asked = attributes().slice(FIRST.length);
    expect(asked).toHaveLength(FIRST.length);
    expect(attributes()[0]?.options.signal.aborted).toBe(true);
    for (const { params } of asked) {
      expect(params.changed).toEqual(CHANGED?.interventions);
      expect(params.target).toBe(9); // the best class of the changed network
    }
    const keys = explaining.wishes.value.map(({ key }) => key);
    expect(keys.filter((key) => plain.includes(key))).toEqual([]);
    expect(keys.map((key) => nameOf(key, false))[0]).toBe("saliency");

    changes.held.value = true;
    expect(explaining.wishes.value.map(({ key }) => key)).toEqual(plain);
    expect(asked.every(({ options }) => !options.signal.aborted)).toBe(true);
    const looked = attributes().slice(2 * FIRST.length);
    expect(looked.map(({ params }) => [params.changed, params.target])).toEqual(
      FIRST.map(() => [undefined, 2]),
    );
    changes.held.value = false;
    expect(looked.every(({ options }) => options.signal.aborted)).toBe(true);
    expect(attributes()).toHaveLength(3 * FIRST.length);
    end();
  });

  it("tells why a map is not there, and tries again", async () => {
    const { explaining, attributes } = bench();
    const end = explaining.follow();
    await settled();
    const wish = explaining.wishes.value[0] as never;
    (attributes()[0] as Asked).reject({
      code: "bad_request",
      message: "no gradient",
      hint: "choose another",
    });
    await settled();
    expect(explaining.card(wish).value).toMatchObject({ state: "error", error: { message: "no gradient" } });
    expect(attributes().length).toBe(FIRST.length);
    const count = attributes().length;
    explaining.again(wish);
    expect(attributes().length).toBe(count + 1);
    expect(explaining.card(wish).value.state).toBe("running");
    end();
  });
});

describe("how far to trust them", () => {
  async function opened() {
    const { explaining, judging, asked, attributes, changes } = bench();
    const ends = [explaining.follow(), judging.follow()];
    await settled();
    judging.open.value = true;
    const finish = async () => {
      for (const one of attributes()) one.resolve({});
      await settled();
    };
    const judged = () => asked.filter(({ op }) => op === "judge");
    return { explaining, judging, judged, finish, changes, end: () => ends.map((end) => end()) };
  }

  const table = (alike: number) => ({
    rows: [{ name: "k", control: false, values: { parameter_randomisation: alike } }],
    notes: [],
    progress: 1,
    curves: {},
  });

  it("is asked when all maps are there, about all of them", async () => {
    const { explaining, judged, finish, end } = await opened();
    expect(judged()).toHaveLength(0);
    await finish();
    expect(judged()).toHaveLength(1);
    expect(judged()[0]?.params.keys).toEqual(explaining.wishes.value.map(({ key }) => key));
    expect(judged()[0]?.params.metrics).toEqual(FIRST_METRICS);
    end();
  });

  it("is asked anew for other metrics or other maps, and the old question is cancelled", async () => {
    const { explaining, judging, judged, finish, end } = await opened();
    await finish();
    judging.toggle("agreement");
    expect(judged().map(({ options }) => options.signal.aborted)).toEqual([true, false]);
    explaining.toggle("saliency");
    expect(judged()).toHaveLength(3);
    expect(judged()[2]?.params.keys).toHaveLength(FIRST.length - 1);
    explaining.compare.value = "classes";
    expect(judged()[2]?.options.signal.aborted).toBe(true);
    end();
  });

  it("is of one network, and known again when that comes back", async () => {
    const { judging, judged, finish, changes, end } = await opened();
    await finish();
    judged()[0]?.resolve({ meta: table(0.1) });
    await settled();
    changes.made.value = CHANGED;
    expect(judging.table.value).toBeNull();
    await finish();
    expect(judged()[1]?.params.changed).toEqual(CHANGED?.interventions);
    judged()[1]?.resolve({ meta: table(0.9) });
    await settled();
    expect(judging.sanityOf("k")).toBe(0.9);
    changes.held.value = true;
    expect(judging.sanityOf("k")).toBe(0.1);
    changes.held.value = false;
    expect(judging.sanityOf("k")).toBe(0.9);
    expect(judged()).toHaveLength(2);
    end();
  });

  it("tells on the card how alike a map stays while weights are made random", async () => {
    const { judging, judged, finish, end } = await opened();
    expect(judging.sanityOf("k")).toBeNull();
    await finish();
    judged()[0]?.options.onChunk({ meta: table(0.1) });
    expect(judging.sanityOf("k")).toBeCloseTo(0.1);
    judged()[0]?.resolve({ meta: table(1) });
    await settled();
    expect(judging.sanityOf("k")).toBe(1);
    expect(judging.running.value).toBe(false);
    end();
  });
});
