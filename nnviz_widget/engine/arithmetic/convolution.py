"""Convolutions of one to three axes, and transposed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.arithmetic.moves import origin
from nnviz_widget.engine.arithmetic.registry import explains
from nnviz_widget.engine.arithmetic.windows import for_each, gathered, grid, summed

if TYPE_CHECKING:
    from torch import Tensor

    from nnviz_widget.engine.arithmetic.result import Arithmetic
    from nnviz_widget.engine.arithmetic.values import Case

__all__: list[str] = []


@explains("conv1d conv2d conv3d")
def convolution(case: Case) -> Arithmetic:
    """Lay the kernel over the input: one product for each of its weights."""
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    given = case.bind("input weight bias stride padding dilation groups", **defaults)
    weight, bias = case.tensor(given["weight"]), case.optional(given["bias"])
    dims = weight.dim() - 2
    picture, (channel, *place) = _sample(case, given["input"], dims)
    stride, dilation = (for_each(given[name], dims) for name in ("stride", "dilation"))
    pads = _pads(given["padding"], weight, dilation)
    axes = [
        torch.arange(weight.shape[2 + d]) * dilation[d] + place[d] * stride[d] - pads[d] for d in range(dims)
    ]
    places, inside = grid(axes, picture.shape[1:])
    channels = weight.shape[1]
    first = channel // (weight.shape[0] // given["groups"]) * channels
    patch = gathered(picture[first : first + channels], places, inside)
    more = _facts(case, given["input"], places, range(first, first + channels), given["groups"])
    return summed(patch, weight[channel], None if bias is None else bias[channel], inside, **more)


@explains("conv_transpose1d conv_transpose2d conv_transpose3d")
def transposed(case: Case) -> Arithmetic:
    """Ask which inputs spread onto this place: every weight of the kernel meets one input, or none."""
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    given = case.bind("input weight bias stride padding output_padding groups dilation", **defaults)
    weight, bias = case.tensor(given["weight"]), case.optional(given["bias"])
    dims, groups = weight.dim() - 2, given["groups"]
    picture, (channel, *place) = _sample(case, given["input"], dims)
    stride, dilation, pads = (for_each(given[name], dims) for name in ("stride", "dilation", "padding"))
    axes = []
    for d in range(dims):
        reached = place[d] + pads[d] - torch.arange(weight.shape[2 + d]) * dilation[d]
        # A weight whose step would begin between two inputs meets none.
        axes.append(torch.where(reached % stride[d] == 0, reached.div(stride[d], rounding_mode="floor"), -1))
    places, inside = grid(axes, picture.shape[1:])
    channels = weight.shape[0] // groups
    first = channel // weight.shape[1] * channels
    kernel = weight[first : first + channels, channel % weight.shape[1]]
    patch = gathered(picture[first : first + channels], places, inside)
    more = _facts(case, given["input"], places, range(first, first + channels), groups)
    more["note"] = " ".join(filter(None, ["Zeros stand where the kernel meets no input.", more["note"]]))
    return summed(patch, kernel, None if bias is None else bias[channel], inside, **more)


def _sample(case: Case, part: Any, dims: int) -> tuple[Tensor, tuple[int, ...]]:
    """Return the one sample's input, and the index in its output."""
    x = case.tensor(part)
    return (x, case.index) if x.dim() == dims + 1 else (x[case.index[0]], case.index[1:])


def _pads(padding: Any, weight: Tensor, dilation: tuple[int, ...]) -> tuple[int, ...]:
    dims = weight.dim() - 2
    if padding == "valid":
        return (0,) * dims
    if padding == "same":
        return tuple(dilation[d] * (weight.shape[2 + d] - 1) // 2 for d in range(dims))
    return for_each(padding, dims)


def _facts(case: Case, part: Any, places: Tensor, taken: range, groups: int) -> dict[str, Any]:
    """Return where the window stands in a picture that can be shown."""
    note = f"Group of channels {taken.start} to {taken.stop - 1}." if groups > 1 else ""
    source = case.node(part)
    if not source:
        source, places, how = origin(case, part, places)
        note = " ".join(filter(None, [note, how]))
    return {"places": places, "source": source, "first": taken.start, "note": note}
