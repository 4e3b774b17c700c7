"""A click on a layer until its maps are painted, in JupyterLab in Chromium: product, floor and peer.

The floor is `floor.Floor`: one message there, one with the very same bytes back, painted. The peer is what
people do without the product: a cell that draws the same maps as a matplotlib grid. All are measured by the
page's clock from the click (or the start of the cell) until the picture is there. Before every round the
trace is taken anew, so that the page has to ask the kernel for every click, what is clicked is scrolled into
sight, and traffic has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.benchmarks.measure import Case, Report, interleave
from tests.benchmarks.session import arm, elapsed, lab_session, settle
from tests.browser.explorer_page import ExplorerPage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.browser.lab import Lab, Notebook

LAYERS = {"layer1": (64, 56, 56), "conv1": (64, 112, 112)}

EXPLORER = """
    import torch
    import nnviz_widget as nnviz
    from tests.benchmarks.models import resnet18
    model = resnet18()
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    w = nnviz.explore(model, x)
    w
"""
FLOOR = """
    import numpy as np
    from tests.benchmarks.floor import Floor

    def as_bytes(maps):
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        return ((maps - low) / (high - low).clamp_min(1e-12) * 255).round().to(torch.uint8).numpy()

    activations = {layer: w.trace.activation(layer)[0] for layer in ("layer1", "conv1")}
    floor = Floor({layer: as_bytes(maps) for layer, maps in activations.items()})
    floor
"""
GRID = """
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(8, 8, figsize=(8, 8))
    for axis, one in zip(axes.flat, activations[{layer!r}]):
        axis.imshow(one)
        axis.axis("off")
    plt.show()
"""


def run(rounds: int | None = None) -> Report:
    """Measure both layers against the floor, then against matplotlib."""
    report = Report("click")
    with lab_session() as lab:
        cells = [EXPLORER, FLOOR, *(GRID.format(layer=layer) for layer in LAYERS)]
        notebook = lab.open(cells)
        notebook.run(0)
        explorer = ExplorerPage(notebook)
        explorer.wait("ready")
        notebook.run(1)
        for number, (layer, shape) in enumerate(LAYERS.items()):
            name = f"ResNet-18 {layer}, {'x'.join(map(str, shape))}"
            product = click_product(lab, explorer, layer)
            times = interleave(
                {"explorer": product, "raw message": click_floor(lab, notebook, layer)}, rounds=rounds or 25
            )
            report.add(Case(name, "explorer", "raw message", times, aim="<= 2"))
            times = interleave(
                {"explorer": product, "matplotlib": draw_grid(lab, notebook, 2 + number)},
                rounds=rounds or 8,
                warmup=1,
            )
            report.add(Case(f"{name}, grid", "explorer", "matplotlib", times, aim=">= 20", inverse=True))
        notebook.close()
    return report


def click_product(lab: Lab, explorer: ExplorerPage, layer: str) -> Callable[[], float]:
    """Click the layer's node; the picture is there when the maps panel says so."""

    def click() -> float:
        settle(lab)  # the kernel has heard of the click before
        explorer.notebook.python("[w.select(None), w.refresh()] and None")
        explorer.root.evaluate("root => root.scrollIntoView({block: 'center'})")
        explorer.root.get_by_label("fit (0)", exact=True).click()
        settle(lab)
        arm(lab.page, f'[data-panel="maps"][data-layer="{layer}"][data-painted="true"]')
        explorer.click_name(layer)
        return elapsed(lab.page)

    return click


def click_floor(lab: Lab, notebook: Notebook, layer: str) -> Callable[[], float]:
    """Click the layer's button of the floor widget."""

    def click() -> float:
        settle(lab)
        notebook.python("setattr(floor, 'round', floor.round + 1)")
        button = notebook.root.locator(f'[data-ask="{layer}"]')
        button.scroll_into_view_if_needed()
        settle(lab)
        arm(lab.page, f'.floor[data-painted="{layer}"]')
        button.click()
        return elapsed(lab.page)

    return click


def draw_grid(lab: Lab, notebook: Notebook, cell: int) -> Callable[[], float]:
    """Run the cell with the matplotlib grid until its picture is decoded."""

    def draw() -> float:
        settle(lab)
        seconds: float = lab.page.evaluate(
            """async ([path, index]) => {
                const panel = panels[path];
                panel.content.activeCellIndex = index;
                panel.content.deselectAll();
                const output = panel.content.widgets[index].outputArea;
                output.model.clear();
                await panel.content.scrollToItem(index, 'start');
                const start = performance.now();
                await jupyterapp.commands.execute('notebook:run-cell');
                let image;
                while (!(image = output.node.querySelector('img'))) {
                    if (performance.now() > start + 30_000) throw new Error('the grid did not show');
                    await new Promise(resolve => requestAnimationFrame(resolve));
                }
                await image.decode();
                return (performance.now() - start) / 1000;
            }""",
            [notebook.path, cell],
        )
        return seconds

    return draw
