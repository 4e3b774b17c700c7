"""Kernels that start at once: each is forked from one process that has imported what all of them need.

A kernel that explores a network imports for two seconds before its first cell. Here one process, the nursery,
does so once, and forks for every kernel that a Jupyter server starts: a process of its own, which has run
nothing yet. The server's own child, the door, asks the nursery for the kernel and lives as long as it does:
when one of them ends, however it ends, the other ends too. That a kernel starts without all this is what the
tests in `tests/kernel` and the first notebook show.

This file is imported by the tests, and run as a script, for the nursery and for the door.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# What ipykernel imports itself, but only when it starts: half of what a start takes.
OF_EVERY_KERNEL = (
    *("IPython.core.completerlib", "IPython.core.debugger", "IPython.extensions.storemagic"),
    *("ipykernel.debugger", "psutil", "tornado.platform.asyncio"),
)


@contextmanager
def nursery(folder: Path) -> Iterator[dict[str, str]]:
    """Open a nursery; yields the environment in which Jupyter finds its kernels.

    An empty one where a process that has imported a lot can not be trusted to fork: there, kernels start as
    usual.

    Parameters
    ----------
    folder : pathlib.Path
        An empty folder, for the kernel's description and the nursery's address.
    """
    import subprocess

    if sys.platform != "linux":
        yield {}
        return
    address = folder / "nursery"
    description = {
        # -I -S: the door needs nothing but Python's own, and starts ten times as fast without the rest.
        "argv": [sys.executable, "-IS", __file__, "door", str(address), "-f", "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
        "interrupt_mode": "message",  # a signal would interrupt the door
        "metadata": {"debugger": False},
    }
    (folder / "kernels/python3").mkdir(parents=True)
    (folder / "kernels/python3/kernel.json").write_text(json.dumps(description))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()  # so doors may knock before the nursery has imported everything
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm_kernels", "tend", str(listener.fileno())],
            pass_fds=[listener.fileno()],
            # What the debugger has to say when it is imported, a test can do nothing about.
            env={**os.environ, "PYTHONPATH": search_path(), "PYDEVD_DISABLE_FILE_VALIDATION": "1"},
            cwd=folder,
        )
    try:
        yield {"JUPYTER_PATH": str(folder)}
    finally:
        process.terminate()
        process.wait()


def search_path() -> str:
    """Where kernels look for modules: this repository first."""
    return os.pathsep.join(
        [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )


def door(address: str, *arguments: str) -> None:
    """Ask for a kernel with these arguments, and wait until it has ended."""
    with socket.socket(socket.AF_UNIX) as nursery:
        nursery.connect(address)
        order = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}  # noqa: PTH109
        nursery.sendall(json.dumps(order).encode() + b"\n")
        nursery.recv(1)  # nothing is ever sent: this returns when the kernel is gone


def tend(descriptor: str) -> None:
    """Import, then become a kernel in a new process for whoever asks."""
    import gc
    import importlib
    import signal
    import threading

    import anywidget  # noqa: F401
    import ipywidgets  # noqa: F401
    import torch
    from ipykernel.kernelapp import IPKernelApp

    import nnviz_widget
    from nnviz_widget import demo  # noqa: F401

    nnviz_widget.explore  # noqa: B018 - public names load when they are first read
    for name in OF_EVERY_KERNEL:
        importlib.import_module(name)
    torch.optim.SGD([torch.zeros(1)])  # as much as torch again, which the first optimizer imports
    gc.freeze()  # what is never touched again is never copied
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a kernel here
    asked = wait_for_birth(socket.socket(fileno=int(descriptor)))

    # From here on this is the kernel.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    order = json.loads(asked.makefile().readline())
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])

    def end_with_the_door() -> None:
        asked.recv(1)
        os._exit(1)

    threading.Thread(target=end_with_the_door, daemon=True).start()
    # ipywidgets tells a kernel about itself when it is imported; here it was imported before there was one.
    IPKernelApp.launch_instance([*order["arguments"], "--IPKernelApp.extensions=ipywidgets"])
    os._exit(0)  # to take apart all that was imported would write to every page shared with the nursery


def wait_for_birth(listener: socket.socket) -> socket.socket:
    """Return in a new process for each that connects, with its connection; never in this one."""
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return connection
        connection.close()


if __name__ == "__main__":
    {"door": door, "tend": tend}[sys.argv[1]](*sys.argv[2:])
