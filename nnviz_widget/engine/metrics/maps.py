"""From attributions to one number for each position, and how two such maps are compared.

A position is a pixel, a time step, a token or a feature of a table: what can be hidden alone. Its channels
are added up. Nothing here runs a model.
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Positions", "Structure", "alike", "areas", "ordered", "ranks_from_top", "spearman", "ssim"]

_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5


class Positions:
    """The positions of the inputs of a task, one input after the other.

    Parameters
    ----------
    inputs : sequence of Tensor
        ``[N, ...]`` each.
    axes : sequence of int
        The axis of the channels of each. A table ``[N, F]`` has F positions, and no channels.

    Attributes
    ----------
    shapes : list of tuple
        Of the positions of each input: ``(H, W)`` of an image, ``(F,)`` of a table.
    counts : list of int
        How many these are.
    """

    def __init__(self, inputs: Sequence[Tensor], axes: Sequence[int]) -> None:
        self._axes = [axis if x.dim() > 2 else None for x, axis in zip(inputs, axes, strict=True)]
        self.shapes = [
            tuple(x.shape[1:]) if axis is None else tuple(x.narrow(axis, 0, 1).squeeze(axis).shape[1:])
            for x, axis in zip(inputs, self._axes, strict=True)
        ]
        self.counts = [prod(shape) for shape in self.shapes]
        self._inputs = [tuple(x.shape) for x in inputs]

    @property
    def total(self) -> int:
        """Positions of all inputs together."""
        return sum(self.counts)

    @property
    def spatial(self) -> bool:
        """Whether positions lie beside each other, as pixels and time steps do and features do not."""
        return any(axis is not None for axis in self._axes)

    def check(self, values: Sequence[Tensor], name: str) -> None:
        """Raise `InputError` where values have not the shape of the inputs."""
        for value, shape, axis in zip(values, self._inputs, self._axes, strict=False):
            found = list(value.shape)
            if len(found) == len(shape) and axis is not None and found[axis] == 1:
                found[axis] = shape[axis]
            if tuple(found) != shape or len(values) != len(self._inputs):
                raise InputError(
                    f"The values of {name!r} have the shape {tuple(value.shape)}, the input has {shape}.",
                    hint="Metrics change the input where the map says so; maps of a layer do not say where.",
                )

    def importance(self, values: Sequence[Tensor], *, absolute: bool) -> Tensor:
        """Return one number for each position, ``[N, D]``: values (or their sizes) added over channels."""
        parts = []
        for value, axis in zip(values, self._axes, strict=True):
            sized = value.abs() if absolute else value
            parts.append((sized if axis is None else sized.sum(axis)).flatten(1))
        device = parts[0].device
        return torch.cat([part.to(device) for part in parts], 1)

    def spread(self, flags: Tensor) -> list[Tensor]:
        """Lay numbers of positions ``[B, D]`` over the inputs: one tensor for each, with one channel."""
        laid = []
        for part, shape, axis in zip(
            torch.split(flags, self.counts, 1), self.shapes, self._axes, strict=True
        ):
            laid.append(
                part.reshape(-1, *shape) if axis is None else part.reshape(-1, *shape).unsqueeze(axis)
            )
        return laid


def ranks_from_top(importance: Tensor, seed: int) -> Tensor:
    """Return the place of each position, 0 for the most important, ``[N, D]``; ties are broken by lot.

    Parameters
    ----------
    importance : Tensor
        ``[N, D]``.
    seed : int
        Of the lot: by place, a map of zeros would favour the top left corner.
    """
    count = importance.shape[1]
    lot = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(importance.device)
    order = lot[importance[:, lot].argsort(dim=1, descending=True, stable=True)]
    places = torch.arange(count, device=importance.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def areas(x: Sequence[float], y: Tensor) -> Tensor:
    """Return the area under each curve ``[N, K]`` by the trapezoidal rule, ``[N]``."""
    return torch.trapezoid(y, torch.tensor(x, dtype=y.dtype, device=y.device), dim=1)


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Return the rank correlation of each pair of rows, ``[N]``, from -1 to 1; ties take their mean rank.

    A map without any order (constant) correlates with nothing: 0.
    """
    return alike(ordered(first), ordered(second))


def ordered(x: Tensor) -> Tensor:
    """Return the ranks of each row, ``[N, D]``, centred and of length one; zero for a constant row."""
    order = _order(x)
    values = x.gather(1, order)
    rows, count = x.shape
    begins = torch.ones_like(values, dtype=torch.bool)
    begins[:, 1:] = values[:, 1:] != values[:, :-1]
    # Of equal values each takes the mean of the first and the last place.
    group = begins.flatten().cumsum(0) - 1
    sizes = group.bincount()
    means = (sizes.cumsum(0) - (sizes.double() + 1) / 2)[group].reshape(rows, count)
    means -= count * torch.arange(rows, device=x.device)[:, None]
    ranks = torch.empty(x.shape, dtype=torch.float64, device=x.device)
    ranks.scatter_(1, order, means)
    ranks -= (count - 1) / 2
    length: Tensor = torch.linalg.vector_norm(ranks, dim=1, keepdim=True)
    return ranks / length.clamp(min=1e-30)


def _order(x: Tensor) -> Tensor:
    """Return the places of the values of each row from the smallest on, ``[N, D]``."""
    if x.device.type != "cpu":
        return x.argsort(dim=1)
    # NumPy sorts several values with one instruction, where torch compares them one by one.
    known = x.float() if x.dtype == torch.bfloat16 else x
    return torch.from_numpy(np.argsort(known.numpy(), axis=1))


def alike(first: Tensor, second: Tensor) -> Tensor:
    """Return the rank correlation of each pair of rows of `ordered`, ``[N]``."""
    return (first * second).sum(1)


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Return the structural similarity of two maps, each scaled to its own range, ``[N]``, from -1 to 1.

    Wang et al. 2004, with its Gaussian window of 11 (less on smaller maps), mean over the windows that lie
    within the map.

    Parameters
    ----------
    first, second : Tensor
        ``[N, H, W]``.
    """
    return Structure(first).alike(Structure(second))


class Structure:
    """Maps as images, with what `ssim` asks of each of them alone.

    Parameters
    ----------
    maps : Tensor
        ``[N, H, W]``.
    """

    def __init__(self, maps: Tensor) -> None:
        self._unit = _to_unit_range(maps.double())
        window = min(_SSIM_WINDOW, (min(maps.shape[1:]) - 1) // 2 * 2 + 1)
        self._down, self._right = (_windows(side, window).to(self._unit) for side in maps.shape[1:])
        self._mean = self._blurred(self._unit)
        self._variance = self._blurred(self._unit**2) - self._mean**2

    def alike(self, other: Structure) -> Tensor:
        """Return the structural similarity with other maps of the same shape, ``[N]``."""
        means = self._mean * other._mean
        both = self._blurred(self._unit * other._unit) - means
        c1, c2 = 0.01**2, 0.03**2
        similar = (2 * means + c1) * (2 * both + c2)
        squares = self._mean**2 + other._mean**2 + c1
        return (similar / (squares * (self._variance + other._variance + c2))).mean((1, 2))

    def _blurred(self, x: Tensor) -> Tensor:
        return self._down @ x @ self._right.T


@cache
def _windows(side: int, width: int) -> Tensor:
    """Return the matrix that takes the Gaussian mean of each window along one side, ``[windows, side]``."""
    line = torch.exp(-((torch.arange(width).double() - width // 2) ** 2) / (2 * _SSIM_SIGMA**2))
    matrix = torch.zeros(side - width + 1, side, dtype=torch.float64)
    for row in range(len(matrix)):
        matrix[row, row : row + width] = line / line.sum()
    return matrix


def _to_unit_range(x: Tensor) -> Tensor:
    low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp(min=1e-30), 0.0)
