// What the painter's canvas shows: the picture, and on it where the tool is. It is painted, not made of elements: an
// element that moves with the pointer is laid out and layered anew with all cards of the page, sixty times a second.
//
// Where page and kernel share few cores, and while the network follows, the canvas is painted along with its answers,
// and at least every `PATIENT_MS`: a picture of the screen for the ink alone takes half as long as one for both.

import type { Picture } from "./picture";

export type Place = readonly [x: number, y: number];

/** The tool on the picture, in its pixels: a ring around the brush, or the box that will be covered. */
export type Mark = { ring: Place; size: number } | { from: Place; to: Place };

/** Smaller pictures show their pixels. */
const SMALL = 160;
/** So long the ink may wait for an answer to be shown with: two pictures of the screen. */
const PATIENT_MS = 30;

export class Board {
  private readonly pixels = document.createElement("canvas");
  private readonly image: ImageData;
  private mark: Mark | null = null;
  private rgb: Picture["rgb"] | null = null;
  private frame = 0;
  private painted = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly size: { width: number; height: number },
    /** Whether to wait for an answer that is under way, with which `now` is called. */
    private readonly followed: () => boolean = () => false,
  ) {
    this.pixels.width = size.width;
    this.pixels.height = size.height;
    this.image = new ImageData(size.width, size.height);
    this.image.data.fill(255);
  }

  /** Fits the canvas to the pixels of the screen under it. */
  fit(width: number, height: number): void {
    const dpr = window.devicePixelRatio || 1;
    const [w, h] = [Math.max(1, Math.round(width * dpr)), Math.max(1, Math.round(height * dpr))];
    if (this.canvas.width !== w || this.canvas.height !== h) {
      this.canvas.width = w;
      this.canvas.height = h;
    }
    this.paint();
  }

  show(rgb: Picture["rgb"]): void {
    this.rgb = rgb;
    this.soon();
  }

  point(mark: Mark | null): void {
    if (!mark && !this.mark) return;
    this.mark = mark;
    this.soon();
  }

  /** Paints what is new, if anything is: to be called where the screen changes anyway. */
  now(): void {
    if (!this.frame) return;
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.paint();
  }

  /** Once for a picture of the screen, whatever happened meanwhile. */
  private soon(): void {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (this.followed() && performance.now() - this.painted < PATIENT_MS) this.soon();
      else this.paint();
    });
  }

  private paint(): void {
    const pen = this.canvas.getContext("2d");
    if (!pen) return;
    this.painted = performance.now();
    this.fill();
    const { width, height } = this.canvas;
    pen.imageSmoothingEnabled = Math.max(this.size.width, this.size.height) > SMALL;
    pen.drawImage(this.pixels, 0, 0, width, height);
    if (!this.mark) return;
    const line = window.devicePixelRatio || 1;
    // Light inside, dark outside: one of them is seen on any picture.
    this.outline(pen, "rgb(0 0 0 / 60%)", line, line / 2);
    this.outline(pen, "#fff", line, -line / 2);
  }

  /** Brings the pixels up to date. */
  private fill(): void {
    const { rgb } = this;
    if (!rgb) return;
    this.rgb = null;
    const { data } = this.image;
    for (let i = 0, j = 0; i < rgb.length; i += 3, j += 4) {
      data[j] = rgb[i] as number;
      data[j + 1] = rgb[i + 1] as number;
      data[j + 2] = rgb[i + 2] as number;
    }
    this.pixels.getContext("2d")?.putImageData(this.image, 0, 0);
  }

  private outline(pen: CanvasRenderingContext2D, colour: string, line: number, grow: number): void {
    const { mark } = this;
    if (!mark) return;
    const scale = this.canvas.width / this.size.width;
    const on = ([x, y]: Place): Place => [(x + 0.5) * scale, (y + 0.5) * scale];
    pen.beginPath();
    if ("ring" in mark) {
      pen.arc(...on(mark.ring), Math.max(line, (mark.size * scale) / 2 + grow), 0, 2 * Math.PI);
    } else {
      const [[x0, y0], [x1, y1]] = [on(mark.from), on(mark.to)];
      const [x, y] = [Math.min(x0, x1) - grow, Math.min(y0, y1) - grow];
      pen.rect(x, y, Math.abs(x1 - x0) + 2 * grow, Math.abs(y1 - y0) + 2 * grow);
      if (grow < 0) {
        pen.fillStyle = "rgb(128 128 128 / 35%)";
        pen.fill();
      }
    }
    pen.lineWidth = line;
    pen.strokeStyle = colour;
    pen.stroke();
  }
}
