import type { Store } from "../state/store";

export function Predictions(_: { store: Store }) {
  return null;
}
