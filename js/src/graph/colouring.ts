// What cards are tinted by: one number for every item, a scale for all of them, a colour for each. Pure functions of
// the graph and of what was measured; who asks the kernel is state/measuring.ts, the legend is Legend.tsx.
//
// A group or a stack has the sum of what is in it (counts, and times but for groups, which are measured as a whole),
// or what its last member gives (means, dead channels). The tints go from the colour of the card itself to a warm one,
// through one hue, so that they are ordered for every eye, on light cards and on dark ones; negative numbers go to a
// cold one.

import { computed, type ReadonlySignal } from "@preact/signals";
import { count, milliseconds, percent, short } from "../maps/format";
import type { Measured } from "../state/measuring";
import type { Graph, GraphNode, NodeKind } from "../state/synced";
import type { ColourBy } from "../state/view";
import type { GraphController } from "./controller";
import type { Item } from "./hierarchy";
import { type Category, categoryOf } from "./words";

export interface Measure {
  title: string;
  /** What exactly the number is, in lines that fit. */
  note: string[];
}

export const MEASURES: Record<ColourBy, Measure> = {
  type: { title: "type", note: ["the family of each layer"] },
  params: { title: "parameters", note: ["each counted once"] },
  flops: { title: "FLOPs", note: ["two per multiply-add"] },
  bytes: { title: "memory", note: ["of the outputs"] },
  time: { title: "time", note: ["median of 5 passes"] },
  mean: { title: "mean activation", note: ["on this input"] },
  dead: {
    title: "dead channels",
    note: ["share of channels that are zero", "at every position, on this input"],
  },
};

const FAMILIES: Record<Category, string> = {
  conv: "convolution",
  pool: "pooling, resizing",
  norm: "normalisation",
  act: "activation",
  linear: "linear, embedding",
  attn: "attention",
  merge: "merge",
  other: "other operation",
  group: "group",
};

/** Counts of the graph are sums; so is time, where it was not measured as a whole. */
const SUMS: readonly ColourBy[] = ["params", "flops", "bytes", "time"];
const DECADES = 100;
const [FAINT, FULL] = [8, 62];
const FAMILY_SHARE = 26;

export interface Extreme {
  id: string;
  value: number;
}

export interface Scale {
  low: number;
  high: number;
  log: boolean;
  /** Zero in the middle. */
  signed: boolean;
}

export interface Colours {
  by: ColourBy;
  numberOf(item: Item): number | null;
  /** The background of a card, as CSS; undefined leaves it as it is. */
  tintOf(item: Item): string | undefined;
  scale: Scale | null;
  /** Layers and operations at both ends, whatever groups they are hidden in. */
  least: Extreme | null;
  most: Extreme | null;
}

export function colour(graph: Graph, by: ColourBy, measured: Measured | null): Colours {
  if (by === "type") {
    const tintOf = (item: Item) => (isColoured(item) ? mixed("var(--nn-c)", FAMILY_SHARE) : undefined);
    return { by, numberOf: () => null, tintOf, scale: null, least: null, most: null };
  }
  const sums = SUMS.includes(by);
  const values = valuesOf(graph, by, measured);
  const known = new Map<Item, number | null>();

  function read(item: Item): number | null {
    const own = item.node ?? item.group;
    if (own) return values.get(own.id) ?? null;
    if (!sums) return numberOf(item.children.at(-1) as Item);
    return item.children.reduce((sum, child) => sum + (numberOf(child) ?? 0), 0);
  }

  function numberOf(item: Item): number | null {
    const value = known.get(item) ?? read(item);
    known.set(item, value);
    return value;
  }

  const told: number[] = [];
  for (const { id, fold } of graph.groups) {
    const value = id === "" ? undefined : values.get(id);
    // A stack has the sum of its members.
    if (value !== undefined && isTold(value, by)) told.push(sums ? value * fold : value);
  }
  let [least, most]: [Extreme | null, Extreme | null] = [null, null];
  for (const { id, kind } of graph.nodes) {
    const value = computes(kind) ? values.get(id) : undefined;
    if (value === undefined || !isTold(value, by)) continue;
    told.push(value);
    if (!least || value < least.value) least = { id, value };
    if (!most || value > most.value) most = { id, value };
  }
  const scale = scaleOf(told, sums);
  const tintOf = (item: Item) => {
    const value = isColoured(item) ? numberOf(item) : null;
    return scale && value !== null && isTold(value, by) ? tint(placeOn(scale, value)) : undefined;
  };
  return { by, numberOf, tintOf, scale, least, most };
}

/** By node and group id; what is not known is left out. */
function valuesOf(graph: Graph, by: ColourBy, measured: Measured | null): Map<string, number> {
  if (measured) return new Map([...measured.of].filter(([, value]) => !Number.isNaN(value)));
  const values = new Map<string, number>();
  const parents = new Map(graph.groups.map(({ id, parent }) => [id, parent]));
  for (const node of graph.nodes) {
    const value = countOf(node, by);
    if (value === null) continue;
    values.set(node.id, value);
    let at: string | undefined = node.parent;
    while (at !== undefined) {
      values.set(at, (values.get(at) ?? 0) + value);
      at = at === "" ? undefined : parents.get(at);
    }
  }
  return values;
}

/** Whether there is something to colour: a count of nothing is not the least of them. */
function isTold(value: number, by: ColourBy): boolean {
  return value > 0 || !SUMS.includes(by);
}

/** What computes: no inputs, outputs and constants, and no tray, which is a part of nothing. */
function isColoured({ kind, node, parent }: Item): boolean {
  if (node) return computes(node.kind);
  return parent !== null && kind !== "tray";
}

function countOf(node: GraphNode, by: ColourBy): number | null {
  switch (by) {
    case "params":
    case "flops":
      return node[by];
    case "bytes":
      // Only what is memory of its own.
      return computes(node.kind) && node.status !== "identity" ? node.bytes : 0;
    default:
      return null;
  }
}

function computes(kind: NodeKind): boolean {
  return kind === "module" || kind === "op";
}

// --------------------------------------------------------------------------------------------------------- scale

/** One for these values; logarithmic where they are sizes that span more than two decades. */
export function scaleOf(values: readonly number[], sizes: boolean): Scale | null {
  if (values.length === 0) return null;
  const low = values.reduce((a, b) => Math.min(a, b));
  const high = values.reduce((a, b) => Math.max(a, b));
  if (low < 0) {
    const reach = Math.max(-low, high);
    return { low: -reach, high: reach, log: false, signed: true };
  }
  return { low, high, log: sizes && low > 0 && high > DECADES * low, signed: false };
}

/** Where a value is: 0 at the lower end (or in the middle, where that is zero), 1 at the upper, -1 at the negative. */
export function placeOn({ low, high, log, signed }: Scale, value: number): number {
  if (!(high > low)) return 0;
  const place = signed
    ? value / high
    : log
      ? Math.log(value / low) / Math.log(high / low)
      : (value - low) / (high - low);
  return Math.max(-1, Math.min(1, place));
}

/** The colour of a place, over that of a card. */
export function tint(place: number): string {
  const hue = place < 0 ? "var(--nn-cold)" : "var(--nn-warm)";
  return mixed(hue, Math.round(FAINT + (FULL - FAINT) * Math.abs(place)));
}

function mixed(hue: string, share: number): string {
  return `color-mix(in srgb, ${hue} ${share}%, var(--nn-card))`;
}

/** The ramp of a scale, from its lower end to its upper. */
export function ramp(scale: Scale, steps: number): string[] {
  const start = scale.signed ? -1 : 0;
  return Array.from({ length: steps }, (_, at) => tint(start + ((1 - start) * at) / (steps - 1)));
}

// --------------------------------------------------------------------------------------------------------- words

/** 23.5 M, 1.2 GFLOP, 3.4 MB, 0.8 ms, −0.12, 25 %. */
export function spellValue(by: ColourBy, value: number): string {
  switch (by) {
    case "flops":
      return withUnit(value, "FLOP");
    case "bytes":
      return withUnit(value, "B");
    case "time":
      return value < 1e-4 ? `${Number((value * 1e6).toPrecision(2))} µs` : milliseconds(1e3 * value);
    case "mean":
      return short(value);
    case "dead":
      return percent(value);
    default:
      return count(value);
  }
}

function withUnit(value: number, unit: string): string {
  const text = count(value);
  return /\d$/.test(text) ? `${text} ${unit}` : text + unit;
}

/** The families of layers that a graph has, with their names. */
export function familiesOf({ nodes, groups }: Graph): [Category, string][] {
  const present = new Set<Category>(groups.length > 1 ? ["group"] : []);
  for (const node of nodes)
    if (computes(node.kind)) present.add(categoryOf({ kind: "node", node, group: null }));
  return (Object.entries(FAMILIES) as [Category, string][]).filter(([category]) => present.has(category));
}

// ------------------------------------------------------------------------------------------------ of one drawing

const known = new WeakMap<GraphController, ReadonlySignal<Colours | null>>();

/** The colours of what a controller draws; null where nothing is to be coloured, or nothing is measured yet. */
export function coloursOf(graph: GraphController): ReadonlySignal<Colours | null> {
  const { view, measuring } = graph.store;
  let colours = known.get(graph);
  if (!colours) {
    colours = computed(() => {
      const [by, hierarchy] = [view.colour.value, graph.hierarchy.value];
      if (!by || !hierarchy) return null;
      return colour(hierarchy.graph, by, measuring.fits(by) ? measuring.found.value.data : null);
    });
    known.set(graph, colours);
  }
  return colours;
}

/** What a card's colour says, in words; nothing where it has none. */
export function colourWords(item: Item, colours: Colours | null): string {
  if (!colours || colours.by === "type" || !isColoured(item)) return "";
  const value = colours.numberOf(item);
  const { title } = MEASURES[colours.by];
  return value === null ? `${title} not measured` : `${title} ${spellValue(colours.by, value)}`;
}
