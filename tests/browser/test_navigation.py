"""Ways through the network and its samples: groups, keys, search, thumbnails, Esc."""

from __future__ import annotations

import pytest


def test_a_double_click_opens_a_group_in_place_and_another_way_closes_it(explorer):
    assert explorer.node("stage3.0").count() == 0
    before = explorer.node("stage3").bounding_box()
    explorer.toggle("stage3")
    explorer.node("stage3.0").wait_for()
    explorer.node("stage3.1").wait_for()
    assert explorer.node("head").count() == 1, "the rest of the network stays"
    after = explorer.node("stage3").bounding_box()
    assert abs(after["y"] - before["y"]) < 30, "what was clicked stays where it is"
    explorer.toggle("stage3")
    explorer.node("stage3.0").wait_for(state="detached")


def test_a_residual_block_opens_down_to_its_layers_and_its_addition(explorer):
    explorer.toggle("stage2")
    explorer.open_group("stage2")
    explorer.open_group("stage2.0")
    for part in ("conv1", "norm1", "relu1", "conv2", "norm2", "shortcut", "relu2"):
        explorer.node(f"stage2.0.{part}").wait_for(state="attached")
    explorer.node("stage2.0/add").wait_for(state="attached")
    explorer.node("stage2.0.conv1").click()
    explorer.wait_maps("stage2.0.conv1")


def test_the_keyboard_walks_opens_selects_and_goes_back(explorer):
    explorer.node("stem").focus()
    explorer.page.keyboard.press("ArrowDown")
    assert focused(explorer) == "stage1"
    explorer.page.keyboard.press("ArrowUp")
    assert focused(explorer) == "stem"
    explorer.page.keyboard.press("Space")
    explorer.wait_maps("stem")
    explorer.page.keyboard.press("Enter")
    explorer.node("stem.conv").wait_for()
    explorer.page.keyboard.press("Backspace")
    explorer.node("stem.conv").wait_for(state="detached")


def test_esc_gives_up_one_thing_at_a_time(explorer):
    explorer.click_layer("stage2")
    channel = explorer.strongest()
    explorer.click_pixel(channel, 3, 3, (32, 32))
    notebook = explorer.notebook
    notebook.eventually("w.selection['pixel']", [3, 3])
    explorer.node("stage2").focus()
    explorer.page.keyboard.press("Escape")
    notebook.eventually("[w.selection['pixel'], w.selection['channel']]", [None, channel])
    explorer.page.keyboard.press("Escape")
    notebook.eventually("[w.selection['channel'], w.selection['layer']]", [None, "stage2"])
    explorer.page.keyboard.press("Escape")
    notebook.eventually("w.selection['layer']", None)


def test_keys_do_not_reach_the_notebook_while_the_explorer_has_the_focus(explorer):
    cells = explorer.notebook.root.locator(".jp-Cell").count()
    explorer.node("stem").focus()
    for key in ("a", "b", "x", "d", "d"):
        explorer.page.keyboard.press(key)
    assert explorer.notebook.root.locator(".jp-Cell").count() == cells


def test_search_finds_a_layer_that_is_hidden_in_closed_groups(explorer):
    explorer.node("stem").focus()
    explorer.page.keyboard.press("/")
    explorer.page.keyboard.type("stage3.1.conv2")
    explorer.page.keyboard.press("Enter")
    explorer.wait_maps("stage3.1.conv2")
    explorer.node("stage3.1.conv2").wait_for()
    explorer.notebook.eventually("w.selection['layer']", "stage3.1.conv2")


@pytest.mark.parametrize("sample", [3, 7])
def test_a_thumbnail_switches_to_its_sample_and_keeps_the_layer(explorer, sample):
    explorer.click_layer("stage2")
    explorer.input.locator(f'button[data-sample="{sample}"]').click()
    explorer.root.locator(f'[data-panel="input"][data-sample="{sample}"]').wait_for()
    explorer.wait_maps("stage2")
    notebook = explorer.notebook
    best = notebook.python(f"int(demo.model(demo.inputs[{sample}:{sample} + 1]).argmax())")
    explorer.root.locator(f'.nn-class:first-child[data-class="{best}"]').wait_for()
    notebook.eventually("w.selection['sample']", sample)
    assert (
        notebook.python(
            f"float(abs(w.feature_maps - hooked(demo.model, demo.inputs[{sample}:{sample} + 1])).max())",
            setup="""
        def hooked(model, x):
            kept = []
            handle = model.stage2.register_forward_hook(lambda module, inputs, output: kept.append(output))
            model(x)
            handle.remove()
            return kept[0][0].detach().numpy()
        """,
        )
        == 0
    )


def focused(explorer) -> str | None:
    return explorer.page.evaluate("document.activeElement?.dataset.node ?? null")


def test_a_drag_moves_the_drawing_and_the_wheel_enlarges_it_about_the_pointer(explorer):
    stage = explorer.root.locator(".nn-stage").bounding_box()
    corner = (stage["x"] + 12, stage["y"] + stage["height"] * 0.6)
    first = explorer.node("stem").bounding_box()
    explorer.page.mouse.move(*corner)
    explorer.page.mouse.down()
    explorer.page.mouse.move(corner[0] + 30, corner[1] - 20, steps=4)
    explorer.page.mouse.up()
    moved = explorer.node("stem").bounding_box()
    assert (moved["x"] - first["x"], moved["y"] - first["y"]) == pytest.approx((30, -20), abs=1)

    explorer.page.mouse.move(*corner)
    explorer.page.mouse.wheel(0, -120)
    explorer.page.wait_for_function(
        "([node, width]) => node.getBoundingClientRect().width > 1.05 * width",
        arg=[explorer.node("stem").element_handle(), moved["width"]],
    )
    grown = explorer.node("stem").bounding_box()
    scale = grown["width"] / moved["width"]
    assert grown["x"] - corner[0] == pytest.approx(scale * (moved["x"] - corner[0]), abs=2)
    assert grown["y"] - corner[1] == pytest.approx(scale * (moved["y"] - corner[1]), abs=2)
