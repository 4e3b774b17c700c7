"""Rules for what looks through windows: convolutions, pools, and whatever weighs places along each axis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from nnviz_widget.engine.replay.convolving import CONVOLUTION
from nnviz_widget.engine.replay.patches import Patch, crop
from nnviz_widget.engine.replay.registry import Call, NotLocalError, local

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from nnviz_widget.engine.recording import Ref

__all__: list[str] = []

#: Elements of the largest value whose weights along an axis are looked up.
_LARGEST = 1 << 25


def _each(value: Any, count: int) -> NDArray[np.int64]:
    values = [value] if isinstance(value, int) else list(value)
    return np.asarray(values * count if len(values) == 1 else values, np.int64)


def _places(call: Call, name: str = "input") -> tuple[Ref, Patch, int, list[int]]:
    """Return the input that varies, its patch, how many axes windows move along, and which."""
    ref, patch = call.only(name)
    count = int(call.op.name[-2])
    if len(call.shape_of(ref)) != count + 2:
        raise NotLocalError
    return ref, patch, count, list(range(2, 2 + count))


class _Window(NamedTuple):
    """How an operation looks at its input, a number for each axis."""

    kernel: NDArray[np.int64]
    stride: NDArray[np.int64]
    before: NDArray[np.int64]
    dilation: NDArray[np.int64]


@local("conv1d conv2d conv3d", CONVOLUTION)
def _convolution(call: Call) -> list[Patch]:
    ref, patch, count, axes = _places(call)

    def look() -> _Window:
        kernel = np.asarray(call.shape_of(call.get("weight"))[2:], np.int64)
        stride, dilation = _each(call.get("stride", 1), count), _each(call.get("dilation", 1), count)
        padding = call.get("padding", 0)
        if padding == "same":
            before = dilation * (kernel - 1) // 2
        else:
            before = _each(0 if padding == "valid" else padding, count)
        return _Window(kernel, stride, before, dilation)

    window = call.flow.remember(("window", call.op.index), look)
    starts, sizes, cut = _seen(call, ref, patch, axes, window, beside=call.flow.beside(call.op))
    weight, bias, groups = call.fixed("weight"), call.fixed("bias"), call.get("groups", 1)
    how = window.stride.tolist(), 0, window.dilation.tolist(), groups
    made = call.flow.convolve(call.op, (cut, weight, bias, *how), (axes, starts, sizes))
    assert made.shape[2:] == sizes
    return [Patch(made, tuple(axes), starts)]


@local("max_pool1d max_pool2d max_pool3d", "input kernel_size stride padding dilation ceil_mode")
def _max_pool(call: Call) -> list[Patch]:
    ref, patch, count, axes = _places(call)
    kernel = _each(call.get("kernel_size"), count)
    given = call.get("stride")
    stride = kernel if given is None or given == [] else _each(given, count)
    padding, dilation = _each(call.get("padding", 0), count), _each(call.get("dilation", 1), count)
    window = _Window(kernel, stride, padding, dilation)
    starts, _, cut = _seen(call, ref, patch, axes, window, fill=-math.inf)
    pool = getattr(torch, call.op.name)
    made = pool(cut, kernel.tolist(), stride.tolist(), 0, dilation.tolist())
    return [Patch(made, tuple(axes), starts)]


def _seen(
    call: Call,
    ref: Ref,
    patch: Patch,
    axes: list[int],
    window: _Window,
    *,
    fill: float = 0.0,
    beside: Patch | None = None,
) -> tuple[NDArray[np.int64], tuple[int, ...], Tensor]:
    """Return the outputs that see the patch, as starts and sizes, and what they look at.

    Among them are those that lie beside the patch of another value of the shape of the outputs.
    """
    kernel, stride, before, dilation = window
    reach = dilation * (kernel - 1)
    at, long = patch.along(axes)
    begins = -((reach - at - before) // stride)  # rounded up
    ends = (at + np.asarray(long) - 1 + before) // stride + 1
    if beside is not None:
        at, long = beside.along(axes)
        begins, ends = np.minimum(begins, at), np.maximum(ends, at + np.asarray(long))
    starts, sizes = call.smallest(axes, begins, ends)
    needed = ((np.asarray(sizes) - 1) * stride + reach + 1).tolist()
    return starts, sizes, call.cut(ref, axes, starts * stride - before, needed, fill=fill)


@local(
    "conv_transpose1d conv_transpose2d conv_transpose3d",
    "input weight bias stride padding output_padding groups dilation",
)
def _transposed(call: Call) -> list[Patch]:
    ref, patch, count, axes = _places(call)
    kernel = np.asarray(call.shape_of(call.get("weight"))[2:], np.int64)
    stride, dilation = _each(call.get("stride", 1), count), _each(call.get("dilation", 1), count)
    padding = _each(call.get("padding", 0), count)
    reach = dilation * (kernel - 1)
    at, long = patch.along(axes)
    ends = (at + np.asarray(long) - 1) * stride - padding + reach + 1
    starts, sizes = call.smallest(axes, at * stride - padding, ends)
    # From the first input that reaches the box to the last.
    first = -((reach - starts - padding) // stride)
    skipped = starts + padding - first * stride
    ends = skipped + np.asarray(sizes)
    needed = ((ends - 1) // stride).max(0) + 1
    if (skipped < 0).any() or (ends > (needed - 1) * stride + reach + 1).any():
        raise NotLocalError  # there are places that no input reaches, where nothing but the bias is
    cut = call.cut(ref, axes, first, needed.tolist())
    weight, bias, groups = call.fixed("weight"), call.fixed("bias"), call.get("groups", 1)
    spread = getattr(torch, call.op.name)
    made = spread(cut, weight, bias, stride.tolist(), 0, 0, groups, dilation.tolist())
    made = crop(made, range(len(made)), axes, skipped, sizes)
    return [Patch(made, tuple(axes), starts)]


@local("interpolate upsample", "input size scale_factor mode")
def _resampled(call: Call) -> list[Patch]:
    return _weighed(call)


@local("avg_pool1d avg_pool2d avg_pool3d", "input")
def _avg_pool(call: Call) -> list[Patch]:
    return _weighed(call)


@local("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d", "input")
def _adaptive_pool(call: Call) -> list[Patch]:
    return _weighed(call)


def _weighed(call: Call) -> list[Patch]:
    """Apply an operation whose every output is a sum of inputs, with a weight for each axis."""
    ref, patch = call.only("input")
    shape, out = call.shape_of(ref), call.shape
    axes = list(range(2, len(shape)))
    if (
        not axes
        or len(out) != len(shape)
        or max(shape[axis] for axis in axes) * math.prod(shape[2:]) > _LARGEST
    ):
        raise NotLocalError
    weights = call.flow.remember(("weights", call.op.index), lambda: _weights(call, ref))
    at, long = patch.along(axes)
    begins, ends = np.empty_like(at), np.empty_like(at)
    for place, weight in enumerate(weights):
        begins[:, place] = np.searchsorted(weight.last, at[:, place])
        ends[:, place] = np.searchsorted(weight.first, at[:, place] + long[place])
    starts, sizes = call.smallest(axes, begins, ends)
    first = np.stack([w.first[starts[:, i]] for i, w in enumerate(weights)], 1)
    last = np.stack([w.last[starts[:, i] + sizes[i] - 1] for i, w in enumerate(weights)], 1)
    needed = (last - first + 1).max(0)
    first = np.minimum(first, np.asarray(shape[2:]) - needed)
    cut = call.cut(ref, axes, first, needed.tolist())
    for place, (axis, weight) in enumerate(zip(axes, weights, strict=True)):
        table = torch.stack(
            [
                weight.table[o : o + sizes[place], i : i + int(needed[place])]
                for o, i in zip(starts[:, place].tolist(), first[:, place].tolist(), strict=True)
            ]
        ).to(cut)
        lines = cut.movedim(axis, -1)
        flat = lines.reshape(len(lines), -1, lines.shape[-1])
        cut = torch.bmm(flat, table.transpose(1, 2)).reshape(*lines.shape[:-1], -1).movedim(-1, axis)
    return [Patch(cut.contiguous(), tuple(axes), starts)]


class _Weights:
    """The weight of each place of an axis in each place of the result, ``[out, in]``."""

    def __init__(self, table: Tensor) -> None:
        self.table = table
        some = (table != 0).cpu().numpy()
        if not some.any(1).all():
            raise NotLocalError
        self.first: NDArray[np.int64] = some.argmax(1).astype(np.int64)
        self.last: NDArray[np.int64] = some.shape[1] - 1 - some[:, ::-1].argmax(1).astype(np.int64)
        if (np.diff(self.first) < 0).any() or (np.diff(self.last) < 0).any():
            raise NotLocalError


def _weights(call: Call, ref: Ref) -> list[_Weights]:
    """Find the weights along each axis, from what the operation makes of ones along the others."""
    sides = call.shape_of(ref)[2:]
    like = call.flow.base(ref)
    ones = call.run({ref: like.new_ones(1, 1, *sides)})[0][0, 0]
    middle = tuple(side // 2 for side in ones.shape)
    if not float(ones[middle]):
        raise NotLocalError
    found = []
    for axis, side in enumerate(sides):
        lines = torch.eye(side, dtype=like.dtype, device=like.device)
        shape = [side if i == axis else 1 for i in range(len(sides))]
        made = call.run({ref: lines.reshape(1, side, *shape).expand(1, side, *sides).contiguous()})[0][0]
        at = tuple(slice(None) if i == axis else m for i, m in enumerate(middle))
        found.append(made[(slice(None), *at)].T / ones[middle])
    # Of the whole product each axis but one was divided by what the others give.
    found[0] = found[0] * ones[middle]
    return [_Weights(table) for table in found]
