"""Surrogates: a linear model of what happens when features are left out (KernelSHAP and LIME).

Both run the sample with random sets of its features replaced by the baseline and fit one weight per feature
by least squares, in closed form and again with every part of a stream. They differ in which sets they draw,
how much each counts, and what the fit must hold to.
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnviz_widget.engine.attribution.ablation import whole_number
from nnviz_widget.engine.attribution.features import Features
from nnviz_widget.engine.attribution.registry import method
from nnviz_widget.engine.attribution.result import Part
from nnviz_widget.engine.variants import Variants, outcomes
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nnviz_widget.engine.attribution.task import Task

__all__: list[str] = []

#: Share of the mean diagonal that decides a fit which has fewer equations than unknowns.
_TIE = 1e-9


@method(
    "kernel_shap", cost="n_samples F", family="surrogate", paper="Lundberg and Lee 2017, arXiv:1705.07874"
)
def kernel_shap(
    task: Task,
    *,
    feature_mask: Any = "auto",
    baselines: Any = "zero",
    n_samples: int = 1000,
    n_segments: int = 64,
    perturbations_per_eval: Any = "auto",
    seed: int = 0,
) -> Iterator[Part]:
    """Estimate Shapley values by a linear fit to random sets of features; exact where all sets are run.

    The weights add up to the change of the score from the baseline. Sets are drawn with their complements,
    in proportion to the kernel; where there are at most `n_samples` of them, each is run once.

    Options
    -------
    feature_mask : str, Tensor or tuple of Tensor
        ``"auto"`` takes superpixels of an image, tokens of a text, else elements or cells; ``"slic"``,
        ``"grid"``; whole numbers that are equal where elements go together; None takes each element.
    baselines : str, number, Tensor or tuple
        What stands for a feature that is left out.
    n_samples : int
        Sets of features to run.
    n_segments : int
        About how many superpixels or cells.
    perturbations_per_eval : int or "auto"
        Sets in one pass.
    seed : int
        Of the sets.
    """
    count = whole_number(n_samples, "n_samples")
    starts = task.baselines(baselines, seed)
    features = Features(task, feature_mask, n_segments)
    nothing = task.scores(starts, task.every).double().cpu()
    change = task.scores(task.inputs, task.every).double().cpu() - nothing
    draws = [_shapley_sets(each, count, seed) for each in features.counts.tolist()]
    asked = _Asked(task, features, starts, draws)

    def fitted(sample: int, seen: int) -> tuple[Tensor, Tensor]:
        draw, worth = draws[sample], asked.scores[:seen, sample] - nothing[sample]
        return _constrained(draw.sets[:seen], draw.weights[:seen], worth, change[sample], draw.every)

    for stop, seen in asked.run(perturbations_per_eval):
        if seen or stop == asked.total:
            yield asked.part(stop, seen, fitted, change)


@method("lime", cost="n_samples F", family="surrogate", paper="Ribeiro et al. 2016, arXiv:1602.04938")
def lime(
    task: Task,
    *,
    feature_mask: Any = "auto",
    baselines: Any = "zero",
    n_samples: int = 1000,
    kernel_width: float = 0.25,
    alpha: float = 0.01,
    n_segments: int = 64,
    perturbations_per_eval: Any = "auto",
    seed: int = 0,
) -> Iterator[Part]:
    """Fit a linear model to the score of random sets of features, those like the whole sample counting most.

    A ridge regression with an intercept; the first set is the whole sample, the others keep each feature
    with probability one half. A set counts ``sqrt(exp(-d^2 / kernel_width^2))``, with d the cosine distance
    to the whole.

    Options
    -------
    feature_mask : str, Tensor or tuple of Tensor
        As of kernel_shap.
    baselines : str, number, Tensor or tuple
        What stands for a feature that is left out.
    n_samples : int
        Sets of features to run.
    kernel_width : float
        How fast sets count less the more they lack.
    alpha : float
        Strength of the ridge.
    n_segments : int
        About how many superpixels or cells.
    perturbations_per_eval : int or "auto"
        Sets in one pass.
    seed : int
        Of the sets.
    """
    count = whole_number(n_samples, "n_samples")
    if not isinstance(kernel_width, (int, float)) or kernel_width <= 0:
        raise InputError(f"kernel_width is a number above 0, not {kernel_width!r}.")
    if not isinstance(alpha, (int, float)) or alpha < 0:
        raise InputError(f"alpha is a number from 0, not {alpha!r}.")
    starts = task.baselines(baselines, seed)
    features = Features(task, feature_mask, n_segments)
    draws = [_random_sets(each, count, kernel_width, seed) for each in features.counts.tolist()]
    asked = _Asked(task, features, starts, draws)

    def fitted(sample: int, seen: int) -> tuple[Tensor, Tensor]:
        draw = draws[sample]
        return _ridge(draw.sets[:seen], draw.weights[:seen], asked.scores[:seen, sample], alpha)

    for stop, seen in asked.run(perturbations_per_eval):
        if seen > 1 or stop == asked.total:
            yield asked.part(stop, seen, fitted)


class _Sets:
    """Sets of features of one sample.

    Attributes
    ----------
    sets : Tensor
        Which features each has, ``[S, M]``, truth values.
    weights : Tensor
        How much each counts, ``[S]``, float64.
    every : bool
        Whether these are all there are.
    """

    def __init__(self, sets: Tensor, weights: Tensor, *, every: bool = False) -> None:
        self.sets, self.weights, self.every = sets, weights, every


class _Asked:
    """Runs sets of features of all samples, a set of each sample in turn, and keeps the scores."""

    def __init__(
        self, task: Task, features: Features, starts: Sequence[Tensor], draws: Sequence[_Sets]
    ) -> None:
        self._task, self._features, self._starts, self._draws = task, features, starts, draws
        self._longest = max(len(draw.sets) for draw in draws)
        # Samples with fewer features may have fewer sets: their rows are left out.
        rows = torch.arange(self._longest * task.samples)
        lengths = torch.tensor([len(draw.sets) for draw in draws])
        self._cells = rows[rows // task.samples < lengths[rows % task.samples]]
        self.total = len(self._cells)
        self.scores = torch.zeros(self._longest, task.samples, dtype=torch.float64)
        same = all(draw is draws[0] or torch.equal(draw.sets, draws[0].sets) for draw in draws)
        if same:
            self._sets = draws[0].sets[:, None].expand(-1, task.samples, -1)
        else:
            self._sets = torch.ones(self._longest, task.samples, features.count, dtype=torch.bool)
            for sample, draw in enumerate(draws):
                self._sets[: len(draw.sets), sample, : draw.sets.shape[1]] = draw.sets

    def run(self, size: Any) -> Iterator[tuple[int, int]]:
        """Yield how many rows are done, and up to which set all samples are."""
        samples = self._task.samples

        def make(start: int, stop: int) -> list[Tensor]:
            cells = self._cells[start:stop]
            rows = cells % samples
            missing = ~self._sets[cells // samples, rows]
            return self._features.replaced(self._features.elements(missing, rows), self._starts, rows)

        flat = self.scores.view(-1)
        for start, stop, found in outcomes(self._task, Variants(self._cells % samples, make), size=size):
            flat[self._cells[start:stop]] = found.double().cpu()
            yield stop, self._longest if stop == self.total else int(self._cells[stop]) // samples
        if not self.total:
            yield 0, 0

    def part(self, stop: int, seen: int, fitted: Any, change: Tensor | None = None) -> Part:
        """Return what is known from the first sets of each sample."""
        kept: list[tuple[Tensor, Tensor]] = []

        def both(which: int) -> Tensor:
            if not kept:
                padded = torch.zeros(2, len(self._draws), self._features.count, dtype=torch.float64)
                for sample in range(len(self._draws)):
                    for i, found in enumerate(fitted(sample, seen)):
                        padded[i, sample, : len(found)] = found
                kept.append((padded[0], padded[1]))
            return kept[0][which]

        sampled = not all(draw.every for draw in self._draws)
        return Part(
            stop,
            self.total,
            lambda: self._features.spread(both(0)),
            delta=None if change is None else lambda: self._task.like_scores(both(0).sum(1) - change),
            stderr=(lambda: self._features.spread(both(1))) if sampled else None,
        )


def _shapley_sets(count: int, wanted: int, seed: int) -> _Sets:
    """Return sets and their complements, drawn in proportion to the Shapley kernel, or all of them."""
    if count == 1:
        return _Sets(torch.ones(0, 1, dtype=torch.bool), torch.ones(0, dtype=torch.float64), every=True)
    if count < 63 and 2**count - 2 <= wanted:
        return _every_set(count)
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.arange(1, count)
    chances = 1 / (sizes * (count - sizes)).double()
    pairs = (wanted + 1) // 2
    drawn = sizes[torch.multinomial(chances, pairs, replacement=True, generator=generator)]
    places = torch.rand(pairs, count, generator=generator).argsort(1).argsort(1)
    sets = places < drawn[:, None]
    both = torch.stack([sets, ~sets], 1).flatten(0, 1)[:wanted]
    return _Sets(both, torch.ones(len(both), dtype=torch.float64))


def _every_set(count: int) -> _Sets:
    """Return all sets but the empty and the full one, the smallest and largest first."""
    sets, weights = [], []
    for size in range(1, count // 2 + 1):
        weight = (count - 1) / (comb(count, size) * size * (count - size))
        for members in combinations(range(count), size):
            chosen = torch.zeros(count, dtype=torch.bool)
            chosen[list(members)] = True
            pair = [chosen, ~chosen]
            if 2 * size == count and not chosen[0]:
                continue  # it came as the complement of another
            sets += pair
            weights += [weight] * 2
    return _Sets(torch.stack(sets), torch.tensor(weights, dtype=torch.float64), every=True)


def _random_sets(count: int, wanted: int, width: float, seed: int) -> _Sets:
    """Return the whole sample and random sets, with how much they are like it."""
    generator = torch.Generator().manual_seed(seed)
    sets = torch.rand(wanted, count, generator=generator) < 0.5
    sets[0] = True
    distances = 1 - (sets.sum(1).double() / count).sqrt()
    return _Sets(sets, torch.exp(-0.5 * (distances / width) ** 2))


def _constrained(
    sets: Tensor, weights: Tensor, worth: Tensor, change: Tensor, every: bool
) -> tuple[Tensor, Tensor]:
    """Return weights of features that add up to `change` and fit best, and their standard errors.

    Parameters
    ----------
    sets, weights : Tensor
        ``[S, M]`` and ``[S]``; a set and its complement follow each other.
    worth : Tensor
        Score of each set above that of none, ``[S]``.
    change : Tensor
        Score of all features above that of none.
    every : bool
        Whether these are all sets: then there is no error.
    """
    count = sets.shape[1]
    if not len(sets):
        return change.reshape(1) / count * torch.ones(count).double(), torch.full((count,), torch.inf)
    z = sets.double()
    even = change / count
    gram = z.T @ (weights[:, None] * z)
    gram += _TIE * gram.diagonal().mean() * torch.eye(count, dtype=torch.float64)
    inverse = torch.linalg.inv(gram)
    # Where the sets leave the fit open, all features share alike.
    ones = inverse.sum(1)
    projector = inverse - torch.outer(ones, ones) / ones.sum()
    values = even + projector @ (z.T @ (weights * (worth - z.sum(1) * even)))
    if every:
        return values, torch.zeros(count, dtype=torch.float64)
    residuals = weights * (worth - z @ values)
    return values, _sandwich(projector, z * residuals[:, None], pairs=True)


def _ridge(sets: Tensor, weights: Tensor, scores: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Return the weights of features in a ridge regression with an intercept, and their standard errors."""
    shares = weights / weights.sum()
    z = sets.double()
    z = z - shares @ z
    y = scores - shares @ scores
    count = z.shape[1]
    gram = z.T @ (weights[:, None] * z)
    tie = max(alpha, _TIE * float(gram.diagonal().mean()), 1e-30)
    inverse = torch.linalg.inv(gram + tie * torch.eye(count, dtype=torch.float64))
    values = inverse @ (z.T @ (weights * y))
    residuals = weights * (y - z @ values)
    return values, _sandwich(inverse, z * residuals[:, None])


def _sandwich(bread: Tensor, rows: Tensor, *, pairs: bool = False) -> Tensor:
    """Return standard errors of a fit whose residuals may differ in size (Huber and White).

    Parameters
    ----------
    bread : Tensor
        Inverse of the normal equations, ``[M, M]``.
    rows : Tensor
        Each row's share in their gradient, ``[S, M]``.
    pairs : bool
        Whether two rows that follow each other were drawn together.
    """
    if pairs:
        rows = torch.cat([rows, rows.new_zeros(len(rows) % 2, rows.shape[1])])
        rows = rows.reshape(-1, 2, rows.shape[1]).sum(1)
    count, features = rows.shape
    if count <= features:
        return torch.full((features,), torch.inf, dtype=torch.float64)
    errors = (rows @ bread).square().sum(0) * count / (count - features)
    return errors.sqrt()
