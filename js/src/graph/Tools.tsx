// The few buttons in the corner of the graph.

import type { GraphController } from "./controller";

export function Tools({ graph }: { graph: GraphController }) {
  const closed = graph.store.view.open.value.size === 0 && graph.apart.value.size === 0;
  const down = graph.direction.value === "down";
  return (
    <div class="nn-tools" role="toolbar" aria-orientation="vertical" aria-label="view of the graph">
      <Tool name="zoom in (+)" path="M3 8h10M8 3v10" act={() => graph.zoomBy(1.25)} />
      <Tool name="zoom out (−)" path="M3 8h10" act={() => graph.zoomBy(0.8)} />
      <Tool name="fit (0)" path="M3 6V3h3M10 3h3v3M13 10v3h-3M6 13H3v-3" act={() => graph.fit()} />
      <Tool name="open one level more" path="M4 4l4 3.5L12 4M4 9l4 3.5L12 9" act={() => graph.openLevel()} />
      <Tool
        name="close all"
        path="M4 7.5L8 4l4 3.5M4 12.5L8 9l4 3.5"
        disabled={closed}
        act={() => graph.closeAll()}
      />
      <Tool
        name={down ? "from left to right" : "from top to bottom"}
        path={down ? "M2.5 8h10.5M9.5 4.5L13 8l-3.5 3.5" : "M8 2.5v10.5M4.5 9.5L8 13l3.5-3.5"}
        act={() => graph.turn()}
      />
    </div>
  );
}

function Tool({
  name,
  path,
  act,
  disabled,
}: {
  name: string;
  path: string;
  act: () => void;
  disabled?: boolean;
}) {
  return (
    <button type="button" class="nn-tool" title={name} aria-label={name} disabled={disabled} onClick={act}>
      <svg viewBox="0 0 16 16" aria-hidden="true">
        <path d={path} />
      </svg>
    </button>
  );
}
