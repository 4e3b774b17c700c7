"""From a model in memory to its painted graph: the explorer beside the other ways to see one.

ResNet-50 and one image, in one Chromium. torchview with graphviz and torchvista run in a cell of JupyterLab
as the explorer does, each in a notebook and a kernel of its own, imports and model ready. Netron and Model
Explorer open the exported model in a page of their own: the time from the start of the navigation, servers
running and the browser's cache warm; for Netron also the time from choosing the file in a page that is open
already; and both also with what has to be done before, `torch.export` (and saving, or converting).

Painted means that what is drawn for the nodes is in the page and has not changed in number for half a second;
the time is that of the last change. Nodes are `[data-node]` of the explorer, `g.node` of Netron and
`g.node_...` of torchvista; of torchview the image that JupyterLab makes of its SVG, once it is decoded; and
of Model Explorer, which draws on a canvas, the first instanced draw call. How many there are is in the notes;
that canvas counts as one, and shows three boxes.

The peers are installed into `.cache/peers` when missing (`peers.txt`); graphviz's `dot` has to be there.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks import environment
from tests.benchmarks.measure import Case, Report, interleave
from tests.benchmarks.peer_servers import free_port
from tests.benchmarks.session import lab_session, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import BrowserContext

    from tests.browser.lab import Lab

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cache/peers"
REQUIREMENTS = Path(__file__).with_name("peers.txt")

PREPARE = """
    import sys
    sys.path.append({packages!r})
    import torch
    from tests.benchmarks.models import resnet50
    {imports}
    model = resnet50()
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
"""
#: Imports, the cell, and what is counted in its output.
CELLS = {
    "explore": ("from nnviz_widget import explore", "explore(model, x)", ".nnviz [data-node]"),
    "torchview": ("from torchview import draw_graph", "draw_graph(model, x).visual_graph", "img"),
    "torchvista": ("from torchvista import trace_model", "trace_model(model, x)", "g[class^=node_]"),
}
WATCH = """
(() => {
    let start = 0, seen = 0, changed = 0, drawn = 0;
    for (const Context of [WebGLRenderingContext, WebGL2RenderingContext]) {
        const draw = Context.prototype.drawElementsInstanced;
        if (draw) Context.prototype.drawElementsInstanced = function (...rest) {
            drawn = 1;
            return draw.apply(this, rest);
        };
    }
    document.addEventListener('change', () => { start = performance.now(); }, true);
    const look = () => {
        const now = performance.now(), count = document.querySelectorAll('g.node').length + drawn;
        if (count !== seen) { seen = count; changed = now; }
        else if (count && now - changed > 500)
            document.documentElement.dataset.painted = JSON.stringify([(changed - start) / 1000, count]);
        requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
})();
"""


def run(rounds: int | None = None) -> Report:
    """Measure all of them, round by round."""
    report = Report("peers")
    missing = install()
    if missing:
        report.figures["not measured"] = missing
        print(f"  {missing}")
        return report
    counts: dict[str, int] = {}
    with lab_session() as lab, servers() as ask:
        contestants = {name: in_cell(lab, name, counts) for name in CELLS}
        context = browser_context(lab, ask.started)
        contestants |= {
            "Netron": in_page(context, "Netron", ask.started["netron"], counts),
            "Netron, page open": in_open_page(context, ask.started, counts),
            "Model Explorer": in_page(context, "Model Explorer", ask.started["model explorer"], counts),
            "export and save": lambda: ask("export"),
            "export and convert": lambda: ask("convert"),
        }
        times = interleave(contestants, rounds=rounds or 8)
    for name, before in (("Netron", "export and save"), ("Model Explorer", "export and convert")):
        pairs = zip(times[before], times[name], strict=True)
        times[f"{name}, export included"] = [a + b for a, b in pairs]
    tool = subprocess.run(["dot", "-V"], capture_output=True, text=True, check=False).stderr.strip()
    drawn = {"explore": counts["explore"]}
    for peer in times:
        if peer == "explore" or peer.startswith("export"):
            continue
        name = peer.partition(",")[0]
        notes: dict[str, Any] = {"drawn": {**drawn, peer: counts.get(name, 0)}}
        if name == "torchview":
            notes["layout"] = tool
        pair = {"explore": times["explore"], peer: times[peer]}
        report.add(Case(f"ResNet-50, {peer}", "explore", peer, pair, "> 1", inverse=True, notes=notes))
    report.figure("export and save", times["export and save"])
    report.figure("export and convert", times["export and convert"])
    return report


def install() -> str:
    """Make the environment of the peers where it is missing; return why that is impossible."""
    if shutil.which("dot") is None:
        return "graphviz's `dot` is not installed (apt-get install graphviz)"
    return environment.install(FOLDER, REQUIREMENTS)


def python() -> Path:
    return environment.python(FOLDER)


def packages() -> Path:
    return environment.packages(FOLDER)


class Servers:
    """What `peer_servers` says, and an answer to each question: seconds."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.started: dict[str, str] = json.loads(self._line())

    def __call__(self, question: str) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{question}\n")
        self._process.stdin.flush()
        return float(json.loads(self._line()))

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the servers of the peers have ended")
        return line


@contextmanager
def servers() -> Iterator[Servers]:
    """Yield the servers of the peers that show files; they end with the block."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python()), "-m", "tests.benchmarks.peer_servers", folder]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        # A process shows one file: the page that is open before any file is chosen comes from another one.
        port = free_port()
        empty = subprocess.Popen(
            [str(FOLDER / "bin/netron"), "--port", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            started = Servers(process)
            started.started["empty netron"] = f"http://localhost:{port}/"
            yield started
        finally:
            for each in (process, empty):
                each.kill()
                each.wait()


def browser_context(lab: Lab, started: dict[str, str]) -> BrowserContext:
    """Return a window of the same Chromium, in which Netron has been welcomed before."""
    browser = lab.page.context.browser
    assert browser is not None
    context = browser.new_context(viewport={"width": lab.size[0], "height": lab.size[1]})
    context.add_init_script(WATCH)
    accepted = str(int(time.time() * 1000))  # else its first visit asks, and looks up the country
    context.add_cookies([{"name": "consent", "value": accepted, "url": started["netron"]}])
    return context


def in_page(context: BrowserContext, name: str, url: str, counts: dict[str, int]) -> Callable[[], float]:
    """Open a page of its own."""

    def timed() -> float:
        page = context.new_page()
        page.goto(url, wait_until="commit")
        text = page.locator("html[data-painted]").get_attribute("data-painted", timeout=60_000)
        seconds, counts[name] = json.loads(text or "")
        page.close()
        return float(seconds)

    return timed


def in_open_page(
    context: BrowserContext, started: dict[str, str], counts: dict[str, int]
) -> Callable[[], float]:
    """Choose the file in Netron's page."""

    def timed() -> float:
        page = context.new_page()
        page.goto(started["empty netron"])
        page.locator("#open-file-button").wait_for()
        page.locator("#open-file-dialog").set_input_files(started["file"])
        text = page.locator("html[data-painted]").get_attribute("data-painted", timeout=60_000)
        seconds, counts["Netron, page open"] = json.loads(text or "")
        page.close()
        return float(seconds)

    return timed


def in_cell(lab: Lab, name: str, counts: dict[str, int]) -> Callable[[], float]:
    """Run the cell of a notebook of its own, and clear its output again."""
    imports, cell, selector = CELLS[name]
    notebook = lab.open([PREPARE.format(packages=str(packages()), imports=imports), cell], name=name)
    notebook.run(0)

    def timed() -> float:
        lab.page.evaluate("path => jupyterapp.shell.activateById(panels[path].id)", notebook.path)
        settle(lab)
        seconds, counts[name] = lab.page.evaluate(
            """async ([path, selector]) => {
                const {content} = panels[path];
                content.activeCellIndex = 1;
                content.deselectAll();
                const {outputArea} = content.widgets[1];
                const whole = element => element.tagName !== 'IMG' || element.naturalWidth > 0;
                const start = performance.now();
                let seen = 0, changed = start;
                jupyterapp.commands.execute('notebook:run-cell');
                for (;;) {
                    await new Promise(resolve => requestAnimationFrame(resolve));
                    const now = performance.now();
                    const count = [...outputArea.node.querySelectorAll(selector)].filter(whole).length;
                    if (count !== seen) [seen, changed] = [count, now];
                    else if (count && now - changed > 500) break;
                    if (now > start + 60_000) throw new Error(`no ${selector}: ${outputArea.node.innerText}`);
                }
                return [(changed - start) / 1000, seen];
            }""",
            [notebook.path, selector],
        )
        lab.page.evaluate("path => panels[path].content.widgets[1].outputArea.model.clear()", notebook.path)
        settle(lab)
        return float(seconds)

    return timed
