// The page of attributions: several methods on one input, or one method on several inputs or classes, in the same
// colours, so that they can be compared.

import { useComputed } from "@preact/signals";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { short } from "../maps/format";
import { Segments } from "../maps/Segments";
import { Changed } from "../panels/Changed";
import { PageHead } from "../panels/PageHead";
import type { Store } from "../state/store";
import { ExplainCard, title } from "./ExplainCard";
import { type Ask, BASELINES, type Compare, Explaining, NUMBER, type Scale, type Sign } from "./explaining";
import { reachOf } from "./floatMap";
import { JudgeTable } from "./JudgeTable";
import { Judging } from "./judging";

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
const kept = new WeakMap<Store, { explaining: Explaining; judging: Judging }>();

function keptOf(store: Store): { explaining: Explaining; judging: Judging } {
  let both = kept.get(store);
  if (!both) {
    const ask: Ask = (op, params, options) => store.request(op, params, options);
    const explaining = new Explaining(store.synced, store.changes, ask);
    both = { explaining, judging: new Judging(explaining, ask) };
    kept.set(store, both);
  }
  return both;
}

export function ExplainPanel({ store }: { store: Store }) {
  const { explaining, judging } = keptOf(store);
  const box = useRef<HTMLElement>(null);
  useLayoutEffect(() => {
    box.current?.focus();
    const ends = [explaining.follow(), judging.follow()];
    return () => {
      for (const end of ends) end();
    };
  }, [explaining, judging]);
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
      <Controls store={store} explaining={explaining} reach={reach} />
      <div class="nn-explain-scroll">
        {explaining.compare.value === "methods" && <MethodChips explaining={explaining} />}
        <div class="nn-explain-grid">
          {wishes.map((wish) => (
            <ExplainCard
              key={wish.key}
              store={store}
              explaining={explaining}
              judging={judging}
              wish={wish}
              reach={reach}
            />
          ))}
        </div>
        {wishes.length === 0 && <p class="nn-soft">Choose a method above.</p>}
        {explaining.compare.value === "methods" && wishes.length > 0 && <JudgeTable judging={judging} />}
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
  const classes = store.changes.predictions.value?.classes ?? [];
  const target = explaining.target.value;
  const compare = explaining.compare.value;
  const methods = explaining.known.value;
  return (
    <PageHead name="Explain" open={store.view.explain}>
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
      <Next explaining={explaining} />
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
      <Changed store={store} />
    </PageHead>
  );
}

/** What is explained of a language model. */
function Next({ explaining }: { explaining: Explaining }) {
  const metas = explaining.wishes.value.map((wish) => explaining.card(wish).value.meta);
  const told = explaining.compare.value === "methods" && metas.find((meta) => meta?.token != null);
  if (!told) return null;
  return <span class="nn-soft" data-role="next">{`why ${told.target} comes after token ${told.token}`}</span>;
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

function Controls({ store, explaining, reach }: Both & { reach: number | null }) {
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
      <Baseline store={store} explaining={explaining} />
      <AtLayer store={store} explaining={explaining} />
      <Slider label="clip" at={explaining.clip} low={80} high={100} step={0.5} unit=" %" />
      <Slider label="opacity" at={explaining.opacity} low={0.1} high={1} step={0.05} unit="" />
      <Files store={store} explaining={explaining} />
    </div>
  );
}

/** What the input is compared with, and a look at it. */
function Baseline({ store, explaining }: Both) {
  const { baseline, compared } = explaining;
  const now = baseline.value;
  const known = compared.value;
  const samples = Math.min(8, store.synced.info.value?.samples ?? 1);
  const picture = useRef<HTMLCanvasElement>(null);
  useLayoutEffect(() => {
    const context = picture.current?.getContext("2d");
    if (!context || !known) return;
    const { rgb, width, height } = known.image;
    context.putImageData(new ImageData(opaque(rgb), width, height), 0, 0);
  }, [known]);
  const drawn = known && known.image.width > 0 && known.image.height > 0;
  return (
    <>
      <label class="nn-field-of">
        <span class="nn-soft">baseline</span>
        <select
          aria-label="baseline"
          title="what the input is compared with"
          value={typeof now === "number" ? NUMBER : now}
          onChange={(event) => {
            const choice = event.currentTarget.value;
            baseline.value = choice === NUMBER ? middle(known) : choice;
          }}
        >
          {BASELINES.map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
          <option value={NUMBER}>one number</option>
          {Array.from({ length: samples }, (_, i) => (
            <option key={i} value={`sample:${i}`}>{`sample ${i}`}</option>
          ))}
        </select>
        {drawn && (
          <canvas
            ref={picture}
            class="nn-baseline"
            role="img"
            aria-label={`the baseline: ${now}`}
            data-baseline={now}
            width={known.image.width}
            height={known.image.height}
          />
        )}
      </label>
      {typeof now === "number" && known && (
        <Slider
          label="number"
          at={baseline as { value: number }}
          low={round(known.low)}
          high={round(known.high)}
          step={round((known.high - known.low) / 50)}
          unit=""
        />
      )}
    </>
  );
}

const round = (value: number) => Number(value.toPrecision(3));

function middle(known: { low: number; high: number } | null): number {
  return known ? round((known.low + known.high) / 2) : 0;
}

function opaque(rgb: Uint8Array): Uint8ClampedArray<ArrayBuffer> {
  const words = new Uint8ClampedArray((rgb.length / 3) * 4).fill(255);
  for (let i = 0, j = 0; i < rgb.length; i += 3, j += 4) words.set(rgb.subarray(i, i + 3), j);
  return words;
}

/** Whether methods that look at a layer take the one that is chosen in the graph. */
function AtLayer({ store, explaining }: Both) {
  const layer = store.synced.selection.value.layer;
  const looks = explaining.wishes.value.some(
    ({ method }) => "layer" in (explaining.info(method)?.options ?? {}),
  );
  if (layer === null || !looks) return null;
  return (
    <button
      type="button"
      class="nn-chip"
      aria-pressed={explaining.atLayer.value}
      title="maps of a layer (such as grad CAM): at the layer chosen in the graph, not at the one they choose"
      onClick={() => {
        explaining.atLayer.value = !explaining.atLayer.peek();
      }}
    >
      {`at ${layer}`}
    </button>
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

const FAMILIES: [string, string][] = [
  ["gradient", "gradients"],
  ["path", "on the way from a baseline"],
  ["cam", "class activation maps"],
  ["rectified", "rectified gradients"],
  ["perturbation", "change the input and see"],
  ["surrogate", "a simpler model"],
  ["layer", "layers and units"],
  ["attention", "attention"],
  ["relevance", "relevance"],
];

/** The chosen methods, each with a way out, and all others to choose from. */
function MethodChips({ explaining }: { explaining: Explaining }) {
  const chosen = explaining.chosen.value;
  const others = explaining.known.value.filter(({ name }) => !chosen.includes(name));
  const families = [...new Set(others.map(({ family }) => family))];
  return (
    <fieldset class="nn-explain-methods" aria-label="methods">
      {chosen.map((name) => (
        <button
          key={name}
          type="button"
          class="nn-chip"
          data-chosen={name}
          aria-pressed="true"
          title={`leave out. ${explaining.info(name)?.description ?? ""}`}
          onClick={() => explaining.toggle(name)}
        >
          {title(name)} <span aria-hidden="true">×</span>
        </button>
      ))}
      <select
        class="nn-explain-add"
        aria-label="add a method"
        value=""
        onChange={(event) => {
          explaining.toggle(event.currentTarget.value);
          event.currentTarget.value = "";
        }}
      >
        <option value="">add a method …</option>
        {families.map((family) => (
          <optgroup key={family} label={FAMILIES.find(([id]) => id === family)?.[1] ?? family}>
            {others
              .filter((method) => method.family === family)
              .map(({ name, description, cost }) => (
                <option key={name} value={name} title={`${description} Cost: ${cost}.`}>
                  {title(name)}
                </option>
              ))}
          </optgroup>
        ))}
      </select>
    </fieldset>
  );
}
