"""Two runs side by side on the page: another sample, another checkpoint; by mouse, by keys, no kernel."""

from __future__ import annotations

import pytest

from tests.browser.explorer_page import SHAPES, ExplorerPage, number
from tests.browser.test_accessibility import AXE, serious

LAYER = "stage2.0.conv1"

REFERENCE = """
import torch

def maps(model, sample, layer):
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda *run: kept.append(run[2].clone()))
    with torch.no_grad():
        out = model(demo.inputs[sample:sample + 1]).softmax(1)[0]
    handle.remove()
    return kept[0][0], out

def differs(one, other):
    return float((one.double() - other.double()).norm() / one.double().norm())

def cka(one, other):
    '''Over positions, by its definition.'''
    x, y = (m.flatten(1).T.double() for m in (one, other))
    x, y = x - x.mean(0), y - y.mean(0)
    return float((x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm()))
"""


@pytest.fixture
def panel(explorer):
    explorer.root.get_by_role("button", name="compare", exact=True).click()
    panel = explorer.root.locator('[data-panel="compare"]')
    explorer.root.locator('[data-panel="compare"][data-state="ready"]').wait_for()
    return panel


def settled(explorer, layer):
    """Wait until the maps of a layer are those of the newest comparison."""
    explorer.root.locator('[data-panel="compare"][data-state="ready"]').wait_for()
    explorer.root.locator(f'.nn-compare-maps[data-layer="{layer}"][data-stale="false"]').wait_for()


def test_the_likeness_of_every_layer_and_both_predictions_are_those_of_hooks(explorer, panel):
    explorer.root.locator('.nn-samples [data-sample="3"]').click()
    explorer.root.locator('.nn-compare-side[data-side="B"]').get_by_text("sample 3").wait_for()
    explorer.root.locator('[data-panel="compare"][data-state="ready"]').wait_for()
    line = panel.locator(f'[role="option"][data-layer="{LAYER}"]')
    expected = explorer.notebook.python(
        f"[f(maps(demo.model, 0, '{LAYER}')[0], maps(demo.model, 3, '{LAYER}')[0]) for f in (cka, differs)]",
        setup=REFERENCE,
    )
    assert float(line.get_attribute("data-value")) == pytest.approx(expected[0], rel=1e-4)
    panel.get_by_role("button", name="change", exact=True).click()
    assert float(line.get_attribute("data-value")) == pytest.approx(expected[1], rel=1e-4)
    shares = explorer.notebook.python("[maps(demo.model, i, 'stem.conv')[1].tolist() for i in (0, 3)]")
    for row in panel.locator(".nn-compare-class").all():
        told = [number(one.inner_text().strip("<% ")) for one in row.locator("b").all()]
        index = int(row.get_attribute("data-class"))
        assert told == pytest.approx([100 * one[index] for one in shares], abs=0.6)


def test_a_click_on_a_layer_selects_it_everywhere_and_all_three_maps_are_read_together(explorer, panel):
    panel.locator(f'[role="option"][data-layer="{LAYER}"]').click()
    settled(explorer, LAYER)
    explorer.notebook.eventually("w.selection['layer']", LAYER)
    triple = panel.locator(".nn-compare-triple").nth(2)
    channel = int(triple.get_attribute("data-channel"))
    triple.click()
    explorer.notebook.eventually("w.selection['channel']", channel)
    frames = panel.locator(".nn-compare-frame")
    assert frames.count() == 3
    frames.nth(1).click(position=explorer.place(frames.nth(1), 10, 20, (32, 32)))
    explorer.notebook.eventually("w.selection['pixel']", [10, 20])
    panel.locator('[data-role="read"][data-exact="true"]').wait_for()
    assert panel.locator(".nn-compare-spot").count() == 3
    told = [
        number(one.inner_text().split(" ")[-1]) for one in panel.locator('[data-role="read"] > span').all()
    ]
    values = explorer.notebook.python(
        f"[float(maps(demo.model, i, '{LAYER}')[0][{channel}, 10, 20]) for i in (0, 1)]", setup=REFERENCE
    )
    assert told[1:] == pytest.approx([*values, values[1] - values[0]], abs=2e-3)
    # One enlargement for all three; Esc gives it up before the page.
    frames.first.hover()
    explorer.page.mouse.wheel(0, -300)
    assert panel.locator('.nn-compare-frame[data-enlarged="true"]').count() == 3
    explorer.page.keyboard.press("Escape")
    panel.locator('.nn-compare-frame[data-enlarged="true"]').first.wait_for(state="detached")
    panel.press("Escape")
    panel.wait_for(state="detached")
    explorer.wait_maps(LAYER)


def test_it_works_by_keyboard_alone(explorer):
    explorer.root.locator('[role="application"]').or_(explorer.root).first.focus()
    explorer.page.keyboard.press("c")
    panel = explorer.root.locator('[data-panel="compare"]')
    explorer.root.locator('[data-panel="compare"][data-state="ready"]').wait_for()
    settled(explorer, "stem.conv")
    panel.locator('[aria-selected="true"]').focus()
    explorer.page.keyboard.press("ArrowDown")
    settled(explorer, "stem.norm")
    explorer.page.keyboard.press("ArrowDown")
    settled(explorer, "stem.relu")
    first = panel.locator(".nn-compare-three").get_attribute("data-channel")
    explorer.page.keyboard.press("]")
    panel.locator(f'.nn-compare-three:not([data-channel="{first}"])').wait_for()
    panel.locator(".nn-compare-frame").first.focus()
    explorer.page.keyboard.press("ArrowRight")
    explorer.page.keyboard.press("+")
    assert panel.locator('.nn-compare-frame[data-enlarged="true"]').count() == 3
    assert "32, 33" in panel.locator('[data-role="read"]').inner_text()
    explorer.page.evaluate(AXE.read_text())
    assert serious(explorer) == []


def test_a_checkpoint_from_python_opens_the_page_and_one_without_difference_is_white(explorer):
    explorer.notebook.python(
        """w.compare_with(state_dict={
            name: value * (0.5 if name == "stage3.0.conv1.weight" else 1)
            for name, value in demo.model.state_dict().items()
        }, name="half")"""
    )
    panel = explorer.root.locator('[data-panel="compare"][data-state="ready"]')
    panel.wait_for()
    assert panel.locator('.nn-compare-side[data-side="B"]').inner_text() == "half"
    assert float(panel.locator('[role="option"][data-layer="stem.conv"]').get_attribute("data-value")) == 1
    panel.get_by_role("button", name="change", exact=True).click()
    explorer.notebook.python("w.select('stage3.0.conv1')")  # and the list goes there
    half = panel.locator('[role="option"][data-layer="stage3.0.conv1"][aria-selected="true"]')
    half.wait_for()
    assert float(half.get_attribute("data-value")) == pytest.approx(0.5, abs=1e-6)
    panel.get_by_role("button", name="over all samples").click()
    panel.get_by_role("button", name="CKA", exact=True).click()
    panel.get_by_text("over 16 samples, unbiased").wait_for()
    explorer.notebook.python("w.select('stem.conv')")
    settled(explorer, "stem.conv")
    white = panel.locator('[data-side="B − A"] canvas').evaluate(
        """canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data
            .every(value => value === 255)"""
    )
    assert white


def test_the_changed_network_stands_beside_itself_as_it_is(explorer):
    explorer.notebook.python("w.select('stem.relu', channel=3)")
    explorer.root.locator('[data-panel="maps"][data-layer="stem.relu"]').wait_for()
    explorer.root.locator('[role="tab"]').first.focus()
    explorer.page.keyboard.press("a")
    explorer.root.locator('.nn-change-kinds [data-kind="ablate"]').click()
    explorer.root.locator('.nn-shelf li[data-kind="ablate"]').wait_for()
    explorer.root.get_by_role("button", name="compare", exact=True).click()
    explorer.root.get_by_role("button", name="without changes").click()
    panel = explorer.root.locator('[data-panel="compare"]')
    panel.locator('.nn-compare-side[data-side="B"]').get_by_text("as it is").wait_for()
    settled(explorer, "stem.relu")
    panel.locator('[role="option"][data-layer="stem.norm"][data-value="0"]').wait_for()  # of B − A
    panel.get_by_role("button", name="CKA", exact=True).click()
    panel.locator('[role="option"][data-layer="stem.norm"][data-value="1"]').wait_for()
    relu = panel.locator('[role="option"][data-layer="stem.relu"]')
    expected = explorer.notebook.python(
        "cka(ablated(maps(demo.model, 0, 'stem.relu')[0]), maps(demo.model, 0, 'stem.relu')[0])",
        setup=REFERENCE
        + """
def ablated(one):
    one = one.clone()
    one[3] = 0
    return one
""",
    )
    assert float(relu.get_attribute("data-value")) == pytest.approx(expected, rel=1e-4)


def test_what_cannot_be_compared_and_a_kernel_that_is_gone_are_told(lab):
    explorer = ExplorerPage(lab.open([SHAPES]))
    explorer.notebook.run()
    explorer.wait("ready")
    explorer.notebook.python("w.compare_with(model=torch.nn.Linear(3, 4), name='linear')")
    alert = explorer.root.locator('[data-panel="compare"] [role="alert"]')
    alert.get_by_text("compared with raised").wait_for()
    explorer.root.locator('.nn-samples [data-sample="2"]').click()
    explorer.root.locator('[data-panel="compare"][data-state="ready"]').wait_for()
    lab.expect_error("")
    explorer.page.evaluate("path => panels[path].sessionContext.shutdown()", explorer.notebook.path)
    explorer.wait("dead")
    explorer.root.locator('.nn-samples [data-sample="4"]').click()
    alert.get_by_text("The kernel is gone").wait_for()
