// The drawing as a file: an SVG that stands alone, or a PNG of it. What the page has laid out is read back from the
// page: boxes, lines and texts with the colours and places that they have now, so that the file follows every change
// of cards and themes. Buttons, shadows, and what the pointer lights are left out.

export type Part = "whole" | "shown";
export type Format = "svg" | "png";

const SVG = "http://www.w3.org/2000/svg";
const MARKS = ["data-selected", "data-near", "data-far", "data-found"];
const MARGIN = 16;
const PNG_SCALE = 2;
/** More than that no browser draws. */
const MAX_SIDE = 16_000;
const MAX_AREA = 200_000_000;
const SETTLE_MS = 1000;

interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface Colour {
  paint: string;
  opacity: number;
}

export interface Shadow {
  colour: Colour;
  x: number;
  y: number;
  spread: number;
}

/** Hands the user a file of the drawing. */
export async function exportDrawing(
  stage: HTMLElement,
  part: Part,
  format: Format,
  name: string,
): Promise<void> {
  download(await drawingFile(stage, part, format, name), fileName(name, format));
}

export async function drawingFile(
  stage: HTMLElement,
  part: Part,
  format: Format,
  name: string,
): Promise<Blob> {
  await settled(stage);
  const svg = new Blob([drawingSvg(stage, part, name)], { type: "image/svg+xml" });
  return format === "svg" ? svg : pngOf(await svg.text());
}

/** The text of the SVG. */
export function drawingSvg(stage: HTMLElement, part: Part, name: string): string {
  const mark = unmarked(stage);
  try {
    const svg = new Scribe(stage).draw(part, name);
    return `<?xml version="1.0" encoding="UTF-8"?>\n${new XMLSerializer().serializeToString(svg)}\n`;
  } finally {
    mark();
  }
}

/**
 * Takes off what selecting, pointing and searching put on the cards, and gives the legend its title; returns how to
 * bring all back.
 */
function unmarked(stage: HTMLElement): () => void {
  const undo: Array<() => void> = [];
  for (const title of stage.querySelectorAll<HTMLElement>(".nn-key [hidden]")) {
    title.hidden = false;
    undo.push(() => {
      title.hidden = true;
    });
  }
  for (const mark of MARKS) {
    for (const card of stage.querySelectorAll(`.nn-node[${mark}]`)) {
      const value = card.getAttribute(mark) ?? "";
      card.removeAttribute(mark);
      undo.push(() => card.setAttribute(mark, value));
    }
  }
  return () => {
    for (const step of undo) step();
  };
}

async function settled(stage: HTMLElement): Promise<void> {
  const moving = stage
    .getAnimations({ subtree: true })
    .filter((animation) => Number.isFinite(animation.effect?.getComputedTiming().endTime));
  const rest = Promise.allSettled(moving.map((animation) => animation.finished));
  await Promise.race([rest, new Promise((resolve) => setTimeout(resolve, SETTLE_MS))]);
}

async function pngOf(svg: string): Promise<Blob> {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const scale = pngScale(image.width, image.height);
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(image.width * scale);
  canvas.height = Math.round(image.height * scale);
  canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no picture"))), "image/png"),
  );
}

/** Twice the size, or as large as browsers can. */
export function pngScale(width: number, height: number): number {
  return Math.min(PNG_SCALE, MAX_SIDE / Math.max(width, height), Math.sqrt(MAX_AREA / (width * height)));
}

/** The model's name, with only what every file system takes. */
export function fileName(name: string, format: Format): string {
  const plain = name.replace(/[^\p{L}\p{N}._-]+/gu, "_").replace(/^[._]+|[._]+$/g, "");
  return `${plain.slice(0, 80) || "network"}.${format}`;
}

function download(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// --------------------------------------------------------------------------------------------------- reading styles

/** A computed colour as other programs know it; null where nothing would be seen. */
export function readColour(value: string): Colour | null {
  const found = value.match(/^(rgba?|color)\((?:srgb )?([^)]*)\)$/);
  const parts = found?.[2]?.split(/[\s,/]+/).map((part) => Number.parseFloat(part) || 0) ?? pixelOf(value);
  const unit = found?.[1] === "color" ? 255 : 1;
  const opacity = parts[3] ?? 1;
  if (opacity <= 0) return null;
  const byte = (part = 0) => Math.max(0, Math.min(255, Math.round(part * unit)));
  const hex = parts.slice(0, 3).map((part) => byte(part).toString(16).padStart(2, "0"));
  return { paint: `#${hex.join("")}`, opacity: Math.round(opacity * 1000) / 1000 };
}

/** What any other way to write a colour looks like. */
function pixelOf(value: string): number[] {
  const pen = value === "none" ? null : document.createElement("canvas").getContext("2d");
  if (!pen) return [0, 0, 0, 0];
  pen.fillStyle = value;
  pen.fillRect(0, 0, 1, 1);
  const [r = 0, g = 0, b = 0, a = 0] = pen.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
}

/** The sheets of paper under a card: shadows that are shifted and not blurred. */
export function readShadows(value: string): Shadow[] {
  const shadows: Shadow[] = [];
  for (const shadow of value.split(/,(?![^(]*\))/)) {
    const found = shadow.trim().match(/^(.*?\)|\S+) (-?[\d.]+)px (-?[\d.]+)px (-?[\d.]+)px (-?[\d.]+)px$/);
    if (!found) continue;
    const [x = 0, y = 0, blur = 0, spread = 0] = found.slice(2).map(Number);
    const colour = readColour(found[1] ?? "");
    if (colour && blur === 0 && (x !== 0 || y !== 0)) shadows.push({ colour, x, y, spread });
  }
  return shadows;
}

/** XML has no room for control characters. */
function plain(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g, "\ufffd");
}

// ---------------------------------------------------------------------------------------------------------- drawing

/** Reads one stage, in the coordinates of its drawing. */
class Scribe {
  private readonly world: HTMLElement;
  private scale: number;
  private origin: { x: number; y: number };
  private readonly pen = document.createElement("canvas").getContext("2d");

  constructor(private readonly stage: HTMLElement) {
    this.world = stage.querySelector<HTMLElement>(".nn-world") ?? stage;
    this.scale = new DOMMatrix(getComputedStyle(this.world).transform).a || 1;
    const { left, top } = this.world.getBoundingClientRect();
    this.origin = { x: left, y: top };
  }

  draw(part: Part, name: string): SVGSVGElement {
    const lines = this.world.querySelector<SVGGElement>(".nn-wires .nn-lines");
    const bounds = part === "whole" ? this.whole(lines) : this.shown();
    const zoom = part === "whole" ? 1 : this.scale;
    const key = this.key();
    const place = { x: bounds.x + MARGIN, y: bounds.y + bounds.height };
    if (key && part === "whole") {
      bounds.width = Math.max(bounds.width, key.width + 2 * MARGIN);
      bounds.height += key.height + MARGIN;
    }
    const style = getComputedStyle(this.stage);
    const svg = make("svg", {
      width: bounds.width * zoom,
      height: bounds.height * zoom,
      viewBox: [bounds.x, bounds.y, bounds.width, bounds.height].map(short).join(" "),
      "font-family": fonts(style.fontFamily),
      style: "font-variant-numeric: tabular-nums",
    }) as SVGSVGElement;
    svg.append(make("title", {}, name));
    const paper = this.paper();
    if (paper) svg.append(make("rect", { ...bounds, ...fill(paper) }));
    const nodes = [...this.world.querySelectorAll<HTMLElement>(".nn-node")].filter(
      (node) => part === "whole" || meet(this.rect(node), bounds),
    );
    const open = nodes.filter((node) => node.dataset.form === "open");
    for (const node of open) svg.append(this.node(node));
    if (lines) svg.append(this.wires(lines));
    for (const node of nodes) if (node.dataset.form !== "open") svg.append(this.node(node));
    if (key) {
      const at = part === "whole" ? place : key;
      key.drawn.setAttribute("transform", `translate(${short(at.x)} ${short(at.y)}) scale(${1 / zoom})`);
      svg.append(key.drawn);
    }
    return svg;
  }

  /** The legend, which is no part of the drawing and not scaled with it: where it lies, and drawn for itself. */
  private key(): (Box & { drawn: Element }) | null {
    const key = this.stage.querySelector<HTMLElement>(".nn-key");
    if (!key) return null;
    const { x, y } = this.rect(key);
    const { left, top, width, height } = key.getBoundingClientRect();
    const drawn = make("g", { "data-key": key.dataset.by ?? "" });
    const { scale, origin } = this;
    [this.scale, this.origin] = [1, { x: left, y: top }];
    const around = getComputedStyle(key.parentElement as Element);
    drawn.append(...frame(around, { x: 0, y: 0, width, height }));
    this.element(key, drawn);
    [this.scale, this.origin] = [scale, origin];
    return { x, y, width, height, drawn };
  }

  private rect(of: Element | Range): Box {
    const { left, top, width, height } = of.getBoundingClientRect();
    const [k, { x, y }] = [this.scale, this.origin];
    return { x: (left - x) / k, y: (top - y) / k, width: width / k, height: height / k };
  }

  private whole(lines: SVGGElement | null): Box {
    const boxes = [...this.world.querySelectorAll(".nn-node")].map((node) => this.rect(node));
    if (lines) {
      const [{ x, y }, inner] = [this.rect(lines.ownerSVGElement as Element), lines.getBBox()];
      boxes.push({ x: x + inner.x, y: y + inner.y, width: inner.width, height: inner.height });
    }
    const left = Math.min(...boxes.map((box) => box.x)) - MARGIN;
    const top = Math.min(...boxes.map((box) => box.y)) - MARGIN;
    const right = Math.max(...boxes.map((box) => box.x + box.width)) + MARGIN;
    const bottom = Math.max(...boxes.map((box) => box.y + box.height)) + MARGIN;
    return boxes.length > 0
      ? { x: left, y: top, width: right - left, height: bottom - top }
      : { x: 0, y: 0, width: 1, height: 1 };
  }

  /** The pane, without the part that a drawer lies over. */
  private shown(): Box {
    const pane = this.rect(this.stage);
    const drawer = this.stage.closest(".nnviz")?.querySelector(".nn-drawer");
    const covered = drawer ? Math.max(0, pane.x + pane.width - this.rect(drawer).x) : 0;
    return covered < pane.width ? { ...pane, width: pane.width - covered } : pane;
  }

  private paper(): Colour | null {
    for (let at: Element | null = this.stage; at; at = at.parentElement) {
      const colour = readColour(getComputedStyle(at).backgroundColor);
      if (colour) return colour;
    }
    return null;
  }

  // ---- cards -------------------------------------------------------------------------------------------

  private node(node: HTMLElement): Element {
    const group = make("g", { "data-node": node.dataset.node ?? "" });
    group.append(make("title", {}, node.getAttribute("aria-label") ?? ""));
    this.element(node, group);
    return group;
  }

  private element(element: HTMLElement, into: Element): void {
    const style = getComputedStyle(element);
    if (style.display === "none" || style.visibility === "hidden") return;
    let group = into;
    if (Number(style.opacity) < 1) {
      group = make("g", { opacity: style.opacity });
      into.append(group);
    }
    const box = this.rect(element);
    if (element instanceof HTMLCanvasElement) group.append(...this.picture(element, style, box));
    else {
      group.append(...frame(style, box));
      for (const child of element.childNodes) {
        if (child instanceof Text) group.append(...this.text(child, element, style));
        else if (child instanceof HTMLElement && !child.matches("button:not([data-end])"))
          this.element(child, group);
      }
    }
  }

  private picture(canvas: HTMLCanvasElement, style: CSSStyleDeclaration, box: Box): Element[] {
    if (canvas.matches(".nn-strip:not([data-drawn])")) return [];
    const preserveAspectRatio = style.objectFit === "cover" ? "xMidYMid slice" : "none";
    return [make("image", { ...box, preserveAspectRatio, href: canvas.toDataURL() })];
  }

  private text(node: Text, parent: HTMLElement, style: CSSStyleDeclaration): Element[] {
    const range = document.createRange();
    range.selectNodeContents(node);
    let box = this.rect(range);
    let words = node.data.replace(/\s+/g, " ").trim();
    const colour = readColour(style.color);
    if (!words || !colour || box.width === 0) return [];
    const { pen } = this;
    if (pen) pen.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
    const width = (text: string) => pen?.measureText(text).width ?? 0;
    const room = clipped(parent);
    const limit = room ? this.rect(room).x + this.rect(room).width : Number.POSITIVE_INFINITY;
    if (box.x + box.width > limit + 1) {
      words = shortened(words, limit - box.x, width);
      box = { ...box, width: width(words) };
    }
    const { fontBoundingBoxAscent: up = 0, fontBoundingBoxDescent: down = 0 } = pen?.measureText(words) ?? {};
    const attributes = {
      x: box.x,
      y: box.y + (box.height - up - down) / 2 + up,
      "font-size": Number.parseFloat(style.fontSize),
      "font-weight": style.fontWeight,
      // Another program's font has other widths: the words keep within their card.
      textLength: box.width,
      lengthAdjust: "spacingAndGlyphs",
      ...fill(colour),
    };
    return [make("text", attributes, words)];
  }

  // ---- edges -------------------------------------------------------------------------------------------

  private wires(lines: SVGGElement): Element {
    const { x, y } = this.rect(lines.ownerSVGElement as Element);
    const group = make("g", { transform: `translate(${short(x)} ${short(y)})` });
    for (const line of lines.querySelectorAll<SVGPathElement>("path:not(.nn-hit)")) {
      const style = getComputedStyle(line);
      const d = line.getAttribute("d") ?? "";
      if (!d) continue;
      group.append(make("path", { d, ...fill(readColour(style.fill)), ...stroke(style) }));
    }
    for (const tag of lines.querySelectorAll<SVGTextElement>("text")) {
      const style = getComputedStyle(tag);
      const [ink, paper] = [readColour(style.fill), readColour(style.stroke)];
      const { x: left, y: top, width, height } = tag.getBBox();
      // A halo around letters is not drawn alike everywhere; a patch behind them is.
      if (paper)
        group.append(make("rect", { x: left - 2, y: top, width: width + 4, height, ...fill(paper) }));
      const place = { x: left, y: tag.getAttribute("y") ?? "", textLength: width };
      const font = { "font-size": Number.parseFloat(style.fontSize), lengthAdjust: "spacingAndGlyphs" };
      group.append(make("text", { ...place, ...font, ...fill(ink) }, tag.textContent ?? ""));
    }
    return group;
  }
}

/** Background and border of an element. */
function frame(style: CSSStyleDeclaration, box: Box): Element[] {
  const made: Element[] = [];
  const radius = radiusOf(style, box);
  for (const { colour, x, y, spread } of readShadows(style.boxShadow).reverse()) {
    const sheet = grown(box, spread);
    made.push(
      make("rect", { ...sheet, x: sheet.x + x, y: sheet.y + y, rx: radius + spread, ...fill(colour) }),
    );
  }
  const line = Number.parseFloat(style.borderTopWidth) || 0;
  const edge = line > 0 ? readColour(style.borderTopColor) : null;
  const inside = readColour(style.backgroundColor);
  if (edge || inside) {
    made.push(
      make("rect", {
        ...grown(box, -line / 2),
        rx: Math.max(0, radius - line / 2),
        ...fill(inside),
        ...(edge && { stroke: edge.paint, "stroke-opacity": edge.opacity, "stroke-width": line }),
        ...(edge && style.borderTopStyle === "dashed" && { "stroke-dasharray": "3 2" }),
      }),
    );
  }
  const stripe = Number.parseFloat(style.borderLeftWidth) || 0;
  const accent = stripe > line ? readColour(style.borderLeftColor) : null;
  if (accent) made.push(make("path", { d: stripePath(box, stripe, radius), ...fill(accent) }));
  return made;
}

/** The coloured left side of a card, round where the card is. */
function stripePath({ x, y, height }: Box, width: number, radius: number): string {
  const dip = radius - Math.sqrt(Math.max(0, radius ** 2 - (radius - width) ** 2));
  const [right, bottom] = [x + width, y + height];
  const arc = `A${radius} ${radius} 0 0 0`;
  const points = [right, y + dip, x, y + radius, bottom - radius, right, bottom - dip].map(short);
  const [x0, y0, x1, y1, y2, x3, y3] = points;
  return `M${x0} ${y0}${arc} ${x1} ${y1}V${y2}${arc} ${x3} ${y3}Z`;
}

function radiusOf(style: CSSStyleDeclaration, { width, height }: Box): number {
  const written = style.borderTopLeftRadius;
  const value = Number.parseFloat(written) || 0;
  return Math.min(written.endsWith("%") ? (value / 100) * width : value, width / 2, height / 2);
}

/** The element that cuts off the words in `element`. */
function clipped(element: HTMLElement): HTMLElement | null {
  for (let at: HTMLElement | null = element; at && !at.matches(".nn-world"); at = at.parentElement) {
    if (getComputedStyle(at).overflowX === "hidden") return at;
  }
  return null;
}

/** As many letters as fit, and three dots. */
export function shortened(words: string, room: number, width: (text: string) => number): string {
  const letters = [...words];
  let [low, high] = [0, letters.length];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (width(`${letters.slice(0, middle).join("")}…`) <= room) low = middle;
    else high = middle - 1;
  }
  return `${letters.slice(0, low).join("")}…`;
}

/** The system's own font has no name outside of the browser. */
function fonts(family: string): string {
  const named = family.replace(/(system-ui|-apple-system|blinkmacsystemfont|ui-sans-serif)\s*,\s*/gi, "");
  return /sans-serif/.test(named) ? named : `${named}, sans-serif`;
}

function fill(colour: Colour | null): Record<string, string | number> {
  if (!colour) return { fill: "none" };
  return colour.opacity < 1 ? { fill: colour.paint, "fill-opacity": colour.opacity } : { fill: colour.paint };
}

function stroke(style: CSSStyleDeclaration): Record<string, string | number> {
  const colour = readColour(style.stroke);
  if (!colour) return {};
  return {
    stroke: colour.paint,
    "stroke-opacity": colour.opacity,
    "stroke-width": Number.parseFloat(style.strokeWidth),
    ...(style.strokeDasharray !== "none" && { "stroke-dasharray": style.strokeDasharray }),
  };
}

function grown({ x, y, width, height }: Box, by: number): Box {
  return {
    x: x - by,
    y: y - by,
    width: Math.max(0, width + 2 * by),
    height: Math.max(0, height + 2 * by),
  };
}

function meet(a: Box, b: Box): boolean {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}

function short(value: number): number {
  return Math.round(value * 100) / 100;
}

function make(tag: string, attributes: Record<string, string | number>, text?: string): Element {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, typeof value === "number" ? `${short(value)}` : plain(value));
  }
  if (text !== undefined) element.textContent = plain(text);
  return element;
}
