/** A request that ended without a result; `code` says why. */
import { type ReadonlySignal, signal } from "@preact/signals";
import type { ErrorCode, Operation, Operations, Reply, RequestOptions, WireModel } from "./types";

/** The kernel's codes, and three that only the page can know. */
export type FailureCode = ErrorCode | "timeout" | "dead" | "protocol";

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

export class WireClient {
  /** True while the kernel has not answered for longer than a person would wait without wondering. */
  readonly busy: ReadonlySignal<boolean> = signal(false);
  /** True once the kernel is gone or the widget was closed. */
  readonly dead: ReadonlySignal<boolean> = signal(false);
  /** The view that a request belongs to when it names none. */
  readonly view: string = "";

  constructor(model: WireModel) {
    void model;
  }

  request<K extends Operation>(
    op: K,
    params: Operations[K]["params"],
    options: RequestOptions<K> = {},
  ): Promise<Reply<K>> {
    void op;
    void params;
    void options;
    return Promise.reject(new WireError("internal", "not connected"));
  }

  /** Tells the kernel whether a view can be seen; it stops idle work for those that cannot. */
  visible(view: string, visible: boolean): void {
    void view;
    void visible;
  }

  dispose(): void {}
}
