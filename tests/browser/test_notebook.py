"""The explorer in its notebook: several views, re-runs, saving, reopening, and what it leaves behind."""

from __future__ import annotations

from tests.browser.explorer_page import SHAPES, ExplorerPage

WIDGETS = "application/vnd.jupyter.widget-state+json"


def test_two_views_of_one_explorer_show_the_same(lab):
    notebook = lab.open([SHAPES, "w"])
    notebook.run(0)
    notebook.run(1)
    first, second = ExplorerPage(notebook, 0), ExplorerPage(notebook, 1)
    first.wait()
    second.wait()
    first.click_layer("stage2")
    second.wait_maps("stage2")
    channel = second.strongest()
    second.click_pixel(channel, 5, 6, (32, 32))
    first.wait_saliency((channel, 5, 6))


def test_two_explorers_keep_to_themselves(lab):
    notebook = lab.open([SHAPES, "v = nnviz.explore(demo.model, demo.inputs[:2])\nv"])
    notebook.run(0)
    notebook.run(1)
    first, second = ExplorerPage(notebook, 0), ExplorerPage(notebook, 1)
    first.wait()
    second.wait()
    first.click_layer("stage1")
    second.click_layer("stage3")
    notebook.eventually("[w.selection['layer'], v.selection['layer']]", ["stage1", "stage3"])
    assert first.maps.get_attribute("data-layer") == "stage1"


def test_running_the_cell_again_gives_a_fresh_explorer(lab):
    notebook = lab.open([SHAPES])
    for _ in range(3):
        notebook.run()
        explorer = ExplorerPage(notebook)
        explorer.wait()
        explorer.click_layer("stage1")
    assert notebook.explorer.count() == 1


def test_closing_removes_the_explorer_and_its_thread(lab):
    notebook = lab.open([SHAPES, "w.close()"])
    notebook.run(0)
    explorer = ExplorerPage(notebook)
    explorer.wait()
    explorer.click_layer("stage1")
    notebook.run(1)
    notebook.explorer.wait_for(state="detached")
    notebook.eventually(
        "[t.name for t in threading.enumerate() if 'nnviz' in t.name.lower()]", [], setup="import threading"
    )


def test_a_reopened_notebook_shows_the_last_state_without_and_with_a_new_kernel(lab):
    lab.expect_error("reading 'kernel'")  # ipywidgets' own, where a notebook has no session
    notebook = lab.open([SHAPES])
    notebook.run()
    explorer = ExplorerPage(notebook)
    explorer.wait()
    picture = notebook.root.locator("img.nnviz-still")
    picture.wait_for(state="attached")
    overview = picture.get_attribute("src")
    explorer.click_layer("stage2")
    # The page hands over a picture of itself whenever it has come to rest.
    notebook.page.wait_for_function(
        "before => document.querySelector('img.nnviz-still').src !== before", arg=overview
    )
    notebook.save()
    notebook.close(wait=True)
    lab.notebooks.remove(notebook)
    for kernel in (False, True):
        again = lab.reopen(notebook.path, kernel=kernel)
        still = again.root.locator("img.nnviz-still")
        still.wait_for()
        box = still.bounding_box()
        assert box["width"] > 500
        assert box["height"] > 300
        again.close(wait=True)
        lab.notebooks.remove(again)


def test_a_notebook_with_saved_widgets_says_that_it_shows_a_still_picture(lab):
    notebook = lab.open([SHAPES])
    notebook.run()
    ExplorerPage(notebook).click_layer("stage1")
    notebook.eventually("w.selection['layer']", "stage1")
    state = notebook.python(
        "embed.dependency_state([w], drop_defaults=False)", setup="from ipywidgets import embed"
    )
    # What 'Save Widget State Automatically' in JupyterLab's settings does.
    notebook.page.evaluate(
        "([path, widgets]) => panels[path].content.model.setMetadata('widgets', widgets)",
        [notebook.path, {WIDGETS: {"version_major": 2, "version_minor": 0, "state": state}}],
    )
    notebook.save()
    notebook.close(wait=True)
    lab.notebooks.remove(notebook)
    # JupyterLab may draw the output before it has read the saved widgets, complains, and draws it again.
    lab.expect_error("widget model not found")
    again = lab.reopen(notebook.path)
    explorer = ExplorerPage(again)
    explorer.wait("static")
    for part in ("stem", "stage1", "head"):
        assert explorer.node(part).is_visible()
    explorer.root.locator("[data-class]").first.wait_for()
    assert "no kernel" in explorer.say()


def test_rendering_and_disposing_leaves_nothing_on_the_page(lab):
    lab.browser_page.load()  # what earlier tests left would be counted, and collected, again and again
    notebook = lab.open(
        [
            SHAPES,
            """
            from IPython.display import clear_output, display
            clear_output(wait=True)
            display(w)
            """,
        ]
    )
    notebook.run(0)
    ExplorerPage(notebook).wait()
    notebook.python("w.select('stage2', channel=3, pixel=(4, 5))")
    devtools = lab.page.context.new_cdp_session(lab.page)
    devtools.send("Performance.enable")

    def render(times: int) -> dict[str, float]:
        for _ in range(times):
            notebook.run(1)
            view = ExplorerPage(notebook, 1)
            view.wait()
            view.wait_maps("stage2")
            view.wait_saliency((3, 4, 5))
        return settled()

    def settled() -> dict[str, float]:
        """Count when counting again finds the same: timers hold on to what is gone for a moment."""
        counted: list[dict[str, float]] = []
        while len(counted) < 3 or counted[-1] != counted[-3]:
            assert len(counted) < 200, counted[-3:]
            lab.page.evaluate("new Promise(rested => setTimeout(() => requestIdleCallback(rested), 50))")
            devtools.send("HeapProfiler.collectGarbage")
            counted.append(count())
        return counted[-1]

    def count() -> dict[str, float]:
        metrics = {m["name"]: m["value"] for m in devtools.send("Performance.getMetrics")["metrics"]}
        return {
            "listeners": metrics["JSEventListeners"],
            "nodes": metrics["Nodes"],
            "canvases": lab.page.locator("canvas").count(),
            "of the document": listeners(devtools, "document"),
            "of the window": listeners(devtools, "window"),
        }

    # JupyterLab makes things ready when it finds the time, once: what is left behind grows with every view.
    rounds = 4
    first, second, third = render(3), render(rounds), render(rounds)
    grown = {name: min(second[name] - first[name], third[name] - second[name]) for name in first}
    assert grown["canvases"] <= 0
    assert grown["of the document"] <= 0
    assert grown["of the window"] <= 0
    # Nor is it quite still: less than one listener and a few nodes a time are its own noise.
    assert grown["listeners"] < rounds
    assert grown["nodes"] < 20 * rounds


def listeners(devtools, target: str) -> int:
    handle = devtools.send("Runtime.evaluate", {"expression": target})["result"]["objectId"]
    return len(devtools.send("DOMDebugger.getEventListeners", {"objectId": handle})["listeners"])
