"""The harness itself: what it promises to the other browser tests, shown on a widget of five lines."""

from __future__ import annotations

WIDGET = """
import anywidget, traitlets

class Counter(anywidget.AnyWidget):
    count = traitlets.Int(0).tag(sync=True)
    _esm = '''export default { render({ model, el }) {
        el.innerHTML = '<button class="nnviz" data-state="ready">count</button>';
        el.firstChild.onclick = () => { model.set("count", model.get("count") + 1); model.save_changes(); };
    } }'''

w = Counter()
w
"""


def test_a_click_in_the_page_reaches_python(lab):
    notebook = lab.open([WIDGET])
    notebook.run()
    notebook.explorer.click()
    notebook.explorer.click()
    notebook.eventually("w.count", 2)


def test_every_test_gets_a_kernel_of_its_own(lab):
    notebook = lab.open(["print('w' in globals())"])
    notebook.run()
    assert notebook.output_text(0).strip() == "False"
