/**
 * Buffers of a message -> numbers. The mirror of `nnviz_widget/wire/arrays.py`.
 *
 * Constraints:
 * - A buffer may be an ArrayBuffer, a DataView or any other view, with a byte offset that is not a multiple of the
 *   number's size: then it is copied, otherwise looked at in place.
 * - Bytes on the wire are little-endian; on a big-endian machine they are swapped.
 * - What does not fit its description is an error here and not a picture of garbage later.
 */
import type { ArrayDescriptor, ArrayPart, DType, NdArray, NumberArray } from "./types";

/** What a transport may hand over as one buffer. */
export type WireBuffer = ArrayBuffer | ArrayBufferView;

const SIZE: Record<DType, number> = { u1: 1, i1: 1, i4: 4, f2: 2, f4: 4 };
const LITTLE = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

export class CodecError extends Error {}

/** An empty array of the kind that a dtype decodes to. */
export function allocate(dtype: DType, length: number): NumberArray {
  if (dtype === "u1") return new Uint8Array(length);
  if (dtype === "i1") return new Int8Array(length);
  if (dtype === "i4") return new Int32Array(length);
  return new Float32Array(length);
}

export function count(shape: readonly number[]): number {
  return shape.reduce((product, side) => product * side, 1);
}

/** One buffer as its description says; a view of the buffer's memory where alignment allows. */
export function decode(descriptor: ArrayDescriptor, buffer: WireBuffer | undefined): NdArray {
  const { name, dtype, shape } = descriptor;
  const size = SIZE[dtype];
  if (size === undefined) throw new CodecError(`array '${name}': unknown type '${dtype}'`);
  if (!Array.isArray(shape) || !shape.every((side) => Number.isSafeInteger(side) && side >= 0)) {
    throw new CodecError(`array '${name}': not a shape: ${JSON.stringify(shape)}`);
  }
  if (buffer === undefined) throw new CodecError(`array '${name}' came without its bytes`);
  const bytes = asBytes(buffer);
  const length = count(shape);
  if (bytes.byteLength !== length * size) {
    throw new CodecError(
      `array '${name}': ${bytes.byteLength} bytes for ${dtype} ${JSON.stringify(shape)}, expected ${length * size}`,
    );
  }
  return { data: read(dtype, bytes, length), shape };
}

/** One entry of a chunk; an array that is not split is a part that starts at 0 and is the total. */
export function decodePart(descriptor: ArrayDescriptor, buffer: WireBuffer | undefined): ArrayPart {
  const array = decode(descriptor, buffer);
  const rows = array.shape[0] ?? 1;
  const start = descriptor.start ?? 0;
  const total = descriptor.total ?? start + rows;
  if (start < 0 || start + rows > total) {
    throw new CodecError(`array '${descriptor.name}': rows ${start} to ${start + rows} of ${total}`);
  }
  return { ...array, start, total };
}

/** Puts the parts of a split array together as they arrive; an unsplit one passes through without a copy. */
export class Assembler {
  private readonly whole = new Map<string, { array: NdArray; rows: number; filled: number }>();

  add(name: string, dtype: DType, part: ArrayPart): void {
    const rows = part.shape[0] ?? 1;
    const held = this.whole.get(name);
    if (!held && part.start === 0 && rows === part.total) {
      this.whole.set(name, { array: { data: part.data, shape: part.shape }, rows, filled: rows });
      return;
    }
    const row = count(part.shape.slice(1));
    let target = held;
    if (!target) {
      const shape = [part.total, ...part.shape.slice(1)];
      target = { array: { data: allocate(dtype, part.total * row), shape }, rows: part.total, filled: 0 };
      this.whole.set(name, target);
    }
    if (target.rows !== part.total || count(target.array.shape.slice(1)) !== row) {
      throw new CodecError(`array '${name}' changed its shape between two chunks`);
    }
    target.array.data.set(part.data, part.start * row);
    target.filled += rows;
  }

  /** All arrays; throws when rows are missing. */
  finish(): Record<string, NdArray> {
    const arrays: Record<string, NdArray> = {};
    for (const [name, { array, rows, filled }] of this.whole) {
      if (filled < rows) throw new CodecError(`array '${name}' ended after ${filled} of ${rows} rows`);
      arrays[name] = array;
    }
    return arrays;
  }
}

function asBytes(buffer: WireBuffer): Uint8Array {
  return ArrayBuffer.isView(buffer)
    ? new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength)
    : new Uint8Array(buffer);
}

function read(dtype: DType, bytes: Uint8Array, length: number): NumberArray {
  if (dtype === "u1") return bytes;
  if (dtype === "i1") return new Int8Array(bytes.buffer, bytes.byteOffset, length);
  const size = SIZE[dtype];
  let { buffer, byteOffset } = bytes;
  if (byteOffset % size !== 0 || !LITTLE) {
    const copy = bytes.slice();
    if (!LITTLE) swap(copy, size);
    buffer = copy.buffer;
    byteOffset = 0;
  }
  if (dtype === "i4") return new Int32Array(buffer, byteOffset, length);
  if (dtype === "f4") return new Float32Array(buffer, byteOffset, length);
  return halves(new Uint16Array(buffer, byteOffset, length));
}

function swap(bytes: Uint8Array, size: number): void {
  for (let i = 0; i < bytes.length; i += size) bytes.subarray(i, i + size).reverse();
}

/** IEEE 754 half precision; browsers have no Float16Array that could be relied upon yet. */
function halves(bits: Uint16Array): Float32Array {
  const out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const h = bits[i] as number;
    const sign = h & 0x8000 ? -1 : 1;
    const exponent = (h >> 10) & 0x1f;
    const fraction = h & 0x3ff;
    if (exponent === 0) out[i] = sign * fraction * 2 ** -24;
    else if (exponent === 31) out[i] = fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    else out[i] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return out;
}
