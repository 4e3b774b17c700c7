"""The drawing as a file: whole XML, text as text, the colours of now, pictures inside."""

from __future__ import annotations

import re
import struct
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from tests.browser.lab import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

    from tests.browser.explorer_page import ExplorerPage

SVG = "{http://www.w3.org/2000/svg}"
SCREENSHOTS = REPOSITORY / ".cache" / "screenshots"

NAMED = """
    import torch
    from torch import nn
    import nnviz_widget as nnviz
    Strange = type("<script>alert(1)</script>&\\x02", (nn.Sequential,), {})
    model = Strange()
    model.add_module("a & <b>", nn.Conv2d(3, 4, 3))
    model.add_module("a_name_that_is_much_longer_than_any_card_could_ever_be_wide", nn.Conv2d(4, 4, 3))
    w = nnviz.explore(model.eval(), torch.randn(2, 3, 16, 16))
    w
"""


def saved(explorer: ExplorerPage, choice: str) -> Path:
    """Choose an entry of the menu and return the file that came."""
    explorer.root.get_by_role("button", name="save the drawing").click()
    with explorer.page.expect_download() as started:
        explorer.root.locator(f'[data-export="{choice}"]').click()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{choice}-{started.value.suggested_filename}"
    started.value.save_as(path)
    return path


def words(svg: ET.Element) -> list[str]:
    return [text.text or "" for text in svg.iter(f"{SVG}text")]


def box(svg: ET.Element) -> list[float]:
    return [float(part) for part in svg.attrib["viewBox"].split()]


def rendered(chromium: Browser, path: Path) -> tuple[dict[str, float], list[str]]:
    """Open a file on its own, offline: what is drawn of it, and what the browser complained of."""
    context = chromium.new_context(offline=True)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.goto(path.as_uri())
    page.screenshot(path=path.with_suffix(".rendered.png"))
    found = page.evaluate(
        """() => {
            const all = [...document.querySelectorAll('text')].map(text => text.getBBox());
            const {x, y, width, height} = document.documentElement.viewBox.baseVal;
            return {
                texts: all.length,
                outside: all.filter(box => box.x < x || box.y < y || box.x + box.width > x + width
                    || box.y + box.height > y + height).length,
                images: [...document.querySelectorAll('image')].filter(i => i.getBBox().width > 0).length,
            };
        }"""
    )
    context.close()
    return found, complaints


def size_of(png: Path) -> tuple[int, int]:
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def wait_strips(explorer: ExplorerPage) -> int:
    explorer.root.locator("canvas.nn-strip[data-drawn]").first.wait_for()
    return int(explorer.root.locator("canvas.nn-strip[data-drawn]").count())


def test_the_whole_drawing_is_an_svg_of_its_own(explorer, chromium):
    explorer.open_group("stage2")
    strips = wait_strips(explorer)
    path = saved(explorer, "svg-whole")
    assert path.name == "svg-whole-ShapesNet.svg"
    source = path.read_text(encoding="utf-8")
    svg = ET.fromstring(source)
    assert svg.tag == f"{SVG}svg"
    # Nothing outside of the file is needed, and no style sheet inside of it.
    assert re.findall(r'href="(?!data:image/png)', source) == []
    assert not re.search(r"var\(|color-mix|color\(|calc\(|foreignObject|<style|class=", source)
    drawn = explorer.root.locator("[data-node]").evaluate_all("all => all.map(one => one.dataset.node)")
    assert {node.get("data-node") for node in svg.iter(f"{SVG}g")} >= set(drawn)
    names = explorer.root.locator(".nn-node .nn-name").evaluate_all(
        "all => all.filter(one => one.scrollWidth <= one.clientWidth).map(one => one.textContent)"
    )
    assert set(names) <= set(words(svg))
    assert len(list(svg.iter(f"{SVG}image"))) >= strips
    edges = explorer.root.locator(".nn-lines .nn-wire").evaluate_all(
        "all => all.map(e => e.getAttribute('d'))"
    )
    assert {path.get("d") for path in svg.iter(f"{SVG}path")} >= set(edges)
    found, complaints = rendered(chromium, path)
    assert complaints == []
    assert found == {"texts": len(words(svg)), "outside": 0, "images": found["images"]}
    assert found["images"] >= strips


def test_places_and_colours_are_those_of_the_page(explorer):
    wait_strips(explorer)
    svg = ET.fromstring(saved(explorer, "svg-whole").read_text(encoding="utf-8"))
    page = explorer.node("stage1").evaluate(
        """node => {
            const world = node.closest('.nn-world');
            const k = new DOMMatrix(getComputedStyle(world).transform).a;
            const [box, zero] = [node.getBoundingClientRect(), world.getBoundingClientRect()];
            return {x: (box.left - zero.left) / k, y: (box.top - zero.top) / k,
                    accent: getComputedStyle(node).borderLeftColor};
        }"""
    )
    group = svg.find(f".//{SVG}g[@data-node='stage1']")
    assert group is not None
    card = group.findall(f"{SVG}rect")[-1]
    assert float(card.attrib["x"]) == pytest.approx(page["x"] + 0.5, abs=0.6)
    assert float(card.attrib["y"]) == pytest.approx(page["y"] + 0.5, abs=0.6)
    stripe = group.find(f"{SVG}path")
    assert stripe is not None
    red, green, blue = (int(part) for part in re.findall(r"\d+", page["accent"])[:3])
    assert stripe.attrib["fill"] == f"#{red:02x}{green:02x}{blue:02x}"


def test_what_is_selected_leaves_no_trace(explorer):
    wait_strips(explorer)
    before = saved(explorer, "svg-whole").read_text(encoding="utf-8")
    explorer.click_layer("stage1")
    after = saved(explorer, "svg-whole").read_text(encoding="utf-8")
    number = r"-?\d+\.\d+"  # what the page has laid out may be rounded to one side or the other
    assert re.split(number, after) == re.split(number, before)
    places = [[float(place) for place in re.findall(number, text)] for text in (after, before)]
    assert places[0] == pytest.approx(places[1], abs=0.011)
    assert explorer.node("stage1").get_attribute("data-selected") == "true"


def test_what_is_shown_is_the_pane_as_it_stands(explorer):
    whole = ET.fromstring(saved(explorer, "svg-whole").read_text(encoding="utf-8"))
    for _ in range(8):
        explorer.root.get_by_role("button", name="zoom in (+)").click()
    # It glides there: until a card has left the pane.
    explorer.page.wait_for_function(
        """root => {
            const pane = root.querySelector(".nn-stage").getBoundingClientRect();
            const cards = [...root.querySelectorAll(".nn-node")].map((card) => card.getBoundingClientRect());
            return cards.some((card) => card.bottom < pane.top || card.top > pane.bottom
                || card.right < pane.left || card.left > pane.right);
        }""",
        arg=explorer.root.element_handle(),
    )
    shown = ET.fromstring(saved(explorer, "svg-shown").read_text(encoding="utf-8"))
    stage = explorer.root.locator(".nn-stage").bounding_box()
    assert float(shown.attrib["width"]) == pytest.approx(stage["width"], abs=1)
    assert float(shown.attrib["height"]) == pytest.approx(stage["height"], abs=1)
    assert box(shown)[3] < box(whole)[3]
    assert 0 < len(words(shown)) < len(words(whole))


def test_a_png_has_twice_the_size(explorer):
    wait_strips(explorer)
    svg = ET.fromstring(saved(explorer, "svg-whole").read_text(encoding="utf-8"))
    width, height = size_of(saved(explorer, "png-whole"))
    assert width == pytest.approx(2 * float(svg.attrib["width"]), abs=2)
    assert height == pytest.approx(2 * float(svg.attrib["height"]), abs=2)
    stage = explorer.root.locator(".nn-stage").bounding_box()
    width, height = size_of(saved(explorer, "png-shown"))
    assert (width, height) == (
        pytest.approx(2 * stage["width"], abs=2),
        pytest.approx(2 * stage["height"], abs=2),
    )


def test_python_asks_the_page_and_the_file_is_there_when_the_cell_goes_on(explorer, tmp_path):
    wait_strips(explorer)
    files = {name: str(tmp_path / name) for name in ("whole.svg", "whole.png", "shown.svg")}
    sizes = explorer.notebook.python(
        "[Path(file).stat().st_size if saved.done else 0 for file, saved in zip(files.values(), all_saved)]",
        setup=f"""
            from pathlib import Path
            files = {files!r}
            all_saved = [w.save_drawing(file, whole=name.startswith("whole")) for name, file in files.items()]
        """,
    )
    assert all(size > 1000 for size in sizes)
    assert (tmp_path / "whole.svg").read_bytes() == saved(explorer, "svg-whole").read_bytes()
    assert (tmp_path / "shown.svg").read_bytes() == saved(explorer, "svg-shown").read_bytes()
    assert size_of(tmp_path / "whole.png") == size_of(saved(explorer, "png-whole"))


def test_the_menu_goes_by_keys_and_gives_the_focus_back(explorer):
    button = explorer.root.get_by_role("button", name="save the drawing")
    button.focus()
    explorer.page.keyboard.press("Enter")
    items = explorer.root.get_by_role("menuitem")
    assert items.count() == 4
    explorer.page.keyboard.press("ArrowUp")
    assert items.nth(3).evaluate("item => item.matches(':focus')")
    explorer.page.keyboard.press("ArrowDown")
    assert items.nth(0).evaluate("item => item.matches(':focus')")
    explorer.root.screenshot(path=SCREENSHOTS / "export-menu.png")
    explorer.page.keyboard.press("Escape")
    items.first.wait_for(state="detached")
    assert button.evaluate("button => button.matches(':focus')")


def test_strange_names_stay_text(lab, chromium):
    from tests.browser.explorer_page import ExplorerPage

    notebook = lab.open([NAMED])
    notebook.run()
    page = ExplorerPage(notebook)
    page.wait("ready")
    path = saved(page, "svg-whole")
    svg = ET.fromstring(path.read_text(encoding="utf-8"))
    assert "a & <b>" in words(svg)
    assert any(word.startswith("a_name_that_is") and word.endswith("…") for word in words(svg))
    assert svg.find(f".//{SVG}script") is None
    title = svg.find(f"{SVG}title")
    assert title is not None
    assert (title.text or "").startswith("<script>alert(1)</script>&")
    assert rendered(chromium, path)[1] == []
