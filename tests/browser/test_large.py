"""Networks of thousands of operations, and a page whose policy forbids workers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.browser.explorer_page import SHAPES, ExplorerPage
from tests.browser.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

    from tests.browser.lab import LabServer

EXPLORE = """
    import torch
    import nnviz_widget as nnviz
    from tests.benchmarks.generated import Deep, Flat, Tangle, Wide
    w = nnviz.explore({model}.eval(), torch.ones(1, 8))
    w
"""


@pytest.mark.parametrize("model", ["Deep(6, 6, 8)", "Flat(3000)", "Tangle(400)", "Wide(40, 12)"])
def test_a_large_network_opens_with_at_most_sixty_cards(lab, model):
    notebook = lab.open([EXPLORE.format(model=model)])
    notebook.run()
    page = ExplorerPage(notebook)
    page.wait("ready")
    page.nodes.first.wait_for()
    cards = page.root.locator('.nn-node:not([data-open="true"])')
    assert 2 <= cards.count() <= 60
    assert notebook.python("len(w.graph['nodes'])") > 60


def test_what_is_searched_in_a_large_network_is_found_and_opened(lab):
    notebook = lab.open([EXPLORE.format(model="Deep(6, 6, 8)")])
    notebook.run()
    page = ExplorerPage(notebook)
    page.wait("ready")
    page.nodes.first.wait_for()
    page.root.locator(".nn-stage").focus()
    page.root.locator('.nn-node[tabindex="0"]').focus()
    page.page.keyboard.press("/")
    field = page.root.locator("input:focus")
    field.fill("towers.4.stages.3.blocks.6.down")
    field.press("Enter")
    page.node("towers.4.stages.3.blocks.6.down").wait_for()
    assert page.root.locator('.nn-node:not([data-open="true"])').count() <= 200


def test_the_button_of_a_group_opens_it_and_leaves_the_focus_on_its_card(lab):
    notebook = lab.open([EXPLORE.format(model="Flat(3000)")])
    notebook.run()
    page = ExplorerPage(notebook)
    page.wait("ready")
    closed = page.root.locator('.nn-node[data-open="false"]').first
    item = closed.get_attribute("data-item")
    card = page.root.locator(f'.nn-node[data-item="{item}"]')
    for opened in ("true", "false"):
        card.locator('[data-act="toggle"]').click()
        page.root.locator(f'.nn-node[data-item="{item}"][data-open="{opened}"]').wait_for()
        assert card.evaluate("card => card === document.activeElement")


FORBID = """
    window.violations = [];
    document.addEventListener('securitypolicyviolation', event => violations.push(event.violatedDirective));
    const policy = document.createElement('meta');
    policy.httpEquiv = 'Content-Security-Policy';
    policy.content = "worker-src 'none'";
    document.head.append(policy);
"""


@pytest.fixture
def strict_lab(lab_server: LabServer, chromium: Browser) -> Iterator[Lab]:
    """A page of its own, as its policy can not be taken back."""
    lab = Lab(lab_server, chromium)
    lab.page.evaluate(f"() => {{{FORBID}}}")
    yield lab
    lab.close()


def test_the_page_works_where_workers_are_forbidden(strict_lab):
    page = strict_lab.page
    page.evaluate("() => void new Worker(URL.createObjectURL(new Blob(['0'])))")
    page.wait_for_function("violations.includes('worker-src')")
    page.evaluate("violations.length = 0")

    notebook = strict_lab.open([SHAPES])
    notebook.run()
    explorer = ExplorerPage(notebook)
    explorer.wait("ready")
    explorer.open_group("stage2")
    explorer.open_group("stage2.0")
    explorer.click_layer("stage2.0.conv1")
    explorer.root.locator("canvas[data-drawn]").first.wait_for()
    assert page.evaluate("violations") == []
    assert strict_lab.page_errors == []
    notebook.close()


DRAG = """
    async stage => {
        const {left, top, width, height} = stage.getBoundingClientRect();
        const say = (type, at) => (type === 'mousedown' ? stage : window).dispatchEvent(new MouseEvent(type, {
            bubbles: true, cancelable: true, view: window, button: 0,
            clientX: left + width / 2 + at, clientY: top + height / 2 + at,
        }));
        const frame = () => new Promise(resolve => requestAnimationFrame(resolve));
        say('mousedown', 0);
        for (let at = 1; at <= 20; at++) { say('mousemove', at); await frame(); }
        say('mouseup', 20);
    }
"""


def test_while_it_is_dragged_chromium_moves_the_drawing_and_does_not_layer_it_anew(lab):
    notebook = lab.open([EXPLORE.format(model="Wide(8, 26)")])
    notebook.run()
    page = ExplorerPage(notebook)
    page.wait("ready")
    page.nodes.first.wait_for()
    stage = page.root.locator(".nn-stage")
    page.root.get_by_label("open one level more", exact=True).click()
    page.root.locator(".nn-minimap-frame").wait_for()  # its frame moves with the drawing
    # The control: the same drag without the animation that tells Chromium what will move.
    page.page.evaluate(
        "() => { window.animate = Element.prototype.animate; delete Element.prototype.animate; }"
    )
    assert layered(page, stage) >= 15
    page.page.evaluate("() => void (Element.prototype.animate = window.animate)")
    assert layered(page, stage) <= 5


def layered(page, stage):
    """Return how often Chromium put the page into layers during a drag of 20 frames."""
    page.root.locator('.nn-world:not([style*="will-change"])').wait_for(state="attached")  # at rest
    browser = page.page.context.browser
    browser.start_tracing(page=page.page, categories=["blink", "cc"])
    stage.evaluate(DRAG)
    events = json.loads(browser.stop_tracing())["traceEvents"]
    return sum(event["name"] == "PaintArtifactCompositor::Update" for event in events)
