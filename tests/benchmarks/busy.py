"""Clicks while a cell computes in pure Python, and how soon a cancelled job gives the thread back.

The cell holds the interpreter as tightly as Python allows, and one core. Every click asks for something that
the page does not have: another layer, or another unit of a layer that was clicked before. A unit of ResNet-18
costs a backward pass that needs several cores for itself; it is measured with and without the cell, so that
the difference tells what the waiting costs.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import torch

from tests.benchmarks import models
from tests.benchmarks.measure import Report
from tests.benchmarks.session import arm, elapsed, lab_session, settle
from tests.browser.explorer_page import ExplorerPage

if TYPE_CHECKING:
    from tests.browser.lab import Lab

SHAPES = """
    import nnviz_widget as nnviz
    demo = nnviz.demo.shapes()
    w = nnviz.explore(demo.model, demo.inputs[:SAMPLES])
    w
"""
RESNET = """
    import torch
    import nnviz_widget as nnviz
    from tests.benchmarks.models import resnet18
    x = torch.randn(SAMPLES, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    w = nnviz.explore(resnet18(), x)
    w
"""
SPIN = """
    turns = 0
    while True:
        turns += 1
"""
SAMPLES = 5
#: What stands on the first picture, and one layer with its sides whose units are clicked.
DEMO = (SHAPES, ("stem", "stage1", "stage3", "head"), "stage2", 32)
RESNET18 = (
    RESNET,
    ("conv1", "bn1", "relu", "maxpool", "layer1", "layer3", "layer4", "avgpool", "fc"),
    "layer2",
    28,
)


def run(rounds: int | None = None) -> Report:
    """Measure clicks on layers and on units while a cell spins, then cancels."""
    report = Report("busy")
    units = rounds or 60
    with lab_session(height=1400) as lab:
        for name, (source, layers, layer, side), aim in (
            ("the demo", DEMO, "p95 < 100"),
            ("ResNet-18", RESNET18, "-"),
        ):
            notebook = lab.open([source.replace("SAMPLES", str(SAMPLES)), SPIN])
            notebook.run(0)
            explorer = ExplorerPage(notebook)
            explorer.wait("ready")
            idle = click_units(lab, explorer, layer, side, units)
            report.figure(f"click on a unit of {name}, idle", idle, aim="-")
            notebook.python("[w.select(None), w.refresh()] and None")
            settle(lab)
            notebook.run(1, wait=False)
            settle(lab)
            times = click_layers(lab, explorer, layers)
            report.figure(f"click on a layer of {name}, busy cell", times, aim="p95 < 100")
            busy = click_units(lab, explorer, layer, side, units, seed=1)
            report.figure(f"click on a unit of {name}, busy cell", busy, aim=aim)
            explorer.page.evaluate(
                "path => panels[path].sessionContext.session.kernel.interrupt()", notebook.path
            )
            notebook.close()
    for size, aim in ((1, "< 50"), (8, "-")):
        times = cancel_latency(size, rounds or 20)
        report.figure(f"cancel of ResNet-50's forward, batch {size}", times, aim=aim)
    return report


def click_layers(lab: Lab, explorer: ExplorerPage, layers: tuple[str, ...]) -> list[float]:
    """Click each layer for each sample, so that every click has to ask; the first round only warms up."""
    times = []
    for sample in range(SAMPLES):
        explorer.root.locator(".nn-thumbs button").nth(sample).click()
        explorer.root.get_by_label("fit (0)", exact=True).click()
        settle(lab)
        for layer in layers:
            arm(lab.page, f'[data-panel="maps"][data-layer="{layer}"][data-painted="true"]')
            explorer.click_name(layer)
            times.append(elapsed(lab.page))
            lab.page.wait_for_timeout(200)
    return times[len(layers) :]


def click_units(
    lab: Lab, explorer: ExplorerPage, layer: str, side: int, count: int, *, seed: int = 0
) -> list[float]:
    """Click pixels of the layer's strongest map, each until its saliency is drawn on the input."""
    explorer.click_layer(layer)
    channel = explorer.strongest()
    tile = explorer.tile(channel)
    generator = random.Random(seed)
    times = []
    for place in generator.sample(range(side * side), count):
        y, x = divmod(place, side)
        arm(lab.page, f'canvas[data-role="saliency"][data-unit="{channel},{y},{x}"]')
        tile.click(position=explorer.place(tile, y, x, (side, side)))
        times.append(elapsed(lab.page))
        lab.page.wait_for_timeout(100)
    return times


def cancel_latency(size: int, rounds: int) -> list[float]:
    """Cancel a trace at a random moment of it; seconds until the engine's thread is free again.

    A cancel waits for the operation that runs, and one convolution of a large batch alone takes its time.
    """
    from nnviz_widget import Engine

    generator = random.Random(0)
    batch = torch.randn(size, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    times = []
    with Engine(models.resnet50()) as engine:
        engine.trace(batch)
        start = time.perf_counter()
        engine.trace(batch)
        whole = time.perf_counter() - start
        for _ in range(rounds):
            job = engine.jobs.submit(lambda _token: engine.trace(batch))
            time.sleep(generator.uniform(0.1, 0.9) * whole)
            start = time.perf_counter()
            job.cancel()
            engine.jobs.submit(lambda _token: None).result()
            times.append(time.perf_counter() - start)
    return times
