// The cone of an item: all that it is computed from and all that is computed from it. It lights up once the pointer
// rests, so that a pointer on its way to a click draws nothing.

import { type Signal, signal } from "@preact/signals";
import { type Hierarchy, type Item, leavesOf, type Open, shownFor } from "./hierarchy";
import type { Drawing, Segment } from "./layout";

const REST_MS = 220;

export interface Cone {
  /** Drawn items in it, and the open groups around them. */
  items: ReadonlySet<string>;
  segments: readonly Segment[];
}

export function coneOf(known: Item, hierarchy: Hierarchy, drawing: Drawing, open: Open): Cone {
  const start = leavesOf(shownFor(known, open));
  const nodes = new Set(start);
  const raws = new Set<number>();
  for (const [side, end] of [
    ["incoming", "source"],
    ["outgoing", "target"],
  ] as const) {
    const seen = new Set(start);
    for (const id of seen) {
      for (const raw of hierarchy[side](id)) {
        raws.add(raw);
        const other = hierarchy.edges[raw]?.[end];
        if (other !== undefined) seen.add(other);
      }
    }
    for (const id of seen) nodes.add(id);
  }
  const items = new Set<string>();
  for (const id of nodes) {
    for (let item = hierarchy.of(id) ?? null; item && !items.has(item.id); item = item.parent)
      items.add(item.id);
  }
  return {
    items,
    segments: drawing.segments.filter(
      (segment) => !segment.bundled && segment.raw.some((raw) => raws.has(raw)),
    ),
  };
}

export class ConeLight {
  readonly lit: Signal<Cone | null> = signal(null);
  private waiting: ReturnType<typeof setTimeout> | undefined;

  /** What the pointer came to; nothing is lit any more where it came to nothing. */
  rest(cone: () => Cone | null): void {
    this.stop();
    this.waiting = setTimeout(() => {
      this.lit.value = cone();
    }, REST_MS);
  }

  /** A click comes first: nothing changes until the pointer moves on. */
  stop(): void {
    clearTimeout(this.waiting);
  }
}
