// Long work in short tasks: between them the page answers clicks, scrolls and paints.

/** How long steps are taken in one task. */
const SLICE_MS = 8;

/** Takes all steps, in tasks of their own, and hands over what they come to; the function it gives back stops it. */
export function inSlices<T>(
  steps: Iterator<void, T>,
  done: (result: T) => void = () => undefined,
): () => void {
  let waiting = setTimeout(next);
  function next() {
    const end = performance.now() + SLICE_MS;
    while (performance.now() < end) {
      const step = steps.next();
      if (!step.done) continue;
      done(step.value);
      return;
    }
    waiting = setTimeout(next);
  }
  return () => clearTimeout(waiting);
}
