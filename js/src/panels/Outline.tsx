// The network as a list: every group and layer in order of execution, with what it is, what it gives and its
// parameters. The same tree as the drawing, for who cannot see that or wants to read; walked with the arrow keys.

import { useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { count, shape } from "../maps/format";
import type { Store } from "../state/store";
import type { Graph, GraphGroup, GraphNode } from "../state/synced";

export interface Row {
  id: string;
  depth: number;
  name: string;
  type: string;
  /** Shape of the first output without the batch axis; empty where it is not known. */
  shape: string;
  params: number;
  /** Whether it holds others, and whether they are listed below it. */
  open: boolean | null;
}

/** The rows in sight when these groups are open. */
export function rowsOf(graph: Graph, open: ReadonlySet<string>): Row[] {
  const nodes = new Map(graph.nodes.map((node) => [node.id, node]));
  const groups = new Map(graph.groups.map((group) => [group.id, group]));
  const rows: Row[] = [];
  const list = (children: readonly string[], depth: number) => {
    for (const id of children) {
      const group = groups.get(id);
      const one = group ?? nodes.get(id);
      if (!one) continue;
      const isOpen = group ? open.has(id) : null;
      rows.push({
        ...describe(one, group ? lastOf(group, groups, nodes) : nodes.get(id)),
        depth,
        open: isOpen,
      });
      if (group && isOpen) list(group.children, depth + 1);
    }
  };
  list(groups.get("")?.children ?? graph.nodes.map((node) => node.id), 1);
  return rows;
}

function describe(one: GraphNode | GraphGroup, last: GraphNode | undefined) {
  const op = "op" in one ? one.op : "";
  const called = one.path.split(".").at(-1) || one.id;
  const name =
    "kind" in one && one.kind === "op" ? op : one.call > 0 ? `${called} (call ${one.call + 1})` : called;
  const sides = last?.output_shapes[0];
  return {
    id: one.id,
    name,
    type: one.type || (name === op ? "" : op),
    shape: sides && sides.length > 1 ? shape(sides.slice(1)) : "",
    params: one.params,
  };
}

/** The node that ran last in a group: what it gives is what the group gives. */
function lastOf(
  group: GraphGroup,
  groups: ReadonlyMap<string, GraphGroup>,
  nodes: ReadonlyMap<string, GraphNode>,
): GraphNode | undefined {
  const last = group.children.at(-1) ?? "";
  const inner = groups.get(last);
  return inner ? lastOf(inner, groups, nodes) : nodes.get(last);
}

/** The groups that hold a node or group, the outermost first. */
function holdersOf(graph: Graph, id: string): string[] {
  const parents = new Map([...graph.nodes, ...graph.groups].map((one) => [one.id, one.parent]));
  const holders: string[] = [];
  for (let at = parents.get(id); at; at = parents.get(at)) holders.unshift(at);
  return holders;
}

export function Outline({ store }: { store: Store }) {
  const list = useRef<HTMLUListElement>(null);
  const graph = store.synced.graph.value;
  const selected = store.synced.selection.value.layer;
  const open = useSignal<ReadonlySet<string>>(new Set());
  const here = useSignal<string | null>(selected);

  useEffect(() => {
    // What is selected elsewhere is listed here.
    if (graph && selected) open.value = new Set([...open.peek(), ...holdersOf(graph, selected)]);
    here.value = selected ?? here.peek();
  }, [graph, selected]);
  useEffect(() => {
    list.current?.querySelector("[tabindex='0']")?.scrollIntoView({ block: "nearest" });
  }, [here.value]);

  const rows = useMemo(() => (graph ? rowsOf(graph, open.value) : []), [graph, open.value]);
  if (!graph) return null;
  const current = rows.some((row) => row.id === here.value) ? here.value : rows[0]?.id;

  function turn(id: string, wish: boolean): void {
    const next = new Set(open.peek());
    if (wish) next.add(id);
    else next.delete(id);
    open.value = next;
  }

  function go(id: string | undefined): void {
    if (id === undefined) return;
    here.value = id;
    list.current?.querySelector<HTMLElement>(`[data-row="${CSS.escape(id)}"]`)?.focus();
  }

  function onKeyDown(event: KeyboardEvent): void {
    const at = rows.findIndex((row) => row.id === current);
    const row = rows[at];
    if (!row || event.ctrlKey || event.altKey || event.metaKey) return;
    const above = rows
      .slice(0, at)
      .reverse()
      .find((other) => other.depth < row.depth);
    const acts: Record<string, () => void> = {
      ArrowDown: () => go(rows[at + 1]?.id),
      ArrowUp: () => go(rows[at - 1]?.id),
      Home: () => go(rows[0]?.id),
      End: () => go(rows.at(-1)?.id),
      ArrowRight: () => (row.open === false ? turn(row.id, true) : row.open && go(rows[at + 1]?.id)),
      ArrowLeft: () => (row.open ? turn(row.id, false) : go(above?.id)),
      Enter: () => store.selectLayer(row.id),
      " ": () => store.selectLayer(row.id),
    };
    const act = acts[event.key];
    if (!act) return;
    act();
    event.preventDefault();
    event.stopPropagation();
  }

  return (
    <section class="nn-outline" aria-label="outline">
      <h3>Outline</h3>
      {/* biome-ignore lint/a11y/noNoninteractiveElementToInteractiveRole: a list is what it is without the roles */}
      <ul ref={list} role="tree" aria-label="layers in order of execution" onKeyDown={onKeyDown}>
        {rows.map((row) => (
          // biome-ignore lint/a11y/useKeyWithClickEvents: the tree hears the keys of all rows
          <li
            key={row.id}
            role="treeitem"
            data-row={row.id}
            aria-level={row.depth}
            aria-expanded={row.open ?? undefined}
            aria-selected={row.id === selected}
            tabIndex={row.id === current ? 0 : -1}
            style={{ paddingLeft: `${8 + 14 * (row.depth - 1)}px` }}
            onClick={(event) => {
              here.value = row.id;
              if ((event.target as HTMLElement).closest("[data-turn]")) turn(row.id, !row.open);
              else store.selectLayer(row.id);
            }}
            onDblClick={() => row.open !== null && turn(row.id, !row.open)}
          >
            <i data-turn={row.open ?? undefined}>{row.open === null ? "" : row.open ? "▾" : "▸"}</i>
            <b>{row.name}</b>
            <span class="nn-soft">{row.type}</span>
            <span class="nn-outline-facts">
              {row.params > 0 && <span title={`${row.params} parameters`}>{count(row.params)}</span>}
              <span>{row.shape}</span>
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}
