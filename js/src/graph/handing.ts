// Python asks for the drawing (`w.save_drawing`), and a page that shows it hands it over. Every page hears the
// question; one that has nothing to show says nothing, and the kernel takes the first answer.

import type { WireClient } from "../wire/client";
import type { DrawMessage } from "../wire/types";
import { drawingFile } from "./export";

/** What one message may carry to the kernel; a larger one would end the connection. */
const MOST_BYTES = 10 * 1024 * 1024 - 64 * 1024;

/** Answers for one view; returns how to stop. */
export function handDrawings(wire: WireClient, view: HTMLElement, name: () => string): () => void {
  return wire.onDraw((ask) => {
    const stage = view.querySelector<HTMLElement>(".nn-stage");
    if (stage && stage.getBoundingClientRect().height > 0) void hand(wire, stage, ask, name());
  });
}

async function hand(wire: WireClient, stage: HTMLElement, { ask, part, format }: DrawMessage, name: string) {
  let [bytes, error]: [ArrayBuffer[], string] = [[], ""];
  try {
    const file = await drawingFile(stage, part, format, name);
    if (file.size <= MOST_BYTES) bytes = [await file.arrayBuffer()];
    else error = `The ${format.toUpperCase()} has ${file.size} bytes, too many for one message.`;
  } catch (reason) {
    error = `The page could not draw it: ${reason}`;
  }
  // A kernel that waits no longer has nothing to say about it.
  await wire.request("drawing", { ask, error }, { buffers: bytes }).catch(() => undefined);
}
