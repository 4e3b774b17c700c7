// What stands beside what: the sample on the screen, and another sample of the batch or what Python gave.

import { useLayoutEffect, useRef } from "preact/hooks";
import type { Store } from "../state/store";
import type { Comparing } from "./comparing";

/** Samples without a picture, by their numbers. */
const UNSEEN = 32;

export function Sources({ store, comparing }: { store: Store; comparing: Comparing }) {
  const info = store.synced.info.value;
  const now = store.synced.run.value?.sample ?? 0;
  const given = info?.compare && info.compare.kind !== "sample" ? info.compare : null;
  const other = comparing.other.value;
  const samples = info?.samples ?? 1;
  const changed = store.changes.key.value !== "";
  const b = other === "plain" ? "as it is" : other !== null ? `sample ${other}` : (given?.name ?? "–");
  const ofModels = other === "plain" || (other === null && given !== null && given.kind !== "inputs");
  const model = info?.model ?? "this model";
  return (
    <div class="nn-compare-sources">
      <span class="nn-compare-side" data-side="A" title="A: what is on the screen">
        {ofModels ? (changed ? "changed" : model) : `sample ${now}`}
      </span>
      <span class="nn-compare-side" data-side="B" title={`B: ${b}`}>
        {b}
      </span>
      {given && other !== null && (
        <button
          type="button"
          class="nn-chip"
          title="back to what w.compare_with(...) set"
          onClick={() => {
            comparing.other.value = null;
          }}
        >
          {given.name}
        </button>
      )}
      {changed && other !== "plain" && (
        <button
          type="button"
          class="nn-chip"
          title="the changed network beside the network as it is"
          onClick={() => {
            comparing.other.value = "plain";
          }}
        >
          without changes
        </button>
      )}
      {samples > 1 && (
        <Strip
          store={store}
          chosen={typeof other === "number" ? other : null}
          onChoose={(sample) => {
            comparing.other.value = sample;
          }}
        />
      )}
    </div>
  );
}

interface StripProps {
  store: Store;
  chosen: number | null;
  onChoose(sample: number): void;
}

/** The samples of the batch to choose B from; arrows walk along. */
function Strip({ store, chosen, onChoose }: StripProps) {
  const thumbs = store.thumbs.value;
  const now = store.synced.run.value?.sample;
  const samples = store.synced.info.value?.samples ?? 1;
  const [height, width] = thumbs?.size ?? [0, 0];
  const pictures = thumbs ? Math.floor(thumbs.rgb.length / Math.max(1, 3 * height * width)) : 0;
  const shown = Math.min(samples, pictures || UNSEEN);
  const rests = chosen ?? (now === 0 ? 1 : 0);
  return (
    <div
      class="nn-compare-strip"
      role="toolbar"
      aria-label="sample to compare with"
      onKeyDown={(event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (step === undefined) return;
        event.preventDefault();
        event.stopPropagation();
        const buttons = [...event.currentTarget.querySelectorAll<HTMLElement>("button:not(:disabled)")];
        const at = buttons.indexOf(document.activeElement as HTMLElement);
        buttons[Math.min(buttons.length - 1, Math.max(0, at + step))]?.focus();
      }}
    >
      {Array.from({ length: shown }, (_, i) => (
        <button
          key={i}
          type="button"
          data-sample={i}
          tabIndex={i === rests ? 0 : -1}
          aria-label={`compare with sample ${i}`}
          aria-pressed={i === chosen}
          disabled={i === now}
          onClick={() => onChoose(i)}
        >
          {thumbs && pictures > 0 ? (
            <Thumb rgb={thumbs.rgb.subarray(3 * i * height * width)} height={height} width={width} />
          ) : (
            i
          )}
        </button>
      ))}
    </div>
  );
}

function Thumb({ rgb, height, width }: { rgb: Uint8Array; height: number; width: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context || height * width === 0) return;
    const image = new ImageData(width, height);
    for (let i = 0, j = 0; j < image.data.length; i += 3, j += 4) {
      for (let k = 0; k < 3; k++) image.data[j + k] = rgb[i + k] as number;
      image.data[j + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }, [rgb, height, width]);
  return <canvas ref={canvas} width={width} height={height} />;
}
