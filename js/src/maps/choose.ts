// What a pointer or a key on a map means: which unit is looked at, scrubbed or chosen. Shared by the sheet and the
// big map. No drawing here.

import type { Store } from "../state/store";
import type { Spot } from "../state/view";
import { signed } from "./format";
import type { Planes } from "./planes";
import { read } from "./planes";
import { ordered } from "./sheet";

/** The channel the big map shows: under the pointer, else chosen, else the strongest. */
export function shownChannel(store: Store, planes: Planes): number {
  const { view, synced } = store;
  const wish = view.spot.value?.channel ?? view.scrub.value?.channel ?? synced.selection.value.channel;
  if (wish !== null && wish !== undefined && wish >= 0 && wish < planes.count) return wish;
  return ordered(planes.strength, "strength")[0] ?? 0;
}

/** Where the mark stands: the unit under a dragging pointer, else the selected one; null for none. */
export function markedSpot(store: Store, planes: Planes): Spot | null {
  const { channel, pixel } = store.view.scrub.value ?? store.synced.selection.value;
  if (channel === null || !pixel) return null;
  const at = planes.spot(pixel);
  return at && { channel, y: at[0], x: at[1] };
}

/** One finger or mouse on a map, from press to release. Positions come from `at`, wherever the pointer wanders. */
export class Scrubbing {
  private active: { pointer: number; channel: number; at: (event: PointerEvent) => [number, number] } | null =
    null;

  constructor(
    private readonly store: Store,
    private readonly planes: () => Planes | null,
  ) {}

  get on(): boolean {
    return this.active !== null;
  }

  press(
    event: PointerEvent,
    map: HTMLElement,
    channel: number,
    at: (event: PointerEvent) => [number, number],
  ): void {
    if (event.button !== 0 || !event.isPrimary) return;
    // The map itself holds the pointer, so that the click that follows is the map's as well.
    map.setPointerCapture(event.pointerId);
    this.active = { pointer: event.pointerId, channel, at };
    this.go(event, false);
  }

  move(event: PointerEvent): void {
    if (this.active?.pointer === event.pointerId) this.go(event, false);
  }

  release(event: PointerEvent, cancelled = false): void {
    if (this.active?.pointer !== event.pointerId) return;
    if (!cancelled) this.go(event, true);
    this.active = null;
    this.store.view.scrub.value = null;
  }

  private go(event: PointerEvent, settled: boolean): void {
    const planes = this.planes();
    if (!planes || !this.active) return;
    const { channel, at } = this.active;
    const [y, x] = at(event);
    const unit = planes.unit(y, x);
    const { view } = this.store;
    const before = view.scrub.peek();
    view.spot.value = { channel, y, x };
    if (!settled && before?.channel === channel && `${before.pixel}` === `${unit}`) return;
    view.scrub.value = { channel, pixel: unit };
    this.store.selectUnit(channel, unit, settled);
  }
}

/** `[` and `]`: the neighbour in the order that is shown, at the same place where one was chosen. */
export function stepChannel(store: Store, step: 1 | -1): boolean {
  const maps = store.maps.peek().data;
  const { channel, pixel } = store.synced.selection.peek();
  if (!maps) return false;
  const order = ordered(maps.strength, store.view.order.peek());
  const now = channel === null ? -1 : order.indexOf(channel);
  const next = order[channel === null ? 0 : Math.min(order.length - 1, Math.max(0, now + step))];
  if (next === undefined) return false;
  if (pixel) store.selectUnit(next, pixel);
  else store.selectChannel(next);
  store.view.spot.value = null;
  store.view.announce.value = `channel ${next} of ${order.length}`;
  return true;
}

/** Arrow keys on the big map move the chosen pixel by one, with Shift by ten. */
export function nudge(store: Store, planes: Planes, channel: number, event: KeyboardEvent): boolean {
  const moves: Record<string, [number, number]> = {
    ArrowUp: [-1, 0],
    ArrowDown: [1, 0],
    ArrowLeft: [0, -1],
    ArrowRight: [0, 1],
  };
  const move = moves[event.key];
  if (!move || event.ctrlKey || event.altKey || event.metaKey) return false;
  const [rows, columns] = planes.shape;
  const marked = markedSpot(store, planes);
  const [y, x] = marked ? [marked.y, marked.x] : [Math.floor(rows / 2), Math.floor(columns / 2)];
  const far = event.shiftKey ? 10 : 1;
  const clamp = (value: number, n: number) => Math.min(n - 1, Math.max(0, value));
  const next: [number, number] = marked
    ? [clamp(y + far * move[0], rows), clamp(x + far * move[1], columns)]
    : [y, x];
  store.view.spot.value = null;
  store.selectUnit(channel, planes.unit(...next));
  const reading = read(planes, channel, next[0], next[1], store.rawValues(channel));
  store.view.announce.value = `(${next[0]}, ${next[1]}) = ${signed(reading.value)}`;
  return true;
}
