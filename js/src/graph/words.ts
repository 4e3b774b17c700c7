// What is written on a card, and what kind of card it is: names, hints, shapes, colours, sentences for screen readers.
// Plain functions of the graph's data; labels come from users and are only ever used as text.

import { shape as shapeText } from "../maps/format";
import type { GraphNode, Shape } from "../state/synced";
import type { Item } from "./hierarchy";

/** The colour of a card: a CSS variable `--nn-<kind>`. */
export type Category = "conv" | "pool" | "norm" | "act" | "linear" | "attn" | "group" | "merge" | "other";

/** How an item is drawn when it is closed. */
export type Form = "card" | "slim" | "merge" | "decision" | "input" | "output" | "constant" | "tray";

const CATEGORIES: [Category, RegExp][] = [
  ["attn", /attention|^mha$/],
  ["conv", /conv|unfold$/],
  ["pool", /pool|upsample|interpolate|pixel_?shuffle|grid_sample/],
  ["norm", /norm|^local_response/],
  [
    "act",
    /relu|gelu|silu|swish|mish|sigmoid|tanh|softmax|softplus|softsign|hardtanh|shrink|^elu$|^selu$|^celu$|^glu$|threshold/,
  ],
  ["linear", /linear|embedding|^addmm$|^bilinear$/],
  ["merge", /^(add|sub|mul|div|cat|stack|hstack|vstack|dstack|maximum|minimum)$/],
];

const MARKS: Record<string, string> = {
  add: "+",
  sub: "−",
  mul: "×",
  div: "÷",
  maximum: "max",
  minimum: "min",
  hstack: "cat",
  vstack: "cat",
  dstack: "cat",
};

const WORDS: Record<string, string> = {
  conv1d: "conv",
  conv2d: "conv",
  conv3d: "conv 3d",
  conv_transpose1d: "transposed conv",
  conv_transpose2d: "transposed conv",
  conv_transpose3d: "transposed conv 3d",
  batch_norm: "batch norm",
  layer_norm: "layer norm",
  group_norm: "group norm",
  instance_norm: "instance norm",
  rms_norm: "RMS norm",
  max_pool1d: "max pool",
  max_pool2d: "max pool",
  max_pool3d: "max pool 3d",
  avg_pool1d: "avg pool",
  avg_pool2d: "avg pool",
  adaptive_avg_pool1d: "avg pool",
  adaptive_avg_pool2d: "avg pool",
  adaptive_max_pool2d: "max pool",
  relu: "ReLU",
  leaky_relu: "leaky ReLU",
  prelu: "PReLU",
  relu6: "ReLU6",
  gelu: "GELU",
  silu: "SiLU",
  elu: "ELU",
  hardswish: "hard swish",
  hardsigmoid: "hard sigmoid",
  lstm: "LSTM",
  gru: "GRU",
  multi_head_attention: "attention",
  scaled_dot_product_attention: "attention",
};

/** Containers whose class says nothing about what they are for. */
const ANONYMOUS = new Set(["Sequential", "ModuleList", "ModuleDict", ""]);

export function categoryOf(item: Pick<Item, "kind" | "node" | "group">): Category {
  const { node } = item;
  if (item.kind === "tray") return "other";
  if (!node) {
    const type = item.group?.type.toLowerCase() ?? "";
    return /attention|attn/.test(type) ? "attn" : /^\w*norm(\dd)?$/.test(type) ? "norm" : "group";
  }
  for (const word of [node.op, node.type]) {
    const plain = word.toLowerCase();
    for (const [category, pattern] of CATEGORIES) {
      if (plain && pattern.test(plain) && (category !== "merge" || node.kind === "op")) return category;
    }
  }
  return "other";
}

export function formOf(item: Item): Form {
  const { node } = item;
  if (!node) return item.kind === "tray" ? "tray" : "card";
  if (node.kind === "input" || node.kind === "output" || node.kind === "constant") return node.kind;
  if (node.status === "identity") return "slim";
  if (node.op === "decision") return "decision";
  const category = categoryOf(item);
  if (category === "merge" && node.input_shapes.length > 1) return "merge";
  if (category === "norm" || category === "act" || category === "merge") return "slim";
  if (category === "other") return node.kind === "op" || node.params === 0 ? "slim" : "card";
  if (category === "pool" && area(node.output_shapes[0]) <= 1) return "slim";
  return "card";
}

/** Whether its strongest maps are shown on it. */
export function hasStrip(item: Item): boolean {
  return formOf(item) === "card" && item.node?.status !== "failed" && item.node?.status !== "unused";
}

function area(shape: Shape | undefined): number {
  return (shape ?? []).slice(2).reduce((product, side) => product * side, 1);
}

/** The last part of a path, with the one before it where that alone is only a number: `layer1.0`, `conv1`. */
function tail(path: string, above: string): string {
  const inside = above && path.startsWith(`${above}.`) ? path.slice(above.length + 1) : path;
  const parts = inside.split(".");
  if (parts.length > 1 || !/^\d+$/.test(inside))
    return /^\d+$/.test(parts[0] ?? "") ? tailOf(path, parts.length + 1) : inside;
  return tailOf(path, 2);
}

function tailOf(path: string, count: number): string {
  return path.split(".").slice(-count).join(".");
}

export function nameOf(item: Item): string {
  const { node, group } = item;
  if (item.kind === "tray") return "plumbing";
  if (isSteps(item)) return nameOf(item.children[0] as Item);
  if (item.kind === "part" && item.step > 0) return repeatedName(item);
  if (item.kind === "fold" || item.kind === "part") {
    const first = nameOf(endOf(item, 0));
    const last = nameOf(endOf(item, -1));
    const alike = item.kind === "fold" || item.children.every((child) => child.group);
    return `${first} … ${alike ? (last.match(/\d+$/)?.[0] ?? last) : last}`;
  }
  if (node && node.kind === "constant") return isStored(node) ? tailOf(node.path, 1) : node.op;
  if (node && node.kind !== "module") return node.kind === "op" ? node.op : node.id;
  return tail(node?.path ?? group?.path ?? "", pathAbove(item)) || item.id || "model";
}

/** Whether it stands for the steps of a loop. */
function isSteps(item: Item): boolean {
  return item.kind === "fold" && (item.children[0]?.step ?? 0) > 0;
}

/** What a step does: its layers by their names, or where there is none its operations from first to last. */
function repeatedName(item: Item): string {
  const layers = item.children.filter((child) => child.group || child.node?.kind === "module");
  if (layers.length > 0) return layers.map(nameOf).join(", ");
  return `${nameOf(endOf(item, 0))} … ${nameOf(endOf(item, -1))}`;
}

/** The first or last of those that are gathered in it. */
function endOf(item: Item, at: 0 | -1): Item {
  const member = item.node || item.group ? undefined : item.children.at(at);
  return member ? endOf(member, at) : item;
}

/** A parameter or buffer of the model, which has a name; other constants only say how they were made. */
function isStored(node: GraphNode): boolean {
  return node.path !== "" && (node.op === "parameter" || node.op === "buffer");
}

/** Which use of a module that is used several times: "2nd use". */
function useOf(item: Item): string {
  if (item.kind === "part" && item.step > 0) return `step ${item.step}`;
  const call = item.node?.kind === "op" ? 0 : (item.node?.call ?? item.group?.call ?? 0);
  return call === 0 ? "" : `${call + 1}${["nd", "rd"][call - 1] ?? "th"} use`;
}

function pathAbove(item: Item): string {
  for (let up = item.parent; up; up = up.parent) if (up.kind === "group") return up.group?.path ?? "";
  return "";
}

/** The soft words behind the name: what it is and how it is set. */
export function hintOf(item: Item): string {
  return [hint(item), useOf(item), item.bottleneck ? "bottleneck" : ""].filter(Boolean).join(" · ");
}

function hint(item: Item): string {
  const { node } = item;
  if (!node) return groupHint(item);
  if (node.status === "identity") return "identity";
  if (node.op === "decision") return [node.value, node.code].filter(Boolean).join(" · ");
  if (node.kind === "input" || node.kind === "output") return "";
  if (node.kind === "constant") return isStored(node) ? node.op : "";
  const word = node.kind === "op" ? "" : wordOf(node);
  const detail = node.detail;
  if (!word || detail.startsWith(word)) return detail;
  return detail ? `${word} ${detail}` : word;
}

function wordOf(node: GraphNode): string {
  const word = WORDS[node.op] ?? (node.op ? node.op.replaceAll("_", " ") : node.type);
  const name = (node.path.split(".").pop() ?? "").toLowerCase();
  return name === word.replaceAll(" ", "").toLowerCase() ? "" : word;
}

function countBlocks(item: Item): number {
  if (item.node) return 0;
  return item.group ? 1 : item.children.reduce((sum, child) => sum + countBlocks(child), 0);
}

function groupHint(item: Item): string {
  const inner = item.children;
  const type = item.group?.type ?? endOf(item, 0).group?.type ?? "";
  if (item.kind === "tray") return inner.map(nameOf).join(", ");
  if (isSteps(item)) return hint(inner[0] as Item);
  if (item.kind === "part" && item.step > 0) return `${item.leaves} operations`;
  if (item.kind === "part" && !inner.every((child) => child.group?.type === type))
    return `${item.leaves} operations`;
  if (item.kind !== "group" || !ANONYMOUS.has(type)) return type;
  const blocks = inner.reduce((sum, child) => sum + countBlocks(child), 0);
  if (blocks > 1 && inner.every((child) => !child.node)) return `${blocks} blocks`;
  return item.leaves === 1 ? "1 layer" : `${item.leaves} layers`;
}

/** "×12" on a card that stands for identical siblings, itself or through what it holds. */
export function timesOf(item: Item): number {
  return item.times;
}

/** "×12", "×24 steps" where the same weights are used again, nothing for what is there once. */
export function timesWords(item: Item): string {
  if (item.times < 2) return "";
  const again = item.children.some((child) => child.step > 0 || isSteps(child));
  return `×${item.times}${again ? " steps" : ""}`;
}

export function markOf(item: Item): string {
  const op = item.node?.op ?? "";
  return MARKS[op] ?? op;
}

/** The first output of an item, without the batch axis. */
export function outputShape(item: Item): Shape | null {
  const last = lastNode(item);
  const shape =
    last?.kind === "output" ? (last.output_shapes[0] ?? last.input_shapes[0]) : last?.output_shapes[0];
  return shape ? shape.slice(1) : null;
}

export function lastNode(item: Item): GraphNode | null {
  if (item.node) return item.node;
  for (let at = item.children.length - 1; at >= 0; at--) {
    const found = lastNode(item.children[at] as Item);
    if (found) return found;
  }
  return null;
}

export function spell(shape: Shape | null): string {
  return shape ? shapeText(shape) : "";
}

export function sameShape(a: Shape | undefined, b: Shape | undefined): boolean {
  return a !== undefined && b !== undefined && a.length === b.length && a.every((side, at) => side === b[at]);
}

/** Whether a slim card says its shape: where it is not that of what came in. */
export function showsShape(item: Item): boolean {
  return !sameShape(item.node?.input_shapes[0], item.node?.output_shapes[0]);
}

export function statusOf(item: Item): string {
  return item.node?.status ?? (item.failed ? "failed" : "ok");
}

function gatheredLabel(item: Item): string {
  if (isSteps(item)) return `${item.children.length} steps of`;
  if (item.kind === "fold") return `${item.children.length} identical blocks`;
  if (item.step > 0) return `step ${item.step} of`;
  return `${item.leaves} operations`;
}

/** "conv2d layer1.0.conv1, 64 × 56 × 56". */
export function labelOf(item: Item): string {
  const { node, group } = item;
  const what = node ? node.op || node.type : (group?.type ?? gatheredLabel(item));
  const name = node?.kind === "module" ? node.path : group?.path || nameOf(item);
  const shape = spell(outputShape(item));
  const state = statusOf(item);
  const read = node?.op === "decision" ? hintOf(item) : "";
  return [`${what} ${what === name ? "" : name}`.trim(), read, shape, state === "ok" ? "" : state]
    .filter(Boolean)
    .join(", ");
}
