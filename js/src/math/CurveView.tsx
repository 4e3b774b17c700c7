// An activation function and its slope over what the layer really gets.

import { useLayoutEffect, useState } from "preact/hooks";
import { percent, short, signed } from "../maps/format";
import type { Store } from "../state/store";
import type { Reply } from "../wire/types";
import type { Found } from "./working";

const WIDE = 380;
const HIGH = 112;
const UNDER = 36;

export function CurveView({ store, found }: { store: Store; found: Found }) {
  const [curve, setCurve] = useState<{ key: string; reply: Reply<"curve"> } | null>(null);
  const { node } = found.meta;
  const key = `${store.picture.value}|${node}`;
  useLayoutEffect(() => {
    let wanted = true;
    const sample = store.synced.run.peek()?.sample ?? 0;
    store.request("curve", { node, sample, ...store.changes.params }, { slot: "curve" }).then(
      (reply) => wanted && setCurve({ key, reply }),
      () => wanted && setCurve(null),
    );
    return () => {
      wanted = false;
    };
  }, [key]);
  if (!curve || curve.key !== key) return <div class="nn-ghost" style={{ height: `${HIGH + UNDER}px` }} />;
  const { meta, arrays } = curve.reply;
  const [x, y, slope, counts] = [arrays.x.data, arrays.y.data, arrays.slope.data, arrays.counts.data];
  const [low = 0, high = 1] = [x[0], x[x.length - 1]];
  const least = Math.min(0, ...y, ...slope);
  const most = Math.max(1, ...y, ...slope);
  const px = (value: number) => ((value - low) / (high - low)) * WIDE;
  const py = (value: number) => HIGH - 4 - ((value - least) / (most - least)) * (HIGH - 8);
  const path = (of: Float32Array) =>
    [...of]
      .map((value, i) => `${i ? "L" : "M"}${px(x[i] as number).toFixed(1)} ${py(value).toFixed(1)}`)
      .join("");
  const tallest = Math.max(1, ...counts);
  const numbers = new Map(found.meta.numbers);
  const here = numbers.get("x") ?? 0;
  return (
    <figure data-role="curve" data-saturated={meta.saturated.toFixed(4)}>
      <svg
        class="nn-math-chart"
        viewBox={`0 0 ${WIDE} ${HIGH + UNDER}`}
        role="img"
        aria-label={`${meta.op}, its slope, and the distribution of its inputs`}
      >
        <line class="nn-math-axis" x2={WIDE} y1={py(0)} y2={py(0)} />
        <line class="nn-math-axis" x1={px(0)} x2={px(0)} y2={HIGH} />
        <path class="nn-math-slope" d={path(slope)} />
        <path class="nn-math-curve" d={path(y)} />
        {[...counts].map((count, i) => (
          <rect
            key={i}
            x={(i * WIDE) / counts.length}
            width={WIDE / counts.length - 0.5}
            y={HIGH + UNDER - (UNDER - 4) * Math.sqrt(count / tallest)}
            height={(UNDER - 4) * Math.sqrt(count / tallest)}
          />
        ))}
        <line class="nn-math-here" x1={px(here)} x2={px(here)} y2={HIGH + UNDER} />
        <circle class="nn-math-dot" cx={px(here)} cy={py(found.meta.result ?? 0)} r="3.5" />
      </svg>
      <figcaption>
        <span class="nn-math-key">
          <i data-line="curve" /> {meta.op}(x)
        </span>
        <span class="nn-math-key">
          <i data-line="slope" /> its slope, here {signed(numbers.get("slope") ?? 0)}
        </span>
        <span class="nn-soft">
          x from {short(low)} to {short(high)}; below, the {meta.inputs.toLocaleString("en")} real inputs
          (heights by square root)
        </span>
        <strong>
          {percent(meta.saturated)} of them are where the slope is under 0.05: hardly any gradient passes.
        </strong>
        {meta.note && <span class="nn-soft">{meta.note}</span>}
      </figcaption>
    </figure>
  );
}
