"""From the call of `explore` to the painted graph of ResNet-50 in JupyterLab, imports and model ready.

Each round runs the cell again: a new widget, a new engine, a new page of it. The floor beside it is the bare
forward pass that any picture of the activations needs, in a cell that shows a widget that draws nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.benchmarks.measure import Case, Report, interleave
from tests.benchmarks.session import lab_session, settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.browser.lab import Lab, Notebook

PREPARE = """
    import anywidget, torch
    import nnviz_widget as nnviz
    from tests.benchmarks.models import resnet50
    from nnviz_widget import explore
    model = resnet50()
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))

    class Nothing(anywidget.AnyWidget):
        _esm = "export default { render({ el }) { el.innerHTML = '<i class=nothing>.</i>'; } }"
"""
EXPLORE = """
    explore(model, x)
"""
FLOOR = """
    with torch.no_grad():
        model(x)
    Nothing()
"""


def run(rounds: int | None = None) -> Report:
    """Measure until the graph is drawn, until predictions are there, and until the thumbnails are painted."""
    report = Report("first_picture")
    with lab_session() as lab:
        notebook = lab.open([PREPARE, EXPLORE, FLOOR])
        notebook.run(0)
        graph = show(lab, notebook, 1, ".nnviz [data-node]")
        thumbnails = show(lab, notebook, 1, ".nnviz [data-node] canvas")
        floor = show(lab, notebook, 2, ".nothing")
        times = interleave(
            {"graph": graph, "thumbnails": thumbnails, "forward + widget": floor}, rounds=rounds or 10
        )
        report.add(Case("ResNet-50, graph drawn", "graph", "forward + widget", times))
        report.figure("explore() to drawn graph", times["graph"], aim="< 1000")
        report.figure("explore() to painted thumbnails", times["thumbnails"], aim="-")
        notebook.close()
    return report


def show(lab: Lab, notebook: Notebook, cell: int, selector: str) -> Callable[[], float]:
    """Run a cell whose old output is gone, until the selector matches in its new one."""

    def timed() -> float:
        lab.page.evaluate(
            "([path, index]) => panels[path].content.widgets[index].outputArea.model.clear()",
            [notebook.path, cell],
        )
        settle(lab)
        seconds: float = lab.page.evaluate(
            """async ([path, index, selector]) => {
                const panel = panels[path];
                panel.content.activeCellIndex = index;
                panel.content.deselectAll();
                const {node} = panel.content.widgets[index].outputArea;
                const start = performance.now();
                jupyterapp.commands.execute('notebook:run-cell');
                while (!node.querySelector(selector)) {
                    if (performance.now() > start + 30_000) throw new Error(`no ${selector}`);
                    await new Promise(resolve => requestAnimationFrame(resolve));
                }
                return (performance.now() - start) / 1000;
            }""",
            [notebook.path, cell, selector],
        )
        return seconds

    return timed
