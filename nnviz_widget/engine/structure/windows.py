"""Rules for what looks through windows: convolutions and pools, one axis at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnviz_widget.engine.structure.registry import Call, UnknownStructureError, rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

__all__ = ["same_group", "windows"]


def windows(
    mask: Tensor,
    axis: int,
    size: int,
    *,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    up: bool = False,
) -> Tensor:
    """Spread a mask along one axis from windows to what they look at.

    Position ``o`` of the small side is connected to ``o * stride - padding + k * dilation`` of the large
    side, for every ``k`` below ``kernel``. The mask lies on the small side, or with ``up`` (a transposed
    convolution) on the large one; ``size`` is the length of the other side.
    """
    given = mask.shape[axis]
    spread = mask.new_zeros([size if a == axis else n for a, n in enumerate(mask.shape)])
    small, large = (size, given) if up else (given, size)
    for k in range(kernel):
        offset = k * dilation - padding
        first, last = max(0, -(offset // stride)), min(small - 1, (large - 1 - offset) // stride)
        if last < first:
            continue
        count = last - first + 1
        narrow = (slice(None),) * axis + (slice(first, last + 1),)
        wide = (slice(None),) * axis + (slice(first * stride + offset, None, stride),)
        if up:
            spread[narrow] |= mask[wide].narrow(axis, 0, count)
        else:
            spread[wide].narrow(axis, 0, count).logical_or_(mask[narrow])
    return spread


def same_group(mask: Tensor, axis: int, groups: int, channels: int) -> Tensor:
    """Connect each channel of one side with all channels of its group of the other, of ``channels``."""
    if mask.shape[axis] == 1:
        return mask
    if groups == 1:
        return mask.any(axis, keepdim=True)
    grouped = mask.reshape(*mask.shape[:axis], groups, -1, *mask.shape[axis + 1 :]).any(axis + 1)
    return grouped.repeat_interleave(channels // groups, axis)


def _each(value: Any, count: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


def _sizes(*of: Sequence[int]) -> list[dict[str, Any]]:
    """Return the sizes of the window along each axis, by name."""
    return [
        dict(zip(("kernel", "stride", "padding", "dilation"), axis, strict=True))
        for axis in zip(*of, strict=True)
    ]


def _spatial(mask: Tensor, shape: tuple[int, ...], count: int) -> Tensor:
    """Write out the last ``count`` axes, which windows tell apart."""
    return mask.expand(*[-1] * (mask.dim() - count), *shape[len(shape) - count :])


@rule("conv1d conv2d conv3d", "input weight bias stride padding dilation groups")
def _conv(call: Call) -> Iterable[tuple[Any, Tensor]]:
    return _convolve(call, up=False)


@rule(
    "conv_transpose1d conv_transpose2d conv_transpose3d",
    "input weight bias stride padding output_padding groups dilation",
)
def _conv_transpose(call: Call) -> Iterable[tuple[Any, Tensor]]:
    return _convolve(call, up=True)


def _convolve(call: Call, *, up: bool) -> Iterable[tuple[Any, Tensor]]:
    count = int(call.op.name[-2])
    source, weight = call.get("input"), call.get("weight")
    shape, kernel = call.shape_of(source), call.shape_of(weight)[2:]
    channels = len(shape) - count - 1
    stride, dilation = _each(call.get("stride", 1), count), _each(call.get("dilation", 1), count)
    padding = call.get("padding", 0)
    if padding == "same":
        padding = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)]
    padding = _each(0 if padding == "valid" else padding, count)
    sizes = _sizes(kernel, stride, padding, dilation)
    mask = same_group(call.mask, channels, call.get("groups", 1), shape[channels])
    mask = _spatial(mask, call.shape, count)
    for i in range(count):
        axis = channels + 1 + i
        mask = windows(mask, axis, shape[axis], **sizes[i], up=up)
    yield source, mask
    if call.live(weight) or call.live(call.get("bias")):  # computed by the model from its input
        if up:
            raise UnknownStructureError
        filters = call.mask.movedim(channels, 0).flatten(1).any(1)
        yield call.get("bias"), filters
        yield weight, filters.reshape(-1, *[1] * (count + 1))


@rule(
    "max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices "
    "max_pool3d_with_indices",
    "input kernel_size stride padding dilation",
)
def _max_pool(call: Call) -> Iterable[tuple[Any, Tensor]]:
    return _pool(call, call.get("padding", 0), call.get("dilation", 1))


@rule("avg_pool1d avg_pool2d avg_pool3d", "input kernel_size stride padding")
def _avg_pool(call: Call) -> Iterable[tuple[Any, Tensor]]:
    return _pool(call, call.get("padding", 0), 1)


@rule("lp_pool1d lp_pool2d lp_pool3d", "input norm_type kernel_size stride")
def _lp_pool(call: Call) -> Iterable[tuple[Any, Tensor]]:
    return _pool(call, 0, 1)


def _pool(call: Call, padding: Any, dilation: Any) -> Iterable[tuple[Any, Tensor]]:
    count = int(call.op.name.removesuffix("_with_indices")[-2])
    source, kernel = call.get("input"), _each(call.get("kernel_size"), count)
    given, shape = call.get("stride"), call.shape_of(source)
    stride = kernel if given is None or given == [] else _each(given, count)
    sizes = _sizes(kernel, stride, _each(padding, count), _each(dilation, count))
    for port_mask in call.masks.values():
        mask = _spatial(port_mask, call.shape, count)
        for i in range(count):
            axis = len(shape) - count + i
            mask = windows(mask, axis, shape[axis], **sizes[i])
        yield source, mask


@rule(
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d",
    "input output_size",
)
def _adaptive_pool(call: Call) -> Iterable[tuple[Any, Tensor]]:
    count = int(call.op.name[-2])
    source = call.get("input")
    shape = call.shape_of(source)
    for given in call.masks.values():
        mask = _spatial(given, call.shape, count)
        for axis in range(len(shape) - count, len(shape)):
            size, small = shape[axis], mask.shape[axis]
            spread = mask.new_zeros([size if a == axis else n for a, n in enumerate(mask.shape)])
            for o in range(small):
                start, end = o * size // small, -(-(o + 1) * size // small)
                spread.narrow(axis, start, end - start).logical_or_(mask.narrow(axis, o, 1))
            mask = spread
        yield source, mask
