// The cone of an item: all that it is computed from and all that is computed from it. It lights up once the pointer
// rests, so that a pointer on its way to a click draws nothing.

import { type Signal, signal } from "@preact/signals";
import { type Hierarchy, type Item, type Open, shownFor } from "./hierarchy";
import type { Drawing, DrawnBox, Segment } from "./layout";

const REST_MS = 220;

export interface Cone {
  /** Drawn items in it, and the open groups around them. */
  items: ReadonlySet<string>;
  segments: readonly Segment[];
}

export function coneOf(known: Item, hierarchy: Hierarchy, drawing: Drawing, open: Open): Cone {
  const { order, place, source, target, incoming, outgoing } = hierarchy.reading;
  const start = shownFor(known, open).spans.flatMap(([from, to]) => [...order.subarray(from, to)]);
  const raws = new Set<number>();
  /** How many nodes of the cone lie before each place. */
  const before = new Int32Array(order.length + 1);
  for (const [edges, end] of [
    [incoming, source],
    [outgoing, target],
  ] as const) {
    const seen = new Set(start);
    for (const node of seen) {
      before[(place[node] as number) + 1] = 1;
      for (const raw of edges(node)) {
        const other = end[raw] as number;
        if ((place[other] as number) < 0) continue;
        raws.add(raw);
        seen.add(other);
      }
    }
  }
  for (let at = 0; at < order.length; at++)
    before[at + 1] = (before[at + 1] as number) + (before[at] as number);
  const inCone = ({ item }: DrawnBox) => item.spans.some(([from, to]) => before[from] !== before[to]);
  return {
    items: new Set(drawing.boxes.filter(inCone).map((box) => box.item.id)),
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
