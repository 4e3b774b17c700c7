// How far to trust the maps: one table, always with two rows that know nothing of the model, and the curves behind it.

import { short } from "../maps/format";
import { RecomputedShare } from "../maps/Recomputed";
import { title } from "./ExplainCard";
import type { Judging } from "./judging";

const WIDTH = 250;
const HEIGHT = 130;
const PAD = 22;
const COLOURS = ["#1c7ed6", "#e8590c", "#0ca678", "#7048e8", "#d6336c", "#f08c00", "#1098ad", "#66a80f"];

export function JudgeTable({ judging }: { judging: Judging }) {
  const { open, table, error, running, known, chosen } = judging;
  const metrics = known.value.filter(({ name }) => chosen.value.includes(name));
  return (
    <section class="nn-judge" aria-label="how far to trust these maps" data-running={running.value}>
      <h3>
        <button
          type="button"
          class="nn-chip"
          aria-expanded={open.value}
          onClick={() => {
            open.value = !open.peek();
          }}
        >
          {open.value ? "▾" : "▸"} How far to trust them
        </button>
        {open.value && (
          <span class="nn-judge-metrics">
            {known.value.map(({ name, description, better, values }) => (
              <button
                key={name}
                type="button"
                class="nn-chip"
                data-metric={name}
                aria-pressed={chosen.value.includes(name)}
                title={`${description} Values: ${values}.${better && ` Better: ${better}.`}`}
                onClick={() => judging.toggle(name)}
              >
                {title(name)}
              </button>
            ))}
          </span>
        )}
      </h3>
      {open.value && error.value && (
        <p class="nn-explain-error" role="alert">
          {error.value.message} {error.value.hint}
        </p>
      )}
      {open.value && table.value && (
        <>
          <div class="nn-judge-scroll">
            <table>
              <thead>
                <tr>
                  <th scope="col">map</th>
                  {metrics.map(({ name, better, description }) => (
                    <th key={name} scope="col" title={description}>
                      {title(name)} {better === "higher" ? "↑" : better === "lower" ? "↓" : ""}
                    </th>
                  ))}
                </tr>
              </thead>
              <tbody>
                {table.value.rows.map((row, i) => (
                  <tr key={row.name} data-control={row.control} data-row={row.name}>
                    <th scope="row">
                      {!row.control && <i style={{ background: COLOURS[i % COLOURS.length] }} />}
                      {nameOf(row.name, row.control)}
                    </th>
                    {metrics.map(({ name, better }) => {
                      const value = row.values[name] ?? null;
                      return (
                        <td key={name} data-best={isBest(judging, row.name, name, better)}>
                          {value === null ? "–" : short(value)}
                        </td>
                      );
                    })}
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          <p class="nn-soft">
            ↑ higher is better, ↓ lower is better. The rows random and center know nothing of the model: a map
            that is no better than they are tells nothing. {table.value.notes.join(" ")}{" "}
            <RecomputedShare of={table.value.recomputed} />
          </p>
          <div class="nn-judge-curves">
            {Object.entries(table.value.curves).map(([name, rows]) => (
              <Curves
                key={name}
                name={name}
                rows={rows}
                order={(table.value?.rows ?? []).map((row) => row.name)}
              />
            ))}
          </div>
        </>
      )}
      {open.value && !table.value && !error.value && (
        <p class="nn-soft">{running.value ? "computing …" : "It is computed when all maps are there."}</p>
      )}
    </section>
  );
}

/** What a row is called: its method, and the options that its key tells between target and epoch. */
export function nameOf(key: string, control: boolean): string {
  const [method = key, ...told] = key.split(" · ");
  return control ? key : [title(method), ...told.slice(2, -1)].join(" · ");
}

/** Whether a map is the best of its column; controls are no maps. */
function isBest({ table }: Judging, name: string, metric: string, better: string): boolean {
  const rows = (table.value?.rows ?? []).filter((row) => !row.control && row.values[metric] !== null);
  if (better === "" || rows.length < 2 || !rows.some((row) => row.name === name)) return false;
  const sign = better === "higher" ? 1 : -1;
  const best = Math.max(...rows.map((row) => sign * (row.values[metric] as number)));
  return sign * (rows.find((row) => row.name === name)?.values[metric] as number) === best;
}

interface CurvesProps {
  name: string;
  rows: Record<string, { x: number[]; y: number[] }>;
  order: string[];
}

function Curves({ name, rows, order }: CurvesProps) {
  const all = Object.values(rows).flatMap(({ y }) => y.filter(Number.isFinite));
  const [low, high] = [Math.min(0, ...all), Math.max(1e-9, ...all)];
  const right = Math.max(1e-9, ...Object.values(rows).flatMap(({ x }) => x));
  const at = (x: number, y: number) =>
    `${(PAD + (x / right) * (WIDTH - PAD - 4)).toFixed(1)},${(HEIGHT - PAD + 6 - ((y - low) / (high - low)) * (HEIGHT - PAD - 4)).toFixed(1)}`;
  return (
    <figure>
      <figcaption>{title(name)}</figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`curves of ${title(name)}`}>
        <path class="nn-judge-axis" d={`M${PAD} 4V${HEIGHT - PAD + 6}H${WIDTH - 4}`} />
        <text x="2" y="10">
          {short(high)}
        </text>
        <text x="2" y={HEIGHT - PAD + 8}>
          {short(low)}
        </text>
        <text x={WIDTH - 4} y={HEIGHT - 3} text-anchor="end">
          {name === "parameter_randomisation" ? "layers made random" : "share of positions"}
        </text>
        {order
          .filter((row) => rows[row])
          .map((row) => {
            const { x, y } = rows[row] as { x: number[]; y: number[] };
            const control = row === "random" || row === "center";
            return (
              <polyline
                key={row}
                points={x.map((one, i) => at(one, y[i] as number)).join(" ")}
                stroke={control ? "var(--nn-other)" : COLOURS[order.indexOf(row) % COLOURS.length]}
                stroke-dasharray={row === "random" ? "4 3" : row === "center" ? "1 3" : undefined}
              >
                <title>{nameOf(row, control)}</title>
              </polyline>
            );
          })}
      </svg>
    </figure>
  );
}
