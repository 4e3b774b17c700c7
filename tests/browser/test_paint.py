"""Hands on the input and the output: painting goes through the network live, a pixel shows what it does."""

from __future__ import annotations

import pytest


@pytest.fixture
def painter(explorer):
    explorer.root.get_by_role("button", name="paint", exact=True).click()
    explorer.root.locator(".nn-paint-box canvas").wait_for()
    return explorer


def draw(page):
    canvas = page.root.locator(".nn-paint-box canvas")
    box = canvas.bounding_box()
    mouse = page.page.mouse
    mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.4 * box["height"])
    mouse.down()
    for step in range(20):
        mouse.move(box["x"] + (0.3 + 0.02 * step) * box["width"], box["y"] + 0.5 * box["height"])
    mouse.up()


def test_a_stroke_goes_through_the_network_and_becomes_a_sample(painter):
    before = painter.root.locator(".nn-class").first.inner_text()
    draw(painter)
    painter.root.locator('[data-role="meter"]', has_text="ms").wait_for()
    painter.notebook.page.locator('.nn-thumbs [data-sample="16"][aria-pressed="true"]').wait_for()
    python = painter.notebook.python
    painter.notebook.eventually("[w.selection['sample'], w.run['sample']]", [16, 16])
    assert python("bool((torch.as_tensor(w.painted) != demo.inputs[0]).any())")
    # Most of the picture was left alone, and is bit for bit what it was.
    assert python("float((torch.as_tensor(w.painted) == demo.inputs[0]).float().mean())") > 0.5
    assert python("float((w.trace.output - demo.model(torch.as_tensor(w.painted)[None])).abs().max())") < 1e-5
    assert painter.root.locator(".nn-class").first.inner_text() != before


def test_reset_brings_the_sample_back_and_the_answer_with_it(painter):
    before = painter.root.locator(".nn-class").first.inner_text()
    draw(painter)
    painter.notebook.page.locator('.nn-thumbs [data-sample="16"][aria-pressed="true"]').wait_for()
    painter.root.get_by_role("button", name="reset", exact=True).click()
    first = painter.root.locator(".nn-class").first
    painter.page.wait_for_function(
        "([element, text]) => element.innerText.replace(/\\W/g, '') === text.replace(/\\W/g, '')",
        arg=[first.element_handle(), before.replace("✓", "")],
    )
    painter.root.get_by_role("button", name="undo", exact=True).click()
    painter.page.wait_for_function(
        "([element, text]) => element.innerText.replace(/\\W/g, '') !== text.replace(/\\W/g, '')",
        arg=[first.element_handle(), before.replace("✓", "")],
    )


def test_the_painter_works_by_keyboard(painter):
    keyboard = painter.page.keyboard
    canvas = painter.root.locator(".nn-paint-box canvas")
    canvas.focus()
    keyboard.press("Space")
    for _ in range(6):
        keyboard.press("ArrowRight")
    keyboard.press("Space")
    painter.notebook.page.locator('.nn-thumbs [data-sample="16"][aria-pressed="true"]').wait_for()
    keyboard.press("p")
    painter.root.locator('[data-panel="input"]').wait_for()


def test_a_pixel_lights_up_what_it_does(explorer):
    picture = explorer.root.locator(".nn-picture-box")
    picture.click(position=explorer.place(picture, 30, 25, (64, 64)))
    card = explorer.root.locator('[data-panel="influence"][data-state="ready"]')
    card.wait_for()
    assert "exact" in card.locator('[data-role="how"]').inner_text()
    width = explorer.node("stem").evaluate("e => parseFloat(getComputedStyle(e, '::after').width)")
    assert width > 0
    explorer.page.keyboard.press("Escape")
    card.wait_for(state="detached")


def test_another_class_is_found_within_the_budget(explorer):
    explorer.root.focus()
    explorer.page.keyboard.press("y")
    panel = explorer.root.locator('[data-panel="output"]')
    panel.locator('[data-role="softmax"] li').first.wait_for()
    first = panel.locator('[data-role="softmax"] li b').first
    sharp = first.inner_text()
    panel.get_by_label("temperature").fill("1")
    assert first.inner_text() != sharp
    panel.get_by_role("button", name="search", exact=True).click()
    panel.locator('[data-role="counterfactual"][data-state="ready"]').wait_for()
    assert panel.locator('[data-role="verdict"]').inner_text().startswith(("now", "still"))
    assert "8.0 / 255" in panel.inner_text()
    panel.locator('[data-role="probes"]').get_by_role("button", name="fit", exact=True).click()
    panel.locator('[data-role="probes"][data-state="ready"]').wait_for()
    last = panel.locator("[data-probe]").last
    exact = explorer.notebook.python(
        "(lambda found: [found.layers[-1], float(found.accuracy[-1])])"
        "(w._exploration.engine.linear_probes(demo.inputs, demo.targets))"
    )
    assert [last.get_attribute("data-probe"), float(last.get_attribute("data-accuracy"))] == exact
    explorer.page.keyboard.press("Escape")
    panel.wait_for(state="detached")
