"""RISE: look at a sample through random soft masks; each place gets the mean score of those that show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  its name everywhere
from torch import Tensor

from nnviz_widget.engine.attribution.ablation import whole_number
from nnviz_widget.engine.attribution.registry import method
from nnviz_widget.engine.attribution.result import Part
from nnviz_widget.engine.attribution.segments import places_of
from nnviz_widget.engine.variants import Variants, outcomes
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nnviz_widget.engine.attribution.task import Task

__all__: list[str] = []

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@method("rise", cost="n_samples F", family="perturbation", paper="Petsiuk et al. 2018, arXiv:1806.07421")
def rise(
    task: Task,
    *,
    n_samples: int = 1000,
    grid: int = 7,
    p: float = 0.5,
    window: int = 0,
    baselines: Any = "zero",
    perturbations_per_eval: Any = "auto",
    seed: int = 0,
) -> Iterator[Part]:
    """Average the score over random soft masks, at each place over those that show it.

    Divided by the sum of the masks at each place, which the paper replaces by its expectation: the mean is
    the same, its error smaller.

    Options
    -------
    n_samples : int
        Random masks.
    grid : int
        Cells along each side of a mask, before it is enlarged smoothly and shifted at random. Along a shorter
        side each place is a cell.
    p : float
        Share of the cells that are shown.
    window : int
        Where it is not 0, each mask hides one square of that side at a random place and shows all else: only
        what the square reaches is computed anew. `grid` and `p` mean nothing then.
    baselines : str, number, Tensor or tuple
        What stands where nothing is shown.
    perturbations_per_eval : int or "auto"
        Masked samples in one pass.
    seed : int
        Of the masks.
    """
    count, samples = whole_number(n_samples, "n_samples"), task.samples
    cells = whole_number(grid, "grid")
    if not isinstance(p, (int, float)) or not 0 < p < 1:
        raise InputError(f"p is a share between 0 and 1, not {p!r}.")
    if type(window) is not int or window < 0:
        raise InputError(f"window is a whole number of places, or 0, not {window!r}.")
    starts = task.baselines(baselines, seed)
    generator = torch.Generator().manual_seed(seed)
    masks: list[_Masks | _Windows] = []
    for x in task.inputs:
        if window:
            masks.append(_Windows(x, count, window, generator, tokens=task.embedded))
        else:
            masks.append(_Masks(x, count, cells, p, generator, tokens=task.embedded))
    means = [_WeightedMean(samples) for _ in task.inputs]
    total = count * samples

    def make(start: int, stop: int) -> list[Tensor]:
        at = torch.arange(start, stop)
        made = []
        for x, baseline, drawn in zip(task.inputs, starts, masks, strict=True):
            hidden = task.rows(baseline, at % samples)
            made.append(torch.lerp(hidden, task.rows(x, at % samples), drawn.rows(at // samples)))
        return made

    def part(stop: int) -> Part:
        return Part(
            stop,
            total,
            lambda: task.like_inputs([mean.value() for mean in means]),
            stderr=lambda: task.like_inputs([mean.stderr() for mean in means]),
        )

    variants = Variants(torch.arange(total) % samples, make)
    for start, stop, found in outcomes(task, variants, size=perturbations_per_eval):
        at = torch.arange(start, stop)
        for mean, drawn in zip(means, masks, strict=True):
            mean.add(found, drawn.rows(at // samples), at % samples)
        if stop >= 2 * samples:
            yield part(stop)


class _Masks:
    """Random soft masks for one input, the same whatever the chunks."""

    def __init__(
        self, x: Tensor, count: int, cells: int, p: float, generator: torch.Generator, *, tokens: bool
    ) -> None:
        places = places_of(x, tokens=tokens)
        if len(places) > len(_MODES):
            raise InputError(f"RISE is for up to three axes besides the channels, not {len(places)}.")
        self._x = x
        self._sides = [x.shape[axis] for axis in places]
        self._shape = [size if axis in places else 1 for axis, size in enumerate(x.shape)][1:]
        # One cell more than the side needs, so that the grid can be shifted by up to a cell.
        coarse = len(places) > 0 and x.dim() > 2 and not tokens
        self._widths = [-(-side // cells) if coarse and side > cells else 1 for side in self._sides]
        grid = [
            cells + 1 if width > 1 else side for side, width in zip(self._sides, self._widths, strict=True)
        ]
        self._cells = (torch.rand(count, 1, *grid, generator=generator) < p).float()
        self._shifts = torch.stack(
            [torch.randint(width, (count,), generator=generator) for width in self._widths], 1
        )
        self._last: tuple[Tensor, Tensor] | None = None

    def rows(self, numbers: Tensor) -> Tensor:
        """Return masks from 0 (hidden) to 1 (shown) that broadcast to ``[B, ...]``."""
        if self._last is not None and torch.equal(self._last[0], numbers):
            return self._last[1]
        # Several samples share a mask.
        first, last = int(numbers[0]), int(numbers[-1]) + 1
        cells = self._cells[first:last].to(self._x.device)
        if any(width > 1 for width in self._widths):
            size = [cell * width for cell, width in zip(cells.shape[2:], self._widths, strict=True)]
            large = F.interpolate(cells, size=size, mode=_MODES[len(size)], align_corners=False)
            shifts = self._shifts[first:last].tolist()
            cells = torch.stack([self._cut(mask, shift) for mask, shift in zip(large, shifts, strict=True)])
        made = cells.reshape(-1, *self._shape).to(self._x.dtype)[(numbers - first).to(self._x.device)]
        self._last = (numbers, made)
        return made

    def _cut(self, mask: Tensor, shift: list[int]) -> Tensor:
        """Return the part of an enlarged mask that lies over the input."""
        slices = (slice(at, at + side) for at, side in zip(shift, self._sides, strict=True))
        return mask[(slice(None), *slices)]


class _Windows:
    """Masks that hide one square each, and show all else."""

    def __init__(self, x: Tensor, count: int, side: int, generator: torch.Generator, *, tokens: bool) -> None:
        places = places_of(x, tokens=tokens)
        sides = [x.shape[axis] for axis in places]
        self._x, self._side = x, side
        self._lines = [
            [size if axis == place else 1 for axis, size in enumerate(x.shape)][1:] for place in places
        ]
        # Partly outside at the edges: every place is hidden as often.
        self._begins = [
            torch.randint(min(side, size) + size - 1, (count,), generator=generator) - min(side, size) + 1
            for size in sides
        ]

    def rows(self, numbers: Tensor) -> Tensor:
        """Return masks, 0 where they hide and 1 where they show, that broadcast to ``[B, ...]``."""
        hidden = torch.ones(1, dtype=torch.bool)
        for line, begins in zip(self._lines, self._begins, strict=True):
            at = torch.arange(max(line)).reshape(line)
            begin = begins[numbers].reshape(-1, *[1] * len(line))
            hidden = hidden & (at >= begin) & (at < begin + self._side)
        return (~hidden).to(self._x.device, self._x.dtype)


class _WeightedMean:
    """Mean of a number over rows, at each place weighted by a mask, and its standard error.

    Parameters
    ----------
    samples : int
        N.
    """

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._sums: Tensor | None = None

    def add(self, numbers: Tensor, masks: Tensor, rows: Tensor) -> None:
        """Take ``[B]`` numbers and masks, ``[B, ...]``, of these samples."""
        exact = torch.float32 if masks.device.type == "mps" else torch.float64
        numbers, masks = numbers.to(masks.device, exact), masks.to(exact)
        of = torch.zeros(self._samples, len(rows), dtype=exact, device=masks.device)
        of[rows.to(masks.device), torch.arange(len(rows), device=masks.device)] = 1
        flat = masks.flatten(1)
        squares = flat.square()
        found = torch.stack([
            of @ flat, (of * numbers) @ flat,
            of @ squares, (of * numbers) @ squares, (of * numbers.square()) @ squares,
        ])  # fmt: skip
        found = found.reshape(5, self._samples, *masks.shape[1:])
        self._sums = found if self._sums is None else self._sums + found

    def value(self) -> Tensor:
        """Return the mean; 0 where no mask has shown anything."""
        assert self._sums is not None
        return self._sums[1] / self._sums[0].clamp(min=1e-12)

    def stderr(self) -> Tensor:
        """Return the standard error of a ratio of two sums."""
        assert self._sums is not None
        mean = self.value()
        _, _, ones, numbers, squares = self._sums
        spread: Tensor = (squares - 2 * mean * numbers + mean.square() * ones).clamp(min=0)
        return spread.sqrt() / self._sums[0].clamp(min=1e-12)
