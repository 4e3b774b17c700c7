// Pages of the explorer that are not needed at first: the kernel hands them out when they are opened, so that what
// travels with every widget stays small. They get the libraries of this module (js/build.mjs).

import * as signals from "@preact/signals";
import * as preact from "preact";
import * as hooks from "preact/hooks";
import * as jsx from "preact/jsx-runtime";
import type { Store } from "./state/store";

type Page = preact.ComponentType<{ store: Store }>;
type Make = (require: (name: string) => unknown) => { default: Page };

export type PageName =
  | "explain"
  | "paint"
  | "influence"
  | "output"
  | "math"
  | "weights"
  | "intervene"
  | "compare";

const LIBRARIES: Record<string, unknown> = {
  preact,
  "preact/hooks": hooks,
  "preact/jsx-runtime": jsx,
  "@preact/signals": signals,
};

/** Every page that was fetched, or is on its way; one for all widgets of the notebook. */
const known = new Map<PageName, Promise<Page>>();

function fetchPage(store: Store, name: PageName): Promise<Page> {
  let page = known.get(name);
  if (!page) {
    page = load(store, name);
    known.set(name, page);
    page.catch(() => known.delete(name));
  }
  return page;
}

async function load(store: Store, name: PageName): Promise<Page> {
  const { arrays } = await store.request("page", { name }, { slot: `page ${name}` });
  const text = (bytes: unknown, type: string) =>
    URL.createObjectURL(new Blob([bytes as Uint8Array<ArrayBuffer>], { type }));
  const url = text(arrays.js.data, "text/javascript");
  try {
    // As the host loads the widget itself.
    const { default: make } = (await import(url)) as { default: Make };
    const style = document.createElement("style");
    style.textContent = new TextDecoder().decode(arrays.css.data);
    document.head.append(style);
    return make((library) => LIBRARIES[library]).default;
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** A page in its place, once it is here. */
export function LazyPage({ store, name }: { store: Store; name: PageName }) {
  const [page, setPage] = hooks.useState<{ of: Page } | null>(null);
  const [error, setError] = hooks.useState("");
  hooks.useEffect(() => {
    let wanted = true;
    fetchPage(store, name).then(
      (of) => wanted && setPage({ of }),
      (reason: Error) => wanted && setError(reason.message),
    );
    return () => {
      wanted = false;
    };
  }, [store, name]);
  if (page) return <page.of store={store} />;
  return (
    <section class="nn-page-wait" aria-busy={error === ""} role={error ? "alert" : undefined}>
      {error ? `This page could not be opened: ${error}` : "opening …"}
    </section>
  );
}
