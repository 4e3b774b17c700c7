"""A network that decides on the data: the other sample's path on the page, and the way back."""

from __future__ import annotations

import pytest

from tests.browser.explorer_page import ExplorerPage
from tests.browser.test_accessibility import AXE, serious

FORKED = """
    import torch
    from torch import nn
    import nnviz_widget as nnviz

    class Forked(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
            self.bright = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
            self.dark = nn.Sequential(nn.Conv2d(8, 8, 5, padding=2), nn.ReLU())
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))

        def forward(self, x):
            h = self.stem(x)
            if x.mean() > 0:
                h = self.bright(h)
            else:
                h = self.dark(h) * 0.5
            return self.head(h)

    picture = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    w = nnviz.explore(Forked().eval(), torch.cat([picture, -picture, 0.5 * picture]))
    w
"""
STAYED = ("input", "stem", "stem.0", "stem.1", "/mean", "/gt", "/decision")


@pytest.fixture
def forked(lab):
    notebook = lab.open([FORKED])
    notebook.run()
    page = ExplorerPage(notebook)
    page.wait("ready")
    # The drawing starts with `bright` open, and `stem` next to it.
    page.open_group("bright")
    page.open_group("stem")
    settled(page)
    return page


def settled(explorer):
    """Wait until nothing moves any more."""
    explorer.page.wait_for_function(
        """root => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(
            () => done(root.getAnimations({subtree: true}).every(one => one.playState !== 'running')))))""",
        arg=explorer.root.element_handle(),
    )


def places(explorer, nodes):
    """Where cards are in the explorer, to a tenth of a pixel; the notebook may scroll."""
    settled(explorer)
    at = explorer.root.bounding_box()
    boxes = {node: explorer.node(node).bounding_box() for node in nodes}
    return {node: (round(box["x"] - at["x"], 1), round(box["y"] - at["y"], 1)) for node, box in boxes.items()}


def notice(explorer):
    return explorer.root.locator('[data-panel="path"]')


def show_sample(explorer, sample):
    explorer.root.locator(f'[data-sample="{sample}"]').click()
    explorer.notebook.eventually("w.run['sample']", sample)


def test_a_sample_on_another_path_says_so_marks_it_and_moves_nothing_else(forked):
    assert forked.root.get_by_text("this graph is for this input").count() == 1
    assert notice(forked).count() == 0
    decision = forked.node("/decision")
    assert decision.get_attribute("data-form") == "decision"
    assert "True" in decision.inner_text()
    start = places(forked, STAYED)
    way_out = places(forked, ("bright", "head", "output"))

    show_sample(forked, 1)
    forked.node("dark").wait_for()
    assert forked.node("bright").count() == 0
    words = notice(forked).inner_text()
    assert "Sample 1 took another path at cell:" in words
    assert "if x.mean() > 0 was False" in words
    assert "3 operations new, 3 gone" in words
    assert forked.node("dark").get_attribute("data-new") == "all"
    assert forked.node("/mul").get_attribute("data-new") == "all"
    assert forked.node("head").get_attribute("data-new") is None
    assert "False" in decision.inner_text()
    assert places(forked, STAYED) == start, "what stayed did not move"
    forked.page.evaluate(AXE.read_text())
    assert serious(forked) == []

    show_sample(forked, 0)
    forked.node("bright.0").wait_for()
    words = notice(forked).inner_text()
    assert "Sample 0 took another path" in words
    assert "if x.mean() > 0 was True" in words
    assert forked.node("bright.0").get_attribute("data-new") == "all"
    assert places(forked, STAYED) == start
    assert places(forked, way_out) == way_out, "the way back leads to the same picture"

    show_sample(forked, 2)
    notice(forked).wait_for(state="detached")
    assert forked.root.locator("[data-new]").count() == 0, "the same path again: nothing is new"
    assert places(forked, (*STAYED, *way_out)) == start | way_out


def test_the_notice_leads_to_what_is_new_and_can_be_dismissed(forked):
    forked.click_layer("stem")
    show_sample(forked, 1)
    forked.node("dark").wait_for()
    notice(forked).get_by_role("button", name="Show").click()
    forked.node("dark.0").wait_for()
    assert forked.node("dark.0").get_attribute("data-new") == "all"
    assert forked.notebook.python("w.selection['layer']") == "stem"
    notice(forked).get_by_role("button", name="Dismiss").click()
    notice(forked).wait_for(state="detached")
    assert forked.root.locator("[data-new]").count() == 0


def test_a_selected_layer_that_does_not_run_waits_for_the_way_back(forked):
    forked.click_layer("bright.0")
    show_sample(forked, 1)
    forked.root.get_by_text("bright.0 did not run for this input.").wait_for()
    show_sample(forked, 0)
    forked.wait_maps("bright.0")
    assert forked.node("bright.0").get_attribute("data-selected") == "true"


def test_a_decision_tells_what_it_read_where_a_layer_shows_maps(forked):
    forked.node("/decision").click()
    forked.root.get_by_text("Python read True here: if x.mean() > 0:").wait_for()
    show_sample(forked, 1)
    forked.root.get_by_text("Python read False here: if x.mean() > 0:").wait_for()
    forked.root.get_by_role("tab", name="Code").click()
    assert "if x.mean() > 0:" in forked.root.locator('[data-panel="code"]').inner_text()
