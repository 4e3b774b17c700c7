// Both predictions: a bar for A above one for B, the classes that either finds likely.

import { percent } from "../maps/format";
import type { Found } from "./comparing";

const SHOWN = 4;

export function Classes({ found }: { found: Found }) {
  const { classes } = found.meta;
  if (classes.length === 0) return null;
  const best = (side: "a" | "b") => classes.reduce((one, other) => (other[side] > one[side] ? other : one));
  const [first, second] = [best("a"), best("b")];
  const ranked = [...classes].sort((x, y) => Math.max(y.a, y.b) - Math.max(x.a, x.b)).slice(0, SHOWN);
  return (
    <section class="nn-compare-classes" aria-label="predictions of both" data-changed={first !== second}>
      <h4>
        {first === second ? (
          <>
            both say <strong>{first.name}</strong>
          </>
        ) : (
          <>
            <strong data-side="A">{first.name}</strong> becomes <strong data-side="B">{second.name}</strong>
          </>
        )}
      </h4>
      {ranked.map(({ index, name, a, b }) => (
        <div
          key={index}
          class="nn-compare-class"
          data-class={index}
          title={`A ${percent(a)}, B ${percent(b)}`}
        >
          <span>{name}</span>
          <span class="nn-compare-bars" aria-hidden="true">
            <i data-side="A" style={{ width: `${100 * a}%` }} />
            <i data-side="B" style={{ width: `${100 * b}%` }} />
          </span>
          <span class="nn-compare-shares">
            <b data-side="A">{percent(a)}</b>
            <b data-side="B">{percent(b)}</b>
          </span>
        </div>
      ))}
    </section>
  );
}
