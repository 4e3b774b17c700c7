// What painting does to a picture, as plain functions of bytes: strokes, boxes, and the adjustments on top of them.

/** Rows of pixels, three bytes each. */
export interface Picture {
  width: number;
  height: number;
  rgb: Uint8ClampedArray;
}

export type Colour = [red: number, green: number, blue: number];

/** What is done to the whole picture, in this order: move, turn and scale, then the rest. */
export interface Adjust {
  /** Pixels. */
  dx: number;
  dy: number;
  /** Degrees, clockwise. */
  turn: number;
  zoom: number;
  /** −1 (black) to 1 (white). */
  brightness: number;
  /** Standard deviation in pixels. */
  blur: number;
  /** Standard deviation as a share of the range. */
  noise: number;
}

export const UNCHANGED: Adjust = { dx: 0, dy: 0, turn: 0, zoom: 1, brightness: 0, blur: 0, noise: 0 };

export function copyOf({ width, height, rgb }: Picture): Picture {
  return { width, height, rgb: rgb.slice() };
}

/** Where a place of the adjusted picture lies in the picture under it. */
export function under(
  { dx, dy, turn, zoom }: Adjust,
  size: { width: number; height: number },
  x: number,
  y: number,
): [x: number, y: number] {
  const angle = (-turn * Math.PI) / 180;
  const [cx, cy] = [(size.width - 1) / 2, (size.height - 1) / 2];
  const [u, v] = [(x - dx - cx) / zoom, (y - dy - cy) / zoom];
  return [cx + u * Math.cos(angle) - v * Math.sin(angle), cy + u * Math.sin(angle) + v * Math.cos(angle)];
}

/** Draws a line with round ends; without a colour it brings back what `original` has there. */
export function stroke(
  picture: Picture,
  from: readonly [number, number],
  to: readonly [number, number],
  radius: number,
  ink: Colour | Picture,
): void {
  const { width, height, rgb } = picture;
  const [ax, ay] = from;
  const [bx, by] = [to[0] - ax, to[1] - ay];
  const length = bx * bx + by * by;
  const reach = radius + 1;
  const [y0, y1] = [Math.floor(Math.min(ay, to[1]) - reach), Math.ceil(Math.max(ay, to[1]) + reach)];
  const [x0, x1] = [Math.floor(Math.min(ax, to[0]) - reach), Math.ceil(Math.max(ax, to[0]) + reach)];
  for (let y = Math.max(0, y0); y <= Math.min(height - 1, y1); y++) {
    for (let x = Math.max(0, x0); x <= Math.min(width - 1, x1); x++) {
      const t = length > 0 ? Math.min(1, Math.max(0, ((x - ax) * bx + (y - ay) * by) / length)) : 0;
      const far = Math.hypot(x - ax - t * bx, y - ay - t * by);
      const cover = Math.min(1, Math.max(0, radius + 0.5 - far));
      if (cover > 0) mix(rgb, 3 * (y * width + x), ink, cover);
    }
  }
}

/** Covers a box, half-open, in pixels. */
export function cover(
  picture: Picture,
  [y0, x0, y1, x1]: readonly [number, number, number, number],
  colour: Colour,
): void {
  const { width, height, rgb } = picture;
  for (let y = Math.max(0, y0); y < Math.min(height, y1); y++)
    for (let x = Math.max(0, x0); x < Math.min(width, x1); x++) mix(rgb, 3 * (y * width + x), colour, 1);
}

function mix(rgb: Uint8ClampedArray, at: number, ink: Colour | Picture, part: number): void {
  const [colour, from] = Array.isArray(ink) ? [ink, 0] : [ink.rgb, at];
  for (let c = 0; c < 3; c++) {
    const now = rgb[at + c] as number;
    rgb[at + c] = now + part * ((colour[from + c] as number) - now);
  }
}

/** The picture as it is sent: moved, brightened, blurred, with noise. Unchanged it is the same bytes. */
export function adjusted(picture: Picture, adjust: Adjust): Uint8ClampedArray {
  let rgb = moved(picture, adjust);
  const { width, height } = picture;
  if (adjust.blur > 0) rgb = blurred({ width, height, rgb }, adjust.blur);
  if (adjust.brightness !== 0) {
    const { brightness } = adjust;
    rgb = rgb.map((value) =>
      brightness > 0 ? value + brightness * (255 - value) : value * (1 + brightness),
    );
  }
  return adjust.noise > 0 ? noisy(rgb, adjust.noise) : rgb;
}

function moved(picture: Picture, adjust: Adjust): Uint8ClampedArray {
  const { width, height, rgb } = picture;
  if (adjust.dx === 0 && adjust.dy === 0 && adjust.turn === 0 && adjust.zoom === 1) return rgb.slice();
  const ground = border(picture);
  const result = new Uint8ClampedArray(rgb.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [u, v] = under(adjust, picture, x, y);
      sample(picture, u, v, ground, result, 3 * (y * width + x));
    }
  }
  return result;
}

/** Bilinear; what lies outside is the ground. */
function sample(
  { width, height, rgb }: Picture,
  u: number,
  v: number,
  ground: Colour,
  into: Uint8ClampedArray,
  at: number,
): void {
  const [x, y] = [Math.floor(u), Math.floor(v)];
  const [fx, fy] = [u - x, v - y];
  for (let c = 0; c < 3; c++) {
    const value = (i: number, j: number) =>
      i >= 0 && i < width && j >= 0 && j < height
        ? (rgb[3 * (j * width + i) + c] as number)
        : (ground[c] as number);
    const top = value(x, y) * (1 - fx) + value(x + 1, y) * fx;
    const bottom = value(x, y + 1) * (1 - fx) + value(x + 1, y + 1) * fx;
    into[at + c] = top * (1 - fy) + bottom * fy;
  }
}

/** The mean colour along the border: what a moved picture leaves behind. */
export function border({ width, height, rgb }: Picture): Colour {
  const sum: Colour = [0, 0, 0];
  let count = 0;
  for (let y = 0; y < height; y++) {
    const step = y === 0 || y === height - 1 ? 1 : Math.max(1, width - 1);
    for (let x = 0; x < width; x += step) {
      for (let c = 0; c < 3; c++) sum[c] = (sum[c] as number) + (rgb[3 * (y * width + x) + c] as number);
      count += 1;
    }
  }
  return sum.map((total) => Math.round(total / Math.max(1, count))) as Colour;
}

function blurred({ width, height, rgb }: Picture, sigma: number): Uint8ClampedArray {
  const reach = Math.ceil(3 * sigma);
  const weights = Array.from({ length: 2 * reach + 1 }, (_, i) =>
    Math.exp(-(((i - reach) / sigma) ** 2) / 2),
  );
  const total = weights.reduce((a, b) => a + b, 0);
  const along = (from: Uint8ClampedArray | Float32Array, dx: number, dy: number) => {
    const to = new Float32Array(rgb.length);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        for (let i = -reach; i <= reach; i++) {
          const u = Math.min(width - 1, Math.max(0, x + dx * i));
          const v = Math.min(height - 1, Math.max(0, y + dy * i));
          const weight = (weights[i + reach] as number) / total;
          for (let c = 0; c < 3; c++) {
            const at = 3 * (y * width + x) + c;
            to[at] = (to[at] as number) + weight * (from[3 * (v * width + u) + c] as number);
          }
        }
      }
    }
    return to;
  };
  return Uint8ClampedArray.from(along(along(rgb, 1, 0), 0, 1));
}

/** The same noise each time, so that a picture at rest stays at rest; the same in all colours. */
function noisy(rgb: Uint8ClampedArray, amount: number): Uint8ClampedArray {
  let state = 0x9e3779b9;
  const random = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const result = new Uint8ClampedArray(rgb.length);
  for (let at = 0; at < rgb.length; at += 3) {
    const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    for (let c = 0; c < 3; c++) result[at + c] = (rgb[at + c] as number) + 255 * amount * normal;
  }
  return result;
}
