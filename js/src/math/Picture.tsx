// A picture of numbers, coloured around zero, to point at; with a window or a place marked on it.

import { useLayoutEffect, useRef } from "preact/hooks";
import { table, ZERO } from "../maps/colormaps";
import { pixelAt } from "../maps/sheet";
import { reachOf } from "./Matrix";

interface Props {
  board: { rows: number; columns: number; height: number; width: number; values: Float32Array };
  side: number;
  label?: string;
  at?: readonly [number, number];
  box?: readonly [number, number, number, number] | null;
  onHover?(at: [number, number] | null): void;
  onChoose?(at: [number, number]): void;
  onStep?(by: 1 | -1): void;
}

export function Picture({ board, side, label, at, box, onHover, onChoose, onStep }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const { rows, columns, height, width, values } = board;
  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context) return;
    const image = context.createImageData(width, height);
    const words = new Uint32Array(image.data.buffer);
    const colours = table("diverging");
    const reach = reachOf(values) || 1;
    for (let i = 0; i < words.length; i++) {
      const value = values[i] as number;
      if (Number.isFinite(value)) {
        words[i] = colours[
          ZERO + Math.round((127 * Math.max(-reach, Math.min(reach, value))) / reach)
        ] as number;
      }
    }
    context.putImageData(image, 0, 0);
  }, [values, width, height]);
  const longest = Math.max(rows, columns);
  const style = {
    width: `${Math.max(side * (columns / longest), 14)}px`,
    height: `${Math.max(side * (rows / longest), 14)}px`,
  };
  const mark = box ?? (at ? [at[0], at[1], at[0] + 1, at[1] + 1] : null);
  const where = (event: MouseEvent): [number, number] => {
    const {
      left,
      top,
      width: wide,
      height: high,
    } = (event.currentTarget as HTMLElement).getBoundingClientRect();
    return pixelAt((event.clientX - left) / wide, (event.clientY - top) / high, rows, columns);
  };
  return (
    <div
      class="nn-math-picture"
      role="img"
      aria-label={label ?? "output; arrow keys step over it"}
      data-role={onChoose ? "math-output" : "math-source"}
      data-pointed={onChoose !== undefined}
      tabIndex={onStep ? 0 : undefined}
      style={style}
      onPointerMove={onHover && ((event) => onHover(where(event)))}
      onPointerLeave={onHover && (() => onHover(null))}
      onClick={onChoose && ((event) => onChoose(where(event)))}
      onKeyDown={
        onStep &&
        ((event) => {
          const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key] as 1 | -1 | undefined;
          if (!by) return;
          onStep(by);
          event.preventDefault();
          event.stopPropagation();
        })
      }
    >
      <canvas ref={canvas} width={width} height={height} />
      {mark && (
        <i
          class="nn-unit-mark"
          style={{
            left: `${(100 * (mark[1] as number)) / columns}%`,
            top: `${(100 * (mark[0] as number)) / rows}%`,
            width: `max(6px, ${(100 * ((mark[3] as number) - (mark[1] as number))) / columns}%)`,
            height: `max(6px, ${(100 * ((mark[2] as number) - (mark[0] as number))) / rows}%)`,
          }}
        />
      )}
    </div>
  );
}
