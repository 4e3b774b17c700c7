// The page of attributions: several methods on one input, or one method on several inputs or classes, in the same
// colours, so that they can be compared.

import { useComputed } from "@preact/signals";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { short } from "../maps/format";
import { Segments } from "../maps/Segments";
import type { Store } from "../state/store";
import { ExplainCard, title } from "./ExplainCard";
import { BASELINES, type Compare, Explaining, type Scale, type Sign } from "./explaining";
import { reachOf } from "./floatMap";

const COMPARE: [Compare, string][] = [
  ["methods", "methods"],
  ["samples", "samples"],
  ["classes", "classes"],
];
const SIGNS: [Sign, string][] = [
  ["signed", "signed"],
  ["absolute", "absolute"],
];
const SCALES: [Scale, string][] = [
  ["own", "own scale"],
  ["shared", "shared"],
];
const FILES: ["npz" | "png" | "svg", string][] = [
  ["npz", "arrays"],
  ["png", "PNG"],
  ["svg", "SVG"],
];

/** What was chosen on the page of each view, while that view lives. */
const kept = new WeakMap<Store, Explaining>();

function explainingOf(store: Store): Explaining {
  let explaining = kept.get(store);
  if (!explaining) {
    explaining = new Explaining(store.synced, (op, params, options) => store.request(op, params, options));
    kept.set(store, explaining);
  }
  return explaining;
}

export function ExplainPanel({ store }: { store: Store }) {
  const explaining = explainingOf(store);
  const box = useRef<HTMLElement>(null);
  useLayoutEffect(() => {
    box.current?.focus();
    return explaining.follow();
  }, [explaining]);
  const reach = useComputed(() => sharedReach(explaining)).value;
  const wishes = explaining.wishes.value;
  return (
    <section
      class="nn-explain"
      data-panel="explain"
      aria-label="explain"
      tabIndex={-1}
      ref={box}
      onKeyDown={(event) => {
        // Esc gives up the pinned place before the page.
        if (event.key !== "Escape" || !explaining.place.peek()?.pinned) return;
        explaining.place.value = null;
        event.stopPropagation();
      }}
    >
      <Head store={store} explaining={explaining} />
      <Controls explaining={explaining} reach={reach} />
      <div class="nn-explain-scroll">
        {explaining.compare.value === "methods" && <MethodChips explaining={explaining} />}
        <div class="nn-explain-grid">
          {wishes.map((wish) => (
            <ExplainCard key={wish.key} store={store} explaining={explaining} wish={wish} reach={reach} />
          ))}
        </div>
        {wishes.length === 0 && <p class="nn-soft">Choose a method above.</p>}
      </div>
    </section>
  );
}

/** How far the colours of all maps reach, where they share one range. */
function sharedReach(explaining: Explaining): number | null {
  if (explaining.scale.value === "own") return null;
  let reach = 0;
  for (const wish of explaining.wishes.value) {
    const card = explaining.card(wish).value;
    const map = explaining.sign.value === "signed" ? card.signed : card.magnitude;
    if (map) reach = Math.max(reach, reachOf(map, explaining.clip.value));
  }
  return reach;
}

interface Both {
  store: Store;
  explaining: Explaining;
}

function Head({ store, explaining }: Both) {
  const { synced } = store;
  const classes = synced.run.value?.predictions.classes ?? [];
  const target = explaining.target.value;
  const compare = explaining.compare.value;
  const methods = explaining.known.value;
  return (
    <header class="nn-explain-head">
      <h3>Explain</h3>
      {compare !== "classes" && classes.length > 0 && (
        <label class="nn-field-of">
          <span class="nn-soft">class</span>
          <select
            aria-label="class to explain"
            value={target === null ? "" : String(target)}
            onChange={(event) => store.selectClass(Number(event.currentTarget.value))}
          >
            {classes.map(({ index, name }) => (
              <option key={index} value={index}>
                {name}
              </option>
            ))}
          </select>
        </label>
      )}
      {compare !== "methods" && (
        <label class="nn-field-of">
          <span class="nn-soft">method</span>
          <select
            aria-label="method"
            value={explaining.method.value}
            onChange={(event) => {
              explaining.method.value = event.currentTarget.value;
            }}
          >
            {methods.map(({ name }) => (
              <option key={name} value={name}>
                {title(name)}
              </option>
            ))}
          </select>
        </label>
      )}
      <Segments
        label="compare"
        value={compare}
        options={COMPARE}
        onChoose={(choice) => {
          explaining.compare.value = choice;
        }}
      />
      <span class="nn-explain-gap" />
      <Files store={store} explaining={explaining} />
      <button
        type="button"
        class="nn-close"
        aria-label="close"
        title="back to the graph (Esc)"
        onClick={() => {
          store.view.explain.value = false;
        }}
      >
        ×
      </button>
    </header>
  );
}

function Files({ store, explaining }: Both) {
  const [busy, setBusy] = useState(false);
  const ready = explaining.wishes.value.some((wish) => explaining.card(wish).value.state === "ready");
  async function save(kind: "npz" | "png" | "svg"): Promise<void> {
    setBusy(true);
    try {
      const bytes = await explaining.file(kind);
      const many = kind === "npz" && bytes[2] === 3 && explaining.wishes.peek().length > 1;
      download(bytes, `attributions.${many ? "zip" : kind}`);
      store.view.announce.value = `attributions saved as ${kind}`;
    } catch (error) {
      store.view.announce.value = (error as Error).message;
    } finally {
      setBusy(false);
    }
  }
  return (
    <span class="nn-explain-files">
      {FILES.map(([kind, label]) => (
        <button
          key={kind}
          type="button"
          class="nn-chip"
          data-file={kind}
          disabled={!ready || busy}
          title={`save what is shown as ${kind}`}
          onClick={() => void save(kind)}
        >
          {label}
        </button>
      ))}
    </span>
  );
}

function download(bytes: Uint8Array, name: string): void {
  const url = URL.createObjectURL(new Blob([new Uint8Array(bytes)]));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function Controls({ explaining, reach }: { explaining: Explaining; reach: number | null }) {
  return (
    <div class="nn-explain-controls">
      <Segments
        label="sign"
        value={explaining.sign.value}
        options={SIGNS}
        onChoose={(choice) => {
          explaining.sign.value = choice;
        }}
      />
      <Segments
        label="scale"
        value={explaining.scale.value}
        options={SCALES}
        onChoose={(choice) => {
          explaining.scale.value = choice;
        }}
      />
      {reach !== null && <span class="nn-soft">± {short(reach)}</span>}
      <label class="nn-field-of">
        <span class="nn-soft">baseline</span>
        <select
          aria-label="baseline"
          value={explaining.baseline.value}
          onChange={(event) => {
            explaining.baseline.value = event.currentTarget.value;
          }}
        >
          {BASELINES.map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <Slider label="clip" at={explaining.clip} low={80} high={100} step={0.5} unit=" %" />
      <Slider label="opacity" at={explaining.opacity} low={0.1} high={1} step={0.05} unit="" />
    </div>
  );
}

interface SliderProps {
  label: string;
  at: { value: number };
  low: number;
  high: number;
  step: number;
  unit: string;
}

function Slider({ label, at, low, high, step, unit }: SliderProps) {
  return (
    <label class="nn-field-of">
      <span class="nn-soft">{label}</span>
      <input
        type="range"
        aria-label={label}
        min={low}
        max={high}
        step={step}
        value={at.value}
        onInput={(event) => {
          at.value = Number(event.currentTarget.value);
        }}
      />
      <span class="nn-slider-value">{`${at.value}${unit}`}</span>
    </label>
  );
}

/** Every method as a switch, by family. */
function MethodChips({ explaining }: { explaining: Explaining }) {
  const chosen = explaining.chosen.value;
  return (
    <fieldset class="nn-explain-methods" aria-label="methods">
      {explaining.known.value.map(({ name, description, cost }) => (
        <button
          key={name}
          type="button"
          class="nn-chip"
          data-method={name}
          aria-pressed={chosen.includes(name)}
          title={`${description} Cost: ${cost}.`}
          onClick={() => explaining.toggle(name)}
        >
          {title(name)}
        </button>
      ))}
    </fieldset>
  );
}
