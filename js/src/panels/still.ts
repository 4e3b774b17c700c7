// A picture of the widget as it stands, for the notebook as it is saved: the page draws itself and hands the kernel
// a PNG. The element is cloned into an SVG (foreignObject) together with our own rules, the theme's colours as they
// are resolved now, and an image in place of every canvas; nothing is fetched. Where a browser refuses to read such
// a picture back, there is none: it is a courtesy and must never disturb.

import { effect } from "@preact/signals";
import { soon } from "../graph/slices";
import type { Store } from "../state/store";

const SETTLED = 4000;
const WIDEST = 1200;
const MOST_BYTES = 200_000;
const LEAST_SCALE = 0.4;
const XHTML = "http://www.w3.org/1999/xhtml";

/** Sends a picture some time after the last change; returns how to stop. */
export function keepStill(store: Store, root: HTMLElement): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let stopped = false;

  async function take() {
    if (stopped || store.state.peek() !== "ready") return;
    // Not now, not here: somebody drags, or nobody looks.
    if (store.view.scrub.peek() || document.hidden || root.getBoundingClientRect().height === 0)
      return plan();
    const png = await picture(root).catch(() => null);
    if (png && !stopped && !(await store.sendStill(png))) stop();
  }

  function plan() {
    clearTimeout(timer);
    if (!stopped) timer = setTimeout(() => whenIdle(() => void take()), SETTLED);
  }

  const unwatch = effect(() => {
    const { view, synced } = store;
    for (const watched of [
      store.state,
      synced.graph,
      synced.run,
      synced.selection,
      store.input,
      store.thumbs,
      store.strips,
      store.maps,
      store.saliency,
      store.stats,
      ...[view.tab, view.colormap, view.sign, view.range, view.order, view.overlay, view.tile, view.zoom],
      ...[view.matrix, view.statsOf, view.open, view.drawer, view.drawerWidth],
    ]) {
      void watched.value;
    }
    plan();
  });

  function stop() {
    stopped = true;
    clearTimeout(timer);
    unwatch();
  }
  return stop;
}

function whenIdle(work: () => void): void {
  if ("requestIdleCallback" in window) window.requestIdleCallback(work, { timeout: 2000 });
  else setTimeout(work, 0);
}

/** A PNG of the element, small enough to live in a notebook. Each step in a task of its own: somebody may be working. */
export async function picture(root: HTMLElement): Promise<ArrayBuffer | null> {
  const { width, height } = root.getBoundingClientRect();
  const page = asPage(root, width, height);
  await pause();
  const source = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(asSvg(page, width, height))}`;
  await pause();
  const image = new Image();
  image.src = source;
  await image.decode();
  await pause();
  let scale = Math.min(1, WIDEST / width);
  for (;;) {
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    if (!context) return null;
    context.imageSmoothingQuality = "high";
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/png"));
    if (!blob) return null;
    if (blob.size <= MOST_BYTES || scale <= LEAST_SCALE) return blob.arrayBuffer();
    scale = Math.max(LEAST_SCALE, scale * Math.min(0.9, Math.sqrt(MOST_BYTES / blob.size)));
  }
}

function pause(): Promise<void> {
  return new Promise(soon);
}

function asPage(root: HTMLElement, width: number, height: number): Element {
  const rules = ownRules(root);
  const copy = root.cloneNode(true) as HTMLElement;
  freeze(root, copy);
  copy.style.width = `${width}px`;
  copy.style.height = `${height}px`;
  const page = document.createElementNS(XHTML, "div");
  for (const attribute of ["data-jp-theme-light", "data-jp-theme-name"]) {
    const value = root.closest(`[${attribute}]`)?.getAttribute(attribute);
    if (value) page.setAttribute(attribute, value);
  }
  page.setAttribute("style", resolved(root, rules));
  const style = document.createElementNS(XHTML, "style");
  style.textContent = `${rules}\n.nnviz * { scrollbar-width: none; }`;
  page.append(style, copy);
  return page;
}

function asSvg(page: Element, width: number, height: number): string {
  const body = new XMLSerializer().serializeToString(page);
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">` +
    `<foreignObject width="100%" height="100%">${body}</foreignObject></svg>`
  );
}

/** The style sheets that speak of us, wherever the host put them. */
function ownRules(root: HTMLElement): string {
  const home = root.getRootNode() as Document | ShadowRoot;
  const sheets = [...home.styleSheets, ...home.adoptedStyleSheets, ...document.styleSheets];
  const texts = new Set<string>();
  for (const sheet of sheets) {
    try {
      const written = sheet.ownerNode instanceof HTMLStyleElement ? sheet.ownerNode.textContent : "";
      const text = written || [...sheet.cssRules].map((rule) => rule.cssText).join("\n");
      if (text.includes(".nnviz")) texts.add(text);
    } catch {
      // A sheet of another origin cannot be read, and is not ours.
    }
  }
  // Canvases are images in the picture.
  return [...texts].join("\n").replace(/(?<![\w-])canvas(?![\w-])/g, ":is(canvas, img)");
}

/** The host's variables that our rules use, with their values of now. */
function resolved(root: HTMLElement, rules: string): string {
  const now = getComputedStyle(root);
  const names = new Set(rules.match(/--jp-[\w-]+/g));
  // The system's own font has no name inside an image.
  const plain = (value: string) => value.replace(/(system-ui|-apple-system|blinkmacsystemfont)\s*,\s*/gi, "");
  return [...names].map((name) => `${name}:${plain(now.getPropertyValue(name))}`).join(";");
}

/** What a clone forgets: pixels of canvases, how far things are scrolled, what is typed and chosen. */
function freeze(from: Element, to: Element): void {
  const [originals, copies] = [from.querySelectorAll("*"), to.querySelectorAll("*")];
  const frame = from.getBoundingClientRect();
  originals.forEach((original, i) => {
    const copy = copies[i] as HTMLElement;
    if (!to.contains(copy)) return;
    if (original instanceof HTMLCanvasElement) copy.replaceWith(imageOf(original));
    else if (original instanceof HTMLSelectElement) {
      copy.querySelectorAll("option")[original.selectedIndex]?.setAttribute("selected", "");
    } else if (original instanceof HTMLInputElement) copy.setAttribute("value", original.value);
    if (original.scrollTop > 0 || original.scrollLeft > 0) {
      for (const child of copy.children) {
        (child as HTMLElement).style.translate = `${-original.scrollLeft}px ${-original.scrollTop}px`;
      }
    }
    // A shimmer has no place in a picture.
    if (copy.style) copy.style.animation = "none";
    // Most of a large drawing is out of sight: it would take longest.
    if (original.matches(".nn-node") && apart(original.getBoundingClientRect(), frame)) copy.remove();
  });
}

function apart(a: DOMRect, b: DOMRect): boolean {
  return a.right < b.left || a.left > b.right || a.bottom < b.top || a.top > b.bottom;
}

function imageOf(canvas: HTMLCanvasElement): Element {
  const image = document.createElementNS(XHTML, "img");
  for (const { name, value } of canvas.attributes) {
    if (name === "class" || name === "style" || name.startsWith("data-")) image.setAttribute(name, value);
  }
  image.setAttribute("src", canvas.toDataURL());
  return image;
}
