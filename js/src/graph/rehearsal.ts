// The first layout of a page takes several times as long as the second: the browser has yet to read the code that
// it runs. So a small graph that nobody sees is laid out, while a page waits long for its own or when that is drawn.
// Not at once: a kernel that records a small model needs the same processors.

import type { Graph, GraphEdge, GraphNode, Shape } from "../state/synced";
import { growSlowly } from "./hierarchy";
import { type Drawing, Layouter } from "./layout";
import { openAtFirst } from "./opening";
import { inSlices } from "./slices";

const WAIT_MS = 400;
const SIZE = 40;
const SHAPE: Shape = [1, 8];

let rehearsed = false;

/** Once in a page; what it gives back stops it, or has it not begin. */
export function rehearse(): () => void {
  let stop = () => {};
  const waiting = setTimeout(() => {
    if (rehearsed) return;
    stop = inSlices(rehearsal(), () => {
      rehearsed = true;
    });
  }, WAIT_MS);
  return () => {
    clearTimeout(waiting);
    stop();
  };
}

/** All steps from a graph to its first drawing. */
export function* rehearsal(): Generator<void, Drawing> {
  const hierarchy = yield* growSlowly(tangle());
  yield;
  return new Layouter(hierarchy).draw(openAtFirst(hierarchy.root));
}

/** Branches, joins and long skips: a graph for which all is needed that a layout knows. */
function tangle(): Graph {
  const nodes: GraphNode[] = [];
  const edges: GraphEdge[] = [];
  const add = (id: string, kind: GraphNode["kind"], op: string, sources: readonly string[]) => {
    nodes.push({
      ...{ id, path: "", call: 0, op, kind, type: "", detail: "", dtype: "float32", params: 0, flops: 0 },
      ...{ bytes: 0, source: "", status: "ok", parent: "", output_shapes: [SHAPE] },
      input_shapes: sources.map(() => SHAPE),
    });
    for (const source of sources) edges.push({ source, target: id, shape: SHAPE });
  };
  add("input", "input", "input", []);
  let loose = ["input"];
  for (let at = 1; at <= SIZE; at++) {
    // Every third reads something further back, every fifth that and the one before it.
    const id = `/op#${at}`;
    const last = (nodes.at(-1) as GraphNode).id;
    const back = (nodes[Math.max(0, at - 1 - ((at * 7) % 11))] as GraphNode).id;
    const sources = at % 5 === 0 ? [...new Set([last, back])] : [at % 3 === 0 ? back : last];
    add(id, "op", sources.length > 1 ? "add" : "tanh", sources);
    loose = [...loose.filter((one) => !sources.includes(one)), id];
  }
  add("/cat", "op", "cat", loose);
  add("output", "output", "output", ["/cat"]);
  const children = nodes.map(({ id }) => id);
  const group = { id: "", path: "", call: 0, type: "", children, fold: 1, parent: "", params: 0, flops: 0 };
  return { model: "", nodes, edges, groups: [group] };
}
