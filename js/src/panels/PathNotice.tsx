// That the model went another way than before, in words: a strip at the foot, where it comes and goes without moving
// the picture that it tells of.

import { graphOf } from "../graph/controller";
import type { Store } from "../state/store";

export function PathNotice({ store }: { store: Store }) {
  const change = store.change.value;
  if (!change) return null;
  const { title, message, added, first } = change;
  return (
    <div class="nn-notice nn-path" data-panel="path" role="status">
      <span>
        <strong>{title}</strong>{" "}
        {message.split("`").map((part, at) => (at % 2 ? <code key={part}>{part}</code> : part))}{" "}
        {added.length > 0 && <i class="nn-new">new on this path</i>}
      </span>
      {first !== null && (
        <button type="button" class="nn-chip" onClick={() => graphOf(store).reveal(first)}>
          Show
        </button>
      )}
      <button type="button" class="nn-chip" onClick={() => store.dismissChange()}>
        Dismiss
      </button>
    </div>
  );
}
