import type { Store } from "../state/store";

export function Notice(_: { store: Store }) {
  return null;
}
