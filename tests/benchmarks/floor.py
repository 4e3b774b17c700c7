"""The least that a click on a layer can cost: one anywidget message there, one with the bytes back, painted.

The kernel holds the bytes ready; the page colours them through a table and puts them on one canvas for all,
as the explorer does. There is no state, no protocol, no choice of layer: what remains is the transport and
the painting. Runs in a notebook of the benchmarks, not in the product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

if TYPE_CHECKING:
    import numpy as np

PAGE = """
const table = new Uint32Array(256);
for (let i = 0; i < 256; i++) table[i] = 0xff000000 | (i << 16) | ((255 - i) << 8) | (i >> 1);

export default { render({ model, el }) {
    el.innerHTML = '<div class="floor"></div>';
    const root = el.firstChild;
    for (const layer of model.get('layers')) {
        const button = document.createElement('button');
        button.textContent = layer;
        button.dataset.ask = layer;
        button.onclick = () => model.send({ layer });
        root.append(button);
    }
    const canvas = document.createElement('canvas');
    canvas.style.cssText = 'display: block; width: 470px';
    root.append(canvas);
    model.on('msg:custom', ({ layer, shape: [count, h, w] }, [buffer]) => {
        const bytes = new Uint8Array(buffer.buffer ?? buffer, buffer.byteOffset ?? 0, count * h * w);
        const across = 8, width = across * w, height = Math.ceil(count / across) * h;
        canvas.width = width;
        canvas.height = height;
        const image = new ImageData(width, height);
        const pixels = new Uint32Array(image.data.buffer);
        for (let c = 0, from = 0; c < count; c++) {
            const corner = Math.floor(c / across) * h * width + (c % across) * w;
            for (let y = 0; y < h; y++)
                for (let x = 0, to = corner + y * width; x < w; x++) pixels[to + x] = table[bytes[from++]];
        }
        canvas.getContext('2d').putImageData(image, 0, 0);
        root.dataset.painted = layer;
    });
    model.on('change:round', () => { delete root.dataset.painted; canvas.width = 1; });
} }
"""


class Floor(anywidget.AnyWidget):
    """A button for each layer, and its maps below it.

    Parameters
    ----------
    maps : dict of str to numpy.ndarray
        For each layer the bytes to show, uint8 [C, h, w].
    """

    _esm = PAGE
    layers = traitlets.List().tag(sync=True)
    round = traitlets.Int(0).tag(sync=True)

    def __init__(self, maps: dict[str, np.ndarray]) -> None:
        super().__init__(layers=list(maps))
        self._maps = {layer: (array.shape, array.tobytes()) for layer, array in maps.items()}
        self.on_msg(self._answer)

    def _answer(self, _widget: object, content: dict[str, Any], _buffers: object) -> None:
        shape, data = self._maps[content["layer"]]
        self.send({"layer": content["layer"], "shape": list(shape)}, [data])
