// The kernel's half of the state: each trait of the widget as a signal. Python writes all of them; the page
// writes one, `selection`. What the page alone decides (zoom, colours, open groups) lives in view.ts.

import { type Signal, signal } from "@preact/signals";
import { isLarge, isPacked, unpack } from "./packed";

export type NodeKind = "input" | "module" | "op" | "constant" | "output";
export type NodeStatus = "ok" | "identity" | "failed" | "unused";
export type Shape = number[];

export interface GraphNode {
  id: string;
  path: string;
  call: number;
  op: string;
  kind: NodeKind;
  type: string;
  detail: string;
  input_shapes: Shape[];
  output_shapes: Shape[];
  dtype: string;
  params: number;
  flops: number;
  bytes: number;
  source: string;
  status: NodeStatus;
  parent: string;
  /** Id of the node that used the same weights first. */
  shared?: string;
  /** Of a decision: what Python read, and the user's line that read it. */
  value?: string;
  code?: string;
}

export interface GraphEdge {
  source: string;
  target: string;
  shape: Shape;
}

export interface GraphGroup {
  id: string;
  path: string;
  call: number;
  type: string;
  children: string[];
  fold: number;
  parent: string;
  params: number;
  flops: number;
  source?: string;
  status?: NodeStatus;
}

export interface Graph {
  model: string;
  /** A run, a pass over shapes alone, or the modules without a pass. */
  kind?: "run" | "shapes" | "tree";
  nodes: GraphNode[];
  edges: GraphEdge[];
  groups: GraphGroup[];
}

export interface Info {
  model: string;
  params: number;
  flops: number;
  input_shape: Shape;
  samples: number;
  device: string;
  class_names?: string[];
  has_targets: boolean;
  dtype: string;
  /** What Python set beside the sample, and how often it did so. */
  compare?: {
    kind: "sample" | "inputs" | "model" | "checkpoint";
    name: string;
    version: number;
    sample?: number;
  };
}

export interface Failure {
  title: string;
  message: string;
  hint?: string;
  source?: string;
  node?: string;
  shapes?: string[];
}

export interface Status {
  state: "loading" | "ready" | "error";
  stage?: string;
  done?: number;
  total?: number;
  message?: string;
  error?: Failure;
  /** What the picture lacks, and why: a graph of shapes alone, or of modules alone. */
  note?: { title: string; message: string };
}

export interface Prediction {
  index: number;
  name: string;
  prob: number;
  logit: number;
  true?: boolean;
}

/** Another path than the run before it took. */
export interface PathChange {
  title: string;
  message: string;
  /** Ids of the nodes that are new. */
  added: string[];
  /** The one to look at first. */
  first: string | null;
}

export interface Run {
  sample: number;
  epoch: number;
  run: number;
  ms: number;
  consistent: boolean;
  predictions: { task: "classification" | "other"; classes: Prediction[]; true?: Prediction; note?: string };
  change?: PathChange;
}

export interface Selection {
  layer: string | null;
  channel: number | null;
  pixel: [number, number] | null;
  sample: number;
  class: number | null;
}

/** The part of anywidget's model that the front end uses. */
export interface WidgetModel {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  // biome-ignore lint/suspicious/noExplicitAny: the host's own signature
  on(event: string, callback: (...args: any[]) => void): void;
  // biome-ignore lint/suspicious/noExplicitAny: the host's own signature
  off(event?: string | null, callback?: ((...args: any[]) => void) | null): void;
  // biome-ignore lint/suspicious/noExplicitAny: the host's own signature
  send(content: unknown, callbacks?: any, buffers?: ArrayBuffer[] | ArrayBufferView[]): void;
}

export const NOTHING_SELECTED: Selection = {
  layer: null,
  channel: null,
  pixel: null,
  sample: 0,
  class: null,
};

export interface Synced {
  graph: Signal<Graph | null>;
  info: Signal<Info | null>;
  status: Signal<Status>;
  run: Signal<Run | null>;
  epoch: Signal<number>;
  selection: Signal<Selection>;
  /** Writes the selection here and in the kernel. */
  select(change: Partial<Selection>): void;
  /** Whether there is a kernel to tell; what it missed it is told when it is back. */
  heard(now: boolean): void;
  dispose(): void;
}

/** What a click asks for goes ahead of the note, for Python, of what was clicked: each message has its price. */
const SAVE_MS = 80;

/** An empty dictionary is how Python says "nothing yet". */
function orNull<T extends object>(value: unknown): T | null {
  return value && Object.keys(value as object).length > 0 ? (value as T) : null;
}

/**
 * The graph comes packed; rows as they are (what `Graph.to_dict` gives) are taken as well. One that is sent once
 * more is the same object: nothing is drawn again for it.
 */
function graphReader(): (value: unknown) => Graph | null {
  let [before, graph]: [object | null, Graph | null] = [null, null];
  return (value) => {
    const written = orNull<Graph>(value);
    if (before && written && JSON.stringify(before) === JSON.stringify(written)) return graph;
    before = written;
    graph = written && isPacked(written) ? unpack(written) : written;
    return graph;
  };
}

export function synced(model: WidgetModel): Synced {
  const undo: Array<() => void> = [];
  let saving: ReturnType<typeof setTimeout> | undefined;
  // A large graph is read in a task after the one that received it, and what came with it in its turn.
  const waiting: Array<() => void> = [];
  let reading: ReturnType<typeof setTimeout> | undefined;

  function catchUp(): void {
    reading = undefined;
    for (const update of waiting.splice(0)) update();
  }

  function hush(): void {
    clearTimeout(saving);
    saving = undefined;
  }

  function save(): void {
    saving = undefined;
    model.save_changes();
  }

  function trait<T>(name: string, read: (value: unknown) => T): Signal<T> {
    const mirror = signal(read(model.get(name)));
    const update = () => {
      mirror.value = read(model.get(name));
    };
    const follow = () => {
      if (reading === undefined && !(name === "graph" && isLarge(model.get(name)))) return update();
      waiting.push(update);
      reading ??= setTimeout(catchUp);
    };
    model.on(`change:${name}`, follow);
    undo.push(() => model.off(`change:${name}`, follow));
    return mirror;
  }

  const selection = trait("selection", (v) => ({ ...NOTHING_SELECTED, ...(v as Partial<Selection>) }));
  return {
    graph: trait("graph", graphReader()),
    info: trait("info", (v) => orNull<Info>(v)),
    status: trait("status", (v) => orNull<Status>(v) ?? { state: "loading" }),
    run: trait("run", (v) => orNull<Run>(v)),
    epoch: trait("epoch", (v) => Number(v ?? 0)),
    selection,
    select(change) {
      const next = { ...selection.peek(), ...change };
      if (JSON.stringify(next) === JSON.stringify(selection.peek())) return;
      selection.value = next;
      model.set("selection", next);
      saving ??= setTimeout(save, SAVE_MS);
    },
    heard(now) {
      hush();
      if (now) save();
    },
    dispose() {
      hush();
      clearTimeout(reading);
      for (const step of undo) step();
    },
  };
}
