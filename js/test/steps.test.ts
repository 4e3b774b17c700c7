import { describe, expect, it } from "vitest";
import { buildHierarchy, type Hierarchy, type Item } from "../src/graph/hierarchy";
import { labelOf, nameOf, timesWords } from "../src/graph/words";
import { Draft, flat } from "./graphs";

const drawn = (hierarchy: Hierarchy) => hierarchy.root.children.map((item) => item.id);
const item = (hierarchy: Hierarchy, id: string) => hierarchy.items.get(id) as Item;

/** A cell that is called for each step of a series; with `head`, what it says is read at each step. */
function recurrent(steps: number, head = false) {
  const d = new Draft("Recurrent");
  const x = d.input([1, steps, 3]);
  let state = d.constant("zeros", [1, 8]);
  const said: string[] = [];
  for (let at = 0; at < steps; at++) {
    state = d.module("cell", "GRUCell", [d.op("getitem", [x], [1, 3]), state], [1, 8], at);
    if (head) said.push(d.module("out", "Linear", state, [1, 2], at));
  }
  d.output(head ? d.op("stack", said, [1, steps, 2]) : state);
  return d.done();
}

describe("what is done again and again", () => {
  it.each([3, 24, 100])("folds %i steps of a cell into one card", (steps) => {
    const hierarchy = buildHierarchy(recurrent(steps));
    expect(drawn(hierarchy)).toEqual(["input", "const:zeros", "fold:part:/getitem", "output"]);
    const fold = item(hierarchy, "fold:part:/getitem");
    expect(fold.children).toHaveLength(steps);
    expect(timesWords(fold)).toBe(`×${steps} steps`);
    expect(nameOf(fold)).toBe("cell");
    expect(labelOf(fold)).toBe(`${steps} steps of cell, 8`);
  });

  it("gives out one step at a time, and the others stay folded on either side", () => {
    const graph = recurrent(24, true);
    const hierarchy = buildHierarchy(graph, new Set(["part:/getitem#4"]));
    const [before, own, after] = hierarchy.root.children.filter((one) => one.leaves > 1) as [
      Item,
      Item,
      Item,
    ];
    expect([before.times, own.kind, after.times]).toEqual([4, "part", 19]);
    expect(own.children.map(({ id }) => id)).toEqual(["/getitem#4", "cell@4", "out@4"]);
    expect(labelOf(own)).toBe("step 5 of cell, out, 2");
  });

  it("draws one line where a tensor of each step goes to the same place", () => {
    const hierarchy = buildHierarchy(recurrent(24, true));
    const fold = item(hierarchy, "fold:part:/getitem");
    const stack = item(hierarchy, "/stack");
    const to = hierarchy.root.level.edges.filter((edge) => edge.target === stack.at);
    expect(new Set(to.map((edge) => edge.source))).toEqual(new Set([fold.at]));
  });

  it("keeps two uses apart, and what is between them", () => {
    const hierarchy = buildHierarchy(recurrent(2));
    expect(drawn(hierarchy)).toContain("cell@1");
    const d = new Draft();
    let x = d.input([1, 3, 8, 8]);
    for (let at = 0; at < 4; at++)
      x = d.module("pool", "MaxPool2d", d.module(`conv${at}`, "Conv2d", x), undefined, at);
    d.output(x);
    expect(drawn(buildHierarchy(d.done()))).toHaveLength(10);
  });

  it("folds a block that is called several times, also the first time", () => {
    const d = new Draft();
    let x = d.input([1, 8]);
    for (let at = 0; at < 5; at++) {
      const name = at === 0 ? "block" : `block@${at}`;
      x = d.group(name, "Block", () => d.op("relu", [d.module("fc", "Linear", x)]), at === 0 ? 1 : 4);
    }
    d.output(x);
    const graph = d.done();
    for (const group of graph.groups) group.path = group.path.replace(/@\d+$/, "");
    for (const node of graph.nodes) node.path = node.path.replace(/@\d+/, "");
    const hierarchy = buildHierarchy(graph);
    expect(drawn(hierarchy)).toEqual(["input", "fold:block", "output"]);
    expect(timesWords(item(hierarchy, "fold:block"))).toBe("×5 steps");
  });

  it("folds a loop of operations that read the same weights, and sets those before it", () => {
    const d = new Draft();
    const x = d.input([1, 6, 3]);
    let state = d.op("zeros", [], [1, 8]);
    const weights: string[] = [];
    for (let at = 0; at < 6; at++) {
      const now = d.op("getitem", [x], [1, 3]);
      if (at === 0) weights.push(d.constant("w", [3, 8]), d.constant("u", [8, 8]));
      const [w, u] = weights as [string, string];
      const sum = d.op("add", [d.op("matmul", [now, w], [1, 8]), d.op("matmul", [state, u], [1, 8])]);
      state = d.op("tanh", [sum]);
    }
    d.output(state);
    const hierarchy = buildHierarchy(d.done());
    expect(drawn(hierarchy)).toEqual([
      "input",
      "/zeros",
      "const:w",
      "const:u",
      "fold:part:/getitem",
      "output",
    ]);
    expect(timesWords(item(hierarchy, "fold:part:/getitem"))).toBe("×6 steps");
  });

  it("takes operations for steps only if each hangs on the one before in the same way", () => {
    const hierarchy = buildHierarchy(flat(50));
    expect([...hierarchy.items.values()].some((one) => one.step > 0)).toBe(false);
  });

  it("keeps the towers of a triplet side by side", () => {
    const d = new Draft();
    const x = d.input([3, 8]);
    const towers = [0, 1, 2].map((at) => d.module("tower", "Linear", x, [1, 8], at));
    d.output(d.op("stack", towers));
    expect(drawn(buildHierarchy(d.done()))).toContain("tower@2");
  });
});
