// @vitest-environment happy-dom
// The graph of another input takes the place of one: what stays where it is, what is marked, and what is said.

import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { graphOf } from "../src/graph/controller";
import { GraphView } from "../src/graph/GraphView";
import type { Item } from "../src/graph/hierarchy";
import { PathNotice } from "../src/panels/PathNotice";
import { StatusLine } from "../src/panels/StatusLine";
import type { Graph, PathChange, Run } from "../src/state/synced";
import { Draft, storeOf } from "./graphs";

/** A stem, one of two ways that a decision chose, and a head; `size` is that of the pictures. */
function forked(bright: boolean, size = 32): Graph {
  const d = new Draft("Forked");
  const start = d.input([1, 3, size, size]);
  d.op("decision", [d.op("mean", [start], [])], []);
  Object.assign(d.nodes.at(-1) ?? {}, {
    value: bright ? "True" : "False",
    code: "if x.mean() > 0:",
    source: "net.py:9",
    output_shapes: [],
  });
  const block = (name: string, from: string, layers: number) =>
    d.group(name, "Sequential", () => {
      let x = from;
      for (let at = 0; at < layers; at++) x = d.module(`${at}`, "Conv2d", x, [1, 8, size, size]);
      return x;
    });
  const stem = block("stem", start, 3);
  let x = bright ? block("bright", stem, 4) : d.op("mul", [block("dark", stem, 2)]);
  x = block("middle", x, 3);
  d.output(d.module("head", "Linear", d.op("flatten", [x], [1, 8]), [1, 4]));
  return d.done();
}

const TO_DARK: PathChange = {
  title: "Sample 1 took another path",
  message: "at net.py:9 (`if x.mean() > 0` was False): 3 operations new, 4 gone.",
  added: ["dark.0", "dark.1", "/mul"],
  first: "dark.0",
};
const TO_BRIGHT: PathChange = {
  title: "Sample 0 took another path",
  message: "at net.py:9 (`if x.mean() > 0` was True): 4 operations new, 3 gone.",
  added: ["bright.0", "bright.1", "bright.2", "bright.3"],
  first: "bright.0",
};

let root: HTMLElement;

beforeEach(() => {
  root = document.createElement("div");
  document.body.append(root);
});

afterEach(() => {
  render(null, root);
  root.remove();
});

function page() {
  const { store, synced, asked } = storeOf(forked(true));
  act(() =>
    render(
      <>
        <GraphView store={store} />
        <PathNotice store={store} />
        <StatusLine store={store} />
      </>,
      root,
    ),
  );
  const graph = graphOf(store);
  act(() => graph.resized({ width: 900, height: 600 }));
  const places = () => {
    const [x, y] = graph.origin.value;
    const boxes = graph.drawing.value?.boxes ?? [];
    return new Map(boxes.map((box) => [box.item.id, [box.x + x, box.y + y, box.width, box.height]]));
  };
  /** As the kernel does it: the graph, where it is another, and then the run. */
  const show = (next: Graph | null, change?: PathChange) =>
    act(() => {
      if (next) synced.graph.value = next;
      const { run, sample } = synced.run.peek() as Run;
      synced.run.value = { ...(synced.run.peek() as Run), run: run + 1, sample: 1 - sample, change };
      synced.select({ sample: 1 - sample });
    });
  const node = (id: string) => root.querySelector<HTMLElement>(`.nn-node[data-item="${id}"]`);
  const notice = () => root.querySelector<HTMLElement>('[data-panel="path"]');
  const press = (label: string) =>
    act(() => [...root.querySelectorAll("button")].find((one) => one.textContent === label)?.click());
  return { store, synced, asked, graph, places, show, node, notice, press };
}

describe("the graph of another input", () => {
  it("leaves every card exactly where it was if the structure is the same", () => {
    const { graph, places, show } = page();
    act(() => graph.toggle("middle"));
    act(() => graph.moved({ k: 0.9, x: 31, y: -17 }));
    const [before, view] = [places(), graph.viewport.value];
    show(forked(true, 64));
    expect(places()).toEqual(before);
    expect(graph.viewport.value).toBe(view);
  });

  it("shows the new shapes", () => {
    const { graph, show } = page();
    const shapeInto = (id: string) =>
      graph.hierarchy.value?.edges.find((edge) => edge.target === id)?.shape.slice(2);
    expect(shapeInto("stem.0")).toEqual([32, 32]);
    show(forked(true, 64));
    expect(shapeInto("stem.0")).toEqual([64, 64]);
    expect(root.querySelector('[data-item="stem"] .nn-shape')?.textContent).toBe("8 × 64 × 64");
  });

  it("keeps what is open, and on the way back the whole picture", () => {
    const { graph, places, show } = page();
    act(() => graph.closeAll());
    for (const id of ["stem", "bright", "middle"]) act(() => graph.toggle(id));
    const [before, view] = [places(), graph.viewport.value];
    show(forked(false), TO_DARK);
    const there = places();
    expect([...there.keys()]).toEqual(expect.arrayContaining(["stem.1", "middle.2", "dark", "/mul"]));
    expect(there.has("bright")).toBe(false);
    for (const id of ["input", "stem", "stem.0", "stem.2", "/mean", "/decision"])
      expect(there.get(id)?.slice(0, 2), id).toEqual(before.get(id)?.slice(0, 2));
    expect(graph.viewport.value).toBe(view);
    show(forked(true), TO_BRIGHT);
    expect(places()).toEqual(before);
  });

  it("holds the first card in sight still where the beginning is out of sight", () => {
    const { graph, places, show } = page();
    act(() => graph.closeAll());
    for (const id of ["bright", "middle"]) act(() => graph.toggle(id));
    const middle = places().get("middle.0") as number[];
    act(() => graph.moved({ k: 1, x: 0, y: -(middle[1] as number) + 5 }));
    show(forked(false), TO_DARK);
    expect(places().get("middle.0")?.slice(0, 2)).toEqual(middle.slice(0, 2));
    expect(places().get("middle.2")).toBeDefined();
  });

  it("marks the cards that are new, and unmarks them when the notice is read", () => {
    const { node, notice, show, press } = page();
    expect(notice()).toBeNull();
    show(forked(false), TO_DARK);
    expect(node("dark")?.dataset.new).toBe("all");
    expect(node("dark")?.getAttribute("aria-label")).toContain("new on this path");
    expect(node("/mul")?.dataset.new).toBe("all");
    for (const id of ["input", "stem", "middle", "/decision"]) expect(node(id)?.dataset.new).toBeUndefined();
    expect(notice()?.textContent).toContain("Sample 1 took another path at net.py:9");
    expect(notice()?.querySelector("code")?.textContent).toBe("if x.mean() > 0");
    press("Dismiss");
    expect(notice()).toBeNull();
    expect(node("dark")?.dataset.new).toBeUndefined();
    show(forked(true), TO_BRIGHT);
    expect(notice()?.textContent).toContain("Sample 0");
  });

  it("says nothing more once a run took the same path", () => {
    const { notice, show } = page();
    show(forked(false), TO_DARK);
    show(null);
    expect(notice()).toBeNull();
  });

  it("goes to what is new, opening what hides it, and leaves the selection alone", () => {
    const { graph, synced, node, show, press } = page();
    act(() => graph.select(graph.itemOf("stem") as Item));
    show(forked(false), TO_DARK);
    expect(node("dark.0")).toBeNull();
    press("Show");
    expect(node("dark.0")?.dataset.new).toBe("all");
    expect(node("dark")?.dataset.new).toBeUndefined(); // open: its cards say it
    expect(graph.focused.value).toBe("dark.0");
    expect(synced.selection.value.layer).toBe("stem");
  });

  it("keeps a selected layer that did not run, says so, and asks for no maps of it", () => {
    const { store, synced, asked, show } = page();
    act(() => synced.select({ layer: "bright.1", channel: 2, pixel: [3, 4] }));
    asked.length = 0;
    show(forked(false), TO_DARK);
    expect(synced.selection.value.layer).toBe("bright.1");
    expect(store.mute.value).toBe("bright.1 did not run for this input.");
    expect(asked).not.toContain("maps");
    expect(asked).not.toContain("saliency");
    show(forked(true), TO_BRIGHT);
    expect(store.mute.value).toBeNull();
    expect(asked).toContain("maps");
  });
});

describe("a decision", () => {
  it("is a diamond with the value that was taken and the condition", () => {
    const { node } = page();
    const card = node("/decision");
    expect(card?.dataset.form).toBe("decision");
    expect(card?.textContent).toBe("◇Truex.mean() > 0");
    expect(card?.querySelector("[title]")?.getAttribute("title")).toBe(
      "a decision on the data: True · if x.mean() > 0: (net.py:9)",
    );
    expect(card?.getAttribute("aria-label")).toContain("decision, True · if x.mean() > 0:");
  });

  it("has no maps, and tells what it read instead", () => {
    const { store, asked } = page();
    asked.length = 0;
    act(() => store.selectLayer("/decision"));
    expect(asked).not.toContain("maps");
    expect(store.mute.value).toContain("Python read True here: if x.mean() > 0: (net.py:9).");
  });

  it("makes the page say that the graph is for this input", () => {
    const { synced } = page();
    expect(root.querySelector(".nn-status")?.textContent).toContain("this graph is for this input");
    const plain = new Draft("Plain");
    plain.output(plain.module("fc", "Linear", plain.input([1, 4])));
    act(() => {
      synced.graph.value = plain.done();
    });
    expect(root.querySelector(".nn-status")?.textContent).not.toContain("this input");
  });
});
