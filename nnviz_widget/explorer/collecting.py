"""How often Python's garbage collector looks while much is built at once.

A model of 10,000 modules is a million objects, all of them to stay. The collector would walk over every one
of them, and over all that the session holds, each time that a quarter has been added: half of the time until
the graph is there. With wider thresholds each of them is looked at once while it is young. At the end they
count as old without a second look, which would hold up the picture that is just on its way to the page; what
of them turns out to be garbage goes with the next look at everything.
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
#: Looks at the young after so many of which everything is looked at once: five million new objects.
_ALL_AFTER = 100
#: Entered again where the collector runs inside and somebody's finalizer builds, too.
_lock = threading.RLock()
_inside = 0
_before = _WIDE


class _Aged:
    """Makes old what was built without looking at it, so many times until everything is looked at."""

    def __init__(self) -> None:
        self._full = -1
        self._looks = 0

    def add(self, looks: int) -> None:
        """Let all objects count as old, with those that were built during `looks` looks at the young."""
        if gc.get_freeze_count():
            return  # somebody keeps objects from being looked at, and they would be mixed up with the others
        full = gc.get_stats()[-1]["collections"]
        if full != self._full:
            self._full, self._looks = full, 0
        self._looks += looks
        if self._looks > _ALL_AFTER:
            gc.collect()
            return
        gc.freeze()  # moves them out of all generations
        gc.unfreeze()  # and back, into the oldest


_young_looks = 0
_aged = _Aged()


@contextmanager
def seldom() -> Iterator[None]:
    """Collect with wide thresholds inside; a collector that is off stays off."""
    global _inside, _before, _young_looks  # noqa: PLW0603 - the collector is one for the whole process, as is who changed it
    with _lock:
        if _inside == 0:
            _before = gc.get_threshold()
            _young_looks = _looks_at_the_young()
            if _before[0]:
                gc.set_threshold(*_WIDE)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and gc.get_threshold() == _WIDE:
                looks = _looks_at_the_young() - _young_looks
                if looks > 0:
                    _aged.add(looks)
                gc.set_threshold(*_before)


def _looks_at_the_young() -> int:
    return int(gc.get_stats()[0]["collections"])
