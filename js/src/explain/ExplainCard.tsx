// One attribution: the map on its input, how far it is, how far to trust it, and what it cost.

import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { milliseconds, percent, short, signed as withSign } from "../maps/format";
import { RecomputedShare } from "../maps/Recomputed";
import type { InputImage } from "../state/data";
import type { Store } from "../state/store";
import type { Card, Explaining, Wish } from "./explaining";
import { type FloatMap, grayOf, overlayWords, reachOf, valueAt } from "./floatMap";
import { type Judging, UNMOVED } from "./judging";

/** Below this share of the whole change, what is missing is no matter. */
const COMPLETE = 0.05;
const WORDS: Record<string, string> = {
  cam: "CAM",
  grad: "grad",
  plus: "+",
  lime: "LIME",
  rise: "RISE",
  lrp: "LRP",
  shap: "SHAP",
  deep: "deep",
  lift: "LIFT",
};

/** A method's name for people: `grad_cam_plus_plus` is grad CAM++. */
export function title(name: string): string {
  return name
    .split("_")
    .map((word) => WORDS[word] ?? word)
    .join(" ")
    .replace(" + +", "++");
}

interface Props {
  store: Store;
  explaining: Explaining;
  judging: Judging;
  wish: Wish;
  /** How far the colours reach, where all cards share it. */
  reach: number | null;
}

export function ExplainCard({ store, explaining, judging, wish, reach }: Props) {
  const card = explaining.card(wish).value;
  const map = explaining.sign.value === "signed" ? card.signed : card.magnitude;
  const own = map ? reachOf(map, explaining.clip.value) : 0;
  const meta = card.meta;
  return (
    <figure
      class="nn-explain-card"
      data-method={wish.method}
      data-state={card.state}
      data-sample={wish.sample}
    >
      <figcaption>
        <strong title={explaining.info(wish.method)?.description}>
          {caption(store, explaining, wish, card)}
        </strong>
        <button
          type="button"
          class="nn-close"
          aria-label={card.state === "running" ? "stop" : `compute ${title(wish.method)} again`}
          title={card.state === "running" ? "stop" : "again"}
          onClick={() => (card.state === "running" ? explaining.stop(wish) : explaining.again(wish))}
        >
          {card.state === "running" ? "×" : "↻"}
        </button>
      </figcaption>
      <Picture store={store} explaining={explaining} wish={wish} map={map} reach={reach ?? own} />
      <div class="nn-explain-bar" data-running={card.state === "running"}>
        <i style={{ width: `${100 * (card.state === "ready" ? 1 : (meta?.progress ?? 0))}%` }} />
      </div>
      {card.error ? (
        <p class="nn-explain-error" role="alert">
          {card.error.message} {card.error.hint}
        </p>
      ) : (
        <Facts card={card} reach={reach ?? own} explaining={explaining} judging={judging} />
      )}
    </figure>
  );
}

/** What the card differs in from its neighbours. */
function caption(store: Store, { compare }: Explaining, wish: Wish, card: Card): string {
  if (compare.value === "methods") return title(wish.method);
  const target = wish.target ?? card.meta?.target ?? null;
  const name = target === null ? "" : className(store, target);
  return compare.value === "samples" ? `sample ${wish.sample}${name && ` · ${name}`}` : name;
}

function className(store: Store, index: number): string {
  const { info, run } = store.synced;
  const known = run.value?.predictions.classes.find((entry) => entry.index === index);
  return known?.name ?? info.value?.class_names?.[index] ?? `class ${index}`;
}

interface FactsProps {
  card: Card;
  reach: number;
  explaining: Explaining;
  judging: Judging;
}

function Facts({ card, reach, explaining, judging }: FactsProps) {
  const { meta, state } = card;
  if (!meta) return <p class="nn-explain-facts nn-soft">{state === "stopped" ? "stopped" : "computing …"}</p>;
  const left = state === "running" && meta.left > 0.1 ? ` · ${milliseconds(1000 * meta.left)} left` : "";
  return (
    <>
      <p class="nn-explain-facts">
        <span title="the colours reach from minus to plus this">± {short(reach)}</span>
        <Completeness delta={meta.delta} change={meta.change} />
        {meta.stderr !== undefined && meta.stderr !== null && (
          <span
            class="nn-badge"
            title="mean standard error of the map, as a share of its largest value"
          >{`error ${percent(meta.stderr)}`}</span>
        )}
        {state === "running" && meta.moved !== undefined && (
          <span
            class="nn-badge"
            title="how far the map moved since the picture before: the mean, as a share of its largest value"
          >{`moved ${percent(meta.moved)}`}</span>
        )}
      </p>
      <p
        class="nn-explain-facts nn-soft"
        title={`${meta.forward} samples forward, ${meta.backward} backward`}
      >
        {state === "running" ? `${percent(meta.progress)}${left}` : milliseconds(1000 * meta.seconds)}
        {` · ${meta.forward} F${meta.backward > 0 ? ` + ${meta.backward} B` : ""} `}
        <RecomputedShare of={meta.recomputed} />
      </p>
      <Sanity alike={judging.sanityOf(card.wish.key)} />
      <PlaceValue card={card} explaining={explaining} />
      {!meta.consistent && <p class="nn-explain-caution">The weights changed while this was computed.</p>}
      {meta.cautions.map((text) => (
        <p key={text} class="nn-explain-caution">
          {text}
        </p>
      ))}
      {state === "ready" && <CopyCall call={meta.call} />}
    </>
  );
}

/** Whether the values add up to the change of the score, as the method promises. */
function Completeness({ delta, change }: { delta?: number; change?: number }) {
  if (delta === undefined || change === undefined) return null;
  const share = Math.abs(delta) / Math.max(Math.abs(change), 1e-12);
  const good = share <= COMPLETE;
  const told = `the values add up to ${withSign(change + delta)}, the score changed by ${withSign(change)}`;
  return (
    <span class="nn-badge" data-tone={good ? "good" : "warn"} title={told} data-role="completeness">
      {good ? `complete, ${percent(share)} off` : `${percent(share)} missing`}
    </span>
  );
}

/** Whether the map changes when the network forgets what it learned. */
function Sanity({ alike }: { alike: number | null }) {
  if (alike === null) return null;
  const good = Math.abs(alike) < UNMOVED;
  return (
    <p
      class="nn-explain-facts"
      title={`rank correlation with the map of the same network with random weights: ${withSign(alike)}`}
    >
      <span class="nn-badge" data-tone={good ? "good" : "warn"} data-role="sanity">
        {good ? "sees what was learned" : "looks alike on a network that knows nothing"}
      </span>
    </p>
  );
}

function PlaceValue({ card, explaining }: { card: Card; explaining: Explaining }) {
  const place = explaining.place.value;
  const map = explaining.sign.value === "signed" ? card.signed : card.magnitude;
  const image = explaining.image(card.wish.sample).value;
  if (!place || !map || !image) return null;
  const value = valueAt(map, place, image.height, image.width);
  return (
    <p class="nn-explain-value" data-role="value">
      ({place.y}, {place.x}) <b>{withSign(value)}</b>
    </p>
  );
}

function CopyCall({ call }: { call: string }) {
  const [done, setDone] = useState(false);
  return (
    <button
      type="button"
      class="nn-explain-call"
      title={`copy this call: ${call}`}
      onClick={() => {
        void navigator.clipboard?.writeText(call).then(() => {
          setDone(true);
          setTimeout(() => setDone(false), 1500);
        });
      }}
    >
      {/* Of several lines the one in which the cards differ; above it are the interventions. */}
      <code>{done ? "copied" : call.split("\n").at(-1)?.trim()}</code>
    </button>
  );
}

interface PictureProps {
  store: Store;
  explaining: Explaining;
  wish: Wish;
  map: FloatMap | null;
  reach: number;
}

function Picture({ store, explaining, wish, map, reach }: PictureProps) {
  const image = explaining.image(wish.sample).value;
  const sign = explaining.sign.value;
  const opacity = explaining.opacity.value;
  const base = useRef<HTMLCanvasElement>(null);
  const over = useRef<HTMLCanvasElement>(null);

  useLayoutEffect(() => {
    const context = base.current?.getContext("2d");
    if (!context || !image) return;
    context.putImageData(new ImageData(grayOf(image.rgb), image.width, image.height), 0, 0);
  }, [image]);

  useLayoutEffect(() => {
    const canvas = over.current;
    const context = canvas?.getContext("2d");
    if (!canvas || !context || !image) return;
    if (!map) {
      context.clearRect(0, 0, canvas.width, canvas.height);
      canvas.removeAttribute("data-painted");
      return;
    }
    const words = overlayWords(map, image.height, image.width, { reach, sign, opacity });
    context.putImageData(new ImageData(new Uint8ClampedArray(words.buffer), image.width, image.height), 0, 0);
    canvas.setAttribute("data-painted", "true");
  }, [image, map, reach, sign, opacity]);

  if (!image || image.height === 0) return <div class="nn-explain-picture nn-ghost" />;
  const { height, width } = image;
  const place = explaining.place.value;
  const at = (event: PointerEvent | MouseEvent) => spot(event, image);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the input card reads pixels by keys
    // biome-ignore lint/a11y/noStaticElementInteractions: a picture that is read with the pointer
    <div
      class="nn-explain-picture"
      data-small={Math.max(height, width) <= 160}
      style={{ aspectRatio: `${width} / ${Math.max(height, width / 6)}` }}
      onPointerMove={(event) => {
        const here = at(event);
        if (!explaining.place.peek()?.pinned) explaining.place.value = { ...here, pinned: false };
        const value = map ? withSign(valueAt(map, here, height, width)) : "";
        store.view.hover.value = { what: `${title(wish.method)} (${here.y}, ${here.x})`, value };
      }}
      onPointerLeave={() => {
        store.view.hover.value = null;
        if (!explaining.place.peek()?.pinned) explaining.place.value = null;
      }}
      onClick={(event) => {
        const here = at(event);
        const held = explaining.place.peek();
        const same = held?.pinned && held.y === here.y && held.x === here.x;
        explaining.place.value = same ? null : { ...here, pinned: true };
      }}
    >
      <canvas ref={base} width={width} height={height} />
      <canvas ref={over} width={width} height={height} data-role="attribution" />
      {place && (
        <i
          class="nn-probe"
          data-pinned={place.pinned}
          style={{ left: `${(100 * (place.x + 0.5)) / width}%`, top: `${(100 * (place.y + 0.5)) / height}%` }}
        />
      )}
    </div>
  );
}

function spot(event: PointerEvent | MouseEvent, { height, width }: InputImage): { y: number; x: number } {
  const rect = (event.currentTarget as HTMLElement).getBoundingClientRect();
  const inside = (share: number, count: number) =>
    Math.min(count - 1, Math.max(0, Math.floor(share * count)));
  return {
    y: inside((event.clientY - rect.top) / rect.height, height),
    x: inside((event.clientX - rect.left) / rect.width, width),
  };
}
