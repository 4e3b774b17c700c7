import type { Store } from "../state/store";

export function MapsPanel(_: { store: Store }) {
  return null;
}
