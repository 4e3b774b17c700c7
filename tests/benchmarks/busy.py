"""Clicks while a cell computes in pure Python, and how soon a cancelled job gives the thread back.

The cell holds the interpreter as tightly as Python allows. Every click asks for something that the page does
not have: another layer, or another unit of a layer that was clicked before.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import torch

from tests.benchmarks import models
from tests.benchmarks.measure import Report
from tests.benchmarks.session import arm, elapsed, lab_session
from tests.browser.explorer_page import ExplorerPage

if TYPE_CHECKING:
    from tests.browser.lab import Lab

EXPLORER = """
    import torch
    import nnviz_widget as nnviz
    from tests.benchmarks.models import resnet18
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    w = nnviz.explore(resnet18(), x)
    w
"""
SPIN = """
    turns = 0
    while True:
        turns += 1
"""
GROUPS = ("layer1", "layer2", "layer3", "layer4")


def run(rounds: int | None = None) -> Report:
    """Measure clicks on layers and on units while a cell spins, then cancels."""
    report = Report("busy")
    with lab_session(height=1400) as lab:
        notebook = lab.open([EXPLORER, SPIN])
        notebook.run(0)
        explorer = ExplorerPage(notebook)
        explorer.wait("ready")
        layers = ["conv1", "bn1", "relu", "maxpool", *GROUPS, "avgpool", "fc"]
        units = rounds or 60
        report.figure("click on a unit, idle", click_units(lab, explorer, units), aim="-")
        notebook.python("[w.select(None), w.refresh()] and None")
        explorer.page.wait_for_timeout(500)
        notebook.run(1, wait=False)
        explorer.page.wait_for_timeout(500)
        report.figure("click on a layer, busy cell", click_layers(lab, explorer, layers), aim="p95 < 100")
        report.figure(
            "click on a unit, busy cell", click_units(lab, explorer, units, seed=1), aim="p95 < 100"
        )
        explorer.page.evaluate(
            "path => panels[path].sessionContext.session.kernel.interrupt()", notebook.path
        )
        notebook.close()
    report.figure("cancel of a long forward", cancel_latency(rounds or 20), aim="< 50")
    return report


def click_layers(lab: Lab, explorer: ExplorerPage, layers: list[str]) -> list[float]:
    """Click each layer once; none of them has been asked for since the last run."""
    times = []
    for layer in layers:
        arm(lab.page, f'[data-panel="maps"][data-layer="{layer}"][data-painted="true"]')
        explorer.click_name(layer)
        times.append(elapsed(lab.page))
        lab.page.wait_for_timeout(200)
    return times


def click_units(lab: Lab, explorer: ExplorerPage, count: int, *, seed: int = 0) -> list[float]:
    """Click pixels of one map, each until its saliency is drawn on the input."""
    explorer.click_layer("layer2")
    channel = explorer.strongest()
    tile = explorer.tile(channel)
    generator = random.Random(seed)
    times = []
    for place in generator.sample(range(28 * 28), count):
        y, x = divmod(place, 28)
        arm(lab.page, f'canvas[data-role="saliency"][data-unit="{channel},{y},{x}"]')
        tile.click(position=explorer.place(tile, y, x, (28, 28)))
        times.append(elapsed(lab.page))
        lab.page.wait_for_timeout(100)
    return times


def cancel_latency(rounds: int) -> list[float]:
    """Cancel a trace of a large batch at random moments; seconds until the engine's thread is free again."""
    from nnviz_widget import Engine

    generator = random.Random(0)
    batch = torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    times = []
    with Engine(models.resnet50()) as engine:
        engine.trace(batch[:1])
        for _ in range(rounds):
            job = engine.jobs.submit(lambda _token: engine.trace(batch))
            time.sleep(generator.uniform(0.1, 0.6))
            start = time.perf_counter()
            job.cancel()
            engine.jobs.submit(lambda _token: None).result()
            times.append(time.perf_counter() - start)
    return times
