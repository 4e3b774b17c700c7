"""Take the pictures of the README in a real JupyterLab.

`make screenshots` (`python -m scripts.screenshots`) runs it: `docs/explorer.png` (and the same in the dark
theme) shows the bundled network with a layer and a pixel clicked, as a reader would; `docs/transformer.png`,
`docs/resnet_stage.png` and `docs/unet.png` show graphs, `docs/explain.png` attributions side by side. Name
some of them to take only those.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.explorer_page import SHAPES, ExplorerPage
from tests.browser.lab import REPOSITORY, Lab, LabServer, launch_chromium

DOCS = REPOSITORY / "docs"
WIDTH = 1400
SAMPLE, GROUP, LAYER = 3, "stage1", "stage2"
# The channel that tells the object best from its background, and its strongest unit on the object.
UNIT = f"""
import torch
mask = torch.as_tensor(demo.masks[{SAMPLE}])[None, None].float()
maps = torch.as_tensor(w.feature_maps)
mask = torch.nn.functional.interpolate(mask, maps.shape[-2:], mode="area")[0, 0] > 0.9
contrast = maps[:, mask].mean(1) - maps[:, ~mask].mean(1)
channel = int(contrast.argmax())
place = int((maps[channel] * mask).argmax())
"""

PREPARED = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
import tests.torchvision_stub
import torch
import nnviz_widget as nnviz
torch.manual_seed(0)
demo = nnviz.demo.shapes()
"""


class Graph(NamedTuple):
    """A network to draw: the cell that explores it, what is opened in it, and how high the picture is."""

    cell: str
    opened: tuple[str, ...]
    height: int


GRAPHS = {
    "transformer.png": Graph(
        PREPARED
        + """
from transformers import GPT2Config, GPT2LMHeadModel
model = GPT2LMHeadModel(GPT2Config(vocab_size=1000, n_embd=96, n_head=4)).eval()
w = nnviz.explore(model, torch.randint(0, 1000, (1, 24)))
w
""",
        ("fold:transformer.h.0",),
        940,
    ),
    "resnet_stage.png": Graph(
        PREPARED
        + """
import torchvision
images = torch.nn.functional.interpolate(demo.inputs[:6], size=224, mode="bilinear")
w = nnviz.explore(torchvision.models.resnet50(weights=None), images, denormalize=demo.denormalize)
w
""",
        ("layer2", "layer2.0"),
        1000,
    ),
    "unet.png": Graph(
        PREPARED
        + """
from tests.fixtures.graph.architectures import DeepUNet
images = torch.nn.functional.interpolate(demo.inputs[:6], size=128, mode="bilinear")
w = nnviz.explore(DeepUNet(), images, denormalize=demo.denormalize)
w
""",
        (),
        680,
    ),
}


def main(wanted: list[str]) -> None:
    """Write the pictures of these names, by default all."""
    DOCS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = LabServer(Path(folder) / "lab")
        try:
            browser = launch_chromium(playwright)
            for theme, name in (("light", "explorer.png"), ("dark", "explorer-dark.png")):
                if not wanted or name in wanted:
                    lab = Lab(server, browser, width=WIDTH + 150, height=1000, theme=theme, scale=1.5)
                    take(lab, DOCS / name)
                    lab.close()
            if not wanted or "explain.png" in wanted:
                lab = Lab(server, browser, width=WIDTH + 150, height=1250, theme="light", scale=1.5)
                compare(lab, DOCS / "explain.png")
                lab.close()
            for name, graph in GRAPHS.items():
                if not wanted or name in wanted:
                    lab = Lab(
                        server, browser, width=1180, height=graph.height + 260, theme="light", scale=1.5
                    )
                    draw(lab, graph, DOCS / name)
                    lab.close()
            browser.close()
        finally:
            server.close()


def draw(lab: Lab, graph: Graph, path: Path) -> None:
    """Explore a network, open what is named, and keep the picture of all of it."""
    notebook = lab.open([graph.cell])
    notebook.run()
    explorer = ExplorerPage(notebook)
    explorer.wait("ready")
    lab.page.add_style_tag(content=f".nnviz {{ height: {graph.height}px !important; }}")
    for item in graph.opened:
        explorer.root.locator(f'[data-item="{item}"] .nn-name').first.dblclick()
        lab.page.wait_for_timeout(700)
    while explorer.root.locator(".nn-drawer").is_visible():
        lab.page.keyboard.press("Escape")
        lab.page.wait_for_timeout(300)
    for _ in range(2):  # the readable view, then all of it
        explorer.root.get_by_role("button", name="fit").click()
        lab.page.wait_for_timeout(700)
    lab.page.mouse.move(5, 5)
    lab.page.wait_for_timeout(1500)
    keep(explorer.root.screenshot(), path)
    notebook.close()


def compare(lab: Lab, path: Path) -> None:
    """Explain the demo's best class by several methods, judge them, and keep the picture."""
    notebook = lab.open([SHAPES])
    notebook.run()
    explorer = ExplorerPage(notebook)
    explorer.wait("ready")
    lab.page.add_style_tag(content=".nnviz { height: 860px !important; }")
    explorer.input.locator(f'button[data-sample="{SAMPLE}"]').click()
    explorer.root.locator(f'[data-panel="input"][data-sample="{SAMPLE}"]').wait_for()
    explorer.root.get_by_role("button", name="explain", exact=True).click()
    explorer.root.get_by_label("baseline", exact=True).select_option("blur")
    explorer.root.get_by_label("add a method").select_option("guided_backprop")
    explorer.root.get_by_role("button", name="How far to trust them").click()
    explorer.root.locator('.nn-judge[data-running="false"] table').wait_for(timeout=120_000)
    lab.page.mouse.move(5, 5)
    lab.page.wait_for_timeout(1500)
    keep(explorer.root.screenshot(), path)
    notebook.close()


def keep(png: bytes, path: Path) -> None:
    """Write a picture in 256 colours: a third of the bytes, and the eye sees no difference."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=8, dither=Image.Dither.NONE).save(
        path, optimize=True
    )
    print(f"wrote {path.relative_to(REPOSITORY)}, {path.stat().st_size // 1000} kB")


def take(lab: Lab, path: Path) -> None:
    """Explore the demo on this page and keep the picture of the widget alone."""
    notebook = lab.open([SHAPES])
    notebook.run()
    explorer = ExplorerPage(notebook)
    explorer.wait("ready")
    width = explorer.root.bounding_box()["width"]
    lab.resize(round(lab.size[0] + WIDTH - width))
    explorer.input.locator(f'button[data-sample="{SAMPLE}"]').click()
    explorer.root.locator(f'[data-panel="input"][data-sample="{SAMPLE}"]').wait_for()
    explorer.open_group(GROUP)
    explorer.click_layer(LAYER)
    channel, y, x = notebook.python("[channel, *divmod(place, maps.shape[-1])]", setup=UNIT)
    explorer.tile(channel).scroll_into_view_if_needed()
    explorer.click_pixel(channel, y, x, (32, 32))
    lab.page.mouse.move(5, 5)
    lab.page.wait_for_timeout(1500)  # animations come to rest
    keep(explorer.root.screenshot(), path)
    notebook.close()


if __name__ == "__main__":
    main(sys.argv[1:])
