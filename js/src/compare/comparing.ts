// What a view compares: what stands beside the sample, how alike the layers are as it becomes known, and the maps of
// the layer in sight. It asks the kernel again when the sample changes.

import { batch, computed, effect, type Signal, signal } from "@preact/signals";
import { Few } from "../state/few";
import type { Store } from "../state/store";
import { isCancelled, type WireError } from "../wire/client";
import type { Beside, Operations } from "../wire/types";
import { type Measure, type Numbers, type Pair, type Plates, WHOLE, type Window } from "./rows";

type Meta = Operations["compare"]["meta"];

export interface Found {
  key: string;
  pairs: Pair[];
  only: [string[], string[]];
  meta: Meta;
  numbers: Numbers;
}

const PLATES_KEPT = 12;
const VALUES_KEPT = 32;
const MAX_SIDE = 128;

export class Comparing {
  /** What stands at B. */
  readonly other: Signal<Beside>;
  readonly over: Signal<"positions" | "samples"> = signal("positions");
  readonly measure: Signal<Measure> = signal("cka");
  readonly order: Signal<"changed" | "index"> = signal("changed");
  readonly found: Signal<Found | null> = signal(null);
  readonly running = signal(false);
  readonly error = signal("");
  readonly plates: Signal<Plates | null> = signal(null);
  readonly lacking = signal("");
  readonly window: Signal<Window> = signal(WHOLE);
  /** The place under the pointer, of all three maps. */
  readonly spot: Signal<[y: number, x: number] | null> = signal(null);
  readonly raw: Signal<{ key: string; a: Float32Array; b: Float32Array | null } | null> = signal(null);

  /** The layer in sight: the selected one, or the first that has a partner. */
  readonly node = computed(() => {
    const chosen = this.store.synced.selection.value.layer;
    return chosen ?? this.found.value?.pairs[0]?.[0] ?? null;
  });
  /** The chosen channel, or the one that changed most. */
  readonly channel = computed(() => {
    const plates = this.plates.value;
    if (!plates) return 0;
    const { layer, channel } = this.store.synced.selection.value;
    if (layer === plates.node && channel !== null && channel < plates.channels) return channel;
    const { strength } = plates;
    return strength ? strength.indexOf(Math.max(...strength)) : 0;
  });

  private stopping: AbortController | null = null;
  private readonly plateCache = new Few<Plates>(PLATES_KEPT);
  private readonly valueCache = new Few<{ a: Float32Array; b: Float32Array | null }>(VALUES_KEPT);
  private version = 0;

  constructor(private readonly store: Store) {
    this.other = signal(this.neighbour());
  }

  get given() {
    return this.store.synced.info.value?.compare ?? null;
  }

  /** The sample that is compared when nobody chose one. */
  private neighbour(): number | null {
    const samples = this.store.synced.info.peek()?.samples ?? 1;
    const now = this.store.synced.run.peek()?.sample ?? 0;
    return samples > 1 ? (now + 1) % samples : null;
  }

  /** Asks while the page is open; returns how to end. */
  follow(): () => void {
    const { synced } = this.store;
    const run = computed(() => synced.run.value?.run ?? 0);
    const asked = computed(() => {
      const ready = this.other.value !== null || (this.given !== null && this.given.kind !== "sample");
      return run.value > 0 && ready ? this.key() : "";
    });
    const known = computed(() => this.found.value?.key);
    let before = synced.run.peek()?.sample ?? 0;
    const ends = [
      effect(() => {
        // Without changes there is nothing beside the network as it is.
        if (this.store.changes.key.value === "" && this.other.peek() === "plain")
          this.other.value = this.given && this.given.kind !== "sample" ? null : this.neighbour();
      }),
      effect(() => {
        const given = this.given;
        if (!given || given.version === this.version) return;
        this.version = given.version;
        this.other.value = given.kind === "sample" ? (given.sample ?? null) : null;
      }),
      effect(() => {
        // The sample that stood at B comes to A: they change places.
        const sample = synced.run.value?.sample ?? 0;
        if (sample !== before && sample === this.other.peek()) this.other.value = before;
        before = sample;
      }),
      effect(() => {
        if (asked.value !== "" && this.found.peek()?.key !== asked.value) void this.start(asked.value);
      }),
      effect(() => {
        const key = known.value;
        const node = this.node.value;
        if (key && node !== null) void this.fetchPlates(key, node);
      }),
    ];
    return () => {
      for (const end of ends) end();
      this.stop();
    };
  }

  stop(): void {
    this.stopping?.abort();
  }

  again(): void {
    void this.start(this.key());
  }

  private key(): string {
    const { run } = this.store.synced;
    const over = this.other.value === null ? this.over.value : "positions";
    const changed = this.store.changes.key.value;
    const version = this.given?.version ?? 0;
    return [run.value?.run, run.value?.sample, this.other.value, version, over, changed].join("|");
  }

  private async start(key: string): Promise<void> {
    this.stop();
    const stop = new AbortController();
    this.stopping = stop;
    const { other } = this.asked;
    batch(() => {
      this.running.value = true;
      this.error.value = "";
    });
    let pairs: Pair[] = [];
    let only: [string[], string[]] = [[], []];
    try {
      await this.store.request(
        "compare",
        { ...this.asked, examples: other === null ? this.over.peek() : "positions" },
        {
          slot: "explain compare",
          signal: stop.signal,
          onChunk: ({ meta, arrays }) => {
            const { cka, difference, correlation, note, measured } = arrays;
            if (!meta || !cka || !difference || !correlation || !note || !measured) return;
            pairs = (meta.pairs as Pair[] | undefined) ?? pairs;
            only = meta.only ?? only;
            const numbers = {
              cka: cka.data,
              difference: difference.data,
              correlation: correlation.data,
              note: note.data,
              measured: measured.data,
            };
            this.found.value = { key, pairs, only, meta, numbers };
          },
        },
      );
    } catch (error) {
      if (!isCancelled(error) && this.stopping === stop) {
        const { message, hint } = error as WireError;
        batch(() => {
          this.error.value = [message, hint].filter(Boolean).join(" ");
          this.found.value = null;
          this.plates.value = null;
        });
      }
    }
    if (this.stopping === stop) this.running.value = false;
  }

  private async fetchPlates(found: string, node: string): Promise<void> {
    const key = `${found}|${node}`;
    this.lacking.value = "";
    if (this.plates.peek()?.key === key) return;
    const before = this.plates.peek()?.node;
    const kept = this.plateCache.get(key);
    try {
      const plates = kept ?? (await this.askPlates(key, node));
      if (this.node.peek() !== node || this.found.peek()?.key !== found) return;
      this.plateCache.set(key, plates);
      batch(() => {
        if (before !== node) this.window.value = WHOLE;
        this.plates.value = plates;
        this.spot.value = null;
      });
    } catch (error) {
      if (isCancelled(error) || this.node.peek() !== node) return;
      batch(() => {
        this.plates.value = null;
        this.lacking.value = (error as Error).message;
      });
    }
  }

  private async askPlates(key: string, node: string): Promise<Plates> {
    const { meta, arrays } = await this.store.request(
      "compare_maps",
      { ...this.asked, node, max_side: MAX_SIDE },
      { slot: "compare maps" },
    );
    const side = (
      values: { data: Uint8Array },
      low: { data: Float32Array },
      high: { data: Float32Array },
    ) => ({
      values: values.data,
      low: low.data,
      high: high.data,
    });
    const size = ([, h = 1, w = 1]: number[]): [number, number] => [h, w];
    const { d, low_d, high_d } = arrays;
    return {
      key,
      node: meta.node,
      other: meta.other,
      kind: meta.kind,
      shape: { a: size(meta.shape_a), b: size(meta.shape_b) },
      tile: { a: size(arrays.a.shape), b: size(arrays.b.shape) },
      a: side(arrays.a, arrays.low_a, arrays.high_a),
      b: side(arrays.b, arrays.low_b, arrays.high_b),
      d: d && low_d && high_d ? side(d, low_d, high_d) : null,
      channels: meta.shape_a[0] ?? 0,
      channelsB: meta.channels_b,
      strength: arrays.strength?.data ?? null,
      partner: arrays.partner?.data ?? null,
      fit: arrays.fit?.data ?? null,
      skip: meta.skip,
    };
  }

  private get asked() {
    const sample = this.store.synced.run.peek()?.sample ?? 0;
    return { sample, other: this.other.peek(), ...this.store.changes.params };
  }

  /** The exact numbers of the channel in sight; null until they are here. */
  values(): { a: Float32Array; b: Float32Array | null } | null {
    const plates = this.plates.peek();
    if (!plates) return null;
    const channel = this.channel.peek();
    const key = `${plates.key}|${channel}`;
    const held = this.raw.peek();
    if (held?.key === key) return held;
    const kept = this.valueCache.get(key);
    if (kept) {
      this.raw.value = { key, ...kept };
      return kept;
    }
    void this.fetchValues(key, plates.node, channel);
    return null;
  }

  private async fetchValues(key: string, node: string, channel: number): Promise<void> {
    try {
      const { arrays } = await this.store.request(
        "compare_values",
        { ...this.asked, node, channel },
        { slot: "hover compare" },
      );
      const found = { a: arrays.a.data, b: arrays.b?.data ?? null };
      this.valueCache.set(key, found);
      if (`${this.plates.peek()?.key}|${this.channel.peek()}` === key) this.raw.value = { key, ...found };
    } catch {
      // The bytes tell about as much; what went wrong is told by whatever is asked next.
    }
  }
}

/** A channel of the layer in sight becomes the selected one, everywhere. */
export function choose(
  store: Store,
  node: string,
  channel: number,
  pixel: [number, number] | null = null,
): void {
  store.synced.select({ layer: node, channel, pixel, class: null });
}
