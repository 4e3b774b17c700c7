// Where a picture may come from: a file, the clipboard, the camera.

import { useEffect, useRef, useState } from "preact/hooks";
import type { Easel } from "./easel";
import { fromFile, hasCamera, pictureIn, watchCamera } from "./elsewhere";
import type { Live } from "./live";

interface Props {
  easel: Easel;
  gray: boolean;
  live: Live;
  take(rgb: Uint8ClampedArray): void;
}

export function Sources({ easel, gray, take, live }: Props) {
  const file = useRef<HTMLInputElement>(null);
  const box = useRef<HTMLDivElement>(null);
  const [camera, setCamera] = useState<(() => void) | null>(null);
  const here = useRef(true);
  const size = { width: easel.width, height: easel.height };

  useEffect(() => () => camera?.(), [camera]);
  useEffect(
    () => () => {
      here.current = false;
    },
    [],
  );
  useEffect(() => {
    // Pasting goes to the page, not to an element; ours only while the focus is in the widget.
    const paste = (event: ClipboardEvent) => {
      const root = box.current?.closest(".nnviz");
      const picture = pictureIn(event.clipboardData);
      if (!picture || !root?.contains(document.activeElement)) return;
      event.preventDefault();
      event.stopPropagation();
      void Sources.take(picture, easel, gray, live);
    };
    document.addEventListener("paste", paste, true);
    return () => document.removeEventListener("paste", paste, true);
  }, [easel, gray, live]);

  async function film(): Promise<void> {
    if (camera) {
      setCamera(null);
      return;
    }
    try {
      easel.begin();
      const stop = await watchCamera(size, gray, take);
      // Somebody who closed the painter while the browser asked is not filmed.
      if (!here.current) return stop();
      setCamera(() => stop);
      live.error.value = "";
    } catch (error) {
      live.error.value = `The browser lends no camera: ${(error as Error).message}`;
    }
  }

  return (
    <div class="nn-paint-row" ref={box}>
      <input
        type="file"
        accept="image/*"
        hidden
        ref={file}
        aria-label="picture file"
        onChange={(event) => {
          void Sources.take(event.currentTarget.files?.[0] ?? null, easel, gray, live);
          event.currentTarget.value = "";
        }}
      />
      <button
        type="button"
        class="nn-chip"
        title="a picture from a file; or drop one here, or paste one"
        onClick={() => file.current?.click()}
      >
        open…
      </button>
      {hasCamera() && (
        <button type="button" class="nn-chip" aria-pressed={camera !== null} onClick={() => void film()}>
          {camera ? "stop" : "camera"}
        </button>
      )}
    </div>
  );
}

Sources.take = async (picture: Blob | null, easel: Easel, gray: boolean, live: Live): Promise<void> => {
  if (!picture) return;
  try {
    const rgb = await fromFile(picture, { width: easel.width, height: easel.height }, gray);
    live.error.value = "";
    easel.begin();
    easel.take(rgb);
  } catch {
    live.error.value = "The browser cannot read this picture.";
  }
};
