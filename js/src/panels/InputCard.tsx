import type { Store } from "../state/store";

export function InputCard(_: { store: Store }) {
  return null;
}
