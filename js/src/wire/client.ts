/**
 * The page's end of the wire: asks the kernel, puts the answers together, and knows when nobody is there.
 *
 * One client per model, made in `initialize`, shared by all its views; one `msg:custom` listener in all.
 * - `req` out; `chunk`, `progress`, `error` or `cancelled` in. Exactly one terminal ends a request. Replies are
 *   broadcast to every page, so an unknown `rid` is ignored.
 * - Chunks of one reply are numbered from 0. Every second one and the last are acknowledged at once, which is
 *   what lets the kernel send the next; a reply of one or two is not. A gap (the server drops messages above its rate limit) is asked for again.
 * - Silence is not an error: a kernel without subshells answers when the running cell ends. After `probeAfter` a
 *   `hello` asks whether anybody listens; unanswered, `busy` turns true and the request waits on. A kernel that
 *   answers the probe but no longer knows the request has lost it, and it is sent once more.
 *
 * It draws nothing and caches nothing.
 */
import { type ReadonlySignal, signal } from "@preact/signals";
import { Assembler, CodecError, decodePart, type WireBuffer } from "./codec";
import { KernelWatch } from "./kernel";
import {
  type ChunkMessage,
  type DrawMessage,
  type ErrorCode,
  type KernelMessage,
  type Operation,
  type Operations,
  type PageMessage,
  type Part,
  PROTOCOL,
  type Reply,
  type RequestOptions,
  type WireModel,
} from "./types";

/** The kernel's codes, and three that only the page can know. */
export type FailureCode = ErrorCode | "timeout" | "dead" | "protocol";

/** A request that ended without a result; `code` says why, `hint` what to do next. */
export class WireError extends Error {
  readonly code: FailureCode;
  readonly hint: string;
  readonly detail: Record<string, unknown>;
  constructor(code: FailureCode, message: string, hint = "", detail: Record<string, unknown> = {}) {
    super(message);
    this.name = "WireError";
    this.code = code;
    this.hint = hint;
    this.detail = detail;
  }
}

/** True for a request that was cancelled or replaced by a newer one: nothing to tell the user. */
export function isCancelled(error: unknown): boolean {
  return error instanceof WireError && error.code === "cancelled";
}

export interface Patience {
  /** Silence after which the kernel is asked whether it is there, in ms. */
  probeAfter: number;
  /** Silence after that question until `busy`, in ms. */
  busyAfter: number;
  /** Silence of an idle kernel after which the widget counts as dead, in ms. */
  deadAfter: number;
  /** Silence about one request while the kernel works on it until the kernel is asked again, in ms. */
  inactivity: number;
}

const PATIENCE: Patience = { probeAfter: 250, busyAfter: 200, deadAfter: 3000, inactivity: 15_000 };

/** One request under way. */
interface Open {
  rid: string;
  op: Operation;
  params: unknown;
  slot: string;
  view: string;
  options: RequestOptions<Operation>;
  started: number;
  heard: number;
  expected: number;
  /** The sequence number that was last asked for again. */
  askedFor: number;
  retries: number;
  arrays: Assembler;
  meta: Record<string, unknown>;
  settle(outcome: Reply<Operation> | WireError): void;
}

const GONE = ["The kernel is gone.", "Run the cell again to get a living explorer."] as const;
const MAX_RETRIES = 1;
/** Chunks for one acknowledgement; a reply of no more than these has none. */
const ACK_EVERY = 2;

export class WireClient {
  private readonly busySignal = signal(false);
  private readonly deadSignal = signal(false);
  /** True while the kernel has been silent for longer than a person would wait without wondering. */
  readonly busy: ReadonlySignal<boolean> = this.busySignal;
  /** True once the kernel is gone or the widget was closed. */
  readonly dead: ReadonlySignal<boolean> = this.deadSignal;
  /** The view that a request belongs to when it names none. */
  readonly view = randomId();

  private readonly open = new Map<string, Open>();
  private readonly shown = new Map<string, boolean>();
  private readonly drawers = new Set<(ask: DrawMessage) => void>();
  private readonly patience: Patience;
  private readonly kernel: KernelWatch;
  private counter = 0;
  /** When the unanswered question was asked; null when none is. */
  private probed: number | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private due = 0;
  private disposed = false;

  constructor(
    private readonly model: WireModel,
    patience: Partial<Patience> = {},
  ) {
    this.patience = { ...PATIENCE, ...patience };
    this.kernel = new KernelWatch(model, this.lost);
    model.on("msg:custom", this.receive);
    if (this.kernel.status() === "dead") this.lost();
    // The first message of a page may wait for a running cell; sent now, no click has to.
    else this.probe();
  }

  /**
   * Asks the kernel for one operation.
   *
   * Resolves with the whole reply; `onChunk` paints it as it comes. Rejects with a `WireError`.
   */
  request<K extends Operation>(
    op: K,
    params: Operations[K]["params"],
    options: RequestOptions<K> = {},
  ): Promise<Reply<K>> {
    return new Promise<Reply<K>>((resolve, reject) => {
      if (this.deadSignal.peek() || this.disposed) {
        reject(new WireError("dead", ...GONE));
        return;
      }
      if (options.signal?.aborted) {
        reject(new WireError("cancelled", "cancelled before it was asked"));
        return;
      }
      const view = options.view ?? this.view;
      const slot = options.slot ?? "";
      if (slot) this.vacate(view, slot);
      const now = performance.now();
      const abort = () => this.cancel(request.rid);
      const request: Open = {
        rid: this.nextRid(),
        op,
        params,
        slot,
        view,
        options: options as RequestOptions<Operation>,
        started: now,
        heard: now,
        expected: 0,
        askedFor: -1,
        retries: 0,
        arrays: new Assembler(),
        meta: {},
        settle: (outcome) => {
          this.open.delete(request.rid);
          options.signal?.removeEventListener("abort", abort);
          if (outcome instanceof WireError) reject(outcome);
          else resolve(outcome as Reply<K>);
          if (this.open.size === 0) this.busySignal.value = false;
        },
      };
      options.signal?.addEventListener("abort", abort);
      this.ask(request);
    });
  }

  /** Tells the kernel whether a view can be seen; work for those that cannot be seen rests. */
  visible(view: string, visible: boolean): void {
    if (visible) this.shown.set(view, true);
    else this.shown.delete(view);
    this.post({ t: "visible", view, visible });
  }

  /** Calls back when the kernel asks for the drawing; returns how to stop. */
  onDraw(drawer: (ask: DrawMessage) => void): () => void {
    this.drawers.add(drawer);
    return () => this.drawers.delete(drawer);
  }

  dispose(): void {
    if (this.disposed) return;
    for (const view of [...this.shown.keys()]) this.visible(view, false);
    for (const request of [...this.open.values()]) this.cancel(request.rid);
    this.disposed = true;
    clearTimeout(this.timer);
    this.model.off("msg:custom", this.receive);
    this.kernel.dispose();
  }

  // ---- asking ------------------------------------------------------------------------------------------

  private nextRid(): string {
    this.counter += 1;
    return `${this.view}-${this.counter}`;
  }

  private ask(request: Open): void {
    const { rid, view, slot, op, params: p, options } = request;
    this.open.set(rid, request);
    this.post({ v: PROTOCOL, t: "req", rid, view, slot, op, p }, options.buffers);
    this.tickIn(this.patience.probeAfter);
  }

  private cancel(rid: string): void {
    const request = this.open.get(rid);
    if (!request) return;
    this.post({ t: "cancel", rid });
    request.settle(new WireError("cancelled", "cancelled"));
  }

  /** The kernel cancels the old request of a slot by itself when it sees the new one. */
  private vacate(view: string, slot: string): void {
    for (const request of [...this.open.values()]) {
      if (request.slot === slot && request.view === view) {
        request.settle(new WireError("cancelled", "replaced by a newer request"));
      }
    }
  }

  private post(message: PageMessage, buffers?: ArrayBuffer[]): void {
    if (this.disposed || this.deadSignal.peek()) return;
    try {
      this.model.send(message, undefined, buffers);
    } catch {
      this.lost();
    }
  }

  // ---- hearing -----------------------------------------------------------------------------------------

  private readonly receive = (content: unknown, buffers: unknown): void => {
    const message = content as KernelMessage | null;
    if (this.disposed || typeof message !== "object" || message === null) return;
    if (message.t === "hello") {
      // Replies reach every page: another page's answer proves a living kernel, but says nothing of our question.
      this.alive();
      if (message.view === this.view) this.answered(new Set(message.open));
      return;
    }
    if (message.t === "draw") {
      for (const drawer of this.drawers) this.callback(() => drawer(message));
      return;
    }
    const request = this.open.get(message.rid);
    if (!request) return;
    this.alive();
    request.heard = performance.now();
    if (message.t === "chunk") this.chunk(request, message, (buffers ?? []) as WireBuffer[]);
    else if (message.t === "progress") this.callback(() => request.options.onProgress?.(message));
    else if (message.t === "cancelled") request.settle(new WireError("cancelled", "cancelled"));
    else if (message.t === "error") {
      const { code, message: text, hint, detail } = message;
      request.settle(new WireError(code, text, hint, detail));
    }
  };

  private chunk(request: Open, message: ChunkMessage, buffers: WireBuffer[]): void {
    const { rid } = request;
    const { seq, last } = message;
    if (seq > request.expected) {
      // Everything after the gap comes again, so what came early is not kept.
      if (request.askedFor !== request.expected) this.askAgain(request);
      return;
    }
    // Every acknowledgement costs the kernel a message of its own; it sends several chunks without one.
    if (last ? seq >= ACK_EVERY : seq % ACK_EVERY === ACK_EVERY - 1) this.post({ t: "ack", rid, seq });
    if (seq < request.expected) return;
    request.expected += 1;
    try {
      const parts: Record<string, ReturnType<typeof decodePart>> = {};
      message.arrays.forEach((descriptor, index) => {
        const part = decodePart(descriptor, buffers[index]);
        request.arrays.add(descriptor.name, descriptor.dtype, part);
        parts[descriptor.name] = part;
      });
      if (message.meta) request.meta = { ...request.meta, ...message.meta };
      const part = { meta: message.meta, arrays: parts, epoch: message.epoch, last };
      this.callback(() => request.options.onChunk?.(part as unknown as Part<Operation>));
      if (!last || !this.open.has(rid)) return;
      const ms = performance.now() - request.started;
      const reply = { meta: request.meta, arrays: request.arrays.finish(), epoch: message.epoch, ms };
      request.settle(reply as unknown as Reply<Operation>);
    } catch (error) {
      if (!(error instanceof CodecError)) throw error;
      if (!last) this.post({ t: "cancel", rid });
      request.settle(
        new WireError("protocol", `The kernel's answer does not fit its description: ${error.message}`),
      );
    }
  }

  private askAgain(request: Open): void {
    request.askedFor = request.expected;
    this.post({ t: "ack", rid: request.rid, seq: request.expected - 1, again: true });
  }

  /** A panel that throws must not stop the wire. */
  private callback(call: () => void): void {
    try {
      call();
    } catch (error) {
      console.error("[nnviz]", error);
    }
  }

  // ---- is anybody there? ---------------------------------------------------------------------------------

  private alive(): void {
    this.busySignal.value = false;
    this.deadSignal.value = false;
  }

  private readonly lost = (): void => {
    this.deadSignal.value = true;
    for (const request of [...this.open.values()]) request.settle(new WireError("dead", ...GONE));
    this.busySignal.value = false;
    this.probed = null;
    clearTimeout(this.timer);
    this.timer = undefined;
  };

  private probe(): void {
    this.probed = performance.now();
    this.post({ t: "hello", v: PROTOCOL, view: this.view });
    this.tickIn(this.patience.busyAfter);
  }

  /** The kernel told which requests it still works on; it answers in order, so any other one of ours was lost. */
  private answered(working: Set<string>): void {
    const asked = this.probed ?? Number.NEGATIVE_INFINITY;
    this.probed = null;
    for (const request of [...this.open.values()]) {
      if (request.started > asked) continue;
      if (working.has(request.rid)) request.heard = performance.now();
      else if (request.expected > 0 && request.askedFor !== request.expected) this.askAgain(request);
      else this.retry(request);
    }
    this.tickIn(this.patience.inactivity);
  }

  private retry(request: Open): void {
    this.open.delete(request.rid);
    if (request.retries >= MAX_RETRIES) {
      request.settle(
        new WireError("timeout", "The kernel's answer was lost on its way.", "Please try again."),
      );
      return;
    }
    const now = performance.now();
    Object.assign(request, {
      rid: this.nextRid(),
      started: now,
      heard: now,
      expected: 0,
      askedFor: -1,
      meta: {},
    });
    request.arrays = new Assembler();
    request.retries += 1;
    this.ask(request);
  }

  private tickIn(delay: number): void {
    const due = performance.now() + delay;
    if (this.disposed || (this.timer !== undefined && this.due <= due)) return;
    clearTimeout(this.timer);
    this.due = due;
    this.timer = setTimeout(() => {
      this.timer = undefined;
      this.tick();
    }, delay);
  }

  private tick(): void {
    const now = performance.now();
    const { probeAfter, busyAfter, deadAfter, inactivity } = this.patience;
    // A late timer means that the page itself stood still; what came meanwhile is yet to be read.
    if (this.probed !== null && now - this.due > busyAfter) this.probed = now;
    if (this.probed !== null) {
      const silence = now - this.probed;
      // An idle kernel that does not answer has no widget of ours any more. What queued up while it was busy is
      // answered only after it has become idle, so the silence before that says nothing.
      if (silence >= deadAfter && this.kernel.idleFor() >= deadAfter) {
        this.lost();
        return;
      }
      if (silence >= busyAfter && this.open.size > 0) this.busySignal.value = true;
      this.tickIn(silence < busyAfter ? busyAfter - silence : probeAfter);
      return;
    }
    if (this.open.size === 0) return;
    let next = Number.POSITIVE_INFINITY;
    for (const request of this.open.values()) {
      // A request that never got a word is asked about soon, one that is being worked on later.
      const limit = request.heard === request.started ? probeAfter : inactivity;
      next = Math.min(next, request.heard + limit - now);
    }
    if (next <= 0) this.probe();
    else this.tickIn(next);
  }
}

/** Not `crypto.randomUUID`: it does not exist on plain http. */
function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(9));
  return Array.from(bytes, (byte) => byte.toString(36).padStart(2, "0")).join("");
}
