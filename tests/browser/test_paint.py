"""Hands on the input and the output: painting goes through the network live, a pixel shows what it does."""

from __future__ import annotations

import base64

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


TRANSFER = """
async ([element, kind, colour]) => {
    const canvas = new OffscreenCanvas(90, 40);  // wider than the input: its middle is taken
    const pen = canvas.getContext('2d');
    pen.fillStyle = '#000';
    pen.fillRect(0, 0, 90, 40);
    pen.fillStyle = colour;
    pen.fillRect(20, 0, 50, 40);
    const type = 'image/png';
    const blob = colour ? await canvas.convertToBlob({type}) : new Blob(['no picture'], {type});
    const data = new DataTransfer();
    data.items.add(new File([blob], 'picture.png', {type}));
    const options = {bubbles: true, cancelable: true};
    const event = kind === 'paste' ? new ClipboardEvent('paste', {...options, clipboardData: data})
                                   : new DragEvent('drop', {...options, dataTransfer: data});
    element.dispatchEvent(event);
    return event.defaultPrevented;
}
"""


def transfer(page, kind, colour):
    canvas = page.root.locator(".nn-paint-box canvas")
    canvas.focus()
    return page.page.evaluate(TRANSFER, [canvas.element_handle(), kind, colour])


def colours(page):
    """The colours of the painted sample's pixels, each once, in eighths."""
    return page.notebook.python(
        "(demo.denormalize(torch.as_tensor(w.painted)[None])[0] * 8)"
        ".round().flatten(1).T.unique(dim=0).tolist()"
    )


@pytest.mark.parametrize(
    ("kind", "colour", "eighths"), [("paste", "#00f", [0, 0, 8]), ("drop", "#ff0", [8, 8, 0])]
)
def test_a_picture_is_pasted_or_dropped_and_becomes_a_sample(painter, kind, colour, eighths):
    assert transfer(painter, kind, colour), "the page behind it shall not have it as well"
    painter.notebook.eventually("[w.selection['sample'], w.run['sample']]", [16, 16])
    assert colours(painter) == [eighths]
    painter.root.get_by_role("button", name="undo", exact=True).click()
    painter.notebook.eventually("bool((torch.as_tensor(w.painted) == demo.inputs[0]).all())", True)


def test_a_picture_is_opened_and_what_is_none_is_said(painter):
    png = painter.page.evaluate(
        """() => {
            const canvas = document.createElement('canvas');
            canvas.width = canvas.height = 12;
            const pen = canvas.getContext('2d');
            pen.fillStyle = '#0f0';
            pen.fillRect(0, 0, 12, 12);
            return canvas.toDataURL('image/png').split(',')[1];
        }"""
    )
    file = {"name": "green.png", "mimeType": "image/png", "buffer": base64.b64decode(png)}
    painter.root.get_by_label("picture file").set_input_files(file)
    painter.notebook.eventually("[w.selection['sample'], w.run['sample']]", [16, 16])
    assert colours(painter) == [[0, 8, 0]]
    transfer(painter, "drop", "")
    painter.root.get_by_text("cannot read this picture").wait_for()
    assert colours(painter) == [[0, 8, 0]]


def test_the_camera_paints_until_it_is_stopped(painter):
    painter.root.get_by_role("button", name="camera", exact=True).click()
    painter.root.get_by_role("button", name="stop", exact=True).wait_for()
    painter.root.locator('[data-role="meter"]', has_text="fps").wait_for()
    painter.root.get_by_role("button", name="stop", exact=True).click()
    painter.notebook.eventually("[w.selection['sample'], w.run['sample']]", [16, 16])
    same = "float((torch.as_tensor(w.painted) == demo.inputs[0]).all(0).float().mean())"
    assert painter.notebook.python(same) < 0.1
    # One step back is before the camera.
    painter.root.get_by_role("button", name="undo", exact=True).click()
    painter.notebook.eventually(same, 1.0)


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
