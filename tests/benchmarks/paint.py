"""A frame while painting against the model's own forward: the demo networks and ResNet-18.

The product's frame is all that the kernel does: the picture brought into the range of the inputs, a run that
looks at the nodes in sight, thumbnails of each, all tiles of one open layer, predictions, and the bytes of
the reply. Its floor is the model alone under ``torch.no_grad()``. Frames a second in the page, drawn by a
pointer in JupyterLab in Chromium, are in the notes of the demo network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import nnviz_widget as nnviz
from nnviz_widget.engine.jobs import CancelToken
from nnviz_widget.explorer.painting import PAINTING
from nnviz_widget.explorer.replies import Question
from nnviz_widget.wire.arrays import pack
from tests.benchmarks.measure import Case, Report, interleave
from tests.benchmarks.models import resnet18
from tests.benchmarks.session import lab_session
from tests.browser.explorer_page import SHAPES, ExplorerPage

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

THREADS = 2
OPEN = {"shapes": "stage1", "digits": None, "ResNet-18": "layer1"}


def run(rounds: int | None = None) -> Report:
    """Measure a frame of each network, then paint in a page."""
    torch.set_num_threads(THREADS)
    report = Report("paint")
    seen = painted_in_a_page()
    for name, (model, inputs, options) in networks().items():
        explorer = nnviz.explore(model, inputs, **options)
        frame = frames(explorer, OPEN[name])
        times = interleave({"frame": frame, "forward": forwards(model, inputs[:1])}, rounds=rounds or 40)
        aim = "<= 1.43" if name == "ResNet-18" else ""
        notes: dict[str, Any] = {
            "frames a second in the kernel": round(1 / float(np.median(times["frame"])), 1)
        }
        if name == "shapes":
            notes["frames a second in the page"] = {
                "of each stroke": seen,
                "median": float(np.median(seen)),
            }
        report.add(Case(f"{name}, one frame", "frame", "forward", times, aim=aim, notes=notes))
        explorer.close()
    return report


def networks() -> dict[str, tuple[nn.Module, Tensor, dict[str, Any]]]:
    """Return the models with their inputs and the options of `explore`."""
    shapes, digits = nnviz.demo.shapes(), nnviz.demo.digits()
    picture = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    return {
        "shapes": (shapes.model, shapes.inputs, {"denormalize": shapes.denormalize}),
        "digits": (digits.model, digits.inputs, {"denormalize": digits.denormalize}),
        "ResNet-18": (resnet18().eval(), (picture - 0.45) / 0.23, {"denormalize": "imagenet"}),
    }


def frames(explorer: nnviz.Explorer, layer: str | None) -> Callable[[], None]:
    """Return what runs another picture and packs the reply, with every node of the first level in sight."""
    graph = explorer.trace.graph
    exploration = explorer._exploration
    top = [
        *(group.id for group in graph.groups if group.parent == "" and group.id),
        *(node.id for node in graph.nodes if node.parent == ""),
    ]
    nodes = [{"node": name, "channels": [0, 1, 2, 3]} for name in top]
    height, width = exploration.batch.main.shape[-2:]
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (height, width, 3), np.uint8).tobytes() for _ in range(8)]
    count = 0

    def frame() -> None:
        nonlocal count
        count += 1
        p = {"base": 0, "nodes": nodes, "layer": layer, "max_side": 64}
        question = Question(p, (pictures[count % len(pictures)],), CancelToken(), lambda *_: None)
        reply = exploration.ask(lambda: PAINTING["paint"](exploration, question))
        pack(reply.arrays)

    return frame


def forwards(model: nn.Module, row: Tensor) -> Callable[[], None]:
    """Return what runs the model alone."""

    def forward() -> None:
        with torch.no_grad():
            model(row)

    return forward


def painted_in_a_page(strokes: int = 6, seconds: float = 4.0) -> list[float]:
    """Draw with a pointer on the demo network; returns the mean of what the page's meter shows, by stroke.

    These are answers that were shown, over the time in which something drawn was still to be answered. The
    first second, in which the page finds its pace, does not count.
    """
    with lab_session() as lab:
        notebook = lab.open([SHAPES])
        notebook.run(0)
        explorer = ExplorerPage(notebook)
        explorer.wait("ready")
        explorer.root.get_by_role("button", name="paint", exact=True).click()
        canvas = explorer.root.locator(".nn-paint-box canvas")
        canvas.wait_for()
        # The browser's own events, one a picture of the screen: a remote pointer would be the bottleneck.
        rates = [round(float(canvas.evaluate(STROKES, seconds * 1e3)), 1) for _ in range(strokes)]
        notebook.close()
    return rates


STROKES = """(canvas, length) => new Promise((resolve) => {
    const box = canvas.getBoundingClientRect();
    const send = (type, t) => canvas.dispatchEvent(new PointerEvent(type, {
        bubbles: true, button: 0, buttons: 1, pointerId: 1,
        clientX: box.left + box.width * (0.5 + 0.4 * Math.sin(t / 300)),
        clientY: box.top + box.height * (0.5 + 0.4 * Math.cos(t / 470)),
    }));
    canvas.setPointerCapture = () => {};
    const meter = () => canvas.closest(".nn-paint").querySelector('[data-role="meter"]');
    const shown = [];
    const start = performance.now();
    send("pointerdown", 0);
    const step = () => {
        const t = performance.now() - start;
        if (t > 1000) shown.push(parseFloat(meter().textContent));
        if (t < length) { send("pointermove", t); requestAnimationFrame(step); return; }
        send("pointerup", t);
        resolve(shown.reduce((a, b) => a + b) / shown.length);
    };
    requestAnimationFrame(step);
})"""
