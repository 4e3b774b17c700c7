"""A message of the page is not a cell: it must not set off what Jupyter does around cells.

The comms of Jupyter trigger ``pre_execute`` and ``post_execute`` around every message. On a subshell's thread
that happens in the middle of the user's running cell, and what listens takes it for the cell's end:
matplotlib's inline backend closes the figure that the cell is drawing and publishes it under the click, where
nobody sees it (`hush`).

The kernel also calls itself busy for every message. A question of the page takes it less than a millisecond,
because another thread does the work, but JupyterLab then draws its toolbar, its status bar and its favicon
anew, twice, which takes more time than the rest of a frame while somebody paints (`calm`).
"""

from __future__ import annotations

import threading
import weakref
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["calm", "hush"]

#: The comms of explorers, by id.
_comms: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
#: Kernels that are calm already.
_calm: weakref.WeakSet[Any] = weakref.WeakSet()


def hush(comm: Any, receive: Callable[[Any], None]) -> None:
    """Hand a comm's messages straight to `receive` where they come in beside a running cell.

    On the main thread no cell can be running, and everything stays as Jupyter has it.
    """
    usual = getattr(comm, "handle_msg", None)
    if usual is None:
        return

    def handle(message: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            usual(message)
        else:
            receive(message)

    comm.handle_msg = handle


def calm(comm: Any) -> None:
    """Let the kernel not call itself busy for what the page asks over this comm.

    It still says that it is idle afterwards, from which a page knows that its message was dealt with. Changes
    of traits stay as they are: somebody's observer may work on them for long.
    """
    kernel: Any = getattr(comm, "kernel", None)
    publish = getattr(kernel, "_publish_status", None)
    if publish is None or not hasattr(kernel, "get_parent"):  # another kind of kernel
        return
    _comms[comm.comm_id] = comm
    if kernel in _calm:
        return
    _calm.add(kernel)

    @wraps(publish)
    def quieter(status: str, channel: str, *rest: Any, **options: Any) -> None:
        asked = status == "busy" and channel == "shell" and not rest and not options
        if not (asked and _is_question(kernel.get_parent("shell"))):
            publish(status, channel, *rest, **options)

    kernel._publish_status = quieter


def _is_question(message: Any) -> bool:
    """Whether this is a message that a page sent to an explorer, other than a change of a trait."""
    if not isinstance(message, dict) or message.get("header", {}).get("msg_type") != "comm_msg":
        return False
    content = message.get("content")
    data = content.get("data") if isinstance(content, dict) and content.get("comm_id") in _comms else None
    return isinstance(data, dict) and data.get("method") == "custom"
