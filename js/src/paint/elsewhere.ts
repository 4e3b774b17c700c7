// Pictures from elsewhere, cut to the size of the model's input: files, the clipboard, the camera.

interface Size {
  width: number;
  height: number;
}

type Drawable = CanvasImageSource & { width?: number; height?: number };

/** The middle of a picture, as large as fits, as bytes. */
export function cut(source: Drawable, from: Size, to: Size, gray: boolean): Uint8ClampedArray {
  const canvas = document.createElement("canvas");
  canvas.width = to.width;
  canvas.height = to.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) return new Uint8ClampedArray(3 * to.width * to.height);
  const scale = Math.max(to.width / from.width, to.height / from.height);
  const [w, h] = [from.width * scale, from.height * scale];
  context.imageSmoothingQuality = "high";
  context.drawImage(source, (to.width - w) / 2, (to.height - h) / 2, w, h);
  return bytesOf(context.getImageData(0, 0, to.width, to.height).data, gray);
}

/** Four bytes a pixel to three; a network without colours sees how bright each is. */
export function bytesOf(rgba: Uint8ClampedArray, gray: boolean): Uint8ClampedArray {
  const rgb = new Uint8ClampedArray((rgba.length / 4) * 3);
  for (let i = 0, j = 0; i < rgba.length; i += 4, j += 3) {
    const [r, g, b] = [rgba[i] as number, rgba[i + 1] as number, rgba[i + 2] as number];
    const bright = 0.299 * r + 0.587 * g + 0.114 * b;
    rgb.set(gray ? [bright, bright, bright] : [r, g, b], j);
  }
  return rgb;
}

export async function fromFile(file: Blob, to: Size, gray: boolean): Promise<Uint8ClampedArray> {
  const image = await createImageBitmap(file);
  try {
    return cut(image, image, to, gray);
  } finally {
    image.close();
  }
}

/** The first picture in what was dropped or pasted. */
export function pictureIn(data: DataTransfer | null): File | null {
  return Array.from(data?.files ?? []).find((file) => file.type.startsWith("image/")) ?? null;
}

/** Whether this browser lends pages its camera: only pages that came over https, or from this machine. */
export function hasCamera(): boolean {
  return typeof navigator.mediaDevices?.getUserMedia === "function";
}

/** Hands out one picture after the other until the returned function is called. */
export async function watchCamera(
  to: Size,
  gray: boolean,
  take: (rgb: Uint8ClampedArray) => void,
): Promise<() => void> {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.srcObject = stream;
  await video.play();
  let handle = 0;
  const step = () => {
    const from = { width: video.videoWidth, height: video.videoHeight };
    if (from.width > 0) take(cut(video, from, to, gray));
    handle = requestAnimationFrame(step);
  };
  handle = requestAnimationFrame(step);
  return () => {
    cancelAnimationFrame(handle);
    for (const track of stream.getTracks()) track.stop();
  };
}
