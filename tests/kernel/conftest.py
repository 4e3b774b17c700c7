"""Real kernels of several ipykernel versions, and a page that is a few lines of jupyter_client."""

from __future__ import annotations

import itertools
import os
import time
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from jupyter_client import BlockingKernelClient, KernelManager

from scripts.kernel_envs import folders, install

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 60  # until a test that waits for something gives up
SILENCE = 2  # seconds of it until the kernel is woken

SETUP = """
import pathlib, threading, time, torch
from torch import nn
import nnviz_widget as nnviz

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))
batch = torch.randn(2, 3, 8, 8)

def busy_until(path):
    # pure Python, as a training loop is between two kernels
    steps = 0
    while not pathlib.Path(path).exists():
        steps += 1
    return steps
"""


class Kernel:
    """A running kernel, and what a page does to it.

    Attributes
    ----------
    subshell : str or None
        Where the page's messages go, as JupyterLab does it; None where the kernel has no subshells.
    """

    def __init__(self, folder: Path) -> None:
        path = os.pathsep.join([str(folder), str(ROOT)])
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(env={**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"})
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=SECONDS)
        self.heard: list[dict[str, Any]] = []
        self.numbers = itertools.count()
        self.comm = ""
        self.subshell: str | None = None

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    # ---- cells

    def start(self, code: str, *, cell: str | None = None) -> str:
        """Send a cell and return its id; it runs on."""
        content = {
            "code": code,
            "silent": False,
            "store_history": False,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        message = self.client.session.msg("execute_request", content)
        message["metadata"] = {"cellId": cell} if cell else {}
        self.client.shell_channel.send(message)
        return message["header"]["msg_id"]

    def finish(self, cell_id: str) -> str:
        """Wait for a cell to end and return what it printed; its error is the test's."""
        self.until(lambda m: is_idle(m, cell_id))
        mine = [m for m in self.heard if m["parent_header"].get("msg_id") == cell_id]
        for message in mine:
            if message["msg_type"] == "error":
                raise AssertionError("\n".join(message["content"]["traceback"]))
        return "".join(m["content"]["text"] for m in mine if m["msg_type"] == "stream")

    def run(self, code: str, *, cell: str | None = None) -> str:
        return self.finish(self.start(code, cell=cell))

    # ---- the page

    def open_page(self) -> None:
        """Ask for a subshell, as JupyterLab does when a page opens its first comm."""
        self.subshell = None
        if "kernel subshells" in self.info()["supported_features"]:
            self.subshell = self.control("create_subshell_request")["subshell_id"]

    def close_page(self) -> None:
        if self.subshell is not None:
            self.control("delete_subshell_request", subshell_id=self.subshell)
            self.subshell = None

    def info(self) -> dict[str, Any]:
        content = self.control("kernel_info_request")
        return {"supported_features": [], **content}

    def control(self, kind: str, **content: Any) -> dict[str, Any]:
        message = self.client.session.msg(kind, content)
        self.client.control_channel.send(message)
        while True:
            reply = self.client.control_channel.get_msg(timeout=SECONDS)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                return reply["content"]

    def explore(self, arguments: str = "model, batch", rest: str = "") -> None:
        """Run a cell that makes an explorer `w`, and open a page on it."""
        self.comm = self.run(f"w = nnviz.explore({arguments})\n{rest}\nprint(w.model_id)").split()[-1]
        self.open_page()

    def say(self, content: Any, buffers: list[bytes] | None = None) -> None:
        self.send({"method": "custom", "content": content}, buffers)

    def send(self, data: dict[str, Any], buffers: list[bytes] | None = None) -> str:
        """Send something over the comm and return the message's id."""
        message = self.client.session.msg("comm_msg", {"comm_id": self.comm, "data": data})
        if self.subshell is not None:
            message["header"]["subshell_id"] = self.subshell
        self.client.session.send(self.client.shell_channel.socket, message, buffers=buffers)
        return str(message["header"]["msg_id"])

    def click(self, op: str, p: dict[str, Any] | None = None, buffers: list[bytes] | None = None) -> str:
        rid = f"r{next(self.numbers)}"
        self.say({"v": 1, "t": "req", "rid": rid, "view": "a", "slot": op, "op": op, "p": p or {}}, buffers)
        return rid

    def answer(self, rid: str) -> dict[str, Any]:
        """Wait for the terminal of a request; the message with its buffers."""

        def ends(message: dict[str, Any]) -> bool:
            content = custom(message)
            return content.get("rid") == rid and (
                content.get("last") or content["t"] in ("error", "cancelled")
            )

        return self.until(ends)

    def wake(self) -> None:
        """Connect once more: ipykernel before 7.4 can leave a request unread until somebody does.

        See github.com/ipython/ipykernel/issues/1554.
        """
        visitor = BlockingKernelClient(connection_file=self.manager.connection_file)
        visitor.load_connection_file()  # with a session, and so a name, of its own
        visitor.start_channels(iopub=False, stdin=False, hb=False, control=False)
        visitor.kernel_info()
        with suppress(Empty):
            visitor.get_shell_msg(timeout=SILENCE)
        visitor.stop_channels()

    def until(self, wanted: Any) -> dict[str, Any]:
        """Return the first message that is wanted; reads on until it is there."""
        read = 0
        deadline = time.monotonic() + SECONDS
        while True:
            for message in self.heard[read:]:
                read += 1
                if wanted(message):
                    return message
            try:
                self.heard.append(self.client.get_iopub_msg(timeout=SILENCE))
            except (Empty, ValueError):
                if time.monotonic() < deadline:
                    self.wake()
                    continue
                kinds = [(m["msg_type"], custom(m)) for m in self.heard[-5:]]
                raise AssertionError(f"nothing came for {SECONDS} s; the last was {kinds}") from None


def custom(message: dict[str, Any]) -> dict[str, Any]:
    """Content of a custom comm message; empty for any other one."""
    if message["msg_type"] != "comm_msg" or message["content"]["data"].get("method") != "custom":
        return {}
    return message["content"]["data"]["content"]


def is_idle(message: dict[str, Any], cell_id: str) -> bool:
    return message["parent_header"].get("msg_id") == cell_id and is_state(message, "idle")


def is_state(message: dict[str, Any], state: str) -> bool:
    return message["msg_type"] == "status" and message["content"]["execution_state"] == state


@pytest.fixture(scope="module", params=sorted(folders()))
def kernel(request):
    running = Kernel(install(request.param))
    running.version = running.run("import ipykernel; print(ipykernel.__version__)").strip()
    assert request.param.removeprefix("ipykernel-") in running.version
    running.run(SETUP)
    yield running
    running.close()


@pytest.fixture
def release(tmp_path):
    """A file that ends `busy_until` when it is touched; touched at the latest when the test is over."""
    path = tmp_path / "release"
    yield path
    path.touch()
