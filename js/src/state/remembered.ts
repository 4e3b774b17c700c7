// What a reader chose for one widget, kept as long as the tab of the browser: a view that is opened again begins with
// it. Hosts without such a store begin anew.

import { effect, type Signal } from "@preact/signals";
import { COLOURINGS, type ColourBy } from "./view";

/** Brings back what the drawing was coloured by, and keeps what is chosen from now on until it is told to stop. */
export function rememberColour(widget: string, colour: Signal<ColourBy | null>): () => void {
  const name = `nnviz-colour-${widget}`;
  try {
    const kept = sessionStorage.getItem(name);
    colour.value = COLOURINGS.find((by) => by === kept) ?? null;
    return effect(() => sessionStorage.setItem(name, colour.value ?? ""));
  } catch {
    return () => undefined;
  }
}
