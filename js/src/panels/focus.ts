// Keys act only while the widget has the focus. What is closed takes the focus with it (a dialog, a search field, a
// sheet that gives way to one large map); then the widget itself holds it, so that the next key still arrives.

/** Watches an element; returns how to stop. */
export function keepFocus(root: HTMLElement): () => void {
  const active = () => (root.getRootNode() as Document | ShadowRoot).activeElement;

  function check() {
    if (!root.contains(active())) return;
    requestAnimationFrame(() => {
      const now = active();
      if (root.isConnected && (now === null || now === document.body)) root.focus({ preventScroll: true });
    });
  }

  root.addEventListener("keydown", check, true);
  root.addEventListener("click", check, true);
  return () => {
    root.removeEventListener("keydown", check, true);
    root.removeEventListener("click", check, true);
  };
}
