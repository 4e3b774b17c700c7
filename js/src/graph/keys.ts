// Keys of the graph, while the focus is in it: arrows walk along edges, Enter and Backspace go in and out.

import type { GraphController } from "./controller";
import { canOpen, type Item, isOpen, within } from "./hierarchy";
import type { Direction } from "./layout";

/** Acts on a key; false where it means nothing here. */
export function onGraphKey(event: KeyboardEvent, graph: GraphController): boolean {
  if (event.ctrlKey || event.metaKey) return false;
  if ((event.target as Element).closest("input, select, textarea")) return false;
  if (event.altKey) return event.key === "Enter" && enter(graph);
  switch (event.key) {
    case "+":
    case "=":
      graph.zoomBy(1.25);
      return true;
    case "-":
      graph.zoomBy(0.8);
      return true;
    case "0":
      graph.fit();
      return true;
  }
  const item = graph.itemOf(graph.focused.peek());
  if (!item || !(event.target as Element).closest(".nn-node")) return false;
  switch (alongOf(event.key, graph)) {
    case "back":
      return go(graph, up(graph, item));
    case "on":
      return go(graph, down(graph, item));
    case "one side":
      return go(graph, graph.beside(item, -1));
    case "other side":
      return go(graph, graph.beside(item, 1));
  }
  switch (event.key) {
    case "Home":
      return go(graph, graph.drawing.peek()?.boxes[0]?.item);
    case "End":
      return go(
        graph,
        graph.drawing
          .peek()
          ?.boxes.filter((box) => !box.open)
          .at(-1)?.item,
      );
    case "Enter":
      if (!canOpen(item)) graph.select(item);
      else if (event.shiftKey && item.kind === "fold") graph.unfold(item);
      else graph.toggle(item.id);
      graph.holdFocus();
      return true;
    case " ":
      graph.select(item);
      return true;
    case "Backspace":
      out(graph, item);
      return true;
  }
  return false;
}

type Step = "back" | "on" | "one side" | "other side";

const STEPS: Record<Direction, Record<string, Step>> = {
  down: { ArrowUp: "back", ArrowDown: "on", ArrowLeft: "one side", ArrowRight: "other side" },
  right: { ArrowLeft: "back", ArrowRight: "on", ArrowUp: "one side", ArrowDown: "other side" },
};

/** Arrows follow the direction of the drawing. */
function alongOf(key: string, graph: GraphController): Step | undefined {
  return STEPS[graph.direction.peek()][key];
}

function enter(graph: GraphController): boolean {
  const item = graph.itemOf(graph.focused.peek());
  if (!item || !canOpen(item)) return false;
  graph.enter(item.id);
  graph.holdFocus();
  return true;
}

/** Out of what is open here, out of the group that is drawn alone, back into its stack, or out of what it stands in. */
function out(graph: GraphController, item: Item): void {
  const opened = canOpen(item) && isOpen(item, graph.store.view.open.peek());
  const group = opened || graph.isApart(item) ? item : item.parent;
  if (!group?.parent) return;
  graph.focus(group === graph.alone.peek() ? graph.leave() : graph.shut(group));
  graph.holdFocus();
}

/** A key that leads nowhere is still ours: it must not move the notebook. */
function go(graph: GraphController, item: Item | null | undefined): true {
  if (item) graph.focus(item.id);
  return true;
}

function up(graph: GraphController, item: Item): Item | undefined {
  const open = graph.store.view.open.peek();
  const producers = graph.neighbours(item, "incoming");
  // From the first one inside an open group to its frame, from there on to what feeds it.
  const inside = item.parent?.parent && isOpen(item.parent, open) ? item.parent : null;
  const near = producers.find((other) => !inside || within(other, inside));
  return near ?? inside ?? producers[0];
}

function down(graph: GraphController, item: Item): Item | undefined {
  const open = graph.store.view.open.peek();
  if (canOpen(item) && isOpen(item, open)) return item.children[0];
  return graph.neighbours(item, "outgoing")[0];
}
