// A level that goes down in resolution and comes up again, with a skip at each: drawn as the letter that such networks
// are named after. The encoder descends on the left, the decoder rises on the right, what is between them lies at the
// bottom, and each skip runs straight across from a resolution to the same one.
//
// Reading only; arms.ts draws it.

import type { Element } from "./series";
import type { Lane, Structure } from "./structure";

/** The vertices of each part, and the wires that run across, the outermost first. */
export interface UShape {
  down: number[];
  bottom: number[];
  up: number[];
  skips: number[][];
}

/** So much more may come after the decoder than came before the encoder. */
const TAIL_MAX = 6;

export function readU(level: Structure): UShape | null {
  const { elements } = level.stack;
  const nested = nestedLanes(level.lanes.get(level.stack) ?? []);
  const [outer, inner] = [nested[0], nested[nested.length - 1]];
  if (!outer || !inner || !changesSize(nested, level)) return null;
  const ends = nested.flatMap((lane) => [lane.from, lane.to]);
  if (!ends.every((at) => elements[at]?.kind === "vertex")) return null;
  if (elements.length - outer.to > outer.from + TAIL_MAX) return null;

  // What makes smaller ends the left arm, what makes larger begins the right one.
  let [first, last] = [inner.from + 1, inner.to - 1];
  while (first < last && resizes(elements, first, level)) first++;
  while (first < last && resizes(elements, last, level)) last--;
  const bounds = [elements[first - 1], elements[first], elements[last], elements[last + 1]];
  if (first > last || !bounds.every((element) => element?.kind === "vertex")) return null;

  const part = (some: Element[]) =>
    some
      .flatMap(verticesOf)
      .filter((vertex) => level.drawn(vertex))
      .flatMap((vertex) => [...(level.satellites.get(vertex) ?? []), vertex])
      .map((vertex) => vertex - 1)
      .sort((a, b) => a - b);
  const shape = {
    down: part(elements.slice(0, first)),
    bottom: part(elements.slice(first, last + 1)),
    up: part(elements.slice(last + 1)),
    skips: nested.map((lane) => lane.targets[0]?.wires ?? []),
  };
  return holdsTogether(shape, level, bounds as Vertex[]) ? shape : null;
}

/**
 * The same U if one group is in its left arm and the other in its right one. What is at the bottom stays in the arm of
 * its group: then one arm reaches deeper, and leads over to the other below both.
 */
export function withFrames(shape: UShape, [first, second]: number[][]): UShape | null {
  const [encoder, decoder] = [new Set(first), new Set(second)];
  const { down, bottom, up, skips } = shape;
  const all = (some: number[], group: Set<number>) => some.every((vertex) => group.has(vertex));
  const none = (some: number[], group: Set<number>) => !some.some((vertex) => group.has(vertex));
  let whole: UShape | null = null;
  if (all(bottom, encoder)) whole = { down: [...down, ...bottom], bottom: [], up, skips };
  else if (all(bottom, decoder)) whole = { down, bottom: [], up: [...bottom, ...up], skips };
  else if (none(bottom, encoder) && none(bottom, decoder)) whole = shape;
  return whole && none(whole.down, decoder) && none(whole.up, encoder) ? whole : null;
}

type Vertex = Element & { kind: "vertex" };

/** The lanes that run past the middle, if each lies within the one before it. */
function nestedLanes(lanes: readonly Lane[]): Lane[] {
  const past = (at: number) => lanes.filter((lane) => lane.from < at && lane.to > at);
  let most: Lane[] = [];
  for (const { from } of lanes) {
    const here = past(from + 1);
    if (here.length > most.length) most = here;
  }
  const sorted = [...most].sort((a, b) => a.from - b.from);
  const within = sorted.every(({ from, to, targets }, at) => {
    const outside = sorted[at - 1];
    return targets.length === 1 && (!outside || (from > outside.from && to < outside.to));
  });
  return within && sorted.length > 1 ? sorted : [];
}

/** Skips of one size, one within the other, are residuals; those of a U become smaller inwards. */
function changesSize(nested: readonly Lane[], level: Structure): boolean {
  const sizes = nested.map((lane) => level.input.wires[lane.targets[0]?.wires[0] ?? -1]?.size ?? "");
  const runs = sizes.filter((size, at) => size !== sizes[at - 1]);
  return runs.length > 1 && new Set(runs).size === runs.length;
}

/** Whether what comes out of an element has another size than what went in. */
function resizes(elements: readonly Element[], at: number, level: Structure): boolean {
  const [before, here, after] = [elements[at - 1], elements[at], elements[at + 1]];
  if (before?.kind !== "vertex" || here?.kind !== "vertex" || after?.kind !== "vertex") return false;
  const size = (from: Vertex, to: Vertex) =>
    level.input.wires.find((wire) => wire.source === from.vertex - 1 && wire.target === to.vertex - 1)?.size;
  return size(before, here) !== size(here, after);
}

function verticesOf(element: Element): number[] {
  if (element.kind === "vertex") return [element.vertex];
  if (element.kind === "tangle") return element.vertices;
  return element.branches.flatMap((branch) => branch.elements.flatMap(verticesOf));
}

/** Nothing goes from part to part but the skips and what leads around the bottom; ports are at the ends. */
function holdsTogether({ down, bottom, up, skips }: UShape, level: Structure, bounds: Vertex[]): boolean {
  const part = new Map<number, number>();
  for (const [at, vertices] of [down, bottom, up].entries())
    for (const vertex of vertices) part.set(vertex, at);
  const across = new Set(skips.flat());
  const around = new Set(bounds.map((element) => element.vertex - 1));
  const { wires, beside, count } = level.input;
  const hosts = new Set(beside.values());
  const fed = new Set(wires.map((wire) => wire.target));
  for (let vertex = 0; vertex < count; vertex++) {
    if (level.boxes[vertex + 1]?.kind === "port" && part.get(vertex) !== (fed.has(vertex) ? 2 : 0))
      return false;
  }
  return wires.every(({ source, target }, at) => {
    if (across.has(at)) return !hosts.has(target);
    const [from, to] = [part.get(source), part.get(target)];
    if (from === undefined || to === undefined) return false;
    return from === to || (to === from + 1 && around.has(source) && around.has(target));
  });
}
