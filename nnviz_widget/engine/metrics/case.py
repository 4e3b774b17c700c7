"""What a metric works with, one map at a time, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from nnviz_widget.engine.attribution.gradients import precise
from nnviz_widget.engine.metrics.maps import ranks_from_top
from nnviz_widget.engine.variants import Variants, outcomes
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from torch import Tensor, nn

    from nnviz_widget.engine.attribution.task import Task
    from nnviz_widget.engine.metrics.maps import Positions

    T = TypeVar("T")
    Explain = Callable[[Task], Generator[float, None, tuple[Tensor, ...]]]

__all__ = ["Case", "Reading", "answers", "part_of"]

_OUTPUTS = ("auto", "probability", "score")


@dataclass(frozen=True)
class Reading:
    """What a metric says of one map.

    Attributes
    ----------
    values : Tensor
        One number per sample, ``[N]``; NaN where there is none.
    curves : dict of str to (list of float, Tensor)
        Points of the horizontal axis, and a curve for each sample ``[N, K]``.
    details : dict
        Anything else, as plain data.
    note : str
        What to know about it, in words for a student.
    """

    values: Tensor
    curves: dict[str, tuple[list[float], Tensor]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Case:
    """One map of one batch of samples, with the model that it explains.

    Attributes
    ----------
    name : str
        Of the map.
    task : Task
        Samples, target and model.
    positions : Positions
        What can be hidden alone.
    values : tuple of Tensor
        Signed, like the inputs (or with a single channel).
    absolute : bool
        Whether a position counts by the size of its values, or by their sum.
    mask : Tensor or None
        ``[N, H, W]``, true where the object is.
    explain : callable or None
        Explains other inputs, or another model, by the same method: takes a `Task`, yields how much is done
        and returns values. None where that cannot be asked.
    scratch : callable
        Returns a private copy of the model, to be changed at will.
    moves : bool
        Whether the map depends on the inputs and on the model at all; not that of a control.
    options : dict
        Of the method.
    delta : Tensor or None
        The completeness error that the method reports, ``[N]``.
    seed : int
        Of everything drawn.
    others : dict of str to Tensor
        `importance` of the other rows of the table.
    shared : dict
        What a metric found out about the model, for the other rows of the table.
    """

    name: str
    task: Task
    positions: Positions
    values: tuple[Tensor, ...]
    absolute: bool
    mask: Tensor | None
    explain: Explain | None
    scratch: Callable[[], nn.Module]
    moves: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    delta: Tensor | None = None
    seed: int = 0
    others: dict[str, Tensor] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)

    @property
    def importance(self) -> Tensor:
        """One number for each position, ``[N, D]``."""
        return self.positions.importance(self.values, absolute=self.absolute)

    @property
    def ranks(self) -> Tensor:
        """The place of each position, 0 for the most important, ``[N, D]``."""
        return ranks_from_top(self.importance, self.seed)

    def full_values(self) -> tuple[Tensor, ...]:
        """Return values of exactly the shapes of the inputs: one channel is shared out over all."""
        return tuple(
            value if value.shape == x.shape else value.expand_as(x) * (value.numel() / x.numel())
            for value, x in zip(self.values, self.task.inputs, strict=True)
        )


def answers(
    case: Case,
    count: int,
    make: Callable[[Tensor, Tensor], Sequence[Tensor]],
    *,
    output: str = "score",
    size: Any = "auto",
) -> Generator[float, None, Tensor]:
    """Ask what the model says of `count` variants of every sample; yields the share that is done.

    Parameters
    ----------
    case : Case
        Gives the samples.
    count : int
        Variants of each sample.
    make : callable
        Takes samples and numbers of variants, ``[B]`` each on the device of the input, and returns the inputs
        of these rows.
    output : str
        ``"score"`` for the target's score, ``"probability"`` for its share of the softmax over the classes,
        ``"auto"`` for that where the target is one of several classes.
    size : int or "auto"
        Rows in one pass.

    Returns
    -------
    Tensor
        ``[N, count]``, float32 at least.
    """
    if output not in _OUTPUTS:
        raise InputError(f"output={output!r} is not known.", hint=f"Known are {', '.join(_OUTPUTS)}.")
    task = case.task
    samples, device = task.samples, task.inputs[0].device
    of_classes = task.target.of_classes and not task.of_unit
    if output == "probability" and not of_classes:
        raise InputError(
            "There is no probability of this target: it is not one of several classes.",
            hint='Use output="score".',
        )
    whole = of_classes and output != "score"

    def made(start: int, stop: int) -> Sequence[Tensor]:
        at = torch.arange(start, stop, device=device)
        return make(at % samples, at // samples)

    rows = torch.arange(samples * count) % samples
    found: list[Tensor] = []
    for start, stop, scores in outcomes(task, Variants(rows, made), size=size, whole=whole):
        told = task.target.probabilities(scores, rows[start:stop]) if whole else scores
        found.append(precise(told))
        yield stop / len(rows)
    return torch.cat(found).reshape(count, samples).T


def part_of(work: Generator[float, None, T], before: int, total: int) -> Generator[float, None, T]:
    """Do work that is number `before` of `total` alike; yields how much of all is done."""
    while True:
        try:
            share = next(work)
        except StopIteration as end:
            found: T = end.value
            return found
        yield (before + share) / total
