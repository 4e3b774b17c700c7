import type { Store } from "../state/store";

export function StatusLine(_: { store: Store }) {
  return null;
}
