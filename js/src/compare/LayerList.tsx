// Every layer in the order of the network with a bar of how alike it is in A and B. Only rows in sight exist.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { percent } from "../maps/format";
import type { Store } from "../state/store";
import type { Comparing, Found } from "./comparing";
import { bar, type Measure, parts, type Row, rowsOf } from "./rows";

const HEIGHT = 24;
const MORE = 8;

export function LayerList({ store, comparing }: { store: Store; comparing: Comparing }) {
  const box = useRef<HTMLDivElement>(null);
  const found = comparing.found.value as Found;
  const graph = store.synced.graph.value;
  const rows = useMemo(
    () => rowsOf(graph?.nodes.map((node) => node.id) ?? [], found.pairs, found.only),
    [graph, found.pairs, found.only],
  );
  const [view, setView] = useState({ top: 0, height: 400 });
  const node = comparing.node.value;
  const at = rows.findIndex((row) => row.id === node && named(row));

  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const measure = () => setView({ top: element.scrollTop, height: element.clientHeight });
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    measure();
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    const element = box.current;
    if (!element || at < 0) return;
    const top = at * HEIGHT;
    if (top < element.scrollTop) element.scrollTop = top - HEIGHT;
    else if (top + HEIGHT > element.scrollTop + element.clientHeight)
      element.scrollTop = top + 2 * HEIGHT - element.clientHeight;
  }, [at]);

  const from = Math.max(0, Math.floor(view.top / HEIGHT) - MORE);
  const to = Math.min(rows.length, Math.ceil((view.top + view.height) / HEIGHT) + MORE);
  const step = (by: number) => {
    for (let i = at + by; i >= 0 && i < rows.length; i += by) {
      const row = rows[i] as Row;
      if (!named(row)) continue;
      store.selectLayer(row.id);
      requestAnimationFrame(() =>
        box.current?.querySelector<HTMLElement>('[aria-selected="true"]')?.focus({ preventScroll: true }),
      );
      return;
    }
  };
  return (
    <div
      class="nn-compare-list"
      role="listbox"
      aria-label="layers"
      ref={box}
      tabIndex={at < 0 ? 0 : -1}
      onScroll={(event) => setView({ ...view, top: event.currentTarget.scrollTop })}
      onKeyDown={(event) => {
        const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        if (by === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
        event.preventDefault();
        event.stopPropagation();
        step(by);
      }}
    >
      <div style={{ height: `${rows.length * HEIGHT}px` }}>
        <div style={{ transform: `translateY(${from * HEIGHT}px)` }}>
          {rows.slice(from, to).map((row) => (
            <Line
              key={`${row.heads}${row.only}${row.id}`}
              row={row}
              found={found}
              measure={comparing.measure.value}
              chosen={row.id === node && named(row)}
              onChoose={() => store.selectLayer(row.id)}
            />
          ))}
        </div>
      </div>
    </div>
  );
}

/** Whether it is a layer of A. */
function named(row: Row): boolean {
  return row.only !== "B" && !row.heads;
}

interface LineProps {
  row: Row;
  found: Found;
  measure: Measure;
  chosen: boolean;
  onChoose(): void;
}

function Line({ row, found, measure, chosen, onChoose }: LineProps) {
  if (row.heads) {
    return (
      <div class="nn-compare-part" role="presentation" title={row.id}>
        {row.id}
      </div>
    );
  }
  const [path, name] = parts(row.id);
  const { numbers, pairs, meta } = found;
  const pair = pairs[row.pair];
  const value = row.pair < 0 ? Number.NaN : (numbers[measure][row.pair] as number);
  const waits = row.pair >= 0 && !numbers.measured[row.pair];
  const note = row.pair < 0 ? "" : (meta.notes[numbers.note[row.pair] as number] ?? "");
  const text = waits
    ? "…"
    : Number.isFinite(value)
      ? shown(measure, value)
      : row.only
        ? `only ${row.only}`
        : "–";
  const title = describe(row, found);
  return (
    <div
      class="nn-compare-line"
      role="option"
      aria-selected={chosen}
      aria-label={`${row.id}: ${text}`}
      aria-disabled={row.only === "B"}
      tabIndex={chosen ? 0 : -1}
      data-layer={row.id}
      data-value={Number.isFinite(value) ? value : ""}
      data-only={row.only ?? undefined}
      data-deep={path.length > 1}
      data-by={pair?.[2]}
      title={[title, note].filter(Boolean).join("\n")}
      onClick={() => row.only !== "B" && onChoose()}
      onKeyDown={(event) => {
        if (event.key === "Enter" || event.key === " ") onChoose();
      }}
    >
      <span class="nn-compare-name">
        <span>{row.only === "B" ? row.id : name}</span>
        {pair && pair[0] !== pair[1] && <em>↔</em>}
      </span>
      <span class="nn-compare-bar" data-measure={measure}>
        <i style={{ width: `${100 * bar(measure, value)}%` }} />
      </span>
      <span class="nn-compare-value">{text}</span>
    </div>
  );
}

export function shown(measure: Measure, value: number): string {
  if (measure === "difference") return percent(value);
  return value.toFixed(3).replace("-", "−");
}

function describe(row: Row, { pairs, numbers }: Found): string {
  if (row.only) return `${row.id}: only in ${row.only}`;
  const [a, b, by] = pairs[row.pair] as Found["pairs"][number];
  const names = a === b ? a : `${a} ↔ ${b}, aligned by ${by}`;
  const told = (["cka", "correlation", "difference"] as const)
    .filter((measure) => Number.isFinite(numbers[measure][row.pair]))
    .map(
      (measure) =>
        `${measure === "cka" ? "CKA" : measure} ${shown(measure, numbers[measure][row.pair] as number)}`,
    );
  return [names, told.join(", ")].filter(Boolean).join("\n");
}
