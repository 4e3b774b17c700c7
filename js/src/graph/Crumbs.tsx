// The way from the whole model to the group that is drawn alone; each step of it is a click away.

import type { GraphController } from "./controller";
import { nameOf } from "./words";

export function Crumbs({ graph }: { graph: GraphController }) {
  const crumbs = graph.crumbs();
  if (crumbs.length === 0) return null;
  return (
    <nav class="nn-crumbs" aria-label="where this group stands">
      {crumbs.map((item, at) => {
        const name = item.parent ? nameOf(item) : graph.hierarchy.value?.graph.model || "model";
        return at === crumbs.length - 1 ? (
          <span key={item.id} class="nn-crumb" aria-current="location">
            {name}
          </span>
        ) : (
          <button
            key={item.id}
            type="button"
            class="nn-crumb"
            title={at === 0 ? "the whole model" : `only ${name}`}
            onClick={() => graph.goInto(item.parent ? [item.id] : [])}
          >
            {name}
          </button>
        );
      })}
      <button
        type="button"
        class="nn-crumb nn-crumb-out"
        aria-label="leave the group (Backspace)"
        title="leave the group (Backspace)"
        onClick={() => graph.leave()}
      >
        ×
      </button>
    </nav>
  );
}
