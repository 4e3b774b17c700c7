// What is looked at, in one line: the model and its size, search, full window, help, and how the kernel is.

import type { Signal } from "@preact/signals";
import type { ComponentChildren, RefObject } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { ExportMenu } from "../graph/ExportMenu";
import { count, shape } from "../maps/format";
import type { Store } from "../state/store";
import { turnPage } from "../state/view";
import { SearchBox } from "./SearchBox";

type Root = RefObject<HTMLDivElement | null>;

export function TopBar({ store, root }: { store: Store; root: Root }) {
  const info = store.synced.info.value;
  return (
    <header class="nn-bar">
      <h2 class="nn-bar-model" title={info?.model}>
        {info?.model ?? "nnviz"}
      </h2>
      <span class="nn-bar-facts nn-soft">{info && facts(info)}</span>
      <button
        type="button"
        class="nn-chip"
        aria-pressed={store.view.explain.value}
        title="explain a class: which parts of the input speak for it, by many methods (e)"
        onClick={() => turnPage(store.view, "explain")}
      >
        explain
      </button>
      <button
        type="button"
        class="nn-chip"
        aria-pressed={store.view.compare.value}
        title="compare: two inputs or two models side by side (c)"
        onClick={() => turnPage(store.view, "compare")}
      >
        compare
      </button>
      <SearchBox store={store} />
      <Switch on={store.view.outline} label="outline" title="outline: the layers as a list (o)">
        <svg viewBox="0 0 12 12" aria-hidden="true">
          <path d="M1 2.5h10M3.5 6H11M3.5 9.5H11" />
        </svg>
      </Switch>
      <ExportMenu store={store} root={root} />
      <FullWindow root={root} />
      <Switch on={store.view.help} label="help: all keys" title="all keys (?)">
        ?
      </Switch>
      <StateChip store={store} />
    </header>
  );
}

interface SwitchProps {
  on: Signal<boolean>;
  label: string;
  title: string;
  children: ComponentChildren;
}

/** A round button for something that is there or not. */
function Switch({ on, label, title, children }: SwitchProps) {
  return (
    <button
      type="button"
      class="nn-chip nn-round"
      aria-label={label}
      title={title}
      aria-pressed={on.value}
      onClick={() => {
        on.value = !on.peek();
      }}
    >
      {children}
    </button>
  );
}

function facts(info: { params: number; flops: number; input_shape: number[] }): string {
  const parts = [`${count(info.params)} parameters`];
  if (info.flops > 0) parts.push(`${count(info.flops)}FLOPs`);
  if (info.input_shape?.length) parts.push(`input ${shape(info.input_shape)}`);
  return parts.join(" · ");
}

function FullWindow({ root }: { root: Root }) {
  const [full, setFull] = useState(false);
  const fallback = useRef(false);

  useEffect(() => {
    const follow = () => setFull(document.fullscreenElement === root.current || fallback.current);
    document.addEventListener("fullscreenchange", follow);
    return () => document.removeEventListener("fullscreenchange", follow);
  }, [root]);

  /** Where the host forbids full screen, the widget fills the browser's window instead. */
  function fill(on: boolean) {
    fallback.current = on;
    root.current?.classList.toggle("nn-fill", on);
    setFull(on);
  }

  async function toggle() {
    const element = root.current;
    if (!element) return;
    if (fallback.current) return fill(false);
    if (document.fullscreenElement === element) return document.exitFullscreen();
    try {
      await element.requestFullscreen();
    } catch {
      fill(true);
    }
  }

  return (
    <button
      type="button"
      class="nn-chip nn-round"
      aria-label="full window"
      title={full ? "back into the page" : "full window"}
      aria-pressed={full}
      onClick={() => void toggle()}
    >
      <svg viewBox="0 0 12 12" aria-hidden="true">
        <path d={full ? "M5 1v4H1M7 11V7h4" : "M7 1h4v4M5 11H1V7"} />
      </svg>
    </button>
  );
}

/** One small word on the kernel; a button only where there is something to do. */
function StateChip({ store }: { store: Store }) {
  const state = store.state.value;
  const device = store.synced.info.value?.device ?? "kernel";
  if (state === "stale") {
    return (
      <button type="button" class="nn-chip nn-state" data-tone="warn" onClick={() => void store.refresh()}>
        <i /> weights changed · refresh
      </button>
    );
  }
  const [tone, text] = {
    ready: ["good", `${device} · live`],
    busy: ["warn", "kernel busy · your click is queued"],
    loading: ["warn", "loading"],
    empty: ["soft", "waiting for the kernel"],
    error: ["bad", "error"],
    dead: ["bad", "kernel gone"],
    static: ["soft", "still picture"],
  }[state];
  return (
    <span class="nn-chip nn-state" data-tone={tone} role="status">
      <i /> {text}
    </span>
  );
}
