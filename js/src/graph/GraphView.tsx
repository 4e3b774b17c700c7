import type { Store } from "../state/store";

export function GraphView(_: { store: Store }) {
  return null;
}
