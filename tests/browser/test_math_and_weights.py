"""Numbers taken apart and weights changed, as a person does it."""

from __future__ import annotations

import pytest

from tests.browser.explorer_page import number
from tests.browser.test_accessibility import AXE, serious


@pytest.fixture
def math(explorer):
    explorer.notebook.python("w.select('stage2.0.conv1', channel=3, pixel=(0, 4))")
    explorer.root.get_by_role("tab", name="Math").click()
    explorer.root.locator('[data-panel="math"][data-unit="3,0,4"]').wait_for()
    return explorer


def result(page):
    return number(page.root.locator(".nn-math-result strong").inner_text().split("=")[1])


def test_a_pixel_is_shown_as_the_sum_that_it_is(math):
    exact = math.notebook.python("float(w.trace.activation('stage2.0.conv1')[0, 3, 0, 4])")
    assert result(math) == pytest.approx(exact, rel=1e-3)
    assert math.root.locator('[data-role="equal"]').get_attribute("data-tone") == "good"
    # At the edge of the picture the first row of the window is padding.
    patch = math.root.locator('[data-matrix="patch"] span')
    assert patch.count() == 9
    assert math.root.locator('[data-matrix="patch"] [data-outside]').count() == 3
    shown = [number(bar.inner_text().splitlines()[-1]) for bar in math.root.locator(".nn-bars-row").all()]
    assert sum(shown) == pytest.approx(exact, abs=1e-2)
    assert [abs(a) for a in shown] == sorted((abs(a) for a in shown), reverse=True)


def test_pointing_stepping_and_playing_move_over_the_places(math):
    output = math.root.locator('[data-role="math-output"]')
    output.hover(position=math.place(output, 9, 20, (32, 32)))
    math.root.locator('[data-panel="math"][data-unit="3,9,20"]').wait_for()
    output.click(position=math.place(output, 9, 21, (32, 32)))
    math.wait_saliency((3, 9, 21))
    math.root.locator(".nn-math-player").get_by_role("button", name="step", exact=True).click()
    math.root.locator('[data-panel="math"][data-unit="3,9,22"]').wait_for()
    math.root.get_by_role("button", name="play").click()
    # Each place is there for a moment only, so no one of them is waited for.
    math.root.locator('[data-panel="math"][data-playing="true"]:not([data-unit="3,9,22"])').wait_for()
    math.root.get_by_role("button", name="pause").click()
    math.root.locator('[data-panel="math"][data-playing="false"]').wait_for()
    exact = math.notebook.python("float(w.trace.activation('stage2.0.conv1')[0, 3, 9, 22])")
    output.hover(position=math.place(output, 9, 22, (32, 32)))
    math.root.locator('[data-panel="math"][data-unit="3,9,22"]').wait_for()
    assert result(math) == pytest.approx(exact, rel=1e-3)


def test_an_activation_function_shows_its_curve_and_its_saturation(math):
    math.notebook.python("w.select('stem.relu', channel=0, pixel=(3, 3))")
    curve = math.root.locator('[data-role="curve"]')
    curve.wait_for()
    share = math.notebook.python("float((w.trace.activation('stem.norm') <= 0).float().mean())")
    assert float(curve.get_attribute("data-saturated")) == pytest.approx(share, abs=1e-3)
    math.page.evaluate(AXE.read_text())
    assert serious(math) == []


def test_a_changed_weight_moves_the_predictions_and_reset_brings_them_back(explorer):
    explorer.notebook.python("w.select('stem.conv')")
    explorer.root.get_by_role("tab", name="Weights").click()
    panel = explorer.root.locator('[data-panel="weights"][data-layer="stem.conv"]')
    panel.wait_for()
    before = explorer.notebook.python("[float(c['logit']) for c in w.run['predictions']['classes']]")
    untouched = explorer.notebook.python("float(demo.model.get_submodule('stem.conv').weight.sum())")
    panel.locator(".nn-weights-slices .nn-cells span").first.click()
    field = panel.get_by_label("value of the chosen weight")
    field.fill("4")
    field.press("Enter")
    explorer.root.locator('[data-panel="weights"][data-changes="1"]').wait_for()
    panel.locator('[data-role="gains"] li').first.wait_for()
    assert "1 weight is changed" in explorer.say()
    changed = explorer.notebook.python("[float(c['logit']) for c in w.run['predictions']['classes']]")
    expected = explorer.notebook.python(
        "sorted(other(demo.inputs[:1])[0].tolist(), reverse=True)",
        setup="""
        import copy
        other = copy.deepcopy(demo.model).eval()
        other.get_submodule('stem.conv').weight.data[0, 0, 0, 0] = 4
        """,
    )
    assert changed == pytest.approx(expected[: len(changed)], abs=1e-3)
    assert changed != before
    panel.locator('[data-role="reset"]').click()
    explorer.root.locator('[data-panel="weights"][data-changes="0"]').wait_for()
    assert explorer.notebook.python("[float(c['logit']) for c in w.run['predictions']['classes']]") == before
    now = explorer.notebook.python("float(demo.model.get_submodule('stem.conv').weight.sum())")
    assert now == untouched
