/**
 * What the host knows about the kernel, where it knows anything: its status, and whether the comm still lives.
 *
 * anywidget's model proxy hands out `widget_manager`, whose `kernel` in JupyterLab has a `status` and a
 * `statusChanged` signal, and it forwards the model's own events. Other hosts have none of it. Everything here
 * is therefore looked at, never relied upon: a host without these things has status "unknown" and nothing breaks.
 */
import type { WireModel } from "./types";

export type KernelStatus = "unknown" | "idle" | "busy" | "dead";

interface StatusSignal {
  connect(slot: (sender: unknown, status: unknown) => void): unknown;
  disconnect(slot: (sender: unknown, status: unknown) => void): unknown;
}

interface KernelLike {
  status?: unknown;
  statusChanged?: StatusSignal;
  isDisposed?: boolean;
  disposed?: StatusSignal;
}

const GONE = new Set(["dead", "restarting", "autorestarting", "terminating"]);

export class KernelWatch {
  private readonly kernel: KernelLike | null | undefined;
  private idleSince: number | null = null;
  private readonly onStatus = (_sender: unknown, status: unknown) => {
    this.idleSince = status === "idle" ? (this.idleSince ?? performance.now()) : null;
    if (GONE.has(String(status))) this.lost();
  };

  /** Calls `lost` when the host says that the kernel, or this widget's comm, is gone. */
  constructor(
    private readonly model: WireModel,
    private readonly lost: () => void,
  ) {
    this.kernel = kernelOf(model);
    try {
      this.kernel?.statusChanged?.connect(this.onStatus);
      // Shutting a kernel down from the menu disposes of the connection, and its status becomes "unknown".
      this.kernel?.disposed?.connect(this.lost);
    } catch {
      // A host whose signal differs tells us nothing; the client's own probes remain.
    }
    this.idleFor();
    // The model fires these when the kernel restarts and when Python closes the widget.
    model.on("comm_live_update", this.lost);
    model.on("comm:close", this.lost);
  }

  status(): KernelStatus {
    if (this.kernel === undefined) return "unknown";
    if (this.kernel === null || this.kernel.isDisposed === true) return "dead";
    const status = String(this.kernel.status);
    if (GONE.has(status)) return "dead";
    return status === "idle" || status === "busy" ? status : "unknown";
  }

  /** For how long the kernel has had nothing to do, in ms; 0 while it has, or where nobody knows. */
  idleFor(): number {
    if (this.status() !== "idle") return 0;
    this.idleSince ??= performance.now();
    return performance.now() - this.idleSince;
  }

  dispose(): void {
    this.model.off("comm_live_update", this.lost);
    this.model.off("comm:close", this.lost);
    try {
      this.kernel?.statusChanged?.disconnect(this.onStatus);
      this.kernel?.disposed?.disconnect(this.lost);
    } catch {
      // See the constructor.
    }
  }
}

/** `undefined`: this host does not tell. `null`: it tells that there is no kernel. */
function kernelOf(model: WireModel): KernelLike | null | undefined {
  try {
    const manager = model.widget_manager as { kernel?: KernelLike | null } | null | undefined;
    if (!manager || !("kernel" in manager)) return undefined;
    return manager.kernel ?? null;
  } catch {
    return undefined;
  }
}
