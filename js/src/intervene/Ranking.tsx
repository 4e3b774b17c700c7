// Which channels of the selected layer matter most for the class: knocked out one by one, the list fills as they are.

import { percent, signed } from "../maps/format";
import { RecomputedShare } from "../maps/Recomputed";
import { Segments } from "../maps/Segments";
import type { Store } from "../state/store";
import { attends, type KnockOuts, type Ranked } from "./knocking";
import type { Shelf } from "./shelf";

const SHOWN = 40;

export function Ranking({ store, shelf, knocks }: { store: Store; shelf: Shelf; knocks: KnockOuts }) {
  const { layer, class: picked } = store.synced.selection.value;
  const run = store.synced.run.value;
  if (layer === null || !run) return null;
  const classes = run.predictions.classes;
  const target = picked ?? classes[0]?.index ?? null;
  const nameOf = (of: number | null) => classes.find(({ index }) => index === of)?.name;
  const known = knocks.found.value;
  const found = known?.layer === layer && known.run === run.run ? known : null;
  const running = knocks.running.value;
  const reach = Math.max(1e-12, ...(found?.rows ?? []).map(({ effect }) => Math.abs(effect)));
  return (
    <section
      class="nn-knock"
      aria-label="knock-outs"
      data-running={running}
      data-done={found?.meta.progress === 1}
    >
      <h4>
        What matters for {nameOf(target) ?? "the best class"}
        <button
          type="button"
          class="nn-chip"
          data-role="knock"
          title="ablate each in turn, and see how far the score falls"
          onClick={() => (running ? knocks.stop() : void knocks.start(layer, run, target))}
        >
          {running ? "stop" : "rank"}
        </button>
        {(knocks.heads.value || attends(store.nodes.value.values())) && (
          <Segments
            label="what is knocked out"
            value={knocks.heads.value ? "heads" : "channels"}
            options={[
              ["channels", "channels"],
              ["heads", "heads"],
            ]}
            onChoose={(choice) => {
              knocks.heads.value = choice === "heads";
            }}
          />
        )}
        <Segments
          label="knocked out by"
          value={knocks.value.value}
          options={[
            ["zero", "zero"],
            ["mean", "mean"],
          ]}
          onChoose={(choice) => {
            knocks.value.value = choice;
          }}
        />
      </h4>
      {running && <progress aria-label="knocked out" value={found?.meta.progress ?? 0} max={1} />}
      {knocks.error.value && (
        <p class="nn-change-error" role="alert">
          {knocks.error.value}
        </p>
      )}
      {found && target !== null && found.meta.target !== target && (
        <p class="nn-soft">This is what matters for {nameOf(found.meta.target) ?? found.meta.target}:</p>
      )}
      {found && (
        <ol>
          {found.rows.slice(0, SHOWN).map((row) => (
            <Row key={row.index} store={store} shelf={shelf} knocks={knocks} row={row} reach={reach} />
          ))}
        </ol>
      )}
      <RecomputedShare of={found?.meta.recomputed} />
      {found && found.rows.length > SHOWN && (
        <p class="nn-soft">and {found.rows.length - SHOWN} that matter less</p>
      )}
    </section>
  );
}

interface RowProps {
  store: Store;
  shelf: Shelf;
  knocks: KnockOuts;
  row: Ranked;
  reach: number;
}

function Row({ store, shelf, knocks, row, reach }: RowProps) {
  const found = knocks.found.value;
  if (!found) return null;
  const part = found.heads ? "head" : "channel";
  const { index, effect, share } = row;
  const gone = shelf.ablating(found.layer, part, index) !== undefined;
  const told = share === null ? "" : `, ${percent(Math.abs(share))} ${share < 0 ? "more" : "less"} likely`;
  return (
    <li>
      <button
        type="button"
        data-knock={index}
        aria-pressed={gone}
        title={`without ${part} ${index} the score changes by ${signed(-effect)}${told}; click to ablate it`}
        onClick={() => {
          shelf.toggleAblation(found.layer, part, index, knocks.value.peek());
          if (part === "channel" && !gone) store.selectChannel(index);
        }}
      >
        <span>
          {part} {index}
        </span>
        <span class="nn-knock-bar" data-sign={Math.sign(effect)}>
          <i style={{ width: `${(100 * Math.abs(effect)) / reach}%` }} />
        </span>
        <span>{signed(-effect)}</span>
      </button>
    </li>
  );
}
