// The frame: top bar, input and predictions, graph, drawer, status line. Which of them is what, nothing more.

import { useEffect, useRef } from "preact/hooks";
import { GraphView } from "./graph/GraphView";
import { stepChannel } from "./maps/choose";
import { MapsPanel } from "./maps/MapsPanel";
import { LazyPage } from "./pages";
import { Drawer } from "./panels/Drawer";
import { keepFocus } from "./panels/focus";
import { Help } from "./panels/Help";
import { InputCard } from "./panels/InputCard";
import { Notice } from "./panels/Notice";
import { Outline } from "./panels/Outline";
import { PathNotice } from "./panels/PathNotice";
import { Predictions } from "./panels/Predictions";
import { StatusLine } from "./panels/StatusLine";
import { keepStill } from "./panels/still";
import { TopBar } from "./panels/TopBar";
import type { Store } from "./state/store";
import { turnPage } from "./state/view";

export function App({ store }: { store: Store }) {
  const root = useRef<HTMLDivElement>(null);
  const { view, synced } = store;
  const state = store.state.value;
  const drawn = synced.graph.value !== null;
  const compared = useRef(synced.info.peek()?.compare?.version);

  useEffect(() => root.current?.setAttribute("data-ready", "true"), []);
  useEffect(() => {
    // What Python set beside the sample is shown there.
    const version = synced.info.value?.compare?.version;
    if (version !== compared.current && !view.compare.peek()) turnPage(view, "compare");
    compared.current = version;
  }, [synced.info.value?.compare?.version]);
  useEffect(() => (root.current ? keepFocus(root.current) : undefined), []);
  useEffect(() => (root.current ? keepStill(store, root.current) : undefined), [store]);

  function onKeyDown(event: KeyboardEvent) {
    const typing = (event.target as HTMLElement).closest("input, select, textarea") !== null;
    if (event.key === "Escape") {
      if (store.back()) event.preventDefault();
    } else if (typing) {
      // The arrows of a choice are not the notebook's.
      event.stopPropagation();
      return;
    } else if (event.ctrlKey || event.metaKey || event.altKey) {
      return;
    } else if (event.key === "/") {
      view.search.value = "";
      event.preventDefault();
    } else if (event.key === "?") {
      view.help.value = !view.help.value;
    } else if (event.key === "e") {
      turnPage(view, "explain");
    } else if (event.key === "c") {
      turnPage(view, "compare");
    } else if (event.key === "p") {
      view.paint.value = !view.paint.value;
    } else if (event.key === "y") {
      turnPage(view, "output");
    } else if (event.key === "a") {
      view.tab.value = "intervene";
      view.drawer.value = true;
    } else if (event.key === "o") {
      view.outline.value = !view.outline.value;
    } else if (event.key === "[" || event.key === "]") {
      stepChannel(store, event.key === "]" ? 1 : -1);
    } else {
      return;
    }
    event.stopPropagation();
  }

  return (
    // Keys act only while the widget has the focus; JupyterLab's own shortcuts must not see them.
    <div
      ref={root}
      class="nnviz"
      data-state={state}
      data-lm-suppress-shortcuts="true"
      role="application"
      tabIndex={-1}
      aria-label={`Network explorer: ${synced.info.value?.model ?? "loading"}`}
      onKeyDown={onKeyDown}
    >
      <TopBar store={store} root={root} />
      <Notice store={store} />
      <div class="nn-body">
        <aside class="nn-side">
          {view.paint.value ? <LazyPage store={store} name="paint" /> : <InputCard store={store} />}
          {store.pixel.value && <LazyPage store={store} name="influence" />}
          <Predictions store={store} />
        </aside>
        <main class="nn-graph">{drawn ? <GraphView store={store} /> : <Skeleton />}</main>
        {view.outline.value && <Outline store={store} />}
        <Drawer store={store}>
          <MapsPanel store={store} />
        </Drawer>
        {view.explain.value && <LazyPage store={store} name="explain" />}
        {view.output.value && <LazyPage store={store} name="output" />}
        {view.compare.value && <LazyPage store={store} name="compare" />}
      </div>
      <PathNotice store={store} />
      <StatusLine store={store} />
      {view.help.value && <Help store={store} />}
      <div class="nn-sr" aria-live="polite">
        {view.announce.value}
      </div>
    </div>
  );
}

/** What stands in for the graph until the structure is known. */
function Skeleton() {
  return (
    <div class="nn-skeleton" aria-hidden="true">
      {[0, 1, 2, 3, 4].map((row) => (
        <div key={row} class="nn-skeleton-node" />
      ))}
    </div>
  );
}
