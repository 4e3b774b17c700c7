"""Take the pictures of the README in a real JupyterLab: `docs/explorer.png`, and the same in the dark theme.

`make screenshots` (`python -m scripts.screenshots`) runs it: it shows the bundled network and clicks a layer
and a pixel, as a reader would.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

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


def main() -> None:
    """Write both pictures."""
    DOCS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = LabServer(Path(folder) / "lab")
        try:
            browser = launch_chromium(playwright)
            for theme, name in (("light", "explorer.png"), ("dark", "explorer-dark.png")):
                lab = Lab(server, browser, width=WIDTH + 150, height=1000, theme=theme, scale=1.5)
                take(lab, DOCS / name)
                lab.close()
            browser.close()
        finally:
            server.close()


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
    explorer.root.screenshot(path=path)
    print(f"wrote {path.relative_to(REPOSITORY)}")
    notebook.close()


if __name__ == "__main__":
    main()
