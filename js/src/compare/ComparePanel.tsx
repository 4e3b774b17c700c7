// Two runs side by side, over the graph: what is compared, how alike each layer is, the maps of one layer in A and in
// B with their difference between them, and both predictions.

import { useLayoutEffect, useRef } from "preact/hooks";
import { percent } from "../maps/format";
import { Segments } from "../maps/Segments";
import { Changed } from "../panels/Changed";
import { PageHead } from "../panels/PageHead";
import type { Store } from "../state/store";
import { Classes } from "./Classes";
import { Comparing, choose } from "./comparing";
import { LayerList } from "./LayerList";
import { Maps } from "./Maps";
import { type Measure, orderOf } from "./rows";
import { Sources } from "./Sources";

const MEASURES: [Measure, string][] = [
  ["cka", "CKA"],
  ["correlation", "correlation"],
  ["difference", "change"],
];

/** What was chosen on the page of each view, while that view lives. */
const kept = new WeakMap<Store, Comparing>();

function keptOf(store: Store): Comparing {
  let comparing = kept.get(store);
  if (!comparing) {
    comparing = new Comparing(store);
    kept.set(store, comparing);
  }
  return comparing;
}

export function ComparePanel({ store }: { store: Store }) {
  const comparing = keptOf(store);
  const box = useRef<HTMLElement>(null);
  useLayoutEffect(() => {
    box.current?.focus({ preventScroll: true });
    return comparing.follow();
  }, [comparing]);
  const found = comparing.found.value;
  const running = comparing.running.value;
  const failed = comparing.error.value;
  return (
    <section
      class="nn-compare"
      data-panel="compare"
      data-state={failed ? "error" : running ? "busy" : found ? "ready" : "idle"}
      aria-label="compare"
      aria-busy={running}
      tabIndex={-1}
      ref={box}
      onKeyDown={(event) => onKey(event, store, comparing)}
    >
      <PageHead name="Compare" open={store.view.compare}>
        {comparing.other.value !== "plain" && <Changed store={store} holding={false} />}
        <Sources store={store} comparing={comparing} />
      </PageHead>
      {failed && (
        <p class="nn-compare-error" role="alert">
          {failed}{" "}
          <button type="button" class="nn-link" onClick={() => comparing.again()}>
            try again
          </button>
        </p>
      )}
      {found ? (
        <div class="nn-compare-body">
          <div class="nn-compare-left">
            <div class="nn-compare-row">
              <Segments
                label="how alike"
                value={comparing.measure.value}
                options={MEASURES}
                onChoose={(one) => {
                  comparing.measure.value = one;
                }}
              />
            </div>
            <p class="nn-compare-over nn-soft">
              {told(comparing)} <Over store={store} comparing={comparing} /> <State comparing={comparing} />
            </p>
            <LayerList store={store} comparing={comparing} />
            <Classes found={found} />
          </div>
          <Maps store={store} comparing={comparing} />
        </div>
      ) : (
        !failed && <Nothing comparing={comparing} />
      )}
    </section>
  );
}

/** Esc gives up the enlargement before the page; brackets step through the channels as they stand here. */
function onKey(event: KeyboardEvent, store: Store, comparing: Comparing): void {
  const plates = comparing.plates.peek();
  if (event.key === "Escape" && comparing.window.peek().times > 1) {
    comparing.window.value = { x: 0, y: 0, times: 1 };
  } else if ((event.key === "[" || event.key === "]") && plates) {
    const order = orderOf(plates, comparing.order.peek());
    const at = order.indexOf(comparing.channel.peek()) + (event.key === "]" ? 1 : -1);
    const next = order[Math.min(order.length - 1, Math.max(0, at))];
    if (next !== undefined) choose(store, plates.node, next);
  } else return;
  event.preventDefault();
  event.stopPropagation();
}

function told(comparing: Comparing): string {
  const { meta } = comparing.found.value as NonNullable<typeof comparing.found.value>;
  const measure = comparing.measure.value;
  if (measure === "difference") return "Length of B − A as a share of the length of A.";
  if (measure === "correlation") return "Of all numbers of A with those of B.";
  if (meta.samples > 1) return `Linear CKA over ${meta.samples} samples, unbiased.`;
  return "Linear CKA over the positions of this sample.";
}

/** Of two models: what CKA is taken over, and the other way to take it. */
function Over({ store, comparing }: { store: Store; comparing: Comparing }) {
  const samples = store.synced.info.value?.samples ?? 1;
  if (comparing.other.value !== null || comparing.found.value?.meta.what !== "models" || samples < 4)
    return null;
  const all = comparing.over.value === "samples";
  return (
    <button
      type="button"
      class="nn-link"
      onClick={() => {
        comparing.over.value = all ? "positions" : "samples";
      }}
    >
      {all ? "over this sample alone" : "over all samples"}
    </button>
  );
}

function State({ comparing }: { comparing: Comparing }) {
  const progress = comparing.found.value?.meta.progress ?? 0;
  if (comparing.running.value) {
    return (
      <>
        {percent(progress)}{" "}
        <button type="button" class="nn-link" onClick={() => comparing.stop()}>
          stop
        </button>
      </>
    );
  }
  if (progress < 1 && !comparing.error.value) {
    return (
      <>
        Stopped at {percent(progress)}.{" "}
        <button type="button" class="nn-link" onClick={() => comparing.again()}>
          go on
        </button>
      </>
    );
  }
  return null;
}

function Nothing({ comparing }: { comparing: Comparing }) {
  if (comparing.running.value) {
    return (
      <div class="nn-compare-wait" aria-hidden="true">
        {[0, 1, 2].map((i) => (
          <div key={i} />
        ))}
      </div>
    );
  }
  return (
    <div class="nn-compare-nothing nn-soft">
      <p>Pick another sample above, or set something beside this one from Python:</p>
      <pre>
        {
          "w.compare_with(model=other_model)\nw.compare_with(state_dict=checkpoint)\nw.compare_with(inputs=other_inputs)"
        }
      </pre>
    </div>
  );
}
