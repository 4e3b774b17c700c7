// Maps of raw numbers -> pixels: how far the colours reach, and the overlay on a gray input. Pure.

import { overlayTable } from "../panels/saliencyPicture";
import type { Sign } from "./explaining";

export interface FloatMap {
  height: number;
  width: number;
  values: Float32Array;
}

/** The magnitude below which `percent` of all magnitudes lie; the colours span from it to its negative. */
export function reachOf(map: FloatMap, percent: number): number {
  const sizes = map.values.map(Math.abs).filter(Number.isFinite).sort();
  if (sizes.length === 0) return 0;
  const at = Math.min(sizes.length - 1, Math.ceil((percent / 100) * sizes.length) - 1);
  const reach = sizes[Math.max(0, at)] as number;
  // Where nearly everything is zero, the little that is not is what there is to see.
  return reach > 0 ? reach : (sizes[sizes.length - 1] as number);
}

/** The entry of the overlay's colour table for a value. */
export function byteOf(value: number, reach: number, sign: Sign): number {
  if (!(reach > 0) || !Number.isFinite(value)) return sign === "signed" ? 128 : 0;
  const share = Math.max(-1, Math.min(1, value / reach));
  return sign === "signed" ? 128 + Math.round(127 * share) : Math.round(255 * Math.abs(share));
}

/** Colour words of the map, `height` by `width`, see-through where it is near zero. */
export function overlayWords(
  map: FloatMap,
  height: number,
  width: number,
  { reach, sign, opacity }: { reach: number; sign: Sign; opacity: number },
): Uint32Array<ArrayBuffer> {
  const colours = overlayTable(sign === "signed" ? "signed" : "magnitude").map((word) => {
    const alpha = Math.round((word >>> 24) * opacity);
    return ((word & 0xffffff) | (alpha << 24)) >>> 0;
  });
  const words = new Uint32Array(height * width);
  for (let y = 0; y < height; y++) {
    const row = Math.floor((y * map.height) / height) * map.width;
    for (let x = 0; x < width; x++) {
      const value = map.values[row + Math.floor((x * map.width) / width)] as number;
      words[y * width + x] = colours[byteOf(value, reach, sign)] as number;
    }
  }
  return words;
}

/** The value of a map at a place of the input that it lies on. */
export function valueAt(
  map: FloatMap,
  place: { y: number; x: number },
  height: number,
  width: number,
): number {
  const y = Math.min(map.height - 1, Math.floor((place.y * map.height) / height));
  const x = Math.min(map.width - 1, Math.floor((place.x * map.width) / width));
  return map.values[y * map.width + x] as number;
}

/** Luminance of an input, `[0, 255]`: colours are left to the map. */
export function grayOf(rgb: Uint8Array): Uint8ClampedArray<ArrayBuffer> {
  const words = new Uint8ClampedArray((rgb.length / 3) * 4);
  for (let i = 0, j = 0; i < rgb.length; i += 3, j += 4) {
    const light =
      0.299 * (rgb[i] as number) + 0.587 * (rgb[i + 1] as number) + 0.114 * (rgb[i + 2] as number);
    // Pale, so that both blue and red stand out on it.
    words[j] = words[j + 1] = words[j + 2] = 70 + 0.68 * light;
    words[j + 3] = 255;
  }
  return words;
}
