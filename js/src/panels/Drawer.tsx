import type { ComponentChildren } from "preact";
import type { Store } from "../state/store";

export function Drawer({ children }: { store: Store; children: ComponentChildren }) {
  return <section>{children}</section>;
}
