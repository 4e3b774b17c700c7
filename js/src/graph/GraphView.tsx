// The graph pane: what the controller says, drawn, and every gesture and key turned into one of its actions.
// Cards are HTML (they take focus and have names), edges one SVG between frames and cards; zooming and panning
// change the transform of one element and nothing else.

import { useSignalEffect } from "@preact/signals";
import { select } from "d3-selection";
import { type D3ZoomEvent, type ZoomBehavior, zoom, zoomIdentity, zoomTransform } from "d3-zoom";
import type { RefObject } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { Changed } from "../panels/Changed";
import type { Store } from "../state/store";
import { Crumbs } from "./Crumbs";
import { coloursOf, colourWords } from "./colouring";
import { type GraphController, graphOf, releaseGraph } from "./controller";
import { canOpen, type Item } from "./hierarchy";
import { onGraphKey } from "./keys";
import { Colouring } from "./Legend";
import { Minimap } from "./Minimap";
import { moveTo } from "./moving";
import { Node } from "./Node";
import { paintStrips } from "./Strip";
import { Tools } from "./Tools";
import { SCALE_MAX, SCALE_MIN } from "./viewport";
import { shapesOn, Wires } from "./Wires";
import { labelOf, lastNode } from "./words";

const STRIPS_WAIT_MS = 60;
const PANE_WAIT_MS = 340;
const SCROLL_PAUSE_MS = 250;

export function GraphView({ store }: { store: Store }) {
  const graph = useMemo(() => graphOf(store), [store]);
  const stage = useRef<HTMLDivElement>(null);
  const world = useRef<HTMLDivElement>(null);
  useEffect(() => () => releaseGraph(store), [store]);
  usePane(graph, stage);
  useGestures(graph, stage, world);
  useStrips(graph, world);
  useEffect(() => {
    graph.onFocus = (id) => elementOf(world.current, id)?.focus({ preventScroll: true });
  }, [graph]);

  const drawing = graph.drawing.value;
  const [x, y] = graph.origin.value;
  useLayoutEffect(() => {
    if (drawing && graph.holding) graph.onFocus(graph.focused.peek() ?? "");
    graph.holding = false;
  }, [graph, drawing]);
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: it only hears the keys of the tree that it holds
    <div
      ref={stage}
      class="nn-stage"
      onKeyDown={(event) => {
        if (onGraphKey(event, graph)) {
          event.preventDefault();
          event.stopPropagation();
        }
      }}
      onScroll={(event) => follow(event.currentTarget, graph)}
    >
      <div
        ref={world}
        class="nn-world"
        data-cone={graph.cone.lit.value !== null || undefined}
        role="tree"
        aria-label={`layers of ${store.synced.graph.value?.model ?? "the model"}`}
        {...pointing(graph)}
      >
        {drawing?.boxes.map((box) => (
          <Node key={box.item.id} box={box} x={x} y={y} graph={graph} />
        ))}
        {drawing && <Wires graph={graph} drawing={drawing} />}
      </div>
      <Crumbs graph={graph} />
      <Tools graph={graph} />
      <Colouring graph={graph} />
      <Changed store={store} />
      {drawing && <Minimap graph={graph} drawing={drawing} />}
    </div>
  );
}

function elementOf(world: HTMLElement | null, id: string): HTMLElement | null {
  return world?.querySelector<HTMLElement>(`[data-item="${CSS.escape(id)}"]`) ?? null;
}

/** A browser that scrolls a focused card into sight would shift the pane under the drawing; the drawing moves. */
function follow(stage: HTMLElement, graph: GraphController): void {
  const { scrollLeft, scrollTop } = stage;
  if (scrollLeft === 0 && scrollTop === 0) return;
  stage.scrollLeft = 0;
  stage.scrollTop = 0;
  graph.panBy(-scrollLeft, -scrollTop);
}

// ---------------------------------------------------------------------------------------------------- pointing

/** One set of handlers for all nodes and edges. */
function pointing(graph: GraphController) {
  const { view } = graph.store;
  const itemAt = (event: Event): Item | undefined => {
    const node = (event.target as Element).closest<HTMLElement>(".nn-node");
    return node ? graph.itemOf(node.dataset.item ?? null) : undefined;
  };
  const buttonAt = (event: Event) => (event.target as Element).closest<HTMLElement>("[data-act]");
  const segmentAt = (event: Event) => {
    const key = (event.target as Element).closest<SVGPathElement>(".nn-hit")?.dataset.segment;
    return key === undefined
      ? undefined
      : graph.drawing.peek()?.segments.find((segment) => segment.key === key);
  };
  return {
    onClick(event: MouseEvent) {
      const item = itemAt(event);
      const button = buttonAt(event);
      const segment = item ? undefined : segmentAt(event);
      const member = graph.itemOf(button?.dataset.member ?? null);
      if (item?.kind === "fold" && button) graph.holdFocus();
      if (member) graph.pressed(member, () => graph.takeOut(member));
      else if (item && button && event.shiftKey && item.kind === "fold")
        graph.pressed(item, () => graph.unfold(item));
      else if (item && button) graph.pressed(item, () => graph.toggle(item.id));
      else if (item) graph.select(item);
      else if (segment) graph.inspect(segment);
    },
    onDblClick(event: MouseEvent) {
      const item = itemAt(event);
      if (!item || buttonAt(event)) return;
      if (event.altKey && canOpen(item)) graph.enter(item.id);
      else graph.toggle(item.id);
    },
    onPointerDown() {
      graph.cone.stop();
    },
    onPointerOver(event: PointerEvent) {
      const item = itemAt(event);
      const segment = item ? undefined : segmentAt(event);
      view.hoveredNode.value = item ? item.rep : null;
      graph.hoveredWire.value = segment ?? null;
      if (item) {
        if (buttonAt(event)) graph.foresee(item);
        const value = colourWords(item, coloursOf(graph).peek()) || lastNode(item)?.source;
        view.hover.value = { what: labelOf(item), value: value || undefined };
      } else view.hover.value = segment ? { what: `tensor ${shapesOn(graph, segment)}` } : null;
    },
    onPointerLeave() {
      view.hoveredNode.value = null;
      graph.hoveredWire.value = null;
      view.hover.value = null;
    },
    onFocusIn(event: FocusEvent) {
      const item = itemAt(event);
      if (!item) return;
      graph.focused.value = item.id;
      // Walking with the keys lights edges as the pointer does.
      if ((event.target as Element).matches(":focus-visible")) view.hoveredNode.value = item.rep;
    },
    onFocusOut() {
      view.hoveredNode.value = null;
    },
  };
}

// ---------------------------------------------------------------------------------------------------- gestures

/** Follows the size of the pane, without the part that a drawer lies over. */
function usePane(graph: GraphController, stage: RefObject<HTMLDivElement | null>): void {
  const { store } = graph;
  const waiting = useRef(0);
  // A click that opens the drawer narrows the pane: the cards hold still until a second click has had its time.
  const soon = () => {
    clearTimeout(waiting.current);
    waiting.current = window.setTimeout(
      () => stage.current && graph.resized(sizeOf(stage.current)),
      PANE_WAIT_MS,
    );
  };
  useLayoutEffect(() => {
    const element = stage.current;
    if (!element) return;
    graph.resized(sizeOf(element));
    const observer = new ResizeObserver(() => {
      if (graph.pane.peek().width === 0) graph.resized(sizeOf(element));
      else soon();
    });
    observer.observe(element);
    return () => {
      clearTimeout(waiting.current);
      observer.disconnect();
    };
  }, [graph, stage]);
  useSignalEffect(() => {
    void store.view.drawer.value;
    void store.view.drawerWidth.value;
    void store.shown.value;
    soon();
  });
}

function sizeOf(stage: HTMLElement): { width: number; height: number } {
  const { right } = stage.getBoundingClientRect();
  const drawer = stage.closest(".nnviz")?.querySelector(".nn-drawer")?.getBoundingClientRect();
  const covered = drawer ? Math.max(0, right - drawer.left) : 0;
  return { width: Math.max(0, stage.clientWidth - covered), height: stage.clientHeight };
}

function useGestures(
  graph: GraphController,
  stage: RefObject<HTMLDivElement | null>,
  world: RefObject<HTMLDivElement | null>,
): void {
  const behaviour = useRef<ZoomBehavior<HTMLDivElement, unknown> | null>(null);
  useLayoutEffect(() => {
    const element = stage.current;
    if (!element) return;
    const passing = pageScrolls(element);
    const own = zoom<HTMLDivElement, unknown>()
      .scaleExtent([SCALE_MIN, SCALE_MAX])
      // Known here; d3 would measure, and have the page laid out in the middle of every change.
      .extent(() => [
        [0, 0],
        [graph.pane.peek().width, graph.pane.peek().height],
      ])
      .clickDistance(4)
      .filter((event: Event) => !passing.now(event) && wanted(event))
      .on("zoom", (event: D3ZoomEvent<HTMLDivElement, unknown>) => {
        const { k, x, y } = event.transform;
        if (event.sourceEvent) graph.moved({ k, x, y });
      });
    behaviour.current = own;
    select(element).call(own).on("dblclick.zoom", null);
    return () => {
      passing.stop();
      select(element).on(".zoom", null);
      behaviour.current = null;
    };
  }, [graph, stage]);

  useSignalEffect(() => {
    const { k, x, y } = graph.viewport.value;
    const element = stage.current;
    if (!element || !world.current) return;
    moveTo(world.current, `translate(${x}px, ${y}px) scale(${k})`);
    const known = zoomTransform(element);
    if (known.k !== k || known.x !== x || known.y !== y) {
      behaviour.current?.transform(select(element), zoomIdentity.translate(x, y).scale(k));
    }
  });
}

function wanted(event: Event): boolean {
  if (
    (event.target as Element).closest(
      ".nn-tools, .nn-colour, .nn-crumbs, .nn-minimap, .nn-changed, [data-act]",
    )
  )
    return false;
  const { button, ctrlKey, type } = event as MouseEvent;
  return type === "wheel" || (!ctrlKey && !button);
}

/** A page that is being scrolled past the pane goes on scrolling; only a wheel that starts here zooms. */
function pageScrolls(element: HTMLElement) {
  let last = Number.NEGATIVE_INFINITY;
  const note = (event: WheelEvent) => {
    if (!element.contains(event.target as Element)) last = event.timeStamp;
  };
  window.addEventListener("wheel", note, { capture: true, passive: true });
  return {
    now(event: Event): boolean {
      if (event.type !== "wheel" || event.timeStamp - last > SCROLL_PAUSE_MS) return false;
      last = event.timeStamp;
      return true;
    },
    stop: () => window.removeEventListener("wheel", note, { capture: true }),
  };
}

// ------------------------------------------------------------------------------------------------------ strips

function useStrips(graph: GraphController, world: RefObject<HTMLDivElement | null>): void {
  const { store } = graph;
  useSignalEffect(() => {
    const ids = graph.stripIds();
    const waiting = setTimeout(() => store.showStrips(ids), STRIPS_WAIT_MS);
    return () => clearTimeout(waiting);
  });
  const strips = store.strips.value;
  const colormap = store.view.colormap.value;
  const drawing = graph.drawing.value;
  useLayoutEffect(() => {
    if (world.current) paintStrips(world.current, strips, colormap);
  }, [world, strips, colormap, drawing]);
}
