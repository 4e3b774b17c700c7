// The mark on everything that shows the changed network: by how much it is changed, and the way to see it as it was.

import type { Store } from "../state/store";

interface Props {
  store: Store;
  /** Whether the network as it is can be looked at here. */
  holding?: boolean;
}

export function Changed({ store, holding = true }: Props) {
  const { made, held } = store.changes;
  const count = made.value?.interventions.length ?? 0;
  if (count === 0) return null;
  const hold = (on: boolean) => () => {
    held.value = on;
  };
  return (
    <div class="nn-changed" data-role="changed" data-count={count} data-held={held.value}>
      <button
        type="button"
        class="nn-changed-words"
        title="All numbers and pictures are those of the changed network: see the changes"
        onClick={() => {
          store.view.tab.value = "intervene";
          store.view.drawer.value = true;
          store.view.compare.value = false; // it lies over the drawer
        }}
      >
        changed by {count} intervention{count === 1 ? "" : "s"}
      </button>
      {holding && (
        <button
          type="button"
          class="nn-chip"
          aria-pressed={held.value}
          title="hold to see the network as it is"
          onPointerDown={(event) => {
            event.currentTarget.setPointerCapture(event.pointerId);
            hold(true)();
          }}
          onLostPointerCapture={hold(false)}
          onKeyDown={(event) => event.key === " " && !event.repeat && hold(true)()}
          onKeyUp={hold(false)}
          onBlur={hold(false)}
        >
          original
        </button>
      )}
    </div>
  );
}
