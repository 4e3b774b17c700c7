// Thumbnails on the cards: up to four of the strongest maps of a layer, and the input itself. A card only holds an
// empty canvas; all of them are painted in one pass when maps arrive or the colour map changes.

import { useLayoutEffect, useRef } from "preact/hooks";
import { table } from "../maps/colormaps";
import type { Strip } from "../state/data";
import type { Store } from "../state/store";
import type { Colormap } from "../state/view";

export const TILE = 36;
const GAP = 3;
const TILES = 4;

export function StripCanvas({ id, small }: { id: string; small: boolean }) {
  return (
    <canvas
      class="nn-strip"
      data-strip={id}
      data-small={small || undefined}
      width={TILES * (TILE + GAP) - GAP}
      height={TILE}
    />
  );
}

/** Paints every strip canvas under `root`. Each tile is stretched to its own range, so signs cannot be shown. */
export function paintStrips(root: ParentNode, strips: ReadonlyMap<string, Strip>, colormap: Colormap): void {
  const colours = table(colormap === "diverging" ? "viridis" : colormap);
  for (const canvas of root.querySelectorAll<HTMLCanvasElement>("canvas[data-strip]")) {
    const strip = strips.get(canvas.dataset.strip ?? "");
    if (strip) paint(canvas, strip, colours);
    canvas.toggleAttribute("data-drawn", strip !== undefined);
  }
}

let sheet: ImageData | null = null;

/** Memory for one strip at a time. */
function sheetOf(width: number, height: number): ImageData {
  if (sheet?.width !== width || sheet.height !== height) sheet = new ImageData(width, height);
  return sheet;
}

const painted = new WeakMap<HTMLCanvasElement, readonly [Strip, Uint32Array]>();

function paint(canvas: HTMLCanvasElement, strip: Strip, colours: Uint32Array): void {
  const known = painted.get(canvas);
  if (known && known[0] === strip && known[1] === colours) return;
  painted.set(canvas, [strip, colours]);
  const pen = canvas.getContext("2d");
  if (!pen) return;
  const { size, tiles } = strip;
  const count = Math.min(TILES, strip.channels.length);
  // All tiles at once: they are painted tens of times a second while somebody draws.
  const image = sheetOf(canvas.width, canvas.height);
  const words = new Uint32Array(image.data.buffer).fill(0);
  for (let at = 0; at < count; at++) {
    for (let row = 0; row < size; row++) {
      const from = (at * size + row) * size;
      const to = row * image.width + at * (size + GAP);
      for (let x = 0; x < size; x++) words[to + x] = colours[tiles[from + x] ?? 0] as number;
    }
  }
  pen.putImageData(image, 0, 0);
  // A vector is one row of numbers: its only tile is as wide as the strip.
  if (strip.kind === "vector" && count === 1) {
    pen.imageSmoothingEnabled = false;
    pen.drawImage(canvas, 0, 0, size, size, 0, 0, canvas.width, canvas.height);
  }
}

export function Thumb({ store }: { store: Store }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const input = store.input.value;
  const image = input?.kind === "image" ? input : null;
  useLayoutEffect(() => {
    const pen = canvas.current?.getContext("2d");
    if (!image || !canvas.current || !pen) return;
    const { width, height, rgb } = image;
    canvas.current.width = width;
    canvas.current.height = height;
    const pixels = new ImageData(width, height);
    for (let at = 0; at < width * height; at++) {
      pixels.data[4 * at] = rgb[3 * at] ?? 0;
      pixels.data[4 * at + 1] = rgb[3 * at + 1] ?? 0;
      pixels.data[4 * at + 2] = rgb[3 * at + 2] ?? 0;
      pixels.data[4 * at + 3] = 255;
    }
    pen.putImageData(pixels, 0, 0);
  }, [image]);
  return image ? <canvas ref={canvas} class="nn-thumb" /> : null;
}
