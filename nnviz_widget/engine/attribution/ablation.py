"""Leave features out: one at a time, shuffled over the batch, or in every company (Shapley values)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnviz_widget.engine.attribution.features import Features
from nnviz_widget.engine.attribution.registry import method
from nnviz_widget.engine.attribution.result import Part
from nnviz_widget.engine.attribution.windows import spread_out
from nnviz_widget.engine.variants import Variants, outcomes
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nnviz_widget.engine.attribution.task import Task

__all__ = ["stderr_of", "whole_number"]


@method("feature_ablation", cost="one F per feature", family="perturbation")
def feature_ablation(
    task: Task,
    *,
    feature_mask: Any = None,
    baselines: Any = "zero",
    n_segments: int = 64,
    perturbations_per_eval: Any = "auto",
    seed: int = 0,
) -> Iterator[Part]:
    """Replace one feature after another by the baseline, and see how far the score falls without it.

    Options
    -------
    feature_mask : Tensor, tuple of Tensor, str or None
        Whole numbers that are equal where elements go together; ``"slic"`` (superpixels), ``"grid"``, or
        ``"auto"``; None asks for each element.
    baselines : str, number, Tensor or tuple
        What stands for a feature that is left out.
    n_segments : int
        About how many superpixels or cells.
    perturbations_per_eval : int or "auto"
        Features left out in one pass.
    seed : int
        Of a baseline of noise.
    """
    starts = task.baselines(baselines, seed)
    features = Features(task, feature_mask, n_segments)
    samples, total = task.samples, features.count * task.samples
    original = task.scores(task.inputs, task.every).double().cpu()
    order = spread_out(features.count)
    scores = torch.zeros(features.count, samples, dtype=torch.float64)

    def make(start: int, stop: int) -> list[Tensor]:
        at = torch.arange(start, stop)
        rows = at % samples
        return features.replaced(features.which(order[at // samples], rows), starts, rows)

    def part(stop: int) -> Part:
        def values() -> tuple[Tensor, ...]:
            falls = (original - scores[: stop // samples]).T
            return features.spread(falls[:, _nearest(order, stop // samples)])

        return Part(stop, total, values)

    variants = Variants(torch.arange(total) % samples, make)
    flat = scores.view(-1)
    for start, stop, found in outcomes(task, variants, size=perturbations_per_eval, first=samples):
        flat[start:stop] = found.double().cpu()
        if stop >= samples:
            yield part(stop)


@method(
    "feature_permutation",
    cost="n_repeats F per feature",
    family="perturbation",
    paper="Fisher et al. 2019, arXiv:1801.01489",
)
def feature_permutation(
    task: Task,
    *,
    feature_mask: Any = None,
    n_repeats: int = 10,
    n_segments: int = 64,
    perturbations_per_eval: Any = "auto",
    seed: int = 0,
) -> Iterator[Part]:
    """Swap one feature after another between the samples, and see how far the score falls on average.

    Options
    -------
    feature_mask : Tensor, tuple of Tensor, str or None
        As of feature_ablation.
    n_repeats : int
        Permutations of the batch for each feature.
    n_segments : int
        About how many superpixels or cells.
    perturbations_per_eval : int or "auto"
        Rows in one pass.
    seed : int
        Of the permutations.
    """
    repeats = whole_number(n_repeats, "n_repeats")
    samples = task.samples
    if samples < 2:
        raise InputError(
            "feature_permutation shuffles features over the batch, and there is only one sample.",
            hint="Pass several samples, or use feature_ablation.",
        )
    features = Features(task, feature_mask, n_segments)
    count = features.count
    generator = torch.Generator().manual_seed(seed)
    sources = torch.stack([_permutation(samples, generator) for _ in range(repeats * count)])
    original = task.scores(task.inputs, task.every).double().cpu()
    falls = torch.zeros(repeats, count, samples, dtype=torch.float64)
    total = falls.numel()

    def make(start: int, stop: int) -> list[Tensor]:
        at = torch.arange(start, stop)
        rows, shuffles = at % samples, at // samples
        donors = sources[shuffles, rows]
        where = features.which(shuffles % count, rows)
        return [
            torch.where(other, task.rows(x, donors), task.rows(x, rows))
            for other, x in zip(where, task.inputs, strict=True)
        ]

    def part(stop: int) -> Part:
        seen = falls[: stop // (count * samples)]
        return Part(
            stop,
            total,
            lambda: features.spread(seen.mean(0).T),
            stderr=lambda: features.spread(stderr_of(seen).T),
        )

    variants = Variants(torch.arange(total) % samples, make)
    flat = falls.view(-1)
    first = count * samples
    for start, stop, found in outcomes(task, variants, size=perturbations_per_eval, first=first):
        rows = torch.arange(start, stop) % samples
        flat[start:stop] = original[rows] - found.double().cpu()
        if stop >= first:
            yield part(stop)


@method(
    "shapley_value_sampling",
    cost="n_samples F per feature",
    family="perturbation",
    paper="Castro et al. 2009, doi:10.1016/j.cor.2008.04.004",
)
def shapley_value_sampling(
    task: Task,
    *,
    feature_mask: Any = None,
    baselines: Any = "zero",
    n_samples: int = 25,
    n_segments: int = 64,
    perturbations_per_eval: Any = "auto",
    seed: int = 0,
) -> Iterator[Part]:
    """Add features to the baseline in random orders, and see how much each adds on average.

    Options
    -------
    feature_mask : Tensor, tuple of Tensor, str or None
        As of feature_ablation.
    baselines : str, number, Tensor or tuple
        What stands for a feature that is not there yet.
    n_samples : int
        Random orders.
    n_segments : int
        About how many superpixels or cells.
    perturbations_per_eval : int or "auto"
        Rows in one pass.
    seed : int
        Of the orders.
    """
    orders = whole_number(n_samples, "n_samples")
    starts = task.baselines(baselines, seed)
    features = Features(task, feature_mask, n_segments)
    count, samples = features.count, task.samples
    generator = torch.Generator().manual_seed(seed)
    # When each feature comes, in each order.
    turns = torch.stack([torch.randperm(count, generator=generator) for _ in range(orders)])
    # Nothing and everything are the same in every order; the steps between them are run.
    nothing = task.scores(starts, task.every).double().cpu()
    everything = task.scores(task.inputs, task.every).double().cpu()
    steps = count - 1
    between = torch.zeros(orders, steps, samples, dtype=torch.float64)
    total = between.numel()

    def make(start: int, stop: int) -> list[Tensor]:
        at = torch.arange(start, stop)
        rows, step = at % samples, at // samples % steps
        missing = turns[at // (samples * steps)] > step[:, None]
        return features.replaced(features.elements(missing, rows), starts, rows)

    def part(stop: int) -> Part:
        seen = stop // (steps * samples) if steps else orders

        def added() -> Tensor:
            ends = [edge.expand(seen, 1, samples) for edge in (nothing, everything)]
            gains = torch.cat([ends[0], between[:seen], ends[1]], 1).diff(dim=1)
            return gains.gather(1, turns[:seen, :, None].expand(-1, -1, samples))

        return Part(
            stop,
            total,
            lambda: features.spread(added().mean(0).T),
            delta=lambda: task.like_scores(added().mean(0).sum(0) - (everything - nothing)),
            stderr=lambda: features.spread(stderr_of(added()).T),
        )

    if not steps:
        yield part(total)
    variants = Variants(torch.arange(total) % samples, make)
    flat = between.view(-1)
    first = steps * samples
    for start, stop, found in outcomes(task, variants, size=perturbations_per_eval, first=first):
        flat[start:stop] = found.double().cpu()
        if stop >= first:
            yield part(stop)


def whole_number(given: Any, name: str) -> int:
    """Return a count that must be a whole number from 1."""
    if type(given) is not int or given < 1:
        raise InputError(f"{name} is a whole number from 1, not {given!r}.")
    return given


def stderr_of(rows: Tensor) -> Tensor:
    """Return the standard error of the mean over the first axis; infinite from a single row."""
    if len(rows) < 2:
        return torch.full_like(rows[0], torch.inf)
    return rows.std(0).div(len(rows) ** 0.5)


def _permutation(count: int, generator: torch.Generator) -> Tensor:
    """Return a permutation that moves something."""
    while True:
        drawn = torch.randperm(count, generator=generator)
        if not torch.equal(drawn, torch.arange(count)):
            return drawn


def _nearest(order: Tensor, done: int) -> Tensor:
    """Return for each feature the place in `order` of the last one up to it among those that are done."""
    known, places = order[:done].sort()
    last: Tensor = torch.searchsorted(known, torch.arange(len(order)), right=True) - 1
    return places.index_select(0, last)
