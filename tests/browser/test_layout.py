"""Widths and themes: nothing is cut off, everything can be read."""

from __future__ import annotations

import pytest

from tests.browser.conftest import SCREENSHOTS

CUT_OFF = """root => {
    // Every control and every text that is drawn has to lie inside the widget, whole, unless it can be
    // scrolled to, or is shortened with an ellipsis; the graph pans and zooms.
    const outside = [];
    const frame = root.getBoundingClientRect();
    const skip = '.nn-graph, .nn-sr, script, style, option';
    for (const element of root.querySelectorAll('*')) {
        if (element.closest(skip)) continue;
        const text = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
        if (!text && !element.matches('button, input, select, canvas')) continue;
        const box = element.getBoundingClientRect();
        if (box.width === 0 || box.height === 0) continue;
        let scrolls = false, ellipsis = false;
        for (let e = element; e !== root; e = e.parentElement) {
            const style = getComputedStyle(e);
            scrolls ||= /auto|scroll/.test(style.overflowX + style.overflowY);
            ellipsis ||= style.textOverflow === 'ellipsis';
        }
        const name = `${element.tagName}.${element.className?.baseVal ?? element.className} ` +
            `"${element.textContent.slice(0, 40)}"`;
        const [l, r] = [box.left - frame.left, box.right - frame.right];
        const [t, b] = [box.top - frame.top, box.bottom - frame.bottom];
        if (!scrolls && (l < -1 || r > 1 || t < -1 || b > 1))
            outside.push(`${name} outside by ${[l, r, t, b]}`);
        if (text && !scrolls && !ellipsis && element.scrollWidth > element.clientWidth + 1
            && getComputedStyle(element).display !== 'inline' && element.clientWidth > 0)
            outside.push(`${name} cut: ${element.scrollWidth} in ${element.clientWidth}`);
    }
    if (root.scrollWidth > root.clientWidth) outside.push(`the widget itself: ${root.scrollWidth}`);
    return outside;
}"""

CONTRAST = """root => {
    // WCAG contrast of every text against what is really behind it.
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const rgba = colour => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = (front, back) => [...[0, 1, 2].map(i => front[i] * front[3] + back[i] * (1 - front[3])), 1];
    const behind = e => {
        if (!e) return [255, 255, 255, 1];
        const own = rgba(getComputedStyle(e).backgroundColor);
        return own[3] >= 0.99 ? own : over(own, behind(e.parentElement));
    };
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const poor = [];
    for (const e of root.querySelectorAll('*')) {
        if (e.closest('svg, .nn-sr, .nn-tile, canvas')) continue;
        if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
        if (e.getBoundingClientRect().width === 0) continue;
        const back = behind(e);
        const front = over(rgba(getComputedStyle(e).color), back);
        const [a, b] = [light(front), light(back)];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4) poor.push(`${e.className} "${e.textContent.slice(0, 30)}" ${ratio.toFixed(2)}`);
    }
    return {poor, back: light(behind(root))};
}"""


def fit(explorer, width: int) -> None:
    """Give the page the width at which the widget itself is `width` pixels wide."""
    page = explorer.page
    now = explorer.root.bounding_box()["width"]
    page.set_viewport_size({"width": round(page.viewport_size["width"] + width - now), "height": 900})
    page.wait_for_function(
        "([root, width]) => Math.abs(root.getBoundingClientRect().width - width) < 2",
        arg=[explorer.root.element_handle(), width],
    )


@pytest.mark.parametrize("width", [700, 1000, 1600])
def test_nothing_is_cut_off(explorer, width):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    fit(explorer, width)
    explorer.page.wait_for_function(
        """root => {
            // The drawing follows the pane when it has come to rest: every card in sight, none half outside.
            const pane = root.querySelector('.nn-graph').getBoundingClientRect();
            return [...root.querySelectorAll('[data-node]')].every(node => {
                const {left, right} = node.getBoundingClientRect();
                return left >= pane.left && right <= pane.right;
            });
        }""",
        arg=explorer.root.element_handle(),
    )
    assert explorer.root.evaluate(CUT_OFF) == []
    explorer.root.screenshot(path=SCREENSHOTS / f"width-{width}-overview.png")
    explorer.notebook.python("w.select('stage2', channel=3, pixel=(12, 20))")
    explorer.wait_maps("stage2")
    explorer.wait_saliency((3, 12, 20))
    explorer.root.screenshot(path=SCREENSHOTS / f"width-{width}-layer.png")
    assert explorer.root.evaluate(CUT_OFF) == []


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_all_text_can_be_read_in_both_themes(explorer, theme):
    explorer.page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    try:
        explorer.page.wait_for_function(
            "light => document.body.dataset.jpThemeLight === light", arg=str("Light" in theme).lower()
        )
        explorer.notebook.python("w.select('stage2', channel=3, pixel=(12, 20))")
        explorer.wait_maps("stage2")
        explorer.wait_saliency((3, 12, 20))
        found = explorer.root.evaluate(CONTRAST)
        explorer.root.screenshot(path=SCREENSHOTS / f"{theme.split()[-1].lower()}.png")
        assert found["poor"] == []
        assert (found["back"] > 0.5) == ("Light" in theme)
    finally:
        explorer.page.evaluate(
            "jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})"
        )
