"""Take the picture of the README: the explorer on a bundled network, in a real JupyterLab in Chromium.

    .venv/bin/python -m scripts.screenshots [name ...]

Uses the harness of the browser tests, so what is pictured is what is tested. Pictures go to ``docs/``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

from tests.browser.explorer_page import SHAPES, ExplorerPage
from tests.browser.lab import Lab, LabServer, launch_chromium

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser

DOCS = Path(__file__).resolve().parent.parent / "docs"


def explorer(server: LabServer, browser: Browser, *, theme: str = "light") -> None:
    """Picture a clicked unit of the first stage: graph, maps, saliency and receptive field at once."""
    lab = Lab(server, browser, width=1400, height=1000, theme=theme, scale=1.5)
    notebook = lab.open([SHAPES])
    notebook.run(0)
    page = ExplorerPage(notebook)
    page.wait()
    page.click_layer("stage1")
    page.click_pixel(page.strongest(), 20, 24, (64, 64))
    lab.page.mouse.move(0, 0)
    name = "explorer.png" if theme == "light" else f"explorer-{theme}.png"
    page.root.screenshot(path=DOCS / name, animations="disabled")
    print(f"docs/{name}: {(DOCS / name).stat().st_size / 1000:.0f} kB")
    notebook.close()
    lab.close()


PICTURES: dict[str, Callable[[LabServer, Browser], None]] = {
    "explorer": explorer,
    "explorer-dark": lambda server, browser: explorer(server, browser, theme="dark"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=["explorer"], metavar="|".join(PICTURES))
    names = parser.parse_args().names
    DOCS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        server = LabServer(Path(home))
        try:
            browser = launch_chromium(playwright)
            for name in names:
                PICTURES[name](server, browser)
            browser.close()
        finally:
            server.close()


if __name__ == "__main__":
    main()
