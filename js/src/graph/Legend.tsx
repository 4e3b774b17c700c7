// What the cards are coloured by, to choose, and what the colours mean. Both ends of a scale lead to their layers.

import { useComputed } from "@preact/signals";
import type { Graph } from "../state/synced";
import { COLOURINGS, type ColourBy } from "../state/view";
import {
  type Colours,
  coloursOf,
  type Extreme,
  familiesOf,
  MEASURES,
  placeOn,
  ramp,
  type Scale,
  spellValue,
} from "./colouring";
import type { GraphController } from "./controller";
import { nameOf } from "./words";

const STEPS = 24;

export function Colouring({ graph }: { graph: GraphController }) {
  const { store } = graph;
  const { colour } = store.view;
  const kind = store.synced.graph.value?.kind;
  return (
    <div class="nn-colour">
      <label class="nn-colour-by">
        {colour.value && <span>colour by</span>}
        <select
          aria-label="colour by"
          value={colour.value ?? ""}
          onChange={(event) => {
            colour.value = (event.currentTarget.value || null) as ColourBy | null;
          }}
        >
          <option value="">{colour.value ? "nothing" : "colour by"}</option>
          {COLOURINGS.map((by) => (
            <option key={by} value={by} disabled={!isKnown(by, kind)}>
              {MEASURES[by].title}
            </option>
          ))}
        </select>
      </label>
      {colour.value && <Legend graph={graph} by={colour.value} />}
    </div>
  );
}

/** Shapes alone have no values, and modules alone neither shapes nor work. */
function isKnown(by: ColourBy, kind: Graph["kind"]): boolean {
  if (kind === "tree") return by === "type" || by === "params";
  return kind !== "shapes" || !["time", "mean", "dead"].includes(by);
}

function Legend({ graph, by }: { graph: GraphController; by: ColourBy }) {
  const colours = coloursOf(graph).value;
  const { title, note } = MEASURES[by];
  const scale = colours?.scale;
  return (
    <section class="nn-key" aria-label={`legend: ${title}`} data-by={by}>
      {/* Files have no choice above it to say what it is. */}
      <b hidden>{title}</b>
      {note.map((line) => (
        <small key={line}>{scale?.log ? `${line}, log scale` : line}</small>
      ))}
      {by === "type" ? (
        <Families graph={graph} />
      ) : (
        scale && <Ramp graph={graph} colours={colours} scale={scale} />
      )}
      <Progress graph={graph} by={by} empty={!scale} />
    </section>
  );
}

function Families({ graph }: { graph: GraphController }) {
  const drawn = graph.hierarchy.value?.graph;
  return (
    <ul>
      {drawn &&
        familiesOf(drawn).map(([category, name]) => (
          <li key={category}>
            <i style={{ backgroundColor: `var(--nn-${category})` }} />
            <span>{name}</span>
          </li>
        ))}
    </ul>
  );
}

function Ramp({ graph, colours, scale }: { graph: GraphController; colours: Colours; scale: Scale }) {
  const { by, least, most } = colours;
  return (
    <>
      <div class="nn-key-ramp">
        {ramp(scale, STEPS).map((colour, at) => (
          <i key={at} style={{ backgroundColor: colour }} />
        ))}
        {[least, most].map((end) => end && <Tick key={end.id} scale={scale} value={end.value} />)}
      </div>
      <div class="nn-key-ends">
        <span>{spellValue(by, scale.low)}</span>
        <span>{spellValue(by, scale.high)}</span>
      </div>
      <End graph={graph} by={by} word="least" end={least} />
      <End graph={graph} by={by} word="most" end={most} />
    </>
  );
}

function Tick({ scale, value }: { scale: Scale; value: number }) {
  const place = placeOn(scale, value);
  return <u style={{ left: `${100 * (scale.signed ? (place + 1) / 2 : place)}%` }} />;
}

function End({
  graph,
  by,
  word,
  end,
}: {
  graph: GraphController;
  by: ColourBy;
  word: string;
  end: Extreme | null;
}) {
  const item = end && graph.itemOf(end.id, graph.hierarchy.value);
  if (!item) return null;
  const value = spellValue(by, end.value);
  return (
    <button
      type="button"
      data-end={word}
      title={`go to ${end.id}`}
      aria-label={`${word} ${MEASURES[by].title}: ${value}, ${end.id}, go there`}
      onClick={() => go(graph, end.id)}
    >
      <span>{word}</span>
      <b>{value}</b>
      <em>{nameOf(item)}</em>
    </button>
  );
}

function go(graph: GraphController, id: string): void {
  graph.reveal(id);
  const item = graph.itemOf(id);
  if (!item) return;
  graph.select(item);
  graph.store.view.announce.value = `${nameOf(item)} chosen`;
}

/** What there is to wait for, to do, or to know, where there are no numbers yet. */
function Progress({ graph, by, empty }: { graph: GraphController; by: ColourBy; empty: boolean }) {
  const { measuring } = graph.store;
  const { state, progress, error } = measuring.found.value;
  const asked = useComputed(() => measuring.fits(by));
  if (by === "type") return null;
  if (by !== "time" && by !== "mean" && by !== "dead") return empty ? <p>nothing to show</p> : null;
  if (state === "loading") {
    return (
      <p>
        measuring{progress ? ` ${progress.done}/${progress.total}` : ""}{" "}
        <button type="button" onClick={() => measuring.cancel()}>
          stop
        </button>
      </p>
    );
  }
  return (
    <>
      {state === "error" ? <p role="alert">{error?.message}</p> : !asked.value && <p>not measured</p>}
      {(by === "time" || state === "error" || !asked.value) && (
        <p>
          <button type="button" onClick={() => void measuring.measure()}>
            {asked.value ? "measure again" : "measure"}
          </button>
        </p>
      )}
    </>
  );
}
