// Keys of the graph, while the focus is in it: arrows walk along edges, Enter and Backspace go in and out.

import type { GraphController } from "./controller";
import { canOpen, type Item, isOpen } from "./hierarchy";

/** Acts on a key; false where it means nothing here. */
export function onGraphKey(event: KeyboardEvent, graph: GraphController): boolean {
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  if ((event.target as Element).closest("input, select, textarea")) return false;
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
  switch (event.key) {
    case "ArrowUp":
      return go(graph, up(graph, item));
    case "ArrowDown":
      return go(graph, down(graph, item));
    case "ArrowLeft":
      return go(graph, graph.beside(item, -1));
    case "ArrowRight":
      return go(graph, graph.beside(item, 1));
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
      if (canOpen(item)) graph.toggle(item.id);
      else graph.select(item);
      return true;
    case " ":
      graph.select(item);
      return true;
    case "Backspace": {
      // Out of what is open here, or else of what this stands in.
      const group = canOpen(item) && isOpen(item, graph.store.view.open.peek()) ? item : item.parent;
      if (!group?.parent) return true;
      graph.shut(group);
      graph.focus(group.id);
      return true;
    }
  }
  return false;
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

function within(item: Item, group: Item): boolean {
  for (let above = item.parent; above; above = above.parent) if (above === group) return true;
  return false;
}
