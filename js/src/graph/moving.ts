// What is moved by its transform in every frame of a gesture: the drawing, and the frame of the minimap.

const REST_MS = 180;

interface Moving {
  animation: Animation | null;
  rests: ReturnType<typeof setTimeout>;
}

const moving = new WeakMap<HTMLElement, Moving>();

/** Puts an element where the transform says. It is a layer of its own while it moves, and drawn sharp at rest. */
export function moveTo(element: HTMLElement, transform: string): void {
  const { style } = element;
  style.transform = transform;
  style.willChange = "transform";
  const known = moving.get(element);
  clearTimeout(known?.rests);
  const animation = known ? known.animation : heldMovable(element);
  const rests = setTimeout(() => {
    style.willChange = "";
    animation?.finish();
    moving.delete(element);
  }, REST_MS);
  moving.set(element, { animation, rests });
}

/**
 * Chromium sorts all cards into layers again whenever a transform changes (5 ms of every frame with 200 of them),
 * except where an animation says that it will: here is one, which stands still and adds nothing. It takes a single
 * element that moves without one for all of them to be sorted.
 */
function heldMovable(element: HTMLElement): Animation | null {
  if (typeof element.animate !== "function") return null; // where nothing is drawn
  const animation = element.animate({ transform: ["none", "none"] }, { duration: 1000, composite: "add" });
  animation.pause();
  return animation;
}
