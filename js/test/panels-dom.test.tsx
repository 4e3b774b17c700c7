// @vitest-environment happy-dom
// The panels on a page: what they say, what they ask for, and when the maps count as painted.

import { signal } from "@preact/signals";
import { options, render } from "preact";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { MapsPanel } from "../src/maps/MapsPanel";
import { Drawer } from "../src/panels/Drawer";
import { InputCard } from "../src/panels/InputCard";
import { Notice } from "../src/panels/Notice";
import { Predictions } from "../src/panels/Predictions";
import { TopBar } from "../src/panels/TopBar";
import { Store } from "../src/state/store";
import { synced, type WidgetModel } from "../src/state/synced";
import { type WireClient, WireError } from "../src/wire/client";
import type { Operation, RequestOptions } from "../src/wire/types";

interface Asked {
  op: Operation;
  params: Record<string, unknown>;
  options: RequestOptions<Operation>;
  resolve(reply: unknown): void;
  reject(error: unknown): void;
}

const RUN = {
  sample: 0,
  epoch: 1,
  run: 1,
  ms: 5,
  consistent: true,
  predictions: {
    task: "classification",
    classes: [
      { index: 4, name: "<img src=x onerror=alert(1)>", prob: 0.7, logit: 2.5 },
      { index: 1, name: "cat", prob: 0.2, logit: 1.25 },
    ],
    true: { index: 8, name: "dog", prob: 0.01, logit: -1 },
  },
};
const INFO = {
  model: "Net",
  params: 11_689_512,
  flops: 1_814_073_344,
  input_shape: [3, 4, 4],
  samples: 1,
  device: "cpu",
  has_targets: true,
  dtype: "float32",
};
const NODE = {
  id: "conv",
  path: "conv",
  op: "conv2d",
  type: "Conv2d",
  call: 0,
  dtype: "float32",
  params: 112,
  flops: 1000,
  source: "net.py:12",
  input_shapes: [[1, 3, 4, 4]],
  output_shapes: [[1, 4, 2, 2]],
};
const GRAPH = { model: "Net", nodes: [NODE], edges: [], groups: [{ id: "", children: ["conv"] }] };
const META = { node: "conv", kind: "maps", shape: [4, 2, 2], scale: 1, bad: [], ms: 3 };

/** Preact draws and effects run: a few turns of the microtask queue. */
async function settle(): Promise<void> {
  for (let i = 0; i < 12; i++) await Promise.resolve();
}

function page(traits: Record<string, unknown> = {}) {
  const held: Record<string, unknown> = {
    graph: GRAPH,
    info: INFO,
    status: { state: "ready" },
    run: RUN,
    epoch: 1,
    selection: {},
    ...traits,
  };
  const listeners = new Map<string, () => void>();
  const model = {
    get: (name: string) => held[name],
    set: (name: string, value: unknown) => {
      held[name] = value;
    },
    save_changes: () => {},
    on: (event: string, call: () => void) => listeners.set(event, call),
    off: () => {},
    send: () => {},
  } as unknown as WidgetModel;
  const asked: Asked[] = [];
  const wire = {
    busy: signal(false),
    dead: signal(false),
    request: (op: Operation, params: Record<string, unknown>, given: RequestOptions<Operation>) =>
      new Promise((resolve, reject) => asked.push({ op, params, options: given, resolve, reject })),
  };
  const store = new Store(synced(model), wire as unknown as WireClient, "view");
  const push = (name: string, value: unknown) => {
    held[name] = value;
    listeners.get(`change:${name}`)?.();
  };
  const last = (op: Operation) => asked.filter((a) => a.op === op).at(-1) as Asked;
  return { store, wire, asked, push, last };
}

/** happy-dom lays nothing out and has no pixels: a width, a height and a context that takes what is put. */
const real = {
  width: Object.getOwnPropertyDescriptor(HTMLElement.prototype, "clientWidth"),
  height: Object.getOwnPropertyDescriptor(HTMLElement.prototype, "clientHeight"),
};
let host: HTMLElement;

beforeEach(() => {
  options.debounceRendering = queueMicrotask;
  host = document.createElement("div");
  document.body.append(host);
  Object.defineProperty(HTMLElement.prototype, "clientWidth", { configurable: true, get: () => 300 });
  Object.defineProperty(HTMLElement.prototype, "clientHeight", { configurable: true, get: () => 400 });
  HTMLCanvasElement.prototype.getContext = (() => ({ putImageData() {}, clearRect() {} })) as never;
});

afterEach(() => {
  render(null, host);
  host.remove();
  for (const [name, was] of [
    ["clientWidth", real.width],
    ["clientHeight", real.height],
  ] as const) {
    if (was) Object.defineProperty(HTMLElement.prototype, name, was);
  }
});

const find = <T extends HTMLElement>(what: string) => host.querySelector<T>(what) as T;

function part(bytes: number[], start: number, more: Record<string, unknown> = {}) {
  const tiles = { data: Uint8Array.from(bytes), shape: [bytes.length / 4, 2, 2], start, total: 4 };
  return { arrays: { tiles, ...more }, epoch: 1, last: start + bytes.length / 4 === 4 } as never;
}

describe("the maps panel", () => {
  it("is painted exactly while every tile in sight shows the chosen layer", async () => {
    const { store, last } = page();
    render(<MapsPanel store={store} />, host);
    store.selectLayer("conv");
    await settle();
    const panel = find("[data-panel=maps]");
    expect(panel.dataset.layer).toBe("conv");
    expect(panel.hasAttribute("data-painted")).toBe(false);
    expect(host.querySelectorAll(".nn-sheet .nn-ghost")).toHaveLength(1);

    const request = last("maps");
    const ramp = Array.from({ length: 8 }, (_, i) => 30 * i);
    request.options.onChunk?.({ ...(part(ramp, 0) as object), meta: META } as never);
    await settle();
    expect(panel.hasAttribute("data-painted")).toBe(false);
    await vi.waitFor(() => expect(host.querySelectorAll("[data-channel]")).toHaveLength(2));

    request.options.onChunk?.(part(ramp, 2));
    request.resolve({ meta: META, arrays: {}, epoch: 1, ms: 1 });
    await settle();
    expect(panel.getAttribute("data-painted")).toBe("true");
    expect(host.querySelectorAll("[data-channel]")).toHaveLength(4);

    // What was painted stays for a moment, and cannot be taken for the new layer's.
    store.selectLayer("other");
    await settle();
    expect(panel.dataset.layer).toBe("conv");
    store.selectUnit(1, [0, 1]);
    expect(store.synced.selection.value).toMatchObject({ layer: "other", channel: null, pixel: null });
    await vi.waitFor(() => expect(panel.dataset.layer).toBe("other"));
    expect(panel.hasAttribute("data-painted")).toBe(false);
    expect(host.querySelectorAll("[data-channel]")).toHaveLength(0);
  });

  it("says why a layer could not be drawn and asks again", async () => {
    const { store, asked, last } = page();
    render(<MapsPanel store={store} />, host);
    store.selectLayer("conv");
    last("maps").reject(new WireError("model_error", "boom <b>", "look at line 3"));
    await settle();
    expect(host.textContent).toContain("boom <b>");
    expect(host.textContent).toContain("look at line 3");
    const before = asked.filter((a) => a.op === "maps").length;
    find("button").click();
    expect(asked.filter((a) => a.op === "maps")).toHaveLength(before + 1);
  });

  it("can be told to stop waiting", async () => {
    const { store, last } = page();
    render(<MapsPanel store={store} />, host);
    store.selectLayer("conv");
    await vi.waitFor(() => find(".nn-progress button").click());
    await settle();
    expect(last("maps").options.signal?.aborted).toBe(true);
    expect(host.textContent).toContain("cancelled");
  });
});

describe("the predictions", () => {
  it("write names as text, mark the true class, and show the saliency of a clicked one", async () => {
    const { store, last } = page();
    render(<Predictions store={store} />, host);
    expect(host.querySelector("img")).toBeNull();
    expect(host.textContent).toContain("<img src=x onerror=alert(1)>");
    expect(find("[data-class='8']").textContent).toContain("✓");
    find("[data-class='1']").click();
    await settle();
    expect(find("[data-class='1']").getAttribute("aria-pressed")).toBe("true");
    expect(last("saliency").params).toMatchObject({ node: "output", unit: [1] });
    find("[data-class='1']").click();
    await settle();
    expect(find("[data-class='1']").getAttribute("aria-pressed")).toBe("false");
  });

  it("list shapes where the output is no row of scores", () => {
    const predictions = { task: "other", classes: [], shapes: ["output[0]: 1×3×8×8"] };
    const { store } = page({ run: { ...RUN, predictions } });
    render(<Predictions store={store} />, host);
    expect(host.textContent).toContain("output[0]: 1×3×8×8");
  });
});

describe("the top bar", () => {
  const bar = (store: Store) => render(<TopBar store={store} root={{ current: host as never }} />, host);

  it("says what model it is and how large", () => {
    const { store } = page();
    bar(store);
    expect(host.textContent).toContain("11.7 M parameters · 1.8 GFLOPs · input 3 × 4 × 4");
  });

  it("says how the kernel is, in every state", async () => {
    const { store, wire, push, last } = page();
    bar(store);
    const said = () => find(".nn-state").textContent;
    expect(said()).toContain("cpu · live");
    wire.busy.value = true;
    await settle();
    expect(said()).toContain("kernel busy");
    wire.busy.value = false;
    push("epoch", 2);
    await settle();
    expect(said()).toContain("weights changed");
    find(".nn-state").click();
    expect(last("run").params).toMatchObject({ sample: 0 });
    wire.dead.value = true;
    await settle();
    expect(said()).toMatch(/still picture|kernel gone/);
  });
});

describe("the notice", () => {
  it("shows title, message, hint, place, shapes and source of a failure", async () => {
    const error = {
      title: "The model raised an error.",
      message: "RuntimeError: <b>no</b>",
      hint: "Check the reshape.",
      source: "net.py:12",
      node: "conv",
      shapes: ["1×3×4×4"],
    };
    const { store } = page({ status: { state: "error", error } });
    render(<Notice store={store} />, host);
    for (const words of Object.values(error).flat()) expect(host.textContent).toContain(words);
    expect(host.querySelector("b")).toBeNull();
    find(".nn-link").click();
    expect(store.synced.selection.value.layer).toBe("conv");
  });

  it("shows how far a first pass is and lets it be cancelled", () => {
    const { store, last } = page({
      run: {},
      status: { state: "loading", stage: "running the model", done: 3, total: 12 },
    });
    render(<Notice store={store} />, host);
    expect(host.textContent).toContain("running the model");
    expect(host.textContent).toContain("3 of 12");
    find("button").click();
    expect(last("stop")).toBeDefined();
  });

  it("says what a graph that was not run lacks", () => {
    const note = { title: "Shapes only.", message: "There are no values." };
    const { store } = page({ run: {}, status: { state: "ready", note } });
    render(<Notice store={store} />, host);
    expect(host.querySelector('[role="status"]')?.textContent).toBe("Shapes only. There are no values.");
  });

  it("says calmly that a reopened notebook shows a still picture", async () => {
    const { store, wire } = page({ run: {} });
    wire.dead.value = true;
    render(<Notice store={store} />, host);
    expect(host.textContent).toContain("still picture");
  });
});

describe("the drawer", () => {
  it("opens with a layer, turns its pages and closes", async () => {
    const { store } = page();
    render(
      <Drawer store={store}>
        <p>maps</p>
      </Drawer>,
      host,
    );
    expect(host.textContent).toBe("");
    store.selectLayer("conv");
    await settle();
    expect(find("[role=tab][aria-selected=true]").textContent).toBe("Maps");
    const tabs = [...host.querySelectorAll<HTMLElement>("[role=tab]")];
    tabs.find((tab) => tab.textContent === "Code")?.click();
    await settle();
    expect(find("[data-panel=code]").textContent).toContain('w.select("conv")');
    expect(find("[data-panel=code]").textContent).toContain("net.py:12");
    find("[aria-label='close the drawer']").click();
    await settle();
    expect(host.querySelector(".nn-drawer")).toBeNull();
    find("[aria-label='show conv']").click();
    await settle();
    expect(host.querySelector(".nn-drawer")).not.toBeNull();
  });
});

describe("the input", () => {
  it("names the unit on its overlay once that is drawn, and takes the name away with it", async () => {
    const { store, last } = page();
    render(<InputCard store={store} />, host);
    last("input").resolve({
      meta: { kind: "image", shape: [3, 4, 4] },
      arrays: { rgb: { data: new Uint8Array(48), shape: [4, 4, 3] } },
    });
    await settle();
    store.selectClass(1);
    await settle();
    const overlay = find("[data-role=saliency]");
    expect(overlay.dataset.unit).toBeUndefined();
    const map = { data: new Uint8Array(4).fill(200), shape: [2, 2] };
    const meta = { value: 1, scale: 1, magnitude_scale: 1, box: [0, 0, 2, 2] };
    const arrays = { signed: map, magnitude: map };
    last("saliency").options.onChunk?.({ meta, arrays, epoch: 1, last: false } as never);
    await settle();
    expect(overlay.dataset.unit).toBe("1");
    expect(host.querySelector("[data-role=field]")).toBeNull();
    last("saliency").resolve({ meta: { ...meta, field: { box: [0, 0, 4, 4], exact: false } }, arrays });
    await settle();
    expect(overlay.dataset.unit).toBe("1");
    expect(find("[data-role=field]").dataset.exact).toBe("false");
    expect(host.textContent).toContain("class cat");
    store.back();
    await settle();
    expect(overlay.dataset.unit).toBeUndefined();
    expect(host.querySelector("[data-role=field]")).toBeNull();
  });

  it("describes an input that is no picture by its shape", async () => {
    const { store } = page();
    render(<InputCard store={store} />, host);
    expect(host.textContent).toContain("3 × 4 × 4");
  });
});
