// How large things are drawn. One place, so that the layout needs no text metrics: cards have fixed sizes and cut
// their text, which keeps columns aligned and a layout the same on every machine. graph.css follows these numbers.

import type { Item } from "./hierarchy";
import type { BoxKind, LevelBox } from "./level";
import { formOf, markOf } from "./words";

export const CARD_WIDTH = 284;
export const CARD_HEIGHT = 74;
export const NARROW_WIDTH = 186;
export const NARROW_HEIGHT = 92;
export const SLIM_HEIGHT = 28;
export const DOT = 26;
export const OUTPUT_HEIGHT = 82;

/** The frame of an open group: its header, and what it keeps free around what it holds. */
export const HEADER = 30;
export const PAD_X = 14;
export const PAD_BOTTOM = 4;
export const OPEN_MIN_WIDTH = 200;

export function closedBox(item: Item, narrow: boolean): LevelBox {
  switch (formOf(item)) {
    case "merge":
      return box("dot", markOf(item).length > 1 ? 44 : DOT, DOT);
    case "constant":
      return box("beside", 118, 24);
    case "tray":
      return box("slim", 196, SLIM_HEIGHT);
    case "slim":
    case "decision":
      return box("slim", narrow ? NARROW_WIDTH : CARD_WIDTH, SLIM_HEIGHT);
    case "output":
      return box("card", CARD_WIDTH, OUTPUT_HEIGHT);
    case "input":
      return box("card", CARD_WIDTH, 54);
    default:
      return narrow ? box("card", NARROW_WIDTH, NARROW_HEIGHT) : box("card", CARD_WIDTH, CARD_HEIGHT);
  }
}

function box(kind: BoxKind, width: number, height: number): LevelBox {
  return { kind, width, height, inX: width / 2, outX: width / 2 };
}
