"""How many rows go through the model at once: enough to be fast, few enough to answer soon and to fit.

It is learned while running, for each kind of work, and remembered for the next time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Chunks", "Known", "Sizes"]

#: A chunk that takes less than this is mostly overhead: twice as many rows are tried in any case.
_QUICK_SECONDS = 0.02
#: A chunk is not made larger than takes about this long: clicks wait for it. More where a whole result is
#: waited for, since large models are faster with several rows at once.
_WATCHED_SECONDS, _CHUNK_SECONDS = 0.1, 1.0
_LARGEST = 256
#: Elements of the inputs at once that need so little memory that it does not matter.
_SMALL = 1 << 19
#: The first chunk ever has at most this many rows.
_FIRST = 16
#: For a single row, libraries have kernels of their own that round otherwise: where a ReLU bends, the last
#: digit decides, and a result would depend on its chunks.
_LEAST = 2
#: A larger chunk must save this share of the time of a row: it costs memory.
_SAVES = 0.02
#: A size is judged by the fastest of at least this many chunks: something else may slow down one of them.
_TRIES = 3


@dataclass
class Known:
    """What chunks of one kind of work have taken: least for a row by size, and how often it was tried."""

    seconds: dict[int, float] = field(default_factory=dict)
    tries: dict[int, int] = field(default_factory=dict)
    ceiling: int = _LARGEST

    def record(self, rows: int, seconds: float) -> None:
        """Note what a chunk took."""
        self.seconds[rows] = min(seconds / rows, self.seconds.get(rows, seconds / rows))
        self.tries[rows] = self.tries.get(rows, 0) + 1

    def best(self, limit: float) -> int:
        """Return the smallest size that is about as fast as any within a limit of seconds.

        But no chunk so small that it is mostly overhead.
        """
        some = {size: each for size, each in self.seconds.items() if size * each <= limit}
        if not some:
            return 1
        fast = min(size for size, each in some.items() if each * (1 - _SAVES) <= min(some.values()))
        return max([fast, *(size for size, each in some.items() if size * each < _QUICK_SECONDS)])

    def following(self, limit: float) -> int:
        """Return the size to run next: the best, or now and then a larger one, ever more rarely."""
        best = self.best(limit)
        larger, tried = 2 * best, self.tries.get(2 * best, 0)
        if best not in self.seconds or larger > self.ceiling or larger * self.seconds[best] > limit:
            return best
        return larger if tried < _TRIES or self.tries[best] >= 1 << tried else best

    def forget(self, ceiling: int) -> None:
        """Run no chunk larger than this again."""
        self.ceiling = ceiling
        self.seconds = {size: each for size, each in self.seconds.items() if size <= ceiling}


class Sizes:
    """What is known about good sizes, by what is run; lives as long as the engine."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Known] = {}

    def of(self, key: tuple[Any, ...]) -> Known:
        """Return what is known about one kind of work, to be added to."""
        return self._known.setdefault(key, Known())


class Chunks:
    """The size of each next chunk, from how long the last ones took.

    Parameters
    ----------
    known : Known
        From earlier, and added to.
    count : int
        How many rows there are. Not more than a tenth of them run at once, so that much less memory is
        needed than for all, unless they are small.
    fixed : int, optional
        The size that somebody asked for.
    watched : bool
        Whether somebody looks at partial results, and may click: then all chunks are short, and the first
        has at most a tenth of the rows.
    seconds : float
        About what a forward of one row takes, where that is known: so that not all begins with few rows.
    elements : int
        Of the inputs, in one row.

    Attributes
    ----------
    size : int
        Of the next chunk.
    """

    def __init__(
        self,
        known: Known,
        count: int,
        fixed: int | None = None,
        *,
        watched: bool = False,
        seconds: float = 0.0,
        elements: int = 1,
    ) -> None:
        self._known, self._fixed = known, fixed
        tenth = count // 10
        self._most = max(tenth, _SMALL // elements)
        self._first = max(_LEAST, min(_FIRST, int(_WATCHED_SECONDS / 3 / seconds))) if seconds else _LEAST
        self._limit = _WATCHED_SECONDS if watched else _CHUNK_SECONDS
        self.size = fixed or min(self._next(), max(_LEAST, tenth) if watched else count)

    def took(self, rows: int, seconds: float) -> None:
        """Learn from a chunk."""
        if self._fixed is None:
            if rows >= min(self._known.best(self._limit), self._most):
                self._known.record(rows, seconds)  # else it was the rest, or small only to come early
            self.size = self._next()

    def _next(self) -> int:
        known = self._known
        if not known.seconds:
            return min(self._first, known.ceiling)
        return min(max(_LEAST, min(known.following(self._limit), self._most)), known.ceiling)

    def halve(self) -> bool:
        """Go on with half as many rows after running out of memory; False where it was one row."""
        if self.size <= 1:
            return False
        self.size //= 2
        self._known.forget(self.size)
        if self._fixed is not None:
            self._fixed = self.size
        return True
