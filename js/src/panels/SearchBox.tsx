// Search by name: a chip until it is wanted, then a field. Enter goes to the next match, Esc gives it up.

import { useLayoutEffect, useRef } from "preact/hooks";
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
        placeholder="name or type of a layer"
        aria-label="search for a layer"
        spellcheck={false}
        value={search.value ?? ""}
        onInput={(event) => {
          search.value = event.currentTarget.value;
        }}
        onKeyDown={(event) => {
          if (event.key !== "Enter") return;
          nextMatch(store);
          event.preventDefault();
        }}
        onBlur={() => {
          if (search.peek() === "") search.value = null;
        }}
      />
    </label>
  );
}

function nextMatch(store: Store): void {
  const words = (store.view.search.peek() ?? "").toLowerCase();
  const found = [...store.nodes.peek().keys()].filter((id) => words && id.toLowerCase().includes(words));
  const now = found.indexOf(store.synced.selection.peek().layer ?? "");
  const next = found[(now + 1) % found.length];
  if (next !== undefined) store.selectLayer(next);
}

function Lens() {
  return (
    <svg viewBox="0 0 12 12" aria-hidden="true">
      <circle cx="5" cy="5" r="3.4" />
      <path d="M7.6 7.6 11 11" />
    </svg>
  );
}
