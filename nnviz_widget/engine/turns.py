"""Shorter turns of Python's threads while the engine works.

One setting of the whole interpreter, changed while at least one engine works and put back with the last of
them. When that is, ``jobs`` knows.
"""

from __future__ import annotations

import sys
import threading

__all__ = ["short_turns"]

_TURN_SECONDS = 1e-4


class _ShortTurns:
    """Make threads take shorter turns in the interpreter while an engine works.

    A thread that comes back from torch waits for the interpreter until the one that has it, the user's busy
    cell, has had its turn: 5 ms by default, some fifty times in one pass. The user's own setting returns with
    the last of them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._before = 0.0
        self._ours = 0.0

    def __enter__(self) -> None:
        with self._lock:
            self._running += 1
            if self._running == 1:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(_TURN_SECONDS, self._before))
                self._ours = sys.getswitchinterval()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1
            if not self._running and sys.getswitchinterval() == self._ours:
                sys.setswitchinterval(self._before)


short_turns = _ShortTurns()
