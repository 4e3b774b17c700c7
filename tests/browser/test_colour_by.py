"""The drawing coloured by a number of each layer: a legend that leads to the extremes, times on request."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.browser.test_accessibility import AXE, CHECK

SVG = "{http://www.w3.org/2000/svg}"


def choose(explorer, by):
    explorer.root.get_by_label("colour by").select_option(by)


def key(explorer):
    return explorer.root.locator(".nn-key")


def background(explorer, node):
    return explorer.node(node).evaluate("node => getComputedStyle(node).backgroundColor")


def test_the_most_expensive_layer_is_one_click_away_whatever_hides_it(explorer):
    most, least = explorer.notebook.python(
        """
        [max(counts, key=counts.get), min((n for n in counts if counts[n]), key=counts.get)]
        """,
        setup="""
        from torch.utils.flop_counter import FlopCounterMode
        counts = {}
        for name, module in demo.model.named_modules():
            if not list(module.children()):
                def count(module, inputs, output, name=name, own=type(module).forward):
                    with FlopCounterMode(display=False) as counter:
                        own(module, *inputs)
                    counts[name] = counter.get_total_flops()
                module._probe = module.register_forward_hook(count)
        demo.model(demo.inputs[:1])
        for module in demo.model.modules():
            if hasattr(module, "_probe"):
                module._probe.remove()
                del module._probe
        """,
    )
    plain = background(explorer, "stage3")
    choose(explorer, "flops")
    assert background(explorer, "stage3") != plain
    assert background(explorer, "stage3") != background(explorer, "head"), "a group has the colour of its sum"
    explorer.node("stem").locator(".nn-name").hover()
    explorer.root.locator('[data-role="hover"]').filter(has_text=re.compile(r"FLOPs [\d.]+ MFLOP")).wait_for()
    assert explorer.node(most).count() == 0, "it is hidden in closed groups"
    key(explorer).locator("[data-end=most]").click()
    explorer.node(most).wait_for()
    explorer.wait_maps(most)
    explorer.notebook.eventually("w.selection['layer']", most)
    explorer.root.locator("[data-end=least]").click()
    explorer.notebook.eventually("w.selection['layer']", least)
    choose(explorer, "")
    assert background(explorer, "stage3") == plain
    assert key(explorer).count() == 0


def test_times_are_measured_when_they_are_asked_for(explorer):
    choose(explorer, "time")
    key(explorer).locator("[data-end=most]").wait_for()
    assert re.search(r"most[\d.]+ (µs|ms|s)", key(explorer).inner_text().replace("\n", ""))
    explorer.root.locator('.nn-node[data-node="stage2"][data-tint]').wait_for()
    key(explorer).get_by_role("button", name="measure again").click()
    key(explorer).get_by_role("button", name="measure again").wait_for()
    assert key(explorer).locator("[data-end=most]").count() == 1


def test_values_follow_every_new_input(explorer):
    choose(explorer, "mean")
    mean = "float(demo.model.stem(demo.inputs[{0}:{0} + 1]).mean())"
    for sample in (0, 3):
        explorer.input.locator(f'button[data-sample="{sample}"]').click()
        explorer.notebook.eventually("w.run['sample']", sample)
        expected = explorer.notebook.python(mean.format(sample))
        explorer.root.locator(f'[data-node="stem"][aria-label*="mean activation {expected:.2f}"]').wait_for()


def test_the_file_of_the_drawing_has_the_colours_and_the_legend(explorer, tmp_path):
    choose(explorer, "params")
    page = explorer.page
    for part in ("whole", "shown"):
        explorer.root.get_by_role("button", name="save the drawing").click()
        with page.expect_download() as started:
            explorer.root.locator(f'[data-export="svg-{part}"]').click()
        path = Path(tmp_path) / f"{part}.svg"
        started.value.save_as(path)
        svg = ET.parse(path).getroot()
        card = next(g for g in svg.iter(f"{SVG}g") if g.get("data-node") == "stage3")
        fills = {rect.get("fill") for rect in card.iter(f"{SVG}rect")}
        red, green, blue = re.findall(r"[\d.]+", background(explorer, "stage3"))[:3]
        tint = "#" + "".join(f"{round(255 * float(part)):02x}" for part in (red, green, blue))
        assert tint in fills
        legend = next(g for g in svg.iter(f"{SVG}g") if g.get("data-key") == "params")
        words = [text.text for text in legend.iter(f"{SVG}text")]
        assert words[0] == "parameters"
        assert "most" in words
        assert not {"stop", "measure", "colour by"} & set(words)
    assert key(explorer).locator("b").first.is_hidden()


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_everybody_can_read_it(explorer, theme):
    page = explorer.page
    page.evaluate(AXE.read_text())
    page.evaluate(f"jupyterapp.commands.execute('apputils:change-theme', {{theme: '{theme}'}})")
    try:
        dark = str("Light" in theme).lower()
        page.locator(f'body[data-jp-theme-light="{dark}"]').wait_for(state="attached")
        explorer.open_group("stage2")
        explorer.open_group("stage2.0")
        for by in ("type", "params", "mean", "time"):
            choose(explorer, by)
            explorer.root.locator('.nn-node[data-node="stem"][data-tint]').wait_for()
            assert explorer.root.evaluate(CHECK) == [], by
    finally:
        page.evaluate("jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})")


def test_it_is_chosen_with_the_keyboard_and_fits_a_narrow_page(explorer, lab):
    lab.resize(900, 800)
    select = explorer.root.get_by_label("colour by")
    select.focus()
    explorer.page.keyboard.press("ArrowDown")
    explorer.page.keyboard.press("ArrowDown")
    key(explorer).and_(explorer.root.locator('[data-by="params"]')).wait_for()
    explorer.page.keyboard.press("Tab")
    assert explorer.page.evaluate("document.activeElement.dataset.end") == "least"
    graph, legend = explorer.root.locator(".nn-graph").bounding_box(), key(explorer).bounding_box()
    assert legend["x"] >= graph["x"]
    assert legend["x"] + legend["width"] <= graph["x"] + graph["width"]
    assert legend["y"] >= graph["y"]
    assert legend["y"] + legend["height"] <= graph["y"] + graph["height"]
