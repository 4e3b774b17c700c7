// What a linear classifier can read from each stage, of all samples whose true class is known.

import { useEffect, useRef, useState } from "preact/hooks";
import { percent } from "../maps/format";
import type { Store } from "../state/store";
import { isCancelled } from "../wire/client";
import type { Operations } from "../wire/types";
import { shortNames } from "./names";

interface Found {
  meta: Operations["probes"]["meta"];
  accuracy: Float32Array;
  stderr: Float32Array;
  fitted: Float32Array;
}

export function Probes({ store }: { store: Store }) {
  const [found, setFound] = useState<Found | null>(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const stop = useRef<AbortController | null>(null);
  const network = `${store.synced.run.value?.epoch}|${store.changes.key.value}`;
  // Of another network they would tell something else.
  useEffect(() => {
    setFound(null);
    return () => stop.current?.abort();
  }, [network]);
  const { info } = store.synced;
  if (!info.value?.has_targets || info.value.samples < 2) return null;

  async function start(): Promise<void> {
    const control = new AbortController();
    stop.current = control;
    setBusy(true);
    setError("");
    try {
      await store.request("probes", store.changes.params, {
        slot: "explain probes",
        signal: control.signal,
        onChunk: ({ arrays, meta }) => {
          const { accuracy, stderr, fitted } = arrays;
          if (meta && accuracy && stderr && fitted)
            setFound({ meta, accuracy: accuracy.data, stderr: stderr.data, fitted: fitted.data });
        },
      });
    } catch (reason) {
      if (!isCancelled(reason)) setError((reason as Error).message);
    }
    setBusy(false);
  }

  return (
    <section class="nn-output-part" data-role="probes" data-state={busy ? "busy" : found ? "ready" : "idle"}>
      <h4>Linear probes</h4>
      <p class="nn-soft">
        How well a linear classifier tells the true classes apart after each stage, by the means over all
        positions. {found && `Each of ${found.meta.samples} samples is held out once; the line is chance.`}
      </p>
      <div class="nn-output-row">
        <button
          type="button"
          class="nn-chip"
          onClick={() => (busy ? stop.current?.abort() : void start())}
          title="runs all samples through the network, then fits on the processor"
        >
          {busy ? "stop" : found ? "fit again" : "fit"}
        </button>
        {busy && <progress value={found?.meta.progress ?? 0} max={1} aria-label="fitting" />}
        {error && (
          <span class="nn-caption-bad" role="alert">
            {error}
          </span>
        )}
      </div>
      {found && <Table store={store} found={found} />}
    </section>
  );
}

function Table({ store, found }: { store: Store; found: Found }) {
  const { layers, features, chance } = found.meta;
  const short = shortNames(layers);
  return (
    <table class="nn-output-lens">
      <tbody>
        {layers.map((layer, row) => {
          const right = found.accuracy[row] as number;
          const known = Number.isFinite(right);
          const fitted = `fitted to: ${percent(found.fitted[row] as number)} right`;
          return (
            <tr key={layer} data-probe={layer} data-accuracy={known ? right.toFixed(4) : undefined}>
              <th scope="row">
                <button type="button" onClick={() => store.selectLayer(layer)} title={layer}>
                  {short[row]}
                </button>
              </th>
              <td class="nn-output-rise">
                <span
                  title={known ? `${features[row]} features; of the samples it was ${fitted}` : undefined}
                >
                  <i style={{ width: `${known ? 100 * right : 0}%` }} />
                  <b style={{ left: `${100 * chance}%` }} />
                </span>
              </td>
              <td class="nn-output-share">
                {known ? percent(right) : "–"}{" "}
                {known && <small>± {(100 * (found.stderr[row] as number)).toFixed(0)}</small>}
              </td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}
