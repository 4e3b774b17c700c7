// What would have to change for another answer: a changed picture as it forms, and the change, magnified.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { percent } from "../maps/format";
import { Segments } from "../maps/Segments";
import type { Store } from "../state/store";
import { isCancelled } from "../wire/client";
import type { Operations, Part } from "../wire/types";

type Params = Operations["counterfactual"]["params"];
type Method = Params["method"];
type Norm = Params["norm"];

const METHODS: [Method, string][] = [
  ["gradient", "smallest"],
  ["fgsm", "FGSM"],
  ["pgd", "PGD"],
];
const NORMS: [Norm, string][] = [
  ["linf", "L∞"],
  ["l2", "L2"],
];

interface Shown {
  rgb: Uint8Array;
  size: [number, number];
  difference: Float32Array;
  meta: Operations["counterfactual"]["meta"];
}

export function Counterfactual({ store }: { store: Store }) {
  const run = store.synced.run.value;
  const [target, setTarget] = useState<number | null>(null);
  const [method, setMethod] = useState<Method>("pgd");
  const [norm, setNorm] = useState<Norm>("linf");
  const [budget, setBudget] = useState(8);
  const [shown, setShown] = useState<Shown | null>(null);
  const [state, setState] = useState<"idle" | "busy" | "ready">("idle");
  const [error, setError] = useState("");
  const stop = useRef<AbortController | null>(null);
  useEffect(() => () => stop.current?.abort(), []);
  useEffect(() => {
    stop.current?.abort();
    setShown(null);
    setState("idle");
  }, [store.picture.value]);
  const classes = store.changes.predictions.value?.classes ?? [];
  const all = store.synced.info.value?.class_names;
  const choices = all
    ? all.map((name, index) => ({ index, name }))
    : classes.map(({ index, name }) => ({ index, name }));
  if (!run || classes.length === 0 || store.input.value?.kind !== "image") return null;
  const now = classes[0];

  async function search(): Promise<void> {
    if (!run) return;
    stop.current?.abort();
    const control = new AbortController();
    stop.current = control;
    setState("busy");
    setError("");
    const most = norm === "linf" ? budget / 255 : budget;
    let kept: Shown | null = null;
    const take = (part: Part<"counterfactual">) => {
      const { rgb, difference } = part.arrays;
      if (!part.meta || !rgb || !difference) return;
      const [h = 0, w = 0] = rgb.shape;
      kept = { rgb: rgb.data, size: [h, w], difference: difference.data, meta: part.meta };
      setShown(kept);
    };
    try {
      await store.request(
        "counterfactual",
        { sample: run.sample, target, method, norm, budget: most, steps: 40, ...store.changes.params },
        { slot: "explain change", signal: control.signal, onChunk: take },
      );
      setState("ready");
    } catch (reason) {
      if (isCancelled(reason)) return;
      setState("idle");
      setError((reason as Error).message);
    }
  }

  // The button stays enabled meanwhile: one that is not loses the focus, and with it the keys.
  function cancel(): void {
    stop.current?.abort();
    setState("idle");
  }

  return (
    <section class="nn-output-part" data-role="counterfactual" data-state={state}>
      <h4>What would change the answer</h4>
      <div class="nn-output-row">
        <label>
          to{" "}
          <select
            aria-label="class wanted"
            value={target === null ? "" : String(target)}
            onChange={(event) =>
              setTarget(event.currentTarget.value === "" ? null : Number(event.currentTarget.value))
            }
          >
            <option value="">any but {now?.name}</option>
            {choices
              .filter(({ index }) => index !== now?.index)
              .map(({ index, name }) => (
                <option key={index} value={index}>
                  {name}
                </option>
              ))}
          </select>
        </label>
        <Segments label="method" value={method} options={METHODS} onChoose={(one) => setMethod(one)} />
        <Segments
          label="norm"
          value={norm}
          options={NORMS}
          onChoose={(one) => {
            setNorm(one);
            setBudget(one === "linf" ? 8 : 2);
          }}
        />
        <label
          title={norm === "linf" ? "no value moves further than this" : "length of all changes together"}
        >
          at most{" "}
          <input
            type="number"
            aria-label="budget"
            min={0.1}
            max={norm === "linf" ? 255 : 100}
            step={norm === "linf" ? 1 : 0.5}
            value={budget}
            onInput={(event) => setBudget(Math.max(0.01, Number(event.currentTarget.value) || 0.01))}
          />{" "}
          {norm === "linf" ? "/ 255" : ""}
        </label>
        <button type="button" class="nn-chip" onClick={() => (state === "busy" ? cancel() : void search())}>
          {state === "busy" ? "stop" : "search"}
        </button>
      </div>
      {error && (
        <p class="nn-caption nn-caption-bad" role="alert">
          {error}
        </p>
      )}
      {shown ? (
        <Pictures shown={shown} />
      ) : (
        <p class="nn-soft">A small change that a person hardly sees may do.</p>
      )}
    </section>
  );
}

function Pictures({ shown }: { shown: Shown }) {
  const { meta, size, rgb, difference } = shown;
  const times = magnification(difference);
  const added = difference.map((value) => 127.5 + 127.5 * Math.max(-1, Math.min(1, value * times)));
  return (
    <div class="nn-output-pictures" data-success={meta.success}>
      <figure>
        <Bytes bytes={rgb} size={size} label="the changed picture" />
        <figcaption>changed</figcaption>
      </figure>
      <figure>
        <Bytes bytes={Uint8Array.from(added, Math.round)} size={size} label="what was added, magnified" />
        <figcaption>added, ×{times >= 10 ? times.toFixed(0) : times.toFixed(1)}</figcaption>
      </figure>
      <div>
        <p data-role="verdict">
          {meta.success ? (
            <>
              now <strong>{meta.classes[0]?.name}</strong>
            </>
          ) : (
            <>
              still <strong>{meta.classes[0]?.name}</strong>
            </>
          )}
        </p>
        <p class="nn-soft">
          largest change {(255 * meta.linf).toFixed(1)} / 255, length {meta.l2.toFixed(2)}; step {meta.step}{" "}
          of {meta.steps}
        </p>
        <ol class="nn-output-classes">
          {meta.classes.map(({ index, name, prob }) => (
            <li key={index}>
              <span>{name}</span>
              <i style={{ width: `${100 * prob}%` }} />
              <b>{percent(prob)}</b>
            </li>
          ))}
        </ol>
      </div>
    </div>
  );
}

/** So that the largest change fills the range. */
function magnification(difference: Float32Array): number {
  let most = 0;
  for (const value of difference) most = Math.max(most, Math.abs(value));
  return most > 0 ? Math.max(1, 1 / most) : 1;
}

function Bytes({ bytes, size, label }: { bytes: Uint8Array; size: [number, number]; label: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [height, width] = size;
  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context || height * width === 0) return;
    const image = new ImageData(width, height);
    for (let i = 0, j = 0; i < bytes.length; i += 3, j += 4) {
      image.data[j] = bytes[i] as number;
      image.data[j + 1] = bytes[i + 1] as number;
      image.data[j + 2] = bytes[i + 2] as number;
      image.data[j + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }, [bytes, height, width]);
  return <canvas ref={canvas} width={width} height={height} role="img" aria-label={label} />;
}
