// The menu that saves the drawing as a file: what there is to choose, and the keys that menus have.

import type { RefObject } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Store } from "../state/store";
import { exportDrawing, type Format, type Part } from "./export";

const CHOICES: [string, Format, Part][] = [
  ["SVG, whole drawing", "svg", "whole"],
  ["SVG, what is shown", "svg", "shown"],
  ["PNG, whole drawing", "png", "whole"],
  ["PNG, what is shown", "png", "shown"],
];

export function ExportMenu({ store, root }: { store: Store; root: RefObject<HTMLDivElement | null> }) {
  const [open, setOpen] = useState(false);
  const home = useRef<HTMLDivElement>(null);
  const menu = useRef<HTMLDivElement>(null);
  const name = store.synced.graph.value?.model;

  useLayoutEffect(() => {
    if (open) menu.current?.querySelector("button")?.focus();
  }, [open]);

  function close(): void {
    setOpen(false);
    home.current?.querySelector("button")?.focus();
  }

  async function save(part: Part, format: Format) {
    close();
    const stage = root.current?.querySelector<HTMLElement>(".nn-stage");
    if (!stage) return;
    try {
      await exportDrawing(stage, part, format, name ?? "network");
      store.view.announce.value = `drawing saved as ${format.toUpperCase()}`;
    } catch {
      store.view.announce.value = "the drawing could not be saved";
    }
  }

  function onKeyDown(event: KeyboardEvent) {
    if (!open) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") close();
    else if (event.key === "Tab") setOpen(false);
    else if (step) walk(step);
    if (event.key === "Escape" || step) event.preventDefault();
    // The keys of the page rest while a menu is open.
    event.stopPropagation();
  }

  function walk(step: number): void {
    const items = [...(menu.current?.querySelectorAll("button") ?? [])];
    const at = items.findIndex((item) => item.matches(":focus"));
    items[(at + step + items.length) % items.length]?.focus();
  }

  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: it only hears the keys of the menu that it holds
    <div
      ref={home}
      class="nn-export"
      onKeyDown={onKeyDown}
      onFocusOut={(event) => {
        if (!home.current?.contains(event.relatedTarget as Node | null)) setOpen(false);
      }}
    >
      <button
        type="button"
        class="nn-chip nn-round"
        aria-label="save the drawing"
        title="save the drawing"
        aria-haspopup="menu"
        aria-expanded={open}
        disabled={name === undefined}
        onClick={() => setOpen(!open)}
      >
        <svg viewBox="0 0 12 12" aria-hidden="true">
          <path d="M6 1v6.5M3.2 5L6 7.8 8.8 5M1.5 10.8h9" />
        </svg>
      </button>
      {open && (
        <div ref={menu} class="nn-export-menu" role="menu" aria-label="save the drawing as">
          {CHOICES.map(([label, format, part]) => (
            <button
              key={label}
              type="button"
              role="menuitem"
              tabIndex={-1}
              data-export={`${format}-${part}`}
              onClick={() => void save(part, format)}
            >
              {label}
            </button>
          ))}
        </div>
      )}
    </div>
  );
}
