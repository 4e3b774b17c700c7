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

/** Lines for a selection: with the explorer `w`, and with the engine alone. */
export function snippet(selection: Selection, kind: TileKind): string {
  const { layer, channel, pixel, sample, class: chosen } = selection;
  const target = chosen !== null ? `target=${chosen}` : null;
  if (layer === null && target === null) return "";
  const name = quoted(layer ?? "output");
  const unit = channel !== null && pixel ? unitOf(kind, channel, pixel) : null;
  const explained = target ? [chosen as number] : unit;

  const choice = layer !== null ? [name] : [];
  if (channel !== null) choice.push(`channel=${channel}`);
  if (pixel && kind !== "vector") choice.push(`pixel=(${pixel.join(", ")})`);
  if (target) choice.push(target);
  const lines = [`w.select(${choice.join(", ")})`];
  if (layer !== null) lines.push(`w.feature_maps${index(kind, channel, unit)}`);
  if (explained) lines.push("w.saliency");

  lines.push("", "# without the explorer", "engine = nnviz.Engine(model)");
  lines.push(`trace = engine.trace(inputs[${sample}:${sample + 1}])`);
  if (layer !== null) lines.push(`trace.activation(${name})[0]${index(kind, channel, unit)}`);
  if (explained) {
    const node = target ? '"output"' : name;
    lines.push(`engine.unit_saliency(trace, ${node}, unit=${tuple(explained)})`);
  } else lines.push(`trace.stats(${name})`);
  return lines.join("\n");
}

/** What to write behind an activation to get the chosen unit, or the chosen channel. */
function index(kind: TileKind, channel: number | null, unit: number[] | null): string {
  if (unit) return `[${unit.join(", ")}]`;
  if (channel === null) return "";
  return kind === "tokens" ? `[:, ${channel}]` : `[${channel}]`;
}
