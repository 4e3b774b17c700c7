// What is to be explained and by which methods, and the maps as they come: the state of the page of attributions.
// Signs, ranges and opacities are chosen here and never told the kernel.

import {
  batch,
  computed,
  effect,
  type ReadonlySignal,
  type Signal,
  signal,
  untracked,
} from "@preact/signals";
import type { Changes } from "../state/changes";
import type { InputImage } from "../state/data";
import { Few } from "../state/few";
import type { Synced } from "../state/synced";
import { isCancelled, type WireError } from "../wire/client";
import type { Intervention, Method, Operation, Operations, Part, Reply, RequestOptions } from "../wire/types";
import type { FloatMap } from "./floatMap";

/** What the cards of the page differ in. */
export type Compare = "methods" | "samples" | "classes";
export type Sign = "signed" | "absolute";
export type Scale = "own" | "shared";

type Meta = Operations["attribute"]["meta"];

/** What one card asks for. */
export interface Wish {
  key: string;
  method: string;
  sample: number;
  target: number | null;
  options: Record<string, string | number | boolean>;
  /** Of which network. */
  under: { changed?: Intervention[] };
}

export interface Card {
  wish: Wish;
  state: "waiting" | "running" | "stopped" | "ready" | "error";
  signed: FloatMap | null;
  magnitude: FloatMap | null;
  meta: Meta | null;
  error: { message: string; hint?: string } | null;
}

export type Ask = <K extends Operation>(
  op: K,
  params: Operations[K]["params"],
  options?: RequestOptions<K>,
) => Promise<Reply<K>>;

/** What a first look shows: quick ones first, each of another family. */
export const FIRST = ["saliency", "integrated_gradients", "grad_cam", "smooth_grad", "occlusion"];
/** Names of baselines; beside them another sample, or one number everywhere. */
export const BASELINES = ["zero", "mean", "blur", "noise"];
/** What is chosen for one number everywhere. */
export const NUMBER = "number";
const SAMPLES = 6;
const CLASSES = 6;
const KEPT = 64;

export class Explaining {
  readonly known = signal<Method[]>([]);
  readonly chosen: Signal<string[]> = signal([]);
  readonly compare: Signal<Compare> = signal("methods");
  /** The method of a comparison of samples or classes. */
  readonly method = signal("integrated_gradients");
  /** A name, `sample:3`, or one number everywhere. */
  readonly baseline: Signal<string | number> = signal("zero");
  /** What the samples are compared with, as a picture, and the range that a number may come from. */
  readonly compared = signal<{ image: InputImage; low: number; high: number } | null>(null);
  /** Where methods of layers look: at the layer that was clicked, or where they choose. */
  readonly atLayer = signal(false);
  readonly sign: Signal<Sign> = signal("signed");
  readonly scale: Signal<Scale> = signal("own");
  /** Percent of the magnitudes that the colours span. */
  readonly clip = signal(99);
  readonly opacity = signal(0.85);
  /** The place that is read off in every map; the pointer's, or where it was pinned. */
  readonly place: Signal<{ y: number; x: number; pinned: boolean } | null> = signal(null);
  /** The class that is explained: the selected one, or the first of the predictions. */
  readonly target: ReadonlySignal<number | null>;
  readonly wishes: ReadonlySignal<Wish[]>;
  /** Which network is explained; the same for the same interventions. */
  readonly network: ReadonlySignal<string>;

  /** The changed networks that were explained, by what they were changed by: each has its number. */
  private readonly networks = new Map<string, number>();
  private readonly cards = new Map<string, Signal<Card>>();
  private readonly stops = new Map<string, AbortController>();
  private readonly done = new Few<Card>(KEPT);
  private readonly images = new Map<number, Signal<InputImage | null>>();

  constructor(
    private readonly synced: Synced,
    private readonly changes: Changes,
    private readonly ask: Ask,
  ) {
    this.network = changes.key;
    this.target = computed(() => {
      const { class: picked } = synced.selection.value;
      return picked ?? changes.predictions.value?.classes[0]?.index ?? null;
    });
    this.wishes = computed(() => this.wanted());
  }

  /** While the page is open: asks for what it shows, and cancels what it shows no longer. */
  follow(): () => void {
    if (this.known.peek().length === 0) void this.learn();
    const ends = [
      effect(() => {
        const wishes = this.known.value.length > 0 ? this.wishes.value : [];
        untracked(() => this.settle(wishes));
      }),
      effect(() => {
        const sample = this.synced.run.value?.sample;
        const baselines = this.baseline.value;
        if (sample !== undefined) void this.lookAtBaseline(sample, baselines);
      }),
    ];
    return () => {
      for (const end of ends) end();
      this.settle([]);
    };
  }

  card(wish: Wish): Signal<Card> {
    let card = this.cards.get(wish.key);
    if (!card) {
      const blank: Card = {
        wish,
        state: "waiting",
        signed: null,
        magnitude: null,
        meta: null,
        error: null,
      };
      card = signal(this.done.get(wish.key) ?? blank);
      this.cards.set(wish.key, card);
    }
    return card;
  }

  /** A sample as it is looked at. */
  image(sample: number): Signal<InputImage | null> {
    let image = this.images.get(sample);
    if (!image) {
      image = signal(null);
      this.images.set(sample, image);
      void this.look(sample, image);
    }
    return image;
  }

  info(name: string): Method | undefined {
    return this.known.value.find((method) => method.name === name);
  }

  toggle(name: string): void {
    const now = this.chosen.peek();
    this.chosen.value = now.includes(name) ? now.filter((one) => one !== name) : [...now, name];
  }

  /** Computes one card again. */
  again(wish: Wish): void {
    this.drop(wish.key);
    void this.fetch(wish);
  }

  /** Ends what one card waits for; what it has stays. */
  stop(wish: Wish): void {
    this.stops.get(wish.key)?.abort();
  }

  /** The shown maps as one file of the kernel's making. */
  async file(kind: "npz" | "png" | "svg"): Promise<Uint8Array> {
    const ready = this.wishes.peek().filter((wish) => this.card(wish).peek().state === "ready");
    const params = { kind, keys: ready.map(({ key }) => key), ...ready[0]?.under };
    const reply = await this.ask("attribution_file", params, { slot: "explain-file" });
    return reply.arrays.data.data as Uint8Array;
  }

  // ---- inner -----------------------------------------------------------------------------------------------

  private async learn(): Promise<void> {
    try {
      const { meta } = await this.ask("methods", {}, { slot: "methods" });
      const names = new Set(meta.methods.map((method) => method.name));
      batch(() => {
        this.known.value = meta.methods;
        this.chosen.value = FIRST.filter((name) => names.has(name));
      });
    } catch (error) {
      if (!isCancelled(error)) console.error("[nnviz]", error);
    }
  }

  private async look(sample: number, image: Signal<InputImage | null>): Promise<void> {
    try {
      const { arrays, meta } = await this.ask("input", { sample }, { slot: `explain-input ${sample}` });
      const { data, shape } = arrays.rgb;
      const [height = 0, width = 0] = shape;
      image.value = { sample, kind: meta.kind, height, width, rgb: data as Uint8Array };
    } catch {
      this.images.delete(sample);
    }
  }

  private async lookAtBaseline(sample: number, baselines: string | number): Promise<void> {
    try {
      const { arrays, meta } = await this.ask(
        "baseline",
        { sample, baselines },
        { slot: "explain-baseline" },
      );
      const { data, shape } = arrays.rgb;
      const [height = 0, width = 0] = shape;
      const image: InputImage = { sample, kind: "image", height, width, rgb: data as Uint8Array };
      this.compared.value = { image, low: meta.low, high: meta.high };
    } catch (error) {
      if (!isCancelled(error)) this.compared.value = null;
    }
  }

  private wanted(): Wish[] {
    const { run, info } = this.synced;
    if (!run.value) return [];
    const { sample, epoch } = run.value;
    const classes = this.changes.predictions.value?.classes ?? [];
    const network = this.numberOf(this.network.value);
    const { params: under } = this.changes;
    const target = this.target.value;
    const wish = (method: string, of: number, what: number | null): Wish => {
      const takes = this.info(method)?.options ?? {};
      const options: Wish["options"] = "baselines" in takes ? { baselines: this.baseline.value } : {};
      const layer = this.atLayer.value ? this.synced.selection.value.layer : null;
      if (layer !== null && "layer" in takes) options.layer = layer;
      const chosen = Object.entries(options).map(([name, value]) => `${name} ${value}`);
      const last = `epoch ${epoch}${network ? `, changed ${network}` : ""}`;
      const key = [method, `sample ${of}`, `target ${what}`, ...chosen, last].join(" · ");
      return { key, method, sample: of, target: what, options, under };
    };
    const compare = this.compare.value;
    if (compare === "methods") return this.chosen.value.map((name) => wish(name, sample, target));
    const name = this.method.value;
    if (compare === "samples") {
      const count = Math.min(SAMPLES, info.value?.samples ?? 1);
      const first = Math.max(0, Math.min(sample - 1, (info.value?.samples ?? 1) - count));
      // Each sample is asked for its own best class, unless one was chosen.
      const what = this.synced.selection.value.class;
      return Array.from({ length: count }, (_, i) => wish(name, first + i, what));
    }
    return classes.slice(0, CLASSES).map(({ index }) => wish(name, sample, index));
  }

  private numberOf(network: string): number {
    if (network === "") return 0;
    const number = this.networks.get(network) ?? this.networks.size + 1;
    this.networks.set(network, number);
    return number;
  }

  private settle(wishes: Wish[]): void {
    const wanted = new Set(wishes.map((wish) => wish.key));
    // A look at the network as it is ends nothing that is computed of the changed one.
    if (!this.changes.held.peek() || wishes.length === 0) {
      for (const key of [...this.stops.keys()]) if (!wanted.has(key)) this.drop(key);
      for (const key of [...this.cards.keys()]) if (!wanted.has(key)) this.cards.delete(key);
    }
    for (const wish of wishes) {
      if (this.card(wish).peek().state === "waiting" && !this.stops.has(wish.key)) void this.fetch(wish);
    }
  }

  /** Cancels a request that nobody waits for any more. */
  private drop(key: string): void {
    const stop = this.stops.get(key);
    this.stops.delete(key);
    stop?.abort();
  }

  private async fetch(wish: Wish): Promise<void> {
    const card = this.card(wish);
    const stop = new AbortController();
    this.stops.set(wish.key, stop);
    card.value = { ...card.peek(), state: "running", error: null };
    const parts = new Arriving();
    const onChunk = (part: Part<"attribute">) => {
      const whole = parts.add(part);
      if (whole) card.value = { ...card.peek(), ...whole, meta: part.meta ?? card.peek().meta };
    };
    const { key, method, sample, target, options, under } = wish;
    const asked = () => this.stops.get(key) === stop;
    try {
      const slot = `explain ${key}`;
      await this.ask(
        "attribute",
        { key, method, sample, target, options, ...under },
        { slot, signal: stop.signal, onChunk },
      );
      if (!asked()) return;
      card.value = { ...card.peek(), state: "ready" };
      this.done.set(key, card.peek());
    } catch (error) {
      if (!asked()) return;
      const { message, hint } = error as WireError;
      card.value = isCancelled(error)
        ? { ...card.peek(), state: "stopped" }
        : { ...card.peek(), state: "error", error: { message, hint } };
    }
    this.stops.delete(key);
  }
}

/** Puts the two maps of each part together, which may come in several chunks. */
class Arriving {
  private held: Record<string, { map: FloatMap; rows: number }> = {};

  add(part: Part<"attribute">): { signed: FloatMap; magnitude: FloatMap } | null {
    for (const name of ["signed", "magnitude"] as const) {
      const array = part.arrays[name];
      if (!array) continue;
      const width = array.shape[1] ?? 1;
      let held = this.held[name];
      if (!held || array.start === 0) {
        const map = { height: array.total, width, values: new Float32Array(array.total * width) };
        held = { map, rows: 0 };
        this.held[name] = held;
      }
      held.map.values.set(array.data, array.start * width);
      held.rows = array.start + (array.shape[0] ?? 0);
    }
    const { signed, magnitude } = this.held;
    const whole = [signed, magnitude].every((one) => one && one.rows === one.map.height);
    if (!whole || !signed || !magnitude) return null;
    this.held = {};
    return { signed: signed.map, magnitude: magnitude.map };
  }
}
