// Saliency bytes -> a see-through picture over the input: the hue says the sign, the opacity how much. Pure.

import { table } from "../maps/colormaps";
import type { Saliency } from "../state/data";
import type { Overlay } from "../state/view";

/** Faint gradients are many and matter together: opacity grows with the root of the magnitude. */
const GAMMA = 0.6;
const STRONGEST = 235;

/** Colour words, alpha included, for each byte of the signed or of the magnitude map. */
export function overlayTable(overlay: Exclude<Overlay, "off">): Uint32Array {
  const signed = overlay === "signed";
  const colours = table(signed ? "diverging" : "magma");
  return Uint32Array.from({ length: 256 }, (_, byte) => {
    const size = signed ? Math.abs(byte - 128) / 127 : byte / 255;
    const alpha = Math.round(STRONGEST * Math.min(1, size) ** GAMMA);
    // Pale colours near zero would wash the picture out; the hue is kept strong and the opacity tells the rest.
    const strong = 0.45 + 0.55 * Math.min(1, size);
    const place = signed
      ? 128 + Math.round(127 * strong * Math.sign(byte - 128))
      : Math.round(255 * (0.35 + 0.5 * size));
    const colour = colours[Math.min(255, Math.max(0, place))] as number;
    return ((colour & 0xffffff) | (alpha << 24)) >>> 0;
  });
}

/** Paints the cropped map at its place on the input; everything else stays transparent. */
export function overlayPicture(
  saliency: Saliency,
  overlay: Exclude<Overlay, "off">,
  height: number,
  width: number,
): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(height * width);
  const colours = overlayTable(overlay);
  const bytes = overlay === "signed" ? saliency.signed : saliency.magnitude;
  const [y0, x0, y1, x1] = saliency.box;
  for (let y = y0; y < Math.min(y1, height); y++) {
    const from = (y - y0) * (x1 - x0) - x0;
    for (let x = x0; x < Math.min(x1, width); x++) {
      words[y * width + x] = colours[bytes[from + x] as number] as number;
    }
  }
  return words;
}
