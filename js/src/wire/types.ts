/**
 * The words of the wire, as the page sees them: messages, array descriptors and the one table of operations.
 *
 * Constraints that shape them:
 * - JSON content with binary buffers beside it, one buffer per entry of `arrays`; little-endian numbers.
 * - The correlation field is `rid`, never `id`: some kernels keep every `id` they ever sent.
 * - Exactly one terminal per `rid`: the chunk with `last: true`, an `error` or a `cancelled`.
 * - Replies are broadcast to every open page, so a `rid` that is not ours is simply ignored.
 *
 * No behaviour lives here. The kernel's side is `nnviz_widget/wire/messages.py`; the fixtures in
 * `tests/fixtures/wire` are read by the tests of both.
 */

export const PROTOCOL = 1;

// ---------------------------------------------------------------------------------------------------- arrays

export type DType = "u1" | "i1" | "i4" | "f2" | "f4";

/** One array, or its rows `[start, start + shape[0])` out of `total` when it is split over several chunks. */
export interface ArrayDescriptor {
  name: string;
  dtype: DType;
  shape: number[];
  start?: number;
  total?: number;
}

export type NumberArray = Uint8Array | Int8Array | Int32Array | Float32Array;

/** A whole array in row-major order. `f2` arrives as Float32Array. */
export interface NdArray<T extends NumberArray = NumberArray> {
  data: T;
  shape: number[];
}

/** The rows of an array that one chunk carried: `data` holds rows `start .. start + shape[0]` of `total`. */
export interface ArrayPart<T extends NumberArray = NumberArray> extends NdArray<T> {
  start: number;
  total: number;
}

// -------------------------------------------------------------------------------------------------- messages

export type ErrorCode =
  | "bad_request"
  | "unsupported"
  | "stale_epoch"
  | "cancelled"
  | "model_error"
  | "out_of_memory"
  | "shape_unsupported"
  | "busy"
  | "internal";

export type PageMessage =
  | { v: number; t: "req"; rid: string; view: string; slot: string; op: string; p: unknown }
  | { t: "cancel"; rid: string }
  /** `again` asks for everything after `seq` once more: a message was lost on the way. */
  | { t: "ack"; rid: string; seq: number; again?: boolean }
  /** Also a question: the kernel answers with the requests that it still works on. */
  | { t: "hello"; v: number; view: string }
  | { t: "visible"; view: string; visible: boolean };

export interface ChunkMessage {
  t: "chunk";
  rid: string;
  seq: number;
  last: boolean;
  epoch: number;
  meta?: Record<string, unknown>;
  arrays: ArrayDescriptor[];
}

export interface ProgressMessage {
  t: "progress";
  rid: string;
  done: number;
  total: number;
  note?: string;
}

export interface ErrorMessage {
  t: "error";
  rid: string;
  code: ErrorCode;
  message: string;
  hint?: string;
  detail?: Record<string, unknown>;
}

/** The kernel asks for the drawing; the answer is the operation "drawing" with the same `ask`. */
export interface DrawMessage {
  t: "draw";
  ask: string;
  format: "svg" | "png";
  part: "whole" | "shown";
}

export type KernelMessage =
  | DrawMessage
  | ChunkMessage
  | ProgressMessage
  | ErrorMessage
  | { t: "cancelled"; rid: string }
  /** The kernel's answer to `hello`: its protocol and the `rid`s that are still open there. */
  | { t: "hello"; v: number; view: string; open: string[] };

// ------------------------------------------------------------------------------------------------ operations

/** What a picture of an activation is: a stack of maps, tokens by features, or one row of numbers. */
export type TileKind = "maps" | "tokens" | "vector";

/** Half-open box in input pixels. */
export type Box = [y0: number, x0: number, y1: number, x1: number];

/** Index of one number of one sample's activation: `[c, y, x]` or `[i]`. */
export type Unit = number[];

export interface ClassScore {
  index: number;
  name: string;
  prob: number;
  logit: number;
  true?: boolean;
}

export interface Predictions {
  /** Sorted by probability; empty unless the task is a classification. */
  classes: ClassScore[];
  task: "classification" | "other";
  /** The target of this sample where it is known. */
  true?: { index: number; name: string; prob: number };
  /** Shapes of the outputs when the task is "other". */
  shapes?: string[];
}

/** A grid of image patches beside `skip` extra tokens, in a sequence of tokens. */
/** How much of the model ran for variants of a run: a share of its arithmetic, and all there is to tell of it. */
export interface Recomputed {
  share: number;
  told: string;
}

export interface TokenGrid {
  rows: number;
  cols: number;
  skip: number;
}

/** What says how far to trust an attribution. */
export interface Metric {
  name: string;
  description: string;
  better: "higher" | "lower" | "";
  values: string;
}

export interface Table {
  /** Named as in the question; two that know nothing of the model are controls. */
  rows: { name: string; control: boolean; values: Record<string, number | null> }[];
  curves: Record<string, Record<string, { x: number[]; y: number[] }>>;
  notes: string[];
  progress: number;
  recomputed?: Recomputed | null;
}

/** A method of attribution. */
export interface Method {
  name: string;
  description: string;
  cost: string;
  family: string;
  paper: string;
  options: Record<string, string | number | boolean | null>;
}

export type Each = "layer" | "position" | "channel" | "head";

/** A change of what a layer gives; of the parts at most one is there. */
export interface Intervention {
  layer: string;
  kind: "ablate" | "scale" | "clamp" | "replace" | "patch";
  on: boolean;
  channel?: number | null;
  unit?: Unit | null;
  head?: number | null;
  /** Of "ablate" how, of "replace" by what. */
  value?: number | "zero" | "mean";
  factor?: number;
  low?: number | null;
  high?: number | null;
  /** The sample that a patch comes from. */
  source?: number;
}

/** The interventions of a page that a question is about; without them, the network as it is. */
interface Under {
  changed?: Intervention[];
}

/** A class without and with interventions. */
export interface Compared {
  index: number;
  name: string;
  before: number;
  after: number | null;
  logit_before: number;
  logit_after: number | null;
}

/** What is compared with: a sample, what Python set beside it (null), or the network without interventions. */
export type Beside = number | null | "plain";

/** A class in two runs. */
export interface ComparedClass {
  index: number;
  name: string;
  a: number;
  b: number;
  logit_a: number;
  logit_b: number;
}

/** A number that another one was made of. */
export interface Operand {
  name: string;
  value: number;
  node: string;
  index: number[];
}

/** How a number came about, in words and numbers. */
export interface Apart {
  node: string;
  op: string;
  /** The node whose operation made it. */
  at: string;
  kind: string;
  unit: Unit;
  formula: string;
  note: string;
  result: number | null;
  actual: number | null;
  /** None where the number was changed. */
  error: number | null;
  /** The interventions that changed this very number, as Python: `result` is what the layer itself gave. */
  changed_by: string[];
  numbers: [string, number | null][];
  operands: Operand[];
  /** The node whose maps the window lies on; empty where there are none. */
  source: string;
  first: number;
  channel_count?: number;
  /** Sum of the channels that were not sent. */
  rest?: number;
  /** Of a softmax, which of them. */
  place?: number;
  head?: number;
  key_count?: number;
}

/** Windows `[C, h, w]`; lists by key, head or gate. */
export interface ApartArrays {
  patch?: Float32Array;
  kernel?: Float32Array;
  products?: Float32Array;
  channels?: Int32Array;
  partial?: Float32Array;
  inside?: Uint8Array;
  places?: Int32Array;
  counts?: Int32Array;
  edges?: Float32Array;
  logits?: Float32Array;
  exps?: Float32Array;
  shares?: Float32Array;
  row?: Float32Array;
  gates?: Float32Array;
  query?: Float32Array;
  keys?: Float32Array;
  scores?: Float32Array;
  weights?: Float32Array;
  values?: Float32Array;
  heads?: Float32Array;
}

export interface WeightChange {
  layer: string;
  name: string;
  index: number[];
  value: number;
}

/** The weights of a layer in numbers. */
export interface Learned {
  layer: string;
  type: string;
  name: string;
  names: string[];
  shape: number[];
  kernel_shape: number[] | null;
  mean: number | null;
  std: number | null;
  low: number | null;
  high: number | null;
  zeros: number;
  dead: number[];
  duplicates: [number, number, number][];
  notes: string[];
  changes: WeightChange[];
  picture: "tiles" | "matrix";
  filter?: number;
  colours?: boolean;
  row?: number;
  column?: number;
}

// biome-ignore lint/complexity/noBannedTypes: an operation without arrays has the empty object
type None = {};

/** Operation -> its parameters, its arrays and its meta. `node` is the id of a node or of a group. */
export interface Operations {
  /** Thumbnails `[N, h, w, 3]` of the first samples of the batch. */
  inputs: {
    params: { size: number };
    arrays: { thumbs: Uint8Array };
    meta: { count: number; shown: number };
  };
  /** One sample as it is looked at, `[H, W, 3]`. */
  input: {
    params: { sample: number };
    arrays: { rgb: Uint8Array };
    meta: { shape: number[]; kind: "image" | "vector" | "other" };
  };
  /** Traces a sample and makes it the current one; the kernel also sets its traits. */
  run: {
    params: { sample: number };
    arrays: None;
    meta: { sample: number; ms: number; epoch: number; predictions: Predictions; graph_changed: boolean };
  };
  /** Ends the trace that is under way. */
  stop: { params: Record<string, never>; arrays: None; meta: None };
  /** The strongest maps of many nodes, `[total, size, size]`, each tile stretched to its own range. */
  strips: {
    params: Under & { nodes: string[]; sample: number; count: number; size: number };
    arrays: { tiles: Uint8Array };
    meta: { strips: { node: string; kind: TileKind; start: number; channels: number[] }[] };
  };
  /** All channels: tiles `[C, h, w]`; value = low + byte / 255 * (high - low), per channel. */
  maps: {
    params: Under & { node: string; sample: number; max_side: number };
    arrays: { tiles: Uint8Array; low: Float32Array; high: Float32Array; strength: Float32Array };
    meta: {
      node: string;
      kind: TileKind;
      /** `[C, H, W]` of the activation itself, before it was reduced to tiles. */
      shape: [number, number, number];
      grid?: TokenGrid;
      /** Tile pixels per activation value along a side (1 where nothing was reduced). */
      scale: number;
      /** Channels with NaN or infinite values, and how many. */
      bad: { channel: number; count: number }[];
      ms: number;
    };
  };
  /** Raw floats `[H, W]` of one map. */
  values: {
    params: Under & { node: string; sample: number; channel: number; of?: "influence" };
    arrays: { values: Float32Array };
    meta: { node: string; channel: number };
  };
  /** Histogram and moments of a layer, or of one channel of it. */
  stats: {
    params: Under & { node: string; sample: number; channel?: number | null };
    arrays: { counts: Int32Array; edges: Float32Array };
    meta: {
      mean: number | null;
      std: number | null;
      min: number | null;
      max: number | null;
      /** Fraction of exact zeros. */
      zeros: number;
      nan: number;
      inf: number;
      numel: number;
    };
  };
  /** One number for every node and then every group, in the order of the graph; NaN where there is nothing to tell. */
  measure: {
    params: Under & { by: "params" | "flops" | "bytes" | "time" | "mean" | "dead"; sample: number };
    arrays: { values: Float32Array };
    meta: { by: string };
  };
  /** d unit / d input, both maps `[h, w]` cropped to `box`; zero outside of it. */
  saliency: {
    params: Under & { node: string; sample: number; unit: Unit };
    arrays: { signed: Uint8Array; magnitude: Uint8Array };
    meta: {
      node: string;
      unit: Unit;
      /** The value of the unit itself. */
      value: number;
      /** Largest absolute value of the signed map: byte 1 is -scale, 128 is zero, 255 is +scale. */
      scale: number;
      /** Largest magnitude: byte 255. */
      magnitude_scale: number;
      /** Where the cropped maps lie on the input. */
      box: Box;
      /** The structural receptive field; `exact` is false where only a bound is known. */
      field: { box: Box; exact: boolean };
      ms: number;
      sample: number;
    };
  };
  /** One input pixel: raw values per channel, and the last saliency there. */
  pixel: {
    params: { sample: number; y: number; x: number };
    arrays: None;
    meta: {
      values: number[];
      display: [number, number, number] | null;
      saliency: number[] | null;
      unit: Unit | null;
    };
  };
  /** A page that is not needed at first, as the text of a module and of a style sheet. */
  page: { params: { name: string }; arrays: { js: Uint8Array; css: Uint8Array }; meta: None };
  /** Every method of attribution. */
  methods: { params: Record<string, never>; arrays: None; meta: { methods: Method[] } };
  /** One sample's attribution, part by part as it sharpens: sums over channels `[H, W]`, of values and magnitudes. */
  attribute: {
    params: Under & {
      /** The page's name for it, under which the kernel keeps it. */
      key: string;
      method: string;
      sample: number;
      target: number | null;
      options: Record<string, string | number | boolean>;
    };
    arrays: { signed: Float32Array; magnitude: Float32Array };
    meta: {
      method: string;
      target: number | null;
      /** Of a language model, the token after which the target comes. */
      token?: number | null;
      progress: number;
      seconds: number;
      left: number;
      forward: number;
      backward: number;
      recomputed?: Recomputed | null;
      cautions: string[];
      call: string;
      consistent: boolean;
      /** Completeness error, and the change of the score that the values should add up to. */
      delta?: number;
      change?: number;
      /** Mean standard error, as a share of the largest value. */
      stderr?: number | null;
      /** How far it moved since the part before, where neither of these tells; a share of the largest value. */
      moved?: number;
    };
  };
  /** What a sample is compared with, as it is looked at, and the range of the sample's own values. */
  baseline: {
    params: { sample: number; baselines: string | number };
    arrays: { rgb: Uint8Array };
    meta: { low: number; high: number };
  };
  /** Every metric that needs no knowledge of where the object is. */
  metrics: { params: Record<string, never>; arrays: None; meta: { metrics: Metric[] } };
  /** A table that says how far to trust what the kernel keeps, as it fills up. */
  judge: { params: Under & { keys: string[]; metrics: string[] }; arrays: None; meta: Table };
  /** Attributions that the kernel keeps, as one file. */
  attribution_file: {
    params: Under & { kind: "npz" | "png" | "svg"; keys: string[] };
    arrays: { data: Uint8Array };
    meta: { kind: string };
  };
  /** Runs a painted picture (one buffer, `[H, W, 3]` bytes) and answers with what is in sight. */
  paint: {
    params: Under & {
      /** The sample that was painted on. */
      base: number;
      nodes: { node: string; channels: number[] }[];
      layer: string | null;
      max_side: number;
    };
    arrays: {
      tiles: Uint8Array;
      /** As the arrays of "maps", where a layer is open. */
      maps: Uint8Array;
      low: Float32Array;
      high: Float32Array;
      strength: Float32Array;
    };
    meta: {
      /** The number of the painted sample. */
      sample: number;
      strips: Operations["strips"]["meta"]["strips"];
      maps?: Omit<Operations["maps"]["meta"], "ms">;
      predictions: Predictions;
      /** Whether the kernel had to run it the slow way. */
      recorded: boolean;
      /** Of the model alone, and of all. */
      forward: number;
      ms: number;
      /** Share of the arithmetic that ran, where only a stroke was followed. */
      recomputed?: number;
    };
  };
  /** The predictions under the interventions that are on, beside those without. */
  intervene: {
    params: { sample: number; interventions: Intervention[] };
    arrays: None;
    meta: {
      sample: number;
      /** None where the output is no row of class scores. */
      classes: Compared[];
      /** Of a language model, the last token: the classes are what may come after it. */
      token?: number;
      /** With the interventions, as those of a run. */
      predictions: Predictions;
      /** The Python of each intervention, and why it cannot be made; one of them is empty. */
      calls: string[];
      errors: string[];
      ms: number;
    };
  };
  /** What is lost without each channel (or head) of a layer, most first; -1 where it is not known yet. */
  knock_outs: {
    params: { node: string; sample: number; target: number | null; value: "zero" | "mean"; heads: boolean };
    arrays: { channels: Int32Array; effects: Float32Array; probabilities: Float32Array };
    meta: {
      layer: string;
      target: number;
      baseline: number;
      progress: number;
      seconds: number;
      recomputed?: Recomputed | null;
    };
  };
  /** How far patches from the run of `source` bring its prediction back: `[layers, parts]`, NaN where unknown. */
  patch_effects: {
    params: { sample: number; source: number; each: Each };
    arrays: { effects: Float32Array };
    meta: {
      layers: string[];
      /** Of the parts of each layer: `[]`, `[n]`, or `[rows, columns]` of regions. */
      shapes: number[][];
      each: Each;
      clean: number;
      corrupted: number;
      /** The class whose score it is; of two the second is subtracted. */
      target: number[];
      progress: number;
      seconds: number;
      recomputed?: Recomputed | null;
    };
  };
  /**
   * How alike the layers of two runs are, as they are measured: first the pairs, `[a, b, how, group]`, then numbers of
   * each; NaN where there is none. `other` is a sample, or null for what Python set beside this one.
   */
  compare: {
    params: { sample: number; other: Beside; examples: "positions" | "samples"; changed?: Intervention[] };
    arrays: {
      cka: Float32Array;
      difference: Float32Array;
      correlation: Float32Array;
      /** Which of the notes, or -1. */
      note: Int32Array;
      measured: Uint8Array;
    };
    meta: {
      what: "inputs" | "models";
      cka: "linear" | "unbiased";
      /** Over how many samples; 0 where it is over positions. */
      samples: number;
      notes: string[];
      progress: number;
      seconds: number;
      classes: ComparedClass[];
      pairs?: [string, string, string, boolean][];
      /** Layers that only A has, or only B. */
      only?: [string[], string[]];
    };
  };
  /** The maps of a layer in both runs, channel beside channel, and B less A: arrays as those of "maps". */
  compare_maps: {
    params: { node: string; sample: number; other: Beside; max_side: number; changed?: Intervention[] };
    arrays: {
      a: Uint8Array;
      low_a: Float32Array;
      high_a: Float32Array;
      b: Uint8Array;
      low_b: Float32Array;
      high_b: Float32Array;
      d?: Uint8Array;
      low_d?: Float32Array;
      high_d?: Float32Array;
      /** Mean change of each channel. */
      strength?: Float32Array;
      /** Where B has other channels: the one that goes with each of A's, and their correlation. */
      partner?: Int32Array;
      fit?: Float32Array;
    };
    meta: {
      node: string;
      other: string;
      kind: TileKind;
      shape_a: number[];
      shape_b: number[];
      channels_b: number;
      /** Tokens before the patches; -1 where there are no tokens. */
      skip: number;
      ms: number;
    };
  };
  /** One channel of both, as it is. */
  compare_values: {
    params: { node: string; sample: number; other: Beside; channel: number; changed?: Intervention[] };
    arrays: { a: Float32Array; b?: Float32Array };
    meta: { node: string; channel: number };
  };
  /** How one number of a layer came about. Which arrays there are depends on `kind`. */
  arithmetic: {
    params: Under & { node: string; sample: number; unit: Unit; head?: number | null };
    arrays: ApartArrays;
    meta: Apart;
  };
  /** An activation function over the range of its real inputs. */
  curve: {
    params: Under & { node: string; sample: number };
    arrays: {
      x: Float32Array;
      y: Float32Array;
      slope: Float32Array;
      counts: Float32Array;
      edges: Float32Array;
    };
    meta: { node: string; op: string; formula: string; saturated: number; inputs: number; note: string };
  };
  /** What a layer has learned; of a large matrix the part from `row` and `column`, of filters all slices of one. */
  weights: {
    params: { node: string; name?: string | null; filter?: number; row?: number; column?: number };
    arrays: {
      norms: Float32Array;
      counts: Int32Array;
      edges: Float32Array;
      singular?: Float32Array;
      tiles?: Float32Array;
      strongest?: Int32Array;
      slices?: Float32Array;
      matrix?: Float32Array;
    };
    meta: Learned;
  };
  /** Changes one weight on a private copy, or takes all changes back, and runs the sample again. */
  change_weight: {
    params: { node?: string; name?: string; index?: number[] | null; value?: number };
    arrays: None;
    meta: { changes: WeightChange[] };
  };
  /** Somebody may ask for an influence soon: what that needs is loaded beside everything else. */
  foresee: { params: Record<string, never>; arrays: None; meta: None };
  /** What an input pixel does to every node and then every group, as a share of the activation's own length. */
  influence: {
    params: Under & { sample: number; y: number; x: number; layer: string | null };
    arrays: {
      strength: Float32Array;
      /** Derivatives of the open layer, as the arrays of "maps". */
      maps: Uint8Array;
      low: Float32Array;
      high: Float32Array;
      reach: Float32Array;
    };
    meta: {
      how: "forward mode" | "backward twice" | "finite differences";
      why: string;
      /** How far the pixel was changed for what follows. */
      change: number;
      classes: { index: number; name: string; by: number }[];
      maps?: Omit<Operations["maps"]["meta"], "ms" | "bad">;
      ms: number;
    };
  };
  /** All logits of the run on the screen. */
  logits: {
    params: Under & { sample: number };
    arrays: { logits: Float32Array };
    /** Whether the output is probabilities already; of a language model, the token that they come after. */
    meta: { names: string[]; probabilities: boolean; token?: number };
  };
  /** What a transformer would answer after each block: the most probable classes `[blocks, k]`. */
  lens: {
    params: Under & { sample: number; token?: number };
    arrays: { indices: Int32Array; probabilities: Float32Array; final: Float32Array };
    meta: {
      layers: string[];
      token: number | null;
      tokens: number | null;
      final: { index: number; name: string };
      names: string[][];
    };
  };
  /** How well a linear classifier tells the true classes apart after each stage; NaN where it is not known yet. */
  probes: {
    params: Under;
    arrays: { accuracy: Float32Array; stderr: Float32Array; fitted: Float32Array };
    meta: {
      layers: string[];
      features: number[];
      chance: number;
      samples: number;
      classes: number;
      folds: number;
      progress: number;
      seconds: number;
    };
  };
  /** A picture changed a little, step by step: as it is looked at, and what was added, in levels of the picture. */
  counterfactual: {
    params: Under & {
      sample: number;
      target: number | null;
      method: "gradient" | "fgsm" | "pgd";
      norm: "linf" | "l2";
      budget: number;
      steps: number;
    };
    arrays: { rgb: Uint8Array; difference: Float32Array };
    meta: {
      step: number;
      steps: number;
      success: boolean;
      predicted: number;
      linf: number;
      l2: number;
      classes: { index: number; name: string; prob: number }[];
      seconds: number;
    };
  };
  /** Hands the kernel a PNG of the page (one buffer), for the notebook as it is saved. */
  still: { params: Record<string, never>; arrays: None; meta: None };
  /** Hands the kernel the file that it asked for with "draw" (one buffer), or says why there is none. */
  drawing: { params: { ask: string; error: string }; arrays: None; meta: None };
}

export type Operation = keyof Operations;

export interface Reply<K extends Operation> {
  meta: Operations[K]["meta"];
  arrays: { [N in keyof Operations[K]["arrays"]]: NdArray<Extract<Operations[K]["arrays"][N], NumberArray>> };
  /** Epoch of the weights and of the input that this was computed from. */
  epoch: number;
  /** From the request to the last chunk, as the page saw it. */
  ms: number;
}

/** What one chunk of a reply brought; paint it, the next one follows. */
export interface Part<K extends Operation> {
  meta?: Operations[K]["meta"];
  arrays: {
    [N in keyof Operations[K]["arrays"]]?: ArrayPart<Extract<Operations[K]["arrays"][N], NumberArray>>;
  };
  epoch: number;
  last: boolean;
}

export interface Progress {
  done: number;
  total: number;
  note?: string;
}

export interface RequestOptions<K extends Operation> {
  /** A newer request in the same slot of the same view cancels this one, here and in the kernel. */
  slot?: string;
  /** Which view asks; the client's own by default. */
  view?: string;
  signal?: AbortSignal;
  buffers?: ArrayBuffer[];
  onChunk?(part: Part<K>): void;
  onProgress?(progress: Progress): void;
}

/** What the client needs from anywidget's model; methods only, so that a test can hand in twenty lines. */
export interface WireModel {
  on(event: string, callback: (...args: unknown[]) => void): void;
  off(event: string, callback: (...args: unknown[]) => void): void;
  send(content: unknown, callbacks?: unknown, buffers?: ArrayBuffer[]): void;
  /** Present in Jupyter; its kernel's status tells a busy kernel from a dead one. */
  widget_manager?: unknown;
}
