// The Python that gives the numbers on the screen. Pure.

import type { Selection } from "../state/synced";
import type { TileKind } from "../wire/types";

/** A Python string literal. */
export function quoted(text: string): string {
  return `"${text.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n")}"`;
}

export function unitOf(kind: TileKind, channel: number, pixel: readonly [number, number]): number[] {
  if (kind === "vector") return [channel];
  return kind === "tokens" ? [pixel[0], channel] : [channel, ...pixel];
}

function tuple(values: readonly number[]): string {
  return values.length === 1 ? `(${values[0]},)` : `(${values.join(", ")})`;
}

/** Lines for a selection; `w` is the explorer. */
export function snippet(selection: Selection, kind: TileKind): string {
  const { layer, channel, pixel, sample } = selection;
  const lines: string[] = [];
  if (layer !== null) {
    const name = quoted(layer);
    const select = [name];
    if (channel !== null) select.push(`channel=${channel}`);
    if (pixel) select.push(`pixel=(${pixel.join(", ")})`);
    lines.push(`w.select(${select.join(", ")})`, "");
    // What the explorer traces is one sample at a time, so its batch axis has one entry.
    lines.push(`maps = w.trace.activation(${name})[0]`);
    if (channel !== null) {
      if (kind === "maps") lines.push(`maps[${channel}]`);
      if (pixel) {
        const unit = unitOf(kind, channel, pixel);
        lines.push(`maps[${unit.join(", ")}]`, "");
        lines.push(`w.engine.unit_saliency(w.trace, ${name}, unit=${tuple(unit)})`);
      }
    } else {
      lines.push(`w.trace.stats(${name})`);
    }
  }
  if (selection.class !== null) {
    lines.push(`w.engine.unit_saliency(w.trace, "output", unit=(${selection.class},))`);
  }
  if (sample > 0) lines.unshift(`# sample ${sample} of the batch`);
  return lines.join("\n");
}
