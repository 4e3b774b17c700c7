// Stands in the bundle (js/build.mjs) for d3-transition and d3-interpolate, which d3-zoom wants for moves of its
// own. It makes none here: our views glide by themselves (glider.ts). This saves a tenth of the bundle.

import { type Selection, selection } from "d3-selection";

export function interrupt(): void {}

export function interpolateZoom(): never {
  throw new Error("Views are moved by Glider, not by d3's transitions.");
}

Object.assign(selection.prototype, {
  interrupt(this: Selection<Element, unknown, null, undefined>) {
    return this;
  },
});
