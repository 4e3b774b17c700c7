"""From a pixel of a map, or from a class, back to the input: the numbers and the picture."""

from __future__ import annotations

import pytest

from tests.browser.explorer_page import GRADIENT, number


def test_a_click_on_a_pixel_of_a_map_lights_up_where_it_came_from(explorer):
    explorer.click_layer("stage2")
    channel = explorer.strongest()
    notebook = explorer.notebook
    # The unit that answers most: a ReLU leaves many others without any gradient.
    y, x = notebook.python(f"divmod(int(w.trace.activation('stage2')[0, {channel}].argmax()), 32)")
    explorer.click_pixel(channel, y, x, (32, 32))
    notebook.eventually("w.selection", {**NOTHING, "layer": "stage2", "channel": channel, "pixel": [y, x]})
    difference = notebook.python(
        f"difference(w.saliency, gradient(demo.model, demo.inputs[:1], 'stage2', ({channel}, {y}, {x})))",
        setup=GRADIENT,
    )
    assert difference <= 1e-6


def test_the_picture_on_the_input_is_the_gradient_inside_the_receptive_field(explorer):
    explorer.click_layer("stem")
    channel = explorer.strongest()
    # A unit that is not cut off by its ReLU; one 5x5 convolution sees five pixels either way.
    y, x = explorer.notebook.python(
        f"divmod(int(w.trace.activation('stem')[0, {channel}, 8:56, 8:56].argmax()), 48)"
    )
    y, x = y + 8, x + 8
    explorer.click_pixel(channel, y, x, (64, 64))
    field = [y - 2, x - 2, y + 3, x + 3]
    outline = explorer.input.locator('[data-role="field"]')
    outline.wait_for()
    assert outline.get_attribute("data-box") == ",".join(map(str, field))
    lit = explorer.lit()
    assert lit["count"] > 0
    assert lit["box"][0] >= field[0]
    assert lit["box"][1] >= field[1]
    assert lit["box"][2] <= field[2]
    assert lit["box"][3] <= field[3]


def test_dragging_over_a_map_scrubs_and_the_last_pixel_stays(explorer):
    explorer.click_layer("stage1")
    channel = explorer.strongest()
    tile = explorer.tile(channel)
    mouse = explorer.page.mouse

    def go(y: int, x: int) -> None:
        # Where the tile stands now: a notebook may still settle under it.
        tile.hover(position=explorer.place(tile, y, x, (64, 64)))

    go(10, 10)
    mouse.down()
    explorer.wait_saliency((channel, 10, 10))
    assert explorer.notebook.python("w.selection['pixel']") is None, "a drag is not yet a choice"
    go(20, 30)
    explorer.wait_saliency((channel, 20, 30))
    go(40, 50)
    mouse.up()
    explorer.wait_saliency((channel, 40, 50))
    explorer.notebook.eventually("w.selection['pixel']", [40, 50])


def test_a_click_on_a_predicted_class_shows_its_saliency(explorer):
    row = explorer.root.locator("[data-class]").nth(1)
    index = int(row.get_attribute("data-class"))
    row.click()
    explorer.wait_saliency((index,))
    assert explorer.lit()["count"] > 100
    explorer.notebook.eventually("w.selection['class']", index)
    difference = explorer.notebook.python(
        f"difference(w.saliency, gradient(demo.model, demo.inputs[:1], 'output', ({index},)))", setup=GRADIENT
    )
    assert difference <= 1e-6


def test_signed_and_absolute_saliency_change_without_asking_the_kernel(explorer, lab):
    row = explorer.root.locator("[data-class]").first
    row.click()
    explorer.wait_saliency((int(row.get_attribute("data-class")),))
    before = explorer.overlay.evaluate("canvas => canvas.toDataURL()")
    lab.traffic.clear()
    explorer.input.get_by_text("absolute", exact=True).click()
    explorer.page.wait_for_function(
        "([canvas, before]) => canvas.toDataURL() !== before", arg=[explorer.overlay.element_handle(), before]
    )
    assert lab.traffic.requests() == []


def test_a_click_on_an_input_pixel_reads_its_value_and_its_saliency(explorer):
    row = explorer.root.locator("[data-class]").first
    index = int(row.get_attribute("data-class"))
    row.click()
    explorer.wait_saliency((index,))
    explorer.overlay.click(position=explorer.place(explorer.overlay, 30, 25, (64, 64)))
    probe = explorer.input.locator('[data-role="pixel"]')
    probe.wait_for()
    lines = probe.locator("dd").all_inner_texts()
    assert lines[0] == "30, 25"
    value, slope = explorer.notebook.python(
        f"[demo.inputs[0, :, 30, 25].tolist(), "
        f"gradient(demo.model, demo.inputs[:1], 'output', ({index},))[0, :, 30, 25].tolist()]",
        setup=GRADIENT,
    )
    assert [number(part) for part in lines[1].split()] == pytest.approx(value, abs=1e-3)
    assert [number(part) for part in lines[2].split()] == pytest.approx(slope, abs=1e-3, rel=1e-3)


def test_python_selects_what_the_page_shows(explorer):
    notebook = explorer.notebook
    notebook.python("w.select('stage3', channel=7, pixel=(3, 4))")
    explorer.wait_maps("stage3")
    explorer.wait_saliency((7, 3, 4))
    assert explorer.tile(7).get_attribute("aria-pressed") == "true"
    assert explorer.input.inner_text().count("stage3") >= 1


def test_a_unit_of_a_linear_layer_has_saliency(explorer):
    explorer.click_layer("head")
    explorer.tile(3).click()
    explorer.wait_saliency((3,))
    assert explorer.lit()["count"] > 100


NOTHING = {"layer": None, "channel": None, "pixel": None, "sample": 0, "class": None}
