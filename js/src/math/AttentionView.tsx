// Attention as a table: the keys that the query looks at most, with score, weight, value and what each adds.

import { short, signed } from "../maps/format";
import type { Store } from "../state/store";
import { Bars } from "./Bars";
import { Matrix, reachOf } from "./Matrix";
import { type Found, workingOf } from "./working";

const SHOWN = 12;
const WIDE = 24;

export function AttentionView({ store, found }: { store: Store; found: Found }) {
  const working = workingOf(store);
  const { scores, weights, values, products, heads, query, keys } = found.arrays;
  if (!scores || !weights || !values || !products || !heads || !query || !keys) return null;
  const { head = 0, key_count: count = 0 } = found.meta;
  const order = [...weights.data.keys()].sort((a, b) => (weights.data[b] ?? 0) - (weights.data[a] ?? 0));
  const top = order.slice(0, SHOWN);
  const size = query.data.length;
  const grid = store.maps.value.data?.grid;
  const reach = Math.max(reachOf(query.data), reachOf(keys.data));
  const numbers = new Map(found.meta.numbers);
  return (
    <>
      {heads.data.length > 1 && (
        <Bars
          title="what each head adds; choose one"
          rows={[...heads.data].map((value, i) => ({ name: `head ${i}`, value }))}
          chosen={head}
          onChoose={(i) => {
            working.head.value = i;
          }}
        />
      )}
      <p class="nn-math-sum">
        <span>Σ {signed(numbers.get("sum") ?? 0)}</span>
        {numbers.has("bias") && <span>+ bias {signed(numbers.get("bias") ?? 0)}</span>}
        <strong>= {signed(found.meta.result ?? Number.NaN)}</strong>
      </p>
      {grid && count === grid.rows * grid.cols + grid.skip && (
        <figure>
          <Matrix
            label="weights on the patches"
            values={weights.data.subarray(grid.skip)}
            rows={grid.rows}
            columns={grid.cols}
            cell={Math.max(6, Math.min(20, Math.floor(200 / grid.cols)))}
            reach={reachOf(weights.data)}
          />
          <figcaption class="nn-soft">weights of head {head} on the patches</figcaption>
        </figure>
      )}
      <div class="nn-math-vectors">
        <span>query</span>
        <Matrix
          label="query"
          values={query.data.subarray(0, WIDE)}
          {...{ rows: 1, columns: Math.min(WIDE, size), cell: 9, reach }}
        />
      </div>
      <table class="nn-math-table" data-role="keys">
        <thead>
          <tr>
            <th>token</th>
            <th>key</th>
            <th>score</th>
            <th>weight</th>
            <th>× value</th>
            <th>adds</th>
          </tr>
        </thead>
        <tbody>
          {top.map((i) => (
            <tr key={i}>
              <th>{i}</th>
              <td>
                <Matrix
                  label={`key ${i}`}
                  values={keys.data.subarray(i * size, i * size + Math.min(10, size))}
                  {...{ rows: 1, columns: Math.min(10, size), cell: 7, reach }}
                />
              </td>
              <td>{short(scores.data[i] as number)}</td>
              <td>
                <span
                  class="nn-math-weight"
                  style={{ "--nn-share": `${100 * (weights.data[i] as number)}%` }}
                >
                  {(weights.data[i] as number).toFixed(3)}
                </span>
              </td>
              <td>{short(values.data[i] as number)}</td>
              <td>{signed(products.data[i] as number)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {count > top.length && (
        <p class="nn-soft">{`the ${top.length} of ${count} keys with the largest weights`}</p>
      )}
    </>
  );
}
