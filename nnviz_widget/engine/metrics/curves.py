"""Curves of the score while the most important positions go first, or come first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.metrics.case import Reading, answers
from nnviz_widget.engine.metrics.maps import areas
from nnviz_widget.engine.metrics.registry import metric
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from torch import Tensor

    from nnviz_widget.engine.metrics.case import Case

__all__: list[str] = []

_RISE = "Petsiuk et al. 2018, arXiv:1806.07421"
_RANGE = "0 to 1 for probabilities, else in units of the score"


@metric("deletion", better="lower", values=_RANGE, paper=_RISE)
def deletion(
    case: Case, *, baselines: Any = "mean", steps: int = 32, output: str = "auto", batch_size: Any = "auto"
) -> Generator[float, None, Reading]:
    """Hide the most important positions first, and see how fast the score falls.

    With ``x_k`` the sample whose k most important positions have the baseline's values, the area under
    ``f(x_k)`` over ``k / D`` from 0 to 1, by the trapezoidal rule (Petsiuk et al. 2018). A map that knows
    what the network needs makes the score fall early: a small area. What is hidden so is no natural picture;
    compare with the rows ``random`` and ``center``.

    Options
    -------
    baselines : str, number, Tensor or tuple
        What stands in the hidden places (``"zero"``, ``"mean"``, ``"blur"``, ``"noise"``, or values).
    steps : int
        Points of the curve after the first.
    output : str
        ``"probability"``, ``"score"``, or ``"auto"``: the probability where the target is a class.
    batch_size : int or "auto"
        Variants in one pass.
    """
    return (
        yield from _curve(
            case, "deletion", baselines=baselines, steps=steps, output=output, batch_size=batch_size
        )
    )


@metric("insertion", better="higher", values=_RANGE, paper=_RISE)
def insertion(
    case: Case, *, baselines: Any = "mean", steps: int = 32, output: str = "auto", batch_size: Any = "auto"
) -> Generator[float, None, Reading]:
    """Show the most important positions first, and see how fast the score rises.

    As deletion, from the baseline to the sample: the area under the score with the k most important
    positions shown (Petsiuk et al. 2018). Larger is better. A compact map does well whatever it knows, so
    compare with the row ``center``. The paper begins with a blurred sample (``baselines="blur"``).

    Options
    -------
    baselines, steps, output, batch_size
        As for deletion.
    """
    return (
        yield from _curve(
            case, "insertion", baselines=baselines, steps=steps, output=output, batch_size=batch_size
        )
    )


@metric("pixel_flipping", better="higher", values=_RANGE, paper="Samek et al. 2015, arXiv:1509.06321")
def pixel_flipping(
    case: Case,
    *,
    share: float = 0.25,
    steps: int = 25,
    output: str = "auto",
    batch_size: Any = "auto",
) -> Generator[float, None, Reading]:
    """Replace the most important positions by noise, one after the other, and see how far the score falls.

    The mean of ``f(x) - f(x_k)`` over the L + 1 points of the way, with the k most important positions
    replaced by uniform noise in the sample's own range: the area over the perturbation curve, most relevant
    first (Bach et al. 2015, Samek et al. 2015). Larger is better.

    Options
    -------
    share : float
        How much of the positions is replaced in the end.
    steps : int
        L, the points of the way after the first.
    output, batch_size
        As for deletion.
    """
    if not 0 < share <= 1:
        raise InputError(f"share={share!r} must be above 0 and at most 1.")
    starts = case.task.baselines("noise", case.seed)
    counts = _counts(case.positions.total, steps, share)
    y = yield from _hidden(case, starts, counts, output, batch_size)
    falls = y[:, :1] - y
    return Reading(falls.mean(1), {"pixel_flipping": (_shares(counts, case), y)})


def _curve(
    case: Case, kind: str, *, baselines: Any, steps: int, output: str, batch_size: Any
) -> Generator[float, None, Reading]:
    starts = case.task.baselines(baselines, case.seed)
    counts = _counts(case.positions.total, steps)
    y = yield from _hidden(case, starts, counts, output, batch_size, shown=kind == "insertion")
    x = _shares(counts, case)
    return Reading(areas(x, y), {kind: (x, y)})


def _hidden(
    case: Case,
    starts: Sequence[Tensor],
    counts: list[int],
    output: str,
    size: Any,
    *,
    shown: bool = False,
) -> Generator[float, None, Tensor]:
    """Return the score with so many of the first positions hidden (or shown alone), ``[N, K]``."""
    ranks, positions, inputs = case.ranks, case.positions, case.task.inputs
    limits = torch.tensor(counts, device=ranks.device)

    def make(rows: Tensor, numbers: Tensor) -> list[Tensor]:
        first = positions.spread(ranks[rows] < limits[numbers][:, None])
        return [
            torch.where(flags.to(x.device), *((x[at], start[at]) if shown else (start[at], x[at])))
            for flags, x, start in zip(first, inputs, starts, strict=True)
            for at in (rows.to(x.device),)
        ]

    return (yield from answers(case, len(counts), make, output=output, size=size))


def _counts(total: int, steps: int, share: float = 1.0) -> list[int]:
    """Return how many positions are changed at each point: evenly from none to the share, each once."""
    if type(steps) is not int or steps < 1:
        raise InputError(f"steps is a whole number from 1, not {steps!r}.")
    last = max(1, round(total * share))
    return sorted({round(last * step / steps) for step in range(steps + 1)})


def _shares(counts: list[int], case: Case) -> list[float]:
    return [count / case.positions.total for count in counts]
