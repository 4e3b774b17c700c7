"""A beat twice a second while somebody is looking, for what nobody asks for: epochs, late acknowledgements.

The thread exists only between `start` and `stop` and holds nothing but the function it calls, which says
with False that its owner is gone.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pulse"]

logger = logging.getLogger("nnviz_widget")

SECONDS = 0.5


class Pulse:
    """Calls a function at intervals.

    Parameters
    ----------
    beat : callable
        Returns False when it need not be called any more. Must hold its owner weakly.
    seconds : float
        Interval.
    """

    def __init__(self, beat: Callable[[], bool], *, seconds: float = SECONDS) -> None:
        self._beat = beat
        self._seconds = seconds
        self._lock = threading.Lock()
        self._end: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless it already beats."""
        with self._lock:
            if self._end is not None:
                return
            self._end = threading.Event()
            self._thread = threading.Thread(
                target=_run, args=(self._beat, self._end, self._seconds), name="nnviz-pulse", daemon=True
            )
            self._thread.start()

    def stop(self, *, wait: bool = False) -> None:
        """End; with `wait` only return when the thread is gone."""
        with self._lock:
            end, thread = self._end, self._thread
            self._end = self._thread = None
        if end is not None:
            end.set()
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join(5)


def _run(beat: Callable[[], bool], end: threading.Event, seconds: float) -> None:
    while not end.wait(seconds) and _survives(beat):
        pass


def _survives(beat: Callable[[], bool]) -> bool:
    try:
        return beat()
    except Exception:
        logger.exception("a beat failed")
        return True  # the next one may do better
