// The head of a page: its name, what there is to choose about the whole of it, and the way back.

import type { Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";

interface Props {
  name: string;
  /** Whether the page is open. */
  open: Signal<boolean>;
  /** What the cross does, for those who cannot see it, and where it leads. */
  close?: string;
  back?: string;
  children?: ComponentChildren;
}

export function PageHead({ name, open, close = "close", back = "back to the graph (Esc)", children }: Props) {
  return (
    <header class="nn-page-head">
      <h3>{name}</h3>
      <div class="nn-page-about">{children}</div>
      <button
        type="button"
        class="nn-close"
        aria-label={close}
        title={back}
        onClick={() => {
          open.value = false;
        }}
      >
        ×
      </button>
    </header>
  );
}
