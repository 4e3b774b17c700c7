// The selected layer in Python: the lines that give the same numbers, where the layer stands in the user's source,
// and its vital figures.

import { useState } from "preact/hooks";
import { count, shape } from "../maps/format";
import type { Store } from "../state/store";
import type { GraphGroup, GraphNode } from "../state/synced";
import { snippet } from "./snippet";

export function Code({ store }: { store: Store }) {
  const selection = store.synced.selection.value;
  const { layer } = selection;
  const item = layer === null ? undefined : store.nodes.value.get(layer);
  const lines = snippet(selection, store.maps.value.data?.kind ?? "maps");
  if (layer === null) return null;
  return (
    <div class="nn-code" data-panel="code">
      <p class="nn-soft">What is on the screen, in Python:</p>
      <div class="nn-snippet">
        <pre>
          <code>{lines}</code>
        </pre>
        <Copy text={lines} />
      </div>
      {item && <Figures item={item} />}
    </div>
  );
}

function Figures({ item }: { item: GraphNode | GraphGroup }) {
  const rows: [string, string][] = [["name", item.path || item.id]];
  if (item.type) rows.push(["type", item.type]);
  if ("op" in item) {
    if (item.op && item.op !== item.type)
      rows.push(["operation", `${item.op}${item.detail ? ` · ${item.detail}` : ""}`]);
    if (item.code) rows.push(["decided", item.code], ["read", item.value || "–"]);
    if (item.call > 0) rows.push(["call", `${item.call + 1} of this module`]);
    rows.push(["input", item.input_shapes.map(shape).join(", ") || "–"]);
    rows.push(["output", item.output_shapes.map(shape).join(", ") || "–"]);
    rows.push(["dtype", item.dtype || "–"]);
  } else {
    rows.push(["inside", `${item.children.length} steps`]);
  }
  rows.push([
    "parameters",
    item.params > 0 ? `${count(item.params)} (${item.params.toLocaleString("en")})` : "none",
  ]);
  rows.push(["FLOPs", item.flops > 0 ? count(item.flops) : "–"]);
  if ("bytes" in item && item.bytes > 0) rows.push(["memory", `${count(item.bytes)}B`]);
  if ("source" in item && item.source) rows.push(["source", item.source]);
  return (
    <dl class="nn-figures">
      {rows.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd title={value}>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function Copy({ text }: { text: string }) {
  const [done, setDone] = useState(false);
  async function copy(event: MouseEvent) {
    const host = (event.currentTarget as HTMLElement).parentElement as HTMLElement;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Pages on plain http have no clipboard; the old way still works there.
      const field = document.createElement("textarea");
      field.value = text;
      host.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  }
  return (
    <button type="button" class="nn-chip" onClick={(event) => void copy(event)}>
      {done ? "copied" : "copy"}
    </button>
  );
}
