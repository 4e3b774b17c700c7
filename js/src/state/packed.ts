// Reads the graph as Python packs it (nnviz_widget/engine/graph_json.py): tables of columns that point into one list
// of texts and one of shapes. A column of one value says it for all rows. Nothing here knows which fields there are.

import type { Graph, GraphEdge, GraphGroup, GraphNode, Shape } from "./synced";

const FORMAT = "nnviz-graph";
const LARGE = 2000;

type Column<T> = Record<string, T[]>;

interface Table {
  length: number;
  text?: Column<number>;
  texts?: Column<number[]>;
  shape?: Column<number>;
  shapes?: Column<number[]>;
  number?: Column<number>;
}

export interface PackedGraph {
  format: typeof FORMAT;
  version: number;
  model: string;
  /** Left out for a run. */
  kind?: Graph["kind"];
  texts: string[];
  shapes: Shape[];
  nodes: Table;
  edges: Table;
  groups: Table;
}

export function isPacked(value: object): value is PackedGraph {
  return "format" in value && value.format === FORMAT;
}

/** Whether to read it takes so long that what else a message brings had better not wait for it in the same task. */
export function isLarge(value: unknown): boolean {
  return typeof value === "object" && value !== null && isPacked(value) && value.nodes.length >= LARGE;
}

export function unpack(packed: PackedGraph): Graph {
  const text = (at: number) => packed.texts[at] ?? "";
  const shape = (at: number) => packed.shapes[at] ?? [];

  function rows<T>(table: Table): T[] {
    // A row only knows where it is and reads its columns when it is asked: of 10,000 rows few ever are, in most.
    class Row {
      constructor(readonly at: number) {}
    }
    function define(name: string, get: (at: number) => unknown) {
      Object.defineProperty(Row.prototype, name, {
        enumerable: true,
        get(this: Row) {
          return get(this.at);
        },
      });
    }
    function columns<V>(named: Column<V> | undefined, read: (value: V) => unknown) {
      for (const [name, column] of Object.entries(named ?? {})) {
        if (column.length === 1) define(name, () => read(column[0] as V));
        else define(name, (at) => read(column[at] as V));
      }
    }
    columns(table.text, text);
    columns(table.shape, shape);
    columns(table.shapes, (places) => places.map(shape));
    columns(table.number, (value) => value);
    for (const [name, column] of Object.entries(table.texts ?? {})) {
      // These are long: the children of a group.
      const lists: string[][] = [];
      define(name, (at) => {
        lists[at] ??= (column[column.length === 1 ? 0 : at] as number[]).map(text);
        return lists[at];
      });
    }
    return Array.from({ length: table.length }, (_, at) => new Row(at)) as T[];
  }

  return {
    model: packed.model,
    kind: packed.kind ?? "run",
    nodes: rows<GraphNode>(packed.nodes),
    edges: rows<GraphEdge>(packed.edges),
    groups: rows<GraphGroup>(packed.groups),
  };
}
