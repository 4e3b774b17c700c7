// The network as this page changed it: what stands on the shelf, in the form that questions take along, and what it
// answers then. Whose questions take it along is the store's business.

import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { Intervention } from "../wire/types";
import type { Run, Synced } from "./synced";

export interface Changed {
  /** The same for the same interventions. */
  key: string;
  /** Those that are on and can be made. */
  interventions: Intervention[];
  predictions: Run["predictions"];
}

export class Changes {
  /** What the shelf says; null while nothing is changed. */
  readonly made: Signal<Changed | null> = signal(null);
  /** While this is held, everything is as it is without the changes. */
  readonly held = signal(false);
  /** What is in sight: the changed network, or null for the network as it is. */
  readonly shown: ReadonlySignal<Changed | null>;
  readonly key: ReadonlySignal<string>;
  /** Of what is in sight. */
  readonly predictions: ReadonlySignal<Run["predictions"] | null>;

  constructor(synced: Synced) {
    this.shown = computed(() => (this.held.value ? null : this.made.value));
    this.key = computed(() => this.shown.value?.key ?? "");
    this.predictions = computed(() => this.shown.value?.predictions ?? synced.run.value?.predictions ?? null);
  }

  /** What a question takes along, so that it is about what is in sight. */
  get params(): { changed?: Intervention[] } {
    const shown = this.shown.peek();
    return shown ? { changed: shown.interventions } : {};
  }
}

export function changedBy(interventions: Intervention[], predictions: Run["predictions"]): Changed | null {
  if (interventions.length === 0) return null;
  return { key: JSON.stringify(interventions), interventions, predictions };
}
