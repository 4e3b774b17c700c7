"""How often Python's garbage collector looks while much is built at once.

A model of 10,000 modules is a million objects, all of them to stay. The collector would walk over every one
of them, and over all that the session holds, each time that a quarter has been added: half of the time until
the graph is there. With wider thresholds each of them is looked at once at most. Whenever a build begins or
ends, all that is there counts as old without a look, which would hold up the picture that is just on its way
to the page; what of it turns out to be garbage goes with the next look at everything. That comes late where
all is aged: after a few large builds the young are left to the collector again.
"""

from __future__ import annotations

import gc
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["OWN", "seldom"]

#: New objects until the youngest are looked at: where the user's code runs, which may make garbage that holds
#: large tensors, and where nothing but this package builds.
USERS, OWN = 50_000, 1_000_000
#: How often the young are looked at until the older and the oldest are, too.
_OLDER = (100, 1_000)
#: So many new objects are a build worth aging; and so many are aged until everything has been looked at.
_MANY, _MOST = 50_000, 5_000_000
#: Frozen objects up to which they are Python's own: 3.12 starts with a few hundred.
_PYTHONS = 1_000
#: Entered again where the collector runs inside and somebody's finalizer builds, too.
_lock = threading.RLock()


class _Builds:
    """Those under way, on all threads: the collector is one for the whole process."""

    def __init__(self) -> None:
        self._under_way: list[int] = []
        self._before = self._ours = gc.get_threshold()
        #: How often the young had been looked at when the thresholds were set.
        self._looks = 0
        #: How often everything had been looked at, and how many objects have been aged since.
        self._full, self._aged = -1, 0

    def begin(self, new: int) -> None:
        if not self._under_way:
            self._before = self._ours = gc.get_threshold()
            self._looks = gc.get_count()[1]
        self._under_way.append(new)
        self._set((min(self._under_way), *_OLDER))

    def end(self, new: int) -> None:
        self._under_way.remove(new)
        self._set((min(self._under_way), *_OLDER) if self._under_way else self._before)

    def _set(self, wanted: tuple[int, int, int]) -> None:
        # A collector that is off stays off, and so does what somebody else has set meanwhile.
        if self._before[0] and gc.get_threshold() == self._ours:
            self._age()
            gc.set_threshold(*wanted)
            self._ours, self._looks = wanted, gc.get_count()[1]

    def _age(self) -> None:
        young, looks, _ = gc.get_count()
        new = young + max(0, looks - self._looks) * self._ours[0]
        if new < _MANY or gc.get_freeze_count() > _PYTHONS:
            return  # frozen objects are somebody's: aging would thaw them
        full = gc.get_stats()[-1]["collections"]
        if full != self._full:
            self._full, self._aged = full, 0
        self._aged += new
        if self._aged <= _MOST:
            gc.freeze()  # moves all objects out of all generations
            gc.unfreeze()  # and back, into the oldest


_builds = _Builds()


@contextmanager
def seldom(new: int = USERS) -> Iterator[None]:
    """Collect with wide thresholds inside; the narrowest of those under way holds."""
    with _lock:
        _builds.begin(new)
    try:
        yield
    finally:
        with _lock:
            _builds.end(new)
