// Frames while somebody draws: the newest picture goes out, what is on the screen comes back, and a meter counts.
//
// A message takes a while from here to the kernel and back, longer than a small network; so up to three frames are
// on their way at once, and what comes back late is dropped. The page shows the newest answer once for each picture
// of the screen, and asks hardly oftener than it has shown answers of late: on a machine that page and kernel share,
// answers that nobody sees are paid for by those that are shown. When the drawing rests, the whole run is asked for.

import { batch, signal } from "@preact/signals";
import type { Maps, Strip } from "../state/data";
import type { Store } from "../state/store";
import type { Run } from "../state/synced";
import { isCancelled } from "../wire/client";
import type { Reply } from "../wire/types";

const LANES = 3;
/** A network slower than this gets two lanes: a third would only add to the delay. */
const SLOW_MS = 30;
const REST_MS = 300;
/** Pictures follow each other a little faster than answers were shown, so that the rate finds what is possible. */
const EAGER = 0.8;
/** And faster still where nothing is on its way. */
const EAGER_IDLE = 0.75;
const PACE_FRAMES = 6;
const PACE_MOST_MS = 100;
const METER_FRAMES = 12;
/** The meter's words change no oftener: nobody could read them, and each change lays out the card anew. */
const METER_MS = 200;
/** For so long what was in sight is still taken to be: telling it takes a look at every card. */
const SIGHT_MS = 200;
const STRIP_SIZE = 36;
const MAX_SIDE = 64;

export interface Rate {
  /** Answers shown in a second of drawing; a hand that rests in between is no slow answer. */
  fps: number;
  /** From the picture to the answer on the page. */
  trip: number;
  /** Of it in the kernel. */
  ms: number;
  /** Whether some value in sight can only be read the slow way. */
  recorded: boolean;
  /** Of the arithmetic: less than 1 where only a stroke was followed. */
  share: number;
}

type Frame = { rgb: Uint8ClampedArray; base: number; rests: boolean };
type Arrived = { reply: Reply<"paint">; started: number; changed?: number };
type Sight = { node: string; channels: number[] }[];

export class Live {
  readonly rate = signal<Rate | null>(null);
  readonly error = signal("");
  /** Called when an answer was shown, within the same picture of the screen. */
  onShown: () => void = () => undefined;
  private next: Frame | null = null;
  private newest: Frame | null = null;
  private readonly busy = new Array<boolean>(LANES).fill(false);
  private sent = 0;
  private sentAt = Number.NEGATIVE_INFINITY;
  private later: ReturnType<typeof setTimeout> | undefined;
  private shown = 0;
  private pace = 0;
  private arrived: Arrived | null = null;
  private frame = 0;
  private sight: Sight = [];
  private looked = Number.NEGATIVE_INFINITY;
  /** Milliseconds in which there was something to answer, up to now and at each answer shown of late. */
  private worked = 0;
  private readonly times = [0];
  private since: number | null = null;
  private told = Number.NEGATIVE_INFINITY;
  private resting: ReturnType<typeof setTimeout> | undefined;
  private settling = false;
  private stopped = false;

  constructor(
    private readonly store: Store,
    /** The element whose cards are in sight or not. */
    private readonly root: () => Element | null,
  ) {}

  /** Shows what the network makes of a picture; `rests` is false for a glance that shall not become a sample. */
  ask(rgb: Uint8ClampedArray, base: number, rests = true): void {
    if (this.stopped) return;
    this.next = this.newest = { rgb, base, rests };
    this.since ??= performance.now();
    clearTimeout(this.resting);
    if (this.settling) {
      this.settling = false;
      void this.store.stop();
    }
    this.pump();
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.resting);
    clearTimeout(this.later);
    cancelAnimationFrame(this.frame);
  }

  private pump(): void {
    const lanes = this.pace > SLOW_MS ? 2 : LANES;
    const lane = this.busy.slice(0, lanes).indexOf(false);
    if (!this.next || lane < 0) return;
    clearTimeout(this.later);
    const eager = this.arrived || this.busy.includes(true) ? EAGER : EAGER_IDLE;
    const early = this.sentAt + eager * this.interval - performance.now();
    if (early > 0) {
      this.later = setTimeout(() => this.pump(), early);
      return;
    }
    const frame = this.next;
    this.next = null;
    void this.send(frame, lane);
  }

  private async send({ rgb, base }: Frame, lane: number): Promise<void> {
    const number = ++this.sent;
    this.busy[lane] = true;
    const started = performance.now();
    this.sentAt = started;
    try {
      const layer = this.store.shown.peek();
      const params = { base, nodes: this.look(), layer, max_side: MAX_SIDE, ...this.store.changes.params };
      const reply = await this.store.request("paint", params, {
        slot: `paint ${lane}`,
        buffers: [alone(rgb)],
      });
      if (number < this.shown || this.stopped) return;
      this.shown = number;
      this.pace = reply.meta.ms;
      this.error.value = "";
      this.arrived = { reply, started, changed: params.changed?.length };
      this.frame ||= requestAnimationFrame(() => this.present());
    } catch (error) {
      if (!isCancelled(error)) this.error.value = (error as Error).message;
    } finally {
      this.busy[lane] = false;
      if (this.next) this.pump();
      else if (!this.busy.includes(true)) this.restSoon();
      if (!this.waiting && !this.arrived) this.since = null;
    }
  }

  /** What can be seen, at most a moment ago. */
  private look(): Sight {
    const now = performance.now();
    if (now - this.looked > SIGHT_MS) {
      this.looked = now;
      this.sight = inSight(this.store, this.root());
    }
    return this.sight;
  }

  /** Shows the newest answer. */
  private present(): void {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const { arrived } = this;
    this.arrived = null;
    if (!arrived || this.stopped) return;
    show(this.store, arrived.reply, arrived.changed);
    this.onShown();
    this.count(performance.now() - arrived.started, arrived.reply.meta);
  }

  /** Whether something that was drawn is still to be answered. */
  get waiting(): boolean {
    return this.next !== null || this.busy.includes(true);
  }

  /**
   * Milliseconds of drawing between two answers that were shown of late; 0 while that is not known. A mean, because
   * the screen shows whole pictures of its own only, and without the longest, because anything may hold up a page once.
   */
  private get interval(): number {
    const times = this.times.slice(-PACE_FRAMES - 2);
    if (times.length < PACE_FRAMES + 2) return 0;
    const gaps = times.slice(1).map((time, at) => time - (times[at] as number));
    const sum = gaps.reduce((a, b) => a + b) - Math.max(...gaps);
    return Math.min(sum / PACE_FRAMES, PACE_MOST_MS);
  }

  private count(trip: number, meta: { ms: number; recorded: boolean; recomputed?: number }): void {
    const now = performance.now();
    this.worked += now - (this.since ?? now);
    this.since = this.waiting ? now : null;
    this.times.push(this.worked);
    if (this.times.length > METER_FRAMES) this.times.shift();
    if (now - this.told < METER_MS) return;
    this.told = now;
    const span = this.worked - (this.times[0] as number);
    const fps = span > 0 ? (1000 * (this.times.length - 1)) / span : 0;
    this.rate.value = { fps, trip, ms: meta.ms, recorded: meta.recorded, share: meta.recomputed ?? 1 };
  }

  private restSoon(): void {
    clearTimeout(this.resting);
    const { newest } = this;
    if (newest?.rests) this.resting = setTimeout(() => this.rest(newest.rgb), REST_MS);
  }

  /** A full run of the painted sample makes everything else exact again. */
  private rest(rgb: Uint8ClampedArray): void {
    if (this.stopped || this.error.peek()) return;
    // A page that nobody sees shows nothing: what it would show later is older than the run.
    this.present();
    const { store } = this;
    const { synced } = store;
    const sample = synced.info.peek()?.samples ?? 0;
    const input = store.input.peek();
    if (input) store.input.value = { ...input, sample, rgb: new Uint8Array(rgb) };
    this.settling = true;
    if (synced.selection.peek().sample === sample) void store.refresh();
    else synced.select({ sample });
    addThumbnail(store, rgb);
  }
}

/** The bytes of a picture, which nobody writes into: an easel makes a new one for each change. */
function alone(rgb: Uint8ClampedArray): ArrayBuffer {
  const whole = rgb.byteLength === rgb.buffer.byteLength;
  return (whole ? rgb : rgb.slice()).buffer as ArrayBuffer;
}

/** Nodes whose thumbnails can be seen, with the channels that they show. */
export function inSight(store: Store, root: Element | null): Sight {
  const pane = root?.querySelector(".nn-graph")?.getBoundingClientRect();
  if (!root || !pane) return [];
  const strips = store.strips.peek();
  const found = new Map<string, number[]>();
  for (const card of root.querySelectorAll<HTMLElement>(".nn-graph [data-node]")) {
    const strip = strips.get(card.dataset.node ?? "");
    const at = card.getBoundingClientRect();
    const seen = at.right > pane.left && at.left < pane.right && at.bottom > pane.top && at.top < pane.bottom;
    if (strip && seen) found.set(strip.node, strip.channels);
  }
  return Array.from(found, ([node, channels]) => ({ node, channels })).slice(0, 400);
}

function show(store: Store, { meta, arrays, epoch }: Reply<"paint">, changed?: number): void {
  batch(() => {
    const run = store.synced.run.peek();
    const { made } = store.changes;
    const predictions = meta.predictions as Run["predictions"];
    if (changed && made.value) made.value = { ...made.value, predictions };
    else if (run) store.synced.run.value = { ...run, epoch, predictions };
    store.strips.value = withStrips(store.strips.peek(), meta.strips, arrays.tiles.data);
    const before = store.maps.peek().data;
    const maps = meta.maps && mapsOf(meta.maps, arrays, before, meta.ms);
    if (maps && store.shown.peek() === maps.node)
      store.maps.value = { state: "ready", data: { ...maps, changed } };
  });
}

function withStrips(
  before: ReadonlyMap<string, Strip>,
  strips: Reply<"paint">["meta"]["strips"],
  bytes: Uint8Array,
): ReadonlyMap<string, Strip> {
  const next = new Map(before);
  const area = STRIP_SIZE * STRIP_SIZE;
  for (const { node, kind, start, channels } of strips) {
    const tiles = bytes.subarray(start * area, (start + channels.length) * area);
    next.set(node, { node, kind, channels, size: STRIP_SIZE, tiles });
  }
  return next;
}

let frames = 0;

function mapsOf(
  meta: NonNullable<Reply<"paint">["meta"]["maps"]>,
  arrays: Reply<"paint">["arrays"],
  before: Maps | null,
  ms: number,
): Maps | null {
  const { maps, low, high, strength } = arrays;
  if (!maps || !low || !high || !strength) return null;
  const [loaded = 0, h = 1, w = 1] = maps.shape;
  // Tiles keep their places while one draws, although other channels may be the strongest now.
  const calm = before?.node === meta.node && before.strength.length === strength.data.length;
  frames += 1;
  return {
    ...{
      key: `paint ${frames}|${meta.node}`,
      node: meta.node,
      kind: meta.kind,
      shape: meta.shape,
      live: true,
    },
    ...{ tile: [h, w], tiles: maps.data, low: low.data, high: high.data, loaded, ms },
    strength: calm ? before.strength : strength.data,
    grid: meta.grid ?? null,
    bad: new Map(meta.bad.map(({ channel, count }) => [channel, count])),
  };
}

/** The painted sample stands after the others, where they are all there. */
function addThumbnail(store: Store, rgb: Uint8ClampedArray): void {
  const thumbs = store.thumbs.peek();
  const samples = store.synced.info.peek()?.samples ?? 0;
  const input = store.input.peek();
  if (!thumbs || !input || thumbs.count > samples + 1) return;
  const [h, w] = thumbs.size;
  const all = new Uint8Array(3 * h * w * (samples + 1));
  if (thumbs.rgb.length !== all.length && thumbs.rgb.length !== all.length - 3 * h * w) return;
  all.set(thumbs.rgb.subarray(0, 3 * h * w * samples));
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const [v, u] = [Math.floor(((y + 0.5) * input.height) / h), Math.floor(((x + 0.5) * input.width) / w)];
      const from = 3 * (v * input.width + u);
      all.set(rgb.subarray(from, from + 3), 3 * (samples * h * w + y * w + x));
    }
  }
  store.thumbs.value = { count: samples + 1, size: thumbs.size, rgb: all };
}
