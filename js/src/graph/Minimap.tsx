// Where in a large drawing one is: every card as a patch of its colour, and the pane as a frame that can be dragged.
// Only there when the drawing is much larger than the pane.

import { useComputed, useSignalEffect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { GraphController } from "./controller";
import type { Drawing } from "./layout";
import { moveTo } from "./moving";
import { categoryOf } from "./words";

const WIDTH = 84;
const NARROWEST = 26;
const ROOMY = 640;
const HEIGHT = 150;
/** How long it is where the network runs to the right. */
const LENGTH = 240;
const SCREENS = 2;

export function Minimap({ graph, drawing }: { graph: GraphController; drawing: Drawing }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const frame = useRef<HTMLDivElement>(null);
  const pane = graph.pane.value;
  // Told only when it changes: a view that is dragged renders nothing here.
  const large = useComputed(() => {
    const { k } = graph.viewport.value;
    const [{ width, height }, whole] = [graph.pane.value, graph.drawing.value];
    return whole !== null && (k * whole.height > SCREENS * height || k * whole.width > SCREENS * width);
  });
  const shown = large.value && pane.width >= ROOMY;
  const down = drawing.direction === "down";
  const even = down
    ? Math.min(WIDTH / drawing.width, HEIGHT / drawing.height)
    : Math.min(LENGTH / drawing.width, HEIGHT / drawing.height);
  // A long chain would be a hair: it is drawn broader than it is.
  const sx = down ? Math.max(even, NARROWEST / drawing.width) : even;
  const sy = down ? even : Math.max(even, NARROWEST / drawing.height);
  const [width, height] = [drawing.width * sx, Math.max(8, drawing.height * sy)];

  // After the frame: to ask for colours before it would have the whole page styled at once, in a long task.
  useEffect(() => {
    if (shown && canvas.current) paint(canvas.current, drawing, sx, sy);
  }, [shown, drawing, sx, sy]);

  useSignalEffect(() => {
    const view = graph.viewport.value;
    const [ox, oy] = graph.origin.value;
    const room = graph.pane.value;
    if (!frame.current) return;
    const { style } = frame.current;
    moveTo(frame.current, `translate(${(-view.x / view.k - ox) * sx}px, ${(-view.y / view.k - oy) * sy}px)`);
    style.width = `${(room.width / view.k) * sx}px`;
    style.height = `${(room.height / view.k) * sy}px`;
  });

  function go(event: PointerEvent & { currentTarget: HTMLElement }): void {
    if (event.type === "pointermove" && event.buttons === 0) return;
    const box = event.currentTarget.getBoundingClientRect();
    const [ox, oy] = graph.origin.peek();
    const now = graph.viewport.peek();
    const [x, y] = [(event.clientX - box.left) / sx + ox, (event.clientY - box.top) / sy + oy];
    graph.moved({ k: now.k, x: pane.width / 2 - now.k * x, y: pane.height / 2 - now.k * y });
    if (event.type === "pointerdown") event.currentTarget.setPointerCapture(event.pointerId);
    event.stopPropagation();
  }

  if (!shown) return null;
  return (
    <div
      class="nn-minimap"
      style={{ width: `${width}px`, height: `${height}px`, left: `${pane.width - width - 12}px` }}
      aria-hidden="true"
      onPointerDown={go}
      onPointerMove={go}
    >
      <canvas ref={canvas} width={Math.ceil(2 * width)} height={Math.ceil(2 * height)} />
      <div ref={frame} class="nn-minimap-frame" />
    </div>
  );
}

function paint(canvas: HTMLCanvasElement, drawing: Drawing, sx: number, sy: number): void {
  const pen = canvas.getContext("2d");
  if (!pen) return;
  const style = getComputedStyle(canvas);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  for (const { item, x, y, width, height, open } of drawing.boxes) {
    pen.globalAlpha = open ? 0.12 : 0.75;
    pen.fillStyle = style.getPropertyValue(`--nn-${categoryOf(item)}`) || "gray";
    pen.fillRect(2 * sx * x, 2 * sy * y, 2 * sx * width, Math.max(1.5, 2 * sy * height));
  }
}
