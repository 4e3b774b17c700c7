"""Values of many variants that differ from one unchanged run in a box each, and how boxes are cut and laid.

The boxes of one batch have one size, so that they lie in one tensor and go through an operation in one call;
where each begins is its own. Only tensors and whole numbers are known here, no operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["CHANNELS_LAST", "Patch", "boxes_of", "crop", "laid", "lay", "order_of", "smallest"]

#: From so many boxes on they are copied together.
_SEVERAL = 4
#: The order of memory with channels innermost, by the number of axes.
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Patch:
    """What variants hold inside their boxes; outside they hold what the unchanged run does.

    Attributes
    ----------
    tensor : Tensor
        ``[B, ...]``, along `axes` as long as the boxes.
    axes : tuple of int
        The axes that boxes cut, in order; never the first. All others are whole.
    starts : ndarray
        Where each box begins along these axes, ``[B, len(axes)]``.
    """

    tensor: Tensor
    axes: tuple[int, ...]
    starts: NDArray[np.int64]

    @property
    def sizes(self) -> tuple[int, ...]:
        """How long the boxes are along `axes`."""
        return tuple(self.tensor.shape[axis] for axis in self.axes)

    def share(self, shape: Sequence[int]) -> float:
        """Return which part of a whole value of that shape the boxes are."""
        return prod(n / shape[axis] for axis, n in zip(self.axes, self.sizes, strict=True))

    def along(self, axes: Sequence[int]) -> tuple[NDArray[np.int64], tuple[int, ...]]:
        """Return starts and sizes along other axes, which `axes` of the patch are among.

        Along what the boxes do not cut they begin at 0.
        """
        starts = np.zeros((len(self.starts), len(axes)), np.int64)
        for place, axis in enumerate(axes):
            if axis in self.axes:
                starts[:, place] = self.starts[:, self.axes.index(axis)]
        return starts, tuple(self.tensor.shape[axis] for axis in axes)


def boxes_of(
    changed: Tensor, whole: Tensor, rows: Sequence[int]
) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """Find where variants differ from their samples.

    Parameters
    ----------
    changed : Tensor
        ``[B, ...]``.
    whole : Tensor
        The samples, ``[N, ...]``.
    rows : sequence of int
        Which sample each variant is one of.

    Returns
    -------
    starts : ndarray
        ``[B, D]``, along the axes after the first.
    sizes : tuple of int
        Of the boxes, the same for all variants; at least 1.
    """
    originals = whole if len(whole) == 1 else whole[torch.as_tensor(rows, device=whole.device)]
    # By NumPy, which looks through truth values about thirty times as fast.
    other: NDArray[np.bool_] = (changed != originals).cpu().numpy()
    starts, sizes = [], []
    for axis in range(1, changed.dim()):
        length = changed.shape[axis]
        line = other
        if other.ndim > 2:
            line = np.logical_or.reduce(other.reshape(len(other), length, -1), axis=2)
            other = np.logical_or.reduce(other, axis=1)
        some = line.any(1)
        begins = np.where(some, line.argmax(1), 0)
        ends = np.where(some, length - line[:, ::-1].argmax(1), 1)
        size = int((ends - begins).max())
        starts.append(np.minimum(begins, length - size))
        sizes.append(size)
    return np.stack(starts, 1).astype(np.int64), tuple(sizes)


def smallest(
    begins: NDArray[np.int64], ends: NDArray[np.int64], lengths: Sequence[int]
) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """Make boxes one size that holds each of them, without leaving the value.

    Parameters
    ----------
    begins, ends : ndarray
        ``[B, k]``, half open; what lies outside is left out.
    lengths : sequence of int
        Of the axes.
    """
    limits = np.asarray(lengths, np.int64)
    begins = np.minimum(np.maximum(begins, 0), limits - 1)  # np.clip takes ten times as long for so few
    ends = np.minimum(np.maximum(ends, begins + 1), limits)
    sizes = (ends - begins).max(0)
    return np.minimum(begins, limits - sizes), tuple(sizes.tolist())


def crop(
    whole: Tensor,
    rows: Sequence[int],
    axes: Sequence[int],
    starts: NDArray[np.int64],
    sizes: Sequence[int],
    *,
    fill: float = 0.0,
    over: Patch | None = None,
) -> Tensor:
    """Cut a box out of a value for each variant.

    Parameters
    ----------
    whole : Tensor
        Of the unchanged run, ``[N, ...]``.
    rows : sequence of int
        Which of its rows is meant for each variant.
    axes, starts, sizes
        The boxes; they may reach outside.
    fill : float
        What is outside.
    over : Patch, optional
        What the variants hold instead; its axes are among `axes`.

    Returns
    -------
    Tensor
        ``[B, ...]``, new.
    """
    shape = list(whole.shape)
    shape[0] = len(rows)
    for axis, size in zip(axes, sizes, strict=True):
        shape[axis] = size
    lengths = np.asarray([whole.shape[axis] for axis in axes], np.int64)
    long = np.asarray(sizes, np.int64)
    outside = bool((starts < 0).any() or (starts + long > lengths).any())
    # Around a value that is no more than what is cut, a margin is the smaller work.
    if len(rows) >= _SEVERAL and (not outside or whole.numel() <= prod(shape)):
        cut = _gathered(whole, rows, axes, starts, sizes, fill=fill)
    else:
        cut = torch.empty(shape, dtype=whole.dtype, device=whole.device, memory_format=order_of(whole))
        if outside:
            cut.fill_(fill)
        begins, ends = np.maximum(starts, 0), np.minimum(starts + long, lengths)
        every = range(len(rows))
        _copy(_Corners(whole, rows, begins), _Corners(cut, every, begins - starts), axes, ends - begins)
    if over is not None:
        lay(cut, axes, starts, over)
    return cut


def lay(cut: Tensor, axes: Sequence[int], starts: NDArray[np.int64], patch: Patch) -> None:
    """Write patches into boxes that were cut, where they overlap."""
    at, sizes = patch.along(axes)
    long = np.asarray([cut.shape[axis] for axis in axes], np.int64)
    begins = np.maximum(at, starts)
    ends = np.minimum(at + np.asarray(sizes, np.int64), starts + long)
    into, out_of, size = begins - starts, begins - at, ends - begins
    ways, which = _alike(np.concatenate((into, out_of, size), 1))
    if len(ways) * _SEVERAL > len(into):
        every = range(len(into))
        _copy(_Corners(patch.tensor, every, out_of), _Corners(cut, every, into), axes, size)
        return
    # Most lie alike, but for those at the edges.
    for number, (to, of, n) in enumerate(ways.reshape(len(ways), 3, -1).tolist()):
        if min(n, default=1) <= 0:
            continue
        target, source = cut, patch.tensor
        for axis, *place in zip(axes, to, of, n, strict=True):
            target, source = target.narrow(axis, place[0], place[2]), source.narrow(axis, place[1], place[2])
        if len(ways) == 1:
            target.copy_(source)
        else:
            rows = torch.from_numpy(np.flatnonzero(which == number)).to(cut.device)
            target.index_copy_(0, rows, source.index_select(0, rows))


def _alike(ways: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Return each different row once, and which of these every row is."""
    if len(ways) < _SEVERAL:
        return ways, np.arange(len(ways))
    found, which = np.unique(ways, axis=0, return_inverse=True)
    return found, which.reshape(-1)


def laid(whole: Tensor, rows: Sequence[int], patch: Patch) -> Tensor:
    """Return whole values of all variants, ``[B, ...]``, new."""
    if len(whole) == 1:
        made = whole.expand(len(rows), *whole.shape[1:]).clone(memory_format=order_of(whole))
    else:
        made = whole.index_select(0, torch.as_tensor(rows, device=whole.device))
    lay(made, patch.axes, np.zeros_like(patch.starts), patch)
    return made


def order_of(tensor: Tensor) -> torch.memory_format:
    """Return the order in which a tensor like this one is made: channels innermost, where they are here."""
    inner = CHANNELS_LAST.get(tensor.dim())
    last = inner is not None and tensor.is_contiguous(memory_format=inner) and not tensor.is_contiguous()
    return inner if inner is not None and last else torch.contiguous_format


def _gathered(
    whole: Tensor,
    rows: Sequence[int],
    axes: Sequence[int],
    starts: NDArray[np.int64],
    sizes: Sequence[int],
    *,
    fill: float,
) -> Tensor:
    """Cut boxes with one index into a view of all boxes that there are."""
    lengths = np.asarray([whole.shape[axis] for axis in axes], np.int64)
    before = np.maximum(-starts.min(0), 0)
    after = np.maximum((starts + np.asarray(sizes, np.int64) - lengths).max(0), 0)
    if before.any() or after.any():
        starts = starts + before
        whole = _with_margin(whole, axes, before.tolist(), after.tolist(), fill)
    inner, stride = list(whole.shape), whole.stride()
    for axis, size in zip(axes, sizes, strict=True):
        inner[axis] = size
    # In the order of memory, so that what lies together is copied together.
    order = sorted(range(1, whole.dim()), key=lambda axis: (-stride[axis], axis))
    corners = [whole.shape[axis] - size + 1 for axis, size in zip(axes, sizes, strict=True)]
    boxes = whole.as_strided(
        [len(whole), *corners, *(inner[axis] for axis in order)],
        [stride[0], *(stride[axis] for axis in axes), *(stride[axis] for axis in order)],
        int(whole.storage_offset()),
    )
    at = np.concatenate((np.asarray(rows, np.int64)[:, None], starts), 1).T
    found: Tensor = boxes[tuple(torch.from_numpy(np.ascontiguousarray(one)).to(whole.device) for one in at)]
    return found.permute(0, *(1 + order.index(axis) for axis in range(1, whole.dim())))


def _with_margin(
    whole: Tensor, axes: Sequence[int], before: Sequence[int], after: Sequence[int], fill: float
) -> Tensor:
    shape = list(whole.shape)
    for axis, left, right in zip(axes, before, after, strict=True):
        shape[axis] += left + right
    wide = torch.empty(shape, dtype=whole.dtype, device=whole.device, memory_format=order_of(whole))
    inside = wide.fill_(fill)
    for axis, left in zip(axes, before, strict=True):
        inside = inside.narrow(axis, left, whole.shape[axis])
    inside.copy_(whole)
    return wide


def _copy(source: _Corners, target: _Corners, axes: Sequence[int], sizes: NDArray[np.int64]) -> None:
    """Copy a box from a row of one tensor to a row of another, for each pair of rows."""
    shape = list(target.tensor.shape[1:])
    far, near = source.tensor.stride()[1:], target.tensor.stride()[1:]
    for begin, place, size in zip(source.offsets(axes), target.offsets(axes), sizes.tolist(), strict=True):
        if min(size, default=1) <= 0:
            continue
        for axis, n in zip(axes, size, strict=True):
            shape[axis - 1] = n
        there = target.tensor.as_strided(shape, near, place)
        there.copy_(source.tensor.as_strided(shape, far, begin))


class _Corners(NamedTuple):
    """Where boxes begin in a tensor: in which rows, and where along some axes."""

    tensor: Tensor
    rows: Sequence[int]
    begins: NDArray[np.int64]

    def offsets(self, axes: Sequence[int]) -> list[int]:
        """Return the place in memory of each corner."""
        stride, first = self.tensor.stride(), int(self.tensor.storage_offset())
        if len(self.rows) == 1:  # faster without arrays
            along = zip(axes, self.begins[0].tolist(), strict=True)
            return [first + self.rows[0] * stride[0] + sum(stride[axis] * begin for axis, begin in along)]
        steps = np.asarray([stride[axis] for axis in axes], np.int64)
        found: list[int] = (
            first + np.asarray(self.rows, np.int64) * stride[0] + self.begins @ steps
        ).tolist()
        return found
