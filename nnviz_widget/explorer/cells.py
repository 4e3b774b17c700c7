"""Running a cell again closes the explorers of its last run, so that their memory is free again.

A notebook keeps every widget that was not closed, with its tensors, and nobody else can know that the old
output is gone. Where the front end says which cell runs (``cellId`` in the request's metadata), this module
does. In other hosts explorers live until they are closed.
"""

from __future__ import annotations

import weakref
from typing import Any, Protocol

__all__ = ["claim", "clear_earlier_run"]


class Closable(Protocol):
    """Something that a cell made."""

    def close(self) -> None:
        """Free it."""


# Cell -> the request that last ran it, and what it made.
_made: dict[str, tuple[str, weakref.WeakSet[Any]]] = {}


def clear_earlier_run() -> None:
    """Close what an earlier run of the running cell made."""
    running = _running_cell()
    if running is None:
        return
    cell, request = running
    last, things = _made.get(cell, (request, ()))
    if last != request:
        del _made[cell]
        for thing in list(things):
            thing.close()


def claim(thing: Closable) -> None:
    """Note that the running cell made `thing`."""
    running = _running_cell()
    if running is not None:
        cell, request = running
        _made.setdefault(cell, (request, weakref.WeakSet()))[1].add(thing)


def _running_cell() -> tuple[str, str] | None:
    """Return cell and request, or None outside a cell or where the host does not tell."""
    try:
        from IPython import get_ipython  # noqa: PLC0415 - not every host has it

        parent = get_ipython().get_parent()
        cell, request = parent["metadata"]["cellId"], parent["header"]["msg_id"]
    except (ImportError, AttributeError, KeyError, TypeError):
        return None
    return (cell, request) if isinstance(cell, str) and isinstance(request, str) else None
