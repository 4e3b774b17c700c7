"""What a person sees after running the first cell."""

from __future__ import annotations

import re

from tests.browser.explorer_page import ExplorerPage


def test_the_first_cell_shows_the_network(explorer):
    explorer.nodes.first.wait_for()
    for part in ("input", "stem", "stage1", "stage2", "stage3", "head"):
        assert explorer.node(part).is_visible(), part
    assert "ShapesNet" in explorer.say()


def test_every_layer_carries_thumbnails_of_its_strongest_maps(explorer):
    strip = explorer.node("stage1").locator("canvas[data-drawn]")
    strip.wait_for()
    assert (
        strip.evaluate(
            """canvas => {
            const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            const colours = new Set();
            for (let i = 0; i < data.length; i += 4) if (data[i + 3]) colours.add(`${data.slice(i, i + 3)}`);
            return colours.size;
        }"""
        )
        > 10
    )


def test_predictions_are_those_of_the_model_and_the_true_class_is_marked(explorer):
    probabilities = explorer.notebook.python(
        "demo.model(demo.inputs[:1]).softmax(1)[0].tolist()", setup="import torch"
    )
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    rows = explorer.root.locator("[data-class]")
    assert rows.first.get_attribute("data-class") == str(best)
    shown = float(re.search(r"([\d.]+) %", rows.first.inner_text())[1])
    assert abs(shown - 100 * probabilities[best]) < 0.5
    true = explorer.notebook.python("int(demo.targets[0])")
    marked = explorer.root.locator("[data-class]:has([aria-label='true class'])")
    assert marked.count() == 1
    assert marked.get_attribute("data-class") == str(true)


def test_a_wrong_model_says_where_it_failed(lab):
    notebook = lab.open(
        [
            """
            import torch, nnviz_widget as nnviz

            class Wrong(torch.nn.Module):
                def __init__(self):
                    super().__init__()
                    self.conv = torch.nn.Conv2d(3, 8, 3)
                    self.fc = torch.nn.Linear(10, 2)

                def forward(self, x):
                    x = self.conv(x)
                    return self.fc(x.flatten(1))  # the wrong line

            w = nnviz.explore(Wrong(), torch.randn(1, 3, 8, 8))
            w
            """
        ]
    )
    notebook.run()
    root = notebook.explorer
    notebook.page.locator('.nnviz[data-state="error"]').wait_for()
    text = root.inner_text()
    assert "fc" in text
    assert "288" in text, "the shape that came"
    assert re.search(r":1[0-9]\b", text), "the line of the user's own code"
    assert "Traceback" not in text
    failing = root.locator('[data-node="fc"]')
    assert failing.is_visible(), "the part of the network that ran is drawn, and where it broke"
    assert root.locator('[data-node="conv"]').is_visible()


def test_labels_are_text_and_never_html(lab):
    notebook = lab.open(
        [
            """
            import torch, nnviz_widget as nnviz
            evil = "<img src=x onerror='window.hacked = true'><b>bold</b>"
            model = torch.nn.Sequential()
            model.add_module("<i>conv</i>", torch.nn.Conv2d(3, 4, 3))
            model.add_module("flat", torch.nn.Flatten())
            model.add_module("fc", torch.nn.Linear(4 * 6 * 6, 3))
            w = nnviz.explore(model, torch.randn(2, 3, 8, 8), class_names=[evil, "<script>x</script>", "c"])
            w
            """
        ]
    )
    notebook.run()
    notebook.page.locator('.nnviz[data-state="ready"]').wait_for()
    root = notebook.explorer
    root.locator("[data-class]").first.wait_for()
    assert "<b>bold</b>" in root.inner_text()
    assert root.locator("b", has_text=re.compile(r"^bold$")).count() == 0
    assert root.locator('img[src="x"], script').count() == 0
    assert notebook.page.evaluate("window.hacked") is None
    layer = root.locator('[data-node="<i>conv</i>"]')
    layer.click()
    root.locator('[data-panel="maps"][data-painted="true"]').wait_for()
    assert "<i>conv</i>" in root.locator('[data-panel="maps"]').inner_text()


def test_a_page_reads_the_code_of_the_explorer_once(lab):
    lab.page.evaluate(
        """() => {
            window.modules = 0;
            window.urlOf = URL.createObjectURL;
            URL.createObjectURL = blob => {
                if (blob.type === 'text/javascript' && blob.size > 200_000) window.modules += 1;
                return window.urlOf.call(URL, blob);
            };
        }"""
    )
    cell = "import torch\nimport nnviz_widget as nnviz\nnnviz.explore(torch.nn.ReLU(), torch.zeros(1, 3))"
    notebook = lab.open([cell, cell])
    before = 0
    for at in (0, 1):
        notebook.run(at)
        ExplorerPage(notebook, at).wait("ready")
        count = lab.page.evaluate("modules")
        loaded, before = count - before, count
    lab.page.evaluate("() => void (URL.createObjectURL = window.urlOf)")
    assert loaded == 1, "the host reads what it is sent, and that reads nothing more"
