// Probabilities from logits that are here already.

/** Softmax at a temperature: above 1 flatter, below 1 sharper. What is probabilities already is taken as such. */
export function softmax(logits: Float32Array, temperature: number, probabilities: boolean): Float32Array {
  const values = probabilities ? logits.map((p) => Math.log(Math.max(p, 1e-38))) : logits;
  let top = Number.NEGATIVE_INFINITY;
  for (const value of values) if (value > top) top = value;
  const powers = values.map((value) => Math.exp((value - top) / temperature));
  let sum = 0;
  for (const power of powers) sum += power;
  return powers.map((power) => power / sum);
}

/** The `k` largest, in order; what is no number comes last. */
export function largest(values: Float32Array, k: number): number[] {
  const rank = (i: number) => (Number.isNaN(values[i]) ? Number.NEGATIVE_INFINITY : (values[i] as number));
  return Array.from(values.keys())
    .sort((a, b) => rank(b) - rank(a))
    .slice(0, k);
}

/** How undecided, in bits. */
export function entropy(probabilities: Float32Array): number {
  let bits = 0;
  for (const p of probabilities) if (p > 0) bits -= p * Math.log2(p);
  return bits;
}
