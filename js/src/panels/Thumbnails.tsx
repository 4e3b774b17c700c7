// The samples of the batch, small: a click or an arrow key looks at another one.

import { useLayoutEffect, useRef } from "preact/hooks";
import type { Store } from "../state/store";

export function Thumbnails({ store }: { store: Store }) {
  const thumbs = store.thumbs.value;
  const strip = useRef<HTMLDivElement>(null);
  const sample = store.synced.selection.value.sample;
  const shown = thumbs ? Math.floor(thumbs.rgb.length / Math.max(1, 3 * thumbs.size[0] * thumbs.size[1])) : 0;

  useLayoutEffect(() => {
    const now = strip.current?.querySelector<HTMLElement>('[aria-pressed="true"]');
    if (!now || !strip.current) return;
    const { offsetLeft: left, offsetWidth: width } = now;
    const { scrollLeft, clientWidth } = strip.current;
    if (left < scrollLeft) strip.current.scrollLeft = left - 4;
    else if (left + width > scrollLeft + clientWidth)
      strip.current.scrollLeft = left + width - clientWidth + 4;
  }, [sample, shown]);

  if (!thumbs || shown < 2) return null;
  const [height, width] = thumbs.size;
  function walk(event: KeyboardEvent) {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (step === undefined) return;
    const next = Math.min(shown - 1, Math.max(0, sample + step));
    void store.selectSample(next);
    strip.current?.querySelectorAll<HTMLElement>("button")[next]?.focus({ preventScroll: true });
    event.preventDefault();
    event.stopPropagation();
  }

  return (
    <div class="nn-thumbs" role="toolbar" aria-label="samples" ref={strip} onKeyDown={walk}>
      {Array.from({ length: shown }, (_, i) => (
        <button
          key={i}
          type="button"
          data-sample={i}
          aria-pressed={i === sample}
          aria-label={`sample ${i}`}
          tabIndex={i === sample ? 0 : -1}
          onClick={() => void store.selectSample(i)}
        >
          <Thumb rgb={thumbs.rgb} index={i} height={height} width={width} />
        </button>
      ))}
      {thumbs.count > shown && <span class="nn-soft">{thumbs.count - shown} more</span>}
    </div>
  );
}

interface ThumbProps {
  /** All of them, one after the other. */
  rgb: Uint8Array;
  index: number;
  height: number;
  width: number;
}

export function Thumb({ rgb, index, height, width }: ThumbProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context) return;
    const image = new ImageData(width, height);
    const end = 3 * height * width * (index + 1);
    for (let i = 3 * height * width * index, j = 0; i < end; i += 3, j += 4) {
      image.data[j] = rgb[i] as number;
      image.data[j + 1] = rgb[i + 1] as number;
      image.data[j + 2] = rgb[i + 2] as number;
      image.data[j + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }, [rgb, index, height, width]);
  return <canvas ref={canvas} width={width} height={height} />;
}
