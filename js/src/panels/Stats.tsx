// How the values of the layer, or of the chosen channel, are distributed.

import { useRef, useState } from "preact/hooks";
import { count, percent, short, signed } from "../maps/format";
import { Segments } from "../maps/Segments";
import type { Stats as Data } from "../state/data";
import type { Store } from "../state/store";
import { Changed } from "./Changed";
import { niceTicks, tickText } from "./ticks";

const WIDTH = 440;
const HEIGHT = 190;
const PAD = { left: 44, right: 8, top: 10, bottom: 24 };

export function Stats({ store }: { store: Store }) {
  const { view, synced } = store;
  const { data, state } = store.stats.value;
  const { layer, channel } = synced.selection.value;
  const [log, setLog] = useState(false);
  return (
    <div class="nn-stats" data-panel="stats" data-layer={data?.node} data-state={state}>
      <Changed store={store} />
      <div class="nn-controls">
        <Segments
          label="values of"
          value={channel === null ? "layer" : view.statsOf.value}
          options={[
            ["layer", "whole layer"],
            ["channel", channel === null ? "channel" : `channel ${channel}`],
          ]}
          disabled={channel === null ? ["channel"] : []}
          onChoose={(choice) => {
            view.statsOf.value = choice;
          }}
        />
        <button type="button" class="nn-chip" aria-pressed={log} onClick={() => setLog(!log)}>
          log counts
        </button>
      </div>
      {data && data.node === layer ? (
        <>
          <Histogram store={store} data={data} log={log} />
          <Numbers data={data} />
        </>
      ) : (
        <div class="nn-ghost" style={{ height: `${HEIGHT}px` }} />
      )}
    </div>
  );
}

function Numbers({ data }: { data: Data }) {
  const value = (number: number | null) => (number === null ? "–" : signed(number));
  const rows: [string, string, boolean?][] = [
    ["mean", value(data.mean)],
    ["std", data.std === null ? "–" : short(data.std)],
    ["min", value(data.min)],
    ["max", value(data.max)],
    ["zeros", percent(data.zeros)],
    ["values", count(data.numel)],
  ];
  if (data.nan > 0) rows.push(["NaN", count(data.nan), true]);
  if (data.inf > 0) rows.push(["infinite", count(data.inf), true]);
  return (
    <dl class="nn-numbers">
      {rows.map(([name, text, bad]) => (
        <div key={name} data-tone={bad ? "bad" : undefined}>
          <dt>{name}</dt>
          <dd>{text}</dd>
        </div>
      ))}
    </dl>
  );
}

function Histogram({ store, data, log }: { store: Store; data: Data; log: boolean }) {
  const svg = useRef<SVGSVGElement>(null);
  const { counts, edges } = data;
  const [left, right] = [edges[0] ?? 0, edges[edges.length - 1] ?? 1];
  const most = Math.max(1, ...counts);
  const inner = { width: WIDTH - PAD.left - PAD.right, height: HEIGHT - PAD.top - PAD.bottom };
  const x = (value: number) => PAD.left + (inner.width * (value - left)) / (right - left || 1);
  const up = (n: number) => inner.height * (log ? Math.log1p(n) / Math.log1p(most) : n / most);
  const floor = PAD.top + inner.height;
  const rows = log ? decades(most) : niceTicks(0, most, 4);

  function hover(event: PointerEvent) {
    const { left: start, width } = (svg.current as SVGSVGElement).getBoundingClientRect();
    const at = (((event.clientX - start) / width) * WIDTH - PAD.left) / inner.width;
    const bin = Math.floor(at * counts.length);
    if (bin < 0 || bin >= counts.length) store.view.hover.value = null;
    else {
      const range = `${short(edges[bin] as number)} … ${short(edges[bin + 1] as number)}`;
      store.view.hover.value = { what: `values ${range}`, value: `${counts[bin]} of ${data.numel}` };
    }
  }

  return (
    <svg
      ref={svg}
      class="nn-histogram"
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      role="img"
      aria-label={`histogram from ${short(left)} to ${short(right)}`}
      onPointerMove={hover}
      onPointerLeave={() => {
        store.view.hover.value = null;
      }}
    >
      {rows.map((n) => (
        <g key={n} class="nn-axis">
          <line x1={PAD.left} x2={WIDTH - PAD.right} y1={floor - up(n)} y2={floor - up(n)} />
          <text x={PAD.left - 6} y={floor - up(n) + 3.5} text-anchor="end">
            {count(n)}
          </text>
        </g>
      ))}
      {Array.from(counts, (n, i) => {
        const from = x(edges[i] as number);
        const to = x(edges[i + 1] as number);
        const tall = n > 0 ? Math.max(up(n), 0.8) : 0;
        const width = Math.max(0.6, to - from - (to - from > 3 ? 0.8 : 0));
        return tall > 0 && <rect key={i} x={from} y={floor - tall} width={width} height={tall} />;
      })}
      <g class="nn-axis">
        {niceTicks(left, right, 5).map((value) => (
          <text key={value} x={x(value)} y={HEIGHT - 7} text-anchor="middle">
            {tickText(value)}
          </text>
        ))}
        {left < 0 && right > 0 && <line class="nn-zero" x1={x(0)} x2={x(0)} y1={PAD.top} y2={floor} />}
      </g>
    </svg>
  );
}

function decades(most: number): number[] {
  const ticks: number[] = [];
  for (let n = 1; n <= most; n *= 10) ticks.push(n);
  return ticks.length > 5 ? ticks.filter((_, i) => i % 2 === 0) : ticks;
}
