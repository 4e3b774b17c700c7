// The picture of one view: which tree is drawn, what of it is open, out of its stack or drawn alone, which way it
// runs, and where everything is. Signals and the steps between two pictures; who takes them is the controller's
// business.

import { batch, computed, type ReadonlySignal, signal } from "@preact/signals";
import type { View } from "../state/view";
import { above, buildHierarchy, type Hierarchy, type Item, shownFor } from "./hierarchy";
import { type Direction, type Drawing, type DrawnBox, Layouter } from "./layout";
import { withinBounds, withOnlyChildren } from "./opening";
import type { Rect } from "./viewport";
import { hasStrip } from "./words";

const ASIDE = 40;

export class Picture {
  readonly hierarchy = signal<Hierarchy | null>(null);
  /** Shifts the drawing so that what was clicked stays where it is when something opens above it. */
  readonly origin = signal<readonly [x: number, y: number]>([0, 0]);
  readonly direction = signal<Direction>("down");
  /** Siblings that were taken out of their stacks. */
  readonly apart = signal<ReadonlySet<string>>(new Set());
  /** Groups that were entered, each from the one before; the last is drawn alone. */
  readonly entered = signal<readonly string[]>([]);
  /** The item that Tab comes to. */
  readonly focused = signal<string | null>(null);

  /** The group that is drawn alone. */
  readonly alone: ReadonlySignal<Item | null>;
  readonly drawing: ReadonlySignal<Drawing | null>;
  protected readonly layouter: ReadonlySignal<Layouter | null>;

  constructor(private readonly view: View) {
    this.alone = computed(() => this.itemOf(this.entered.value.at(-1) ?? null, this.hierarchy.value) ?? null);
    this.layouter = computed(() =>
      this.hierarchy.value ? new Layouter(this.hierarchy.value, this.direction.value) : null,
    );
    this.drawing = computed(
      () => this.layouter.value?.draw(view.open.value, this.alone.value ?? undefined) ?? null,
    );
  }

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

  protected area(): Rect {
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

  /** From the whole model to the group that is drawn alone. */
  crumbs(): Item[] {
    const alone = this.alone.value;
    const root = this.hierarchy.value?.root;
    return alone && root ? [root, ...above(alone).filter((item) => item.group), alone] : [];
  }

  isApart(item: Item): boolean {
    return this.apart.peek().has(item.id);
  }

  protected opened(item: Item): Set<string> {
    const open = new Set(this.view.open.peek());
    for (const id of withOnlyChildren(item)) {
      open.delete(id);
      open.add(id);
    }
    return open;
  }

  /**
   * Applies new sets of open groups and of siblings out of their stacks; what is drawn for `then` comes to where
   * `anchor` was on the screen. Returns what that is.
   */
  protected change(
    open: Set<string>,
    anchor: string,
    then = anchor,
    apart: ReadonlySet<string> = this.apart.peek(),
  ): string {
    const before = this.boxOf(anchor);
    return batch(() => {
      const hierarchy = this.rebuilt(apart);
      const keep = hierarchy.items.get(then) ?? hierarchy.root;
      const kept = withinBounds(hierarchy.root, hierarchy.items, open, keep);
      this.view.open.value = kept;
      const shown = shownFor(keep, kept).id;
      this.hold(before, shown);
      const focused = hierarchy.items.get(this.focused.peek() ?? "");
      this.focused.value = focused ? shownFor(focused, kept).id : shown;
      return shown;
    });
  }

  /** Shifts the drawing so that an item is drawn where a box was. */
  protected hold(before: DrawnBox | undefined, id: string): void {
    const after = this.drawing.value?.byId.get(id);
    if (!before || !after) return;
    const [x, y] = this.origin.peek();
    const [dx, dy] = held(before, after, this.direction.peek());
    if (dx !== 0 || dy !== 0) this.origin.value = [x + dx, y + dy];
  }

  /** The tree with other siblings out of their stacks; the same one where that changes nothing. */
  protected rebuilt(apart: ReadonlySet<string>): Hierarchy {
    const hierarchy = this.hierarchy.peek() as Hierarchy;
    const before = this.apart.peek();
    if (apart.size === before.size && [...apart].every((id) => before.has(id))) return hierarchy;
    this.apart.value = apart;
    this.hierarchy.value = buildHierarchy(hierarchy.graph, apart);
    return this.hierarchy.value;
  }
}

/** How far to shift a drawing so that a box stays: its corner, or where that would push all aside, the column. */
function held(before: DrawnBox, after: DrawnBox, direction: Direction): [number, number] {
  const [dx, dy] = [before.x - after.x, before.y - after.y];
  const inside = (box: DrawnBox) => box.spine - (direction === "down" ? box.x : box.y);
  if (Math.abs(inside(before) - inside(after)) <= ASIDE) return [dx, dy];
  const along = before.spine - after.spine;
  return direction === "down" ? [along, dy] : [dx, along];
}
