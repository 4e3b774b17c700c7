// One filter as a picture: around zero, or of three inputs as red, green and blue with zero in the middle.

import { useLayoutEffect, useRef } from "preact/hooks";
import { pack, table, ZERO } from "../maps/colormaps";
import { reachOf } from "../math/Matrix";

interface Props {
  values: Float32Array;
  depth: number;
  rows: number;
  columns: number;
  reach: number;
}

/** Colour words of one filter. */
export function tileWords({ values, depth, rows, columns, reach }: Props): Uint32Array<ArrayBuffer> {
  const area = rows * columns;
  const words = new Uint32Array(area);
  if (depth === 3) {
    // Each filter to its own range: what it looks for shows, also where it is weak.
    const own = reachOf(values) || 1;
    const byte = (c: number, i: number) =>
      Math.round(127.5 + (127.5 * (values[c * area + i] as number)) / own);
    for (let i = 0; i < area; i++) words[i] = pack(byte(0, i), byte(1, i), byte(2, i));
    return words;
  }
  const colours = table("diverging");
  for (let i = 0; i < area; i++) {
    const share = (values[i] as number) / (reach || 1);
    words[i] = colours[ZERO + Math.round(127 * Math.max(-1, Math.min(1, share)))] as number;
  }
  return words;
}

export function Tile(props: Props) {
  const { rows, columns, values } = props;
  const canvas = useRef<HTMLCanvasElement>(null);
  useLayoutEffect(() => {
    const bytes = new Uint8ClampedArray(tileWords(props).buffer);
    canvas.current?.getContext("2d")?.putImageData(new ImageData(bytes, columns, rows), 0, 0);
  }, [values, rows, columns, props.reach]);
  return <canvas ref={canvas} width={columns} height={rows} />;
}
