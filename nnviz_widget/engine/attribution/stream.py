"""Runs a method step by step on the engine's thread, and hands out what it has after each step.

Each step is a job of its own, so that clicks are answered between two of them and a stream that nobody reads
computes nothing. The weights hold still for all steps: where they move, the method begins again on a private
copy of them.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnviz_widget.engine.attribution.result import Attribution
from nnviz_widget.engine.attribution.task import Sizes, Task
from nnviz_widget.engine.jobs import CancelToken
from nnviz_widget.engine.passes import Passes
from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.recording import tensors_of
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from torch import Tensor, nn

    from nnviz_widget.engine.attribution.registry import MethodInfo
    from nnviz_widget.engine.attribution.result import Part
    from nnviz_widget.engine.twin import Twin

    Call = Callable[[Callable[[CancelToken], Any]], Any]

__all__ = ["AttributionStream", "Question", "Runs"]

#: A result that nobody watches grow is computed in jobs of about this length: clicks wait for one.
_JOB_SECONDS = 0.05


class Runs:
    """What the attributions of one engine share: the model, and what was learned about running it.

    Parameters
    ----------
    twin : Twin
        The model.
    """

    def __init__(self, twin: Twin) -> None:
        self.twin = twin
        self.sizes = Sizes()
        self._harmless: dict[tuple[Any, ...], bool] = {}

    def passes(
        self, module: nn.Module, args: Any, kwargs: Any, shapes: tuple[Any, ...], token: CancelToken
    ) -> Passes:
        """Return what runs a module; the first time for inputs of these shapes by way of the recorder."""
        key = (id(self.twin.module), *shapes)
        if key not in self._harmless:
            run = record(module, args, kwargs, keep=None, token=token)
            self._harmless[key] = run.harmless
        return Passes(module, token, plain=self._harmless[key])


@dataclass(frozen=True)
class Question:
    """A method and everything it is asked.

    Attributes
    ----------
    method : MethodInfo
        What computes.
    args, kwargs
        The inputs that are explained, as the model takes them, copied to its device.
    extra : tuple
        Further positional arguments.
    target : object
        As `Target` takes it.
    options : dict
        All of the method's options.
    call : str
        The Python that asks the same.
    """

    method: MethodInfo
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    extra: tuple[Any, ...]
    target: Any
    options: dict[str, Any]
    call: str


class AttributionStream:
    """Partial attributions, each better than the one before; the last is the result.

    An iterator of `Attribution`; also a context manager. What is not taken is not computed.

    Parameters
    ----------
    call : callable
        Runs a function of a cancel token on the engine's thread and returns what it returns.
    runs : Runs
        Of the engine.
    question : Question
        What to compute.

    Attributes
    ----------
    progress : float
        From 0 to 1.
    """

    def __init__(self, call: Call, runs: Runs, question: Question) -> None:
        self.progress = 0.0
        self._call = call
        self._runs = runs
        self._question = question
        self._closed = CancelToken()
        self._working = threading.RLock()
        self._steps: Iterator[Part] | None = None
        self._task: Task | None = None
        self._part: Part | None = None
        self._epoch, self._private, self._consistent = 0, False, True
        self._seconds = 0.0
        self._ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Attribution:
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

    def result(self) -> Attribution:
        """Compute all that is left and return the whole; other questions are answered in between."""
        found: Attribution | None = None
        while found is None:
            found = self._wait(self._slice)
        return found

    def close(self) -> None:
        """Stop, within about 50 ms, and let go of everything. Safe to call twice, and from any thread."""
        self._ended = True
        self._closed.cancel()
        with self._working:
            self._steps = self._task = self._part = None

    def step(self, token: CancelToken) -> Attribution | None:
        """Compute one step; on the engine's thread. Returns None after the last."""
        return self._made() if self._advance(token) else None

    # -- inside ---------------------------------------------------------------------------------------------

    def _wait(self, work: Callable[[CancelToken], Attribution | None]) -> Attribution | None:
        try:
            with self._working:
                self._closed.check()
                found: Attribution | None = self._call(work)
                return found
        except BaseException:
            self.close()
            raise

    def _slice(self, token: CancelToken) -> Attribution | None:
        """Go on for one job; return the whole when it is there."""
        until = time.perf_counter() + _JOB_SECONDS
        while self._advance(token):
            if time.perf_counter() > until and self.progress < 1:
                return None
        return self._made()

    def _advance(self, token: CancelToken) -> bool:
        """Compute the next part; False where there is none."""
        start = time.perf_counter()
        try:
            if self._steps is None:
                self._begin(token)
            assert self._steps is not None
            assert self._task is not None
            self._task.passes.token = _Either(token, self._closed)
            with self._runs.twin.running():
                part = next(self._steps, None)
            if part is None:
                self._ended = True
                return False
            if not self._private and self._runs.twin.sync() != self._epoch:
                # Nothing from before is used: half of it belongs to other weights.
                self._begin(token, private=True)
                return self._advance(token)
            self._part = part
            self.progress = part.done / part.total if part.total else 1.0
            return True
        finally:
            self._seconds += time.perf_counter() - start

    def _begin(self, token: CancelToken, *, private: bool = False) -> None:
        question, twin = self._question, self._runs.twin
        if private and twin.shared:
            module, self._epoch, self._consistent = twin.frozen()
        else:
            self._epoch, module = twin.sync(), twin.module
            self._consistent = not private
        self._private = private
        shapes = _shapes(question.args, question.kwargs)
        with twin.running():
            args = (*question.args, *question.extra)
            passes = self._runs.passes(module, args, question.kwargs, shapes, _Either(token, self._closed))
            self._task = Task(
                passes,
                question.args,
                question.kwargs,
                target=question.target,
                extra=question.extra,
                sizes=self._runs.sizes,
            )
            self._steps = question.method.run(self._task, **question.options)

    def _made(self) -> Attribution:
        part, task = self._part, self._task
        if part is None or task is None:
            raise InputError(f"{self._question.method.name!r} gave nothing.")
        passes, question = task.passes, self._question
        values = part.values()
        errors = part.stderr() if part.stderr is not None else None
        if part.caution:
            task.caution(part.caution)
        left = self._seconds * (part.total - part.done) / max(1, part.done)
        return Attribution(
            values=_one_or_all(values),
            method=question.method.name,
            options=dict(question.options),
            target=task.target.told,
            delta=part.delta() if part.delta is not None else None,
            stderr=_one_or_all(errors) if errors is not None else None,
            layer_values=part.layer_values() if part.layer_values is not None else None,
            progress=self.progress,
            forward_passes=passes.forward_passes,
            backward_passes=passes.backward_passes,
            seconds=self._seconds,
            seconds_left=left,
            cautions=tuple(task.cautions),
            epoch=self._epoch,
            consistent=self._consistent,
            call=question.call,
        )


class _Either(CancelToken):
    """Cancelled when one of two tokens is: that of the job, or that of the stream."""

    __slots__ = ("_both",)

    def __init__(self, *both: CancelToken) -> None:
        super().__init__()
        self._both = both

    def check(self) -> None:
        for token in self._both:
            token.check()


def _one_or_all(values: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return values[0] if len(values) == 1 else values


def _shapes(args: Any, kwargs: Any) -> tuple[Any, ...]:
    return tuple((name, tuple(t.shape), t.dtype) for name, t in tensors_of((args, dict(kwargs))))
