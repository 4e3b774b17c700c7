"""Runs a long computation step by step on the engine's thread, and hands out what there is after each step.

Each step is a job of its own, so that clicks are answered between two of them and a stream that nobody reads
computes nothing. The weights hold still for all steps: where they move, the computation begins again on a
private copy of them. What is computed is the business of those who subclass `Stream`: attributions, metrics,
pictures that form.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from nnviz_widget.engine.interventions import current, within
from nnviz_widget.engine.jobs import Cancelled, CancelToken
from nnviz_widget.errors import NNVizError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

    from torch import nn

    from nnviz_widget.engine.twin import Twin

    Call = Callable[[Callable[[CancelToken], Any]], Any]

__all__ = ["Step", "Stream"]

#: A result that nobody watches grow is computed in jobs of about this length: clicks wait for one.
_JOB_SECONDS = 0.05

Found = TypeVar("Found")


class Step(Protocol):
    """What a computation has after a step: how much is done, and of how much; equal at the end."""

    @property
    def done(self) -> int:
        """Units of work that are done."""

    @property
    def total(self) -> int:
        """Units of work in all."""


class Stream(ABC, Generic[Found]):
    """Partial results, each better than the one before; the last is the whole.

    An iterator, and a context manager. What is not taken is not computed.

    Parameters
    ----------
    call : callable
        Runs a function of a cancel token on the engine's thread and returns what it returns.
    twin : Twin
        The model.

    Attributes
    ----------
    progress : float
        From 0 to 1.
    seconds : float
        Wall time spent in the engine so far.
    epoch : int
        Of the weights that are used.
    consistent : bool
        False where the weights moved and could not be held still.
    """

    def __init__(self, call: Call, twin: Twin) -> None:
        self.progress, self.seconds = 0.0, 0.0
        self.epoch, self.consistent = 0, True
        self._call = call
        self._twin = twin
        self._closed = CancelToken()
        self._token = _Either(self._closed)
        self._working = threading.RLock()
        self._steps: Iterator[Step] | None = None
        self._last: Step | None = None
        self._private = False
        self._ended = False
        #: Those of the block in which it was asked for, wherever its steps are taken.
        self._interventions = current(twin)

    @abstractmethod
    def _start(self, module: nn.Module, token: CancelToken) -> Iterator[Step]:
        """Begin on this module, the twin or a private copy; yield a step after each piece of work."""

    @abstractmethod
    def _made(self, step: Step) -> Found:
        """Return what there is after a step."""

    def _release(self) -> None:
        """Let go of what was kept for the next step."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Found:
        if self._ended:
            raise StopIteration
        found = self._wait(self.step)
        if found is None:
            raise StopIteration
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def seconds_left(self) -> float:
        """About how much time is still to come."""
        if self._last is None:
            return 0.0
        return self.seconds * (self._last.total - self._last.done) / max(1, self._last.done)

    def result(self) -> Found:
        """Compute all that is left and return the whole; other questions are answered in between."""
        found: Found | None = None
        while found is None:
            found = self._wait(self._slice)
        return found

    def close(self) -> None:
        """Stop, within about 50 ms, and let go of everything. Safe to call twice, and from any thread."""
        self._ended = True
        self._closed.cancel()
        with self._working:
            self._steps = self._last = None
            self._release()

    def step(self, token: CancelToken) -> Found | None:
        """Compute one step; on the engine's thread. Returns None after the last."""
        return self._whole() if self._advance(token) else None

    # -- inside ---------------------------------------------------------------------------------------------

    def _wait(self, work: Callable[[CancelToken], Found | None]) -> Found | None:
        try:
            with self._working:
                self._closed.check()
                found: Found | None = self._call(work)
                return found
        except BaseException:
            self.close()
            raise

    def _slice(self, token: CancelToken) -> Found | None:
        """Go on for one job; return the whole when it is there."""
        more = self._advance(token, until=time.perf_counter() + _JOB_SECONDS)
        return self._whole() if not more or self.progress >= 1 else None

    def _whole(self) -> Found:
        if self._last is None:
            raise NNVizError("There was nothing to compute.")
        return self._made(self._last)

    def _advance(self, token: CancelToken, until: float = 0.0) -> bool:
        """Compute the next step, and more until a time is reached; False where there is none.

        Whether the weights moved is looked for once, after the last: nothing is handed out before.
        """
        start = time.perf_counter()
        self._token.job = token
        try:
            if self._steps is None:
                self._begin()
            try:
                with self._twin.running(), within(self._interventions):
                    step = self._taken(until)
            except Cancelled:
                raise
            except Exception:
                # Autograd refuses weights that moved between a forward and its backward.
                if self._private or self._twin.sync() == self.epoch:
                    raise
                self._begin(private=True)
                return self._advance(token, until)
            if step is None:
                self._ended = True
                return False
            if not self._private and self._twin.sync() != self.epoch:
                # Nothing from before is used: half of it belongs to other weights.
                self._begin(private=True)
                return self._advance(token, until)
            self._last = step
            self.progress = step.done / step.total if step.total else 1.0
            return True
        finally:
            self.seconds += time.perf_counter() - start

    def _taken(self, until: float) -> Step | None:
        """Take steps until a time is reached, one at least; returns the last of them."""
        assert self._steps is not None
        step: Step | None = None
        for step in self._steps:
            if step.done >= step.total or time.perf_counter() > until:
                break
        return step

    def _begin(self, *, private: bool = False) -> None:
        twin = self._twin
        if private and twin.shared:
            module, self.epoch, self.consistent = twin.frozen()
        else:
            self.epoch, module = twin.sync(), twin.module
            self.consistent = not private
        self._private = private
        with twin.running(), within(self._interventions):
            self._steps = self._start(module, self._token)


class _Either(CancelToken):
    """Cancelled when the stream is closed, or the job that computes its present step is cancelled."""

    __slots__ = ("_stream", "job")

    def __init__(self, stream: CancelToken) -> None:
        super().__init__()
        self._stream = stream
        self.job = stream

    def check(self) -> None:
        self._stream.check()
        self.job.check()
