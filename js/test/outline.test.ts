import { describe, expect, it } from "vitest";
import { rowsOf } from "../src/panels/Outline";
import type { Graph, GraphGroup, GraphNode } from "../src/state/synced";

const node = (id: string, more: Partial<GraphNode> = {}): GraphNode => ({
  ...{ id, path: id, call: 0, op: "", kind: "module", type: "", detail: "", dtype: "float32", source: "" },
  ...{ input_shapes: [], output_shapes: [], params: 0, flops: 0, bytes: 0, status: "ok", parent: "" },
  ...more,
});
const group = (id: string, children: string[], more: Partial<GraphGroup> = {}): GraphGroup => ({
  ...{ id, path: id, call: 0, type: "Sequential", children, fold: 1, parent: "", params: 0, flops: 0 },
  ...more,
});

const GRAPH: Graph = {
  model: "Net",
  nodes: [
    node("input", { kind: "input" }),
    node("body.conv", {
      type: "Conv2d",
      op: "conv2d",
      params: 30,
      output_shapes: [[1, 4, 8, 8]],
      parent: "body",
    }),
    node("body/relu", {
      path: "body",
      kind: "op",
      op: "relu",
      output_shapes: [[1, 4, 8, 8]],
      parent: "body",
    }),
    node("body.conv@1", { path: "body.conv", call: 1, type: "Conv2d", op: "conv2d" }),
  ],
  edges: [],
  groups: [
    group("", ["input", "body", "body.conv@1"]),
    group("body", ["body.conv", "body/relu"], { params: 30 }),
  ],
};

describe("the outline", () => {
  it("lists what stands in open groups, in order of execution", () => {
    expect(rowsOf(GRAPH, new Set()).map(({ id, depth, open }) => [id, depth, open])).toEqual([
      ["input", 1, null],
      ["body", 1, false],
      ["body.conv@1", 1, null],
    ]);
    expect(rowsOf(GRAPH, new Set(["body"])).map(({ id, depth }) => [id, depth])).toEqual([
      ["input", 1],
      ["body", 1],
      ["body.conv", 2],
      ["body/relu", 2],
      ["body.conv@1", 1],
    ]);
  });

  it("says of each what it is, what it gives and what it costs", () => {
    const [, body, conv, relu, again] = rowsOf(GRAPH, new Set(["body"]));
    expect(body).toMatchObject({ name: "body", type: "Sequential", shape: "4 × 8 × 8", params: 30 });
    expect(conv).toMatchObject({ name: "conv", type: "Conv2d", params: 30 });
    expect(relu).toMatchObject({ name: "relu", type: "", shape: "4 × 8 × 8" });
    expect(again).toMatchObject({ name: "conv (call 2)" });
  });
});
