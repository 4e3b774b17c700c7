"""The explorer as a person uses it: where things are on its page, and what to wait for.

Everything here goes through the hooks that the product promises to tests and to people's own style sheets
(`data-state`, `data-node`, `data-panel`, `data-painted`, ...), never through looks.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Locator

    from tests.browser.lab import Notebook

SHAPES = """
    import torch
    import nnviz_widget as nnviz
    demo = nnviz.demo.shapes()
    w = nnviz.explore(demo.model, demo.inputs, class_names=demo.class_names, target=demo.targets,
                      denormalize=demo.denormalize)
    w
"""
"""A cell that shows the trained network for shapes, all its samples named and with their true classes."""

GRADIENT = """
    import torch

    def gradient(model, x, layer, unit):
        '''The plain model's own answer: a hook, a forward, one call of autograd.'''
        kept = []
        module = model.get_submodule(layer) if layer != "output" else model
        handle = module.register_forward_hook(lambda module, inputs, output: kept.append(output))
        x = x.detach().clone().requires_grad_()
        model(x)
        handle.remove()
        return torch.autograd.grad(kept[0][(0, *unit)], x)[0]

    def difference(ours, reference):
        ours, reference = torch.as_tensor(ours).reshape(-1), reference.reshape(-1)
        return float((ours - reference).abs().max() / reference.abs().max())
"""
"""Python for the kernel: the gradient of one unit without any help from the product."""


class ExplorerPage:
    """One explorer on the page.

    Parameters
    ----------
    notebook : Notebook
        Where it is.
    index : int
        Which one, where the notebook shows several.
    """

    def __init__(self, notebook: Notebook, index: int = 0) -> None:
        self.notebook = notebook
        self.page = notebook.page
        self.root = notebook.explorer.nth(index)

    def wait(self, state: str = "ready") -> None:
        """Wait until the explorer says that it is in this state."""
        self.notebook.page.locator(f'.nnviz[data-state="{state}"]').and_(self.root).wait_for()

    # ---- the graph -----------------------------------------------------------------------------------

    @property
    def nodes(self) -> Locator:
        """Every node and group that the graph draws."""
        return self.root.locator("[data-node]")

    def node(self, identifier: str) -> Locator:
        """One node or group."""
        return self.root.locator(f'[data-node="{identifier}"]')

    def click_layer(self, identifier: str) -> None:
        """Click a node on its name and wait for its maps."""
        self.click_name(identifier)
        self.wait_maps(identifier)

    def click_name(self, identifier: str) -> None:
        """Click a node on its name: in the middle of an open group other nodes lie over it."""
        self.node(identifier).locator(".nn-name").first.click()

    def open_group(self, identifier: str) -> None:
        """Open a group, unless the first picture has opened it already."""
        if self.node(identifier).get_attribute("data-open") == "false":
            self.toggle(identifier)
        self.root.locator(f'[data-node="{identifier}"][data-open="true"]').wait_for(state="attached")

    def toggle(self, identifier: str) -> None:
        """Double click a group on its name: it opens, or closes."""
        self.node(identifier).locator(".nn-name").first.dblclick()

    # ---- the maps ------------------------------------------------------------------------------------

    @property
    def maps(self) -> Locator:
        """The panel of maps."""
        return self.root.locator('[data-panel="maps"]')

    @property
    def tiles(self) -> Locator:
        """The tiles in sight."""
        return self.maps.locator("[data-channel]")

    def wait_maps(self, layer: str) -> None:
        """Wait until every tile in sight shows the current values of this layer."""
        self.root.locator(f'[data-panel="maps"][data-layer="{layer}"][data-painted="true"]').wait_for()

    def tile(self, channel: int) -> Locator:
        """The tile of one channel."""
        return self.maps.locator(f'[data-channel="{channel}"]')

    def strongest(self) -> int:
        """The channel of the first tile."""
        return int(self.tiles.first.get_attribute("data-channel") or "")

    def place(self, target: Locator, y: int, x: int, size: tuple[int, int]) -> dict[str, float]:
        """Where on an element the pixel (y, x) of a picture of this size lies."""
        box = target.bounding_box()
        assert box is not None
        height, width = size
        return {"x": (x + 0.5) / width * box["width"], "y": (y + 0.5) / height * box["height"]}

    def click_pixel(self, channel: int, y: int, x: int, size: tuple[int, int]) -> None:
        """Click a pixel of a map and wait until its saliency is drawn on the input."""
        tile = self.tile(channel)
        tile.click(position=self.place(tile, y, x, size))
        self.wait_saliency((channel, y, x))

    # ---- the input -----------------------------------------------------------------------------------

    @property
    def input(self) -> Locator:
        """The card of the input."""
        return self.root.locator('[data-panel="input"]')

    @property
    def overlay(self) -> Locator:
        """The canvas over the input on which saliency is drawn."""
        return self.input.locator('canvas[data-role="saliency"]')

    def wait_saliency(self, unit: tuple[int, ...]) -> None:
        """Wait until the saliency of this unit is drawn."""
        name = ",".join(map(str, unit))
        self.input.locator(f'canvas[data-role="saliency"][data-unit="{name}"]').wait_for(state="attached")

    def lit(self) -> dict[str, Any]:
        """How many pixels of the overlay are lit, and the half-open box (y0, x0, y1, x1) around them."""
        found: dict[str, Any] = self.overlay.evaluate(
            """canvas => {
                const {width, height} = canvas;
                const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
                const box = [height, width, 0, 0];
                let count = 0;
                for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
                    if (data[4 * (y * width + x) + 3] === 0) continue;
                    count++;
                    box[0] = Math.min(box[0], y); box[1] = Math.min(box[1], x);
                    box[2] = Math.max(box[2], y + 1); box[3] = Math.max(box[3], x + 1);
                }
                return {count, box};
            }"""
        )
        return found

    def predicted(self, index: int) -> Locator:
        """The row of a class among the predictions."""
        return self.root.locator(f'[data-class="{index}"]')

    # ---- words ---------------------------------------------------------------------------------------

    def hover_value(self) -> float:
        """The exact value that the status line reads off under the pointer."""
        exact = self.root.locator('[data-role="hover"] b').filter(has_text="=")
        exact.wait_for()
        return number(exact.inner_text())

    def say(self) -> str:
        """All the text that the explorer shows."""
        return self.root.inner_text()


def number(text: str) -> float:
    """Read a number as people write it, with a typographic minus sign."""
    found = re.search(r"[-+]?\d[\d.]*(?:e[-+]?\d+)?", text.replace("−", "-").replace("\u2009", ""))
    assert found, f"no number in {text!r}"
    return float(found.group())
