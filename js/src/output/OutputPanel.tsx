// The page of the output, over the graph: the softmax by hand, the lens on every block, what would change the answer.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { percent, signed } from "../maps/format";
import { Changed } from "../panels/Changed";
import { PageHead } from "../panels/PageHead";
import type { Store } from "../state/store";
import { isCancelled } from "../wire/client";
import type { Operation, Operations, Reply } from "../wire/types";
import { Counterfactual } from "./Counterfactual";
import { shortNames } from "./names";
import { Probes } from "./Probes";
import { entropy, largest, softmax } from "./softmax";

export function OutputPanel({ store }: { store: Store }) {
  const box = useRef<HTMLElement>(null);
  useLayoutEffect(() => box.current?.focus({ preventScroll: true }), []);
  return (
    <section class="nn-output" data-panel="output" aria-label="output" tabIndex={-1} ref={box}>
      <PageHead name="Output" open={store.view.output}>
        <Changed store={store} />
      </PageHead>
      <div class="nn-output-body">
        <Softmax store={store} />
        <Counterfactual store={store} />
        <Probes store={store} />
        <Lens store={store} />
      </div>
    </section>
  );
}

/** What the kernel says of the network in sight on the sample on the screen, asked for once for each. */
export function useAnswer<K extends Operation>(
  store: Store,
  op: K,
  params: Omit<Operations[K]["params"], "sample">,
): { answer: Reply<K> | null; error: string } {
  const [found, setFound] = useState<{ answer: Reply<K> | null; error: string }>({ answer: null, error: "" });
  const run = store.synced.run.value;
  const asked = JSON.stringify(params);
  useEffect(() => {
    if (!run) return;
    let wanted = true;
    const all = { ...params, sample: run.sample, ...store.changes.params } as Operations[K]["params"];
    store.request(op, all, { slot: op }).then(
      (answer) => wanted && setFound({ answer, error: "" }),
      (error: Error) => wanted && !isCancelled(error) && setFound({ answer: null, error: error.message }),
    );
    return () => {
      wanted = false;
    };
  }, [store.picture.value, asked]);
  return found;
}

function Softmax({ store }: { store: Store }) {
  const { answer, error } = useAnswer(store, "logits", {});
  const [warmth, setWarmth] = useState(0);
  const [k, setK] = useState(10);
  if (error) return <Words title="Softmax" text={error} />;
  if (!answer) return <Words title="Softmax" text="…" />;
  const { names, probabilities: already, token } = answer.meta;
  const logits = answer.arrays.logits.data;
  // The middle of the slider is 1, its ends a tenth and ten.
  const temperature = 10 ** warmth;
  const shares = softmax(logits, temperature, already);
  const shown = largest(shares, k);
  return (
    <section class="nn-output-part" data-role="softmax">
      <h4>Softmax</h4>
      {token !== undefined && <p class="nn-soft">What comes after the last token, number {token}.</p>}
      <div class="nn-output-row">
        <label>
          temperature{" "}
          <input
            type="range"
            aria-label="temperature"
            min={-1}
            max={1}
            step={0.05}
            value={warmth}
            onInput={(event) => setWarmth(Number(event.currentTarget.value))}
            onDblClick={() => setWarmth(0)}
          />{" "}
          <output>{temperature.toFixed(2)}</output>
        </label>
        <label>
          top{" "}
          <input
            type="number"
            aria-label="how many classes"
            min={1}
            max={logits.length}
            value={k}
            onInput={(event) =>
              setK(Math.max(1, Math.min(logits.length, Number(event.currentTarget.value) || 1)))
            }
          />{" "}
          of {logits.length}
        </label>
        <span class="nn-soft" title="entropy of the probabilities: 0 bits is certain">
          {entropy(shares).toFixed(2)} bits
        </span>
      </div>
      <ol class="nn-output-classes">
        {shown.map((index) => (
          <li key={index} data-class={index}>
            <span title={names[index]}>{names[index]}</span>
            <i style={{ width: `${100 * (shares[index] as number)}%` }} />
            <b>{percent(shares[index] as number)}</b>
            <span class="nn-soft">{signed(logits[index] as number)}</span>
          </li>
        ))}
      </ol>
    </section>
  );
}

function Lens({ store }: { store: Store }) {
  const [token, setToken] = useState<number | undefined>(undefined);
  const { answer, error } = useAnswer(store, "lens", { token });
  if (error) return <Words title="Logit lens" text={error} />;
  if (!answer) return <Words title="Logit lens" text="…" />;
  const { layers, names, final, tokens } = answer.meta;
  const { indices, probabilities, final: rising } = answer.arrays;
  const short = shortNames(layers);
  const count = probabilities.shape[1] ?? 1;
  return (
    <section class="nn-output-part nn-output-wide" data-role="lens">
      <h4>Logit lens</h4>
      <p class="nn-soft">
        What the end of the network would answer after each block; the bar is how likely it finds{" "}
        <strong>{final.name}</strong>, its answer in the end.
      </p>
      {tokens !== null && (
        <label class="nn-output-row">
          after token{" "}
          <input
            type="number"
            min={0}
            max={tokens - 1}
            value={answer.meta.token ?? tokens - 1}
            onInput={(event) =>
              setToken(Math.max(0, Math.min(tokens - 1, Number(event.currentTarget.value) || 0)))
            }
          />{" "}
          of {tokens}
        </label>
      )}
      <table class="nn-output-lens">
        <tbody>
          {layers.map((layer, row) => (
            <tr key={layer} data-layer={layer}>
              <th scope="row">
                <button type="button" onClick={() => store.selectLayer(layer)} title={layer}>
                  {short[row]}
                </button>
              </th>
              <td class="nn-output-rise">
                <span>
                  <i style={{ width: `${100 * (rising.data[row] as number)}%` }} />
                </span>
              </td>
              <td class="nn-output-share">{percent(rising.data[row] as number)}</td>
              {names[row]?.map((name, i) => (
                <td key={i} data-final={indices.data[row * count + i] === final.index || undefined}>
                  {name} <small>{percent(probabilities.data[row * count + i] as number)}</small>
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Words({ title, text }: { title: string; text: string }) {
  return (
    <section class="nn-output-part">
      <h4>{title}</h4>
      <p class="nn-soft">{text}</p>
    </section>
  );
}
