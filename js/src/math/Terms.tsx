// How the number came about, each kind in its own picture.

import { useState } from "preact/hooks";
import { short, signed } from "../maps/format";
import type { Store } from "../state/store";
import { AttentionView } from "./AttentionView";
import { Bars } from "./Bars";
import { CurveView } from "./CurveView";
import { Matrix, reachOf } from "./Matrix";
import { type Found, workingOf } from "./working";

interface Props {
  store: Store;
  found: Found;
  width: number;
}

const GATES: Record<string, string[]> = {
  lstm: ["input gate i", "forget gate f", "candidate g", "output gate o"],
  gru: ["reset gate r", "update gate z", "candidate n"],
  rnn: ["sum"],
};

export function Terms(props: Props) {
  const { found, store } = props;
  const { kind } = found.meta;
  if (kind === "weighted_sum") return <WeightedSum {...props} />;
  if (kind === "choice") return <Choice {...props} />;
  if (kind === "attention") return <AttentionView {...props} />;
  return (
    <>
      <Operands store={store} found={found} />
      {kind === "function" && <CurveView store={store} found={found} />}
      <Steps found={found} />
      {kind === "normalisation" && <Members found={found} />}
      {kind === "softmax" && <Shares found={found} />}
      {kind === "gates" && <Gates found={found} />}
      {kind === "lookup" && found.arrays.row && <Row values={found.arrays.row.data} />}
    </>
  );
}

/** Products of one channel after the other, the one that counts most first, and their sum. */
function WeightedSum({ store, found, width }: Props) {
  const working = workingOf(store);
  const [entry, setEntry] = useState<number | null>(null);
  const { patch, kernel, products, channels, partial, inside } = found.arrays;
  if (!patch || !kernel || !products || !channels || !partial) return null;
  const [count = 0, rows = 1, columns = 1] = patch.shape;
  const area = rows * columns;
  const [patchReach, kernelReach, reach] = [patch.data, kernel.data, products.data].map(reachOf) as [
    number,
    number,
    number,
  ];
  const names = [...channels.data];
  const wish = working.open.value;
  const open = wish !== null && names.includes(wish) ? names.indexOf(wish) : 0;
  const cell = Math.max(7, Math.min(38, Math.floor((width - 70) / (3 * columns))));
  const many = found.meta.channel_count ?? count;
  const single = area === 1;
  const said = entry === null ? null : open * area + entry;
  return (
    <>
      {!single && (
        <div class="nn-math-matrices">
          <strong>{many > 1 ? `channel ${names[open]}` : "window"}</strong>
          <div>
            <Matrix
              label="patch"
              values={patch.data.subarray(open * area, (open + 1) * area)}
              {...{ rows, columns, cell, reach: patchReach, active: entry, onHover: setEntry }}
              inside={inside?.data}
            />
            <span>×</span>
            <Matrix
              label="kernel"
              values={kernel.data.subarray(open * area, (open + 1) * area)}
              {...{ rows, columns, cell, reach: kernelReach, active: entry, onHover: setEntry }}
            />
            <span>=</span>
            <Matrix
              label="products"
              values={products.data.subarray(open * area, (open + 1) * area)}
              {...{ rows, columns, cell, reach, active: entry, onHover: setEntry }}
              inside={inside?.data}
            />
          </div>
          <p class="nn-soft">
            {said === null
              ? `patch × kernel = products; they add up to ${signed(partial.data[open] ?? 0)}`
              : `${signed(patch.data[said] ?? 0)} × ${signed(kernel.data[said] ?? 0)} = ${signed(products.data[said] ?? 0)}`}
          </p>
        </div>
      )}
      <Sum found={found} />
      {many > 1 && (
        <Bars
          title={single ? "the largest products" : "what each channel adds, the largest first"}
          rows={names.map((name, i) => ({
            name: single ? `${name}` : `ch ${name}`,
            value: partial.data[i] as number,
            note: single ? `${short(patch.data[i] as number)} × ${short(kernel.data[i] as number)}` : "",
          }))}
          chosen={single ? null : open}
          onChoose={
            single
              ? undefined
              : (i) => {
                  working.open.value = names[i] as number;
                }
          }
          rest={many > names.length ? { count: many - names.length, value: found.meta.rest ?? 0 } : undefined}
        />
      )}
    </>
  );
}

/** The sum in one line: all channels, and the bias. */
function Sum({ found }: { found: Found }) {
  const numbers = new Map(found.meta.numbers);
  const bias = numbers.get("bias");
  return (
    <p class="nn-math-sum">
      <span>Σ {signed(numbers.get("sum") ?? 0)}</span>
      {bias !== undefined && <span>+ bias {signed(bias ?? 0)}</span>}
      <strong>= {signed(found.meta.result ?? Number.NaN)}</strong>
    </p>
  );
}

function Choice({ found, width }: Props) {
  const { patch, inside } = found.arrays;
  if (!patch) return null;
  const [, rows = 1, columns = 1] = patch.shape;
  const winner = new Map(found.meta.numbers).get("winner") ?? 0;
  const cell = Math.max(7, Math.min(48, Math.floor((width - 40) / columns)));
  return (
    <div class="nn-math-matrices">
      <Matrix
        label="patch"
        values={patch.data}
        {...{ rows, columns, cell, reach: reachOf(patch.data), chosen: winner }}
        inside={inside?.data}
      />
      <p class="nn-soft">The framed one is taken; all others are forgotten.</p>
    </div>
  );
}

/** The numbers that went in, each a way to where it stands. */
function Operands({ store, found }: { store: Store; found: Found }) {
  const { operands } = found.meta;
  if (operands.length === 0) return null;
  return (
    <ul class="nn-math-operands">
      {operands.map(({ name, value, node, index }) => (
        <li key={name}>
          <b>{name}</b> = {signed(value)}
          {node && (
            <button type="button" class="nn-link" onClick={() => store.selectLayer(node)}>
              {`${node} [${index.join(", ")}]`}
            </button>
          )}
        </li>
      ))}
    </ul>
  );
}

function Steps({ found }: { found: Found }) {
  const { numbers, kind } = found.meta;
  if (numbers.length === 0 || kind === "elementwise" || kind === "lookup") return null;
  return (
    <dl class="nn-math-steps">
      {numbers
        .filter(([name]) => name !== "place")
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{signed(value ?? Number.NaN)}</dd>
          </div>
        ))}
    </dl>
  );
}

const WIDE = 300;
const HIGH = 80;

/** The numbers that it is compared with. */
function Members({ found }: { found: Found }) {
  const { counts, edges } = found.arrays;
  if (!counts || !edges) return null;
  const numbers = new Map(found.meta.numbers);
  const [low = 0, high = 1] = [edges.data[0], edges.data[edges.data.length - 1]];
  const most = Math.max(1, ...counts.data);
  const place = (value: number) => ((value - low) / (high - low || 1)) * WIDE;
  const x = numbers.get("x") ?? 0;
  const mean = numbers.get("mean");
  return (
    <figure>
      <svg
        class="nn-math-chart"
        viewBox={`0 0 ${WIDE} ${HIGH}`}
        role="img"
        aria-label="what it is compared with"
      >
        {[...counts.data].map((count, i) => (
          <rect
            key={i}
            x={(i * WIDE) / counts.data.length}
            width={WIDE / counts.data.length - 0.5}
            y={HIGH - (HIGH * count) / most}
            height={(HIGH * count) / most}
          />
        ))}
        {mean !== undefined && (
          <line class="nn-math-mean" x1={place(mean ?? 0)} x2={place(mean ?? 0)} y2={HIGH} />
        )}
        <line class="nn-math-here" x1={place(x)} x2={place(x)} y2={HIGH} />
      </svg>
      <figcaption class="nn-soft">
        {short(low)} … {short(high)}: the numbers it is compared with; orange is this one
        {mean !== undefined && ", dashed their mean"}
      </figcaption>
    </figure>
  );
}

const SHOWN = 14;

function Shares({ found }: { found: Found }) {
  const { logits, exps, shares } = found.arrays;
  if (!logits || !exps || !shares) return null;
  const place = found.meta.place ?? 0;
  const order = [...shares.data.keys()].sort((a, b) => (shares.data[b] ?? 0) - (shares.data[a] ?? 0));
  const listed = [...new Set([...order.slice(0, SHOWN), place])];
  return (
    <Bars
      title="shares of one, the largest first"
      rows={listed.map((i) => ({
        name: `${i}`,
        value: shares.data[i] as number,
        note: `exp ${short(exps.data[i] as number)}`,
      }))}
      chosen={listed.indexOf(place)}
    />
  );
}

/** Each gate: what the input says, what the state says, and what comes of it. */
function Gates({ found }: { found: Found }) {
  const gates = found.arrays.gates;
  if (!gates) return null;
  const names = GATES[found.meta.op.split("_")[0] ?? ""] ?? [];
  return (
    <table class="nn-math-table">
      <thead>
        <tr>
          <th>gate</th>
          <th>input part</th>
          <th>hidden part</th>
          <th>bias</th>
          <th>sum</th>
        </tr>
      </thead>
      <tbody>
        {names.map((name, i) => (
          <tr key={name}>
            <th>{name}</th>
            {[0, 1, 2, 3].map((k) => (
              <td key={k}>{signed(gates.data[4 * i + k] as number)}</td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Row({ values }: { values: Float32Array }) {
  const shown = values.subarray(0, 256);
  const columns = Math.min(32, shown.length);
  return (
    <Matrix
      label="row of the table"
      values={shown}
      {...{ rows: Math.ceil(shown.length / columns), columns, cell: 11, reach: reachOf(shown) }}
    />
  );
}
