// The page's own half of the state: what a reader chose to look at, never sent to the kernel. One per view, so
// two views of one widget share the selection (a trait, see synced.ts) but not their colours or zoom.

import { type Signal, signal } from "@preact/signals";

export type Tab = "maps" | "math" | "weights" | "intervene" | "stats" | "code";
export type Colormap = "viridis" | "magma" | "gray" | "diverging";
/** How a value becomes a colour: as it is (low to high), signed around zero, or its magnitude. */
export type Sign = "value" | "signed" | "magnitude";
export type Range = "channel" | "layer";
export type Order = "strength" | "index";
export type Overlay = "signed" | "magnitude" | "off";

/** What cards are tinted by. */
export const COLOURINGS = ["type", "params", "flops", "bytes", "time", "mean", "dead"] as const;
export type ColourBy = (typeof COLOURINGS)[number];

/** A place of a map: channel, row and column of the picture. */
export interface Spot {
  channel: number;
  y: number;
  x: number;
}

/** What the pointer rests on, for the status line: a place in words and its value. */
export interface Hover {
  what: string;
  value?: string;
}

export interface View {
  tab: Signal<Tab>;
  colormap: Signal<Colormap>;
  sign: Signal<Sign>;
  range: Signal<Range>;
  order: Signal<Order>;
  overlay: Signal<Overlay>;
  /** Side of a tile on the sheet of maps, in CSS pixels. */
  tile: Signal<number>;
  /** One map fills the panel instead of the sheet of all. */
  zoom: Signal<boolean>;
  /** Tokens as one matrix, tokens by features, instead of a map for each feature. */
  matrix: Signal<boolean>;
  /** The place under the pointer. */
  spot: Signal<Spot | null>;
  /** The unit under a pointer that is still dragging; the selection follows when it lets go. */
  scrub: Signal<{ channel: number; pixel: [number, number] } | null>;
  statsOf: Signal<"layer" | "channel">;
  drawerWidth: Signal<number>;
  /** Ids of the groups drawn open. */
  open: Signal<ReadonlySet<string>>;
  colour: Signal<ColourBy | null>;
  search: Signal<string | null>;
  help: Signal<boolean>;
  /** The network as a list, over the left of the drawing. */
  outline: Signal<boolean>;
  /** The page of attributions, over the drawing. */
  explain: Signal<boolean>;
  /** The painter in the place of the input card. */
  paint: Signal<boolean>;
  /** The page of the output, over the drawing. */
  output: Signal<boolean>;
  /** The page that compares, over the drawing. */
  compare: Signal<boolean>;
  drawer: Signal<boolean>;
  hover: Signal<Hover | null>;
  hoveredNode: Signal<string | null>;
  /** Sentence for screen readers (aria-live). */
  announce: Signal<string>;
}

const OVER_THE_DRAWING = ["explain", "output", "compare"] as const;

/** Opens a page over the drawing, or closes it; of these there is one at a time. */
export function turnPage(view: View, page: (typeof OVER_THE_DRAWING)[number]): void {
  for (const one of OVER_THE_DRAWING) view[one].value = one === page && !view[one].peek();
}

export function createView(): View {
  return {
    tab: signal("maps"),
    colormap: signal("viridis"),
    sign: signal("value"),
    range: signal("channel"),
    order: signal("strength"),
    overlay: signal("signed"),
    tile: signal(60),
    zoom: signal(false),
    matrix: signal(false),
    spot: signal(null),
    scrub: signal(null),
    statsOf: signal("layer"),
    drawerWidth: signal(470),
    open: signal(new Set()),
    colour: signal(null),
    search: signal(null),
    help: signal(false),
    outline: signal(false),
    explain: signal(false),
    paint: signal(false),
    output: signal(false),
    compare: signal(false),
    drawer: signal(true),
    hover: signal(null),
    hoveredNode: signal(null),
    announce: signal(""),
  };
}
