// What the graph of one view knows and does, without any element: which tree is drawn and where, what is lit, found
// and focused, and the actions behind clicks and keys. GraphView draws it; the top bar and tests call it.

import { batch, computed, effect, type ReadonlySignal, signal, untracked } from "@preact/signals";
import type { Store } from "../state/store";
import type { Graph } from "../state/synced";
import { Glider } from "./glider";
import { above, buildHierarchy, canOpen, type Hierarchy, type Item, isOpen, shownFor } from "./hierarchy";
import { type Drawing, type DrawnBox, Layouter, type Segment } from "./layout";
import { beside, type Lit, light, neighbours, type Side } from "./near";
import { openAtFirst, withinBounds, withOnlyChildren } from "./opening";
import { countInside, findItems } from "./search";
import {
  centred,
  close,
  home,
  inSight,
  type Rect,
  type Size,
  scaled,
  type Viewport,
  whole,
} from "./viewport";
import { hasStrip, nameOf } from "./words";

const ASIDE = 40;
const SETTLE_MS = 400;

const DARK: Lit = { segments: new Set(), near: new Set() };

export class GraphController {
  readonly hierarchy = signal<Hierarchy | null>(null);
  /** Shifts the drawing so that what was clicked stays where it is when something opens above it. */
  readonly origin = signal<readonly [x: number, y: number]>([0, 0]);
  readonly viewport = signal<Viewport>({ k: 1, x: 0, y: 0 });
  readonly pane = signal<Size>({ width: 0, height: 0 });
  /** The item that Tab comes to. */
  readonly focused = signal<string | null>(null);
  /** Which of the matches was gone to last. */
  readonly match = signal(-1);
  readonly hoveredWire = signal<Segment | null>(null);

  readonly drawing: ReadonlySignal<Drawing | null>;
  /** The item that wears the ring: the selected one, or the closed one that holds it. */
  readonly ring: ReadonlySignal<{ id: string; exact: boolean } | null>;
  readonly lit: ReadonlySignal<Lit>;
  readonly matches: ReadonlySignal<readonly Item[]>;
  readonly matched: ReadonlySignal<ReadonlySet<string>>;
  readonly matchesInside: ReadonlySignal<ReadonlyMap<string, number>>;

  /** Set by the view: puts the focus on an item's element. */
  onFocus: (id: string) => void = () => undefined;

  private layouter: Layouter | null = null;
  private words = "";
  private arrived = false;
  private own: string | null = null;
  private readonly glider = new Glider(this.viewport);
  private later: ReturnType<typeof setTimeout> | undefined;
  private readonly undo: Array<() => void> = [];

  constructor(readonly store: Store) {
    const { view, synced } = store;
    this.drawing = computed(() =>
      this.hierarchy.value ? (this.layouter?.draw(view.open.value) ?? null) : null,
    );
    this.ring = computed(() => {
      const item = this.itemOf(synced.selection.value.layer, this.hierarchy.value);
      if (!item) return null;
      const shown = shownFor(item, view.open.value);
      return { id: shown.id, exact: shown === item || (shown.kind !== "group" && shown.rep === item.id) };
    });
    this.lit = computed(() => {
      const wire = this.hoveredWire.value;
      if (wire) return { segments: new Set([wire]), near: new Set() };
      const item = this.itemOf(view.hoveredNode.value, this.hierarchy.value);
      return item && this.hierarchy.value && this.drawing.value
        ? light(item, this.hierarchy.value, this.drawing.value, view.open.value)
        : DARK;
    });
    this.matches = computed(() => {
      const text = view.search.value;
      return this.hierarchy.value && text ? findItems(this.hierarchy.value, text) : [];
    });
    this.matched = computed(() => new Set(this.matches.value.map((item) => item.id)));
    this.matchesInside = computed(() => countInside(this.matches.value));
    this.follow();
  }

  // ---- what it follows ---------------------------------------------------------------------------------

  private follow(): void {
    const { view, synced } = this.store;
    const placed = computed(() => this.pane.value.width > 0);
    this.undo.push(
      effect(() => {
        const graph = synced.graph.value;
        if (graph) this.take(graph);
      }),
      effect(() => {
        void view.search.value;
        this.match.value = -1;
      }),
      effect(() => {
        // A layer chosen elsewhere comes into sight.
        const layer = synced.selection.value.layer;
        if (!this.hierarchy.value || !placed.value) return;
        if (layer !== null && layer !== this.own) untracked(() => this.reveal(layer));
        this.own = layer;
      }),
      effect(() => {
        if (this.drawing.value && placed.value && !this.arrived) {
          this.arrived = true;
          this.viewport.value = this.homeView();
        }
      }),
      effect(() => {
        // A forward that raised: straight to where it did.
        const failed = this.hierarchy.value ? whereFailed(this.hierarchy.value.graph) : undefined;
        if (failed !== undefined && placed.value) untracked(() => this.reveal(failed));
      }),
    );
  }

  /** A graph of the same structure keeps everything; another one keeps what it can. */
  private take(graph: Graph): void {
    const words = JSON.stringify(graph);
    if (words === this.words) return;
    this.words = words;
    const before = this.hierarchy.peek();
    const next = buildHierarchy(graph);
    this.layouter = new Layouter(next);
    batch(() => {
      this.hierarchy.value = next;
      const open = this.store.view.open;
      const kept = [...open.peek()].filter((id) => next.items.get(id)?.children.length);
      const same = before !== null && before.graph.model === graph.model;
      if (same && (kept.length > 0 || open.peek().size === 0)) {
        if (kept.length !== open.peek().size) open.value = new Set(kept);
      } else {
        open.value = openAtFirst(next.root);
        this.origin.value = [0, 0];
        this.arrived = false;
      }
      const focused = this.focused.peek();
      if (focused === null || !next.items.has(focused))
        this.focused.value = next.root.children[0]?.id ?? null;
    });
  }

  dispose(): void {
    this.glider.stop();
    clearTimeout(this.later);
    for (const step of this.undo) step();
  }

  // ---- looking things up -------------------------------------------------------------------------------

  itemOf(id: string | null, hierarchy = this.hierarchy.peek()): Item | undefined {
    return id === null ? undefined : hierarchy?.of(id);
  }

  boxOf(id: string): DrawnBox | undefined {
    return this.drawing.peek()?.byId.get(id);
  }

  rectOf(box: DrawnBox): Rect {
    const [x, y] = this.origin.peek();
    return { x: box.x + x, y: box.y + y, width: box.width, height: box.height };
  }

  private area(): Rect {
    const drawing = this.drawing.peek();
    const [x, y] = this.origin.peek();
    return { x, y, width: drawing?.width ?? 1, height: drawing?.height ?? 1 };
  }

  /** Ids whose thumbnails are on the screen. */
  stripIds(): string[] {
    return (this.drawing.value?.boxes ?? [])
      .filter((box) => !box.open && hasStrip(box.item))
      .map((box) => box.item.rep);
  }

  // ---- opening and closing -----------------------------------------------------------------------------

  toggle(id: string): void {
    const item = this.hierarchy.peek()?.items.get(id);
    if (!item || !canOpen(item)) return;
    if (isOpen(item, this.store.view.open.peek())) this.shut(item);
    else this.open(item);
  }

  open(item: Item): void {
    const open = new Set(this.store.view.open.peek());
    for (const id of withOnlyChildren(item)) {
      open.delete(id);
      open.add(id);
    }
    this.change(open, item);
    this.showWidth(item);
    this.announce(`${nameOf(item)} opened, ${item.children.length} inside`);
  }

  /** What opened beyond the side of the pane comes in sideways, once it is open and a second click has had its time. */
  private showWidth(item: Item): void {
    clearTimeout(this.later);
    this.later = setTimeout(() => {
      const box = this.boxOf(item.id);
      const now = this.viewport.peek();
      if (box) this.glide({ ...now, x: inSight(now, this.rectOf(box), this.pane.peek()).x });
    }, SETTLE_MS);
  }

  shut(item: Item): void {
    clearTimeout(this.later);
    const open = new Set(this.store.view.open.peek());
    open.delete(item.id);
    this.change(open, item);
    const box = this.boxOf(item.id);
    if (box) this.glide(inSight(this.viewport.peek(), this.rectOf(box), this.pane.peek()));
    this.announce(`${nameOf(item)} closed`);
  }

  /** Opens one more level of everything that is drawn, as far as it fits. */
  openLevel(): void {
    const hierarchy = this.hierarchy.peek();
    if (!hierarchy) return;
    const open = new Set(this.store.view.open.peek());
    const closed = (this.drawing.peek()?.boxes ?? []).filter((box) => !box.open && canOpen(box.item));
    for (const { item } of closed) for (const id of withOnlyChildren(item)) open.add(id);
    this.change(
      withinBounds(hierarchy.root, hierarchy.items, open, hierarchy.root),
      hierarchy.root.children[0] ?? hierarchy.root,
    );
    this.goHome();
  }

  closeAll(): void {
    const hierarchy = this.hierarchy.peek();
    if (!hierarchy) return;
    this.change(new Set(), hierarchy.root.children[0] ?? hierarchy.root);
    this.goHome();
  }

  /** Applies a new set of open groups; `anchor` stays where it is on the screen. */
  private change(open: Set<string>, anchor: Item): void {
    const hierarchy = this.hierarchy.peek();
    if (!hierarchy) return;
    const before = this.boxOf(anchor.id);
    batch(() => {
      this.store.view.open.value = withinBounds(hierarchy.root, hierarchy.items, open, anchor);
      const after = this.drawing.value?.byId.get(anchor.id);
      if (before && after) {
        const [x, y] = this.origin.peek();
        const [dx, dy] = [heldX(before, after), before.y - after.y];
        this.origin.value = [x + dx, y + dy];
      }
      const focused = this.focused.peek();
      const item = focused === null ? undefined : hierarchy.items.get(focused);
      if (item) this.focused.value = shownFor(item, this.store.view.open.peek()).id;
    });
  }

  private announce(words: string): void {
    this.store.view.announce.value = words;
  }

  // ---- selecting and walking ---------------------------------------------------------------------------

  select(item: Item): void {
    this.own = item.rep;
    this.focused.value = item.id;
    this.store.selectLayer(item.rep);
  }

  focus(id: string): void {
    this.focused.value = id;
    const box = this.boxOf(id);
    if (box) this.glide(inSight(this.viewport.peek(), this.rectOf(box), this.pane.peek()));
    this.onFocus(id);
  }

  /** Opens what hides an item, and brings it into the middle. */
  reveal(id: string): void {
    const item = this.itemOf(id);
    const hierarchy = this.hierarchy.peek();
    if (!item || !hierarchy) return;
    const open = new Set(this.store.view.open.peek());
    const needed = above(item).filter((up) => !open.has(up.id));
    for (const up of needed) open.add(up.id);
    if (needed.length > 0) this.change(open, needed[0] as Item);
    this.focused.value = item.id;
    const box = this.boxOf(item.id);
    if (!box) return;
    const [rect, pane] = [this.rectOf(box), this.pane.peek()];
    const now = this.arrived ? this.viewport.peek() : this.homeView();
    const seen = inSight(now, rect, pane) === now;
    const next = seen && (needed.length === 0 || !this.arrived) ? now : centred(now, rect, pane);
    if (this.arrived) this.glide(next);
    else this.viewport.value = next;
    this.arrived = true;
  }

  nextMatch(step = 1): void {
    const found = this.matches.peek();
    if (found.length === 0) return;
    const next = (this.match.peek() + step + found.length) % found.length;
    this.match.value = next;
    const item = found[next] as Item;
    this.reveal(item.id);
    this.select(item);
    this.announce(`${next + 1} of ${found.length}: ${nameOf(item)}`);
  }

  /** The drawn items that an item takes from, or gives to, nearest first. */
  neighbours(item: Item, side: Side): Item[] {
    const [hierarchy, drawing] = [this.hierarchy.peek(), this.drawing.peek()];
    return hierarchy && drawing
      ? neighbours(item, side, hierarchy, drawing, this.store.view.open.peek())
      : [];
  }

  beside(item: Item, direction: 1 | -1): Item | null {
    const drawing = this.drawing.peek();
    return drawing ? beside(item, direction, drawing) : null;
  }

  // ---- moving ------------------------------------------------------------------------------------------

  private homeView(): Viewport {
    const root = this.hierarchy.peek()?.root;
    const first = this.drawing.peek()?.byId.get(root?.children[0]?.id ?? "");
    const area = this.area();
    const spine = first ? area.x + first.x + first.width / 2 : area.x + area.width / 2;
    return home(area, spine, this.pane.peek());
  }

  /** The readable view first; asked again, all of it. */
  fit(): void {
    const start = this.homeView();
    this.glide(close(this.viewport.peek(), start) ? whole(this.area(), this.pane.peek()) : start);
  }

  goHome(): void {
    this.glide(this.homeView());
  }

  zoomBy(factor: number): void {
    const { width, height } = this.pane.peek();
    this.glide(scaled(this.viewport.peek(), factor, { x: width / 2, y: height / 2 }));
  }

  panBy(dx: number, dy: number): void {
    const { k, x, y } = this.viewport.peek();
    this.viewport.value = { k, x: x + dx, y: y + dy };
  }

  /** The pane changed its width: what was in the middle stays there. */
  resized(size: Size): void {
    // A hidden pane has no size; it comes back as it was.
    if (size.width === 0 || size.height === 0) return;
    const before = this.pane.peek();
    this.pane.value = size;
    if (!this.arrived || before.width === 0 || size.width === before.width) return;
    const { k, x, y } = this.viewport.peek();
    const moved = { k, x: x + (size.width - before.width) / 2, y };
    const chosen = this.boxOf(this.ring.peek()?.id ?? "");
    this.glide(chosen ? inSight(moved, this.rectOf(chosen), size) : moved);
  }

  glide(to: Viewport): void {
    this.glider.go(to);
  }

  /** A gesture took over. */
  moved(view: Viewport): void {
    clearTimeout(this.later);
    this.glider.stop();
    this.viewport.value = view;
  }
}

/** Its left side stays, or where that would push the whole column aside, the column. */
function heldX(before: DrawnBox, after: DrawnBox): number {
  const inside = (box: DrawnBox) => box.spine - box.x;
  return Math.abs(inside(before) - inside(after)) > ASIDE ? before.spine - after.spine : before.x - after.x;
}

/** The node at which the model raised, or else the innermost group. */
function whereFailed(graph: Graph): string | undefined {
  const node = graph.nodes.find((one) => one.status === "failed");
  return node?.id ?? graph.groups.filter((group) => group.status === "failed" && group.id !== "").at(-1)?.id;
}

// ------------------------------------------------------------------------------------------ one for each store

const controllers = new WeakMap<Store, GraphController>();

export function graphOf(store: Store): GraphController {
  const known = controllers.get(store);
  if (known) return known;
  const fresh = new GraphController(store);
  controllers.set(store, fresh);
  return fresh;
}

/** Enter in the search field: goes to the next match, opening what hides it. */
export function nextMatch(store: Store, step = 1): void {
  graphOf(store).nextMatch(step);
}

export function releaseGraph(store: Store): void {
  controllers.get(store)?.dispose();
  controllers.delete(store);
}
