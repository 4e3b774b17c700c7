// What is on the screen and how it gets there: the store of one view. It watches the selection and the run,
// asks the kernel for what they need, and offers the actions that panels call. Panels read signals and call
// actions; they never talk to the wire themselves.

import { batch, computed, effect, type ReadonlySignal, signal, untracked } from "@preact/signals";
import { isCancelled, type WireClient, WireError } from "../wire/client";
import type { Operation, Operations, Reply, RequestOptions } from "../wire/types";
import { Changes } from "./changes";
import {
  collect,
  type InputImage,
  type Loadable,
  type Maps,
  type PixelInfo,
  type Saliency,
  type Stats,
  type Strip,
} from "./data";
import { Few } from "./few";
import { Latest } from "./latest";
import { Measuring } from "./measuring";
import type { Failure, GraphGroup, GraphNode, PathChange, Selection, Synced } from "./synced";
import { createView, type View } from "./view";

export type DataState = "empty" | "loading" | "ready" | "busy" | "stale" | "error" | "dead" | "static";

const IDLE: Loadable<never> = { state: "idle", data: null };
const MAPS_KEPT = 24;
const VALUES_KEPT = 64;
/** Of the network as it is, and as it was changed. */
const STRIPS_KEPT = 3;
const STRIP_COUNT = 4;
const STRIP_SIZE = 36;
const MAX_SIDE = 128;
/** What a sheet of tiles shows of a map; the pixels that only zooming needs come after it. */
const FIRST_SIDE = 64;
/** For so long what is in sight waits for the new maps: most are here before an eye could see a gap. */
const GAP_MS = 120;

export class Store {
  readonly view: View = createView();
  readonly state: ReadonlySignal<DataState>;
  readonly nodes: ReadonlySignal<Map<string, GraphNode | GraphGroup>>;

  readonly thumbs = signal<{ count: number; size: [number, number]; rgb: Uint8Array } | null>(null);
  readonly input = signal<InputImage | null>(null);
  readonly strips = signal<ReadonlyMap<string, Strip>>(new Map());
  /** The layer in the drawer: the selected one, from when its maps are here or are late. */
  readonly shown = signal<string | null>(null);
  readonly maps = signal<Loadable<Maps>>(IDLE);
  readonly values = signal<{ key: string; channel: number; data: Float32Array } | null>(null);
  readonly stats = signal<Loadable<Stats>>(IDLE);
  readonly saliency = signal<Loadable<Saliency>>(IDLE);
  readonly pixel = signal<PixelInfo | null>(null);
  /** Why the sample asked for last is not on the screen. */
  readonly refused = signal<Failure | null>(null);
  /** How the path of the run on the screen differs from the one before; null once it is read. */
  readonly change: ReadonlySignal<PathChange | null>;
  /** Whether the graph holds a decision on the data. */
  readonly decides: ReadonlySignal<boolean>;
  readonly added: ReadonlySignal<ReadonlySet<string>>;
  /** Why the selected layer has no maps, where it cannot have any. */
  readonly mute: ReadonlySignal<string | null>;
  readonly timings = signal<{ trace?: number; maps?: number; saliency?: number }>({});

  private readonly readChange = signal(0);
  /** Ids of all graphs so far: what is not in this one ran for another input. */
  private readonly known = new Set<string>();
  readonly measuring: Measuring;
  readonly changes: Changes;
  /** Which network, on which input, is in sight. */
  readonly picture: ReadonlySignal<string>;

  private readonly mapCache = new Few<Maps>(MAPS_KEPT);
  private readonly stripCache = new Few<ReadonlyMap<string, Strip>>(STRIPS_KEPT);
  private readonly valueCache = new Few<Float32Array>(VALUES_KEPT);
  private valuesAsked = "";
  private stopMaps = new AbortController();
  private readonly scrubber: Latest<{ node: string; unit: number[] }>;
  private readonly undo: Array<() => void> = [];
  /** Whether a kernel ever answered: a picture without one was reopened, not orphaned. */
  private heard = false;
  private stripsOf = "";
  private foreseen = false;
  private wanted: string[] = [];

  constructor(
    readonly synced: Synced,
    readonly wire: WireClient,
    readonly id: string,
  ) {
    this.state = computed(() => this.describe());
    this.nodes = computed(() => {
      const graph = synced.graph.value;
      const all = new Map<string, GraphNode | GraphGroup>();
      for (const group of graph?.groups ?? []) all.set(group.id, group);
      for (const node of graph?.nodes ?? []) all.set(node.id, node);
      return all;
    });
    this.change = computed(() => {
      const { change, run } = synced.run.value ?? {};
      return change && run !== this.readChange.value ? change : null;
    });
    this.decides = computed(() => synced.graph.value?.nodes.some((node) => node.op === "decision") ?? false);
    this.added = computed(() => new Set(this.change.value?.added));
    // Watchers of the run look at it without watching: the graph comes before the run that it belongs to.
    this.mute = computed(() => this.silence(synced.selection.value.layer));
    this.scrubber = new Latest(({ node, unit }) => this.fetchSaliency(node, unit));
    this.changes = new Changes(synced);
    this.picture = computed(() => `${synced.run.value?.run ?? 0}|${this.changes.key.value}`);
    this.measuring = new Measuring(synced, this.view, this.changes, (params, options) =>
      this.request("measure", params, options),
    );
    this.follow();
    this.undo.push(this.measuring.follow());
  }

  // ---- what panels call --------------------------------------------------------------------------------

  selectLayer(id: string | null): void {
    const now = this.synced.selection.peek();
    if (id === now.layer) {
      this.view.drawer.value = true;
      return;
    }
    this.synced.select({ layer: id, channel: null, pixel: null, class: null });
    if (id !== null) this.view.drawer.value = true;
  }

  selectChannel(channel: number | null): void {
    if (this.passing) return;
    this.synced.select({ channel, pixel: null, class: null });
  }

  /** A click on a pixel of a map: the unit whose saliency is shown. `settled` is false while dragging. */
  selectUnit(channel: number, pixel: [number, number], settled = true): void {
    const layer = this.synced.selection.peek().layer;
    if (layer === null || this.passing) return;
    if (settled) this.synced.select({ channel, pixel, class: null });
    else this.scrubber.ask({ node: layer, unit: this.unit(channel, pixel) });
  }

  selectClass(index: number | null): void {
    this.synced.select({ class: index, pixel: null });
  }

  async selectSample(sample: number): Promise<void> {
    this.synced.select({ sample });
  }

  /** The notice of another path is read: it and its marks go. */
  dismissChange(): void {
    this.readChange.value = this.synced.run.peek()?.run ?? 0;
  }

  /** Reads the weights now: traces the current sample once more. */
  async refresh(): Promise<void> {
    await this.trace(this.synced.selection.peek().sample);
  }

  /** Ends the trace that is under way. */
  async stop(): Promise<void> {
    await this.settle(this.request("stop", {}, { slot: "stop" }));
  }

  /** Hands the kernel a picture of the page; false where it has no use for one. */
  async sendStill(png: ArrayBuffer): Promise<boolean> {
    try {
      await this.request("still", {}, { slot: "still", buffers: [png] });
      return true;
    } catch (error) {
      return isCancelled(error);
    }
  }

  /** Somebody reaches for the input: what a click on it takes, and takes long to load, is loaded. */
  foresee(): void {
    if (this.foreseen || this.wire.dead.peek()) return;
    this.foreseen = true;
    void this.request("foresee", {}, { slot: "prefetch foresee" }).catch(() => {});
  }

  async inspectInput(y: number, x: number): Promise<void> {
    const reply = await this.settle(this.request("pixel", { sample: this.sample, y, x }, { slot: "pixel" }));
    if (reply) this.pixel.value = { y, x, values: reply.meta.values, saliency: reply.meta.saliency };
  }

  /** Esc: gives up one thing, the most recent first. Returns false when there is nothing left to give up. */
  back(): boolean {
    const { view } = this;
    const now = this.synced.selection.peek();
    if (view.help.peek()) view.help.value = false;
    else if (view.search.peek() !== null) view.search.value = null;
    else if (view.outline.peek()) view.outline.value = false;
    else if (view.compare.peek()) view.compare.value = false;
    else if (view.explain.peek()) view.explain.value = false;
    else if (view.output.peek()) view.output.value = false;
    else if (view.zoom.peek()) view.zoom.value = false;
    else if (this.pixel.peek()) this.pixel.value = null;
    else if (now.pixel || now.class !== null) this.synced.select({ pixel: null, class: null });
    else if (now.channel !== null) this.synced.select({ channel: null });
    else if (now.layer !== null) this.synced.select({ layer: null });
    else return false;
    return true;
  }

  /** The graph says which nodes it draws; their thumbnails follow every new run. */
  showStrips(ids: string[]): void {
    this.wanted = ids;
    void this.fetchStrips();
  }

  /** Raw values of one map, for hover; null until they are here. */
  rawValues(channel: number): Float32Array | null {
    const maps = this.maps.peek().data;
    const held = this.values.peek();
    if (!maps || maps.live) return null;
    if (held && held.key === maps.key && held.channel === channel) return held.data;
    const name = `${maps.key}|${channel}`;
    const kept = this.valueCache.get(name);
    if (kept) {
      this.values.value = { key: maps.key, channel, data: kept };
      return kept;
    }
    // A moving pointer asks many times for one map; only the first of them goes out.
    if (this.valuesAsked !== name) void this.fetchValues(maps, channel, name);
    return null;
  }

  cancelMaps(): void {
    this.stopMaps.abort();
    this.maps.value = { state: "error", data: null, error: { message: "Reading its maps was cancelled." } };
  }

  retryMaps(): void {
    const layer = this.synced.selection.peek().layer;
    if (layer !== null) void this.fetchMaps(layer);
  }

  /** Something that a page started ends with this view. */
  whenDone(step: () => void): void {
    this.undo.push(step);
  }

  dispose(): void {
    for (const step of this.undo) step();
    this.scrubber.stop();
  }

  // ---- watching ----------------------------------------------------------------------------------------

  /** Whether the maps of another layer than the chosen one are still in sight: a pixel of them means nothing. */
  private get passing(): boolean {
    const shown = this.shown.peek();
    return shown !== null && shown !== this.synced.selection.peek().layer;
  }

  private get sample(): number {
    return this.synced.run.peek()?.sample ?? this.synced.selection.peek().sample;
  }

  private silence(layer: string | null): string | null {
    if (layer === null || this.synced.graph.value === null) return null;
    const item = this.nodes.value.get(layer);
    if (!item) return this.known.has(layer) ? `${layer} did not run for this input.` : null;
    if (!("op" in item) || item.op !== "decision") return null;
    const line = [item.code, item.source && `(${item.source})`].filter(Boolean).join(" ");
    const read = `Python read ${item.value || "a value"} here${line && `: ${line}`}.`;
    return `${read} For another value the network may take another path; this graph is for this input.`;
  }

  private describe(): DataState {
    const { graph, status, run, epoch } = this.synced;
    const phase = status.value.state;
    if (this.wire.dead.value) return this.heard ? "dead" : "static";
    if (phase === "error") return "error";
    if (this.wire.busy.value) return "busy";
    if (phase === "loading" && !run.value) return "loading";
    if (!graph.value) return "empty";
    if (run.value && (epoch.value > run.value.epoch || !run.value.consistent)) return "stale";
    return "ready";
  }

  private follow(): void {
    const { run, selection, graph } = this.synced;
    const runKey = computed(() => run.value?.run ?? 0);
    const layer = computed(() => selection.value.layer);
    const channel = computed(() => selection.value.channel);
    const sample = computed(() => selection.value.sample);
    const target = computed(() => JSON.stringify(this.targetOf(selection.value)));
    const changed = this.changes.key;
    let gone = false;

    this.undo.push(
      effect(() => {
        const dead = this.wire.dead.value;
        if (dead) this.synced.heard(false);
        else if (gone) untracked(() => this.comeBack());
        gone = dead;
      }),
      effect(() => {
        for (const id of this.nodes.value.keys()) this.known.add(id);
        if (graph.value) void this.fetchThumbs();
      }),
      effect(() => {
        const wish = sample.value;
        if (runKey.value > 0 && run.peek()?.sample !== wish) {
          void this.trace(wish);
        }
      }),
      effect(() => {
        if (runKey.value === 0) return;
        this.timings.value = { ...this.timings.peek(), trace: run.peek()?.ms };
        this.pixel.value = null;
        void this.fetchInput();
      }),
      effect(() => {
        void changed.value;
        if (runKey.value > 0) void this.fetchStrips();
      }),
      effect(() => {
        const wish = layer.value;
        void changed.value;
        if (runKey.value === 0 || wish === null || this.mute.peek() !== null) this.show(wish, IDLE);
        else void this.fetchMaps(wish);
      }),
      effect(() => {
        void changed.value;
        if (runKey.value === 0) return;
        const wanted = this.view.statsOf.value === "channel" ? channel.value : null;
        // Numbers that nobody looks at would stand in the way of the maps.
        const looked = this.view.tab.value === "stats";
        if (looked && layer.value !== null && this.mute.peek() === null)
          void this.fetchStats(layer.value, wanted);
        else this.stats.value = IDLE;
      }),
      effect(() => {
        const unit = JSON.parse(target.value) as { node: string; unit: number[] } | null;
        void changed.value;
        if (runKey.value === 0) return;
        if (unit && (unit.node === "output" || this.mute.peek() === null)) this.scrubber.ask(unit);
        else this.saliency.value = IDLE;
      }),
    );
  }

  /** A kernel that was given up answers after all: what it was asked in vain is asked again. */
  private comeBack(): void {
    this.synced.heard(true);
    void this.fetchThumbs();
    void this.fetchInput();
    void this.fetchStrips();
    if (this.maps.peek().state === "error") this.retryMaps();
    const unit = this.targetOf(this.synced.selection.peek());
    if (unit && this.saliency.peek().state === "error") this.scrubber.ask(unit);
  }

  private targetOf(now: Selection): { node: string; unit: number[] } | null {
    if (now.class !== null) return { node: "output", unit: [now.class] };
    if (now.layer !== null && now.channel !== null && now.pixel) {
      return { node: now.layer, unit: this.unit(now.channel, now.pixel) };
    }
    return null;
  }

  /** The index of a unit in one sample's activation; a vector has no rows and columns. */
  private unit(channel: number, pixel: [number, number]): number[] {
    const maps = this.passing ? null : this.maps.peek().data;
    if (maps?.kind === "vector") return [channel];
    if (maps?.kind === "tokens") return [pixel[0], channel];
    return [channel, pixel[0], pixel[1]];
  }

  // ---- asking ------------------------------------------------------------------------------------------

  async request<K extends Operation>(
    op: K,
    params: Operations[K]["params"],
    options: RequestOptions<K> = {},
  ): Promise<Reply<K>> {
    const reply = await this.wire.request(op, params, { view: this.id, ...options });
    this.heard = true;
    return reply;
  }

  /** Awaits a request; a cancelled one is nothing, a failed one is kept for the caller to show. */
  private async settle<T>(request: Promise<T>): Promise<T | null> {
    try {
      return await request;
    } catch (error) {
      if ((error as { code?: string }).code !== "cancelled")
        this.view.announce.value = (error as Error).message;
      return null;
    }
  }

  /** Runs the model on a sample. Where it cannot, what was on the screen stays, and the page says why. */
  private async trace(sample: number): Promise<void> {
    try {
      await this.request("run", { sample }, { slot: "run" });
      this.refused.value = null;
    } catch (error) {
      const { message, hint, detail } = error as WireError;
      if (isCancelled(error) || this.wire.dead.peek()) return;
      const title = `Sample ${sample} could not be run.`;
      this.refused.value = { ...(detail as Partial<Failure>), title, message, hint };
      const shown = this.synced.run.peek()?.sample;
      const wish = this.synced.selection.peek().sample;
      if (shown !== undefined && wish === sample) this.synced.select({ sample: shown });
    }
  }

  private async fetchThumbs(): Promise<void> {
    if (this.thumbs.peek()) return;
    const reply = await this.settle(this.request("inputs", { size: 48 }, { slot: "inputs" }));
    if (!reply) return;
    const part = reply.arrays.thumbs;
    const [, h = 0, w = 0] = part.shape;
    this.thumbs.value = { count: reply.meta.count, size: [h, w], rgb: part.data };
  }

  private async fetchInput(): Promise<void> {
    const sample = this.sample;
    // What Python paints comes under one number, always another picture.
    if (this.input.peek()?.sample === sample && sample < (this.synced.info.peek()?.samples ?? 0)) return;
    const reply = await this.settle(this.request("input", { sample }, { slot: "input" }));
    if (!reply) return;
    const { data: rgb, shape } = reply.arrays.rgb;
    const [height = 0, width = 0] = shape;
    this.input.value = { sample, kind: reply.meta.kind, height, width, rgb };
  }

  private async fetchStrips(): Promise<void> {
    const run = this.synced.run.peek()?.run ?? 0;
    const picture = this.picture.peek();
    if (this.stripsOf !== picture) {
      const kept = this.stripCache.get(picture);
      this.stripsOf = kept ? picture : this.stripsOf;
      this.strips.value = kept ?? this.strips.peek();
    }
    const have = this.strips.peek();
    const fresh = this.stripsOf === picture;
    const nodes = fresh ? this.wanted.filter((id) => !have.has(id)) : this.wanted;
    if (run === 0 || nodes.length === 0) return;
    const reply = await this.settle(
      this.request(
        "strips",
        { nodes, sample: this.sample, count: STRIP_COUNT, size: STRIP_SIZE, ...this.changes.params },
        { slot: "strips" },
      ),
    );
    if (!reply || this.picture.peek() !== picture) return;
    const bytes = reply.arrays.tiles.data;
    const area = STRIP_SIZE * STRIP_SIZE;
    const next = new Map(this.stripsOf === picture ? this.strips.peek() : []);
    for (const strip of reply.meta.strips) {
      const tiles = bytes.subarray(strip.start * area, (strip.start + strip.channels.length) * area);
      next.set(strip.node, {
        node: strip.node,
        kind: strip.kind,
        channels: strip.channels,
        size: STRIP_SIZE,
        tiles,
      });
    }
    this.stripsOf = picture;
    this.stripCache.set(picture, next);
    this.strips.value = next;
  }

  private async fetchMaps(node: string): Promise<void> {
    // Maps of another layer that are still on their way must not come in over these.
    this.stopMaps.abort();
    const key = `${this.picture.peek()}|${node}`;
    const kept = this.mapCache.get(key);
    if (kept) {
      this.show(node, { state: "ready", data: kept });
      return;
    }
    // The last maps of the same layer stay in sight until the new ones are here: a new input must not flash.
    if (this.shown.peek() === node) this.show(node, { ...this.maps.peek(), state: "loading" });
    const late = setTimeout(() => {
      if (this.shown.peek() !== node) this.show(node, { state: "loading", data: null });
    }, GAP_MS);
    const stop = new AbortController();
    this.stopMaps = stop;
    stop.signal.addEventListener("abort", () => clearTimeout(late));
    try {
      if (this.longestSide(node) > FIRST_SIDE) await this.askMaps(node, key, FIRST_SIDE, stop.signal);
      this.mapCache.set(key, await this.askMaps(node, key, MAX_SIDE, stop.signal));
    } catch (error) {
      const { message, hint } = error as WireError;
      if (isCancelled(error) || this.synced.selection.peek().layer !== node) return;
      const { state, data } = this.maps.peek();
      if (state === "ready" && data?.key === key) return; // without the finer ones, which come after these
      this.show(node, { state: "error", data: null, error: { message, hint } });
    } finally {
      clearTimeout(late);
    }
  }

  /** Asks for all maps of a layer and shows them as they come. */
  private async askMaps(node: string, key: string, side: number, stop: AbortSignal): Promise<Maps> {
    let maps: Maps | null = null;
    const coarser = this.maps.peek().data?.key === key;
    const { params } = this.changes;
    await this.request(
      "maps",
      { node, sample: this.sample, max_side: side, ...params },
      {
        slot: "maps",
        signal: stop,
        onProgress: (progress) => {
          if (this.shown.peek() === node) this.maps.value = { ...this.maps.peek(), progress };
        },
        onChunk: (part) => {
          maps = collect(maps, key, part, params.changed?.length);
          // The last part is painted with the whole, once; and only a whole takes the place of a coarser one.
          if (maps && !part.last && !coarser) this.show(node, { state: "loading", data: { ...maps } });
        },
      },
    );
    const whole = maps as Maps | null;
    if (!whole) throw new WireError("protocol", "The answer had no maps in it.");
    this.show(node, { state: "ready", data: whole });
    this.timings.value = { ...this.timings.peek(), maps: whole.ms };
    return whole;
  }

  private longestSide(node: string): number {
    const found = this.nodes.peek().get(node);
    const shape = found && "output_shapes" in found ? found.output_shapes[0] : undefined;
    return shape?.length === 4 ? Math.max(...shape.slice(2)) : 0;
  }

  private show(layer: string | null, maps: Loadable<Maps>): void {
    batch(() => {
      this.shown.value = layer;
      this.maps.value = maps;
    });
  }

  private async fetchValues(maps: Maps, channel: number, name: string): Promise<void> {
    this.valuesAsked = name;
    const reply = await this.settle(
      this.request(
        "values",
        { node: maps.node, sample: this.sample, channel, of: maps.of, ...this.changes.params },
        { slot: "values" },
      ),
    );
    if (this.valuesAsked === name) this.valuesAsked = "";
    const part = reply?.arrays.values;
    if (!part) return;
    this.valueCache.set(name, part.data);
    if (this.maps.peek().data?.key === maps.key) {
      this.values.value = { key: maps.key, channel, data: part.data };
    }
  }

  private async fetchStats(node: string, channel: number | null): Promise<void> {
    this.stats.value = { state: "loading", data: this.stats.peek().data };
    const reply = await this.settle(
      this.request(
        "stats",
        { node, sample: this.sample, channel: channel ?? undefined, ...this.changes.params },
        { slot: "stats" },
      ),
    );
    if (!reply) return;
    const counts = reply.arrays.counts.data;
    const edges = reply.arrays.edges.data;
    this.stats.value = { state: "ready", data: { ...reply.meta, node, channel, counts, edges } };
  }

  private async fetchSaliency(node: string, unit: number[]): Promise<void> {
    const key = `${this.picture.peek()}|${node}|${unit.join(",")}`;
    if (this.saliency.peek().data?.key === key) return;
    const before = this.saliency.peek().data;
    this.saliency.value = { state: "loading", data: before };
    try {
      let seen: Saliency | null = null;
      const reply = await this.request(
        "saliency",
        { node, sample: this.sample, unit, ...this.changes.params },
        {
          slot: "saliency",
          onChunk: (part) => {
            const { signed, magnitude } = part.arrays;
            if (!part.meta || !signed || !magnitude) return;
            const { value, scale, magnitude_scale, box, ms } = part.meta;
            seen = {
              ...{ key, node, unit, value, box, ms },
              // While dragging, the frame follows a moment later instead of flickering.
              field: this.view.scrub.peek() && before?.node === node ? before.field : null,
              scale: { signed: scale, magnitude: magnitude_scale },
              signed: signed.data,
              magnitude: magnitude.data,
            };
            this.saliency.value = { state: "ready", data: seen };
            this.timings.value = { ...this.timings.peek(), saliency: ms };
          },
        },
      );
      const data = seen as Saliency | null;
      // The frame comes after the picture.
      if (data) this.saliency.value = { state: "ready", data: { ...data, field: reply.meta.field } };
    } catch (error) {
      const failure = error as WireError;
      if (isCancelled(error)) return;
      this.saliency.value = {
        state: "error",
        data: null,
        error: { message: failure.message, hint: failure.hint },
      };
    }
  }
}
