// Small graphs of well-known shapes, written as a recorder would write them, and a page around them.

import { signal } from "@preact/signals";
import type { Item } from "../src/graph/hierarchy";
import { Store } from "../src/state/store";
import {
  type Graph,
  type GraphEdge,
  type GraphGroup,
  type GraphNode,
  NOTHING_SELECTED,
  type Shape,
  type Synced,
} from "../src/state/synced";
import type { WireClient } from "../src/wire/client";

const OPS: Record<string, string> = {
  Conv2d: "conv2d",
  BatchNorm2d: "batch_norm",
  ReLU: "relu",
  MaxPool2d: "max_pool2d",
  Linear: "linear",
  LayerNorm: "layer_norm",
  Dropout: "dropout",
};

/** Builds a graph call by call, in order of execution. */
export class Draft {
  readonly nodes: GraphNode[] = [];
  readonly edges: GraphEdge[] = [];
  readonly groups: GraphGroup[] = [];
  private readonly stack: GraphGroup[] = [];
  private readonly shapes = new Map<string, Shape>();
  private readonly counts = new Map<string, number>();

  constructor(readonly model = "Net") {
    this.stack.push(this.newGroup("", model, ""));
  }

  private newGroup(path: string, type: string, parent: string): GraphGroup {
    const group = { id: path, path, call: 0, type, children: [], fold: 1, parent, params: 0, flops: 0 };
    this.groups.push(group);
    return group;
  }

  private get here(): GraphGroup {
    return this.stack[this.stack.length - 1] as GraphGroup;
  }

  /** A module that calls others; `fold` says how many alike follow each other. */
  group<T>(name: string, type: string, inside: () => T, fold = 1): T {
    const path = this.here.path ? `${this.here.path}.${name}` : name;
    const group = this.newGroup(path, type, this.here.id);
    group.fold = fold;
    this.here.children.push(path);
    this.stack.push(group);
    const out = inside();
    this.stack.pop();
    return out;
  }

  private node(id: string, part: Partial<GraphNode>, from: string[], shape: Shape): string {
    const shapes = from.map((source) => this.shapeOf(source));
    this.nodes.push({
      id,
      path: "",
      call: 0,
      op: "",
      kind: "op",
      type: "",
      detail: "",
      input_shapes: shapes,
      output_shapes: [shape],
      dtype: "float32",
      params: 0,
      flops: 0,
      bytes: 0,
      source: "net.py:1",
      status: "ok",
      parent: this.here.id,
      ...part,
    });
    for (const source of from) this.edges.push({ source, target: id, shape: this.shapeOf(source) });
    this.here.children.push(id);
    this.shapes.set(id, shape);
    return id;
  }

  shapeOf(id: string): Shape {
    return this.shapes.get(id) ?? [];
  }

  input(shape: Shape, id = "input"): string {
    return this.node(id, { op: "input", kind: "input" }, [], shape);
  }

  constant(name: string, shape: Shape): string {
    return this.node(`const:${name}`, { op: "parameter", kind: "constant", path: name }, [], shape);
  }

  module(name: string, type: string, from: string | string[], shape?: Shape, call = 0): string {
    const sources = [from].flat();
    const path = this.here.path ? `${this.here.path}.${name}` : name;
    const id = call > 0 ? `${path}@${call}` : path;
    const op = OPS[type] ?? type.toLowerCase();
    const part: Partial<GraphNode> = { path, call, op, type, kind: "module" };
    if (type === "Dropout") part.status = "identity";
    return this.node(id, part, sources, shape ?? this.shapeOf(sources[0] as string));
  }

  op(name: string, from: string[], shape?: Shape): string {
    const base = `${this.here.id}/${name}`;
    const known = this.counts.get(base) ?? 0;
    this.counts.set(base, known + 1);
    return this.node(
      known > 0 ? `${base}#${known}` : base,
      { op: name },
      from,
      shape ?? this.shapeOf(from[0] as string),
    );
  }

  output(from: string): string {
    return this.node("output", { op: "output", kind: "output" }, [from], this.shapeOf(from));
  }

  done(): Graph {
    return { model: this.model, nodes: this.nodes, edges: this.edges, groups: this.groups };
  }
}

export function chain(length: number): Graph {
  const d = new Draft("Chain");
  let x = d.input([1, 3, 32, 32]);
  for (let at = 0; at < length; at++) x = d.module(`conv${at}`, "Conv2d", x, [1, 8, 32, 32]);
  d.output(x);
  return d.done();
}

function basicBlock(d: Draft, name: string, x: string, down: boolean): string {
  return d.group(name, "BasicBlock", () => {
    let y = d.module("conv1", "Conv2d", x);
    y = d.module("bn1", "BatchNorm2d", y);
    y = d.module("relu", "ReLU", y);
    y = d.module("conv2", "Conv2d", y);
    y = d.module("bn2", "BatchNorm2d", y);
    const side = down
      ? d.group("downsample", "Sequential", () => d.module("1", "BatchNorm2d", d.module("0", "Conv2d", x)))
      : x;
    return d.module("relu", "ReLU", d.op("add", [y, side]), undefined, 1);
  });
}

export function resnet(stages = 4, blocks = 2): Graph {
  const d = new Draft("ResNet");
  let x = d.module("conv1", "Conv2d", d.input([1, 3, 64, 64]), [1, 64, 32, 32]);
  x = d.module("relu", "ReLU", d.module("bn1", "BatchNorm2d", x));
  x = d.module("maxpool", "MaxPool2d", x, [1, 64, 16, 16]);
  for (let stage = 1; stage <= stages; stage++) {
    x = d.group(`layer${stage}`, "Sequential", () => {
      for (let block = 0; block < blocks; block++) x = basicBlock(d, `${block}`, x, stage > 1 && block === 0);
      return x;
    });
  }
  x = d.module("avgpool", "AdaptiveAvgPool2d", x, [1, 64, 1, 1]);
  d.output(d.module("fc", "Linear", d.op("flatten", [x], [1, 64]), [1, 10]));
  return d.done();
}

/** Every layer reads all that came before it. */
export function densenet(layers = 12): Graph {
  const d = new Draft("DenseNet");
  const start = d.module("conv0", "Conv2d", d.input([1, 3, 32, 32]), [1, 16, 32, 32]);
  const out = d.group("block", "DenseBlock", () => {
    const features = [start];
    for (let at = 1; at <= layers; at++) {
      features.push(
        d.group(`layer${at}`, "DenseLayer", () =>
          d.module(
            "conv",
            "Conv2d",
            d.module("norm", "BatchNorm2d", d.op("cat", [...features])),
            [1, 8, 32, 32],
          ),
        ),
      );
    }
    return d.op("cat", features);
  });
  d.output(out);
  return d.done();
}

export function inception(): Graph {
  const d = new Draft("Inception");
  let x = d.module("stem", "Conv2d", d.input([1, 3, 32, 32]), [1, 16, 32, 32]);
  for (const block of ["a", "b"]) {
    const from = x;
    x = d.group(`mixed_${block}`, "Mixed", () => {
      const one = d.module("branch1", "Conv2d", from);
      const two = d.module("branch2_2", "Conv2d", d.module("branch2_1", "Conv2d", from));
      const split = d.module("branch3_1", "Conv2d", from);
      const three = d.op("cat", [
        d.module("branch3_2a", "Conv2d", split),
        d.module("branch3_2b", "Conv2d", split),
      ]);
      const pool = d.module("branch4", "Conv2d", d.op("avg_pool2d", [from]));
      return d.op("cat", [one, two, three, pool]);
    });
  }
  d.output(x);
  return d.done();
}

export function unet(depth = 3): Graph {
  const d = new Draft("UNet");
  let x = d.input([1, 3, 64, 64]);
  const block = (name: string, from: string) =>
    d.group(name, "Sequential", () => d.module("1", "ReLU", d.module("0", "Conv2d", from)));
  const skips: string[] = [];
  for (let at = 0; at < depth; at++) {
    x = block(`down${at}`, x);
    skips.push(x);
    x = d.module(`pool${at}`, "MaxPool2d", x);
  }
  x = block("middle", x);
  for (let at = depth - 1; at >= 0; at--) {
    x = block(`up${at}`, d.op("cat", [d.module(`t${at}`, "ConvTranspose2d", x), skips[at] as string]));
  }
  d.output(x);
  return d.done();
}

/** A U-Net whose tensors become smaller and larger again; `nested` as users write it who give each step a module. */
export function ushape(depth = 3, nested = false): Graph {
  const d = new Draft("U");
  const shape = (level: number, channels = 8 * 2 ** level): Shape => {
    const side = 64 / 2 ** level;
    return [1, channels, side, side];
  };
  const convs = (name: string, from: string, level: number) =>
    d.group(name, "Sequential", () => d.module("1", "ReLU", d.module("0", "Conv2d", from, shape(level))));
  const skips: string[] = [];
  let x = d.input([1, 3, 64, 64]);
  for (let at = 0; at < depth; at++) {
    if (at > 0 && !nested) x = d.module("pool", "MaxPool2d", x, shape(at, 4 * 2 ** at), at - 1);
    x =
      nested && at > 0
        ? d.group(`down${at}`, "Down", () => convs("conv", d.module("pool", "MaxPool2d", x, shape(at)), at))
        : convs(`down${at}`, x, at);
    skips.push(x);
  }
  x = d.module("pool", "MaxPool2d", x, shape(depth), depth - 1);
  x = convs("middle", x, depth);
  for (let at = depth - 1; at >= 0; at--) {
    const skip = skips[at] as string;
    const joined = () =>
      d.op("cat", [skip, d.module(nested ? "up" : `up${at}`, "ConvTranspose2d", x, shape(at))]);
    x = nested
      ? d.group(`up${at}`, "Up", () => convs("conv", joined(), at))
      : convs(`join${at}`, joined(), at);
  }
  d.output(d.module("head", "Conv2d", x, [1, 2, 64, 64]));
  return d.done();
}

/** An encoder that returns all its sizes, and a decoder that reads them, each a module of its own. */
export function encoderDecoder(sizes = 4): Graph {
  const d = new Draft("U");
  const shape = (level: number): Shape => [1, 8 * 2 ** level, 64 / 2 ** level, 64 / 2 ** level];
  let x = d.input([1, 3, 64, 64]);
  const kept: string[] = [];
  d.group("encoder", "AnEncoderWithAVeryLongName", () => {
    for (let at = 0; at < sizes; at++) {
      x = d.group(`stage${at}`, "Stage", () => d.op("relu", [d.module("conv", "Conv2d", x, shape(at))]));
      kept.push(x);
    }
  });
  d.group("decoder", "Decoder", () => {
    for (let at = sizes - 2; at >= 0; at--) {
      x = d.group(`block${at}`, "Block", () => {
        const up = d.op("interpolate", [x], shape(at));
        return d.module("conv", "Conv2d", d.op("cat", [up, kept[at] as string]), shape(at));
      });
    }
  });
  d.output(d.module("head", "Conv2d", x, [1, 2, 64, 64]));
  return d.done();
}

/** Blocks that share a mask, which is made on the side; attention with three branches inside. */
export function transformer(blocks = 12): Graph {
  const d = new Draft("Transformer");
  const ids = d.input([1, 8], "input:ids");
  const mask = d.op("expand", [d.input([1, 8], "input:mask")], [1, 8, 8]);
  d.group("model", "Model", () => {
    let x = d.module("embed", "Embedding", ids, [1, 8, 32]);
    x = d.op("add", [x, d.constant("model.positions", [1, 8, 32])]);
    for (let at = 0; at < blocks; at++) {
      const from = x;
      x = d.group(
        `h.${at}`,
        "Block",
        () => {
          const normed = d.module("ln_1", "LayerNorm", from);
          const attended = d.group("attn", "Attention", () => {
            const [q, k, v] = ["q", "k", "v"].map((name) => d.module(name, "Linear", normed)) as [
              string,
              string,
              string,
            ];
            const scores = d.op("softmax", [d.op("add", [d.op("matmul", [q, k]), mask])]);
            return d.module("out", "Linear", d.op("matmul", [scores, v]));
          });
          const middle = d.op("add", [attended, from]);
          const mlp = d.module("mlp", "Linear", d.module("ln_2", "LayerNorm", middle));
          return d.op("add", [d.module("drop", "Dropout", mlp), middle]);
        },
        blocks,
      );
    }
    return x;
  });
  const last = d.nodes[d.nodes.length - 1] as GraphNode;
  d.output(last.id);
  return d.done();
}

/** GPT-2 of Hugging Face as it is recorded: positions come from a counter, and shapes change on the way. */
export function gpt2(blocks = 12): Graph {
  const d = new Draft("GPT2LMHeadModel");
  const ids = d.input([1, 8]);
  const width: Shape = [1, 8, 32];
  let x = d.group("transformer", "GPT2Model", () => {
    const words = d.module("wte", "Embedding", d.op("view", [ids]), width);
    const counter = d.constant("transformer/arange", [8]);
    const places = d.op("unsqueeze", [d.op("add", [counter])], [1, 8]);
    const sum = d.op("add", [words, d.op("to", [d.module("wpe", "Embedding", places, width)])]);
    let y = d.module("drop", "Dropout", sum);
    for (let at = 0; at < blocks; at++) {
      const from = y;
      y = d.group(
        `h.${at}`,
        "GPT2Block",
        () => {
          const attended = d.group("attn", "GPT2Attention", () =>
            d.module("c_proj", "Linear", d.module("c_attn", "Linear", d.module("ln_1", "LayerNorm", from))),
          );
          const middle = d.op("add", [attended, from]);
          const mlp = d.module("mlp", "Linear", d.module("ln_2", "LayerNorm", middle));
          return d.op("add", [middle, mlp]);
        },
        blocks,
      );
    }
    return d.op("view", [d.module("ln_f", "LayerNorm", y)]);
  });
  x = d.module("lm_head", "Linear", d.op("getitem", [x]), [1, 8, 100]);
  d.output(x);
  const graph = d.done();
  for (const node of graph.nodes) {
    if (node.kind === "constant") node.op = "arange";
    if (node.type === "Embedding" || node.type === "Linear") node.params = 32;
    if (node.kind === "input") node.dtype = "int64";
  }
  return graph;
}

/** Branches that cross and skip each other: neither chain nor parallel. */
export function tangled(width = 5, depth = 6): Graph {
  const d = new Draft("Tangled");
  const x = d.input([1, 8, 8, 8]);
  let row = Array.from({ length: width }, (_, at) => d.module(`a${at}`, "Conv2d", x));
  const first = row[0] as string;
  for (let level = 0; level < depth; level++) {
    row = row.map((from, at) =>
      d.module(`m${level}_${at}`, "Conv2d", [
        from,
        row[(at + 1) % width] as string,
        ...(at === 2 && level > 2 ? [first] : []),
      ]),
    );
  }
  d.output(d.op("cat", row));
  return d.done();
}

/** One forward of many operations without any module. */
export function flat(count: number): Graph {
  const d = new Draft("Flat");
  let [x, y] = [d.input([1, 4]), d.input([1, 4], "input:1")];
  for (let at = 0; at < count; at++) {
    const next = d.op(at % 3 === 0 ? "add" : "sin", at % 3 === 0 ? [x, y] : [x]);
    if (at % 5 === 0) y = x;
    x = next;
  }
  d.output(x);
  return d.done();
}

export const SAMPLES: Record<string, () => Graph> = {
  chain: () => chain(12),
  resnet: () => resnet(),
  densenet: () => densenet(),
  inception,
  unet: () => unet(),
  ushape: () => ushape(),
  "ushape of modules": () => ushape(3, true),
  "encoder and decoder": () => encoderDecoder(),
  transformer: () => transformer(),
  gpt2: () => gpt2(),
  tangled: () => tangled(),
  flat: () => flat(300),
};

/** A store over a graph, with a kernel that never answers. */
export function storeOf(graph: Graph | null): { store: Store; synced: Synced; asked: string[] } {
  const asked: string[] = [];
  const wire = {
    busy: signal(false),
    dead: signal(false),
    request: (op: string) => {
      asked.push(op);
      return new Promise(() => {});
    },
  } as unknown as WireClient;
  const selection = signal({ ...NOTHING_SELECTED });
  const synced: Synced = {
    graph: signal(graph),
    info: signal(null),
    status: signal({ state: "ready" }),
    run: signal({
      sample: 0,
      epoch: 0,
      run: 1,
      ms: 1,
      consistent: true,
      predictions: { task: "other", classes: [] },
    }),
    epoch: signal(0),
    selection,
    select(change) {
      selection.value = { ...selection.peek(), ...change };
    },
    heard() {},
    dispose() {},
  };
  return { store: new Store(synced, wire, "v"), synced, asked };
}

/** An item and all that is in it. */
export function itemsIn(item: Item): Item[] {
  return [item, ...item.children.flatMap(itemsIn)];
}
