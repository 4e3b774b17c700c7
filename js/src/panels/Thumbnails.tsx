// The samples of the batch, small: a click or an arrow key looks at another one. All pictures are on one canvas under
// buttons without a face: browsers keep a layer for each canvas, and go through all layers when something changes.

import { useLayoutEffect, useRef } from "preact/hooks";
import type { Store } from "../state/store";

/** As the style sheet has them. */
const [SIDE, GAP, ROUND] = [44, 5, 3];

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
      <Pictures rgb={thumbs.rgb} count={shown} height={height} width={width} />
      {Array.from({ length: shown }, (_, i) => (
        <button
          key={i}
          type="button"
          data-sample={i}
          aria-pressed={i === sample}
          aria-label={`sample ${i}`}
          tabIndex={i === sample ? 0 : -1}
          onClick={() => void store.selectSample(i)}
        />
      ))}
      {thumbs.count > shown && <span class="nn-soft">{thumbs.count - shown} more</span>}
    </div>
  );
}

interface PicturesProps {
  /** All of them, one after the other. */
  rgb: Uint8Array;
  count: number;
  height: number;
  width: number;
}

function Pictures({ rgb, count, height, width }: PicturesProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const dpr = window.devicePixelRatio || 1;
  const length = count * (SIDE + GAP) - GAP;
  useLayoutEffect(() => {
    const pen = canvas.current?.getContext("2d");
    const all = document.createElement("canvas");
    all.width = width;
    all.height = count * height;
    const from = all.getContext("2d");
    if (!pen || !from) return;
    from.putImageData(imageOf(rgb, width, count * height), 0, 0);
    const scale = SIDE / Math.max(height, width);
    const [w, h] = [width * scale, height * scale];
    pen.setTransform(dpr, 0, 0, dpr, 0, 0);
    pen.clearRect(0, 0, length, SIDE);
    pen.beginPath();
    for (let i = 0; i < count; i++)
      pen.roundRect(i * (SIDE + GAP) + (SIDE - w) / 2, (SIDE - h) / 2, w, h, ROUND);
    pen.save();
    pen.clip();
    for (let i = 0; i < count; i++) {
      const at = i * (SIDE + GAP) + (SIDE - w) / 2;
      pen.drawImage(all, 0, i * height, width, height, at, (SIDE - h) / 2, w, h);
    }
    pen.restore();
  }, [rgb, count, height, width, length, dpr]);
  return (
    <canvas
      ref={canvas}
      width={Math.round(length * dpr)}
      height={Math.round(SIDE * dpr)}
      style={{ width: `${length}px` }}
    />
  );
}

interface ThumbProps {
  /** All of them, one after the other. */
  rgb: Uint8Array;
  index: number;
  height: number;
  width: number;
}

/** One of them alone, where they are few or seldom looked at. */
export function Thumb({ rgb, index, height, width }: ThumbProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useLayoutEffect(() => {
    const part = rgb.subarray(3 * height * width * index, 3 * height * width * (index + 1));
    canvas.current?.getContext("2d")?.putImageData(imageOf(part, width, height), 0, 0);
  }, [rgb, index, height, width]);
  return <canvas ref={canvas} width={width} height={height} />;
}

function imageOf(rgb: Uint8Array, width: number, height: number): ImageData {
  const image = new ImageData(width, height);
  for (let i = 0, j = 0; j < image.data.length; i += 3, j += 4) {
    image.data[j] = rgb[i] as number;
    image.data[j + 1] = rgb[i + 1] as number;
    image.data[j + 2] = rgb[i + 2] as number;
    image.data[j + 3] = 255;
  }
  return image;
}
