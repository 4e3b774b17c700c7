// The selected layer, seen from several sides: a drawer at the right, over the graph where the cell is narrow.

import { useComputed } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { LazyPage } from "../pages";
import type { Store } from "../state/store";
import type { Tab } from "../state/view";
import { Code } from "./Code";
import { Stats } from "./Stats";

const NARROWEST = 340;
const WIDEST = 760;
const STEP = 24;
const DOUBLE_CLICK_MS = 320;
const TABS: [Tab, string][] = [
  ["maps", "Maps"],
  ["math", "Math"],
  ["weights", "Weights"],
  ["intervene", "Change"],
  ["stats", "Stats"],
  ["code", "Code"],
];

export function Drawer({ store, children }: { store: Store; children: ComponentChildren }) {
  const { view, synced } = store;
  const { shown } = store;
  const layer = useComputed(() => shown.value ?? synced.selection.value.layer).value;
  const before = useRef(layer);
  useEffect(() => {
    // A layer chosen from Python opens the drawer as well.
    if (layer !== null && layer !== before.current) view.drawer.value = true;
    before.current = layer;
  }, [layer]);

  if (layer === null) return null;
  if (!view.drawer.value) {
    return (
      <button
        type="button"
        class="nn-drawer-back"
        aria-label={`show ${layer}`}
        title={`show ${layer}`}
        onClick={() => {
          view.drawer.value = true;
        }}
      >
        ‹
      </button>
    );
  }
  const tab = view.tab.value;
  return (
    <section
      class="nn-drawer"
      style={{
        "--nn-wish": `${view.drawerWidth.value}px`,
        visibility: shown.value === null ? "hidden" : undefined,
      }}
      aria-label={layer}
      ref={letThrough}
    >
      <Edge store={store} />
      <div class="nn-tabs">
        <div role="tablist" aria-label="sides of the layer" onKeyDown={(event) => turn(event, store)}>
          {TABS.map(([id, name]) => (
            <button
              key={id}
              type="button"
              role="tab"
              aria-selected={tab === id}
              tabIndex={tab === id ? 0 : -1}
              onClick={() => {
                view.tab.value = id;
              }}
            >
              {name}
            </button>
          ))}
        </div>
        <span class="nn-tabs-layer" title={layer}>
          {layer}
        </span>
        <button
          type="button"
          class="nn-close"
          aria-label="close the drawer"
          title="close"
          onClick={() => {
            view.drawer.value = false;
          }}
        >
          ×
        </button>
      </div>
      <div class="nn-tab" role="tabpanel" aria-label={tab}>
        {tab === "maps" && children}
        {(tab === "math" || tab === "weights" || tab === "intervene") && (
          <LazyPage key={tab} store={store} name={tab} />
        )}
        {tab === "stats" && <Stats store={store} />}
        {tab === "code" && <Code store={store} />}
      </div>
    </section>
  );
}

/** A drawer that opens over the card that was clicked lets the second click of a double click through. */
function letThrough(drawer: HTMLElement | null): void {
  if (!drawer) return;
  drawer.style.pointerEvents = "none";
  setTimeout(() => {
    drawer.style.pointerEvents = "";
  }, DOUBLE_CLICK_MS);
}

function turn(event: KeyboardEvent, { view }: Store): void {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step === undefined) return;
  const now = TABS.findIndex(([id]) => id === view.tab.peek());
  const next = TABS[(now + step + TABS.length) % TABS.length];
  if (!next) return;
  view.tab.value = next[0];
  event.preventDefault();
  event.stopPropagation();
  const buttons = (event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>("[role=tab]");
  buttons[TABS.indexOf(next)]?.focus();
}

/** The edge that is pulled to make the drawer wider. */
function Edge({ store }: { store: Store }) {
  const { drawerWidth } = store.view;
  const grip = useRef<{ x: number; width: number } | null>(null);
  const set = (width: number) => {
    drawerWidth.value = Math.round(Math.min(WIDEST, Math.max(NARROWEST, width)));
  };
  return (
    // biome-ignore lint/a11y/useSemanticElements: a rule cannot be dragged
    <div
      class="nn-edge"
      role="separator"
      aria-orientation="vertical"
      aria-label="width of the drawer"
      aria-valuenow={drawerWidth.value}
      aria-valuemin={NARROWEST}
      aria-valuemax={WIDEST}
      tabIndex={0}
      onPointerDown={(event) => {
        event.currentTarget.setPointerCapture(event.pointerId);
        const width = (event.currentTarget.parentElement as HTMLElement).offsetWidth;
        grip.current = { x: event.clientX, width };
        event.preventDefault();
      }}
      onPointerMove={(event) => {
        if (grip.current) set(grip.current.width + grip.current.x - event.clientX);
      }}
      onPointerUp={() => {
        grip.current = null;
      }}
      onKeyDown={(event) => {
        const step = { ArrowLeft: STEP, ArrowRight: -STEP }[event.key];
        if (step === undefined) return;
        set(drawerWidth.peek() + step);
        event.preventDefault();
        event.stopPropagation();
      }}
    />
  );
}
