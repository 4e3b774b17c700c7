// The state of the page: which number is looked at, how it came about, and the walk over all places.

import { effect, type Signal, signal, untracked } from "@preact/signals";
import type { Loadable } from "../state/data";
import { Latest } from "../state/latest";
import type { Store } from "../state/store";
import { isCancelled, type WireError } from "../wire/client";
import type { Apart, Reply } from "../wire/types";
import { type Board, boardOf, peak, step } from "./board";

export interface Found {
  key: string;
  meta: Apart;
  arrays: Reply<"arithmetic">["arrays"];
}

/** A place of the board that is not (yet) selected. */
interface Look {
  key: string;
  channel: number;
  at: [number, number];
}

const STEP_MS = 420;

export class Working {
  /** Under the pointer, or where the walk is; else the selected place counts. */
  readonly look = signal<Look | null>(null);
  readonly found = signal<Loadable<Found>>({ state: "idle", data: null });
  readonly playing = signal(false);
  readonly head: Signal<number | null> = signal(null);
  /** The channel whose matrices are open; the strongest by default. */
  readonly open = signal<number | null>(null);

  private readonly asking: Latest<{ node: string; unit: number[]; key: string }>;

  constructor(readonly store: Store) {
    this.asking = new Latest((question) => this.fetch(question));
  }

  /** The picture to choose from. */
  board(): Board | null {
    const maps = this.store.maps.value.data;
    if (!maps || maps.node !== this.store.synced.selection.value.layer) return null;
    return boardOf(maps, this.store.synced.selection.value.channel);
  }

  /** Where we are: looked at, selected, or where the layer answers most. */
  place(board: Board): [number, number] {
    const look = this.look.value;
    if (look && look.key === board.key && look.channel === board.channel) return look.at;
    const { channel, pixel } = this.store.synced.selection.value;
    return board.spot(channel, pixel) ?? peak(board);
  }

  hover(board: Board, at: [number, number] | null): void {
    if (this.playing.peek()) return;
    this.look.value = at && { key: board.key, channel: board.channel, at };
  }

  choose(board: Board, [y, x]: [number, number]): void {
    this.playing.value = false;
    this.look.value = null;
    const { channel, pixel } = board.choice(y, x);
    this.store.selectUnit(channel, pixel);
  }

  step(board: Board, by: 1 | -1): void {
    this.look.value = {
      key: board.key,
      channel: board.channel,
      at: step(board, this.place(board), by),
    };
  }

  /** Asks whenever the place moves, and walks while it plays. */
  follow(): () => void {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const ends = [
      effect(() => {
        const board = this.board();
        const picture = this.store.picture.value;
        const head = this.head.value;
        if (!board || !this.store.synced.run.value) return;
        const unit = board.unit(...this.place(board));
        const key = `${picture}|${board.node}|${unit}|${head}`;
        untracked(() => {
          if (this.found.peek().data?.key !== key) this.asking.ask({ node: board.node, unit, key });
        });
      }),
      effect(() => {
        // Each step waits for the answer to the one before.
        const { state } = this.found.value;
        clearTimeout(timer);
        if (!this.playing.value || state !== "ready") return;
        timer = setTimeout(() => {
          const board = untracked(() => this.board());
          if (board) untracked(() => this.step(board, 1));
        }, STEP_MS);
      }),
    ];
    return () => {
      clearTimeout(timer);
      this.playing.value = false;
      for (const end of ends) end();
    };
  }

  private async fetch({ node, unit, key }: { node: string; unit: number[]; key: string }): Promise<void> {
    const sample = this.store.synced.run.peek()?.sample ?? 0;
    const before = this.found.peek().data;
    try {
      const params = { node, sample, unit, head: this.head.peek(), ...this.store.changes.params };
      const reply = await this.store.request("arithmetic", params, { slot: "hover math" });
      this.found.value = { state: "ready", data: { key, meta: reply.meta, arrays: reply.arrays } };
    } catch (error) {
      if (isCancelled(error)) return;
      const { message, hint } = error as WireError;
      this.found.value = {
        state: "error",
        data: before?.meta.node === node ? before : null,
        error: { message, hint },
      };
    }
  }
}

const kept = new WeakMap<Store, Working>();

/** One for each view, while that view lives. */
export function workingOf(store: Store): Working {
  let working = kept.get(store);
  if (!working) {
    working = new Working(store);
    kept.set(store, working);
  }
  return working;
}
