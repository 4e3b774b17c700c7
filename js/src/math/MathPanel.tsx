// The page: the layer's output to point at, where that number looked, and how it came about.

import { useComputed } from "@preact/signals";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { shape, signed } from "../maps/format";
import { Changed } from "../panels/Changed";
import type { Store } from "../state/store";
import type { Apart } from "../wire/types";
import { boxOf } from "./board";
import { Picture } from "./Picture";
import { Terms } from "./Terms";
import { type Found, workingOf } from "./working";

export function MathPanel({ store }: { store: Store }) {
  const working = workingOf(store);
  const root = useRef<HTMLElement>(null);
  const [width, setWidth] = useState(440);
  useLayoutEffect(() => working.follow(), [working]);
  useLayoutEffect(() => {
    const element = root.current;
    if (!element) return;
    const watch = new ResizeObserver(() => setWidth(element.clientWidth));
    watch.observe(element);
    return () => watch.disconnect();
  }, []);
  const board = useComputed(() => working.board()).value;
  const { state, data, error } = working.found.value;
  const failed = store.maps.value.state === "error" ? store.maps.value.error?.message : store.mute.value;
  const found = data && board && data.meta.node === board.node ? data : null;
  return (
    <section
      class="nn-math"
      data-panel="math"
      data-kind={found?.meta.kind}
      data-unit={found?.meta.unit.join(",")}
      data-playing={working.playing.value}
      aria-label="math"
      ref={root}
    >
      <Changed store={store} />
      {!board && <p class="nn-calm">{failed ?? "reading the layer …"}</p>}
      {board && (
        <>
          <div class="nn-math-pictures">
            <Source store={store} found={found} side={Math.min(150, (width - 60) / 2)} />
            <figure>
              <Picture
                board={board}
                at={working.place(board)}
                side={Math.min(150, (width - 60) / 2) * (board.height > 1 ? 1 : 2)}
                onHover={(at) => working.hover(board, at)}
                onChoose={(at) => working.choose(board, at)}
                onStep={(by) => working.step(board, by)}
              />
              <figcaption class="nn-soft">
                {board.word
                  ? `output, ${board.word === "channel" ? "ch" : board.word} ${board.channel}`
                  : "output"}{" "}
                · {shape([board.rows, board.columns])}
              </figcaption>
            </figure>
          </div>
          <Player store={store} />
          {state === "error" && <p class="nn-math-note">{error?.message}</p>}
          {found && <Result meta={found.meta} />}
          <div class="nn-math-scroll">{found && <Terms store={store} found={found} width={width} />}</div>
        </>
      )}
    </section>
  );
}

/** Where the number looked: the strongest channel of the input, with the window on it. */
function Source({ store, found, side }: { store: Store; found: Found | null; side: number }) {
  const working = workingOf(store);
  const [map, setMap] = useState<{ key: string; values: Float32Array; sides: [number, number] } | null>(null);
  const source = found?.meta.source ?? "";
  const places = found?.arrays.places?.data;
  const shown = working.open.value ?? found?.arrays.channels?.data[0] ?? 0;
  const pooled = found?.meta.kind === "choice" || !found?.arrays.kernel ? found?.meta.unit[0] : undefined;
  const channel = pooled ?? (depthless(found) ? (found?.meta.unit[0] ?? 0) : shown);
  const wish = source && places ? `${store.picture.value}|${source}|${channel}` : "";
  useLayoutEffect(() => {
    if (!wish) return;
    let wanted = true;
    const sample = store.synced.run.peek()?.sample ?? 0;
    const params = { node: source, sample, channel, ...store.changes.params };
    store.request("values", params, { slot: "math source" }).then(
      ({ arrays: { values } }) => {
        const [rows = 1, columns = 1] = values.shape;
        if (wanted) setMap({ key: wish, values: values.data, sides: [rows, columns] });
      },
      () => {},
    );
    return () => {
      wanted = false;
    };
  }, [wish]);
  if (!wish || !places) return null;
  if (!map) return <div class="nn-ghost" style={{ width: `${side}px`, height: `${side}px` }} />;
  const [rows, columns] = map.sides;
  const plain = { rows, columns, height: rows, width: columns, values: map.values };
  return (
    <>
      <figure>
        <Picture
          board={plain}
          box={boxOf(places)}
          side={side}
          label={`input ${source}, channel ${channel}`}
        />
        <figcaption class="nn-soft" title={source}>
          {source}, ch {channel}
        </figcaption>
      </figure>
      <span class="nn-math-arrow" aria-hidden="true">
        →
      </span>
    </>
  );
}

/** Whether a window has one channel only because each channel is its own (averages, resizing). */
function depthless(found: Found | null): boolean {
  return found?.meta.channel_count === 1 && !["conv1d", "conv2d", "conv_transpose2d"].includes(found.meta.op);
}

/** Walks over the places of the output, one by one. */
function Player({ store }: { store: Store }) {
  const working = workingOf(store);
  const playing = working.playing.value;
  const go = (by: 1 | -1) => {
    working.playing.value = false;
    const board = working.board();
    if (board) working.step(board, by);
  };
  return (
    <div class="nn-math-player">
      <button
        type="button"
        class="nn-chip"
        aria-label="step back"
        title="the place before"
        onClick={() => go(-1)}
      >
        ‹
      </button>
      <button
        type="button"
        class="nn-chip"
        aria-pressed={playing}
        onClick={() => {
          working.playing.value = !playing;
        }}
      >
        {playing ? "pause" : "play"}
      </button>
      <button type="button" class="nn-chip" aria-label="step" title="the next place" onClick={() => go(1)}>
        ›
      </button>
      <span class="nn-soft">point at the output, or step over it</span>
    </div>
  );
}

function Result({ meta }: { meta: Apart }) {
  const { result, actual, error, changed_by: by } = meta;
  const equal = error !== null && error <= 1e-5;
  const known = meta.kind !== "unknown";
  return (
    <div class="nn-math-result">
      <strong>
        {meta.op}({meta.unit.join(", ")}) = {signed(actual ?? Number.NaN)}
      </strong>
      {known && by.length === 0 && (
        <span class="nn-badge" data-tone={equal ? "good" : "warn"} data-role="equal">
          {equal ? "✓ the parts give the real tensor" : `the parts give ${signed(result ?? Number.NaN)}`}
        </span>
      )}
      {by.length > 0 && (
        <p class="nn-math-note" data-role="set">
          Set by the intervention{by.length > 1 && "s"}: <code>{by.join(", ")}</code>.
          {known && ` The layer itself gave ${signed(result ?? Number.NaN)}, as follows.`}
        </p>
      )}
      <code>{meta.formula}</code>
      {meta.note && <span class="nn-soft">{meta.note}</span>}
    </div>
  );
}
