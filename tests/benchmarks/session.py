"""A JupyterLab in Chromium for the benchmarks that measure what a person sees, and clocks inside the page.

Times are taken in the page (`performance.now()`), never around a call from Python into the browser.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser.lab import Lab, LabServer, launch_chromium

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

CLOCK = """
window.clock = {
    // Arms the stopwatch: it starts when the next click reaches the page, before any handler of it has run,
    // and stops when a selector matches for the first time after that.
    arm(selector) {
        this.elapsed = new Promise((resolve, reject) => {
            setTimeout(() => reject(new Error(`no ${selector} within 30 s`)), 30_000);
            const started = () => {
                const start = performance.now();
                const look = () => {
                    if (!document.querySelector(selector)) return false;
                    observer.disconnect();
                    resolve(performance.now() - start);
                    return true;
                };
                const observer = new MutationObserver(look);
                observer.observe(document.body, {subtree: true, childList: true, attributes: true});
                // What is already on the screen does not count as an answer: look only after the click's own
                // handlers have run.
                queueMicrotask(look);
            };
            document.addEventListener('click', started, {capture: true, once: true});
        });
    },
    // Resolves when the page has not changed for so long; after five seconds in any case.
    quiet(ms) {
        return new Promise(resolve => {
            const done = () => { observer.disconnect(); clearTimeout(late); resolve(); };
            let timer = setTimeout(done, ms);
            const late = setTimeout(done, 5000);
            const observer = new MutationObserver(() => {
                clearTimeout(timer);
                timer = setTimeout(done, ms);
            });
            observer.observe(document.body,
                {subtree: true, childList: true, attributes: true, characterData: true});
        });
    },
};
"""


@contextmanager
def lab_session(*, width: int = 1400, height: int = 1000) -> Iterator[Lab]:
    """Yield a JupyterLab page; the server, the browser and every kernel end with the block."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = LabServer(Path(folder) / "lab")
        try:
            browser = launch_chromium(playwright)
            lab = Lab(server, browser, width=width, height=height, listen=False)
            lab.page.evaluate(CLOCK)
            yield lab
            browser.close()
        finally:
            server.close()


def arm(page: Page, selector: str) -> None:
    """Start the page's stopwatch with the next click; it stops when `selector` matches."""
    page.evaluate("selector => clock.arm(selector)", selector)


def elapsed(page: Page) -> float:
    """Wait for the stopwatch to stop; seconds."""
    return float(page.evaluate("() => clock.elapsed")) / 1000


def settle(lab: Lab, quiet: float = 0.3) -> None:
    """Wait until nothing on the page has changed for `quiet` seconds, nor the host's signs of traffic."""
    lab.page.evaluate("ms => clock.quiet(ms)", quiet * 1000)
