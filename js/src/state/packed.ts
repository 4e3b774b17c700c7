// Reads the graph as Python packs it (nnviz_widget/engine/graph_json.py): tables of columns that point into one list
// of texts and one of shapes. A column of one value says it for all rows. Nothing here knows which fields there are.

import type { Graph, GraphEdge, GraphGroup, GraphNode, Shape } from "./synced";

const FORMAT = "nnviz-graph";

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

export function unpack(packed: PackedGraph): Graph {
  const text = (at: number) => packed.texts[at] ?? "";
  const shape = (at: number) => packed.shapes[at] ?? [];

  function rows<T>(table: Table): T[] {
    const made = Array.from({ length: table.length }, () => ({}) as Record<string, unknown>);
    function fill<V>(columns: Column<V> | undefined, read: (value: V) => unknown) {
      for (const [name, column] of Object.entries(columns ?? {})) {
        made.forEach((row, at) => {
          row[name] = read(column[column.length === 1 ? 0 : at] as V);
        });
      }
    }
    fill(table.text, text);
    fill(table.texts, (places) => places.map(text));
    fill(table.shape, shape);
    fill(table.shapes, (places) => places.map(shape));
    fill(table.number, (value) => value);
    return made as T[];
  }

  return {
    model: packed.model,
    kind: packed.kind ?? "run",
    nodes: rows<GraphNode>(packed.nodes),
    edges: rows<GraphEdge>(packed.edges),
    groups: rows<GraphGroup>(packed.groups),
  };
}
