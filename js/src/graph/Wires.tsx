// The edges of the drawing: lines with arrows under the cards, side lanes, rails, and over them what is lit: the
// ways to and from the node under the pointer, with the shapes of the tensors that take them.

import { useMemo } from "preact/hooks";
import type { GraphController } from "./controller";
import type { Drawing, Segment } from "./layout";
import { headOf, labelPlace, pathOf } from "./route";
import { formOf, showsShape, spell } from "./words";

export function Wires({ graph, drawing }: { graph: GraphController; drawing: Drawing }) {
  const lines = useMemo(() => <Lines graph={graph} drawing={drawing} />, [graph, drawing]);
  const [x, y] = graph.origin.value;
  return (
    <svg class="nn-wires" style={{ transform: `translate(${x}px, ${y}px)` }} aria-hidden="true">
      {lines}
      <ConeLines graph={graph} />
      <Lights graph={graph} />
    </svg>
  );
}

function Lines({ graph, drawing }: { graph: GraphController; drawing: Drawing }) {
  const shown = drawing.segments.filter((segment) => !segment.bundled);
  return (
    <g key={drawing.segments.length} class="nn-lines">
      {drawing.rails.map((rail) => (
        <path
          key={rail.key}
          class="nn-rail"
          data-thick={rail.thick || undefined}
          d={pathOf(rail.points, false)}
        />
      ))}
      {shown.map((segment) => (
        <path
          key={segment.key}
          class="nn-wire"
          data-wire={segment.kind}
          d={pathOf(segment.points, segment.arrow)}
          stroke-width={weight(graph, segment)}
        />
      ))}
      <path
        class="nn-heads"
        d={drawing.segments
          .filter((segment) => segment.arrow)
          .map((segment) => headOf(segment.points))
          .join("")}
      />
      {shown.filter(saysShape).map((segment) => (
        <Label key={segment.key} graph={graph} segment={segment} />
      ))}
      {shown.map((segment) => (
        <path key={segment.key} class="nn-hit" data-segment={segment.key} d={pathOf(segment.points, false)} />
      ))}
    </g>
  );
}

/** The ways of the cone under the pointer, quieter than those that begin or end there. */
function ConeLines({ graph }: { graph: GraphController }) {
  const cone = graph.cone.lit.value;
  if (!cone) return null;
  const arriving = cone.segments.filter((segment) => segment.arrow);
  return (
    <g class="nn-cone">
      <path d={cone.segments.map((segment) => pathOf(segment.points, segment.arrow)).join("")} />
      <path class="nn-heads" d={arriving.map((segment) => headOf(segment.points)).join("")} />
    </g>
  );
}

function Lights({ graph }: { graph: GraphController }) {
  const segments = [...graph.lit.value.segments];
  if (segments.length === 0) return null;
  return (
    <g class="nn-lights">
      {segments.map((segment) => (
        <path key={segment.key} d={pathOf(segment.points, segment.arrow)} data-wire={segment.kind} />
      ))}
      <path
        class="nn-heads"
        d={segments
          .filter((segment) => segment.arrow)
          .map((segment) => headOf(segment.points))
          .join("")}
      />
      {labelled(graph, segments).map((segment) => (
        <Label key={segment.key} graph={graph} segment={segment} />
      ))}
    </g>
  );
}

/** Cards tell the shape that they make; a round node has no room, so the edge tells it where it changed. */
function saysShape({ from, kind }: Segment): boolean {
  return kind === "flow" && from !== null && formOf(from) === "merge" && showsShape(from);
}

/** A tensor that goes several ways says its shape once, where it arrives. */
function labelled(graph: GraphController, segments: Segment[]): Segment[] {
  const edges = graph.hierarchy.peek()?.edges ?? [];
  const first = new Map<string, Segment>();
  for (const segment of segments) {
    const producer = edges[segment.raw[0] ?? -1]?.source ?? "";
    if (segment.arrow && !first.has(producer)) first.set(producer, segment);
  }
  return [...first.values()];
}

function Label({ graph, segment }: { graph: GraphController; segment: Segment }) {
  const text = shapesOn(graph, segment);
  if (!text) return null;
  const { x, y, upright } = labelPlace(segment.points);
  return (
    <text
      class="nn-tag"
      x={upright ? x + 6 : x}
      y={upright ? y + 3 : y - 5}
      text-anchor={upright ? "start" : "middle"}
    >
      {text}
    </text>
  );
}

/** Shapes of the tensors on a segment, without the batch axis. */
export function shapesOn(graph: GraphController, segment: Segment): string {
  const edges = graph.hierarchy.peek()?.edges ?? [];
  const shapes = new Set(segment.raw.map((raw) => spell(edges[raw]?.shape.slice(1) ?? null)));
  const [first] = shapes;
  return shapes.size > 1 ? `${shapes.size} tensors` : (first ?? "");
}

/** A little thicker for a lot more numbers. */
function weight(graph: GraphController, segment: Segment): number {
  const shape = graph.hierarchy.peek()?.edges[segment.raw[0] ?? -1]?.shape.slice(1) ?? [];
  const numbers = shape.reduce((product, side) => product * side, 1);
  return Math.min(2.2, 1 + Math.log10(Math.max(1, numbers)) / 6);
}
