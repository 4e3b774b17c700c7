// The painter, in the place of the input card: what is drawn here goes through the network while it is drawn.

import { batch, effect, untracked, useComputed } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { percent } from "../maps/format";
import { Segments } from "../maps/Segments";
import { PageHead } from "../panels/PageHead";
import { Thumbnails } from "../panels/Thumbnails";
import type { Store } from "../state/store";
import { Board, type Place } from "./board";
import { Easel } from "./easel";
import { pictureIn } from "./elsewhere";
import { Live } from "./live";
import { type Adjust, border, type Colour, UNCHANGED } from "./picture";
import { Sources } from "./Sources";

type Tool = "brush" | "erase" | "cover" | "move";

const TOOLS: [Tool, string][] = [
  ["brush", "brush"],
  ["erase", "erase"],
  ["cover", "cover"],
  ["move", "move"],
];
const KEYS: Record<string, Tool> = { b: "brush", e: "erase", c: "cover", m: "move" };

/** Name, range, step, and how a value reads. */
const SLIDERS: [keyof Adjust, string, number, number, number][] = [
  ["turn", "rotate", -180, 180, 1],
  ["zoom", "scale", 0.25, 4, 0.05],
  ["brightness", "brightness", -1, 1, 0.02],
  ["blur", "blur", 0, 6, 0.1],
  ["noise", "noise", 0, 0.6, 0.01],
];

/** Where page and kernel share so few, what the ink takes is missing from the network. */
const FEW_CORES = (navigator.hardwareConcurrency || 2) <= 4;

/** The painting of each view, while that view lives: closing the card is no reason to lose it. */
const kept = new WeakMap<Store, Easel>();

/** The painting that belongs to what is on the screen; a new one where another sample is. */
function easelOf(store: Store): Easel | null {
  const input = store.input.peek();
  const count = store.synced.info.peek()?.samples ?? 0;
  const held = kept.get(store);
  if (input?.kind !== "image") return held ?? null;
  const fits = held && held.width === input.width && held.height === input.height;
  if (fits && (input.sample === held.base || input.sample >= count)) return held;
  const { width, height } = input;
  const base = input.sample < count ? input.sample : 0;
  const easel = new Easel(base, { width, height, rgb: new Uint8ClampedArray(input.rgb) });
  kept.set(store, easel);
  return easel;
}

export function PaintCard({ store }: { store: Store }) {
  const box = useRef<HTMLElement>(null);
  const [live] = useState(() => new Live(store, () => box.current?.closest(".nnviz") ?? null));
  useEffect(() => () => live.stop(), [live]);
  useLayoutEffect(() => box.current?.focus({ preventScroll: true }), []);
  // Another sample is another painting.
  const easel = useComputed(() => {
    store.input.value;
    return easelOf(store);
  }).value;
  return (
    <section
      class="nn-input nn-paint"
      data-panel="paint"
      aria-label="paint the input"
      tabIndex={-1}
      ref={box}
    >
      <PageHead name="Paint" open={store.view.paint} close="close the painter" back="back to the input (p)">
        <Meter live={live} />
      </PageHead>
      {easel ? <Work key={easel.base} store={store} easel={easel} live={live} /> : <p>no picture</p>}
      <Followed live={live} />
      <Thumbnails store={store} />
    </section>
  );
}

/** How much of the network ran for the last frame: a line of its own, which is there before it says anything. */
function Followed({ live }: { live: Live }) {
  const share = live.rate.value?.share ?? 1;
  return (
    <p class="nn-soft nn-paint-followed" data-role="recomputed">
      {share < 0.99 ? `recomputed ${percent(share)}` : "\u00a0"}
    </p>
  );
}

function Meter({ live }: { live: Live }) {
  const rate = live.rate.value;
  if (!rate) return <span class="nn-soft nn-paint-meter" />;
  const slow = rate.recorded ? " A value in sight can only be read in a recorded run, which is slower." : "";
  return (
    <output
      class="nn-soft nn-paint-meter"
      data-role="meter"
      title={`answers shown in a second of drawing; from stroke to answer ${rate.trip.toFixed(0)} ms, of it ${rate.ms.toFixed(0)} ms in the kernel.${slow}`}
    >
      {rate.fps > 0 ? `${rate.fps.toFixed(0)} fps · ` : ""}
      {rate.ms.toFixed(0)} ms
    </output>
  );
}

interface WorkProps {
  store: Store;
  easel: Easel;
  live: Live;
}

/** The canvas and the tools. A stroke goes to the canvas and to the kernel, and renders nothing of this anew. */
function Work({ store, easel, live }: WorkProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const board = useRef<Board | null>(null);
  const [tool, setTool] = useState<Tool>("brush");
  const [colour, setColour] = useState<Colour>(() => opposite(easel));
  const [size, setSize] = useState(() => Math.max(1, Math.round(Math.min(easel.width, easel.height) / 16)));
  const [compared, setCompared] = useState(false);
  const cursor = useRef<Place | null>(null);
  const gesture = useRef<{ from: Place; last: Place; dx: number; dy: number } | null>(null);
  const { width, height } = easel;
  const gray = store.synced.info.value?.input_shape[0] === 1;
  const depth = easel.depth.value;
  const first = useRef(true);

  useLayoutEffect(() => {
    const element = canvas.current as HTMLCanvasElement;
    const made = new Board(element, easel, () => FEW_CORES && live.waiting);
    board.current = made;
    live.onShown = () => made.now();
    const measure = () => made.fit(element.clientWidth, element.clientHeight);
    measure();
    const watch = new ResizeObserver(measure);
    watch.observe(element);
    return () => watch.disconnect();
  }, [easel]);

  // One picture for the screen and for the kernel, once for each change.
  useLayoutEffect(
    () =>
      effect(() => {
        void easel.version.value;
        const rgb = compared ? easel.before() : easel.picture();
        board.current?.show(rgb);
        if (first.current) first.current = false;
        else untracked(() => live.ask(rgb, easel.base, !compared));
      }),
    [easel, compared],
  );

  const mark = () => {
    const [at, held] = [cursor.current, gesture.current];
    if (!at || tool === "move" || (tool === "cover" && !held)) board.current?.point(null);
    else if (tool === "cover" && held) board.current?.point({ from: held.from, to: held.last });
    else board.current?.point({ ring: at, size });
  };
  useLayoutEffect(mark, [tool, size]);

  const placing = () => {
    const rect = (canvas.current as HTMLCanvasElement).getBoundingClientRect();
    return (event: PointerEvent): Place => [
      ((event.clientX - rect.left) / rect.width) * width - 0.5,
      ((event.clientY - rect.top) / rect.height) * height - 0.5,
    ];
  };

  const act = (to: Place) => {
    const held = gesture.current;
    if (!held) return;
    if (tool === "move")
      easel.set({ dx: held.dx + to[0] - held.from[0], dy: held.dy + to[1] - held.from[1] });
    else if (tool !== "cover") easel.line(held.last, to, size / 2, tool === "brush" ? colour : null);
    held.last = to;
  };

  const start = (place: Place) => {
    easel.begin();
    const { dx, dy } = easel.adjust.peek();
    gesture.current = { from: place, last: place, dx, dy };
    act(place);
  };

  const finish = () => {
    const held = gesture.current;
    if (held && tool === "cover") easel.box(held.from, held.last, colour);
    gesture.current = null;
    mark();
  };

  const onKeyDown = (event: KeyboardEvent) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const far = event.shiftKey ? Math.max(4, Math.round(width / 16)) : 1;
    if (step && tool === "move") {
      easel.begin();
      const { dx, dy } = easel.adjust.peek();
      easel.set({ dx: dx + far * (step[0] as number), dy: dy + far * (step[1] as number) });
    } else if (step) {
      const [x, y] = cursor.current ?? [width >> 1, height >> 1];
      const place: Place = [
        Math.min(width - 1, Math.max(0, x + far * (step[0] as number))),
        Math.min(height - 1, Math.max(0, y + far * (step[1] as number))),
      ];
      cursor.current = place;
      act(place);
      mark();
    } else if (event.key === " ") {
      // Once puts the pen down, once more lifts it.
      if (gesture.current) finish();
      else start(cursor.current ?? [width >> 1, height >> 1]);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };

  const onCardKey = (event: KeyboardEvent) => {
    const typing = (event.target as HTMLElement).closest("input, select") !== null;
    if (event.key === "z" && !typing) easel.undo();
    else if (KEYS[event.key] && !typing && !event.ctrlKey && !event.metaKey) setTool(KEYS[event.key] as Tool);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  const take = (rgb: Uint8ClampedArray) => easel.take(rgb);
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: keys of the tools inside, and a place to drop a file on
    <div
      class="nn-paint-board"
      onKeyDown={onCardKey}
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        event.stopPropagation();
        void Sources.take(pictureIn(event.dataTransfer), easel, gray, live);
      }}
    >
      <div class="nn-paint-box" data-tool={tool} style={{ aspectRatio: `${width} / ${height}` }}>
        <canvas
          ref={canvas}
          role="img"
          tabIndex={0}
          aria-label={`canvas, ${height} by ${width} pixels; arrows move the ${tool}, Space puts it down and lifts it`}
          onKeyDown={onKeyDown}
          onPointerDown={(event) => {
            if (event.button !== 0) return;
            event.currentTarget.setPointerCapture(event.pointerId);
            start(placing()(event));
          }}
          onPointerMove={(event) => {
            const at = placing();
            cursor.current = at(event);
            const points = gesture.current ? (event.getCoalescedEvents?.() ?? []) : [];
            batch(() => {
              for (const point of points.length > 0 ? points : [event]) act(at(point));
            });
            mark();
          }}
          onPointerUp={finish}
          onPointerCancel={finish}
          onPointerLeave={() => {
            if (gesture.current) return;
            cursor.current = null;
            mark();
          }}
        />
      </div>
      <Segments label="tool" value={tool} options={TOOLS} onChoose={(choice) => setTool(choice)} />
      <div class="nn-paint-row">
        <input
          type="color"
          aria-label="colour"
          title="colour of the brush and of what covers"
          value={hex(colour)}
          onInput={(event) => setColour(parse(event.currentTarget.value, gray))}
        />
        <label class="nn-paint-slider">
          <span>size</span>
          <input
            type="range"
            min={1}
            max={Math.max(4, Math.round(Math.min(width, height) / 2))}
            value={size}
            onInput={(event) => setSize(Number(event.currentTarget.value))}
          />
          <span>{size} px</span>
        </label>
      </div>
      <div class="nn-paint-row">
        <button
          type="button"
          class="nn-chip"
          disabled={depth === 0}
          title="undo (z)"
          onClick={() => easel.undo()}
        >
          undo
        </button>
        <button type="button" class="nn-chip" title="the sample as it was" onClick={() => easel.reset()}>
          reset
        </button>
        <button
          type="button"
          class="nn-chip"
          aria-pressed={compared}
          title="hold to see the original, and what the network makes of it"
          onPointerDown={() => setCompared(true)}
          onPointerUp={() => setCompared(false)}
          onPointerLeave={() => setCompared(false)}
          onKeyDown={(event) => event.key === " " && !event.repeat && setCompared(true)}
          onKeyUp={() => setCompared(false)}
          onBlur={() => setCompared(false)}
        >
          original
        </button>
      </div>
      <Adjustments easel={easel} />
      <Sources easel={easel} gray={gray} take={take} live={live} />
      {live.error.value && (
        <p class="nn-caption nn-caption-bad" role="alert">
          {live.error.value}
        </p>
      )}
    </div>
  );
}

function Adjustments({ easel }: { easel: Easel }) {
  const adjust = easel.adjust.value;
  // One step back for one gesture, however many values it went through.
  const moving = useRef(false);
  return (
    <details class="nn-paint-sliders">
      <summary>adjust</summary>
      {SLIDERS.map(([name, label, low, high, step]) => (
        <label key={name} class="nn-paint-slider" data-changed={adjust[name] !== UNCHANGED[name]}>
          <span>{label}</span>
          <input
            type="range"
            min={low}
            max={high}
            step={step}
            value={adjust[name]}
            onInput={(event) => {
              if (!moving.current) easel.begin();
              moving.current = true;
              easel.set({ [name]: Number(event.currentTarget.value) });
            }}
            onChange={() => {
              moving.current = false;
            }}
            onDblClick={() => {
              easel.begin();
              easel.set({ [name]: UNCHANGED[name] });
            }}
          />
          <span>{readable(name, adjust[name])}</span>
        </label>
      ))}
    </details>
  );
}

function readable(name: keyof Adjust, value: number): string {
  if (name === "turn") return `${value.toFixed(0)}°`;
  if (name === "zoom") return `×${value.toFixed(2)}`;
  if (name === "blur") return `${value.toFixed(1)} px`;
  return `${value > 0 && name === "brightness" ? "+" : ""}${(100 * value).toFixed(0)} %`;
}

/** A first colour that can be seen on this picture. */
function opposite(easel: Easel): Colour {
  const ground = border({
    width: easel.width,
    height: easel.height,
    rgb: easel.before() as Uint8ClampedArray,
  });
  const bright = (ground[0] + ground[1] + ground[2]) / 3;
  return bright < 128 ? [255, 255, 255] : [0, 0, 0];
}

function hex(colour: Colour): string {
  return `#${colour.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
}

function parse(text: string, gray: boolean): Colour {
  const value = Number.parseInt(text.slice(1), 16);
  const [r, g, b] = [value >> 16, (value >> 8) & 255, value & 255];
  const bright = Math.round(0.299 * r + 0.587 * g + 0.114 * b);
  return gray ? [bright, bright, bright] : [r, g, b];
}
