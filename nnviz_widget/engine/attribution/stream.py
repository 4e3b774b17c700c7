"""Attributions that sharpen step by step: which question is asked, and what is handed out after each step.

How steps become jobs on the engine's thread, and what happens when the weights move, is in ``streaming``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from nnviz_widget.engine.attribution.chunks import Sizes
from nnviz_widget.engine.attribution.result import Attribution
from nnviz_widget.engine.attribution.task import Task
from nnviz_widget.engine.passes import Passes
from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.recording import tensors_of
from nnviz_widget.engine.replay.replays import Replays
from nnviz_widget.engine.streaming import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor, nn

    from nnviz_widget.engine.attribution.registry import MethodInfo
    from nnviz_widget.engine.attribution.result import Part
    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.streaming import Call, Step
    from nnviz_widget.engine.twin import Twin

__all__ = ["AttributionStream", "Question", "Runs"]


class Runs:
    """What the attributions of one engine share: the model, and what was learned about running it.

    Parameters
    ----------
    twin : Twin
        The model.
    budget : callable
        Gives the bytes that an unchanged run may hold of activations.
    """

    def __init__(self, twin: Twin, budget: Callable[[], int]) -> None:
        self.twin = twin
        self.sizes = Sizes()
        self.replays = Replays(epoch=lambda: twin.epoch, budget=budget)
        self._seen: dict[tuple[Any, ...], tuple[bool, float]] = {}

    def passes(
        self, module: nn.Module, args: Any, kwargs: Any, shapes: tuple[Any, ...], token: CancelToken
    ) -> Passes:
        """Return what runs a module; the first time for inputs of these shapes by way of the recorder."""
        key = (id(self.twin.module), *shapes)
        if key not in self._seen:
            run = record(module, args, kwargs, keep=None, token=token)
            self._seen[key] = run.harmless, run.seconds
        plain, seconds = self._seen[key]
        return Passes(module, token, plain=plain, seconds=seconds)

    def task(self, module: nn.Module, question: Question, token: CancelToken, target: Any = None) -> Task:
        """Return what a method or a metric works with.

        Parameters
        ----------
        module : nn.Module
            The twin, or a private copy.
        question : Question
            Gives the inputs.
        token : CancelToken
            Looked at inside every pass.
        target : object, optional
            In the place of the question's.
        """
        target = question.target if target is None else target
        args, kwargs, extra = question.args, question.kwargs, question.extra
        return self.task_of(module, args, kwargs, token, target=target, extra=extra)

    def task_of(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        token: CancelToken,
        *,
        target: Any = None,
        extra: tuple[Any, ...] = (),
    ) -> Task:
        """Return a task for inputs as the model takes them, on its device."""
        passes = self.passes(module, (*args, *extra), kwargs, _shapes(args, kwargs), token)
        return Task(passes, args, kwargs, target=target, extra=extra, sizes=self.sizes, replays=self.replays)


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


class AttributionStream(Stream[Attribution]):
    """Partial attributions, each better than the one before; the last is the result.

    Parameters
    ----------
    call : callable
        Runs a function of a cancel token on the engine's thread and returns what it returns.
    runs : Runs
        Of the engine.
    question : Question
        What to compute.
    """

    def __init__(self, call: Call, runs: Runs, question: Question) -> None:
        super().__init__(call, runs.twin)
        self._runs = runs
        self._question = question
        self._task: Task | None = None
        self._watched = True
        self._before: tuple[Tensor, ...] | None = None

    def result(self) -> Attribution:
        """Compute all that is left and return the whole; other questions are answered in between."""
        self._watched = False
        return super().result()

    def _start(self, module: nn.Module, token: CancelToken) -> Iterator[Part]:
        self._before = None
        self._task = self._runs.task(module, self._question, token)
        self._task.watched = self._watched
        return self._question.method.run(self._task, **self._question.options)

    def _made(self, step: Step) -> Attribution:
        part, task, question = cast("Part", step), self._task, self._question
        assert task is not None
        values = part.values()
        errors = part.stderr() if part.stderr is not None else None
        moved = None
        if errors is None and part.delta is None:
            moved, self._before = _moved(self._before, values), values
        if part.caution:
            task.caution(part.caution)
        return Attribution(
            values=_one_or_all(values),
            method=question.method.name,
            options={**question.options, **task.decided},
            target=task.told,
            delta=part.delta() if part.delta is not None else None,
            stderr=_one_or_all(errors) if errors is not None else None,
            moved=moved,
            layer_values=part.layer_values() if part.layer_values is not None else None,
            progress=self.progress,
            forward_passes=task.passes.forward_passes,
            backward_passes=task.passes.backward_passes,
            recomputed=task.recomputed,
            seconds=self.seconds,
            seconds_left=self.seconds_left,
            cautions=tuple(task.cautions),
            epoch=self.epoch,
            consistent=self.consistent,
            call=self._written(),
            question=question,
        )

    def _written(self) -> str:
        """Return the Python that does the same, in the block in which it was asked for."""
        call = self._question.call
        if not self._interventions:
            return call
        return f"with {', '.join(map(str, self._interventions))}:\n    {call}"

    def _release(self) -> None:
        self._task = self._before = None


def _one_or_all(values: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return values[0] if len(values) == 1 else values


def _moved(before: tuple[Tensor, ...] | None, now: tuple[Tensor, ...]) -> float | None:
    """Return the mean distance between two results as a share of the largest value; None without a first."""
    largest = max((float(each.abs().max()) for each in now if each.numel()), default=0.0)
    if before is None or not largest:
        return None
    away = sum(float((a - b).abs().sum()) for a, b in zip(now, before, strict=True))
    return away / sum(each.numel() for each in now) / largest


def _shapes(args: Any, kwargs: Any) -> tuple[Any, ...]:
    return tuple((name, tuple(t.shape), t.dtype) for name, t in tensors_of((args, dict(kwargs))))
