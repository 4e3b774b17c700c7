// Moves the view smoothly from where it is to where it is wanted, frame by frame.

import type { Signal } from "@preact/signals";
import { between, close, type Viewport } from "./viewport";

const GLIDE_MS = 220;

export class Glider {
  private frame = 0;

  constructor(private readonly view: Signal<Viewport>) {}

  go(to: Viewport): void {
    this.stop();
    const from = this.view.peek();
    if (close(from, to) || prefersStill()) {
      this.view.value = to;
      return;
    }
    const start = performance.now();
    const step = (now: number) => {
      const share = Math.min(1, Math.max(0, (now - start) / GLIDE_MS));
      this.view.value = between(from, to, share);
      this.frame = share < 1 ? requestAnimationFrame(step) : 0;
    };
    this.frame = requestAnimationFrame(step);
  }

  stop(): void {
    if (this.frame) cancelAnimationFrame(this.frame);
    this.frame = 0;
  }
}

/** Where there are no frames, or none are wanted, things are where they go at once. */
function prefersStill(): boolean {
  return (
    typeof requestAnimationFrame === "undefined" || matchMedia("(prefers-reduced-motion: reduce)").matches
  );
}
