// Wiring only: a widget model becomes a store, a store becomes a picture. `initialize` must return at once
// (the host gives it two seconds), so everything heavy waits for `render`.

import { render as mount, options } from "preact";
import { App } from "./App";
import { handDrawings } from "./graph/handing";
import { rememberColour } from "./state/remembered";
import { Store } from "./state/store";
import { type Synced, synced, type WidgetModel } from "./state/synced";
import { WireClient } from "./wire/client";
import "./theme.css";
import "./graph/graph.css";
import "./graph/export.css";
import "./maps/maps.css";
import "./panels/panels.css";

// What arrived is drawn in the same turn of the event loop; preact's own choice, a timeout, may cost a frame.
options.debounceRendering = queueMicrotask;

interface Shared {
  synced: Synced;
  wire: WireClient;
  views: number;
}

/**
 * One wire and one mirror of the traits per widget, shared by its views and counted. The host hands `initialize` and
 * every `render` a model object of its own, so what they have in common is a name that Python gave.
 */
const shared = new Map<unknown, Shared>();

function open(model: WidgetModel): Shared {
  const key = model.get("_key");
  const known = shared.get(key);
  if (known) return known;
  const fresh = { synced: synced(model), wire: new WireClient(model), views: 0 };
  shared.set(key, fresh);
  return fresh;
}

function initialize({ model }: { model: WidgetModel }): () => void {
  const { synced: traits, wire } = open(model);
  const key = model.get("_key");
  return () => {
    wire.dispose();
    traits.dispose();
    shared.delete(key);
  };
}

function render({ model, el }: { model: WidgetModel; el: HTMLElement }): () => void {
  const link = open(model);
  link.views += 1;
  const id = `v${link.views}-${Math.random().toString(36).slice(2, 8)}`;
  const store = new Store(link.synced, link.wire, id);
  const forget = rememberColour(`${model.get("_key")}`, store.view.colour);
  const gaze = new IntersectionObserver((entries) => {
    link.wire.visible(
      id,
      entries.some((entry) => entry.isIntersecting),
    );
  });
  gaze.observe(el);
  mount(<App store={store} />, el);
  const stopHanding = handDrawings(link.wire, el, () => store.synced.graph.peek()?.model ?? "network");
  return () => {
    gaze.disconnect();
    stopHanding();
    link.wire.visible(id, false);
    mount(null, el);
    forget();
    store.dispose();
  };
}

export default { initialize, render };
