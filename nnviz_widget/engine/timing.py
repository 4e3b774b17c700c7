"""How long each part of a model takes: recorded passes with a stopwatch that stands still while we watch.

The passes are those of ``recorder``, so that every id is that of the graph and nothing that the model does
can reach the user's own weights, inputs or random numbers. The stopwatch runs only while the model's own code
runs: it stops when a torch function or a module's hook reaches us, and runs on when we hand back. A module's
time is what the stopwatch gained between its entry and its exit, so the times of what is called in it are in
it, and never more than it. On a device that works on its own, each reading first waits until the device has
done what it was given; so no operation overlaps the next, and the sum is more than an undisturbed pass takes.
"""

from __future__ import annotations

import threading
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.memory import Kept
from nnviz_widget.engine.recorder import Recorder
from nnviz_widget.engine.tape import Tape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from nnviz_widget.engine.recorder import Token
    from nnviz_widget.engine.recording import Frame, Op

    Clock = Callable[[], float]

__all__ = ["device_clock", "time_parts"]


def time_parts(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    repeats: int,
    warmup: int,
    clock: Clock,
    token: Token | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Run a module several times and return the median time of each of its parts.

    Parameters
    ----------
    module, args, kwargs
        As `nnviz_widget.engine.recorder.record` takes them.
    repeats, warmup : int
        Passes that count, and passes before them that do not.
    clock : callable
        Seconds, from any beginning; see `device_clock`.
    token : object with `check`, optional
        Asked at every module and operation; raising ends it.
    progress : callable, optional
        Called before each pass with how many passes are done, and of how many.

    Returns
    -------
    dict of str to float
        Seconds by node and group id; ``""`` is the whole module. Operations inside of a leaf, which are no
        nodes of the graph, have a time as well. What did not run in every pass is missing.
    """
    passes: list[dict[str, float]] = []
    for number in range(warmup + repeats):
        if progress is not None:
            progress(number, warmup + repeats)
        run = _Timed(module, clock, token)
        run.run(args, dict(kwargs), grad=False)
        if number >= warmup:
            passes.append(run.times)
    everywhere = set.intersection(*map(set, passes))
    return {name: median(times[name] for times in passes) for name in passes[0] if name in everywhere}


def device_clock(device: torch.device) -> Clock:
    """Return a clock that first waits for the device; for the CPU, which never lags behind, a plain one."""
    if device.type == "cpu":
        return time.perf_counter
    synchronize = torch.get_device_module(device).synchronize

    def clock() -> float:
        synchronize()
        return time.perf_counter()

    return clock


class _Stopwatch:
    """Adds up the time between each `start` and the next `stop`."""

    def __init__(self, clock: Clock) -> None:
        self.elapsed = 0.0
        self._clock = clock
        self._since = clock()

    def start(self) -> None:
        self._since = self._clock()

    def stop(self) -> float:
        self.elapsed += self._clock() - self._since
        return self.elapsed


class _TimedTape(Tape):
    """A tape that holds the stopwatch while it writes."""

    watch: _Stopwatch
    times: dict[str, float]
    _took = 0.0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.watch.stop()
        try:
            return super().__torch_function__(func, types, args, kwargs)
        finally:
            self.watch.start()

    def compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        before = self.watch.elapsed
        self.watch.start()
        try:
            return func(*args, **kwargs)
        finally:
            self._took = self.watch.stop() - before

    def place(self, op: Op, frame: Frame) -> None:
        super().place(op, frame)
        if not frame.solo:  # its hook tells the time of a module that is one node
            self.times[op.node] = self._took
        self._took = 0.0


class _Timed(Recorder):
    """One pass that keeps nothing but times."""

    tape: _TimedTape
    tape_type = _TimedTape

    def __init__(self, module: nn.Module, clock: Clock, token: Token | None) -> None:
        super().__init__(module, kept=Kept(None, None), stop_at=None, token=token, progress=None, seed=0)
        self.times: dict[str, float] = {}
        self._watch = _Stopwatch(clock)
        self._open: list[tuple[nn.Module, str, float]] = []
        self.tape.watch, self.tape.times = self._watch, self.times

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != self._thread:
            return
        self._watch.stop()
        super()._enter(module, args, kwargs)
        self._open.append((module, self.tape.frame.id, self._watch.elapsed))
        self._watch.start()

    def _leave(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        if threading.get_ident() != self._thread:
            return None
        elapsed = self._watch.stop()
        try:
            return super()._leave(module, inputs, output)
        finally:
            while self._open:
                entered, name, before = self._open.pop()
                if entered is module:
                    self.times[name] = elapsed - before
                    break
            self._watch.start()
