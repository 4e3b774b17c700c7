"""axe-core finds nothing serious in the explorer, in any of its states, light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest

AXE = Path(__file__).resolve().parent.parent.parent / "node_modules" / "axe-core" / "axe.min.js"

CHECK = """
    async root => {
        const { violations } = await axe.run(root, {resultTypes: ['violations']});
        return violations
            .filter(({impact}) => impact === 'serious' || impact === 'critical')
            .map(({id, nodes}) => `${id}: ${nodes.map(({html, any, all}) =>
                `${html} (${[...any, ...all].map(({message}) => message).join('; ')})`).join(' | ')}`);
    }
"""


def serious(explorer):
    """Return what is wrong with the explorer as it stands now, in axe's words."""
    return explorer.root.evaluate(CHECK)


@pytest.fixture
def checked(explorer):
    explorer.page.evaluate(AXE.read_text())
    return explorer


def test_the_first_picture_can_be_read_by_everybody(checked):
    assert serious(checked) == []


def test_the_maps_of_a_layer_and_a_saliency_can(checked):
    checked.click_layer("stage1")
    assert serious(checked) == []
    checked.click_pixel(checked.strongest(), 20, 30, (64, 64))
    checked.input.locator('[data-role="field"]').wait_for()
    assert serious(checked) == []


def test_the_other_sides_of_a_layer_can(checked):
    checked.click_layer("stage1")
    for tab in ("Stats", "Code"):
        checked.root.get_by_role("tab", name=tab).click()
        assert serious(checked) == []


def test_the_outline_can_and_is_walked_with_the_keys(checked):
    checked.root.get_by_role("button", name="outline").click()
    outline = checked.root.get_by_role("tree", name="layers in order of execution")
    row = outline.locator("[data-row='stage2']")
    row.wait_for()
    assert serious(checked) == []
    outline.locator("[tabindex='0']").focus()
    press = checked.page.keyboard.press
    for key in ("End", "ArrowUp", "ArrowUp", "ArrowUp"):
        press(key)
    assert row.evaluate("row => row === document.activeElement")
    press("ArrowRight")
    outline.locator("[data-row='stage2.1']").wait_for()
    press("ArrowDown")
    press("Enter")
    checked.wait_maps("stage2.0")
    assert outline.locator("[aria-selected='true']").get_attribute("data-row") == "stage2.0"
    press("ArrowLeft")
    assert row.evaluate("row => row === document.activeElement")
    press("ArrowLeft")
    outline.locator("[data-row='stage2.1']").wait_for(state="detached")
    press("Escape")
    outline.wait_for(state="detached")


def test_an_open_group_the_search_and_the_help_can(checked):
    checked.open_group("stage2")
    assert serious(checked) == []
    checked.page.keyboard.press("/")
    checked.page.keyboard.type("conv")
    assert serious(checked) == []
    checked.page.keyboard.press("Escape")
    checked.page.keyboard.press("?")
    assert serious(checked) == []


def test_in_the_dark_it_can_as_well(checked):
    checked.page.evaluate("jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    try:
        checked.page.locator('[data-jp-theme-light="false"]').first.wait_for(state="attached")
        checked.click_layer("stage1")
        assert serious(checked) == []
    finally:
        checked.page.evaluate(
            "jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})"
        )
