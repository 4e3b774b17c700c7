import type { Store } from "../state/store";

export function Help(_: { store: Store }) {
  return null;
}
