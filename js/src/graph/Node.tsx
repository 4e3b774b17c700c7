// One drawn item: a card, a slim line, a round merge, the input, the output, or the frame of an open group.
// Everything it shows is text from the model's author or numbers; events are handled once for all, in GraphView.

import { useComputed } from "@preact/signals";
import type { GraphNode } from "../state/synced";
import { coloursOf, colourWords } from "./colouring";
import type { GraphController } from "./controller";
import { canOpen, type Item } from "./hierarchy";
import type { DrawnBox } from "./layout";
import { StripCanvas, Thumb } from "./Strip";
import { newIn } from "./steady";
import {
  categoryOf,
  type Form,
  formOf,
  hasStrip,
  hintOf,
  labelOf,
  markOf,
  nameOf,
  outputShape,
  showsShape,
  spell,
  statusOf,
  timesOf,
  timesWords,
} from "./words";

interface Props {
  box: DrawnBox;
  x: number;
  y: number;
  graph: GraphController;
}

export function Node({ box, x, y, graph }: Props) {
  const { item } = box;
  const { id } = item;
  const chosen = useComputed(() => {
    const ring = graph.ring.value;
    return ring?.id === id ? (ring.exact ? "true" : "inside") : undefined;
  });
  const near = useComputed(() => graph.lit.value.near.has(id));
  const far = useComputed(() => graph.cone.lit.value?.items.has(id) === false);
  const found = useComputed(() => {
    const { value: matches } = graph.matches;
    if (matches.length === 0) return undefined;
    return matches[graph.match.value] === id ? "here" : graph.matched.value.has(id) ? "yes" : "no";
  });
  const news = useComputed(() => newIn(item, graph.store.added.value)).value;
  // What is open shows it card by card.
  const fresh = box.open ? undefined : news;
  const tint = useComputed(() => coloursOf(graph).value?.tintOf(item));
  const said = useComputed(() => colourWords(item, coloursOf(graph).value));
  const tab = useComputed(() => (graph.focused.value === id ? 0 : -1));

  const form = box.open ? "open" : formOf(item);
  const status = statusOf(item);
  const openable = canOpen(item);
  const style = {
    transform: `translate(${box.x + x}px, ${box.y + y}px)`,
    width: `${box.width}px`,
    height: `${box.height}px`,
    zIndex: box.open ? item.depth : undefined,
    backgroundColor: box.open ? undefined : tint.value,
  };
  return (
    <div
      class="nn-node"
      data-item={id}
      data-node={box.open ? id : item.rep}
      data-path={item.node?.path ?? item.group?.path ?? ""}
      data-form={form}
      data-kind={categoryOf(item)}
      data-narrow={box.narrow || undefined}
      data-open={openable ? box.open : undefined}
      data-fold={timesOf(item) > 1 ? timesOf(item) : undefined}
      data-status={status === "ok" ? undefined : status}
      data-near={near.value || undefined}
      data-far={far.value || undefined}
      data-tint={tint.value && !box.open ? "" : undefined}
      data-found={found.value}
      data-new={fresh}
      data-selected={chosen.value}
      role="treeitem"
      aria-level={item.depth}
      aria-expanded={openable ? box.open : undefined}
      aria-selected={chosen.value === "true"}
      aria-label={[labelOf(item), said.value, fresh && "new on this path"].filter(Boolean).join(", ")}
      tabIndex={tab.value}
      style={style}
    >
      {box.open ? (
        <Head item={item} graph={graph} />
      ) : (
        <Body item={item} form={form as Form} graph={graph} narrow={box.narrow} />
      )}
    </div>
  );
}

function Head({ item, graph }: { item: Item; graph: GraphController }) {
  return (
    <div class="nn-head">
      <Title item={item} />
      <Inside item={item} graph={graph} />
      <Toggle words={graph.alone.value === item ? "leave (Backspace)" : "close (Enter)"} open />
    </div>
  );
}

function Body({
  item,
  form,
  graph,
  narrow,
}: {
  item: Item;
  form: Form;
  graph: GraphController;
  narrow: boolean;
}) {
  switch (form) {
    case "merge":
      return <span title={nameOf(item)}>{markOf(item)}</span>;
    case "constant":
      return (
        <span class="nn-name" title={`${nameOf(item)} ${spell(item.node?.output_shapes[0] ?? null)}`}>
          {nameOf(item)}
        </span>
      );
    case "tray":
      return (
        <>
          <Title item={item} />
          <Inside item={item} graph={graph} />
          <Mark item={item} />
          <Toggle words={wordsOf(item)} />
        </>
      );
    case "decision":
      return <Decision item={item} />;
    case "slim":
      return (
        <>
          <Title item={item} />
          <Mark item={item} />
          {showsShape(item) && <Shape item={item} />}
        </>
      );
    case "input":
      return (
        <>
          <Thumb store={graph.store} />
          <Title item={item} />
          <Shape item={item} />
        </>
      );
    case "output":
      return <Output item={item} graph={graph} />;
    default:
      return (
        <>
          <div class="nn-line">
            <Title item={item} />
            <Inside item={item} graph={graph} />
            <Mark item={item} />
            {canOpen(item) && <Toggle words={wordsOf(item)} />}
          </div>
          <div class="nn-row">
            {hasStrip(item) && <StripCanvas id={item.rep} small={narrow} />}
            {item.kind === "fold" && !narrow ? (
              <span class="nn-pile">
                <Pips fold={item} />
                <Shape item={item} />
              </span>
            ) : (
              <Shape item={item} />
            )}
          </div>
        </>
      );
  }
}

function wordsOf(item: Item): string {
  return item.kind === "fold"
    ? "take the first one out (Enter); all of them with Shift"
    : "open (Enter); alone with Alt + Enter";
}

const PIPS_MAX = 32;

/** One mark for each of the identical siblings: a click takes that one out. */
function Pips({ fold }: { fold: Item }) {
  if (fold.children.length > PIPS_MAX) return null;
  return (
    <span class="nn-pips" aria-hidden="true">
      {fold.children.map((member) => (
        <i
          key={member.id}
          data-act="take"
          data-member={member.id}
          title={`take ${nameOf(member)} out of the stack`}
        />
      ))}
    </span>
  );
}

function Title({ item }: { item: Item }) {
  const [name, hint, times] = [nameOf(item), hintOf(item), timesWords(item)];
  return (
    <span class="nn-title" title={hint ? `${name} · ${hint}` : name}>
      <b class="nn-name">{name}</b>
      {times && <span class="nn-times">{times}</span>}
      {hint && <span class="nn-hint">{hint}</span>}
    </span>
  );
}

/** The diamond of a flow chart, the way taken, and the condition that chose it. */
function Decision({ item }: { item: Item }) {
  const { value, code = "", source } = item.node as GraphNode;
  return (
    <span class="nn-title" title={`a decision on the data: ${hintOf(item)} (${source})`}>
      <i class="nn-diamond">◇</i>
      <b class="nn-name">{value || nameOf(item)}</b>
      <span class="nn-hint">{code.replace(/^(if|elif|while) |:$/g, "")}</span>
    </span>
  );
}

function Shape({ item }: { item: Item }) {
  const text = spell(outputShape(item));
  return <span class="nn-shape">{text}</span>;
}

function Mark({ item }: { item: Item }) {
  const status = statusOf(item);
  if (status === "failed")
    return (
      <span class="nn-mark" title="the forward pass ended here">
        !
      </span>
    );
  return item.node?.shared ? (
    <span class="nn-shared" title={`same weights as ${item.node.shared}`}>
      shared
    </span>
  ) : null;
}

/** How many matches of the search are hidden in here. */
function Inside({ item, graph }: { item: Item; graph: GraphController }) {
  const count = useComputed(() => graph.matchesInside.value.get(item.id) ?? 0);
  return count.value > 0 ? <span class="nn-inside">{count}</span> : null;
}

/**
 * Only for the pointer; keys have Enter on the card. The focus goes to the card, which stays: it would be lost with
 * a button, and JupyterLab styles the whole notebook anew, several times, to take it back.
 */
function Toggle({ words, open = false }: { words: string; open?: boolean }) {
  return (
    <span class="nn-toggle" aria-hidden="true" title={words} data-act="toggle">
      <svg viewBox="0 0 12 12" aria-hidden="true">
        {open ? <path d="M3 6h6" /> : <path d="M3 6h6M6 3v6" />}
      </svg>
    </span>
  );
}

function Output({ item, graph }: { item: Item; graph: GraphController }) {
  const predictions = graph.store.changes.predictions.value;
  const classes = predictions?.task === "classification" ? predictions.classes.slice(0, 3) : [];
  return (
    <>
      <div class="nn-line">
        <Title item={item} />
        <Shape item={item} />
      </div>
      <div class="nn-out-rows">
        {classes.map(({ index, name, prob }) => (
          <div key={index} class="nn-out-row">
            <span class="nn-out-name">{name}</span>
            <span class="nn-out-bar" style={{ width: `${Math.max(1, 100 * prob)}%` }} />
            <span class="nn-out-prob">{prob.toFixed(2)}</span>
          </div>
        ))}
      </div>
    </>
  );
}
