"""Windows that slide over an input: where they lie, in which order they are run, and their average.

Geometry only. Windows are Captum's: they begin at multiples of the stride, and the last one is cut off at the
edge. They lie on a regular grid, so a window is hidden, and a map averaged over windows, axis by axis.
"""

from __future__ import annotations

from math import ceil, prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Order", "Windows", "spread_out", "windows_over"]

#: The first map is there after about this share of the windows.
_FIRST = 1 / 20


class Windows:
    """The windows over one input.

    Parameters
    ----------
    shape : sequence of int
        Of one sample.
    sizes, strides : sequence of int
        Of the window and of its steps, along each axis of the sample.

    Attributes
    ----------
    counts : tuple of int
        How many windows there are along each axis.
    """

    def __init__(self, shape: Sequence[int], sizes: Sequence[int], strides: Sequence[int]) -> None:
        given = list(zip(shape, sizes, strides, strict=True))
        if not all(1 <= size <= side for side, size, _ in given):
            raise InputError(
                f"A window of {tuple(sizes)} does not fit into a sample of {tuple(shape)}.",
                hint="sliding_window_shapes has one size for each axis, or leaves out the channels.",
            )
        if not all(stride >= 1 and (stride <= size or size == side) for side, size, stride in given):
            raise InputError(
                f"Steps of {tuple(strides)} leave gaps between windows of {tuple(sizes)}.",
                hint="strides are from 1 to the size of the window.",
            )
        self.counts = tuple(ceil((side - size) / stride) + 1 for side, size, stride in given)
        # Along each axis: which window (row) lies over which place (column).
        self._covers = [
            _cover(side, size, stride, count)
            for (side, size, stride), count in zip(given, self.counts, strict=True)
        ]

    def __len__(self) -> int:
        return prod(self.counts)

    def masks(self, numbers: Tensor, device: torch.device) -> Tensor:
        """Return where each window lies.

        Parameters
        ----------
        numbers : Tensor
            Which windows, ``[B]``; -1 is none.
        device : torch.device
            Where the masks are wanted.

        Returns
        -------
        Tensor
            Truth values that broadcast to ``[B, *shape]``.
        """
        hidden = (numbers >= 0).to(device).reshape(-1, *[1] * len(self.counts))
        for axis, at in enumerate(self.indices(numbers.clamp(min=0))):
            if self.counts[axis] > 1 or not self._covers[axis].all():
                lines = self._covers[axis][at].to(device)
                hidden = hidden & lines.reshape(len(at), *_along(axis, len(self.counts), lines.shape[1]))
        return hidden

    def averaged(self, falls: Tensor) -> Tensor:
        """Return at each place the mean over the windows that cover it.

        Parameters
        ----------
        falls : Tensor
            A number for each sample and window, ``[N, *counts]``, float64.

        Returns
        -------
        Tensor
            ``[N, *shape]``.
        """
        for axis, cover in enumerate(self._covers):
            weights = cover.to(falls.dtype)
            weights /= weights.sum(0)
            falls = torch.tensordot(falls, weights, dims=([axis + 1], [0])).movedim(-1, axis + 1)
        return falls

    def indices(self, numbers: Tensor) -> tuple[Tensor, ...]:
        """Return the place of windows in the grid: for each axis ``[B]``."""
        found = []
        for count in reversed(self.counts):
            found.append(numbers % count)
            numbers = numbers // count
        return tuple(reversed(found))


class Order:
    """All windows of all inputs from coarse to fine, and what stands for those still to come.

    Parameters
    ----------
    grids : sequence of Windows
        One for each input.

    Attributes
    ----------
    inputs, numbers : Tensor
        The input and the number of each window, in the order in which they are run.
    first : int
        After how many there is a map.
    """

    def __init__(self, grids: Sequence[Windows]) -> None:
        total = sum(len(grid) for grid in grids)
        self._levels = [_levels(grid, max(1, int(len(grid) * _FIRST))) for grid in grids]
        depth = max(len(levels) for levels in self._levels)
        order: list[Tensor] = []
        self._ends: list[int] = []
        offsets = [sum(len(grid) for grid in grids[:i]) for i in range(len(grids))]
        for level in range(depth):
            for levels, offset in zip(self._levels, offsets, strict=True):
                if level < len(levels):
                    order.append(levels[level].new + offset)
            self._ends.append(sum(len(part) for part in order))
        # Position in the order of each window, the windows of all inputs numbered through.
        places = torch.cat(order)
        assert len(places) == total
        bounds = torch.tensor([*offsets, total])
        self.inputs = torch.bucketize(places, bounds[1:], right=True)
        self.numbers = places - bounds[self.inputs]
        self.first = self._ends[0]
        self._position = torch.empty(total, dtype=torch.long)
        self._position[places] = torch.arange(total)
        self._grids, self._offsets = list(grids), offsets

    def filled(self, scores: Tensor, done: int) -> list[Tensor]:
        """Return a score for each window of each input, where only the first ones are known.

        Parameters
        ----------
        scores : Tensor
            ``[V, N]``, in the order of the windows.
        done : int
            How many of them are known; at least `first`.

        Returns
        -------
        list of Tensor
            ``[N, *counts]`` for each input.
        """
        finished = sum(end <= done for end in self._ends) - 1
        found = []
        for grid, levels, offset in zip(self._grids, self._levels, self._offsets, strict=True):
            position = self._position[offset : offset + len(grid)].reshape(grid.counts)
            known = scores[position].movedim(-1, 0)
            guess = levels[min(finished, len(levels) - 1)].between(known)
            found.append(torch.where(position < done, known, guess))
        return found


class _Level:
    """Windows at a regular distance along each axis.

    Parameters
    ----------
    new : Tensor
        The numbers of those that are not in the level before.
    picked : sequence of Tensor
        Their places along each axis.
    counts : sequence of int
        How many windows there are in all along each axis.
    """

    def __init__(self, new: Tensor, picked: Sequence[Tensor], counts: Sequence[int]) -> None:
        self.new = new
        self._picked = picked
        self._weights = [_linear(some, count) for some, count in zip(picked, counts, strict=True)]

    def between(self, scores: Tensor) -> Tensor:
        """Return scores of all windows, ``[N, *counts]``, from those of this level, linearly."""
        for axis, (some, weights) in enumerate(zip(self._picked, self._weights, strict=True)):
            chosen = scores.index_select(axis + 1, some)
            scores = torch.tensordot(chosen, weights, dims=([axis + 1], [0])).movedim(-1, axis + 1)
        return scores


def _linear(some: Tensor, count: int) -> Tensor:
    """Return the weights of linear interpolation from some places to all, ``[some, count]``, float64."""
    every = torch.arange(count)
    right = torch.searchsorted(some, every).clamp(max=len(some) - 1)
    left = (right - 1).clamp(min=0)
    gap = (some[right] - some[left]).clamp(min=1)
    share = ((every - some[left]) / gap).clamp(0, 1).double()
    weights = torch.zeros(len(some), count, dtype=torch.float64)
    weights[left, every] = 1 - share
    weights[right, every] += share
    return weights


def _levels(grid: Windows, first: int) -> list[_Level]:
    """Return levels from few windows to all, the first of them with at most `first`."""
    step = 1
    while prod(len(_picked(count, step, step)) for count in grid.counts) > first:
        step *= 2
    coarsest, levels, seen = step, [], torch.zeros(grid.counts, dtype=torch.bool)
    while step:
        picked = [_picked(count, step, coarsest) for count in grid.counts]
        inside = torch.zeros(grid.counts, dtype=torch.bool)
        inside[torch.meshgrid(*picked, indexing="ij")] = True
        new = (inside & ~seen).flatten().nonzero()[:, 0]
        # All over the picture, not from its top to its bottom.
        levels.append(_Level(new[spread_out(len(new))], picked, grid.counts))
        seen |= inside
        step //= 2
    return levels


def spread_out(count: int) -> Tensor:
    """Return the numbers below `count`, each far from those just before it (van der Corput)."""
    width = max(1, (count - 1).bit_length())
    order = sorted(range(count), key=lambda number: int(f"{number:0{width}b}"[::-1], 2))
    return torch.tensor(order, dtype=torch.long)


def _picked(count: int, step: int, coarsest: int) -> Tensor:
    """Return every step-th of `count` indices; each finer choice contains the coarser ones."""
    middle = min(coarsest, count) // 2
    return torch.arange(middle % step, count, step)


def _cover(side: int, size: int, stride: int, count: int) -> Tensor:
    begins, places = torch.arange(count)[:, None] * stride, torch.arange(side)
    return (places >= begins) & (places < begins + size)


def _along(axis: int, axes: int, size: int) -> list[int]:
    return [size if i == axis else 1 for i in range(axes)]


def windows_over(
    shape: Sequence[int], given: Any, strides: Any, places: Sequence[int], tokens: bool
) -> Windows:
    """Return the windows over one input, from what the user said of them.

    Parameters
    ----------
    shape : sequence of int
        Of one sample.
    given : int, tuple of int, or None
        Sizes of the window: for each axis, or without the channels, or one for all axes but the channels.
    strides : int, tuple of int, or None
        Steps, likewise.
    places : sequence of int
        Which axes of the sample are places, not channels.
    tokens : bool
        Whether the first axis counts tokens, which are hidden one by one if nothing is said.
    """
    sizes = _each_axis(given, shape, places, "sliding_window_shapes")
    steps = _each_axis(strides, shape, places, "strides")
    if sizes is None:
        share = 1 if tokens or len(shape) == 1 else 8
        sizes = list(shape)
        for axis in places:
            sizes[axis] = 1 if share == 1 else max(1, round(shape[axis] / share))
        if steps is None:
            steps = [max(1, size // 2) if axis in places else size for axis, size in enumerate(sizes)]
    return Windows(shape, sizes, steps if steps is not None else [1] * len(shape))


def _each_axis(given: Any, shape: Sequence[int], places: Sequence[int], name: str) -> list[int] | None:
    """Return a number for each axis of a sample; channels that were left out are covered whole."""
    if given is None:
        return None
    numbers = list(given) if isinstance(given, (tuple, list)) else None
    if numbers is None and type(given) is int:
        if name == "strides":
            return [given] * len(shape)
        numbers = [given] * len(places)
    if numbers is None or not all(type(number) is int for number in numbers):
        raise InputError(f"{name}={given!r} must be a whole number, or one for each axis of a sample.")
    if len(numbers) == len(shape):
        return numbers
    if len(numbers) != len(places):
        raise InputError(
            f"{name}={given!r} has {len(numbers)} number(s) for a sample of {tuple(shape)}.",
            hint="Give one for each axis, or one for each axis but the channels.",
        )
    whole = list(shape)
    for axis, number in zip(places, numbers, strict=True):
        whole[axis] = number
    return whole
