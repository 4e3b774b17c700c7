// All channels of the layer as small triples, those that changed most first; of a vector, the entries that did.

import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { short, signed } from "../maps/format";
import type { Scale } from "../maps/lut";
import { Segments } from "../maps/Segments";
import { type Comparing, choose } from "./comparing";
import type { Seen } from "./Plate";
import { type Bytes, changeScale, orderOf, type Palette, type Plates, pixels, sideScale } from "./rows";

const FIRST_CHANNELS = 60;

/** All channels as small triples. */
export function Channels({ store, comparing, plates }: Seen) {
  const [all, setAll] = useState(false);
  const { view } = store;
  const order = useMemo(() => orderOf(plates, comparing.order.value), [plates, comparing.order.value]);
  const chosen = comparing.channel.value;
  const palette: Palette = { colormap: view.colormap.value, sign: view.sign.value, range: view.range.value };
  const shownNow = all ? order : order.subarray(0, FIRST_CHANNELS);
  return (
    <section class="nn-compare-channels" aria-label="channels">
      <header>
        <h4>
          {plates.channels} channels: A <span class="nn-soft">| B − A |</span> B
        </h4>
        <Segments
          label="order"
          value={comparing.order.value}
          options={[
            ["changed", "changed most"],
            ["index", "index"],
          ]}
          onChoose={(one) => {
            comparing.order.value = one;
          }}
        />
        <Segments
          label="range"
          value={palette.range}
          options={[
            ["channel", "per channel"],
            ["layer", "shared"],
          ]}
          onChoose={(one) => {
            view.range.value = one;
          }}
        />
      </header>
      <div class="nn-compare-triples">
        {Array.from(shownNow, (channel) => (
          <Triple
            key={channel}
            plates={plates}
            channel={channel}
            palette={palette}
            chosen={channel === chosen}
            onChoose={() => choose(store, plates.node, channel)}
          />
        ))}
      </div>
      {!all && order.length > FIRST_CHANNELS && (
        <button type="button" class="nn-chip" onClick={() => setAll(true)}>
          all {order.length} channels
        </button>
      )}
    </section>
  );
}

interface TripleProps {
  plates: Plates;
  channel: number;
  palette: Palette;
  chosen: boolean;
  onChoose(): void;
}

function Triple({ plates, channel, palette, chosen, onChoose }: TripleProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [h, w] = plates.tile.a;
  const [hb, wb] = plates.tile.b;
  const gap = Math.max(1, Math.round(w / 14));
  const parts = plates.d ? 3 : 2;
  const { colormap, sign, range } = palette;
  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context || h * w === 0) return;
    context.clearRect(0, 0, canvas.current?.width ?? 0, h);
    const put = (bytes: Bytes, size: [number, number], scale: Scale, x: number) => {
      const image = new ImageData(size[1], size[0]);
      new Uint32Array(image.data.buffer).set(pixels(bytes, size, channel, scale));
      context.putImageData(image, x, 0);
    };
    const scale = sideScale(plates, channel, palette);
    const change = changeScale(plates, channel, range);
    put(plates.a, [h, w], scale, 0);
    if (plates.d && change) put(plates.d, [h, w], change, w + gap);
    if (channel < plates.b.low.length) put(plates.b, [hb, wb], scale, (parts - 1) * (w + gap));
  }, [plates, channel, colormap, sign, range]);
  const strength = plates.strength?.[channel];
  const partner = plates.partner?.[channel];
  const words = [
    `channel ${channel}`,
    partner !== undefined && (partner < 0 ? "no channel of B goes with it" : `with channel ${partner} of B`),
    strength !== undefined && `changes by ${short(strength)} on average`,
  ].filter(Boolean);
  return (
    <button
      type="button"
      class="nn-compare-triple"
      data-channel={channel}
      aria-pressed={chosen}
      aria-label={words.join(", ")}
      title={words.join("\n")}
      onClick={onChoose}
    >
      <canvas ref={canvas} width={parts * w + (parts - 1) * gap} height={Math.max(h, hb)} />
      <span>
        {channel}
        {partner !== undefined && partner >= 0 && <small> ↔ {partner}</small>}
      </span>
    </button>
  );
}

const SHOWN_ENTRIES = 16;

/** The entries of a vector that differ most, as pairs of bars. */
export function Entries({ comparing, plates }: { comparing: Comparing; plates: Plates }) {
  useLayoutEffect(() => {
    comparing.values();
  }, [comparing, plates]);
  const raw = comparing.raw.value;
  const held = raw?.key === `${plates.key}|0` ? raw : null;
  const b = held?.b;
  if (!held || !b || b.length !== held.a.length) return null;
  const { a } = held;
  const order = Array.from(a.keys()).sort(
    (i, j) => Math.abs((b[j] as number) - (a[j] as number)) - Math.abs((b[i] as number) - (a[i] as number)),
  );
  let reach = 1e-30;
  for (const list of [a, b]) for (const value of list) reach = Math.max(reach, Math.abs(value));
  return (
    <section class="nn-compare-entries" aria-label="entries that changed most">
      <h4>
        {a.length > SHOWN_ENTRIES ? `${SHOWN_ENTRIES} of ${a.length} entries that changed most` : "entries"}
      </h4>
      {order.slice(0, SHOWN_ENTRIES).map((i) => (
        <div
          key={i}
          class="nn-compare-entry"
          data-entry={i}
          title={`A ${signed(a[i] as number)}, B ${signed(b[i] as number)}`}
        >
          <span>{i}</span>
          <span class="nn-compare-signed" aria-hidden="true">
            {(["A", "B"] as const).map((side) => {
              const value = ((side === "A" ? a : b)[i] as number) / reach;
              const style =
                value < 0
                  ? { right: "50%", width: `${-50 * value}%` }
                  : { left: "50%", width: `${50 * value}%` };
              return <i key={side} data-side={side} style={style} />;
            })}
          </span>
          <b>{signed((b[i] as number) - (a[i] as number))}</b>
        </div>
      ))}
    </section>
  );
}
