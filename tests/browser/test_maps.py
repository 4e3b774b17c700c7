"""Feature maps: a click on a layer, what the tiles say, and what changes without the kernel."""

from __future__ import annotations

import pytest

from tests.browser.explorer_page import number


def test_a_click_on_a_layer_brings_all_its_maps(explorer):
    explorer.click_layer("stem")
    assert explorer.tiles.count() == 16
    explorer.notebook.eventually("w.selection['layer']", "stem")
    assert explorer.notebook.python("list(w.feature_maps.shape)") == [16, 64, 64]


def test_maps_stand_in_order_of_strength_or_of_index(explorer):
    explorer.click_layer("stage1")
    strengths = explorer.notebook.python("w.trace.activation('stage1')[0].abs().mean((1, 2)).tolist()")
    shown = explorer.tiles.evaluate_all("tiles => tiles.map(t => Number(t.dataset.channel))")
    assert shown == sorted(range(16), key=lambda c: -strengths[c])
    explorer.maps.locator('[data-control="order"]').select_option("index")
    explorer.wait_maps("stage1")
    shown = explorer.tiles.evaluate_all("tiles => tiles.map(t => Number(t.dataset.channel))")
    assert shown == list(range(16))


def test_hovering_a_pixel_reads_its_exact_value(explorer):
    explorer.click_layer("stage2")
    channel = explorer.strongest()
    tile = explorer.tile(channel)
    for y, x in ((3, 17), (20, 9)):
        tile.hover(position=explorer.place(tile, y, x, (32, 32)))
        explorer.root.locator('[data-role="hover"]', has_text=f"({y}, {x})").wait_for()
        exact = explorer.notebook.python(f"float(w.trace.activation('stage2')[0, {channel}, {y}, {x}])")
        assert explorer.hover_value() == pytest.approx(exact, abs=6e-5, rel=1e-3)


@pytest.mark.parametrize(
    ("control", "choice"),
    [("colour map", "magma"), ("sign", "signed"), ("range", "layer"), ("order", "index")],
)
def test_colours_range_and_order_change_without_asking_the_kernel(explorer, lab, control, choice):
    explorer.click_layer("stem")
    explorer.page.wait_for_timeout(300)  # what the click itself asked for
    before = picture(explorer)
    lab.traffic.clear()
    explorer.maps.locator(f'[data-control="{control}"]').select_option(choice)
    explorer.wait_maps("stem")
    assert picture(explorer) != before
    assert lab.traffic.requests() == []


def test_the_statistics_of_a_layer_are_those_of_its_activation(explorer):
    explorer.click_layer("stage2")
    explorer.root.get_by_role("tab", name="Stats").click()
    stats = explorer.root.locator('[data-panel="stats"][data-layer="stage2"][data-state="ready"]')
    stats.wait_for()
    mean, zeros, numel = explorer.notebook.python(
        "[float(a.mean()), float((a == 0).float().mean()), a.numel()]",
        setup="a = w.trace.activation('stage2')[0]",
    )
    shown = dict(
        zip(stats.locator("dt").all_inner_texts(), stats.locator("dd").all_inner_texts(), strict=True)
    )
    assert number(shown["mean"]) == pytest.approx(mean, abs=1e-3)
    assert number(shown["zeros"]) == pytest.approx(100 * zeros, abs=0.51)
    assert stats.locator("svg rect").count() > 10
    assert numel == 32 * 32 * 32


def test_a_linear_layer_is_drawn_as_numbers(explorer):
    explorer.click_layer("head")
    logits = explorer.notebook.python("w.trace.output[0].tolist()")
    rows = explorer.tiles
    assert rows.count() == 10
    best = max(range(10), key=logits.__getitem__)
    assert number(explorer.tile(best).inner_text().splitlines()[-1]) == pytest.approx(logits[best], abs=1e-3)


def test_a_token_sequence_is_drawn(lab):
    notebook = lab.open(
        [
            """
            import tests.torchvision_stub, torch, torchvision
            import nnviz_widget as nnviz
            torch.manual_seed(0)
            model = torchvision.models.VisionTransformer(
                image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64)
            w = nnviz.explore(model, torch.randn(1, 3, 32, 32), layer="encoder.layers.encoder_layer_0")
            w
            """
        ]
    )
    notebook.run()
    notebook.page.locator('.nnviz[data-state="ready"]').wait_for()
    layer = "encoder.layers.encoder_layer_0"
    notebook.explorer.locator(f'[data-panel="maps"][data-layer="{layer}"][data-painted="true"]').wait_for()
    assert notebook.explorer.locator('[data-panel="maps"] canvas').count() >= 1


def test_nan_and_infinite_values_are_said_and_the_rest_is_drawn(lab):
    notebook = lab.open(
        [
            """
            import torch, nnviz_widget as nnviz

            class Broken(torch.nn.Module):
                def __init__(self):
                    super().__init__()
                    self.conv = torch.nn.Conv2d(1, 3, 3, padding=1)

                def forward(self, x):
                    y = self.conv(x)
                    y[:, 1, 2, 2] = float("nan")
                    y[:, 1, 3, 3] = float("inf")
                    return y * 1

            w = nnviz.explore(Broken(), torch.randn(1, 1, 8, 8), layer="output")
            w
            """
        ]
    )
    notebook.run()
    notebook.page.locator('.nnviz[data-state="ready"]').wait_for()
    maps = notebook.explorer.locator('[data-panel="maps"][data-painted="true"]')
    maps.wait_for()
    bad = maps.locator('[data-channel="1"]')
    assert "2 values NaN or infinite" in (bad.get_attribute("aria-label") or "")


def picture(explorer) -> str:
    """The pixels of the sheet and of the big map, and the order of the tiles, as one string."""
    return str(
        explorer.maps.evaluate(
            """panel => [...panel.querySelectorAll('canvas')].map(c => c.toDataURL()).join() +
                [...panel.querySelectorAll('[data-channel]')].map(t => t.dataset.channel).join()"""
        )
    )
