// Long work in short tasks: between them the page answers clicks, scrolls and paints.

/** How long steps are taken in one task. */
const SLICE_MS = 8;

interface Scheduler {
  postTask(task: () => void): Promise<void>;
}

/** Takes all steps, in tasks of their own, and hands over what they come to; what it gives back stops it. */
export function inSlices<T>(
  steps: Iterator<void, T>,
  done: (result: T) => void = () => undefined,
): () => void {
  let stopped = false;
  function next() {
    const end = performance.now() + SLICE_MS;
    while (!stopped && performance.now() < end) {
      const step = steps.next();
      if (!step.done) continue;
      done(step.value);
      return;
    }
    if (!stopped) soon(next);
  }
  soon(next);
  return () => {
    stopped = true;
  };
}

/** In the next task. Of timers that follow one another browsers make each wait for 4 ms, of posted tasks not. */
export function soon(task: () => void): void {
  const { scheduler } = globalThis as { scheduler?: Scheduler };
  if (scheduler?.postTask) void scheduler.postTask(task);
  else setTimeout(task);
}
