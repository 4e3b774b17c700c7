"""How many rows go through the model at once: enough to be fast, few enough to answer soon and to fit.

It is learned while running, for each kind of work, and remembered for the next time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Chunks", "Sizes"]

#: A chunk that takes less than this is mostly overhead: twice as many rows are tried in any case.
_QUICK_SECONDS = 0.01
#: A chunk is not made larger than takes about this long: clicks wait for it.
_CHUNK_SECONDS = 0.1
_LARGEST = 256
#: A larger chunk must save this share of the time of a row: it costs memory.
_SAVES = 0.05
#: A size is judged by the fastest of this many chunks: something else may slow down one of them.
_TRIES = 3


@dataclass
class _Known:
    """What chunks of one kind of work have taken: least for a row by size, and how often it was tried."""

    seconds: dict[int, float] = field(default_factory=dict)
    tries: dict[int, int] = field(default_factory=dict)
    ceiling: int = _LARGEST

    def record(self, rows: int, seconds: float) -> None:
        """Note what a chunk took."""
        self.seconds[rows] = min(seconds / rows, self.seconds.get(rows, seconds / rows))
        self.tries[rows] = self.tries.get(rows, 0) + 1

    @property
    def best(self) -> int:
        """The smallest size that is about as fast as any, but no chunk so small that overhead decides."""
        if not self.seconds:
            return 1
        limit = min(self.seconds.values()) / (1 - _SAVES)
        fast = min(size for size, seconds in self.seconds.items() if seconds <= limit)
        quick = [size for size, seconds in self.seconds.items() if size * seconds < _QUICK_SECONDS]
        return max([fast, *quick])

    @property
    def following(self) -> int:
        """The size to run next: the best, or one of which too little is known."""
        if not self.seconds:
            return 1
        best, top = self.best, max(self.seconds)
        taken = top * self.seconds[top]
        if best == top and 2 * top <= self.ceiling and 2 * taken <= _CHUNK_SECONDS:
            return 2 * top
        return top if self.tries[top] < _TRIES and taken <= _CHUNK_SECONDS else best

    def forget(self, ceiling: int) -> None:
        """Run no chunk larger than this again."""
        self.ceiling = ceiling
        self.seconds = {size: each for size, each in self.seconds.items() if size <= ceiling}


class Sizes:
    """What is known about good sizes, by what is run; lives as long as the engine."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], _Known] = {}

    def of(self, key: tuple[Any, ...]) -> _Known:
        """Return what is known about one kind of work, to be added to."""
        return self._known.setdefault(key, _Known())


class Chunks:
    """The size of each next chunk, from how long the last ones took.

    Parameters
    ----------
    known : _Known
        From earlier, and added to.
    fixed : int, optional
        The size that somebody asked for.
    first : int, optional
        The first chunk has at most this many rows.

    Attributes
    ----------
    size : int
        Of the next chunk.
    """

    def __init__(self, known: _Known, fixed: int | None = None, first: int | None = None) -> None:
        self._known, self._fixed = known, fixed
        self.size = fixed or min(known.following, first or known.following)

    def took(self, rows: int, seconds: float) -> None:
        """Learn from a chunk."""
        if self._fixed is None:
            if rows >= self._known.best:  # else it was the rest, or small only to come early
                self._known.record(rows, seconds)
            self.size = self._known.following

    def halve(self) -> bool:
        """Go on with half as many rows after running out of memory; False where it was one row."""
        if self.size <= 1:
            return False
        self.size //= 2
        self._known.forget(self.size)
        if self._fixed is not None:
            self._fixed = self.size
        return True
