// Bytes and a table of colours -> pixels, one pass. Enlarging repeats pixels (never smooths); reducing averages the
// bytes under a pixel before colouring, so that a thin line does not vanish between two samples.
// Pure on typed arrays; `ImageData` is made by the caller.

export interface Target {
  /** Colour words, `stride` of them per row. */
  words: Uint32Array;
  stride: number;
  rows: number;
}

export interface Source {
  bytes: Uint8Array;
  /** First byte of the map. */
  start: number;
  height: number;
  width: number;
}

export interface Place {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** Draws one map into a rectangle of the target; what lies outside the target is left out. */
export function paintTile(target: Target, source: Source, place: Place, colours: Uint32Array): void {
  const right = Math.min(place.x + place.width, target.stride);
  const bottom = Math.min(place.y + place.height, target.rows);
  if (right <= place.x || bottom <= 0) return;
  if (place.width >= source.width && place.height >= source.height) {
    enlarge(target, source, place, right, bottom, colours);
  } else {
    reduce(target, source, place, right, bottom, colours);
  }
}

function enlarge(
  { words, stride }: Target,
  { bytes, start, height, width }: Source,
  place: Place,
  right: number,
  bottom: number,
  colours: Uint32Array,
): void {
  const columns = edges(place.width, width);
  let drawn = -1;
  for (let y = Math.max(0, place.y); y < bottom; y++) {
    const row = Math.floor(((y - place.y) * height) / place.height);
    const at = y * stride;
    if (row === drawn) {
      const above = at - stride;
      words.copyWithin(at + place.x, above + place.x, above + right);
      continue;
    }
    drawn = row;
    const from = start + row * width;
    for (let x = place.x; x < right; x++) {
      words[at + x] = colours[bytes[from + (columns[x - place.x] as number)] as number] as number;
    }
  }
}

function reduce(
  { words, stride }: Target,
  { bytes, start, height, width }: Source,
  place: Place,
  right: number,
  bottom: number,
  colours: Uint32Array,
): void {
  if (2 * place.width === width && 2 * place.height === height) {
    // The commonest case, several times faster: four bytes to a pixel, none shared.
    for (let y = Math.max(0, place.y); y < bottom; y++) {
      let from = start + 2 * (y - place.y) * width;
      const end = y * stride + right;
      for (let to = y * stride + place.x; to < end; to++, from += 2) {
        const above = (bytes[from] as number) + (bytes[from + 1] as number);
        const below = (bytes[from + width] as number) + (bytes[from + width + 1] as number);
        words[to] = colours[(above + below + 2) >> 2] as number;
      }
    }
    return;
  }
  const columns = edges(place.width, width);
  const rows = edges(place.height, height);
  for (let y = Math.max(0, place.y); y < bottom; y++) {
    const top = rows[y - place.y] as number;
    const low = Math.max(rows[y - place.y + 1] as number, top + 1);
    const at = y * stride;
    for (let x = place.x; x < right; x++) {
      const left = columns[x - place.x] as number;
      const end = Math.max(columns[x - place.x + 1] as number, left + 1);
      let sum = 0;
      for (let r = top; r < low; r++) {
        const line = start + r * width;
        for (let c = left; c < end; c++) sum += bytes[line + c] as number;
      }
      const area = (low - top) * (end - left);
      words[at + x] = colours[Math.floor(sum / area + 0.5)] as number;
    }
  }
}

/** Where each of `out` pixels begins among `cells`, and the end. */
function edges(out: number, cells: number): Int32Array {
  const starts = new Int32Array(out + 1);
  for (let i = 0; i <= out; i++) starts[i] = Math.floor((i * cells) / out);
  return starts;
}

// One canvas is painted at a time, so all of them share the memory: made anew for each, it would keep the collector busy.
let memory = new ArrayBuffer(0);

/** The pixels of a canvas while it is painted, as words. */
export class Surface {
  private image: ImageData | null = null;

  /** Fits the canvas and returns cleared memory to paint into, until `close`. */
  open(canvas: HTMLCanvasElement, width: number, height: number): Target {
    const w = Math.max(1, width);
    const h = Math.max(1, height);
    if (canvas.width !== w || canvas.height !== h) {
      canvas.width = w;
      canvas.height = h;
    }
    if (memory.byteLength < 4 * w * h) memory = new ArrayBuffer(4 * w * h);
    const bytes = new Uint8ClampedArray(memory, 0, 4 * w * h).fill(0);
    this.image = new ImageData(bytes, w, h);
    return { words: new Uint32Array(memory, 0, w * h), stride: w, rows: h };
  }

  /** Puts what was painted on the canvas. */
  close(canvas: HTMLCanvasElement): void {
    const context = canvas.getContext("2d");
    if (context && this.image) context.putImageData(this.image, 0, 0);
    this.image = null;
  }
}
