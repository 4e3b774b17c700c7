"""Attributions side by side: they sharpen in place, are read off together, compared, and taken home."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from tests.browser.explorer_page import number
from tests.browser.test_accessibility import AXE, serious


@pytest.fixture
def page(explorer):
    explorer.root.get_by_role("button", name="explain", exact=True).click()
    explorer.root.locator('[data-panel="explain"]').wait_for()
    return explorer


def card(page, method):
    return page.root.locator(f'.nn-explain-card[data-method="{method}"]')


def wait_card(page, method):
    card(page, method).and_(page.root.locator('[data-state="ready"]')).wait_for()
    card(page, method).locator('canvas[data-painted="true"]').wait_for()
    return card(page, method)


def test_methods_stand_side_by_side_on_the_best_class(page):
    for method in ("saliency", "smooth_grad", "integrated_gradients"):
        wait_card(page, method)
    complete = card(page, "integrated_gradients").locator('[data-role="completeness"]')
    assert "complete" in complete.inner_text()
    assert complete.get_attribute("data-tone") == "good"
    assert "error" in card(page, "smooth_grad").inner_text()


def test_one_place_is_read_off_in_every_map_with_its_exact_value(page):
    wait_card(page, "saliency")
    wait_card(page, "integrated_gradients")
    picture = card(page, "saliency").locator(".nn-explain-picture")
    picture.click(position=page.place(picture, 30, 25, (64, 64)))
    for method in ("saliency", "integrated_gradients"):
        told = number(card(page, method).locator('[data-role="value"] b').inner_text())
        exact = page.notebook.python(
            f"""
            next(float(a.values[0].sum(0)[30, 25]) for a in w.attributions.values() if a.method == "{method}")
            """
        )
        assert told == pytest.approx(exact, rel=2e-3, abs=1e-6)
    page.page.keyboard.press("Escape")
    assert card(page, "saliency").locator('[data-role="value"]').count() == 0
    page.page.keyboard.press("Escape")
    page.root.locator('[data-panel="explain"]').wait_for(state="detached")


def test_another_class_and_another_baseline_give_other_maps(page):
    ig = wait_card(page, "integrated_gradients")
    before = pixels(ig)
    page.root.get_by_label("baseline", exact=True).select_option("mean")
    wait_card(page, "integrated_gradients")
    page.notebook.eventually(
        "[a.options['baselines'] for a in w.attributions.values() if 'baselines' in a.options][-1]", "mean"
    )
    assert pixels(wait_card(page, "integrated_gradients")) != before
    page.root.get_by_label("class to explain").select_option(index=1)
    page.notebook.eventually("w.selection['class'] == w.run['predictions']['classes'][1]['index']", True)


def test_signs_and_scales_are_chosen_without_asking_the_kernel(page):
    saliency = wait_card(page, "saliency")
    for method in ("integrated_gradients", "grad_cam", "smooth_grad", "occlusion"):
        wait_card(page, method)
    before = pixels(saliency)
    asked = page.notebook.python("len(w.attributions)")
    page.root.get_by_role("button", name="absolute", exact=True).click()
    assert pixels(saliency) != before
    own = saliency.locator(".nn-explain-facts").first.inner_text()
    page.root.get_by_role("button", name="shared", exact=True).click()
    shared = saliency.locator(".nn-explain-facts").first.inner_text()
    assert number(own.split("±")[1]) <= number(shared.split("±")[1].split()[0])
    assert page.notebook.python("len(w.attributions)") == asked


def test_one_method_on_several_samples_and_classes(page):
    page.root.get_by_role("button", name="samples", exact=True).click()
    page.root.get_by_label("method", exact=True).select_option("saliency")
    page.root.locator(".nn-explain-card").nth(5).and_(page.root.locator('[data-state="ready"]')).wait_for()
    samples = [one.get_attribute("data-sample") for one in page.root.locator(".nn-explain-card").all()]
    assert samples == ["0", "1", "2", "3", "4", "5"]
    page.root.get_by_role("button", name="classes", exact=True).click()
    page.root.locator(".nn-explain-card").nth(5).and_(page.root.locator('[data-state="ready"]')).wait_for()
    titles = [one.inner_text() for one in page.root.locator(".nn-explain-card figcaption strong").all()]
    assert titles == page.notebook.python("[c['name'] for c in w.run['predictions']['classes'][:6]]")


def test_what_is_shown_is_taken_home_with_its_parameters(page, tmp_path):
    for method in ("saliency", "smooth_grad", "integrated_gradients"):
        wait_card(page, method)
    with page.page.expect_download() as waiting:
        page.root.locator('[data-file="npz"]').click()
    waiting.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        first = next(name for name in archive.namelist() if "saliency" in name)
        (tmp_path / "one.npz").write_bytes(archive.read(first))
    with np.load(tmp_path / "one.npz") as arrays:
        assert arrays["values"].shape == (1, 3, 64, 64)
        assert "saliency" in json.loads(str(arrays["parameters"]))["call"]
    with page.page.expect_download() as waiting:
        page.root.locator('[data-file="png"]').click()
    waiting.value.save_as(tmp_path / "all.png")
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_with_two_controls_says_how_far_to_trust_them(page):
    for method in ("smooth_grad", "occlusion", "grad_cam"):
        page.root.locator(f'[data-chosen="{method}"]').click()
    for method in ("saliency", "integrated_gradients"):
        wait_card(page, method)
    page.root.get_by_role("button", name="How far to trust them").click()
    table = page.root.locator('.nn-judge[data-running="false"] table')
    table.wait_for(timeout=90_000)  # hundreds of passes of the network
    controls = [row.get_attribute("data-row") for row in table.locator('tr[data-control="true"]').all()]
    assert controls == ["random", "center"]
    card(page, "saliency").locator('[data-role="sanity"]').wait_for()
    told = [number(cell.inner_text()) for cell in table.locator("tr[data-row] td:nth-of-type(1)").all()]
    exact = page.notebook.python(
        """
        [row["deletion"] for row in w._exploration.engine.evaluate(
            {name: found for name, found in w.attributions.items() if "epoch" in name
             and found.method in ("saliency", "integrated_gradients")}, ["deletion"]).rows]
        """
    )
    assert told == pytest.approx(exact, abs=0.006)
    assert page.root.get_by_role("img", name="curves of deletion").count() == 1


def test_nothing_serious_stands_in_the_way_of_anybody(page):
    wait_card(page, "saliency")
    page.page.evaluate(AXE.read_text())
    assert serious(page) == []


def pixels(one):
    """The overlay's bytes, as one number that is another for another picture."""
    return one.locator('canvas[data-role="attribution"]').evaluate(
        """canvas => {
            const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            let sum = 7;
            for (const byte of data) sum = (sum * 31 + byte) >>> 0;
            return sum;
        }"""
    )
