// The ways of shortcuts: out of the stack below their maker, down a lane beside it, and into the side of who uses
// them; and the rails that stand for many of them.

import type { Point } from "./layered";
import type { LevelBox, LevelLayout, LevelWire, Route } from "./level";
import { type Measured, overlapping, type Placing } from "./placing";
import { type Element, meet, type Place, type Stack } from "./series";
import type { Lane, Structure } from "./structure";
import { FORK, JOIN, type Ways } from "./ways";

/** A lane with its place: its column, the height where it begins, and where it goes off to whom. */
interface LaneWay {
  lane: Lane;
  x: number;
  tap: number;
  arrivals: { end: number; wires: number[]; y: number }[];
}

export class LaneWays {
  private readonly placing: Placing;
  private readonly level: Structure;

  constructor(private readonly ways: Ways) {
    this.placing = ways.placing;
    this.level = ways.level;
  }

  routeLanes(routes: Route[], done: Set<number>): LevelLayout["rails"] {
    const rails: LevelLayout["rails"] = [];
    for (const [stack, lanes] of this.level.lanes) {
      const ways = lanes.map((lane) => this.laneWay(lane, stack));
      for (const { lane, x, tap, arrivals } of ways) {
        for (const { wires, y, end } of arrivals) {
          for (const at of wires) {
            const wire = this.level.input.wires[at] as LevelWire;
            done.add(at);
            routes.push({
              wire: at,
              kind: "skip",
              bundled: lane.bundled,
              points: [
                ...this.toLane(lane.source, wire, tap),
                [x, tap],
                [x, y],
                ...this.offLane(end, wire, y),
              ],
            });
          }
        }
      }
      rails.push(...this.railsOf(ways.filter(({ lane }) => lane.bundled)));
    }
    return rails;
  }

  /** From the maker of the tensor (or the end of its thin branch) to the height where the lane begins. */
  private toLane(end: number, wire: LevelWire, tap: number): Point[] {
    const source = wire.source + 1;
    const start = this.ways.out(source, wire);
    if (end === source) {
      const leaving = this.ways.leaveTangle(source, start);
      return [...leaving, [(leaving[leaving.length - 1] as Point)[0], tap]];
    }
    const { stack, from, to } = meet(this.level.places[source] as Place[], this.level.places[end] as Place[]);
    const [x, y] = this.ways.out(end);
    const points = this.ways.between(source, end, start, [x, y], stack, from, to);
    const leaving = this.ways.leaveTangle(end, [x, y]);
    return [...points, ...leaving, [(leaving[leaving.length - 1] as Point)[0], tap]];
  }

  private offLane(end: number, wire: LevelWire, y: number): Point[] {
    const target = wire.target + 1;
    const box = this.level.boxes[target] as LevelBox;
    if (end !== target) {
      const [x, top] = this.ways.into(end);
      const arriving = this.ways.enterTangle(end, [x, top]);
      const { stack, from, to } = meet(
        this.level.places[end] as Place[],
        this.level.places[target] as Place[],
      );
      const rest = this.ways.between(end, target, [x, top], this.ways.into(target, wire), stack, from, to);
      return [[(arriving[0] as Point)[0], y], ...arriving, ...rest];
    }
    if (
      Math.abs(y - ((this.placing.y[target] as number) + box.height / 2)) < 0.5 &&
      y >= (this.placing.y[target] as number) &&
      box.height > 0
    ) {
      return [[(this.placing.x[target] as number) + box.width, y]];
    }
    const arriving = this.ways.enterTangle(target, this.ways.into(target, wire));
    return [[(arriving[0] as Point)[0], y], ...arriving];
  }

  private laneWay(lane: Lane, stack: Stack): LaneWay {
    const measured = this.placing.measured.get(stack) as Measured;
    const [spine, top] = this.placing.spines.get(stack) as Point;
    const x = spine + lane.x;
    const tap =
      top + (measured.tops[lane.from] as number) + (measured.heights[lane.from] as number) + FORK - 2;
    const arrivals = lane.targets.map(({ vertex, element, wires }) => {
      const here = stack.elements[element] as Element;
      const box = this.level.boxes[vertex] as LevelBox;
      const y = this.level.entersFromTop(vertex, here)
        ? top + (measured.tops[element] as number) - JOIN
        : (this.placing.y[vertex] as number) + box.height / 2;
      return { end: vertex, wires, y };
    });
    return { lane, x, tap, arrivals };
  }

  /** What the lanes of a rail have in common is drawn once: the rail, each way onto it, each way off it. */
  private railsOf(ways: LaneWay[]): LevelLayout["rails"] {
    const rails: LevelLayout["rails"] = [];
    const byX = new Map<number, LaneWay[]>();
    for (const way of ways) byX.set(way.x, [...(byX.get(way.x) ?? []), way]);
    for (const [x, together] of byX) {
      for (const cluster of overlapping(
        together.map((way) => ({ ...way, from: way.lane.from, to: way.lane.to })),
      )) {
        const taps = cluster.map(({ tap }) => tap);
        const ends = new Map(
          cluster.flatMap(({ arrivals }) => arrivals).map((arrival) => [arrival.end, arrival]),
        );
        const last = Math.max(...[...ends.values()].map(({ y }) => y));
        rails.push({
          thick: true,
          points: [
            [x, Math.min(...taps)],
            [x, last],
          ],
        });
        for (const { lane, tap, arrivals } of cluster) {
          const wire = this.level.input.wires[arrivals[0]?.wires[0] ?? 0] as LevelWire;
          rails.push({
            thick: false,
            points: [...this.toLane(lane.source, wire, tap), [x, tap], [x, Math.min(tap + 12, last)]],
          });
        }
        for (const { end, wires, y } of ends.values()) {
          const wire = this.level.input.wires[wires[0] ?? 0] as LevelWire;
          rails.push({ thick: false, points: [[x, y - 12], [x, y], ...this.offLane(end, wire, y)] });
        }
      }
    }
    return rails;
  }
}
