"""Gradients along a path from a baseline to the input: what adds up to the whole change of the score."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nnviz_widget.engine.attribution.baselines import baseline_of
from nnviz_widget.engine.attribution.gradients import Moments, Rewinding, precise
from nnviz_widget.engine.attribution.registry import method
from nnviz_widget.engine.attribution.result import Part
from nnviz_widget.engine.attribution.sums import GradientSums
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nnviz_widget.engine.attribution.task import Task

__all__ = ["completeness", "path_points", "pools_of"]


@method(
    "integrated_gradients",
    cost="n_steps (F + B)",
    family="path",
    paper="Sundararajan et al. 2017, arXiv:1703.01365",
)
def integrated_gradients(
    task: Task,
    *,
    baselines: Any = "zero",
    n_steps: int = 50,
    quadrature: str = "midpoint",
    internal_batch_size: Any = "auto",
    seed: int = 0,
) -> Iterator[Part]:
    """Average the gradient on the way from a baseline: what adds up to the change of the score.

    Options
    -------
    baselines : str, number, Tensor or tuple
        Where the way begins (``"zero"``, ``"mean"``, ``"blur"``, ``"noise"``, ``"sample"``, or values).
    n_steps : int
        Points on the way.
    quadrature : str
        ``"midpoint"`` or ``"gausslegendre"``.
    internal_batch_size : int or "auto"
        Rows in one pass.
    seed : int
        Of a baseline of noise.
    """
    starts = task.baselines(baselines, seed)
    alphas, weights = path_points(n_steps, quadrature)
    ends = _change(task, starts)
    ways = [x - start for x, start in zip(task.inputs, starts, strict=True)]
    sums = GradientSums(task)
    first = precise(task.inputs[0])
    done = torch.zeros(task.samples, dtype=first.dtype, device=first.device)
    total = n_steps * task.samples

    def work(start: int, stop: int) -> None:
        at = torch.arange(start, stop)
        rows, steps = at % task.samples, at // task.samples
        tensors = []
        for begin, way in zip(starts, ways, strict=True):
            alpha = alphas[steps].to(way.device, way.dtype).reshape(-1, *[1] * (way.dim() - 1))
            tensors.append(begin[rows] + alpha * way[rows])
        weight = weights[steps].to(done.device, done.dtype)
        sums.add(tensors, rows, weight)
        done.index_add_(0, rows.to(done.device), weight)

    def values() -> tuple[Tensor, ...]:
        shares = [done.to(g.device).reshape(-1, *[1] * (g.dim() - 1)) for g in sums.values()]
        return tuple(precise(w) * g / s for w, g, s in zip(ways, sums.values(), shares, strict=True))

    for _, stop, _ in task.batched(total, work, size=internal_batch_size, kind="gradient"):
        if stop >= task.samples:
            yield Part(stop, total, values, delta=lambda: completeness(values(), ends))


@method(
    "expected_gradients", cost="n_samples (F + B)", family="path", paper="Erion et al. 2019, arXiv:1906.10670"
)
def expected_gradients(
    task: Task,
    *,
    baselines: Any = None,
    n_samples: int = 200,
    stdevs: float = 0.0,
    internal_batch_size: Any = "auto",
    seed: int = 0,
) -> Iterator[Part]:
    """Integrate gradients from many baselines at once, with one random point on each way.

    Options
    -------
    baselines : str, number, Tensor or tuple
        A tensor of several baselines is drawn from; ``"sample"`` draws from the other samples of the batch,
        and is what is taken where there are others.
    n_samples : int
        Random points for each sample.
    stdevs : float
        Spread of noise added to the input, in its units.
    internal_batch_size : int or "auto"
        Rows in one pass.
    seed : int
        Of everything drawn.
    """
    draw = _Draw(task, baselines, stdevs, seed)
    yield from _expected(task, draw, n_samples, internal_batch_size)


@method(
    "gradient_shap", cost="n_samples (F + B)", family="path", paper="Lundberg and Lee 2017, arXiv:1705.07874"
)
def gradient_shap(
    task: Task,
    *,
    baselines: Any = "zero",
    n_samples: int = 50,
    stdevs: float = 0.0,
    internal_batch_size: Any = "auto",
    seed: int = 0,
) -> Iterator[Part]:
    """Take expected gradients under Captum's name: random points between baselines and the input."""
    draw = _Draw(task, "zero" if baselines is None else baselines, stdevs, seed)
    yield from _expected(task, draw, n_samples, internal_batch_size)


class _Draw:
    """Random points between random baselines and the input, row by row the same whatever the chunks."""

    def __init__(self, task: Task, baselines: Any, noise: Any, seed: int) -> None:
        if not isinstance(noise, (int, float)) or noise < 0:
            raise InputError(f"stdevs is a number from 0, not {noise!r}.")
        if baselines is None:
            baselines = task.decided["baselines"] = "sample" if task.samples > 1 else "zero"
            if task.samples == 1:
                task.caution("There is no other sample to compare with, so the baseline is zero.")
        self._others = isinstance(baselines, str) and baselines == "sample"
        if self._others and task.samples == 1:
            task.baselines("sample")  # says that there is none
        self._task, self._noise = task, noise
        self._pools = pools_of(task, baselines, seed)
        given = baselines if isinstance(baselines, (tuple, list)) else (baselines,) * len(task.inputs)
        # What a name or a number stands for belongs to its sample; only a tensor of several is drawn from.
        self._drawn = [
            self._others or (isinstance(each, Tensor) and each.shape[1:] == x.shape[1:])
            for each, x in zip(given, task.inputs, strict=True)
        ]
        self._count = next(
            (len(pool) for pool, drawn in zip(self._pools, self._drawn, strict=True) if drawn), 1
        )
        self._random = Rewinding(seed)

    def starts(self, picks: Tensor, rows: Tensor) -> list[Tensor]:
        """Return the baselines of rows, for each input."""
        return [
            pool[(picks if drawn else rows).to(pool.device)]
            for pool, drawn in zip(self._pools, self._drawn, strict=True)
        ]

    def rows(self, start: int, stop: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return which baseline each row has, and for each input the point and the whole way to it."""
        rows, generator = torch.arange(start, stop) % self._task.samples, self._random.at(start)
        picks = torch.empty(len(rows), dtype=torch.long)
        alphas = torch.empty(len(rows))
        noise: list[list[Tensor]] = [[] for _ in self._pools]
        for i, row in enumerate(rows.tolist()):
            pick = int(torch.randint(self._count - self._others, (), generator=generator))
            picks[i] = pick + (self._others and pick >= row)  # of the others each as often
            alphas[i] = torch.rand((), generator=generator)
            if self._noise:
                for drawn, x in zip(noise, self._task.inputs, strict=True):
                    drawn.append(torch.randn(x.shape[1:], generator=generator))
        points, ways = [], []
        for x, begin, drawn in zip(self._task.inputs, self.starts(picks, rows), noise, strict=True):
            alpha = alphas.to(x.device, x.dtype).reshape(-1, *[1] * (x.dim() - 1))
            end = x[rows.to(x.device)]
            if drawn:
                end = end + self._noise * torch.stack(drawn).to(x.device, x.dtype)
            points.append(begin + alpha * (end - begin))
            ways.append(end - begin)
        return picks, points, ways


def _expected(task: Task, draw: _Draw, count: int, size: Any) -> Iterator[Part]:
    if type(count) is not int or count < 1:
        raise InputError(f"n_samples is a whole number from 1, not {count!r}.")
    moments = [Moments(x, task.samples) for x in task.inputs]
    total = count * task.samples
    starts = Moments(task.inputs[0].new_zeros(task.samples, 1), task.samples)
    known: dict[tuple[int, int], Tensor] = {}
    original = task.scores(task.inputs, task.every)

    def work(start: int, stop: int) -> None:
        rows = torch.arange(start, stop) % task.samples
        picks, points, ways = draw.rows(start, stop)
        _, gradients = task.gradients(points, rows)
        for moment, way, gradient in zip(moments, ways, gradients, strict=True):
            moment.add(precise(way) * precise(gradient), rows)
        starts.add(_scores_at(task, draw, picks, rows, known)[:, None], rows)

    def values() -> tuple[Tensor, ...]:
        return tuple(moment.mean() for moment in moments)

    for _, stop, _ in task.batched(total, work, size=size, kind="gradient"):
        if stop >= task.samples:
            yield Part(
                stop,
                total,
                values,
                delta=lambda: completeness(values(), precise(original) - starts.mean()[:, 0]),
                stderr=lambda: tuple(moment.stderr() for moment in moments),
            )


def _scores_at(
    task: Task, draw: _Draw, picks: Tensor, rows: Tensor, known: dict[tuple[int, int], Tensor]
) -> Tensor:
    """Return the score of each row's baseline for the target of its sample; each pair is run once."""
    pairs = list(zip(picks.tolist(), rows.tolist(), strict=True))
    missing = [pair for pair in dict.fromkeys(pairs) if pair not in known]
    if missing:
        at, variants = torch.tensor(missing).unbind(1)
        found = task.scores(draw.starts(at, variants), variants)
        known.update(zip(missing, precise(found), strict=True))
    return torch.stack([known[pair] for pair in pairs])


def pools_of(task: Task, baselines: Any, seed: int) -> tuple[Tensor, ...]:
    """Return the baselines to draw from, ``[P, ...]`` for each input."""
    if baselines == "sample":
        return task.inputs
    given = baselines if isinstance(baselines, (tuple, list)) else (baselines,) * len(task.inputs)
    pools = []
    named = task.baselines(tuple(b if not isinstance(b, Tensor) else "zero" for b in given), seed)
    for each, x, one in zip(given, task.inputs, named, strict=True):
        if isinstance(each, Tensor) and each.dim() == x.dim() and each.shape[1:] == x.shape[1:]:
            pools.append(each.detach().to(x.device, x.dtype))
        elif isinstance(each, Tensor):
            pools.append(baseline_of(each, (x,))[0])
        else:
            pools.append(one)
    if len({pool.shape[0] for pool in pools}) > 1:
        raise InputError("The baselines of the inputs differ in number.")
    return tuple(pools)


def path_points(count: int, quadrature: str) -> tuple[Tensor, Tensor]:
    """Return the points of a quadrature on [0, 1] in a good order for partial sums, and their weights.

    Parameters
    ----------
    count : int
        How many points.
    quadrature : str
        ``"midpoint"`` or ``"gausslegendre"``.

    Returns
    -------
    points, weights : Tensor
        ``[count]``, float64, to be left as they are. The order is van der Corput's: each point falls into the
        largest gap so far.
    """
    if type(count) is not int or count < 1:
        raise InputError(f"n_steps is a whole number from 1, not {count!r}.")
    if quadrature not in ("midpoint", "gausslegendre"):
        raise InputError(
            f"quadrature={quadrature!r} is not known.",
            hint="Known are 'midpoint' and 'gausslegendre'; the trapezoid that others offer is biased.",
        )
    return _points(count, quadrature)


@lru_cache(maxsize=32)
def _points(count: int, quadrature: str) -> tuple[Tensor, Tensor]:
    if quadrature == "midpoint":
        points, weights = (np.arange(count) + 0.5) / count, np.full(count, 1 / count)
    else:
        points, weights = np.polynomial.legendre.leggauss(count)
        points, weights = (points + 1) / 2, weights / 2
    order = sorted(range(count), key=lambda i: _reversed_bits(i, count))
    return torch.from_numpy(points[order].copy()), torch.from_numpy(weights[order].copy())


def _reversed_bits(index: int, count: int) -> int:
    width = max(1, (count - 1).bit_length())
    return int(f"{index:0{width}b}"[::-1], 2)


def _change(task: Task, starts: tuple[Tensor, ...]) -> Tensor:
    """Return ``F(x) - F(x')`` of each sample, ``[N]``."""
    return precise(task.scores(task.inputs, task.every)) - precise(task.scores(starts, task.every))


def completeness(values: tuple[Tensor, ...], change: Tensor) -> Tensor:
    """Return ``sum(values) - change`` of each sample, ``[N]``."""
    summed = torch.stack([value.reshape(len(value), -1).sum(1) for value in values]).sum(0)
    return summed - change.to(summed.device)
