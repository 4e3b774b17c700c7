// What went wrong or is under way, in words, as a strip above the picture: it moves things down and covers nothing.

import type { Store } from "../state/store";
import type { Failure, Status } from "../state/synced";

export function Notice({ store }: { store: Store }) {
  const { status, run } = store.synced;
  const state = store.state.value;
  const now = status.value;
  if (state === "static") {
    return (
      <Strip tone="soft" title="A still picture.">
        This explorer has no kernel: the last state is shown. Run its cell to bring it to life.
      </Strip>
    );
  }
  if (state === "dead") {
    return (
      <Strip tone="bad" title="The kernel is gone.">
        What is on the screen stays; nothing new can be computed. Run the cell again for a living explorer.
      </Strip>
    );
  }
  if (now.state === "error") return <Problem failure={now.error} message={now.message} store={store} />;
  if (now.state === "loading") return <Loading store={store} status={now} again={run.value !== null} />;
  if (store.refused.value) return <Problem failure={store.refused.value} store={store} />;
  if (now.note) {
    return (
      <Strip tone="soft" title={now.note.title}>
        {now.note.message}
      </Strip>
    );
  }
  return null;
}

function Strip({ tone, title, children }: { tone: string; title: string; children: string }) {
  return (
    <div class="nn-notice" data-tone={tone} role="status">
      <strong>{title}</strong> {children}
    </div>
  );
}

function Loading({ store, status, again }: { store: Store; status: Status; again: boolean }) {
  const { done, total, stage, message } = status;
  const known = done !== undefined && total !== undefined && total > 0;
  return (
    <div class="nn-notice nn-loading" data-tone="soft" data-again={again} role="status">
      <span>{stage ?? message ?? "starting"}</span>
      <progress value={known ? done / total : undefined} max={1} aria-label="progress" />
      {known && (
        <span class="nn-soft">
          {done} of {total}
        </span>
      )}
      <button type="button" class="nn-chip" onClick={() => void store.stop()}>
        Cancel
      </button>
    </div>
  );
}

function Problem({ store, failure, message }: { store: Store; failure?: Failure; message?: string }) {
  const node = failure?.node;
  const drawn = node !== undefined && store.nodes.value.has(node);
  return (
    <div class="nn-notice nn-error" data-tone="bad" role="alert">
      <div>
        <strong>{failure?.title ?? "The model could not be run."}</strong>{" "}
        <span class="nn-error-text">{failure?.message ?? message}</span>
        {failure?.hint && <p>{failure.hint}</p>}
        {(node || failure?.source || failure?.shapes?.length) && (
          <p class="nn-error-where">
            {node && (
              <span>
                at{" "}
                {drawn ? (
                  <button type="button" class="nn-link" onClick={() => store.selectLayer(node)}>
                    {node}
                  </button>
                ) : (
                  <code>{node}</code>
                )}
              </span>
            )}
            {failure?.shapes?.length ? <span>shapes {failure.shapes.join(", ")}</span> : null}
            {failure?.source && <code>{failure.source}</code>}
          </p>
        )}
      </div>
      {failure && failure === store.refused.value ? (
        <button
          type="button"
          class="nn-chip"
          onClick={() => {
            store.refused.value = null;
          }}
        >
          Dismiss
        </button>
      ) : (
        <button type="button" class="nn-chip" onClick={() => void store.refresh()}>
          Try again
        </button>
      )}
    </div>
  );
}
