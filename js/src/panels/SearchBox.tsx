// Search by name: a chip until it is wanted, then a field. Enter goes to the next match, with Shift to the one
// before, Esc gives it up.

import { useLayoutEffect, useRef } from "preact/hooks";
import { graphOf, nextMatch } from "../graph/controller";
import type { Store } from "../state/store";

export function SearchBox({ store }: { store: Store }) {
  const { search } = store.view;
  const field = useRef<HTMLInputElement>(null);
  const open = search.value !== null;
  useLayoutEffect(() => {
    if (open) field.current?.focus();
  }, [open]);

  if (!open) {
    return (
      <button
        type="button"
        class="nn-chip nn-search"
        title="search for a layer (/)"
        onClick={() => {
          search.value = "";
        }}
      >
        <Lens /> <span>search</span> <kbd>/</kbd>
      </button>
    );
  }
  return (
    <label class="nn-chip nn-search nn-search-open">
      <Lens />
      <input
        ref={field}
        type="search"
        placeholder="name, type, shape or /regex/"
        aria-label="search for a layer"
        spellcheck={false}
        value={search.value ?? ""}
        onInput={(event) => {
          search.value = event.currentTarget.value;
        }}
        onKeyDown={(event) => {
          if (event.key !== "Enter") return;
          nextMatch(store, event.shiftKey ? -1 : 1);
          event.preventDefault();
        }}
        onBlur={() => {
          if (search.peek() === "") search.value = null;
        }}
      />
      <Found store={store} />
    </label>
  );
}

/** Which of how many matches is in sight. */
function Found({ store }: { store: Store }) {
  const { matches, match } = graphOf(store);
  if (!store.view.search.value) return null;
  const many = matches.value.length;
  return (
    <span class="nn-found">
      {many === 0 ? "none" : match.value < 0 ? many : `${match.value + 1}/${many}`}
    </span>
  );
}

function Lens() {
  return (
    <svg viewBox="0 0 12 12" aria-hidden="true">
      <circle cx="5" cy="5" r="3.4" />
      <path d="M7.6 7.6 11 11" />
    </svg>
  );
}
