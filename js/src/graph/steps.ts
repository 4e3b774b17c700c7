// Which members of a level are the same thing done again: a cell called once for each time step, a block called
// several times in a row, a loop of operations. Such a run is read from what the steps are (the same module, the same
// operation with the same shapes) and from how they hang together: each as the one before it.

import type { Item } from "./hierarchy";
import type { Reading } from "./reading";

/** `steps[k]` holds the members of step k; `before` are constants that were made between them for all of them. */
export interface Repeat {
  start: number;
  end: number;
  before: Item[];
  steps: Item[][];
}

const STEPS_FROM = 3;
/** Steps that do not feed each other stand side by side while they are few: the towers of a triplet. */
const SIDE_BY_SIDE_FROM = 4;
const STEP_MAX = 48;
/** Candidates that are looked at in one step. */
const TRIED_MAX = 200;
/** A loop without weights of its own is only one if it is short and long enough at once. */
const PLAIN = { from: 4, least: 2, most: 12 };

interface Candidate {
  at: number;
  period: number;
  count: number;
}

/** In several steps: a level may have 10,000 members. */
export function* repeatsIn(members: readonly Item[], reading: Reading): Generator<void, Repeat[]> {
  const named = nameAll(members, reading);
  if (!named) return [];
  yield;
  const level = new Wiring(members, reading);
  yield;
  const keys = level.order.map((at) => named[at] as number);
  const taken = new Uint8Array(members.length);
  const found: Repeat[] = [];
  let tried = 0;
  for (const candidate of candidates(keys)) {
    const repeat = repeatAt(candidate, members, level, taken);
    if (repeat) found.push(repeat);
    if (repeat || ++tried % TRIED_MAX === 0) yield;
  }
  return found.sort((a, b) => a.start - b.start);
}

/** The steps of a candidate, which are taken then; null where they hang together in another way. */
function repeatAt(
  candidate: Candidate,
  members: readonly Item[],
  level: Wiring,
  taken: Uint8Array,
): Repeat | null {
  const { at, period, count } = candidate;
  const span = level.order.subarray(at, at + period * count);
  if (span.some((member) => taken[member] === 1) || !level.repeats(candidate)) return null;
  const [start, end] = [span[0] as number, (span[span.length - 1] as number) + 1];
  taken.fill(1, start, end);
  const steps: Item[][] = [];
  for (let first = 0; first < span.length; first += period) {
    const step: Item[] = [];
    for (let next = first; next < first + period; next++) step.push(members[span[next] as number] as Item);
    steps.push(step);
  }
  const before = [...level.lifted].filter((member) => member > start && member < end);
  return { start, end, steps, before: before.map((member) => members[member] as Item) };
}

/** The same number for the same thing again, -1 for what is there once; null where that is all. */
function nameAll(members: readonly Item[], reading: Reading): number[] | null {
  const short = members.map(shortly);
  const counts = new Map<string, number>();
  for (const word of short) counts.set(word, (counts.get(word) ?? 0) + 1);
  if (Math.max(...counts.values()) < STEPS_FROM) return null;
  const words = new Map<string | number, number>();
  return members.map((member, at) => {
    const word = short[at] as string;
    if (word === "" || counts.get(word) === 1) return -1;
    const whole = sameAgain(member.id, reading);
    const known = words.get(whole) ?? words.size;
    words.set(whole, known);
    return known;
  });
}

function shortly({ node, group }: Item): string {
  if (node?.kind === "module") return node.path;
  if (node) return node.kind === "op" ? node.op : "";
  return group?.path ?? "";
}

function sameAgain(id: string, reading: Reading): string | number {
  const node = reading.indexOf(id);
  if (node !== undefined) return reading.alike()[node] as number;
  const children = reading.childrenOf(id).map((child) => sameAgain(child, reading));
  return `${reading.groupOf(id)?.path}(${children.join(";")})`;
}

/** Where a sequence repeats itself, what covers most first; of equals the shortest period. */
function candidates(keys: Int32Array): Candidate[] {
  const out: Candidate[] = [];
  for (let period = 1; period <= STEP_MAX && period * STEPS_FROM <= keys.length; period++) {
    let at = 0;
    while (at + period < keys.length) {
      let matched = 0;
      while (keys[at + matched] === keys[at + matched + period] && keys[at + matched] !== -1) matched++;
      const count = Math.floor(matched / period) + 1;
      // A run that does not end with a whole step may as well begin later.
      const spare = matched % period;
      if (count >= STEPS_FROM)
        for (let late = 0; late <= spare; late++) out.push({ at: at + late, period, count });
      at += matched + 1;
    }
  }
  return out.sort((a, b) => b.count * b.period - a.count * a.period || a.period - b.period || a.at - b.at);
}

/** Who reads whom on one level. */
class Wiring {
  /** Constants that several members read: they belong to none of the steps. */
  readonly lifted = new Set<number>();
  /** All others, and where among them each member is; -1 for those that are not. */
  readonly order: Int32Array;
  private readonly rank: Int32Array;
  private readonly reads: number[][];

  constructor(
    private readonly members: readonly Item[],
    { order, place, source, incoming }: Reading,
  ) {
    const home = new Int32Array(order.length).fill(-1);
    members.forEach(({ spans }, at) => {
      for (const [from, to] of spans) home.fill(at, from, to);
    });
    const readers = new Int32Array(members.length);
    this.reads = members.map(({ spans }, at) => {
      const reads: number[] = [];
      for (const [first, end] of spans)
        for (let p = first; p < end; p++)
          for (const raw of incoming(order[p] as number)) {
            const from = home[place[source[raw] as number] as number] ?? -1;
            if (from >= 0 && from !== at && !reads.includes(from)) reads.push(from);
          }
      for (const from of reads) readers[from] = (readers[from] as number) + 1;
      return reads;
    });
    members.forEach((member, at) => {
      if (member.node?.kind === "constant" && (readers[at] as number) > 1) this.lifted.add(at);
    });
    this.order = Int32Array.from(members.keys()).filter((at) => !this.lifted.has(at));
    this.rank = new Int32Array(members.length).fill(-1);
    this.order.forEach((member, at) => {
      this.rank[member] = at;
    });
  }

  /** Whether each step is wired as the one before it, and there is a reason to take them for steps. */
  repeats({ at: start, period, count }: Candidate): boolean {
    let feeding = false;
    let [before, here]: [number[], number[]] = [[], []];
    for (let place = 0; place < period; place++) {
      for (let step = 0; step < count; step++) {
        // What a member reads of its own step and, below zero, of the one before.
        const first = start + step * period;
        here.length = 0;
        for (const from of this.reads[this.order[first + place] as number] as number[]) {
          const there = (this.rank[from] as number) - first;
          if (there >= period || there < (step > 0 ? -period : 0)) continue;
          here.push(there);
        }
        if (here.length > 1) here.sort(ascending);
        if (step > 0 && !wiredAlike(before, here, step === 1)) return false;
        if (step === 1 && (here[0] ?? 0) < 0) feeding = true;
        [before, here] = [here, before];
      }
    }
    if (this.weighs(this.order.subarray(start, start + period)))
      return count >= (feeding ? STEPS_FROM : SIDE_BY_SIDE_FROM);
    return feeding && count >= PLAIN.from && period >= PLAIN.least && period <= PLAIN.most;
  }

  /** Modules come with weights; so do operations that read a parameter. */
  private weighs(step: Int32Array): boolean {
    return step.some((at) => {
      const { node } = this.members[at] as Item;
      if (!node || node.kind === "module") return true;
      return (this.reads[at] as number[]).some(
        (from) => this.lifted.has(from) && this.members[from]?.node?.op === "parameter",
      );
    });
  }
}

const ascending = (a: number, b: number) => a - b;

/** Whether two members read the same places; of the second step, only what it reads of itself. */
function wiredAlike(before: readonly number[], here: readonly number[], second: boolean): boolean {
  const from = second ? here.filter((there) => there < 0).length : 0;
  if (here.length - from !== before.length) return false;
  for (let at = from; at < here.length; at++) if (here[at] !== before[at - from]) return false;
  return true;
}
