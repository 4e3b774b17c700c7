"""A real JupyterLab in a real Chromium, small enough to read a test by.

`LabServer` is one server with its own home, port and settings; `Lab` is one browser page on it; `Notebook` is
one open notebook with its own fresh kernel. They know JupyterLab, not the explorer: what is particular to the
explorer's page is in `explorer_page.py`. JupyterLab is driven through its own command registry
(`expose_app_in_browser`), so that nothing here depends on menus, labels or the position of a cell.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Playwright

REPOSITORY = Path(__file__).resolve().parents[2]
CHROMIUM_FLAGS = [
    "--no-sandbox",  # containers run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--force-color-profile=srgb",  # screenshots look the same everywhere
    "--use-fake-device-for-media-stream",  # a camera that shows a test picture,
    "--use-fake-ui-for-media-stream",  # and a person who lends it
]
# What JupyterLab itself prints on a healthy start, or when a test has ended a kernel on purpose.
HARMLESS = (
    "Failed to load resource",
    "favicon",
    "WebSocket connection to",
    "Connection lost, reconnecting",
    "ResizeObserver loop",
    "Canceled future",  # a request to a kernel that a test has ended
    "Kernel connection is disconnected",
)
SETTINGS: dict[str, dict[str, Any]] = {
    "apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "docmanager-extension/plugin": {"autosave": False},
}
# The debugger reports every kernel that a test ends as an uncaught error of its own.
PAGE_CONFIG = {"disabledExtensions": {"@jupyterlab/debugger-extension": True}}
# Imported while the kernel waits for its notebook, which then need not wait.
KERNEL_STARTUP = "import torch\n"


def launch_chromium(playwright: Playwright) -> Browser:
    """Start the system's Chromium where there is one, otherwise the one Playwright installed."""
    found = next(
        (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
    )
    return playwright.chromium.launch(executable_path=found, args=CHROMIUM_FLAGS)


class LabServer:
    """One JupyterLab on its own port, in its own home, so that nobody's settings reach a test.

    Parameters
    ----------
    home : pathlib.Path
        An empty folder; configuration, run-time files, log and notebooks go there.
    environment : dict, optional
        Variables for it and its kernels beside those of this process.
    """

    def __init__(self, home: Path, *, environment: dict[str, str] | None = None) -> None:
        self.root = home / "notebooks"
        self.root.mkdir(parents=True)
        for plugin, settings in SETTINGS.items():
            path = home / "config/lab/user-settings/@jupyterlab" / f"{plugin}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(settings))
        (home / "config/labconfig").mkdir(parents=True)
        (home / "config/labconfig/page_config.json").write_text(json.dumps(PAGE_CONFIG))
        (home / "ipython/profile_default/startup").mkdir(parents=True)
        (home / "ipython/profile_default/startup/00_warm.py").write_text(KERNEL_STARTUP)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = home / "server.log"
        paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {
            **os.environ,
            **(environment or {}),
            "HOME": str(home),
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
            "IPYTHONDIR": str(home / "ipython"),
            "PYTHONPATH": os.pathsep.join(paths),
        }
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            *(f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.root}"),
            *("--IdentityProvider.token=", "--ServerApp.password=", "--ServerApp.disable_check_xsrf=True"),
            "--LabApp.expose_app_in_browser=True",
        ]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=variables, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 300  # a machine may have much else to do
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"JupyterLab did not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)
        self._spare: str | None = None

    def _answers(self) -> bool:
        try:
            self.rest("GET", "/api/status")
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    def rest(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Call the server's REST interface and return what it answered, parsed."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read()
        return json.loads(text) if text else None

    def take_kernel(self) -> str:
        """Hand out a fresh kernel that has warmed up while the test before it ran."""
        return self._take_spare() or str(self.rest("POST", "/api/kernels", {"name": "python3"})["id"])

    def warm_kernel(self) -> None:
        """Start the kernel of the next notebook now."""
        if self._spare is None:
            self._spare = str(self.rest("POST", "/api/kernels", {"name": "python3"})["id"])

    def _take_spare(self) -> str | None:
        spare, self._spare = self._spare, None
        return spare

    def shutdown_kernel(self, kernel: str, *, wait: bool = False) -> None:
        """End a kernel, by default without waiting for it; one that has died already is fine."""

        def delete() -> None:
            try:
                self.rest("DELETE", f"/api/kernels/{kernel}")
            except (urllib.error.URLError, ConnectionError):
                return

        thread = threading.Thread(target=delete, daemon=True)
        thread.start()
        if wait:
            thread.join()

    def close(self) -> None:
        """End the server and every kernel it still has."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class Traffic:
    """What went over the notebook's websockets, as raw bytes, since the last `clear`."""

    sent: list[bytes] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)

    def clear(self) -> None:
        """Start counting anew."""
        self.sent.clear()
        self.received.clear()

    def requests(self) -> list[bytes]:
        """Return the frames in which a widget asked its kernel for something.

        A still picture is handed over, not asked for.
        """
        return [frame for frame in self.sent if b'"req"' in frame and b'"op":"still"' not in frame]


class Lab:
    """One page with JupyterLab in it; `open` gives notebooks, one at a time.

    Parameters
    ----------
    server, browser
        Where it runs.
    width, height : int
        Size of the page in CSS pixels.
    theme : str
        `"light"` or `"dark"`.
    scale : float
        Device pixels per CSS pixel, for screenshots.
    listen : bool
        Whether to keep what goes over the websockets in `traffic`. Every byte of it then goes through the
        browser's debugger and this process as well, which a stopwatch notices.
    """

    def __init__(
        self,
        server: LabServer,
        browser: Browser,
        *,
        width: int = 1400,
        height: int = 900,
        theme: str = "light",
        scale: float = 1.0,
        listen: bool = True,
    ) -> None:
        self.server = server
        self.traffic = Traffic()
        self.page_errors: list[str] = []
        self.console_errors: list[str] = []
        self.size = (width, height)
        self.theme = theme
        self._notebooks = 0
        self.page: Page = browser.new_page(
            viewport={"width": width, "height": height}, device_scale_factor=scale
        )
        self.page.set_default_timeout(20_000)
        self.page.on("pageerror", self._on_error)
        self.page.on("console", self._on_console)
        if listen:
            self.page.on("websocket", self._on_websocket)
        self.load()

    def load(self) -> None:
        """Load JupyterLab, with nothing open; a second time the page forgets all that came before."""
        self.page.goto(f"{self.server.url}/lab?reset", wait_until="commit")
        self.page.wait_for_selector("#jp-MainMenu", timeout=90_000)
        self.page.evaluate(
            """async (theme) => {
                await jupyterapp.restored;
                jupyterapp.shell.collapseLeft();
                if (theme === 'dark')
                    await jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'});
            }""",
            self.theme,
        )

    def _on_error(self, error: Any) -> None:
        if not any(text in str(error) for text in HARMLESS):
            self.page_errors.append(f"{error}\n{error.stack or ''}")

    def _on_console(self, message: Any) -> None:
        if message.type == "error" and not any(text in message.text for text in HARMLESS):
            self.console_errors.append(message.text)

    def _on_websocket(self, websocket: Any) -> None:
        def keep(frames: list[bytes]) -> Any:
            return lambda payload: frames.append(payload if isinstance(payload, bytes) else payload.encode())

        websocket.on("framesent", keep(self.traffic.sent))
        websocket.on("framereceived", keep(self.traffic.received))

    def open(self, cells: list[str], *, name: str | None = None, kernel: bool = True) -> Notebook:
        """Write a notebook with these code cells, open it, and wait for its kernel.

        Parameters
        ----------
        cells : list of str
            Source of the cells; indentation that they share is taken off.
        name : str, optional
            File name without its ending; invented when not given.
        kernel : bool
            `False` opens it as a reader does who has no kernel.
        """
        self._notebooks += 1
        path = f"{name or f'test_{self._notebooks}'}.ipynb"
        document = {
            "cells": [
                {
                    "cell_type": "code",
                    "id": f"cell-{index}",
                    "metadata": {},
                    "outputs": [],
                    "execution_count": None,
                    "source": textwrap.dedent(source).strip(),
                }
                for index, source in enumerate(cells)
            ],
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (self.server.root / path).write_text(json.dumps(document))
        return self.reopen(path, kernel=kernel)

    def reopen(self, path: str, *, kernel: bool = True) -> Notebook:
        """Open a notebook that is on the server already."""
        identifier = self.server.take_kernel() if kernel else None
        self.page.evaluate(
            """async ([path, kernel]) => {
                const options = kernel
                    ? {kernel: {id: kernel}} : {kernelPreference: {shouldStart: false, canStart: false}};
                const panel = await jupyterapp.commands.execute(
                    'docmanager:open', {path, factory: 'Notebook', ...options});
                await panel.context.ready;
                await panel.revealed;
                if (kernel) {
                    await panel.sessionContext.ready;
                    await panel.sessionContext.session.kernel.info;
                }
                window.panels = {...window.panels, [path]: panel};
            }""",
            [path, identifier],
        )
        return Notebook(self, path, identifier)

    def resize(self, width: int, height: int | None = None) -> None:
        """Give the page another size, in CSS pixels."""
        self.page.set_viewport_size({"width": width, "height": height or self.size[1]})

    def take_errors(self) -> list[str]:
        """Return the uncaught errors and console errors seen since the last call, and forget them."""
        seen = [*self.page_errors, *self.console_errors]
        self.page_errors.clear()
        self.console_errors.clear()
        return seen

    def close(self) -> None:
        """Close the page."""
        self.page.close()


class Notebook:
    """One open notebook with a kernel of its own."""

    def __init__(self, lab: Lab, path: str, kernel: str | None) -> None:
        self.lab = lab
        self.page = lab.page
        self.path = path
        self.kernel = kernel
        self._count = 0

    @property
    def root(self) -> Locator:
        """The notebook's own part of the page."""
        return self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")

    @property
    def explorer(self) -> Locator:
        """The explorers in this notebook, in the order of their cells."""
        return self.root.locator(".nnviz")

    def cell(self, index: int) -> Locator:
        """Return the cell with this index."""
        return self.root.locator(".jp-Cell").nth(index)

    def run(self, index: int = 0, *, wait: bool = True) -> None:
        """Start a cell; with `wait` also wait until it has ended."""
        self.page.evaluate(
            """([path, index]) => {
                const panel = panels[path];
                panel.content.activeCellIndex = index;
                panel.content.deselectAll();
                // JupyterLab calls a kernel idle that has only answered a widget; the cell's promise tells.
                const run = {running: true};
                const ended = jupyterapp.commands.execute('notebook:run-cell');
                run.ended = ended.finally(() => { run.running = false; });
                panel.runs = {...panel.runs, [index]: run};
            }""",
            [self.path, index],
        )
        if wait:
            self.wait_end(index)

    def output_text(self, index: int) -> str:
        """Return the text that a cell printed, its errors included."""
        return str(
            self.page.evaluate(
                """([path, index]) => panels[path].content.widgets[index].model.outputs.toJSON().map(o =>
                    o.text ?? (o.traceback ? o.traceback.join('\\n') : (o.data?.['text/plain'] ?? ''))
                    ).flat().join('')""",
                [self.path, index],
            )
        )

    def running(self, index: int) -> bool:
        """Whether a cell that was started has not ended yet."""
        return bool(
            self.page.evaluate("([path, index]) => panels[path].runs[index].running", [self.path, index])
        )

    def wait_end(self, index: int) -> None:
        """Wait until a cell that was started has ended; raises if it raised."""
        if not self.page.evaluate("([path, index]) => panels[path].runs[index].ended", [self.path, index]):
            raise AssertionError(f"cell {index} raised:\n{self.output_text(index)}")

    def python(self, expression: str, *, setup: str = "") -> Any:
        """Evaluate an expression in the kernel, after `setup`, and return its value.

        The value travels as JSON, so it has to be made of numbers, strings, lists and dicts.
        """
        mark = "nnviz-value:"
        code = f"{textwrap.dedent(setup)}\nimport json\nprint({mark!r} + json.dumps({expression}))"
        printed = self.page.evaluate(
            """async ([path, code]) => {
                const future = panels[path].sessionContext.session.kernel.requestExecute(
                    {code, store_history: false});
                let text = '';
                future.onIOPub = message => {
                    const {msg_type} = message.header;
                    if (msg_type === 'stream') text += message.content.text;
                    if (msg_type === 'error') text += message.content.traceback.join('\\n');
                };
                await future.done;
                return text;
            }""",
            [self.path, code],
        )
        for line in printed.splitlines():
            if line.startswith(mark):
                return json.loads(line.removeprefix(mark))
        raise AssertionError(f"the kernel could not evaluate {expression}:\n{printed}")

    def eventually(self, expression: str, expected: Any, *, setup: str = "") -> None:
        """Wait until an expression in the kernel has this value: a click reaches Python on its own thread."""
        deadline = time.monotonic() + 10
        while (value := self.python(expression, setup=setup)) != expected:
            assert time.monotonic() < deadline, f"{expression} is {value}, not {expected}"
            self.page.wait_for_timeout(50)

    def save(self) -> dict[str, Any]:
        """Save the notebook and return the document as it is on disk."""
        self.page.evaluate("path => panels[path].context.save()", self.path)
        return dict(json.loads((self.lab.server.root / self.path).read_text()))

    def close(self, *, wait: bool = False) -> None:
        """Close the notebook and end its kernel; to open it once more, wait until the kernel is gone."""
        self.page.evaluate(
            """path => {
                const panel = panels[path];
                delete panels[path];
                panel.context.model.dirty = false;
                panel.dispose();
            }""",
            self.path,
        )
        if self.kernel is not None:
            self.lab.server.shutdown_kernel(self.kernel, wait=wait)
