// The samples of the batch, to choose another one beside the one on the screen; arrow keys walk along.

import type { Store } from "../state/store";
import { Thumb } from "./Thumbnails";

/** Samples without a picture, by their numbers. */
const UNSEEN = 32;

interface Props {
  store: Store;
  /** What it is chosen for. */
  label: string;
  chosen: number | null;
  /** What a click on a sample does. */
  told(sample: number): string;
  onChoose(sample: number): void;
}

export function SampleChooser({ store, label, chosen, told, onChoose }: Props) {
  const thumbs = store.thumbs.value;
  const now = store.synced.run.value?.sample;
  const samples = store.synced.info.value?.samples ?? 1;
  const [height, width] = thumbs?.size ?? [0, 0];
  const pictures = thumbs ? Math.floor(thumbs.rgb.length / Math.max(1, 3 * height * width)) : 0;
  const shown = Math.min(samples, pictures || UNSEEN);
  const rests = chosen !== null && chosen !== now ? chosen : now === 0 ? 1 : 0;
  return (
    <div class="nn-samples" role="toolbar" aria-label={label} onKeyDown={walk}>
      {Array.from({ length: shown }, (_, i) => (
        <button
          key={i}
          type="button"
          data-sample={i}
          tabIndex={i === rests ? 0 : -1}
          aria-label={told(i)}
          aria-pressed={i === chosen}
          disabled={i === now}
          onClick={() => onChoose(i)}
        >
          {thumbs && pictures > 0 ? <Thumb rgb={thumbs.rgb} index={i} height={height} width={width} /> : i}
        </button>
      ))}
    </div>
  );
}

function walk(event: KeyboardEvent): void {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  event.stopPropagation();
  const strip = event.currentTarget as HTMLElement;
  const buttons = [...strip.querySelectorAll<HTMLElement>("button:not(:disabled)")];
  const at = buttons.indexOf(document.activeElement as HTMLElement);
  buttons[Math.min(buttons.length - 1, Math.max(0, at + step))]?.focus();
}
