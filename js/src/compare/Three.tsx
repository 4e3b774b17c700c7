// A, B − A and B of one channel, looked at together: one pointer, one enlargement, one place for all three.

import { signed } from "../maps/format";
import type { Comparing } from "./comparing";
import { Plate, type Seen } from "./Plate";
import { changeScale, type Palette, type Plates, sideScale } from "./rows";

export function Three({ store, comparing, plates }: Seen) {
  const { view } = store;
  const channel = comparing.channel.value;
  const palette: Palette = { colormap: view.colormap.value, sign: view.sign.value, range: view.range.value };
  const sides = sideScale(plates, channel, palette);
  const change = changeScale(plates, channel, palette.range);
  const hasB = channel < plates.b.low.length;
  const partner = plates.partner?.[channel];
  const fit = plates.fit?.[channel] ?? 0;
  const word = plates.kind === "maps" ? `channel ${channel}` : plates.kind;
  return (
    <div class="nn-compare-three" data-kind={plates.kind} data-channel={channel}>
      <Plate
        {...{ store, comparing, plates, channel }}
        side="A"
        bytes={plates.a}
        tile={plates.tile.a}
        shape={plates.shape.a}
        scale={sides}
        label={`A: ${word}`}
      />
      {plates.d && change ? (
        <Plate
          {...{ store, comparing, plates, channel }}
          side="B − A"
          bytes={plates.d}
          tile={plates.tile.a}
          shape={plates.shape.a}
          scale={change}
          label={`difference: ${word}`}
        />
      ) : (
        <p class="nn-compare-none nn-soft">other sizes, no difference</p>
      )}
      {hasB ? (
        <Plate
          {...{ store, comparing, plates, channel }}
          side="B"
          bytes={plates.b}
          tile={plates.tile.b}
          shape={plates.shape.b}
          scale={sides}
          label={`B: ${word}`}
          note={
            partner === undefined
              ? ""
              : partner < 0
                ? "no channel goes with it"
                : `channel ${partner} · r ${fit.toFixed(2).replace("-", "−")}`
          }
        />
      ) : (
        <p class="nn-compare-none nn-soft">B has {plates.channelsB} channels</p>
      )}
      <Readout comparing={comparing} plates={plates} channel={channel} word={word} />
    </div>
  );
}

interface ReadoutProps {
  comparing: Comparing;
  plates: Plates;
  channel: number;
  word: string;
}

/** The values at the place of all three. */
function Readout({ comparing, plates, channel, word }: ReadoutProps) {
  const spot = comparing.spot.value;
  const raw = comparing.raw.value;
  const times = comparing.window.value.times;
  if (!spot) {
    return (
      <p class="nn-compare-read nn-soft">
        {word}
        {plates.channels > 1 && plates.kind === "maps" && ` of ${plates.channels}`}
        {times > 1 ? ` · ×${times.toFixed(1)}, Esc for the whole` : " · wheel enlarges all three"}
      </p>
    );
  }
  const [y, x] = spot;
  const at = y * plates.shape.a[1] + x;
  const held = raw?.key === `${plates.key}|${channel}` ? raw : null;
  const same = plates.d !== null;
  const [a, b] = [held?.a[at], same ? held?.b?.[at] : undefined];
  return (
    <p class="nn-compare-read" data-role="read" data-exact={held !== null}>
      <span class="nn-soft">
        {word} ({plates.kind === "vector" ? x : `${y}, ${x}`})
      </span>
      <span>
        <b data-side="A">A</b> {a === undefined ? "…" : signed(a)}
      </span>
      {same && (
        <>
          <span>
            <b data-side="B">B</b> {b === undefined ? "…" : signed(b)}
          </span>
          <span>
            <b>B − A</b> {a === undefined || b === undefined ? "…" : signed(b - a)}
          </span>
        </>
      )}
    </p>
  );
}
