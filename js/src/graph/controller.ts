// What the graph of one view does, without any element: what of its picture is lit, found and in sight, and the
// actions behind clicks and keys. GraphView draws it; the top bar and tests call it.

import { batch, computed, effect, type ReadonlySignal, signal, untracked } from "@preact/signals";
import type { Store } from "../state/store";
import type { Graph } from "../state/synced";
import { type Cone, ConeLight, coneOf } from "./cone";
import { Glider } from "./glider";
import { above, buildHierarchy, canOpen, growSlowly, type Item, isOpen, shownFor, within } from "./hierarchy";
import type { Direction, DrawnBox, Segment } from "./layout";
import { beside, type Lit, light, neighbours, type Side } from "./near";
import { openAtFirst, outOfFolds, withOnlyChildren } from "./opening";
import { Picture } from "./picture";
import { rehearse } from "./rehearsal";
import { countInside, findIds, prepareSearch } from "./search";
import { inSlices, soon } from "./slices";
import { cardsInSight, goesOn, whereFailed } from "./steady";
import { centred, close, home, inSight, type Size, scaled, type Viewport, whole } from "./viewport";
import { nameOf } from "./words";

const SETTLE_MS = 400;
/** Graphs of so many nodes come to the screen in steps. */
const LARGE = 2000;

const DARK: Lit = { segments: new Set(), near: new Set() };

export class GraphController extends Picture {
  readonly viewport = signal<Viewport>({ k: 1, x: 0, y: 0 });
  readonly pane = signal<Size>({ width: 0, height: 0 });
  /** Which of the matches was gone to last. */
  readonly match = signal(-1);
  readonly hoveredWire = signal<Segment | null>(null);
  readonly cone = new ConeLight();

  /** The item that wears the ring: the selected one, or the closed one that holds it. */
  readonly ring: ReadonlySignal<{ id: string; exact: boolean } | null>;
  readonly lit: ReadonlySignal<Lit>;
  /** Ids of what was searched, in order of execution. */
  readonly matches: ReadonlySignal<readonly string[]>;
  readonly matched: ReadonlySignal<ReadonlySet<string>>;
  readonly matchesInside: ReadonlySignal<ReadonlyMap<string, number>>;

  /** Set by the view: puts the focus on an item's element. */
  onFocus: (id: string) => void = () => undefined;

  private arrived = false;
  /** Set until the view has put the focus back. */
  holding = false;
  private own: string | null = null;
  private readonly glider = new Glider(this.viewport);
  private later: ReturnType<typeof setTimeout> | undefined;
  private stopComing: () => void = () => undefined;
  private readonly undo: Array<() => void> = [];

  constructor(readonly store: Store) {
    super(store.view);
    const { view, synced } = store;
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
      return this.hierarchy.value && text ? findIds(this.hierarchy.value.reading, text) : [];
    });
    this.matched = computed(() => new Set(this.matches.value));
    this.matchesInside = computed(() => {
      const [found, hierarchy] = [this.matches.value, this.hierarchy.value];
      const drawn = this.drawing.value?.boxes.map(({ item }) => item) ?? [];
      return hierarchy && found.length > 0 ? countInside(found, drawn, hierarchy.reading) : new Map();
    });
    this.follow();
  }

  // ---- what it follows ---------------------------------------------------------------------------------

  private follow(): void {
    const { view, synced } = this.store;
    const placed = computed(() => this.pane.value.width > 0);
    const searched = computed(() => view.search.value !== null);
    const failed = computed(() => this.hierarchy.value && whereFailed(this.hierarchy.value.graph));
    this.undo.push(
      effect(() => {
        void synced.graph.value; // a wait for it begins, or what will be opened can be got ready
        return rehearse();
      }),
      effect(() => {
        const graph = synced.graph.value;
        if (!graph) return;
        this.stopComing();
        untracked(() => this.welcome(graph));
      }),
      effect(() => {
        void view.search.value;
        this.match.value = -1;
      }),
      effect(() => {
        // What is searched is written down while the field waits for its first letter.
        const hierarchy = this.hierarchy.value;
        if (searched.value && hierarchy) return inSlices(prepareSearch(hierarchy.reading));
        return undefined;
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
        const id = view.hoveredNode.value;
        untracked(() => this.cone.rest(() => this.coneAt(id)));
      }),
      effect(() => {
        // A forward that raised: straight to where it did.
        const id = failed.value;
        if (id && placed.value) untracked(() => this.reveal(id));
      }),
    );
  }

  /** A large graph is read, grown and drawn in tasks of their own, so that none of them blocks the page. */
  private welcome(graph: Graph): void {
    if (graph.nodes.length < LARGE) {
      this.take(graph);
      return;
    }
    this.stopComing = inSlices(growSlowly(graph), () => this.take(graph));
  }

  /** A graph of the same structure keeps everything; another one keeps what it can. */
  private take(graph: Graph): void {
    const before = this.hierarchy.peek();
    const same = before !== null && before.graph.model === graph.model;
    const apart = same ? this.apart.peek() : new Set<string>();
    const next = buildHierarchy(graph, apart);
    const on = goesOn(before?.graph, graph);
    const boxes = (on && this.drawing.peek()?.boxes) || [];
    const cards = cardsInSight(boxes, (box) => this.rectOf(box), this.viewport.peek(), this.pane.peek());
    this.cone.stop();
    batch(() => {
      this.cone.lit.value = null; // its ways are those of the drawing that goes
      this.hierarchy.value = next;
      this.apart.value = apart;
      const alone = this.entered.peek();
      this.entered.value = alone.filter((id) => same && next.items.get(id)?.children.length);
      const open = this.store.view.open;
      const kept = [...open.peek()].filter((id) => next.items.get(id)?.children.length);
      if (on) {
        // What is open stays so, also what is not there for now; the first card that stays holds still.
        const drawn = this.drawing.value?.byId;
        const card = cards.find(({ item }) => drawn?.has(item.id));
        if (card) this.hold(card, card.item.id);
        this.arrived &&= alone.length === this.entered.peek().length;
      } else if (same && (kept.length > 0 || open.peek().size === 0)) {
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
    this.cone.stop();
    clearTimeout(this.later);
    this.stopComing();
    for (const step of this.undo) step();
  }

  // ---- opening and closing -----------------------------------------------------------------------------

  /** The pointer is on a closed group: a click will find it laid out. */
  foresee(item: Item): void {
    const opens = canOpen(item) && item.kind !== "fold" && !isOpen(item, this.store.view.open.peek());
    if (opens) soon(() => this.layouter.peek()?.foresee(item, this.opened(item)));
  }

  /**
   * A click on a button of an item. In a large graph it is laid out, drawn and painted in tasks of their own: the
   * browser styles the whole page in that of the click.
   */
  pressed(item: Item, act: () => void): void {
    if ((this.hierarchy.peek()?.graph.nodes.length ?? 0) < LARGE) act();
    else {
      this.foresee(item);
      soon(act);
    }
  }

  toggle(id: string): void {
    const item = this.hierarchy.peek()?.items.get(id);
    if (!item || !canOpen(item)) return;
    if (item === this.alone.peek()) this.leave();
    else if (isOpen(item, this.store.view.open.peek())) this.shut(item);
    else this.open(item);
  }

  /** A stack opens its first sibling and keeps the others. */
  open(item: Item): void {
    const first = item.kind === "fold" ? item.children[0] : undefined;
    if (first) this.takeOut(first);
    else {
      this.change(this.opened(item), item.id);
      this.showWidth(item.id);
      this.announce(`${nameOf(item)} opened, ${item.children.length} inside`);
    }
  }

  /** One sibling leaves its stack and opens, where the stack was. */
  takeOut(member: Item): void {
    const fold = member.parent;
    if (fold?.kind !== "fold") return;
    const apart = new Set(this.apart.peek()).add(member.id);
    this.focused.value = this.change(this.opened(member), fold.id, member.id, apart);
    this.showWidth(member.id);
    this.announce(`${nameOf(member)} opened, ${fold.children.length - 1} like it stay folded`);
  }

  /** All siblings of a stack, each closed. */
  unfold(fold: Item): void {
    const members = fold.children.map((member) => member.id);
    const open = new Set(this.store.view.open.peek());
    this.change(open, fold.id, members[0], new Set([...this.apart.peek(), ...members]));
    this.announce(`${nameOf(fold)} unfolded, ${members.length} blocks`);
  }

  /** What opened beyond the side of the pane comes in sideways, once it is open and a second click has had its time. */
  private showWidth(id: string): void {
    clearTimeout(this.later);
    this.later = setTimeout(() => {
      const box = this.boxOf(id);
      const now = this.viewport.peek();
      if (!box) return;
      const seen = inSight(now, this.rectOf(box), this.pane.peek());
      this.glide(this.direction.peek() === "down" ? { ...now, x: seen.x } : { ...now, y: seen.y });
    }, SETTLE_MS);
  }

  /** Closes a group; one that was taken out of a stack goes back. Returns what is drawn for it now. */
  shut(item: Item): string {
    clearTimeout(this.later);
    const open = new Set(this.store.view.open.peek());
    open.delete(item.id);
    const apart = new Set(this.apart.peek());
    apart.delete(item.id);
    const shown = this.change(open, item.id, item.id, apart);
    const box = this.boxOf(shown);
    if (box) this.glide(inSight(this.viewport.peek(), this.rectOf(box), this.pane.peek()));
    this.announce(`${nameOf(item)} closed`);
    return shown;
  }

  /** Opens one more level of everything that is drawn, as far as it fits; of stacks one sibling. */
  openLevel(): void {
    const hierarchy = this.hierarchy.peek();
    if (!hierarchy) return;
    const open = new Set(this.store.view.open.peek());
    const apart = new Set(this.apart.peek());
    for (const { item, open: already } of this.drawing.peek()?.boxes ?? []) {
      if (already || !canOpen(item) || item.kind === "tray") continue;
      const first = item.kind === "fold" ? (item.children[0] as Item) : item;
      if (first !== item) apart.add(first.id);
      for (const id of withOnlyChildren(first)) open.add(id);
    }
    this.change(open, hierarchy.root.children[0]?.id ?? "", undefined, apart);
    this.goHome();
  }

  closeAll(): void {
    const first = this.hierarchy.peek()?.root.children[0];
    this.change(new Set(this.aloneAndAbove()), first?.id ?? "", undefined, new Set());
    this.goHome();
  }

  private aloneAndAbove(): string[] {
    const alone = this.alone.peek();
    return alone ? [...above(alone), alone].map((item) => item.id) : [];
  }

  // ---- one group alone ---------------------------------------------------------------------------------

  /** Draws one group alone; of a stack its first sibling. */
  enter(id: string): void {
    const named = this.itemOf(id);
    const item = named?.kind === "fold" ? named.children[0] : named;
    if (!item || !canOpen(item) || item === this.alone.peek()) return;
    this.goInto([...this.entered.peek(), item.id]);
    this.announce(`${nameOf(item)} alone`);
  }

  /** Back to where the group was entered from. Returns the group. */
  leave(): string {
    const left = this.entered.peek().at(-1) ?? "";
    this.goInto(this.entered.peek().slice(0, -1));
    const box = this.boxOf(left);
    if (box) this.viewport.value = inSight(this.viewport.peek(), this.rectOf(box), this.pane.peek());
    return left;
  }

  /** To a crumb: a group that holds the one that is drawn alone, or all of the model. */
  goInto(entered: readonly string[]): void {
    clearTimeout(this.later);
    batch(() => {
      const hidden = this.itemOf(entered.at(-1) ?? null);
      if (hidden) this.rebuilt(new Set([...this.apart.peek(), ...outOfFolds(hidden)]));
      const item = this.itemOf(hidden?.id ?? null);
      this.entered.value = entered;
      this.origin.value = [0, 0];
      if (item) {
        const open = this.opened(item);
        for (const up of above(item)) open.add(up.id);
        this.store.view.open.value = open;
        this.focused.value = item.id;
      }
    });
    this.glider.stop();
    this.viewport.value = this.homeView();
  }

  turn(): void {
    batch(() => {
      this.direction.value = this.direction.peek() === "down" ? "right" : "down";
      this.origin.value = [0, 0];
    });
    this.glider.stop();
    this.viewport.value = this.homeView();
    this.announce(this.direction.peek() === "down" ? "from top to bottom" : "from left to right");
  }

  private announce(words: string): void {
    this.store.view.announce.value = words;
  }

  // ---- selecting and walking ---------------------------------------------------------------------------

  /** The tensor on an edge: the maps of what made it, wherever that is hidden. */
  inspect(segment: Segment): void {
    const source = this.hierarchy.peek()?.edges[segment.raw[0] ?? -1]?.source;
    if (source === undefined) return;
    this.own = source;
    this.store.selectLayer(source);
  }

  select(item: Item): void {
    this.own = item.rep;
    this.focused.value = item.id;
    this.store.selectLayer(item.rep);
  }

  /** The focus stays in the graph where its card is another one after the next drawing. */
  holdFocus(): void {
    this.holding = true;
  }

  focus(id: string): void {
    this.focused.value = id;
    const box = this.boxOf(id);
    if (box) this.glide(inSight(this.viewport.peek(), this.rectOf(box), this.pane.peek()));
    this.onFocus(id);
  }

  /** Opens what hides an item, takes it out of a stack, and brings it into the middle. */
  reveal(id: string): void {
    const hidden = this.itemOf(id);
    if (!hidden) return;
    const alone = this.alone.peek();
    if (alone && !within(hidden, alone)) this.goInto([]);
    const open = new Set(this.store.view.open.peek());
    const out = outOfFolds(hidden);
    const needed = above(hidden).filter((up) => up.kind !== "fold" && !open.has(up.id));
    for (const up of needed) open.add(up.id);
    if (needed.length > 0 || out.length > 0) {
      const shown = shownFor(hidden, this.store.view.open.peek());
      const then = shown.kind === "fold" ? (out.at(-1) ?? shown.id) : shown.id;
      this.change(open, shown.id, then, new Set([...this.apart.peek(), ...out]));
    }
    const item = this.itemOf(id) as Item;
    this.focused.value = item.id;
    const box = this.boxOf(item.id);
    if (!box) return;
    const [rect, pane] = [this.rectOf(box), this.pane.peek()];
    const now = this.arrived ? this.viewport.peek() : this.homeView();
    const seen = inSight(now, rect, pane) === now;
    const moved = needed.length > 0 || out.length > 0;
    const next = seen && (!moved || !this.arrived) ? now : centred(now, rect, pane);
    if (this.arrived) this.glide(next);
    else this.viewport.value = next;
    this.arrived = true;
  }

  nextMatch(step = 1): void {
    const found = this.matches.peek();
    if (found.length === 0) return;
    const next = (this.match.peek() + step + found.length) % found.length;
    this.match.value = next;
    const id = found[next] as string;
    this.reveal(id);
    const item = this.itemOf(id) as Item;
    this.select(item);
    this.announce(`${next + 1} of ${found.length}: ${nameOf(item)}`);
  }

  private coneAt(id: string | null): Cone | null {
    const [item, hierarchy, drawing] = [this.itemOf(id), this.hierarchy.peek(), this.drawing.peek()];
    return item && hierarchy && drawing
      ? coneOf(item, hierarchy, drawing, this.store.view.open.peek())
      : null;
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
    const first = this.drawing.peek()?.boxes[0];
    const area = this.area();
    const direction = this.direction.peek();
    const start = direction === "down" ? area.x : area.y;
    return home(area, start + (first ? spineOf(first, direction) : 0), this.pane.peek(), direction);
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

/** Where the network passes a box, across its direction. */
function spineOf(box: DrawnBox, direction: Direction): number {
  if (box.open) return box.spine;
  return direction === "down" ? box.x + box.width / 2 : box.y + box.height / 2;
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
