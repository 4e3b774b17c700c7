"""Fixtures: one JupyterLab and one Chromium for the whole run, one notebook and one kernel for each test."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.explorer_page import SHAPES, ExplorerPage
from tests.browser.lab import REPOSITORY, Lab, LabServer, launch_chromium

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

    from tests.browser.lab import Notebook

SCREENSHOTS = REPOSITORY / ".cache" / "screenshots"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def lab_server(tmp_path_factory: pytest.TempPathFactory, warm_kernels: dict[str, str]) -> Iterator[LabServer]:
    server = LabServer(tmp_path_factory.mktemp("jupyterlab"), environment=warm_kernels)
    server.warm_kernel()
    yield server
    server.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = launch_chromium(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab_page(lab_server: LabServer, chromium: Browser) -> Iterator[Lab]:
    lab = Lab(lab_server, chromium)
    yield lab
    lab.close()


class LabForTest:
    """What a test gets: `open` notebooks; they close and their kernels end with the test."""

    def __init__(self, page: Lab) -> None:
        self.browser_page = page
        self.page = page.page
        self.traffic = page.traffic
        self.server = page.server
        self.notebooks: list[Notebook] = []
        self.expected_errors: list[str] = []

    def open(self, cells: list[str], *, kernel: bool = True) -> Notebook:
        """Open a notebook with these cells and a fresh kernel, and warm up the kernel of the next one."""
        notebook = self.browser_page.open(cells, kernel=kernel)
        self.notebooks.append(notebook)
        self.server.warm_kernel()
        return notebook

    def reopen(self, path: str, *, kernel: bool = True) -> Notebook:
        """Open a saved notebook once more."""
        notebook = self.browser_page.reopen(path, kernel=kernel)
        self.notebooks.append(notebook)
        return notebook

    def resize(self, width: int, height: int | None = None) -> None:
        """Give the page another size; it goes back to the usual one after the test."""
        self.browser_page.resize(width, height)

    def expect_error(self, pattern: str) -> None:
        """Say that the test causes a console error on purpose."""
        self.expected_errors.append(pattern)


@pytest.fixture
def explorer(lab: LabForTest) -> ExplorerPage:
    """The trained network for shapes, explored in a notebook of its own, with nothing selected."""
    notebook = lab.open([SHAPES])
    notebook.run()
    page = ExplorerPage(notebook)
    page.wait("ready")
    return page


@pytest.fixture
def lab(request: pytest.FixtureRequest, lab_page: Lab) -> Iterator[LabForTest]:
    lab_page.take_errors()
    lab_page.traffic.clear()
    test = LabForTest(lab_page)
    yield test
    if request.node.stash.get(FAILED, False):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^\w.-]+", "_", request.node.name)
        lab_page.page.screenshot(path=SCREENSHOTS / f"{name}.png")
    for notebook in test.notebooks:
        notebook.close()
    lab_page.resize(*lab_page.size)
    errors = [
        text for text in lab_page.take_errors() if not any(re.search(p, text) for p in test.expected_errors)
    ]
    assert not errors, "the page reported errors:\n" + "\n".join(errors)
