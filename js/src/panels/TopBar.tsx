import type { RefObject } from "preact";
import type { Store } from "../state/store";

export function TopBar(_: { store: Store; root: RefObject<HTMLDivElement | null> }) {
  return null;
}
