"""How often Python's garbage collector looks while much is built at once.

A model of 10,000 modules is a million objects, all of them to stay. The collector would walk over every one
of them, and over all that the session holds, each time that a quarter has been added: half of the time until
the graph is there. With wider thresholds each of them is looked at once, and what is garbage goes as always.
"""

from __future__ import annotations

import gc
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["seldom"]

#: New objects until the youngest are looked at; then how often until the older and the oldest are, too.
_WIDE = (50_000, 100, 1_000)
_lock = threading.Lock()
_inside = 0
_before = _WIDE


@contextmanager
def seldom() -> Iterator[None]:
    """Collect with wide thresholds inside; a collector that is off stays off."""
    global _inside, _before  # noqa: PLW0603 - the collector is one for the whole process, as is who changed it
    with _lock:
        if _inside == 0:
            _before = gc.get_threshold()
            if _before[0]:
                gc.set_threshold(*_WIDE)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and gc.get_threshold() == _WIDE:
                gc.set_threshold(*_before)
