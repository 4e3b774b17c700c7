// How values become colours and in which order maps stand, and the colour bar that says so in numbers. Everything
// here changes in the page alone.

import type { Signal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import type { Store } from "../state/store";
import type { Colormap, Sign } from "../state/view";
import { table, unpack } from "./colormaps";
import { short } from "./format";
import { entry, type Scale } from "./lut";
import { SMALLEST } from "./sheet";

export type Control = "colour" | "range" | "order" | "size";

const COLORMAPS = { viridis: "viridis", magma: "magma", gray: "gray", diverging: "red-blue" };
const SIGNS = { value: "value", signed: "signed", magnitude: "magnitude" };
const RANGES = { channel: "per channel", layer: "per layer" };
const ORDERS = { strength: "by strength", index: "by index" };

export function Controls({ store, show }: { store: Store; show: readonly Control[] }) {
  const { view } = store;
  return (
    <div class="nn-controls">
      {show.includes("colour") && (
        <>
          <Choice
            label="colour map"
            value={view.colormap.value}
            options={COLORMAPS}
            onChange={(colormap) => chooseColours(store, colormap, view.sign.peek())}
          />
          <Choice
            label="sign"
            value={view.sign.value}
            options={SIGNS}
            onChange={(sign) => chooseSign(store, sign)}
          />
        </>
      )}
      {show.includes("range") && <Pick label="range" of={view.range} options={RANGES} />}
      {show.includes("order") && <Pick label="order" of={view.order} options={ORDERS} />}
    </div>
  );
}

/** Signed values want white at zero and the other two a sequence; a choice that says otherwise changes both. */
function chooseColours({ view }: Store, colormap: Colormap, sign: Sign): void {
  view.colormap.value = colormap;
  if (colormap === "diverging") view.sign.value = sign === "magnitude" ? "magnitude" : "signed";
  else if (sign === "signed") view.sign.value = "value";
}

function chooseSign({ view }: Store, sign: Sign): void {
  view.sign.value = sign;
  if (sign === "signed") view.colormap.value = "diverging";
  else if (view.colormap.peek() === "diverging")
    view.colormap.value = sign === "magnitude" ? "magma" : "viridis";
}

function Pick<T extends string>(props: { label: string; of: Signal<T>; options: Record<T, string> }) {
  const { of } = props;
  return (
    <Choice
      label={props.label}
      value={of.value}
      options={props.options}
      onChange={(value) => {
        of.value = value;
      }}
    />
  );
}

interface ChoiceProps<T extends string> {
  label: string;
  value: T;
  options: Record<T, string>;
  onChange(value: T): void;
}

function Choice<T extends string>({ label, value, options, onChange }: ChoiceProps<T>) {
  return (
    <select
      class="nn-chip nn-choice"
      aria-label={label}
      title={`${label}: ${options[value]}`}
      data-control={label}
      value={value}
      onChange={(event) => onChange(event.currentTarget.value as T)}
    >
      {(Object.entries(options) as [T, string][]).map(([key, text]) => (
        <option key={key} value={key}>
          {text}
        </option>
      ))}
    </select>
  );
}

export function SizeSlider({ store, most }: { store: Store; most: number }) {
  const { tile } = store.view;
  // Equal steps of the slider are equal factors.
  const steps = Math.log(Math.max(most, SMALLEST + 1) / SMALLEST);
  return (
    <input
      type="range"
      class="nn-size"
      aria-label="tile size"
      title="tile size (Ctrl + wheel)"
      min={0}
      max={100}
      value={Math.round((100 * Math.log(tile.value / SMALLEST)) / steps)}
      onInput={(event) => {
        tile.value = SMALLEST * Math.exp((Number(event.currentTarget.value) / 100) * steps);
      }}
    />
  );
}

/** A slim bar with the values of its ends, and whose range it is. */
export function Legend({ scale, whose }: { scale: Scale; whose: string }) {
  const { from, to, colormap, sign } = scale;
  const gradient = useMemo(() => {
    const colours = table(colormap);
    const stops = Array.from({ length: 17 }, (_, i) => {
      const value = from + ((to - from) * i) / 16;
      return `rgb(${unpack(colours[entry(value, scale)] as number).join(" ")})`;
    });
    return `linear-gradient(90deg, ${stops.join(", ")})`;
  }, [from, to, colormap, sign]);
  return (
    <span class="nn-legend" title={`colours from ${short(from)} to ${short(to)}: the range of ${whose}`}>
      <span>{short(from)}</span>
      <i style={{ background: gradient }} />
      <span>{short(to)}</span>
      <span class="nn-soft">{whose}</span>
    </span>
  );
}
