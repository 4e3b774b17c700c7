"""Occlusion: hide one window of the input after another, from coarse to fine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnviz_widget.engine.attribution.registry import method
from nnviz_widget.engine.attribution.result import Part
from nnviz_widget.engine.attribution.segments import places_of
from nnviz_widget.engine.attribution.windows import Order, Windows, windows_over
from nnviz_widget.engine.variants import Variants, outcomes
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nnviz_widget.engine.attribution.task import Task

__all__: list[str] = []


@method(
    "occlusion",
    cost="one F per window",
    family="perturbation",
    paper="Zeiler and Fergus 2013, arXiv:1311.2901",
)
def occlusion(
    task: Task,
    *,
    sliding_window_shapes: Any = None,
    strides: Any = None,
    baselines: Any = "zero",
    perturbations_per_eval: Any = "auto",
    seed: int = 0,
) -> Iterator[Part]:
    """Hide one window of the input after another, and see how far the score falls without it.

    Options
    -------
    sliding_window_shapes : int, tuple of int, or one for each input
        Sizes of the window along the axes of a sample. Without its channels, or as one number, it covers all
        channels. By default an eighth of each side; of a table one feature, of a text one token.
    strides : int, tuple of int, or one for each input
        Steps between windows, at most their sizes: 1 for a window that was given, else half the window.
    baselines : str, number, Tensor or tuple
        What stands in the window instead.
    perturbations_per_eval : int or "auto"
        Windows in one pass.
    seed : int
        Of a baseline of noise.
    """
    starts = task.baselines(baselines, seed)
    grids = _grids(task, sliding_window_shapes, strides)
    order = Order(grids)
    samples, total = task.samples, len(order.numbers) * task.samples
    original = task.scores(task.inputs, task.every).double().cpu()
    scores = torch.zeros(total, dtype=torch.float64)

    def make(start: int, stop: int) -> list[Tensor]:
        at = torch.arange(start, stop)
        rows, windows = at % samples, at // samples
        made = []
        for i, (x, baseline, grid) in enumerate(zip(task.inputs, starts, grids, strict=True)):
            numbers = torch.where(order.inputs[windows] == i, order.numbers[windows], -1)
            hidden = grid.masks(numbers, x.device)
            made.append(torch.where(hidden, task.rows(baseline, rows), task.rows(x, rows)))
        return made

    def part(stop: int) -> Part:
        def values() -> tuple[Tensor, ...]:
            found = order.filled(scores.view(-1, samples), stop // samples)
            falls = [original.reshape(-1, *[1] * (each.dim() - 1)) - each for each in found]
            maps = [grid.averaged(fall) for grid, fall in zip(grids, falls, strict=True)]
            return task.like_inputs(maps)

        return Part(stop, total, values)

    variants = Variants(torch.arange(total) % samples, make)
    first = order.first * samples
    for start, stop, found in outcomes(task, variants, size=perturbations_per_eval, first=first):
        scores[start:stop] = found.double().cpu()
        if stop >= first:
            yield part(stop)


def _grids(task: Task, shapes: Any, strides: Any) -> list[Windows]:
    """Return the windows over each input."""
    count = len(task.inputs)
    grids = []
    for x, window, stride in zip(
        task.inputs,
        _for_inputs(shapes, count, "sliding_window_shapes"),
        _for_inputs(strides, count, "strides"),
        strict=True,
    ):
        places = [axis - 1 for axis in places_of(x, tokens=task.embedded)]
        grids.append(windows_over(x.shape[1:], window, stride, places, task.embedded))
    return grids


def _for_inputs(given: Any, count: int, name: str) -> list[Any]:
    """Return what was said of each input."""
    if given is None or type(given) is int:
        return [given] * count
    if not isinstance(given, (tuple, list)):
        raise InputError(f"{name}={given!r} must be a whole number, or one for each axis of a sample.")
    if count == 1:
        return [given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given]
    if len(given) != count:
        raise InputError(f"{name} has {len(given)} entries for {count} inputs.")
    return list(given)
