// One painting: the sample it began with, what was drawn, how it is adjusted, and the way back.

import { signal } from "@preact/signals";
import {
  type Adjust,
  adjusted,
  type Colour,
  copyOf,
  cover,
  type Picture,
  stroke,
  UNCHANGED,
  under,
} from "./picture";

const STEPS_KEPT = 60;

interface Step {
  drawn: Picture;
  adjust: Adjust;
}

export class Easel {
  readonly adjust = signal<Adjust>(UNCHANGED);
  /** Counts changes of the picture, for whoever draws it. */
  readonly version = signal(0);
  /** How many steps can be undone. */
  readonly depth = signal(0);
  private drawn: Picture;
  private steps: Step[] = [];

  constructor(
    /** The sample of the batch under it. */
    readonly base: number,
    private original: Picture,
  ) {
    this.drawn = copyOf(original);
  }

  get width(): number {
    return this.original.width;
  }

  get height(): number {
    return this.original.height;
  }

  /** As it is sent and shown. */
  picture(): Uint8ClampedArray {
    return adjusted(this.drawn, this.adjust.peek());
  }

  /** What it began with. */
  before(): Uint8ClampedArray {
    return this.original.rgb;
  }

  /** To be called before a gesture that can be undone. */
  begin(): void {
    this.steps.push({ drawn: copyOf(this.drawn), adjust: this.adjust.peek() });
    if (this.steps.length > STEPS_KEPT) this.steps.shift();
    this.depth.value = this.steps.length;
  }

  /** A line in the picture as it is seen; null brings back the original. */
  line(
    from: readonly [number, number],
    to: readonly [number, number],
    radius: number,
    ink: Colour | null,
  ): void {
    const adjust = this.adjust.peek();
    const place = ([x, y]: readonly [number, number]) => under(adjust, this.original, x, y);
    stroke(this.drawn, place(from), place(to), radius / adjust.zoom, ink ?? this.original);
    this.changed();
  }

  /** A box between two corners of the picture as it is seen. */
  box(from: readonly [number, number], to: readonly [number, number], colour: Colour): void {
    const adjust = this.adjust.peek();
    const [ax, ay] = under(adjust, this.original, ...from);
    const [bx, by] = under(adjust, this.original, ...to);
    const [y0, y1] = [Math.round(Math.min(ay, by)), Math.round(Math.max(ay, by)) + 1];
    const [x0, x1] = [Math.round(Math.min(ax, bx)), Math.round(Math.max(ax, bx)) + 1];
    cover(this.drawn, [y0, x0, y1, x1], colour);
    this.changed();
  }

  set(change: Partial<Adjust>): void {
    this.adjust.value = { ...this.adjust.peek(), ...change };
    this.changed();
  }

  /** Another picture in its place; the original stays what it is compared with. */
  take(rgb: Uint8ClampedArray): void {
    this.drawn = { width: this.width, height: this.height, rgb: rgb.slice() };
    this.adjust.value = UNCHANGED;
    this.changed();
  }

  undo(): void {
    const step = this.steps.pop();
    if (!step) return;
    this.drawn = step.drawn;
    this.adjust.value = step.adjust;
    this.depth.value = this.steps.length;
    this.changed();
  }

  reset(): void {
    this.begin();
    this.take(this.original.rgb);
  }

  private changed(): void {
    this.version.value += 1;
  }
}
