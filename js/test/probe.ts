// What the benchmark of the graph (tests/benchmarks/graph.py) runs in a page of its own: the steps between the
// message and the picture, each under a stopwatch, without anything that draws.

import { buildHierarchy } from "../src/graph/hierarchy";
import { Layouter } from "../src/graph/layout";
import { openAtFirst } from "../src/graph/opening";
import { atOnce } from "../src/graph/reading";
import { rehearsal } from "../src/graph/rehearsal";
import { type PackedGraph, unpack } from "../src/state/packed";

/** Milliseconds that each step took. */
export interface Laps {
  parse: number;
  unpack: number;
  tree: number;
  layout: number;
  /** Cards and frames that would be drawn. */
  boxes: number;
}

/** From the text of a packed graph to its first drawing. */
export function firstDrawing(text: string): Laps {
  const times = [performance.now()];
  const lap = () => {
    times.push(performance.now());
    return (times.at(-1) as number) - (times.at(-2) as number);
  };
  const packed = JSON.parse(text) as PackedGraph;
  const parse = lap();
  const graph = unpack(packed);
  const unpacked = lap();
  const hierarchy = buildHierarchy(graph);
  const open = openAtFirst(hierarchy.root);
  const tree = lap();
  const drawing = new Layouter(hierarchy).draw(open);
  return { parse, unpack: unpacked, tree, layout: lap(), boxes: drawing.boxes.length };
}

/** What a page does while it waits for its graph; milliseconds. */
export function rehearsed(): number {
  const start = performance.now();
  atOnce(rehearsal());
  return performance.now() - start;
}

Object.assign(window, { probe: { firstDrawing, rehearsed } });
