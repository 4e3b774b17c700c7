// The selected sample, what the chosen unit sees of it, and the other samples to choose from.

import { useComputed } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { unpack } from "../maps/colormaps";
import { shape, short, signed } from "../maps/format";
import { Segments } from "../maps/Segments";
import type { InputImage, Saliency } from "../state/data";
import type { Store } from "../state/store";
import type { Overlay } from "../state/view";
import { overlayPicture, overlayTable } from "./saliencyPicture";
import { Thumbnails } from "./Thumbnails";

const SMALL = 160;
/** A pointer that only passes over the picture wants nothing of it. */
const REST_MS = 150;
const OVERLAYS: [Overlay, string][] = [
  ["signed", "signed"],
  ["magnitude", "absolute"],
  ["off", "off"],
];

export function InputCard({ store }: { store: Store }) {
  const input = store.input.value;
  const info = store.synced.info.value;
  return (
    <section class="nn-input" data-panel="input" data-sample={input?.sample} aria-label="input">
      {input && input.height > 0 && input.width > 0 ? (
        <Picture store={store} input={input} />
      ) : (
        <div class="nn-input-other">
          {info ? (
            <>
              <span class="nn-soft">input</span>
              <strong>{shape(info.input_shape)}</strong>
              <span class="nn-soft">{info.dtype}</span>
            </>
          ) : (
            <div class="nn-ghost nn-input-ghost" />
          )}
        </div>
      )}
      {input?.kind === "image" && (
        <button
          type="button"
          class="nn-chip"
          title="change it, live (p)"
          style="align-self:start"
          onClick={() => {
            store.view.paint.value = true;
          }}
        >
          paint
        </button>
      )}
      <Caption store={store} />
      <Thumbnails store={store} />
    </section>
  );
}

/** What the overlay shows; null where none is wanted or there is none. */
function useShown(store: Store): Saliency | null {
  return useComputed(() => {
    const { class: chosen, pixel } = store.synced.selection.value;
    const wanted = chosen !== null || pixel !== null || store.view.scrub.value !== null;
    return wanted && store.view.overlay.value !== "off" ? store.saliency.value.data : null;
  }).value;
}

function Picture({ store, input }: { store: Store; input: InputImage }) {
  const { view } = store;
  const base = useRef<HTMLCanvasElement>(null);
  const over = useRef<HTMLCanvasElement>(null);
  const resting = useRef(0);
  const shown = useShown(store);
  const overlay = view.overlay.value;
  const { height, width, rgb } = input;
  const small = Math.max(height, width) <= SMALL;

  useLayoutEffect(() => {
    const context = base.current?.getContext("2d");
    if (!context) return;
    const image = new ImageData(width, height);
    for (let i = 0, j = 0; i < rgb.length; i += 3, j += 4) {
      image.data[j] = rgb[i] as number;
      image.data[j + 1] = rgb[i + 1] as number;
      image.data[j + 2] = rgb[i + 2] as number;
      image.data[j + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }, [input]);

  useLayoutEffect(() => {
    const canvas = over.current;
    const context = canvas?.getContext("2d");
    if (!canvas || !context) return;
    if (!shown || overlay === "off") {
      context.clearRect(0, 0, width, height);
      canvas.removeAttribute("data-unit");
      return;
    }
    const words = overlayPicture(shown, overlay, height, width);
    context.putImageData(new ImageData(new Uint8ClampedArray(words.buffer), width, height), 0, 0);
    canvas.setAttribute("data-unit", shown.unit.join(","));
    // Not for a new frame around it.
  }, [shown?.key, shown?.signed, overlay, width, height]);

  const settled = view.scrub.value === null ? store.saliency.value.data?.key : null;
  useEffect(() => {
    // The pixel that is being read has another saliency now.
    const held = store.pixel.peek();
    if (held && settled) void store.inspectInput(held.y, held.x);
  }, [settled]);

  const at = (event: PointerEvent | MouseEvent): [number, number] => {
    const rect = (base.current as HTMLCanvasElement).getBoundingClientRect();
    const inside = (f: number, n: number) => Math.min(n - 1, Math.max(0, Math.floor(f * n)));
    return [
      inside((event.clientY - rect.top) / rect.height, height),
      inside((event.clientX - rect.left) / rect.width, width),
    ];
  };

  const walk = (event: KeyboardEvent) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    const far = event.shiftKey ? 10 : 1;
    const held = store.pixel.peek() ?? { y: height >> 1, x: width >> 1 };
    const clamp = (value: number, n: number) => Math.min(n - 1, Math.max(0, value));
    void store.inspectInput(
      clamp(held.y + far * (step[0] as number), height),
      clamp(held.x + far * (step[1] as number), width),
    );
    event.preventDefault();
    event.stopPropagation();
  };

  return (
    <div class="nn-picture" data-dim={shown !== null} data-small={small}>
      <div
        class="nn-picture-box"
        role="img"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: arrow keys read one input pixel after the other
        tabIndex={0}
        aria-label={`sample ${input.sample}, ${height} by ${width} pixels; arrow keys read one of them`}
        onKeyDown={walk}
        onFocus={() => store.foresee()}
        onPointerEnter={() => {
          resting.current = window.setTimeout(() => store.foresee(), REST_MS);
        }}
        style={box(height, width)}
        onPointerMove={(event) => {
          const [y, x] = at(event);
          view.hover.value = describe(input, shown, overlay, y, x);
        }}
        onPointerLeave={() => {
          clearTimeout(resting.current);
          view.hover.value = null;
        }}
        onClick={(event) => void store.inspectInput(...at(event))}
      >
        <canvas ref={base} width={width} height={height} class="nn-picture-base" />
        <canvas ref={over} width={width} height={height} class="nn-picture-over" data-role="saliency" />
        {shown?.field && <Field field={shown.field} height={height} width={width} />}
        <Probe store={store} height={height} width={width} />
      </div>
      <ProbeValues store={store} />
    </div>
  );
}

/** A picture keeps its shape; a row of numbers is drawn as a band that can be seen and hit. */
function box(height: number, width: number): { aspectRatio: string } | { height: string } {
  const slim = width / height > 5;
  if (slim || height / width > 2.5) return { height: slim ? "44px" : "320px" };
  return { aspectRatio: `${width} / ${height}` };
}

/** What the page itself knows about an input pixel under the pointer; a click asks for the exact numbers. */
function describe(input: InputImage, shown: Saliency | null, overlay: Overlay, y: number, x: number) {
  const at = 3 * (y * input.width + x);
  const rgb = Array.from(input.rgb.subarray(at, at + 3)).join(" ");
  let value = `rgb ${rgb}`;
  if (shown) {
    const [y0, x0, y1, x1] = shown.box;
    const inside = y >= y0 && y < y1 && x >= x0 && x < x1;
    const place = (y - y0) * (x1 - x0) + (x - x0);
    const signedShown = overlay !== "magnitude";
    const byte = inside
      ? ((signedShown ? shown.signed : shown.magnitude)[place] ?? 0)
      : signedShown
        ? 128
        : 0;
    const part = signedShown
      ? ((byte - 128) / 127) * shown.scale.signed
      : (byte / 255) * shown.scale.magnitude;
    value += ` · saliency ≈ ${signedShown ? signed(part) : short(part)}`;
  }
  return { what: `input (${y}, ${x})`, value };
}

function Field({
  field,
  height,
  width,
}: {
  field: NonNullable<Saliency["field"]>;
  height: number;
  width: number;
}) {
  const [y0, x0, y1, x1] = field.box;
  return (
    <i
      class="nn-field"
      data-role="field"
      data-exact={field.exact}
      data-box={field.box.join(",")}
      title={`receptive field, ${y1 - y0} × ${x1 - x0} pixels${field.exact ? "" : ", at most"}`}
      style={{
        left: `${(100 * x0) / width}%`,
        top: `${(100 * y0) / height}%`,
        width: `${(100 * (x1 - x0)) / width}%`,
        height: `${(100 * (y1 - y0)) / height}%`,
      }}
    />
  );
}

/** The input pixel that was clicked. */
function Probe({ store, height, width }: { store: Store; height: number; width: number }) {
  const pixel = store.pixel.value;
  if (!pixel) return null;
  const at = { left: `${(100 * (pixel.x + 0.5)) / width}%`, top: `${(100 * (pixel.y + 0.5)) / height}%` };
  return <i class="nn-probe" style={at} />;
}

function ProbeValues({ store }: { store: Store }) {
  const pixel = store.pixel.value;
  if (!pixel) return null;
  const list = (values: number[]) => values.map((value) => signed(value)).join("  ");
  return (
    <dl class="nn-probe-values" data-role="pixel">
      <dt>pixel</dt>
      <dd>
        {pixel.y}, {pixel.x}
      </dd>
      <dt>value</dt>
      <dd>{list(pixel.values)}</dd>
      {pixel.saliency && (
        <>
          <dt>saliency</dt>
          <dd>{list(pixel.saliency)}</dd>
        </>
      )}
    </dl>
  );
}

/** What the overlay is, in words, its range, and the switch between its kinds. */
function Caption({ store }: { store: Store }) {
  const { view, synced } = store;
  const { state, data, error } = store.saliency.value;
  const { class: chosen, layer, channel, pixel } = synced.selection.value;
  const scrub = view.scrub.value;
  const wanted = chosen !== null || pixel !== null || scrub !== null;
  if (!wanted) return null;
  if (state === "error") {
    return (
      <p class="nn-caption nn-caption-bad" role="alert">
        No saliency here: {error?.message} {error?.hint}
      </p>
    );
  }
  const overlay = view.overlay.value;
  const unit = scrub ?? (channel !== null && pixel ? { channel, pixel } : null);
  const words =
    chosen !== null && !scrub
      ? `class ${className(store, chosen)}`
      : unit && `${layer} · ${place(store, unit.channel, unit.pixel)}`;
  const field = data?.field;
  const none = data !== null && data.scale.magnitude === 0;
  const how = none ? zeroGradient(data) : `gradient, ${overlay === "signed" ? "signed" : "absolute"}`;
  return (
    <div class="nn-caption">
      <p>
        saliency of <strong title={words ?? undefined}>{words}</strong>
      </p>
      <p class="nn-caption-how">
        {overlay === "off" ? "hidden" : how}
        {overlay !== "off" && field && ` · receptive field outlined${field.exact ? "" : " (at most)"}`}
      </p>
      <div class="nn-caption-row">
        <Segments
          label="saliency"
          value={overlay}
          options={OVERLAYS}
          onChoose={(choice) => {
            view.overlay.value = choice;
          }}
        />
        {data && !none && overlay !== "off" && <Bar saliency={data} overlay={overlay} />}
      </div>
    </div>
  );
}

/** A unit that a ReLU holds at zero does not move with the input; that is an answer, not a failure. */
function zeroGradient({ value }: Saliency): string {
  return value === 0 ? "no gradient: this unit is off here" : "the gradient is zero everywhere";
}

function className(store: Store, index: number): string {
  const known = store.synced.run.value?.predictions.classes.find((entry) => entry.index === index);
  return known?.name ?? store.synced.info.value?.class_names?.[index] ?? `${index}`;
}

function place(store: Store, channel: number, pixel: [number, number]): string {
  const kind = store.maps.value.data?.kind;
  if (kind === "vector") return `unit ${channel}`;
  if (kind === "tokens") return `token ${pixel[0]} · feature ${channel}`;
  return `channel ${channel} · (${pixel.join(", ")})`;
}

/** The colours of the overlay with their opacity, as they lie on a gray picture. */
function Bar({ saliency, overlay }: { saliency: Saliency; overlay: Exclude<Overlay, "off"> }) {
  const colours = overlayTable(overlay);
  const stops = Array.from({ length: 17 }, (_, i) => {
    const place = overlay === "signed" ? 1 + Math.round((254 * i) / 16) : Math.round((255 * i) / 16);
    const word = colours[place] as number;
    return `rgb(${unpack(word).join(" ")} / ${((word >>> 24) / 255).toFixed(2)})`;
  });
  const { signed: reach, magnitude } = saliency.scale;
  return (
    <span class="nn-legend nn-legend-wide" title="the range of this picture">
      <span>{overlay === "signed" ? short(-reach) : "0"}</span>
      <i style={{ background: `linear-gradient(90deg, ${stops.join(", ")}), var(--nn-under-overlay)` }} />
      <span>{overlay === "signed" ? `+${short(reach)}` : short(magnitude)}</span>
    </span>
  );
}
