// Another path of the same model: what stays in the picture when its graph is replaced, and what is new in it.

import type { Graph } from "../state/synced";
import { type Item, leavesOf } from "./hierarchy";
import type { DrawnBox } from "./layout";
import type { Rect, Size, Viewport } from "./viewport";

/** The node at which the model raised, or else the innermost group. */
export function whereFailed(graph: Graph): string | undefined {
  const node = graph.nodes.find((one) => one.status === "failed");
  return node?.id ?? graph.groups.filter((group) => group.status === "failed" && group.id !== "").at(-1)?.id;
}

/** Whether one whole run replaces another: then what is open stays so, also what only the way back needs. */
export function goesOn(before: Graph | undefined, now: Graph): boolean {
  return before?.model === now.model && before.kind === now.kind && whereFailed(before) === undefined;
}

/** The cards in sight, in order of execution: the first that stays is the one to hold still. */
export function cardsInSight(
  boxes: readonly DrawnBox[],
  rectOf: (box: DrawnBox) => Rect,
  { k, x, y }: Viewport,
  pane: Size,
): DrawnBox[] {
  return boxes.filter((box) => {
    const rect = rectOf(box);
    const [mx, my] = [x + k * (rect.x + rect.width / 2), y + k * (rect.y + rect.height / 2)];
    return !box.open && mx > 0 && my > 0 && mx < pane.width && my < pane.height;
  });
}

/** Whether all of an item is new, or something in it. */
export function newIn(item: Item, added: ReadonlySet<string>): "all" | "some" | undefined {
  if (added.size === 0) return undefined;
  const leaves = leavesOf(item);
  const count = leaves.filter((id) => added.has(id)).length;
  return count === 0 ? undefined : count === leaves.length ? "all" : "some";
}
