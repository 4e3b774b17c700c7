// @vitest-environment happy-dom
// Colouring the drawing: scales, sums, words, and a legend that asks, explains and leads to its extremes.

import { signal } from "@preact/signals";
import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { colour, familiesOf, placeOn, ramp, scaleOf, spellValue, tint } from "../src/graph/colouring";
import { graphOf } from "../src/graph/controller";
import { GraphView } from "../src/graph/GraphView";
import { buildHierarchy, type Item } from "../src/graph/hierarchy";
import { rememberColour } from "../src/state/remembered";
import type { Graph } from "../src/state/synced";
import type { ColourBy } from "../src/state/view";
import { Draft, resnet, storeOf, transformer } from "./graphs";

/** Every convolution has 100, 200, ... parameters, in order of execution. */
function weighted(graph: Graph): Graph {
  let count = 0;
  for (const node of graph.nodes) {
    if (node.op === "conv2d") node.params = 100 * ++count;
    node.bytes = 8;
  }
  return graph;
}

const share = (css: string | undefined) => Number(/(\d+)%/.exec(css ?? "")?.[1] ?? Number.NaN);

describe("a scale", () => {
  it("is logarithmic where sizes span more than two decades, and only there", () => {
    expect(scaleOf([1, 100], true)?.log).toBe(false);
    expect(scaleOf([1, 101], true)?.log).toBe(true);
    expect(scaleOf([1, 1e6], false)?.log).toBe(false);
    expect(scaleOf([0, 1e6], true)?.log).toBe(false);
    expect(scaleOf([], true)).toBeNull();
  });

  it("puts equal ratios at equal distances when it is, equal differences when it is not", () => {
    const log = scaleOf([1, 1e4], true);
    const even = scaleOf([10, 30], true);
    if (!log || !even) throw new Error("no scale");
    expect([1, 10, 100, 1e4].map((value) => placeOn(log, value))).toEqual([0, 0.25, 0.5, 1]);
    expect([10, 15, 30].map((value) => placeOn(even, value))).toEqual([0, 0.25, 1]);
    expect(placeOn(even, 99)).toBe(1);
    expect(placeOn({ ...even, high: 10 }, 10)).toBe(0);
  });

  it("of negative numbers has zero in the middle, cold below and warm above", () => {
    const scale = scaleOf([-1, 4], false);
    if (!scale) throw new Error("no scale");
    expect([scale.low, scale.high, scale.signed]).toEqual([-4, 4, true]);
    expect([-4, -1, 0, 4].map((value) => placeOn(scale, value))).toEqual([-1, -0.25, 0, 1]);
    expect(tint(-0.5)).toContain("--nn-cold");
    expect(tint(0.5)).toContain("--nn-warm");
    expect(share(tint(-0.5))).toBe(share(tint(0.5)));
  });

  it("grows darker, or lighter in the dark, step by step from its end to its other", () => {
    const steps = ramp({ low: 0, high: 1, log: false, signed: false }, 12).map(share);
    expect(steps).toEqual([...steps].sort((a, b) => a - b));
    expect(new Set(steps).size).toBe(12);
    expect(Math.max(...steps)).toBeLessThan(70);
  });
});

describe("a number", () => {
  it.each<[ColourBy, number, string]>([
    ["params", 23_500_000, "23.5 M"],
    ["params", 640, "640"],
    ["flops", 1_240_000_000, "1.2 GFLOP"],
    ["flops", 640, "640 FLOP"],
    ["bytes", 3_400_000, "3.4 MB"],
    ["time", 0.00081, "0.8 ms"],
    ["time", 0.0000123, "12 µs"],
    ["time", 2.5, "2.5 s"],
    ["mean", -0.12, "−0.12"],
    ["dead", 0.25, "25 %"],
  ])("is written as people do: %s of %d", (by, value, words) => {
    expect(spellValue(by, value)).toBe(words);
  });
});

describe("the colours of a graph", () => {
  const graph = weighted(resnet());
  const hierarchy = buildHierarchy(graph);
  const of = (id: string) => hierarchy.of(id) as Item;

  it("sum up what is in a group", () => {
    const colours = colour(graph, "params", null);
    const inside = (path: string) =>
      graph.nodes
        .filter((node) => node.path.startsWith(`${path}.`))
        .reduce((sum, { params }) => sum + params, 0);
    expect(colours.numberOf(of("layer2"))).toBe(inside("layer2"));
    expect(colours.numberOf(of("layer2.0"))).toBe(inside("layer2.0"));
  });

  it("sum up the members of a stack, and take the last one for what it gives", () => {
    const blocks = transformer();
    const tree = buildHierarchy(blocks);
    const fold = [...tree.items.values()].find((item) => item.kind === "fold") as Item;
    const values = new Map([...blocks.nodes, ...blocks.groups].map(({ id }) => [id, 0]));
    fold.children.forEach((member, at) => {
      values.set(member.id, at + 1);
    });
    const count = fold.children.length;
    expect(count).toBe(12);
    expect(colour(blocks, "time", { by: "time", of: values }).numberOf(fold)).toBe((count * (count + 1)) / 2);
    expect(colour(blocks, "mean", { by: "mean", of: values }).numberOf(fold)).toBe(count);
  });

  it("lead to the layers at the ends, not to the groups around them, and leave out what has none", () => {
    const { least, most, tintOf, scale } = colour(graph, "params", null);
    const convs = graph.nodes.filter((node) => node.op === "conv2d");
    expect(least).toEqual({ id: convs[0]?.id, value: 100 });
    expect(most).toEqual({ id: convs.at(-1)?.id, value: 100 * convs.length });
    expect(scale?.high).toBeGreaterThan(100 * convs.length);
    expect(tintOf(of("bn1"))).toBeUndefined();
    expect(tintOf(of("input"))).toBeUndefined();
    expect(share(tintOf(of("layer4")))).toBeGreaterThan(share(tintOf(of("layer1"))));
  });

  it("count no memory of what only hands on what it was given", () => {
    const d = new Draft();
    d.output(d.module("drop", "Dropout", d.module("fc", "Linear", d.input([1, 4]))));
    const { numberOf, least } = colour(weighted(d.done()), "bytes", null);
    const tree = buildHierarchy(d.done());
    expect(numberOf(tree.of("drop") as Item)).toBe(0);
    expect(least?.id).toBe("fc");
  });

  it("are none where nothing was measured", () => {
    expect(colour(graph, "dead", null).scale).toBeNull();
    const of = new Map([["conv1", Number.NaN]]);
    expect(colour(graph, "dead", { by: "dead", of }).tintOf(hierarchy.of("conv1") as Item)).toBeUndefined();
  });

  it("name the families that there are", () => {
    const names = familiesOf(graph).map(([category]) => category);
    expect(names).toEqual(
      expect.arrayContaining(["conv", "norm", "act", "pool", "linear", "merge", "group"]),
    );
    expect(names).not.toContain("attn");
  });
});

describe("the legend", () => {
  let root: HTMLElement;

  beforeEach(() => {
    root = document.createElement("div");
    document.body.append(root);
  });

  afterEach(() => {
    render(null, root);
    root.remove();
  });

  function page(graph: Graph) {
    const answers: ((numbers: number[]) => void)[] = [];
    const { store, synced } = storeOf(graph);
    const asked: unknown[] = [];
    Object.assign(store.wire, {
      request: (op: string, params: unknown) =>
        new Promise((resolve) => {
          if (op !== "measure") return;
          asked.push(params);
          answers.push((numbers) =>
            resolve({ meta: {}, arrays: { values: { data: new Float32Array(numbers) } } }),
          );
        }),
    });
    act(() => render(<GraphView store={store} />, root));
    const choose = (by: string) =>
      act(() => {
        const select = root.querySelector("select") as HTMLSelectElement;
        select.value = by;
        select.dispatchEvent(new Event("change", { bubbles: true }));
      });
    const answer = (numbers: number[]) =>
      act(async () => {
        answers.at(-1)?.(numbers);
        for (let turn = 0; turn < 8; turn++) await Promise.resolve();
      });
    const say = () => root.querySelector(".nn-key")?.textContent ?? "";
    const press = (selector: string) => act(() => root.querySelector<HTMLElement>(selector)?.click());
    const tinted = (id: string) => root.querySelector(`[data-node="${id}"][data-tint]`) !== null;
    return { store, synced, asked, choose, answer, say, press, tinted, graph: graphOf(store) };
  }

  it("is not there until something is chosen, and leads to a layer that is hidden in closed groups", () => {
    const { synced, choose, say, press, tinted, asked } = page(weighted(resnet()));
    expect(say()).toBe("");
    expect(tinted("conv1")).toBe(false);
    choose("params");
    expect(asked).toEqual([]);
    expect(tinted("conv1")).toBe(true);
    expect(root.querySelector('[data-node="conv1"]')?.getAttribute("aria-label")).toContain("parameters 100");
    expect(root.querySelector('[data-node="layer4.1.conv2"]')).toBeNull();
    press("[data-end=most]");
    expect(synced.selection.value.layer).toBe("layer4.1.conv2");
    expect(root.querySelector('[data-node="layer4.1.conv2"]')).not.toBeNull();
    choose("");
    expect(tinted("conv1")).toBe(false);
  });

  it("asks for a time once, when it is chosen, and again when it is told to or the graph is another one", async () => {
    const graph = resnet();
    const { synced, choose, answer, asked, say, press, tinted } = page(graph);
    choose("time");
    expect(asked).toEqual([{ by: "time", sample: 0 }]);
    expect(say()).toContain("measuring");
    expect(tinted("conv1")).toBe(false);
    const numbers = [...graph.nodes, ...graph.groups].map((_, at) => (1 + at) / 1e4);
    await answer(numbers);
    expect(tinted("conv1")).toBe(true);
    act(() => {
      synced.run.value = { ...synced.run.value, run: 2 } as never;
    });
    expect(asked).toHaveLength(1);
    const other = resnet(3);
    act(() => {
      synced.graph.value = other;
    });
    expect(say()).toContain("not measured");
    expect(tinted("conv1")).toBe(false);
    press(".nn-key p button");
    expect(asked).toHaveLength(2);
    press(".nn-key p button");
    expect(say()).not.toContain("measuring");
  });

  it("asks for values after every run, and keeps the last ones until the new are here", async () => {
    const graph = resnet();
    const { synced, choose, answer, asked, tinted } = page(graph);
    choose("dead");
    await answer([...graph.nodes, ...graph.groups].map((_, at) => at / 1000));
    act(() => {
      synced.run.value = { ...synced.run.value, run: 2, sample: 1 } as never;
    });
    expect(asked).toEqual([
      { by: "dead", sample: 0 },
      { by: "dead", sample: 1 },
    ]);
    expect(tinted("conv1")).toBe(true);
  });

  it("offers no values where nothing was run", () => {
    page({ ...resnet(), kind: "tree" });
    const open = [...root.querySelectorAll("option")].filter((option) => !option.disabled);
    expect(open.map((option) => option.value)).toEqual(["", "type", "params"]);
  });
});

describe("what was chosen", () => {
  it("is there when the view is opened again, for this widget alone", () => {
    const chosen = () => signal<ColourBy | null>(null);
    const [first, again, other] = [chosen(), chosen(), chosen()];
    const stop = rememberColour("a", first);
    first.value = "flops";
    stop();
    first.value = "type";
    rememberColour("a", again)();
    rememberColour("b", other)();
    expect([again.value, other.value]).toEqual(["flops", null]);
    sessionStorage.setItem("nnviz-colour-c", "beauty");
    rememberColour("c", other)();
    expect(other.value).toBeNull();
  });
});
