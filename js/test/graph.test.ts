import { afterEach, describe, expect, it, vi } from "vitest";
import { graphOf, nextMatch, releaseGraph } from "../src/graph/controller";
import { buildHierarchy, canOpen, countClosed, drawnItems, type Item } from "../src/graph/hierarchy";
import { openAtFirst } from "../src/graph/opening";
import { read } from "../src/graph/reading";
import { findIds, prepareSearch } from "../src/graph/search";
import { categoryOf, formOf, hintOf, labelOf, nameOf, outputShape, timesOf } from "../src/graph/words";
import type { Store } from "../src/state/store";
import type { Graph } from "../src/state/synced";
import {
  chain,
  Draft,
  densenet,
  flat,
  gpt2,
  inception,
  itemsIn,
  resnet,
  storeOf,
  transformer,
  unet,
} from "./graphs";

const item = (graph: Graph, id: string) => buildHierarchy(graph).of(id) as Item;

describe("the hierarchy", () => {
  it("folds identical siblings into one item that stands for the last of them", () => {
    const fold = item(transformer(12), "fold:model.h.0");
    expect(fold.children).toHaveLength(12);
    expect(fold.rep).toBe("model.h.11");
    expect(timesOf(fold)).toBe(12);
    expect(nameOf(fold)).toBe("h.0 … 11");
  });

  it("lets a group stand for identical siblings that are all it holds", () => {
    const d = new Draft();
    let x = d.input([1, 4]);
    d.group("layers", "Sequential", () => {
      for (let at = 0; at < 6; at++) x = d.group(`${at}`, "Block", () => d.module("fc", "Linear", x), 6);
    });
    const layers = item(d.done(), "layers");
    expect(timesOf(layers)).toBe(6);
    expect(hintOf(layers)).toBe("6 blocks");
    expect(layers.children.map((child) => child.id)).toEqual(["layers.0", "fold:layers.1"]);
  });

  it("leaves what was taken out of a stack where it was, the rest folded on both sides", () => {
    const graph = transformer(12);
    const folded = (apart: string[]) =>
      buildHierarchy(graph, new Set(apart))
        .of("model")
        ?.children.filter((child) => child.kind === "fold" || child.group)
        .map((child) => `${nameOf(child)}${child.times > 1 ? ` x${child.times}` : ""}`);
    expect(folded([])).toEqual(["h.0 … 11 x12"]);
    expect(folded(["model.h.0"])).toEqual(["h.0", "h.1 … 11 x11"]);
    expect(folded(["model.h.5"])).toEqual(["h.0 … 4 x5", "h.5", "h.6 … 11 x6"]);
    expect(folded(["model.h.10"])).toEqual(["h.0 … 9 x10", "h.10", "h.11"]);
  });

  it("folds blocks of two kinds that take turns in pairs", () => {
    const d = new Draft();
    let x = d.input([1, 4]);
    for (let at = 0; at < 7; at++)
      x = d.group(`b${at}`, "Block", () =>
        d.module(at % 2 ? "shifted" : "plain", at % 2 ? "ReLU" : "Linear", x),
      );
    d.output(x);
    const { root } = buildHierarchy(d.done());
    expect(root.children.map((child) => child.id)).toEqual(["input", "fold:part:b0", "b6", "output"]);
    const fold = root.children[1] as Item;
    expect(fold.children.map((child) => child.children.map((block) => block.id))).toEqual([
      ["b0", "b1"],
      ["b2", "b3"],
      ["b4", "b5"],
    ]);
    expect(nameOf(fold)).toBe("b0 … 5");
    expect(timesOf(fold)).toBe(3);
  });

  it("keeps two identical siblings apart: they are quicker seen than unfolded", () => {
    const d = new Draft();
    let x = d.input([1, 4]);
    for (let at = 0; at < 2; at++) x = d.group(`b${at}`, "Block", () => d.module("fc", "Linear", x), 2);
    expect(buildHierarchy(d.done()).root.children.map((child) => child.id)).toEqual(["input", "b0", "b1"]);
  });

  it("lifts an edge to every level that it passes", () => {
    const hierarchy = buildHierarchy(resnet());
    const between = (id: string) => (hierarchy.of(id) as Item).level;
    const names = (id: string) => {
      const { children } = hierarchy.of(id) as Item;
      return between(id).edges.map(
        ({ source, target }) => `${children[source]?.id ?? "in"}>${children[target]?.id ?? "out"}`,
      );
    };
    expect(names("layer1")).toEqual(["in>layer1.0", "layer1.0>layer1.1", "layer1.1>out"]);
    expect(names("layer1.0")).toContain("in>layer1.0/add");
    expect(names("")).toContain("maxpool>layer1");
    expect(between("layer1").entries).toEqual(["maxpool"]);
  });

  it("gives a group that reads many tensors one entry for all of them", () => {
    const block = item(densenet(12), "block.layer9");
    expect(block.level.entries).toEqual(["*"]);
  });

  it("places what no group lists under the root, in order of execution", () => {
    const graph = chain(2);
    (graph.groups[0] as { children: string[] }).children = ["conv1"];
    expect(buildHierarchy(graph).root.children.map((child) => child.id)).toEqual([
      "input",
      "conv0",
      "conv1",
      "output",
    ]);
  });

  it("survives a graph without any group, unknown ends and edges to itself", () => {
    const graph = { ...chain(2), groups: [] };
    graph.edges = [
      ...graph.edges,
      { source: "conv0", target: "conv0", shape: [] },
      { source: "?", target: "conv1", shape: [] },
    ];
    expect(buildHierarchy(graph).root.children).toHaveLength(4);
  });

  it("cuts a level of thousands into parts of parts, each short", () => {
    const items = itemsIn(buildHierarchy(flat(5000)).root);
    for (const one of items) expect(one.children.length).toBeLessThanOrEqual(60);
    expect(items.filter((one) => one.kind === "node")).toHaveLength(5003);
  });
});

describe("the groups that are open at first", () => {
  const opened = (graph: Graph) => {
    const { root } = buildHierarchy(graph);
    const open = openAtFirst(root);
    return { open: [...open], visible: countClosed(root, open) };
  };

  it("leaves the stages of a residual network closed", () => {
    expect(opened(resnet(4, 2))).toEqual({ open: [], visible: 13 });
  });

  it("opens a group that hides the network", () => {
    const d = new Draft("VGG");
    let x = d.input([1, 3, 8, 8]);
    x = d.group("features", "Sequential", () => {
      for (let at = 0; at < 31; at++) x = d.module(`${at}`, at % 2 ? "ReLU" : "Conv2d", x);
      return x;
    });
    d.output(d.module("classifier", "Linear", x));
    expect(opened(d.done()).open).toEqual(["features"]);
  });

  it("opens a transformer as far as its folded blocks", () => {
    const { open, visible } = opened(transformer(12));
    expect(open).toEqual(["model"]);
    expect(visible).toBeLessThanOrEqual(15);
  });

  it("opens GPT-2 on one page: its plumbing in a tray, its blocks in a stack", () => {
    const { open, visible } = opened(gpt2());
    expect(open).toEqual(["transformer"]);
    expect(visible).toBe(14);
    const { children } = item(gpt2(), "transformer");
    expect(children.map((child) => child.kind).filter((kind) => kind !== "node")).toEqual(["tray", "fold"]);
  });

  it("never shows more than sixty", () => {
    for (const graph of [flat(3000), transformer(96), resnet(12, 9), densenet(40)]) {
      expect(opened(graph).visible).toBeLessThanOrEqual(60);
    }
  });
});

describe("plumbing", () => {
  /** Positions from a counter, a mask from an input that says where words are, and what is computed beside them. */
  function model(): Graph {
    const d = new Draft("Masked");
    const ids = d.input([1, 8], "input:ids");
    const mask = d.input([1, 8], "input:mask");
    const counter = d.constant("counter", [8]);
    const places = d.op("unsqueeze", [d.op("add", [counter])], [1, 8]);
    const bias = d.op("mul", [d.op("sub", [mask])]);
    const flat = d.op("view", [ids]);
    let x = d.op("add", [
      d.module("words", "Embedding", flat, [1, 8, 4]),
      d.module("places", "Embedding", places),
    ]);
    const cut = d.op("expand", [d.constant("table", [8])], [1, 8]);
    x = d.op("masked_fill", [x, bias, cut]);
    d.output(d.module("head", "Linear", d.op("relu", [x])));
    const graph = d.done();
    for (const node of graph.nodes) {
      if (node.kind === "input") node.dtype = "int64";
      if (node.kind === "constant") node.op = node.path === "counter" ? "arange" : "buffer";
      if (node.type === "Embedding" || node.type === "Linear") node.params = 32;
    }
    return graph;
  }
  const tray = (graph: Graph) => buildHierarchy(graph).root.children.find((child) => child.kind === "tray");
  const inTray = (graph: Graph) => tray(graph)?.children.map((child) => child.id) ?? [];

  it("is what no weight has touched: positions, masks and tables, not the words on their way in", () => {
    expect(inTray(model()).sort()).toEqual([
      "/add",
      "/expand",
      "/mul",
      "/sub",
      "/unsqueeze",
      "const:counter",
      "const:table",
    ]);
  });

  it("lies in one tray below the inputs, closed at first, which opens like a group", () => {
    const hierarchy = buildHierarchy(model());
    const { children } = hierarchy.root;
    expect(children.slice(0, 3).map((child) => child.kind)).toEqual(["node", "node", "tray"]);
    const found = children[2] as Item;
    expect(found.leaves).toBe(7);
    expect(formOf(found)).toBe("tray");
    expect(categoryOf(found)).toBe("other");
    expect(labelOf(found)).toBe("7 operations plumbing, 8");
    expect(openAtFirst(hierarchy.root).has(found.id)).toBe(false);
    expect(drawnItems(hierarchy, new Set([found.id])).map((one) => one.id)).toContain("/expand");
  });

  it("is nothing in a network of images, of numbers that come in, or of no weights", () => {
    for (const make of [resnet, densenet, inception, unet]) expect(tray(make())).toBeUndefined();
    expect(tray(flat(50))).toBeUndefined();
    const measured = model();
    for (const node of measured.nodes) if (node.kind === "input") node.dtype = "float32";
    expect(inTray(measured)).not.toContain("/sub");
  });

  it("does not hide the noise that a network is fed with, nor where the forward ended", () => {
    const noisy = model();
    Object.assign(noisy.nodes.find((node) => node.path === "counter") ?? {}, { op: "randn" });
    expect(inTray(noisy)).not.toContain("/add");
    const failed = model();
    Object.assign(failed.nodes.find((node) => node.id === "/sub") ?? {}, { status: "failed" });
    expect(inTray(failed)).not.toContain("/sub");
  });
});

describe("the words on a card", () => {
  it("names a module by the end of its path, with what is before a bare number", () => {
    expect(nameOf(item(resnet(), "layer1.0.conv1"))).toBe("conv1");
    expect(nameOf(item(resnet(), "layer1.0"))).toBe("layer1.0");
    expect(nameOf(item(transformer(4), "model.h.0"))).toBe("h.0");
    expect(nameOf(item(resnet(), "/flatten"))).toBe("flatten");
  });

  it("says of a group what is in it, or its class", () => {
    expect(hintOf(item(resnet(), "layer1"))).toBe("2 blocks");
    expect(hintOf(item(resnet(), "layer1.0"))).toBe("BasicBlock");
  });

  it("says which use of a module it is", () => {
    expect(hintOf(item(resnet(), "layer1.0.relu@1"))).toBe("2nd use");
  });

  it("tells kinds apart by operation or class", () => {
    const graph = resnet();
    expect(categoryOf(item(graph, "conv1"))).toBe("conv");
    expect(categoryOf(item(graph, "bn1"))).toBe("norm");
    expect(categoryOf(item(graph, "relu"))).toBe("act");
    expect(categoryOf(item(graph, "maxpool"))).toBe("pool");
    expect(categoryOf(item(graph, "fc"))).toBe("linear");
    expect(categoryOf(item(graph, "layer1"))).toBe("group");
    expect(categoryOf(item(graph, "layer1.0/add"))).toBe("merge");
    expect(categoryOf(item(transformer(4), "model.h.0.attn"))).toBe("attn");
  });

  it("draws plumbing slim, merges round and layers as cards", () => {
    const graph = resnet();
    expect(formOf(item(graph, "conv1"))).toBe("card");
    expect(formOf(item(graph, "relu"))).toBe("slim");
    expect(formOf(item(graph, "layer1.0/add"))).toBe("merge");
    expect(formOf(item(graph, "avgpool"))).toBe("slim");
    expect(formOf(item(graph, "layer1"))).toBe("card");
  });

  it("gives the shape of what leaves it without the batch axis", () => {
    expect(outputShape(item(resnet(), "layer1"))).toEqual([64, 16, 16]);
    expect(outputShape(item(resnet(), "output"))).toEqual([10]);
  });

  it("has a sentence for a screen reader", () => {
    expect(labelOf(item(resnet(), "layer1.0.conv1"))).toBe("conv2d layer1.0.conv1, 64 × 16 × 16");
    expect(labelOf(item(resnet(), "layer1"))).toBe("Sequential layer1, 64 × 16 × 16");
    expect(labelOf(item(resnet(), "/flatten"))).toBe("flatten, 64");
  });
});

describe("search", () => {
  const found = (graph: Graph, text: string) => findIds(read(graph), text);

  it("matches names, types, operations and shapes, in order of execution", () => {
    expect(found(resnet(), "maxpool")).toEqual(["maxpool"]);
    expect(found(resnet(), "BasicBlock")).toHaveLength(8);
    expect(found(resnet(), "max_pool")).toEqual(["maxpool"]);
    for (const shape of ["64 × 32 × 32", "64x32x32", "64, 32, 32"]) {
      expect(found(resnet(), shape)).toEqual(["conv1", "bn1", "relu"]);
    }
    expect(found(resnet(), "layer2 conv")).toEqual([
      "layer2.0.conv1",
      "layer2.0.conv2",
      "layer2.0.downsample.0",
      "layer2.1.conv1",
      "layer2.1.conv2",
    ]);
  });

  it("takes a regular expression between slashes, and an unfinished one as nothing yet", () => {
    expect(found(resnet(), "/^layer[12]$/")).toEqual(["layer1", "layer2"]);
    expect(found(resnet(), "/(")).toEqual([]);
    expect(found(resnet(), "")).toEqual([]);
  });

  it("gets ready in short steps, and answers all the same when it is asked before that has ended", () => {
    const graph = flat(1000);
    const reading = read(graph);
    const steps = prepareSearch(reading);
    steps.next();
    expect(steps.next().done).toBe(false);
    const all = graph.nodes.filter(({ op }) => op === "add").map(({ id }) => id);
    expect(all.length).toBeGreaterThan(300);
    expect(findIds(reading, "add")).toEqual(all);
    expect(steps.next().done).toBe(true);
    expect(findIds(reading, "add")).toEqual(all);
  });
});

describe("the graph of a view", () => {
  let store: Store | null = null;
  afterEach(() => {
    if (store) releaseGraph(store);
  });

  function view(graph: Graph) {
    const page = storeOf(graph);
    store = page.store;
    const controller = graphOf(page.store);
    controller.pane.value = { width: 700, height: 560 };
    const place = (id: string) => {
      const rect = controller.rectOf(controller.boxOf(id) as never);
      return [rect.x, rect.y];
    };
    const toggle = (id: string) => controller.toggle(id);
    const drawn = () => controller.drawing.value?.boxes.map((box) => box.item.id) ?? [];
    return { ...page, graph: controller, place, toggle, drawn };
  }

  it("keeps the group that opens and closes where it is", () => {
    const { place, toggle } = view(resnet(4, 3));
    for (const path of [["layer3"], ["layer3", "layer3.0"], ["layer2"], ["layer3"]]) {
      const id = path[path.length - 1] as string;
      const before = place(id);
      toggle(id);
      expect(place(id)).toEqual(before);
    }
  });

  it("keeps the column of a group that opens to both sides", () => {
    const { graph, toggle } = view(inception());
    graph.store.view.open.value = new Set();
    const column = () => (graph.boxOf("stem")?.spine ?? 0) + graph.origin.value[0];
    const before = column();
    toggle("mixed_a");
    expect(graph.boxOf("mixed_a")?.width).toBeGreaterThan(500);
    expect(column()).toBe(before);
    toggle("mixed_a");
    expect(graph.origin.value).toEqual([0, 0]);
  });

  it("puts everything back when what was opened closes", () => {
    const { graph, toggle } = view(resnet());
    const before = graph.drawing.value;
    toggle("layer2");
    expect(graph.drawing.value?.boxes.length).toBeGreaterThan(before?.boxes.length ?? 0);
    toggle("layer2");
    expect(graph.drawing.value).toEqual(before);
    expect(graph.origin.value).toEqual([0, 0]);
  });

  it("keeps what is open when the graph changes a little, and begins anew for another model", () => {
    const { synced, store: page, drawn } = view(resnet());
    page.view.open.value = new Set(["layer2"]);
    synced.graph.value = resnet(3);
    expect([...page.view.open.value]).toEqual(["layer2"]);
    expect(drawn()).not.toContain("layer4");
    synced.graph.value = transformer(12);
    expect([...page.view.open.value]).toEqual(["model"]);
  });

  it("wears the ring on the closed group that holds the selected layer", () => {
    const { graph, synced, toggle } = view(resnet());
    graph.select(graph.itemOf("layer2") as Item);
    expect(graph.ring.value).toEqual({ id: "layer2", exact: true });
    expect(synced.selection.value.layer).toBe("layer2");
    toggle("layer2");
    graph.select(graph.itemOf("layer2.1") as Item);
    toggle("layer2");
    expect(graph.ring.value).toEqual({ id: "layer2", exact: false });
  });

  it("opens what hides a layer that was selected elsewhere, and shows it", () => {
    const { synced, drawn, graph } = view(resnet());
    synced.select({ layer: "layer3.1.conv2" });
    expect(drawn()).toContain("layer3.1.conv2");
    expect(graph.ring.value).toEqual({ id: "layer3.1.conv2", exact: true });
  });

  it("goes straight to the node at which the model raised", () => {
    const graph = resnet();
    Object.assign(graph.nodes.find((node) => node.id === "layer3.0.conv2") ?? {}, { status: "failed" });
    const { drawn, toggle } = view(graph);
    expect(drawn()).toContain("layer3.0.conv2");
    toggle("layer3");
    expect(drawn()).not.toContain("layer3.0.conv2");
  });

  it("selects the last block for a stack of identical ones", () => {
    const { graph, synced } = view(transformer(12));
    graph.select(graph.itemOf("fold:model.h.0") as Item);
    expect(synced.selection.value.layer).toBe("model.h.11");
    expect(graph.ring.value).toEqual({ id: "fold:model.h.0", exact: true });
  });

  it("opens a stack one sibling at a time, where the stack was, and folds it again", () => {
    const { graph, store: page, place, toggle, drawn } = view(transformer(12));
    const start = drawn();
    const before = place("fold:model.h.0");
    toggle("fold:model.h.0");
    expect(drawn()).toContain("model.h.0.attn");
    expect(drawn()).toContain("fold:model.h.1");
    expect(place("model.h.0")).toEqual(before);
    expect(page.view.announce.value).toBe("h.0 opened, 11 like it stay folded");
    graph.takeOut(graph.itemOf("model.h.7") as Item);
    expect(drawn().filter((id) => /fold|h\.\d+$/.test(id))).toEqual([
      "model.h.0",
      "fold:model.h.1",
      "model.h.7",
      "fold:model.h.8",
    ]);
    toggle("model.h.0");
    toggle("model.h.7");
    expect(drawn()).toEqual(start);
    graph.unfold(graph.itemOf("fold:model.h.0") as Item);
    expect(drawn().filter((id) => /h\.\d+$/.test(id))).toHaveLength(12);
    graph.closeAll();
    expect(drawn()).toContain("model");
    expect(graph.apart.value.size).toBe(0);
  });

  it("takes a block out of its stack when something in it is selected elsewhere", () => {
    const { synced, drawn, graph } = view(transformer(12));
    synced.select({ layer: "model.h.4.attn.q" });
    expect(drawn()).toContain("model.h.4.attn.q");
    expect(drawn()).toContain("fold:model.h.5");
    expect(graph.ring.value).toEqual({ id: "model.h.4.attn.q", exact: true });
  });

  it("does not go back to where the model raised when a stack is taken apart", () => {
    const graph = transformer(12);
    Object.assign(graph.nodes.at(-2) ?? {}, { status: "failed" });
    const { drawn, toggle } = view(graph);
    expect(drawn()).toContain("model.h.11");
    toggle("model.h.11");
    toggle("fold:model.h.0");
    expect(drawn()).toContain("model.h.0.attn");
    expect(drawn()).not.toContain("model.h.11");
  });

  it("keeps what is out of its stack for a new run, and forgets it for another model", () => {
    const { synced, drawn, graph, toggle } = view(transformer(12));
    toggle("fold:model.h.0");
    synced.graph.value = transformer(11);
    expect(drawn()).toContain("model.h.0.attn");
    synced.graph.value = resnet();
    expect(graph.apart.value.size).toBe(0);
  });

  it("draws an entered group alone, with the way to it, until it is left", () => {
    const { graph, drawn } = view(transformer(12));
    const whole = drawn();
    graph.enter("fold:model.h.0");
    expect(drawn()[0]).toBe("model.h.0");
    expect(drawn().every((id) => id.startsWith("model.h.0"))).toBe(true);
    graph.enter("model.h.0.attn");
    expect(drawn()[0]).toBe("model.h.0.attn");
    expect(graph.crumbs().map((one) => nameOf(one))).toEqual(["model", "model", "h.0", "attn"]);
    graph.leave();
    expect(drawn()[0]).toBe("model.h.0");
    graph.leave();
    expect(graph.crumbs()).toEqual([]);
    expect(drawn().filter((id) => !id.startsWith("model.h.0"))).toEqual(
      whole.map((id) => (id === "fold:model.h.0" ? "fold:model.h.1" : id)),
    );
  });

  it("leaves a group that is drawn alone for a layer outside of it", () => {
    const { graph, synced, drawn } = view(resnet());
    graph.enter("layer2");
    synced.select({ layer: "layer2.1.conv2" });
    expect(graph.alone.value?.id).toBe("layer2");
    synced.select({ layer: "layer3.0.conv1" });
    expect(graph.alone.value).toBeNull();
    expect(drawn()).toContain("layer3.0.conv1");
  });

  it("turns the drawing, and keeps what opens where it is there too", () => {
    const { graph, place, toggle, drawn } = view(resnet());
    const ids = drawn();
    graph.turn();
    expect(drawn()).toEqual(ids);
    const before = place("layer3");
    toggle("layer3");
    expect(place("layer3")[0]).toBe(before[0]);
    const spine = () => (graph.boxOf("conv1")?.spine ?? 0) + graph.origin.value[1];
    const row = spine();
    toggle("layer3");
    expect(place("layer3")).toEqual(before);
    expect(Math.abs(spine() - row)).toBeLessThanOrEqual(40);
    expect(graph.beside(graph.itemOf("conv1") as Item, 1)).toBeNull();
  });

  it("inspects the tensor on an edge without opening what made it", () => {
    const { graph, synced, drawn } = view(resnet());
    const before = drawn();
    const edge = graph.drawing.value?.segments.find((one) => one.from?.id === "layer2");
    graph.inspect(edge as never);
    expect(synced.selection.value.layer).toBe("layer2.1.relu@1");
    expect(drawn()).toEqual(before);
    expect(graph.ring.value).toEqual({ id: "layer2", exact: false });
  });

  it("lights all that a resting pointer's node depends on and all that depends on it", () => {
    vi.useFakeTimers();
    const { store: page, graph, toggle } = view(inception());
    graph.store.view.open.value = new Set();
    toggle("mixed_a");
    page.view.hoveredNode.value = "mixed_a.branch3_2a";
    expect(graph.cone.lit.value).toBeNull();
    vi.advanceTimersByTime(1000);
    const cone = graph.cone.lit.value?.items;
    for (const id of ["input", "stem", "mixed_a.branch3_1", "mixed_a", "mixed_b", "output"])
      expect(cone?.has(id), id).toBe(true);
    expect(cone?.has("mixed_a.branch3_2b")).toBe(false);
    expect(cone?.has("mixed_a.branch1")).toBe(false);
    page.view.hoveredNode.value = "stem";
    graph.cone.stop();
    vi.advanceTimersByTime(1000);
    expect(graph.cone.lit.value?.items).toBe(cone);
    page.view.hoveredNode.value = null;
    vi.advanceTimersByTime(1000);
    expect(graph.cone.lit.value).toBeNull();
    vi.useRealTimers();
  });

  it("goes from match to match, around, opening what is closed", () => {
    const { store: page, graph, drawn } = view(resnet());
    page.view.search.value = "downsample.0";
    expect(graph.matches.value).toEqual([
      "layer2.0.downsample.0",
      "layer3.0.downsample.0",
      "layer4.0.downsample.0",
    ]);
    expect(graph.matchesInside.value.get("layer2")).toBe(1);
    nextMatch(page);
    expect(drawn()).toContain("layer2.0.downsample.0");
    nextMatch(page);
    expect(drawn()).toContain("layer3.0.downsample.0");
    nextMatch(page, -1);
    expect(graph.match.value).toBe(0);
    nextMatch(page, -1);
    expect(graph.match.value).toBe(2);
    page.view.search.value = "conv";
    expect(graph.match.value).toBe(-1);
  });

  it("lights the edges of the node under the pointer, and its neighbours", () => {
    const { store: page, graph, toggle } = view(resnet());
    toggle("layer1");
    toggle("layer1.0");
    page.view.hoveredNode.value = "layer1.0/add";
    expect([...graph.lit.value.near].sort()).toEqual(["layer1.0.bn2", "layer1.0.relu@1", "maxpool"]);
    expect([...graph.lit.value.segments].some((segment) => segment.kind === "skip")).toBe(true);
    page.view.hoveredNode.value = null;
    expect(graph.lit.value.segments.size).toBe(0);
  });

  it("finds producers, consumers and what is beside", () => {
    const { graph, toggle } = view(resnet());
    toggle("layer2");
    toggle("layer2.0");
    const of = (id: string) => graph.itemOf(id) as Item;
    expect(graph.neighbours(of("layer2.0/add"), "incoming").map((one) => one.id)).toEqual([
      "layer2.0.bn2",
      "layer2.0.downsample",
    ]);
    expect(
      graph
        .neighbours(of("layer1"), "outgoing")
        .map((one) => one.id)
        .sort(),
    ).toEqual(["layer2.0.conv1", "layer2.0.downsample"]);
    expect(graph.beside(of("layer2.0.relu"), 1)?.id).toBe("layer2.0.downsample");
    expect(graph.beside(of("layer2.0.downsample"), -1)?.parent?.id).toBe("layer2.0");
    expect(graph.beside(of("conv1"), 1)).toBeNull();
  });

  it("opens a group with an only child together with it", () => {
    const d = new Draft();
    const x = d.input([1, 4]);
    const y = d.group("outer", "Wrapper", () =>
      d.group("inner", "Sequential", () => d.module("1", "Linear", d.module("0", "Linear", x))),
    );
    let z = y;
    for (let at = 0; at < 8; at++) z = d.module(`fc${at}`, "Linear", z);
    d.output(z);
    const { toggle, drawn, store: page } = view(d.done());
    page.view.open.value = new Set();
    toggle("outer");
    expect(drawn()).toContain("outer.inner.0");
  });

  it("closes what was opened first when more than two hundred would be drawn", () => {
    const { graph, store: page, toggle } = view(resnet(6, 20));
    const stages = [1, 2, 3, 4, 5, 6].map((stage) => `layer${stage}`);
    for (const stage of stages) {
      toggle(stage);
      for (const block of (graph.itemOf(stage) as Item).children.filter(canOpen).slice(0, 8))
        toggle(block.id);
    }
    expect(
      countClosed((graph.hierarchy.value as { root: Item }).root, page.view.open.value),
    ).toBeLessThanOrEqual(200);
    expect(page.view.open.value.has("layer6")).toBe(true);
  });

  it("asks for thumbnails of the cards that are drawn, not of plumbing or open groups", () => {
    const { graph, toggle } = view(resnet());
    expect(graph.stripIds()).toEqual(["conv1", "maxpool", "layer1", "layer2", "layer3", "layer4", "fc"]);
    toggle("layer1");
    expect(graph.stripIds()).toContain("layer1.0");
    expect(graph.stripIds()).not.toContain("layer1");
  });

  it("begins at the top of a tall network, at a scale that can be read, and then fits all of it", () => {
    const { graph } = view(chain(40));
    expect(graph.viewport.value.k).toBeGreaterThanOrEqual(0.7);
    const top = graph.rectOf(graph.boxOf("input") as never);
    expect(graph.viewport.value.y + graph.viewport.value.k * top.y).toBeCloseTo(20);
  });

  it("draws every item once", () => {
    const { drawn } = view(unet());
    expect(new Set(drawn()).size).toBe(drawn().length);
    const hierarchy = buildHierarchy(unet());
    expect(drawnItems(hierarchy, new Set()).map((one) => one.id)).toEqual(drawn());
  });
});
