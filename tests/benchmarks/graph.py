"""The graph in the page: laid out, opened, dragged, and how 10,000 operations come to the screen.

The clocks are the page's own. "Painted" is the first task after the frame in which the change is drawn. Where
nothing is named beside it, a figure's floor is what an empty page of the same Chromium takes for a frame.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget import Engine
from nnviz_widget.engine.graph_json import pack
from tests.benchmarks.generated import Deep, Flat, Tangle
from tests.benchmarks.measure import Case, Report, interleave, spread
from tests.benchmarks.models import gpt2_transformers
from tests.benchmarks.session import lab_session, settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Locator, Page

    from tests.browser.lab import Lab, Notebook

REPOSITORY = Path(__file__).resolve().parents[2]
PREPARE = """
    import anywidget, torch
    import nnviz_widget as nnviz
    from tests.benchmarks.generated import Deep, Flat, Wide
    from tests.benchmarks.models import gpt2, gpt2_transformers, resnet50
    models = {"ResNet-50": resnet50(), "GPT-2": gpt2_transformers() or gpt2(), "200 nodes": Wide().eval(),
              "nested": Deep().eval(), "flat": Flat().eval()}
    tokens = torch.arange(16)[None]
    inputs = {"ResNet-50": torch.zeros(1, 3, 224, 224), "GPT-2": tokens}

    class Nothing(anywidget.AnyWidget):
        _esm = "export default { render({ el }) { el.innerHTML = '<i class=nothing>.</i>'; } }"
"""
EXPLORE = """
    nnviz.explore(models[{name!r}], inputs.get({name!r}, torch.ones(1, 8)))
"""
FLOOR = """
    with torch.no_grad():
        models[{name!r}](torch.ones(1, 8))
    Nothing()
"""
#: Groups that are opened one after the other, by what stands beside their names.
OPENED = {
    "ResNet-50": ["layer1", "layer2", "layer3", "layer4"],
    "GPT-2": ["transformer.h.1", "transformer.h.1.attn", "transformer.h.1.mlp"],
}
FRAMES = 120

TOOLS = """
window.graphs = {
    frame: () => new Promise(resolve => requestAnimationFrame(resolve)),
    // The first task after the frame that is drawn next.
    painted: () => new Promise(resolve => requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => resolve(performance.now());
        port2.postMessage(null);
    })),
    // Milliseconds of the longest tasks since it was asked last; those under 50 ms do not count as such.
    blocks: [],
    longest() {
        const found = Math.max(0, ...this.watch.takeRecords().map(one => one.duration), ...this.blocks);
        this.blocks = [];
        return found;
    },
    // The times between frames, in milliseconds, while `step` is called in each of them.
    async frames(count, step) {
        const times = [];
        let last = await this.frame();
        for (let at = 0; at < count; at++) {
            step(at);
            const now = await this.frame();
            times.push(now - last);
            last = now;
        }
        return times;
    },
    // The way of a hand that drags, frame by frame.
    way: at => [150 * Math.sin(at / 12), 100 * Math.sin(at / 9)],
    // Moves an element along it.
    async slide(element, count) {
        return this.frames(count, at => {
            const [x, y] = this.way(at);
            element.style.transform = `translate(${x}px, ${y}px)`;
        });
    },
    // Drags the drawing along it.
    async drag(stage, count) {
        const box = stage.getBoundingClientRect();
        const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
        const say = (type, at) => {
            const [dx, dy] = this.way(at);
            const [clientX, clientY] = [x + dx, y + dy];
            const target = type === 'mousedown' ? stage : window;
            target.dispatchEvent(new MouseEvent(type,
                { bubbles: true, cancelable: true, view: window, button: 0, clientX, clientY }));
        };
        say('mousedown', 0);
        const times = await this.frames(count, at => say('mousemove', at));
        say('mouseup', count);
        return times;
    },
};
graphs.watch = new PerformanceObserver(list => {
    graphs.blocks.push(...list.getEntries().map(one => one.duration));
});
graphs.watch.observe({ entryTypes: ['longtask'] });
"""


def run(rounds: int | None = None) -> Report:
    """Measure the layout of a level, opening, dragging, large models, and the size of the graph."""
    report = Report("graph")
    measure_size(report)
    with lab_session() as lab:
        measure_layout(report, lab, rounds or 12)
        lab.page.evaluate(TOOLS)
        names = ["ResNet-50", "GPT-2", "200 nodes", "nested", "flat"]
        cells = [PREPARE, *(EXPLORE.format(name=name) for name in names)]
        cells += [FLOOR.format(name=name) for name in ("nested", "flat")]
        notebook = lab.open(cells)
        notebook.run(0)
        for name, groups in OPENED.items():
            measure_opening(report, lab, notebook, (names.index(name) + 1, name), groups, rounds or 10)
        measure_dragging(report, lab, notebook, names.index("200 nodes") + 1, rounds or 6)
        for name in ("nested", "flat"):
            floor = len(names) + 1 + ("nested", "flat").index(name)
            measure_large(report, lab, notebook, (names.index(name) + 1, name), floor, rounds or 6)
        notebook.close()
    return report


# ------------------------------------------------------------------------------------------------------ size


def measure_size(report: Report) -> None:
    """Bytes of the graph of GPT-2 with 12 layers, as it goes over the wire."""
    model = gpt2_transformers()
    if model is not None:
        with Engine(model) as engine:
            graph = engine.trace(torch.arange(16)[None]).graph
        size = len(json.dumps(pack(graph)).encode())
        report.figure("graph of GPT-2, 12 layers [KB]", [size], aim="< 200", scale=1e-3)


# ---------------------------------------------------------------------------------------------------- layout


def measure_layout(report: Report, lab: Lab, rounds: int) -> None:
    """The layout of a tangled level of 60 nodes, and all steps to the first drawing of the large models.

    A page lays out a small graph that nobody sees while it waits for the one of the model, so the first one
    that anybody sees comes after that; it is measured without, too.
    """
    script = bundled()
    tangles = [packed(Tangle(60, seed)) for seed in range(rounds)]
    first: list[float] = []
    rehearsals: list[float] = []
    cold: list[float] = []
    warm: list[float] = []
    for text in tangles:
        page = fresh_page(lab, script)
        rehearsals.append(page.evaluate("probe.rehearsed()") / 1000)
        first.append(page.evaluate("text => probe.firstDrawing(text).layout", text) / 1000)
        page.close()
        page = fresh_page(lab, script)
        cold.append(page.evaluate("text => probe.firstDrawing(text).layout", text) / 1000)
        page.close()
    page = fresh_page(lab, script)
    for text in tangles * 4:
        warm += [page.evaluate("text => probe.firstDrawing(text).layout", text) / 1000]
    page.close()
    report.figure("layout of 60 nodes, first of its page", first, aim="p95 <= 50")
    report.figure("layout of 60 nodes, first of its page, unrehearsed", cold)
    report.figure("rehearsal, while the page waits for its graph", rehearsals)
    report.figure("layout of 60 nodes", warm[len(tangles) :], aim="p95 <= 50")
    for name, model in (("nested", Deep()), ("flat", Flat())):
        text, laps = packed(model), []
        for _ in range(max(2, rounds // 2)):
            page = fresh_page(lab, script)
            laps.append(page.evaluate("text => probe.firstDrawing(text)", text))
            page.close()
        report.figure(f"10,000 operations, {name}: graph [KB]", [len(text)], scale=1e-3)
        for step in ("parse", "unpack", "tree", "layout"):
            times = [lap[step] / 1000 for lap in laps]
            report.figure(f"10,000 operations, {name}: {step} in a fresh page", times)


def packed(model: torch.nn.Module) -> str:
    """Return the graph of a model as the text that the page is sent."""
    with Engine(model.eval()) as engine:
        return json.dumps(pack(engine.trace(torch.ones(1, 8)).graph))


def bundled() -> str:
    """Return `js/test/probe.ts` as one script."""
    esbuild = REPOSITORY / "node_modules/.bin/esbuild"
    command = [str(esbuild), "js/test/probe.ts", "--bundle", "--minify", "--format=iife"]
    return subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout


def fresh_page(lab: Lab, script: str) -> Page:
    """Open an empty page whose compiler has not seen the script yet."""
    context = lab.page.context.browser
    assert context is not None
    page = context.new_page()
    page.set_content("<!doctype html><title>empty</title>")
    page.add_script_tag(content=script)
    return page


# --------------------------------------------------------------------------------------------------- opening


def measure_opening(
    report: Report,
    lab: Lab,
    notebook: Notebook,
    cell: tuple[int, str],
    groups: list[str],
    rounds: int,
) -> None:
    """From the click on a group's button until what it holds is painted; each round in a new explorer."""
    index, name = cell
    times: list[float] = []
    floor: list[float] = []
    for _ in range(rounds):
        show(lab, notebook, index, ".nnviz [data-node]")
        settle(lab, 0.6)
        for group in groups:
            opened = lab.page.evaluate(
                """async ([path, index, group]) => {
                    const {node} = panels[path].content.widgets[index].outputArea;
                    const boxes = [...node.querySelectorAll('.nn-node[data-open="false"]')];
                    const box = boxes.find(one => one.dataset.path === group) ??
                        boxes.find(one => one.querySelector(`[data-member="${group}"]`));
                    if (!box) return null;
                    const pip = box.querySelector(`[data-member="${group}"]`);
                    const start = performance.now();
                    (pip ?? box.querySelector('[data-act="toggle"]')).click();
                    while (!node.querySelector(`.nn-node[data-path="${group}"][data-open="true"]`)) {
                        if (performance.now() > start + 10_000) throw new Error(`${group} did not open`);
                        await graphs.frame();
                    }
                    return (await graphs.painted() - start) / 1000;
                }""",
                [notebook.path, index, group],
            )
            if opened is not None:
                times.append(opened)
            floor.append(lab.page.evaluate("graphs.painted().then(end => end - performance.now() + 0.016)"))
            settle(lab, 0.5)
    report.figure(f"opening a group of {name}, click to painted", times, aim="<= 100")


# -------------------------------------------------------------------------------------------------- dragging


def measure_dragging(report: Report, lab: Lab, notebook: Notebook, index: int, rounds: int) -> None:
    """Times between frames while 200 cards are dragged, all of them in sight and at a scale to read them.

    Beside them, as the floor of machine and browser: one plain box that is moved in an empty page.
    """
    show(lab, notebook, index, ".nnviz [data-node]")
    root = notebook.cell(index).locator(".nnviz")
    root.get_by_label("open one level more", exact=True).click()
    settle(lab, 0.8)
    cards = root.locator('.nn-node:not([data-open="true"])').count()
    plain = plain_page(lab, root.locator(".nn-stage"))
    floor = "a plain box"

    def slid() -> float:
        plain.bring_to_front()
        plain.evaluate("graphs.slide(box, 30)")
        times: list[float] = plain.evaluate(f"graphs.slide(box, {FRAMES})")
        frames[floor] += times
        return spread(times)["p95"] / 1000

    def dragged(sight: str) -> Callable[[], float]:
        def drag() -> float:
            lab.page.bring_to_front()
            settle(lab)  # a page that was hidden draws everything anew
            root.locator(".nn-stage").evaluate("stage => graphs.drag(stage, 30)")
            times: list[float] = root.locator(".nn-stage").evaluate(f"stage => graphs.drag(stage, {FRAMES})")
            frames[sight] += times
            return spread(times)["p95"] / 1000

        return drag

    for sight in (f"{cards} cards, readable", f"{cards} cards, all in sight"):
        if "all" in sight:
            root.get_by_label("fit (0)", exact=True).click()
            settle(lab, 0.6)
        frames: dict[str, list[float]] = {sight: [], floor: []}
        times = interleave({sight: dragged(sight), floor: slid}, rounds=rounds, warmup=1)
        late = {name: share_over(all_times, 17) for name, all_times in frames.items()}
        notes = {"share of frames over 17 ms": late}
        report.add(Case(f"dragging {sight}: p95 of a frame", sight, floor, times, aim="1", notes=notes))
        report.figure(f"frame while dragging {sight}", frames[sight], aim="p95 < 17", scale=1)
        report.figure(f"share of frames over 17 ms, {sight} [%]", [late[sight]], aim="0", scale=100)
        report.figure(f"frame while a plain box is moved, beside {sight}", frames[floor], scale=1)
        report.figure(f"share of frames over 17 ms, a plain box beside {sight} [%]", [late[floor]], scale=100)
    plain.close()


def plain_page(lab: Lab, stage: Locator) -> Page:
    """Open an empty page with a pane as large as the stage, where that is, and one plain box in it."""
    page = fresh_page(lab, TOOLS)
    page.set_viewport_size({"width": lab.size[0], "height": lab.size[1]})
    page.evaluate(
        """({x, y, width, height}) => {
            const pane = document.body.appendChild(document.createElement('div'));
            pane.style.cssText = `position: absolute; overflow: hidden; background: white;
                left: ${x}px; top: ${y}px; width: ${width}px; height: ${height}px`;
            window.box = pane.appendChild(document.createElement('div'));
            box.style.cssText = `width: ${width / 2}px; height: ${2 * height}px; background: lightsteelblue;
                will-change: transform`;
        }""",
        stage.bounding_box(),
    )
    return page


def share_over(times: list[float], limit: float) -> float:
    """Return which part of the times is over the limit."""
    return sum(time > limit for time in times) / len(times)


# ----------------------------------------------------------------------------------------------------- large


def measure_large(
    report: Report, lab: Lab, notebook: Notebook, cell: tuple[int, str], floor: int, rounds: int
) -> None:
    """From `explore` to the painted graph of 10,000 operations, in legs, and the longest task on the way."""
    index, name = cell
    runs: list[dict[str, float]] = []
    bare: list[dict[str, float]] = []
    for _ in range(rounds):
        runs.append(show(lab, notebook, index, ".nnviz [data-node]"))
        bare.append(show(lab, notebook, floor, ".nothing"))
    what = f"10,000 operations, {name}"
    legs = {"total": "explore() to painted", "kernel": "recorded and written", "wire": "sent and received"}
    for key, words in (*legs.items(), ("page", "received to painted")):
        aim = "< 3000" if key == "total" else ""
        report.figure(f"{what}: {words}", [leg[key] / 1000 for leg in runs if key in leg], aim=aim)
    report.figure(f"{what}: bare forward and a widget", [leg["total"] / 1000 for leg in bare])
    report.figure(f"{what}: longest task", [leg["block"] / 1000 for leg in runs], aim="< 100")
    report.figure(f"{what}: longest task, bare", [leg["block"] / 1000 for leg in bare])
    blocks: dict[str, list[float]] = {words: [] for words in ACTS}
    for _ in range(rounds):
        show(lab, notebook, index, ".nnviz [data-node]")
        settle(lab, 1.0)
        for words, act in ACTS.items():
            lab.page.evaluate("graphs.longest()")
            act(lab, notebook.cell(index).locator(".nnviz"))
            settle(lab, 0.8)
            blocks[words].append(lab.page.evaluate("graphs.frame().then(() => graphs.longest())") / 1000)
    for words, times in blocks.items():
        report.figure(f"{what}: longest task, {words}", times, aim="< 100")


def _search(_lab: Lab, root: Any) -> None:
    root.locator(".nn-stage").click(position={"x": 5, "y": 5})
    root.press("/")
    root.locator("input[type=search], input[type=text]").first.press_sequentially("linear", delay=60)


def _open(lab: Lab, root: Any) -> None:
    """Click as a hand does; Playwright's own click has the page styled to see what it would hit."""
    button = root.locator('.nn-node[data-open="false"] [data-act="toggle"]').first.bounding_box()
    lab.page.mouse.move(button["x"] + button["width"] / 2, button["y"] + button["height"] / 2)
    lab.page.mouse.down()
    lab.page.mouse.up()


def _hover(lab: Lab, root: Any) -> None:
    root.locator('.nn-node[data-open="false"]').first.hover()
    lab.page.wait_for_timeout(600)


ACTS: dict[str, Callable[[Lab, Any], None]] = {
    "opening a group": _open,
    "under the pointer": _hover,
    "searching": _search,
}


def show(lab: Lab, notebook: Notebook, cell: int, selector: str) -> dict[str, float]:
    """Run a cell whose old output is gone until the selector matches and is painted; milliseconds.

    `kernel` until the message with the graph is written, `wire` until the page has read it, `page` from
    there; `block` is the longest task of the page.
    """
    lab.page.evaluate(
        "([path, index]) => panels[path].content.widgets[index].outputArea.model.clear()",
        [notebook.path, cell],
    )
    settle(lab, 0.5)
    legs: dict[str, float] = lab.page.evaluate(
        """async ([path, index, selector]) => {
            const panel = panels[path];
            const {kernel} = panel.sessionContext.session;
            const {node} = panel.content.widgets[index].outputArea;
            const seen = {};
            const hear = (_, {msg, direction}) => {
                if (direction !== 'recv' || seen.sent || !msg.content?.data?.state?.graph?.nodes) return;
                seen.sent = Date.parse(msg.header.date);
                seen.read = Date.now();
            };
            kernel.anyMessage.connect(hear);
            panel.content.activeCellIndex = index;
            panel.content.deselectAll();
            await panel.content.scrollToItem(index, 'start');
            await graphs.frame();
            graphs.longest();
            const [start, began] = [performance.now(), Date.now()];
            jupyterapp.commands.execute('notebook:run-cell');
            while (!node.querySelector(selector)) {
                if (performance.now() > start + 60_000) throw new Error(`no ${selector}`);
                await graphs.frame();
            }
            const total = await graphs.painted() - start;
            const ended = Date.now();
            await new Promise(resolve => setTimeout(resolve, 500));
            kernel.anyMessage.disconnect(hear);
            const legs = seen.sent
                ? {kernel: seen.sent - began, wire: seen.read - seen.sent, page: ended - seen.read} : {};
            return {total, block: graphs.longest(), ...legs};
        }""",
        [notebook.path, cell, selector],
    )
    return legs
