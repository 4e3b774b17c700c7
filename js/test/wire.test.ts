/// <reference types="node" />
// The page's end of the wire: a kernel that is a list of what it was told, and a clock that is stepped.

import { readFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { isCancelled, WireClient, type WireError } from "../src/wire/client";
import { Assembler, CodecError, decode, decodePart, type WireBuffer } from "../src/wire/codec";
import type { ArrayDescriptor, PageMessage, Part, WireModel } from "../src/wire/types";

const FIXTURES = new URL("../../tests/fixtures/wire/", import.meta.url);
const json = (name: string) => JSON.parse(readFileSync(new URL(name, FIXTURES), "utf8"));
const binary = (name: string): Uint8Array => new Uint8Array(readFileSync(new URL(name, FIXTURES)));

/** A model whose kernel answers when the test says so. */
class FakeModel implements WireModel {
  sent: { message: PageMessage; buffers?: ArrayBuffer[] }[] = [];
  listeners = new Map<string, Set<(...args: unknown[]) => void>>();
  widget_manager?: unknown;

  on(event: string, callback: (...args: unknown[]) => void) {
    const all = this.listeners.get(event) ?? new Set();
    this.listeners.set(event, all.add(callback));
  }
  off(event: string, callback: (...args: unknown[]) => void) {
    this.listeners.get(event)?.delete(callback);
  }
  send(content: unknown, _callbacks?: unknown, buffers?: ArrayBuffer[]) {
    this.sent.push({ message: content as PageMessage, buffers });
  }
  fire(event: string, ...args: unknown[]) {
    for (const callback of [...(this.listeners.get(event) ?? [])]) callback(...args);
  }
  say(message: object, buffers: unknown[] = []) {
    this.fire("msg:custom", message, buffers);
  }
  of<T extends PageMessage["t"]>(t: T): Extract<PageMessage, { t: T }>[] {
    return this.sent.map((s) => s.message).filter((m): m is Extract<PageMessage, { t: T }> => m.t === t);
  }
  get rid(): string {
    return this.of("req").at(-1)?.rid ?? "none";
  }
  chunk(rid: string, seq: number, last: boolean, arrays: ArrayDescriptor[] = [], buffers: unknown[] = []) {
    this.say(
      { t: "chunk", rid, seq, last, epoch: 7, arrays, meta: last ? { last: true } : undefined },
      buffers,
    );
  }
}

const bytes = (...values: number[]) => new Uint8Array(values).buffer;
const rows = (start: number, total: number, ...values: number[]): [ArrayDescriptor[], unknown[]] => [
  [{ name: "tiles", dtype: "u1", shape: [values.length], start, total }],
  [bytes(...values)],
];
const failure = (promise: Promise<unknown>): Promise<WireError> =>
  promise.then(
    () => {
      throw new Error("expected a failure");
    },
    (error) => error as WireError,
  );
const MAPS = { node: "conv", sample: 0, max_side: 128 };

let model: FakeModel;
let client: WireClient;

beforeEach(() => {
  vi.useFakeTimers();
  model = new FakeModel();
  client = new WireClient(model);
  model.say({ t: "hello", v: 1, view: client.view, open: [] });
});
afterEach(() => {
  client.dispose();
  vi.useRealTimers();
});

describe("codec", () => {
  it.each(["every_type", "split"])("reads the golden messages '%s' as the kernel wrote them", (name) => {
    const golden = json(`${name}.json`);
    const all = binary(`${name}.bin`);
    const assembler = new Assembler();
    let offset = 0;
    for (const message of golden.messages) {
      message.arrays.forEach((descriptor: ArrayDescriptor, index: number) => {
        const size = message.sizes[index];
        // as some hosts hand them over: views somewhere inside a larger buffer, aligned or not
        const part = decodePart(descriptor, new DataView(all.buffer, all.byteOffset + offset, size));
        assembler.add(descriptor.name, descriptor.dtype, part);
        offset += size;
      });
    }
    const arrays = assembler.finish();
    for (const { name: key, shape, values } of golden.arrays) {
      const numbers = values.map((text: string) =>
        Number(text.replace("inf", "Infinity").replace("nan", "NaN")),
      );
      expect(arrays[key]?.shape).toEqual(shape);
      const given = Array.from(arrays[key]?.data ?? []);
      expect(given.map((value) => Math.fround(value))).toEqual(numbers.map(Math.fround));
    }
  });

  it.each([0, 1, 2, 3])("reads floats at byte offset %i", (shift) => {
    const raw = new Uint8Array(shift + 8);
    raw.set(new Uint8Array(new Float32Array([1.5, -2]).buffer), shift);
    const view = new Uint8Array(raw.buffer, shift, 8);
    const array = decode({ name: "a", dtype: "f4", shape: [2] }, view);
    expect(Array.from(array.data)).toEqual([1.5, -2]);
    // looked at in place where the alignment allows it
    expect(array.data.buffer === raw.buffer).toBe(shift === 0);
  });

  it.each([
    ["too few bytes", { name: "a", dtype: "f4", shape: [2] }, bytes(1, 2, 3)],
    ["no bytes", { name: "a", dtype: "u1", shape: [2] }, undefined],
    ["a type it does not know", { name: "a", dtype: "c8", shape: [1] }, bytes(1)],
    ["a shape that is none", { name: "a", dtype: "u1", shape: [-1] }, bytes(1)],
    ["rows beyond the end", { name: "a", dtype: "u1", shape: [2], start: 3, total: 4 }, bytes(1, 2)],
  ])("refuses %s", (_what, descriptor, buffer) => {
    expect(() => decodePart(descriptor as ArrayDescriptor, buffer as WireBuffer)).toThrow(CodecError);
  });

  it("refuses an array that ends too early", () => {
    const assembler = new Assembler();
    assembler.add("a", "u1", { data: new Uint8Array(2), shape: [2], start: 0, total: 4 });
    expect(() => assembler.finish()).toThrow("2 of 4");
  });
});

describe("what is said", () => {
  it("equals the golden messages", () => {
    const [request, cancel, ack, again, hello, visible] = json("page.json").map(
      (c: { message: object }) => c.message,
    );
    const same = (message: unknown, golden: object) => {
      expect(Object.keys(message as object).sort()).toEqual(Object.keys(golden).sort());
      for (const [key, value] of Object.entries(golden)) {
        expect(typeof (message as Record<string, unknown>)[key]).toBe(typeof value);
      }
      expect((message as { t: string }).t).toBe((golden as { t: string }).t);
    };
    same(model.of("hello")[0], hello);
    const abort = new AbortController();
    const asked = client.request("maps", MAPS, { slot: "maps:a", signal: abort.signal });
    same(model.of("req")[0], request);
    model.chunk(model.rid, 0, false, ...rows(0, 6, 1));
    model.chunk(model.rid, 1, false, ...rows(1, 6, 1));
    same(model.of("ack")[0], ack);
    model.chunk(model.rid, 3, false, ...rows(3, 6, 1));
    same(model.of("ack")[1], again);
    abort.abort();
    same(model.of("cancel")[0], cancel);
    client.visible("a", true);
    same(model.of("visible")[0], visible);
    return failure(asked);
  });

  it("carries buffers and the view that asks", async () => {
    const png = bytes(1, 2);
    const done = client.request("still", {}, { buffers: [png], view: "left" });
    expect(model.sent.at(-1)?.buffers).toEqual([png]);
    expect(model.of("req")[0]?.view).toBe("left");
    model.say({ t: "chunk", rid: model.rid, seq: 0, last: true, epoch: 0, arrays: [], meta: {} });
    await done;
  });
});

describe("one request", () => {
  it("resolves with the arrays, the meta and the epoch of a reply in one message, unacknowledged", async () => {
    const golden = json("kernel.json").finish;
    const done = client.request("maps", MAPS);
    vi.advanceTimersByTime(12);
    model.say({ ...golden, rid: model.rid }, [new Float32Array([1, 2]).buffer]);
    const reply = await done;
    expect(Array.from(reply.arrays.low.data)).toEqual([1, 2]);
    expect(reply.meta).toEqual({ node: "conv", bad: null });
    expect(reply.epoch).toBe(3);
    expect(reply.ms).toBeCloseTo(12);
    expect(model.of("ack")).toEqual([]);
  });

  it("rejects with the kernel's code, message, hint and detail", async () => {
    const golden = json("kernel.json").error;
    const error = failure(client.request("maps", MAPS));
    model.say({ ...golden, rid: model.rid });
    const { code, message, hint, detail } = golden;
    expect(await error).toMatchObject({ code, message, hint, detail });
  });

  it("hands over parts as they arrive, acknowledges every second and the last, and puts them together", async () => {
    const parts: Part<"maps">[] = [];
    const done = client.request("maps", MAPS, { onChunk: (part) => parts.push(part) });
    const { rid } = model;
    model.chunk(rid, 0, false, ...rows(0, 5, 1, 2));
    expect(Array.from(parts[0]?.arrays.tiles?.data ?? [])).toEqual([1, 2]);
    model.chunk(rid, 1, false, ...rows(2, 5, 3, 4));
    model.chunk(rid, 2, true, ...rows(4, 5, 5));
    expect(model.of("ack").map((m) => m.seq)).toEqual([1, 2]);
    expect(parts.map((p) => p.arrays.tiles?.start)).toEqual([0, 2, 4]);
    const reply = await done;
    expect(Array.from(reply.arrays.tiles.data)).toEqual([1, 2, 3, 4, 5]);
    expect(reply.arrays.tiles.shape).toEqual([5]);
  });

  it("does not acknowledge a reply of two messages", async () => {
    const done = client.request("maps", MAPS);
    model.chunk(model.rid, 0, false, ...rows(0, 2, 1));
    model.chunk(model.rid, 1, true, ...rows(1, 2, 2));
    await done;
    expect(model.of("ack")).toEqual([]);
  });

  it("asks once for what follows a gap, and takes it when it comes", async () => {
    const done = client.request("maps", MAPS);
    const { rid } = model;
    model.chunk(rid, 0, false, ...rows(0, 4, 1));
    model.chunk(rid, 2, false, ...rows(2, 4, 3));
    model.chunk(rid, 3, true, ...rows(3, 4, 4));
    expect(model.of("ack").filter((m) => m.again)).toEqual([{ t: "ack", rid, seq: 0, again: true }]);
    model.chunk(rid, 1, false, ...rows(1, 4, 2));
    model.chunk(rid, 2, false, ...rows(2, 4, 3));
    model.chunk(rid, 3, true, ...rows(3, 4, 4));
    expect(Array.from((await done).arrays.tiles.data)).toEqual([1, 2, 3, 4]);
  });

  it("takes a chunk that comes twice once", async () => {
    const done = client.request("maps", MAPS);
    const { rid } = model;
    model.chunk(rid, 0, false, ...rows(0, 2, 1));
    model.chunk(rid, 0, false, ...rows(0, 2, 1));
    model.chunk(rid, 1, true, ...rows(1, 2, 2));
    expect(Array.from((await done).arrays.tiles.data)).toEqual([1, 2]);
  });

  it("passes progress on", () => {
    const onProgress = vi.fn();
    void client.request("maps", MAPS, { onProgress }).catch(() => {});
    model.say({ ...json("kernel.json").progress, rid: model.rid });
    expect(onProgress).toHaveBeenCalledWith(expect.objectContaining({ done: 1, total: 4, note: "forward" }));
  });

  it("survives a panel that throws", async () => {
    const complaint = vi.spyOn(console, "error").mockImplementation(() => {});
    const done = client.request("maps", MAPS, {
      onChunk: () => {
        throw new Error("panel");
      },
    });
    model.chunk(model.rid, 0, true);
    await done;
    expect(complaint).toHaveBeenCalledOnce();
    complaint.mockRestore();
  });

  it("rejects what does not fit its description and tells the kernel to stop", async () => {
    const error = failure(client.request("maps", MAPS));
    model.chunk(model.rid, 0, false, [{ name: "tiles", dtype: "f4", shape: [9] }], [bytes(1)]);
    expect((await error).code).toBe("protocol");
    expect(model.of("cancel")).toHaveLength(1);
  });
});

describe("cancelling", () => {
  it("ends at once when its signal aborts, and what comes later is ignored", async () => {
    const abort = new AbortController();
    const error = failure(client.request("maps", MAPS, { signal: abort.signal }));
    const { rid } = model;
    abort.abort();
    expect(isCancelled(await error)).toBe(true);
    model.chunk(rid, 0, true);
    model.say({ t: "cancelled", rid });
    expect(model.of("cancel")).toEqual([{ t: "cancel", rid }]);
  });

  it("does not ask at all when the signal has aborted already", async () => {
    const error = failure(client.request("maps", MAPS, { signal: AbortSignal.abort() }));
    expect(isCancelled(await error)).toBe(true);
    expect(model.of("req")).toEqual([]);
  });

  it("lets the newest of a slot win, within its view", async () => {
    const first = failure(client.request("maps", MAPS, { slot: "maps" }));
    const other = client.request("maps", MAPS, { slot: "maps", view: "right" });
    const right = model.rid;
    const second = client.request("maps", MAPS, { slot: "maps" });
    expect(isCancelled(await first)).toBe(true);
    // the kernel knows from the slot: no message is spent on it
    expect(model.of("cancel")).toEqual([]);
    model.chunk(model.rid, 0, true);
    model.chunk(right, 0, true);
    await Promise.all([second, other]);
  });

  it("treats a kernel's own cancel as nothing to tell the user", async () => {
    const error = failure(client.request("maps", MAPS));
    model.say({ ...json("kernel.json").cancelled, rid: model.rid });
    expect(isCancelled(await error)).toBe(true);
  });
});

describe("what is not for us", () => {
  it.each([null, 7, "text", [], {}, { t: "chunk", rid: "someone-else", seq: 0, last: true }, { t: "news" }])(
    "ignores %j",
    (message) => {
      model.fire("msg:custom", message, []);
      expect(client.dead.value).toBe(false);
    },
  );
});

describe("is anybody there?", () => {
  const answerProbe = (open: string[] = []) => model.say({ t: "hello", v: 1, view: client.view, open });

  it("says hello when it is made, so that no click has to wait for a running cell", () => {
    expect(model.of("hello")).toEqual([{ t: "hello", v: 1, view: client.view }]);
  });

  it("is not busy while a quick answer is on its way, and spends no question on it", () => {
    void client.request("maps", MAPS).catch(() => {});
    vi.advanceTimersByTime(200);
    model.chunk(model.rid, 0, true);
    vi.advanceTimersByTime(60_000);
    expect(client.busy.value).toBe(false);
    expect(model.of("hello")).toHaveLength(1);
  });

  it("is busy when nobody answers for half a second, waits, and takes the answer after all", async () => {
    const done = client.request("maps", MAPS);
    vi.advanceTimersByTime(440);
    expect(client.busy.value).toBe(false);
    vi.advanceTimersByTime(60);
    expect(client.busy.value).toBe(true);
    vi.advanceTimersByTime(10 * 60_000);
    expect(model.of("hello")).toHaveLength(2);
    model.chunk(model.rid, 0, true);
    expect(client.busy.value).toBe(false);
    expect((await done).epoch).toBe(7);
  });

  it("is not busy when the kernel answers that it works on it", () => {
    void client.request("maps", MAPS).catch(() => {});
    vi.advanceTimersByTime(260);
    answerProbe([model.rid]);
    vi.advanceTimersByTime(14_000);
    expect(client.busy.value).toBe(false);
    expect(model.of("hello")).toHaveLength(2);
    vi.advanceTimersByTime(2_000);
    expect(model.of("hello")).toHaveLength(3);
  });

  it("asks soon about a new request even while an old one is being worked on", () => {
    void client.request("maps", MAPS).catch(() => {});
    vi.advanceTimersByTime(260);
    answerProbe([model.rid]);
    void client.request("stats", { node: "conv", sample: 0 }).catch(() => {});
    vi.advanceTimersByTime(600);
    expect(client.busy.value).toBe(true);
  });

  it("asks once more for what the kernel has answered but the page never got", async () => {
    const done = client.request("maps", MAPS);
    const lost = model.rid;
    vi.advanceTimersByTime(260);
    answerProbe([]);
    expect(model.rid).not.toBe(lost);
    model.chunk(model.rid, 0, true);
    await done;
  });

  it("gives up with a clear error when that was lost as well", async () => {
    const error = failure(client.request("maps", MAPS));
    for (let round = 0; round < 2; round++) {
      vi.advanceTimersByTime(260);
      answerProbe([]);
    }
    expect(await error).toMatchObject({ code: "timeout", hint: "Please try again." });
  });

  it("asks for the tail of a stream before it asks for all of it again", async () => {
    const done = client.request("maps", MAPS);
    const { rid } = model;
    model.chunk(rid, 0, false, ...rows(0, 2, 1));
    vi.advanceTimersByTime(15_100);
    answerProbe([]);
    expect(model.of("ack").at(-1)).toEqual({ t: "ack", rid, seq: 0, again: true });
    model.chunk(rid, 1, true, ...rows(1, 2, 2));
    expect(Array.from((await done).arrays.tiles.data)).toEqual([1, 2]);
  });

  it("does not blame a request that was made after the question", () => {
    void client.request("maps", MAPS).catch(() => {});
    const first = model.rid;
    vi.advanceTimersByTime(260);
    void client.request("stats", { node: "conv", sample: 0 }).catch(() => {});
    const second = model.rid;
    answerProbe([first]);
    expect(model.rid).toBe(second);
  });

  it("is not confused by the answer that another page got", () => {
    void client.request("maps", MAPS).catch(() => {});
    const { rid } = model;
    vi.advanceTimersByTime(260);
    model.say({ t: "hello", v: 1, view: "another page", open: [] });
    expect(model.rid).toBe(rid);
  });

  it.each(["comm_live_update", "comm:close"])(
    "is dead after %s, and says so to everyone who waits",
    async (event) => {
      const error = failure(client.request("maps", MAPS));
      model.fire(event);
      expect(client.dead.value).toBe(true);
      expect((await error).code).toBe("dead");
      expect((await failure(client.request("maps", MAPS))).code).toBe("dead");
    },
  );

  describe("in a host that shows its kernel", () => {
    const slots = new Set<(sender: unknown, status: unknown) => void>();
    const kernel = {
      status: "idle",
      statusChanged: {
        connect: (slot: (sender: unknown, status: unknown) => void) => slots.add(slot),
        disconnect: (slot: (sender: unknown, status: unknown) => void) => slots.delete(slot),
      },
    };
    const connect = (manager: unknown) => {
      client.dispose();
      model = new FakeModel();
      model.widget_manager = manager;
      client = new WireClient(model);
    };

    it("is dead at once without a kernel, and when the kernel restarts", () => {
      connect({ kernel: null });
      expect(client.dead.value).toBe(true);
      connect({ kernel });
      expect(client.dead.value).toBe(false);
      for (const slot of slots) slot(null, "autorestarting");
      expect(client.dead.value).toBe(true);
      client.dispose();
      expect(slots.size).toBe(0);
    });

    it("is dead when an idle kernel does not know the widget, but only busy when the kernel is", () => {
      connect({ kernel: { ...kernel, status: "busy" } });
      void client.request("maps", MAPS).catch(() => {});
      vi.advanceTimersByTime(60_000);
      expect([client.busy.value, client.dead.value]).toEqual([true, false]);
      connect({ kernel });
      void client.request("maps", MAPS).catch(() => {});
      vi.advanceTimersByTime(4_000);
      expect(client.dead.value).toBe(true);
    });

    it("gives a kernel that was busy for long time to answer what queued up meanwhile", () => {
      const working = { ...kernel, status: "busy" };
      connect({ kernel: working });
      void client.request("maps", MAPS).catch(() => {});
      vi.advanceTimersByTime(60_000);
      working.status = "idle";
      for (const slot of slots) slot(null, "idle");
      vi.advanceTimersByTime(2_000);
      expect([client.busy.value, client.dead.value]).toEqual([true, false]);
      vi.advanceTimersByTime(2_000);
      expect(client.dead.value).toBe(true);
    });

    it("is dead when the kernel is shut down and its connection disposed of", () => {
      const disposals = new Set<() => void>();
      const disposed = {
        connect: (slot: () => void) => disposals.add(slot),
        disconnect: (slot: () => void) => disposals.delete(slot),
      };
      connect({ kernel: { ...kernel, disposed } });
      for (const slot of disposals) slot();
      expect(client.dead.value).toBe(true);
      client.dispose();
      expect(disposals.size).toBe(0);
    });

    it("lives again when the kernel speaks", () => {
      connect({ kernel });
      model.fire("comm_live_update");
      model.say({ t: "hello", v: 1, view: client.view, open: [] });
      expect(client.dead.value).toBe(false);
    });

    it("does not stumble over a manager of another make", () => {
      connect({
        get kernel() {
          throw new Error("not here");
        },
      });
      expect(client.dead.value).toBe(false);
    });
  });
});

describe("a drawing that the kernel asks for", () => {
  it("is told to everybody who listens, and does not touch what is under way", async () => {
    const heard: unknown[] = [];
    const stop = client.onDraw((ask) => heard.push(ask));
    const asked = client.request("maps", MAPS);
    const question = { t: "draw", ask: "a1", format: "svg", part: "whole" };
    model.say(question);
    stop();
    model.say({ ...question, ask: "a2" });
    model.chunk(model.rid, 0, true);
    await asked;
    expect(heard).toEqual([question]);
  });
});

describe("the end", () => {
  it("leaves no listener, no timer and no open request", async () => {
    client.visible("a", true);
    const error = failure(client.request("maps", MAPS));
    client.dispose();
    expect(isCancelled(await error)).toBe(true);
    expect(model.of("visible").map((m) => m.visible)).toEqual([true, false]);
    expect(model.of("cancel")).toHaveLength(1);
    expect([...model.listeners.values()].every((all) => all.size === 0)).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
    expect((await failure(client.request("maps", MAPS))).code).toBe("dead");
  });
});
