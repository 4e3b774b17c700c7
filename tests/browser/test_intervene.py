"""Layers are changed in the drawer: the bars follow, the ranking ablates, another sample is patched in."""

from __future__ import annotations

import pytest

from tests.browser.explorer_page import number
from tests.browser.test_accessibility import AXE, serious

LAYER = "stage3.1.conv2"

REFERENCE = """
import copy
import torch

plain = copy.deepcopy(demo.model)  # a hook on the model itself would be seen by the explorer as well

def changed(layer, change, sample=0):
    '''The plain model's own answer, with a plain hook.'''
    handle = plain.get_submodule(layer).register_forward_hook(lambda m, i, out: change(out.clone()))
    with torch.no_grad():
        probabilities = plain(demo.inputs[sample:sample + 1]).softmax(1)[0]
    handle.remove()
    return [round(100 * float(p), 3) for p in probabilities]

def taken(channel, layer, other):
    value = w._exploration.engine.trace(other).activation(layer)

    def change(out):
        out[:, channel] = value[:, channel]
        return out
    return change

def zero(channel):
    def change(out):
        out[:, channel] = 0
        return out
    return change
"""


@pytest.fixture
def page(explorer):
    explorer.notebook.python(f"w.select('{LAYER}', channel=3)")
    explorer.root.get_by_role("tab", name="Maps").wait_for()
    explorer.root.locator('[role="tab"]').first.focus()
    explorer.page.keyboard.press("a")
    explorer.root.locator('[data-panel="change"]').wait_for()
    return explorer


def add(page, kind):
    page.root.locator(f'.nn-change-kinds [data-kind="{kind}"]').click()
    page.root.locator(f'.nn-shelf li[data-kind="{kind}"]').last.wait_for()
    page.root.locator(".nn-change-bars").wait_for()


def bars(page):
    """Percent by class, as told on the page."""
    # All at once: the rows of the next answer may be fewer.
    rows = page.root.locator(".nn-change-bars").evaluate(
        """list => [...list.querySelectorAll(".nn-change-bar")].map((bar) =>
            [Number(bar.dataset.class), bar.querySelector(".nn-change-value").innerText])"""
    )
    return {index: number(text.replace("%", "").strip("<> ")) for index, text in rows}


def wait_for(page, read, same, expected):
    """Wait until what is read off the page is what is expected."""
    for _ in range(200):
        if same(found := read()):
            return
        page.page.wait_for_timeout(50)
    raise AssertionError((found, expected))


def wait_bars(page, call):
    """Wait until the bars are what a plain hook gives."""
    expected = page.notebook.python(call, setup=REFERENCE)

    def same(found):
        return all(abs(value - expected[index]) < 0.6 for index, value in found.items())

    wait_for(page, lambda: bars(page), same, expected)


def test_the_bars_are_those_of_the_changed_network_and_go_back(page):
    add(page, "ablate")
    wait_bars(page, f"changed('{LAYER}', zero(3))")
    page.root.locator(".nn-shelf li input[type=checkbox]").uncheck()
    wait_bars(page, f"changed('{LAYER}', lambda out: out)")
    page.root.locator(".nn-shelf li input[type=checkbox]").check()
    add(page, "scale")
    page.root.get_by_label("factor").fill("-1")
    wait_bars(page, f"changed('{LAYER}', zero(3))")  # nothing, times minus one
    page.root.get_by_role("button", name="Python").click()
    assert (
        f'engine.intervene("{LAYER}", "ablate", channel=3'
        in page.root.locator(".nn-shelf-python").inner_text()
    )
    page.root.get_by_role("button", name="remove all").click()
    assert page.root.locator(".nn-change-bars").count() == 0
    page.root.get_by_role("button", name="undo").click()
    page.root.locator(".nn-shelf li").nth(1).wait_for()


PICTURES = """
import copy
import torch

plain = copy.deepcopy(demo.model)

def maps_of(layer, change, sample=0):
    '''The mean of each channel of a layer of the plain model, with a plain hook.'''
    kept = []
    module, changing = plain.get_submodule(layer), plain.get_submodule("stage3.1.conv2")
    handles = [changing.register_forward_hook(lambda m, i, out: change(out.clone())),
               module.register_forward_hook(lambda m, i, out: kept.append(out.clone()))]
    with torch.no_grad():
        plain(demo.inputs[sample:sample + 1])
    for handle in handles:
        handle.remove()
    return [float(v) for v in kept[0][0].flatten(1).mean(1)]
"""

THUMBNAIL = """canvas => {
    const {width, height} = canvas;
    return Array.from(canvas.getContext('2d').getImageData(0, 0, width, height).data).join();
}"""


COLOUR = "node => getComputedStyle(node).backgroundColor"


def mean(page):
    """The mean that the statistics tell."""
    row = page.root.locator('[data-panel="stats"][data-state="ready"] .nn-numbers div').first
    return number(row.inner_text())


def wait_mean(page, expected):
    close = pytest.approx(expected, abs=6e-4 * max(1, abs(expected)))
    wait_for(page, lambda: mean(page), lambda found: found == close, expected)


def test_the_whole_page_shows_the_changed_network_and_goes_back(page):
    strip = page.root.locator(f'canvas[data-strip="{LAYER}"][data-drawn]')
    strip.wait_for()
    before = strip.evaluate(THUMBNAIL)
    first = page.root.locator(".nn-class").first.inner_text()
    page.notebook.python(f"w.select('{LAYER}', channel=None)")
    page.root.get_by_text("the whole layer; choose").wait_for()
    add(page, "scale")
    page.root.get_by_label("factor").fill("-1")
    badge = page.root.locator('.nn-stage [data-role="changed"]')
    badge.wait_for()
    assert badge.inner_text().startswith("changed by 1 intervention")
    wait_bars(page, f"changed('{LAYER}', lambda out: -out)")
    changed = page.notebook.python("max(changed('stage3.1.conv2', lambda out: -out))", setup=REFERENCE)
    page.page.wait_for_function(
        "([row, share]) => Math.abs(parseFloat(row.innerText) - share) < 1",
        arg=[page.root.locator(".nn-class .nn-class-value").first.element_handle(), changed],
    )

    page.root.get_by_role("tab", name="Stats").click()
    told = page.notebook.python(f"maps_of('{LAYER}', lambda out: -out)", setup=PICTURES)
    wait_mean(page, sum(told) / len(told))
    hold = page.root.locator(".nn-stats").get_by_role("button", name="original")
    hold.focus()
    page.page.keyboard.down("Space")
    wait_mean(page, -sum(told) / len(told))
    page.page.wait_for_function(
        f"([e, wanted]) => ({THUMBNAIL})(e) === wanted", arg=[strip.element_handle(), before]
    )
    page.page.keyboard.up("Space")
    wait_mean(page, sum(told) / len(told))
    page.page.wait_for_function(
        f"([e, wanted]) => ({THUMBNAIL})(e) !== wanted", arg=[strip.element_handle(), before]
    )

    page.root.get_by_role("tab", name="Maps").click()
    page.root.locator('.nn-maps[data-changed="1"][data-painted="true"]').wait_for()
    page.root.locator(".nn-thumbs [data-sample]").nth(2).click()  # it stays changed for another input
    page.notebook.eventually("w.run['sample']", 2)
    page.root.get_by_role("tab", name="Stats").click()
    told = page.notebook.python(f"maps_of('{LAYER}', lambda out: -out, 2)", setup=PICTURES)
    wait_mean(page, sum(told) / len(told))
    page.root.locator(".nn-thumbs [data-sample]").nth(0).click()

    badge.locator(".nn-changed-words").click()
    page.root.locator(".nn-shelf li input[type=checkbox]").uncheck()
    badge.wait_for(state="detached")
    page.page.wait_for_function(
        f"([e, wanted]) => ({THUMBNAIL})(e) === wanted", arg=[strip.element_handle(), before]
    )
    page.page.wait_for_function(
        "([row, text]) => row.innerText === text",
        arg=[page.root.locator(".nn-class").first.element_handle(), first],
    )
    page.root.locator(".nn-shelf li input[type=checkbox]").check()
    badge.wait_for()
    page.root.get_by_role("button", name="undo").click()
    badge.wait_for(state="detached")
    page.root.get_by_role("tab", name="Maps").click()
    page.root.locator('.nn-maps[data-painted="true"]:not([data-changed])').wait_for()


ANSWERS = """
import copy
import torch

plain = copy.deepcopy(demo.model)

def turned(module, inputs, out):
    out = -out
    out[:, 3] = 0
    return out

def gradient(changed, place):
    '''Of the best class, summed over colours, with a plain hook or without one.'''
    handle = plain.get_submodule("stage3.1.conv2").register_forward_hook(turned) if changed else None
    x = demo.inputs[:1].clone().requires_grad_()
    scores = plain(x)[0]
    (found,) = torch.autograd.grad(scores.max(), x)
    if handle:
        handle.remove()
    return float(found[0].sum(0)[place])

def own(unit):
    '''What the layer itself gives.'''
    kept = []
    handle = plain.get_submodule("stage3.1.conv2").register_forward_hook(lambda m, i, out: kept.append(out))
    with torch.no_grad():
        plain(demo.inputs[:1])
    handle.remove()
    return float(kept[0][(0, *unit)])
"""


def wait_number(page, locator, expected, rel=2e-3):
    """Wait until an element tells this number, as its last one."""
    close = pytest.approx(expected, rel=rel, abs=1e-5)

    def words():
        return locator.inner_text().split() if locator.count() else []

    wait_for(page, words, lambda found: bool(found) and number(found[-1]) == close, expected)


def test_numbers_colours_and_attributions_follow_the_changed_network_and_go_back(page):
    page.notebook.python(f"w.select('{LAYER}', channel=None)")
    page.root.get_by_text("the whole layer; choose").wait_for()
    add(page, "scale")
    page.root.get_by_label("factor").fill("-1")
    page.notebook.python(f"w.select('{LAYER}', channel=3, pixel=None)")
    page.root.locator(".nn-change-what").get_by_text("channel 3").wait_for()
    add(page, "ablate")
    page.notebook.python(f"w.select('{LAYER}', channel=3, pixel=(5, 6))")
    page.root.get_by_role("tab", name="Math").click()
    told = page.root.locator('[data-panel="math"][data-unit="3,5,6"] .nn-math-result')
    told.locator('[data-role="set"]').wait_for()
    assert told.locator("strong").inner_text().endswith("= 0")
    own = page.notebook.python("own((3, 5, 6))", setup=ANSWERS)
    said = told.locator('[data-role="set"]').inner_text()
    assert f'engine.intervene("{LAYER}", "scale", factor=-1' in said
    assert f'engine.intervene("{LAYER}", "ablate", channel=3' in said
    assert number(said.split("gave ")[1].split(",")[0]) == pytest.approx(own, rel=1e-3)
    page.root.get_by_label("colour by").select_option("mean")
    card = page.node(LAYER)
    page.root.locator(".nn-key-ramp").wait_for()
    changed = card.evaluate(COLOUR)
    hold = page.root.locator(".nn-math").get_by_role("button", name="original")
    hold.focus()
    page.page.keyboard.down("Space")
    told.locator('[data-role="equal"][data-tone="good"]').wait_for()
    wait_number(page, told.locator("strong"), own)
    page.page.wait_for_function(f"([e, c]) => ({COLOUR})(e) !== c", arg=[card.element_handle(), changed])
    page.page.keyboard.up("Space")
    told.locator('[data-role="set"]').wait_for()
    page.page.wait_for_function(f"([e, c]) => ({COLOUR})(e) === c", arg=[card.element_handle(), changed])
    page.root.get_by_role("tab", name="Weights").click()
    page.root.locator('[data-panel="weights"] [data-role="unmoved"]').wait_for()

    page.notebook.python("w.select(None)")
    page.root.get_by_role("button", name="explain", exact=True).click()
    explained = page.root.locator('[data-panel="explain"]')
    saliency = explained.locator('.nn-explain-card[data-method="saliency"][data-state="ready"]')
    saliency.locator('canvas[data-painted="true"]').wait_for()
    picture = saliency.locator(".nn-explain-picture")
    picture.click(position=page.place(picture, 30, 25, (64, 64)))
    with_it, without = (
        page.notebook.python(f"gradient({on}, (30, 25))", setup=ANSWERS) for on in (True, False)
    )
    assert with_it != pytest.approx(without, rel=1e-2)
    value = saliency.locator('[data-role="value"] b')
    wait_number(page, value, with_it)
    call = saliency.locator(".nn-explain-call").get_attribute("title")
    assert f'with engine.intervene("{LAYER}", "scale", factor=-1' in call
    hold = explained.get_by_role("button", name="original")
    hold.focus()
    page.page.keyboard.down("Space")
    wait_number(page, value, without)
    page.page.keyboard.up("Space")
    wait_number(page, value, with_it)


def test_the_ranking_ablates_what_is_clicked(page):
    page.root.locator('[data-role="knock"]').click()
    page.root.locator('.nn-knock[data-done="true"][data-running="false"]').wait_for()
    best = page.root.locator("[data-knock]").first
    channel = int(best.get_attribute("data-knock"))
    assert channel == page.notebook.python(
        f"w._exploration.engine.knock_outs(demo.inputs[:1], '{LAYER}').ranking[0]"
    )
    best.click()
    wait_bars(page, f"changed('{LAYER}', zero({channel}))")
    page.notebook.eventually("w.selection['channel']", channel)
    assert best.get_attribute("aria-pressed") == "true"
    best.click()
    page.root.locator(".nn-shelf li").wait_for(state="detached")


def test_another_sample_is_patched_in_layer_by_layer(page):
    page.root.locator('.nn-samples [data-sample="3"]').click()
    page.root.locator('.nn-patch[data-done="true"][data-running="false"]').wait_for()
    layers = [one.get_attribute("data-patched") for one in page.root.locator("[data-patched]").all()]
    expected = "w._exploration.engine.patch_effects(demo.inputs[3:4], demo.inputs[:1], each='position')"
    assert layers == page.notebook.python(f"{expected}.layers")
    told = float(page.root.locator(f'[data-patched="{layers[-1]}"]').get_attribute("data-best"))
    exact = page.notebook.python(f"float({expected}.effects['{layers[-1]}'].max())")
    assert told == pytest.approx(exact, abs=1e-3)
    page.root.locator(".nn-change-kinds [data-kind=patch]").click()
    wait_bars(page, f"changed('{LAYER}', taken(3, '{LAYER}', demo.inputs[3:4]))")


def test_nothing_serious_stands_in_the_way_of_anybody(page):
    add(page, "clamp")
    page.page.evaluate(AXE.read_text())
    assert serious(page) == []
