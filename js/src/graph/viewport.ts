// Where the drawing lies in the pane: scale and shift, and the views that are worth going to. Pure; the gestures
// that change it are d3-zoom's, wired in GraphView.

import type { Direction } from "./layout";

export interface Viewport {
  k: number;
  x: number;
  y: number;
}

export interface Size {
  width: number;
  height: number;
}

export interface Rect extends Size {
  x: number;
  y: number;
}

export const SCALE_MIN = 0.06;
export const SCALE_MAX = 3;
/** Below this scale the cards can no longer be read. */
export const READABLE = 0.7;
const MARGIN = 20;

function clamp(value: number, low: number, high: number): number {
  return Math.max(low, Math.min(high, value));
}

function scaleToFit(area: Rect, pane: Size): number {
  return Math.min(
    (pane.width - 2 * MARGIN) / Math.max(1, area.width),
    (pane.height - 2 * MARGIN) / Math.max(1, area.height),
  );
}

/** All of it, as large as it gets but never enlarged. */
export function whole(area: Rect, pane: Size): Viewport {
  const k = clamp(scaleToFit(area, pane), SCALE_MIN, 1);
  return {
    k,
    x: pane.width / 2 - k * (area.x + area.width / 2),
    y: (pane.height - k * area.height) / 2 - k * area.y,
  };
}

/**
 * The view to begin with: all of it where that can be read, otherwise its beginning at a scale that can, with the
 * input (at `spine`) in the middle where the drawing is broader than the pane.
 */
export function home(area: Rect, spine: number, pane: Size, direction: Direction = "down"): Viewport {
  if (scaleToFit(area, pane) >= READABLE) return whole(area, pane);
  if (direction === "right") {
    const { k, x, y } = home(turned(area), spine, { width: pane.height, height: pane.width });
    return { k, x: y, y: x };
  }
  const fitting = (pane.width - 2 * MARGIN) / Math.max(1, area.width);
  const k = clamp(fitting, READABLE, 0.85);
  const broad = k * area.width > pane.width - 2 * MARGIN;
  const centre = broad ? spine : area.x + area.width / 2;
  return { k, x: pane.width / 2 - k * centre, y: MARGIN - k * area.y };
}

function turned({ x, y, width, height }: Rect): Rect {
  return { x: y, y: x, width: height, height: width };
}

/** Scales about a point of the pane. */
export function scaled(view: Viewport, factor: number, at: { x: number; y: number }): Viewport {
  const k = clamp(view.k * factor, SCALE_MIN, SCALE_MAX);
  return { k, x: at.x - ((at.x - view.x) * k) / view.k, y: at.y - ((at.y - view.y) * k) / view.k };
}

/** Brings a part of the drawing into the middle, at a readable scale. */
export function centred(view: Viewport, part: Rect, pane: Size): Viewport {
  const k = clamp(view.k, READABLE, 1.2);
  return {
    k,
    x: pane.width / 2 - k * (part.x + part.width / 2),
    y: pane.height / 2 - k * (part.y + Math.min(part.height, 120) / 2),
  };
}

/** The least shift that brings a part into sight; the same view where it is. */
export function inSight(view: Viewport, part: Rect, pane: Size): Viewport {
  const shift = (at: number, size: number, room: number) => {
    const length = Math.min(view.k * size, room - 2 * MARGIN);
    if (at < MARGIN) return MARGIN - at;
    return Math.min(0, room - MARGIN - length - at);
  };
  const dx = shift(view.x + view.k * part.x, part.width, pane.width);
  const dy = shift(view.y + view.k * part.y, part.height, pane.height);
  return dx === 0 && dy === 0 ? view : { k: view.k, x: view.x + dx, y: view.y + dy };
}

export function between(a: Viewport, b: Viewport, share: number): Viewport {
  const t = share * share * (3 - 2 * share);
  return { k: a.k + (b.k - a.k) * t, x: a.x + (b.x - a.x) * t, y: a.y + (b.y - a.y) * t };
}

export function close(a: Viewport, b: Viewport): boolean {
  return Math.abs(a.k / b.k - 1) < 0.01 && Math.abs(a.x - b.x) < 3 && Math.abs(a.y - b.y) < 3;
}
