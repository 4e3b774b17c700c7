// @vitest-environment happy-dom
// The graph on a page: what it is made of, and what clicks and keys do.

import { options, render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { graphOf } from "../src/graph/controller";
import { GraphView } from "../src/graph/GraphView";
import type { Graph } from "../src/state/synced";
import { Draft, resnet, storeOf, transformer } from "./graphs";

let root: HTMLElement;
const debounce = options.debounceRendering;

beforeEach(() => {
  root = document.createElement("div");
  document.body.append(root);
});

afterEach(() => {
  render(null, root);
  root.remove();
  options.debounceRendering = debounce;
});

function page(graph: Graph) {
  const { store, synced, asked } = storeOf(graph);
  act(() => render(<GraphView store={store} />, root));
  const find = (id: string) => root.querySelector<HTMLElement>(`.nn-node[data-node="${id}"]`);
  const get = (id: string) => {
    const element = find(id);
    if (!element) throw new Error(`${id} is not drawn`);
    return element;
  };
  const fire = (id: string, event: Event) => act(() => void get(id).dispatchEvent(event));
  const click = (id: string) => fire(id, new MouseEvent("click", { bubbles: true }));
  const twice = (id: string) => fire(id, new MouseEvent("dblclick", { bubbles: true }));
  const key = (id: string, name: string, modifiers: KeyboardEventInit = {}) =>
    fire(id, new KeyboardEvent("keydown", { key: name, bubbles: true, ...modifiers }));
  const focus = () => root.querySelector<HTMLElement>('.nn-node[tabindex="0"]')?.dataset.node;
  return { store, synced, asked, find, get, click, twice, key, focus, fire, graph: graphOf(store) };
}

describe("GraphView", () => {
  it("draws a named, focusable element for every node, with what tests and style sheets hold on to", () => {
    const { get } = page(resnet());
    const conv = get("conv1");
    expect(conv.dataset.path).toBe("conv1");
    expect(conv.dataset.kind).toBe("conv");
    expect(conv.getAttribute("role")).toBe("treeitem");
    expect(conv.getAttribute("aria-label")).toBe("conv2d conv1, 64 × 32 × 32");
    expect(get("layer1").dataset.open).toBe("false");
    expect(get("layer1").getAttribute("aria-expanded")).toBe("false");
    expect(conv.hasAttribute("data-open")).toBe(false);
    expect(root.querySelectorAll('.nn-node[tabindex="0"]')).toHaveLength(1);
  });

  it("selects on a click, opens and closes on a double click", () => {
    const { synced, click, twice, find, get } = page(resnet());
    click("layer2");
    expect(synced.selection.value.layer).toBe("layer2");
    expect(get("layer2").dataset.selected).toBe("true");
    expect(get("layer2").getAttribute("aria-selected")).toBe("true");
    twice("layer2");
    expect(get("layer2").dataset.open).toBe("true");
    expect(find("layer2.0")).not.toBeNull();
    twice("layer2");
    expect(find("layer2.0")).toBeNull();
  });

  it("opens with the button of a group without selecting it", () => {
    const { synced, get, find } = page(resnet());
    act(() => get("layer1").querySelector<HTMLElement>("[data-act]")?.click());
    expect(find("layer1.0")).not.toBeNull();
    expect(synced.selection.value.layer).toBeNull();
  });

  it("keeps the element of a group that opens, and with it the focus", () => {
    const { get, key } = page(resnet());
    const before = get("layer1");
    before.focus();
    key("layer1", "Enter");
    expect(get("layer1")).toBe(before);
    expect(document.activeElement).toBe(before);
  });

  it("walks along edges, in and out of groups, and selects with the keyboard alone", () => {
    const { key, focus, synced, find } = page(resnet());
    const path: [string, string][] = [
      ["ArrowDown", "conv1"],
      ["ArrowDown", "bn1"],
      ["ArrowUp", "conv1"],
      ["End", "output"],
      ["Home", "input"],
    ];
    for (const [name, next] of path) {
      key(focus() ?? "", name);
      expect(focus()).toBe(next);
    }
    for (let at = 0; at < 6; at++) key(focus() ?? "", "ArrowDown");
    expect(focus()).toBe("layer2");
    key("layer2", "Enter");
    key("layer2", "ArrowDown");
    expect(focus()).toBe("layer2.0");
    key("layer2.0", "Enter");
    key("layer2.0", "ArrowDown");
    key(focus() ?? "", "ArrowRight");
    expect(focus()).toBe("layer2.0.downsample");
    key("layer2.0.downsample", " ");
    expect(synced.selection.value.layer).toBe("layer2.0.downsample");
    key("layer2.0.downsample", "Backspace");
    expect(focus()).toBe("layer2.0");
    expect(find("layer2.0.downsample")).toBeNull();
  });

  it("takes one block out of its stack with a mark of it, all with Shift, and none out of the focus", () => {
    const { get, find, key, synced } = page(transformer(12));
    const marks = get("model.h.11").querySelectorAll<HTMLElement>(".nn-pips [data-member]");
    expect(marks).toHaveLength(12);
    act(() => marks[5]?.click());
    expect(get("model.h.5").dataset.open).toBe("true");
    expect(get("model.h.11").dataset.fold).toBe("6");
    expect(synced.selection.value.layer).toBeNull();
    key("model.h.5", "Backspace");
    expect(get("model.h.11").dataset.fold).toBe("12");
    key("model.h.11", "Enter");
    expect(get("model.h.0").dataset.open).toBe("true");
    expect(document.activeElement).toBe(get("model.h.0"));
    key("model.h.0", "Backspace");
    expect(document.activeElement).toBe(get("model.h.11"));
    key("model.h.11", "Enter", { shiftKey: true });
    expect(get("model.h.3").dataset.open).toBe("false");
    expect(find("model.h.11")?.dataset.fold).toBeUndefined();
  });

  it("enters a group alone with Alt, and leaves it step by step or by its crumbs", () => {
    const { get, find, key, fire } = page(resnet());
    get("layer2").focus();
    key("layer2", "Enter", { altKey: true });
    expect(find("conv1")).toBeNull();
    fire("layer2.0", new MouseEvent("dblclick", { bubbles: true, altKey: true }));
    const crumbs = () =>
      [...root.querySelectorAll(".nn-crumb:not(.nn-crumb-out)")].map((one) => one.textContent);
    expect(crumbs()).toEqual(["ResNet", "layer2", "layer2.0"]);
    expect(find("layer2")).toBeNull();
    key("layer2.0", "Backspace");
    expect(crumbs()).toEqual(["ResNet", "layer2"]);
    expect(document.activeElement).toBe(get("layer2.0"));
    act(() => root.querySelector<HTMLElement>("button.nn-crumb")?.click());
    expect(crumbs()).toEqual([]);
    expect(get("conv1")).not.toBeNull();
  });

  it("draws from left to right at the press of a button, and the arrows follow", () => {
    const { get, key, focus } = page(resnet());
    const button = () => root.querySelector<HTMLElement>('.nn-tool[aria-label="from left to right"]');
    act(() => button()?.click());
    expect(button()).toBeNull();
    expect(get("conv1").dataset.narrow).toBe("true");
    key("input", "ArrowRight");
    expect(focus()).toBe("conv1");
    key("conv1", "ArrowDown");
    expect(focus()).toBe("conv1");
    key("conv1", "ArrowLeft");
    expect(focus()).toBe("input");
  });

  it("selects what made the tensor on an edge that is clicked", () => {
    const { synced } = page(resnet());
    const edge = [...root.querySelectorAll(".nn-hit")].find((one) =>
      one.getAttribute("data-segment")?.endsWith(">maxpool"),
    );
    act(() => void edge?.dispatchEvent(new MouseEvent("click", { bubbles: true })));
    expect(synced.selection.value.layer).toBe("maxpool");
  });

  it("leaves keys with modifiers to the browser and the notebook", () => {
    const { get } = page(resnet());
    const event = new KeyboardEvent("keydown", { key: "0", ctrlKey: true, bubbles: true, cancelable: true });
    get("conv1").dispatchEvent(event);
    expect(event.defaultPrevented).toBe(false);
  });

  it("says which node the pointer is on, and lights its edges", () => {
    const { store, fire, get } = page(resnet());
    fire("layer1", new Event("pointerover", { bubbles: true }));
    expect(store.view.hoveredNode.value).toBe("layer1");
    expect(store.view.hover.value?.what).toContain("layer1");
    expect(root.querySelectorAll(".nn-lights path").length).toBeGreaterThan(1);
    expect(get("maxpool").dataset.near).toBe("true");
    expect(root.querySelector(".nn-tag")?.textContent).toBe("64 × 16 × 16");
  });

  it("stands for identical blocks with one card that says how many", () => {
    const { get } = page(transformer(12));
    const fold = get("model.h.11");
    expect(fold.dataset.fold).toBe("12");
    expect(fold.textContent).toContain("×12");
    expect(fold.textContent).toContain("h.0 … 11");
  });

  it("marks a node that failed, and one that nothing uses", () => {
    const graph = resnet();
    const node = (id: string) => graph.nodes.find((one) => one.id === id);
    Object.assign(node("fc") ?? {}, { status: "failed" });
    Object.assign(node("relu") ?? {}, { status: "unused" });
    const { get } = page(graph);
    expect(get("fc").dataset.status).toBe("failed");
    expect(get("fc").querySelector(".nn-mark")).not.toBeNull();
    expect(get("fc").getAttribute("aria-label")).toContain("failed");
    expect(get("relu").dataset.status).toBe("unused");
  });

  it("shows names full of HTML as they are written", () => {
    const d = new Draft("<b>Net</b>");
    d.output(d.module("<img src=x onerror=alert(1)>", "<script>", d.input([1, 3])));
    page(d.done());
    expect(root.querySelector("img, script")).toBeNull();
    expect(root.textContent).toContain("<img src=x onerror=alert(1)>");
  });

  it("moves one element to pan and zoom, and none of the cards", () => {
    const { graph, get } = page(resnet());
    const before = get("conv1").getAttribute("style");
    act(() => graph.moved({ k: 2, x: 30, y: -40 }));
    expect(root.querySelector<HTMLElement>(".nn-world")?.style.transform).toBe(
      "translate(30px, -40px) scale(2)",
    );
    expect(get("conv1").getAttribute("style")).toBe(before);
  });

  it("turns a browser's scrolling of the pane into a move of the drawing", () => {
    const { graph } = page(resnet());
    const stage = root.querySelector<HTMLElement>(".nn-stage") as HTMLElement;
    const { y } = graph.viewport.value;
    stage.scrollTop = 120;
    act(() => void stage.dispatchEvent(new Event("scroll")));
    expect(stage.scrollTop).toBe(0);
    expect(graph.viewport.value.y).toBe(y - 120);
  });

  it("lets go of the store when it is taken off the page", () => {
    const { store } = page(resnet());
    const before = graphOf(store);
    act(() => render(null, root));
    expect(graphOf(store)).not.toBe(before);
  });
});
