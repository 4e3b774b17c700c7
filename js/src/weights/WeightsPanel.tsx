// The page: kernels as tiles or a matrix to read, how they are distributed, and one weight to change.

import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { percent, shape, short, signed } from "../maps/format";
import { Segments } from "../maps/Segments";
import { Matrix, reachOf } from "../math/Matrix";
import type { Store } from "../state/store";
import type { Learned, Reply } from "../wire/types";
import { Chart } from "./Chart";
import { Tile } from "./Tile";
import { moved, type Weighing, weighingOf } from "./weighing";

type Arrays = Reply<"weights">["arrays"];

export function WeightsPanel({ store }: { store: Store }) {
  const weighing = weighingOf(store);
  const root = useRef<HTMLElement>(null);
  const [width, setWidth] = useState(440);
  useLayoutEffect(() => weighing.follow(), [weighing]);
  useLayoutEffect(() => {
    const element = root.current;
    if (!element) return;
    const watch = new ResizeObserver(() => setWidth(element.clientWidth));
    watch.observe(element);
    return () => watch.disconnect();
  }, []);
  const { state, data, error } = weighing.weights.value;
  return (
    <section
      class="nn-weights"
      data-panel="weights"
      data-layer={data?.meta.layer}
      data-changes={data?.meta.changes.length}
      aria-label="weights"
      ref={root}
    >
      {state === "idle" && <p class="nn-calm">reading the weights …</p>}
      {state === "error" && (
        <p class="nn-calm">
          {error?.message} {error?.hint}
        </p>
      )}
      {data && (
        <>
          <Head weighing={weighing} meta={data.meta} />
          <Edit store={store} weighing={weighing} meta={data.meta} />
          {store.changes.made.value && (
            <p class="nn-soft" data-role="unmoved">
              Interventions change what layers give, not what they have learned: the weights are the same with
              and without.
            </p>
          )}
          <div class="nn-math-scroll">
            {data.meta.picture === "tiles" ? (
              <Tiles weighing={weighing} meta={data.meta} arrays={data.arrays} width={width} />
            ) : (
              <Table weighing={weighing} meta={data.meta} arrays={data.arrays} width={width} />
            )}
            <Alike weighing={weighing} meta={data.meta} />
            <Numbers meta={data.meta} arrays={data.arrays} />
          </div>
        </>
      )}
    </section>
  );
}

function Head({ weighing, meta }: { weighing: Weighing; meta: Learned }) {
  return (
    <div class="nn-weights-head">
      {meta.names.length <= 4 ? (
        <Segments
          label="which weights"
          value={meta.name}
          options={meta.names.map((name) => [name, name] as const)}
          onChoose={(name) => {
            weighing.chosen.value = null;
            weighing.name.value = name;
          }}
        />
      ) : (
        <select
          aria-label="which weights"
          value={meta.name}
          onChange={(event) => {
            weighing.chosen.value = null;
            weighing.name.value = event.currentTarget.value;
          }}
        >
          {meta.names.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      )}
      <span class="nn-soft">{shape(meta.shape)}</span>
    </div>
  );
}

/** The chosen entry, its value to type, and what the changes did. */
function Edit({ store, weighing, meta }: { store: Store; weighing: Weighing; meta: Learned }) {
  const chosen = weighing.chosen.value;
  const before = weighing.before.value;
  const run = store.synced.run.value;
  const now = store.changes.predictions.value;
  const { changes } = meta;
  const fits = run?.sample === before?.sample && store.changes.key.value === before?.key;
  const gains = before && now && fits && changes.length > 0 ? moved(before.classes, now.classes) : [];
  return (
    <div class="nn-weights-edit">
      {chosen ? (
        <label>
          {`${meta.name}[${chosen.index.join(", ")}]`}
          <input
            type="number"
            step="any"
            aria-label="value of the chosen weight"
            key={chosen.index.join()}
            value={Number(chosen.value.toPrecision(6))}
            onChange={(event) => void weighing.change(event.currentTarget.valueAsNumber)}
          />
          <button type="button" class="nn-chip" onClick={() => void weighing.change(0)}>
            zero
          </button>
          <button type="button" class="nn-chip" onClick={() => void weighing.change(-chosen.value)}>
            flip sign
          </button>
        </label>
      ) : (
        <span class="nn-soft">
          Click a weight to change it: on a private copy, your model stays as it is.
        </span>
      )}
      {changes.length > 0 && (
        <button type="button" class="nn-chip" data-role="reset" onClick={() => void weighing.reset()}>
          {`reset ${changes.length} change${changes.length > 1 ? "s" : ""}`}
        </button>
      )}
      {weighing.refused.value && <p class="nn-math-note">{weighing.refused.value}</p>}
      {gains.length > 0 && (
        <ul data-role="gains">
          {gains.map(({ name, prob, gain }) => (
            <li key={name}>
              {name} {percent(prob)}{" "}
              <b
                data-gain={gain < 0 ? "less" : "more"}
              >{`${signed(Number((100 * gain).toPrecision(3)))} points`}</b>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

interface Pictured {
  weighing: Weighing;
  meta: Learned;
  arrays: Arrays;
  width: number;
}

/** A tile for each filter; of the chosen one all slices, every weight to read. */
function Tiles({ weighing, meta, arrays, width }: Pictured) {
  const { tiles, slices, strongest } = arrays;
  const [filters = 0, into = 0] = meta.kernel_shape ?? [];
  if (!tiles || !slices) return null;
  const [count = 0, depth = 1, rows = 1, columns = 1] = tiles.shape;
  const area = rows * columns;
  const dead = new Set(meta.dead);
  const alike = new Set(meta.duplicates.flatMap((pair) => pair.slice(0, 2)));
  const number = meta.filter ?? 0;
  const reach = reachOf(tiles.data);
  const chosen = weighing.chosen.value?.index;
  const cell = Math.max(8, Math.min(34, Math.floor((width - 40) / (columns * Math.min(3, into)))));
  const [shown = 0] = slices.shape;
  return (
    <>
      <p class="nn-soft">
        {filters} filters
        {meta.colours
          ? " in the colours they look for"
          : strongest && into > 1 && `, each by the one of its ${into} inputs that counts most`}
        {count < filters && `; the first ${count}`}
      </p>
      <div class="nn-weights-tiles">
        {Array.from({ length: count }, (_, i) => (
          <button
            key={i}
            type="button"
            data-filter={i}
            data-dead={dead.has(i) || undefined}
            data-alike={alike.has(i) || undefined}
            aria-pressed={i === number}
            aria-label={`filter ${i}${dead.has(i) ? ", dead" : ""}${alike.has(i) ? ", has a duplicate" : ""}`}
            title={`filter ${i}, norm ${short(arrays.norms.data[i] ?? 0)}${strongest ? `, input ${strongest.data[i]}` : ""}`}
            onClick={() => {
              weighing.chosen.value = null;
              weighing.filter.value = i;
            }}
          >
            <Tile
              values={tiles.data.subarray(i * depth * area, (i + 1) * depth * area)}
              {...{ depth, rows, columns, reach }}
            />
          </button>
        ))}
      </div>
      <p class="nn-soft">
        filter {number}: {into} input{into === 1 ? "" : "s"}, norm {short(arrays.norms.data[number] ?? 0)}
      </p>
      <div class="nn-weights-slices">
        {Array.from({ length: shown }, (_, c) => {
          const values = slices.data.subarray(c * area, (c + 1) * area);
          const here = chosen && chosen[0] === number && chosen[1] === c;
          return (
            <figure key={c}>
              <Matrix
                label={`filter ${number}, input ${c}`}
                values={values}
                {...{ rows, columns, cell, reach: reachOf(slices.data) }}
                chosen={here ? (chosen[2] as number) * columns + (chosen[3] as number) : null}
                onChoose={(entry) => {
                  const at = [Math.floor(entry / columns), entry % columns];
                  weighing.chosen.value = { index: [number, c, ...at], value: values[entry] as number };
                }}
              />
              <figcaption class="nn-soft">{c}</figcaption>
            </figure>
          );
        })}
      </div>
    </>
  );
}

/** A part of a matrix, with the numbers of its rows and columns; a vector is one row. */
function Table({ weighing, meta, arrays, width }: Pictured) {
  const { matrix } = arrays;
  const [hover, setHover] = useState<number | null>(null);
  if (!matrix) return null;
  const [rows = 1, columns = 1] = matrix.shape;
  const all = meta.kernel_shape ?? [1, meta.shape.reduce((a, b) => a * b, 1)];
  const [top, left] = [meta.row ?? 0, meta.column ?? 0];
  const cell = Math.max(
    4,
    Math.min(34, Math.floor((width - 50) / columns), Math.max(14, Math.floor(300 / rows))),
  );
  const chosen = weighing.chosen.value?.index;
  const at = (entry: number) => [top + Math.floor(entry / columns), left + (entry % columns)];
  const said = hover === null ? null : at(hover);
  return (
    <>
      <div class="nn-weights-pan">
        <Pan name="row" of={weighing.row} from={top} shown={rows} all={all[0] ?? 1} />
        <Pan name="column" of={weighing.column} from={left} shown={columns} all={all[1] ?? 1} />
      </div>
      <Matrix
        label={`${meta.name}, outputs by inputs`}
        values={matrix.data}
        {...{ rows, columns, cell, reach: reachOf(matrix.data) }}
        chosen={chosen ? ((chosen[0] as number) - top) * columns + (chosen[1] as number) - left : null}
        active={hover}
        onHover={setHover}
        onChoose={(entry) => {
          weighing.chosen.value = { index: at(entry), value: matrix.data[entry] as number };
        }}
      />
      <p class="nn-soft">
        {said && hover !== null
          ? `output ${said[0]}, input ${said[1]}: ${signed(matrix.data[hover] as number)}`
          : meta.kernel_shape
            ? "rows are outputs, columns are inputs"
            : "one number for each channel"}
      </p>
    </>
  );
}

interface PanProps {
  name: string;
  of: { value: number };
  from: number;
  shown: number;
  all: number;
}

function Pan({ name, of, from, shown, all }: PanProps) {
  if (shown >= all) return <span class="nn-soft">{`${all} ${name}${all > 1 ? "s" : ""}`}</span>;
  return (
    <label class="nn-soft">
      {`${name}s ${from} to ${from + shown - 1} of ${all}`}
      <input
        type="range"
        aria-label={`first ${name}`}
        min={0}
        max={all - shown}
        value={from}
        onInput={(event) => {
          of.value = event.currentTarget.valueAsNumber;
        }}
      />
    </label>
  );
}

const LISTED = 12;

/** Filters that do nothing, and those that do the same. */
function Alike({ weighing, meta }: { weighing: Weighing; meta: Learned }) {
  if (meta.kernel_shape === null) return null;
  const go = (filter: number) => {
    if (meta.picture === "tiles") weighing.filter.value = filter;
    else weighing.row.value = filter;
  };
  return (
    <div class="nn-weights-alike">
      <p data-role="dead">
        {meta.dead.length === 0
          ? "No dead filter (norm about zero)."
          : `${meta.dead.length} dead: norm about zero. `}
        {meta.dead.slice(0, LISTED).map((i) => (
          <button key={i} type="button" class="nn-link" onClick={() => go(i)}>
            {i}
          </button>
        ))}
      </p>
      <p data-role="duplicates">
        {meta.duplicates.length === 0
          ? "No two filters point the same way (cosine above 0.99)."
          : `${meta.duplicates.length} pairs point the same way (cosine above 0.99): `}
        {meta.duplicates.slice(0, LISTED).map(([a, b, cosine]) => (
          <button
            key={`${a},${b}`}
            type="button"
            class="nn-link"
            title={`cosine ${cosine.toFixed(4)}`}
            onClick={() => go(a)}
          >
            {`${a} and ${b}`}
          </button>
        ))}
      </p>
      {meta.notes.map((note) => (
        <p key={note}>{note}</p>
      ))}
    </div>
  );
}

function Numbers({ meta, arrays }: { meta: Learned; arrays: Arrays }) {
  const number = (value: number | null) => short(value ?? Number.NaN);
  const norms = Float32Array.from(arrays.norms.data).sort().reverse();
  return (
    <div class="nn-weights-charts">
      <Chart
        title="distribution"
        values={[...arrays.counts.data].map(Math.sqrt)}
        note={`${number(meta.low)} … ${number(meta.high)}, mean ${number(meta.mean)}, std ${number(meta.std)}${meta.zeros > 0 ? `, ${percent(meta.zeros)} zeros` : ""}`}
      />
      {meta.kernel_shape && (
        <Chart
          title="norms of the filters, sorted"
          values={norms}
          note={`${short(norms[norms.length - 1] ?? 0)} … ${short(norms[0] ?? 0)}`}
        />
      )}
      {arrays.singular && (
        <Chart
          title="singular values"
          values={arrays.singular.data}
          note={`${arrays.singular.data.length} of them, the largest ${short(arrays.singular.data[0] ?? 0)}, the smallest ${short(arrays.singular.data[arrays.singular.data.length - 1] ?? 0)}`}
        />
      )}
    </div>
  );
}
