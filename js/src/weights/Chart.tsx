// Numbers from zero as bars side by side; of very many the largest of each few.

const WIDE = 200;
const HIGH = 56;
const MOST = 100;

export function Chart({ title, values, note }: { title: string; values: ArrayLike<number>; note: string }) {
  const bars = Math.min(MOST, values.length);
  const heights = new Array<number>(bars).fill(0);
  for (let i = 0; i < values.length; i++) {
    const bar = Math.floor((i * bars) / values.length);
    heights[bar] = Math.max(heights[bar] as number, values[i] as number);
  }
  const most = Math.max(...heights, Number.MIN_VALUE);
  return (
    <figure>
      <figcaption>{title}</figcaption>
      <svg class="nn-math-chart" viewBox={`0 0 ${WIDE} ${HIGH}`} role="img" aria-label={`${title}: ${note}`}>
        {heights.map((height, i) => (
          <rect
            key={i}
            x={(i * WIDE) / bars}
            width={Math.max(0.6, WIDE / bars - 0.5)}
            y={HIGH - (HIGH * height) / most}
            height={(HIGH * height) / most}
          />
        ))}
      </svg>
      <span class="nn-soft">{note}</span>
    </figure>
  );
}
