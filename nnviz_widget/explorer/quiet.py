"""A message of the page is not a cell: it must not set off what IPython does around cells.

The comms of Jupyter trigger ``pre_execute`` and ``post_execute`` around every message. On a subshell's thread
that happens in the middle of the user's running cell, and what listens takes it for the cell's end:
matplotlib's inline backend closes the figure that the cell is drawing and publishes it under the click, where
nobody sees it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["hush"]


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
