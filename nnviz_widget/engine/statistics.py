"""Mean, spread, range, zeros, NaN, Inf, histogram and dead channels of a tensor, computed where it is.

Works for every type (integers, bool, half precision, complex by magnitude) and for empty tensors. Moments
are of the finite values alone, in float64 where the device has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan, sqrt
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Stats", "dead_fraction", "mean", "statistics"]

_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class Stats:
    """Numbers about one tensor.

    Attributes
    ----------
    mean, std, min, max : float
        Of the finite values; `std` is of the population (divides by n). NaN where there is no finite value.
    zeros : float
        Fraction of all values that are exactly zero, 0 to 1.
    nan, inf : int
        How many are NaN, how many infinite.
    numel : int
        How many values there are.
    counts : tuple of int
        Finite values in each bin.
    edges : tuple of float
        Bounds of the bins, one more than `counts`, from `min` to `max`; widened by a half where those are
        equal.
    """

    mean: float
    std: float
    min: float
    max: float
    zeros: float
    nan: int
    inf: int
    numel: int
    counts: tuple[int, ...]
    edges: tuple[float, ...]


def statistics(tensor: Tensor, *, bins: int = 64) -> Stats:
    """Describe the values of a tensor.

    Parameters
    ----------
    tensor : Tensor
        Any shape and type; not changed.
    bins : int
        Bars of the histogram, at least 1.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    values = _real(tensor)
    total = values.numel()
    zeros = int((values == 0).sum()) / total if total else 0.0
    nans = infinities = 0
    if values.is_floating_point() and total and not bool(values.sum().isfinite()):
        # The sum of finite values may overflow, so this only says that it is worth looking.
        nans, infinities = int(values.isnan().sum()), int(values.isinf().sum())
        values = values[values.isfinite()]
    if not values.numel():
        return Stats(nan, nan, nan, nan, zeros, nans, infinities, total, (0,) * bins, _edges(0.0, 0.0, bins))
    low, high = (float(bound) for bound in values.aminmax())
    edges = _edges(low, high, bins)
    mean, variance, counts = _moments(values, edges[0], (edges[-1] - edges[0]) / bins, bins)
    return Stats(
        mean=mean,
        std=sqrt(variance),
        min=low,
        max=high,
        zeros=zeros,
        nan=nans,
        inf=infinities,
        numel=total,
        counts=counts,
        edges=edges,
    )


def mean(tensor: Tensor) -> float | None:
    """Return the mean of the finite values of a tensor; None where there is none.

    Whole numbers and booleans are indices and masks: they have no mean that says anything, so None as well.
    """
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return None
    values = _real(tensor)
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    average = float(values.mean(dtype=wide)) if values.numel() else nan
    if not isfinite(average):
        values = values[values.isfinite()]
        average = float(values.mean(dtype=wide)) if values.numel() else nan
    return average if isfinite(average) else None


def dead_fraction(tensor: Tensor, axis: int = 1) -> float | None:
    """Return the fraction of channels that are exactly zero at every position of every sample of the batch.

    After a ReLU such a channel is a dead unit as far as this batch tells: other inputs may wake it.

    Parameters
    ----------
    tensor : Tensor
        An activation, the batch along axis 0.
    axis : int
        Which axis holds the channels, from 1.

    Returns
    -------
    float or None
        0 to 1; None where there are no channels, or no numbers of floating point.
    """
    if not tensor.is_floating_point() or tensor.dim() <= axis or tensor.numel() == 0:
        return None
    others = [place for place in range(tensor.dim()) if place != axis]
    alive = (tensor.detach() != 0).sum(others) > 0
    return 1.0 - float(alive.sum()) / alive.numel()


def _moments(values: Tensor, low: float, width: float, bins: int) -> tuple[float, float, tuple[int, ...]]:
    """Return mean, variance and counts; in two passes, as exact as Welford's way and faster."""
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    # In pieces that stay in the cache; a GPU takes all at once.
    parts = torch.split(values, _PIECE if values.device.type == "cpu" else values.numel())
    mean = sum(part.to(wide).sum() for part in parts) / values.numel()
    spread = torch.zeros((), dtype=wide, device=values.device)
    counts = torch.zeros(bins, dtype=torch.int64, device=values.device)
    for part in parts:
        off = part.to(wide) - mean
        spread += torch.dot(off, off)
        # The last bin holds its upper bound.
        places = off.copy_(part).sub_(low).div_(width).clamp_(0, bins - 1).nan_to_num_(0.0)
        counts += torch.bincount(places.int(), minlength=bins)
    return float(mean), float(spread) / values.numel(), tuple(int(count) for count in counts.tolist())


def _real(tensor: Tensor) -> Tensor:
    """Flatten to real numbers that the kernels used here all take."""
    with torch.no_grad():
        values = tensor.detach()
        if values.layout != torch.strided:
            values = values.to_dense()
        if values.is_quantized:
            values = values.dequantize()
        if values.is_complex():
            values = values.abs()
        if not values.is_floating_point() or values.dtype.itemsize < 4:
            values = values.float() if values.dtype in _SMALL else values.double()
        return values.reshape(-1)


_SMALL = frozenset({torch.bool, torch.uint8, torch.int8, torch.int16, torch.float16, torch.bfloat16})


def _edges(low: float, high: float, bins: int) -> tuple[float, ...]:
    if (high - low) / bins == 0:  # equal, or nearly so
        low, high = low - 0.5, high + 0.5
    width = (high - low) / bins
    return (*(low + i * width for i in range(bins)), high)
