"""Pooling: the largest, the average; of a window, of a part, of all. And reductions along axes."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.arithmetic.registry import explains
from nnviz_widget.engine.arithmetic.result import Arithmetic
from nnviz_widget.engine.arithmetic.values import NotApartError
from nnviz_widget.engine.arithmetic.windows import for_each, gathered, grid, summed

if TYPE_CHECKING:
    from torch import Tensor

    from nnviz_widget.engine.arithmetic.values import Case

__all__: list[str] = []


@explains("max_pool1d max_pool2d max_pool3d")
def max_pool(case: Case) -> Arithmetic:
    """Take the largest of the window."""
    defaults = {"padding": 0, "dilation": 1}
    given = case.bind("input kernel_size stride padding dilation", **defaults)
    dims = int(case.op.name[-2])
    size = for_each(given["kernel_size"], dims)
    stride, pads, dilation = (
        for_each(given[name] or size, dims) if name == "stride" else for_each(given[name], dims)
        for name in ("stride", "padding", "dilation")
    )
    place = case.index[-dims:]
    axes = [torch.arange(size[d]) * dilation[d] + place[d] * stride[d] - pads[d] for d in range(dims)]
    return _largest(case, given["input"], axes)


@explains("adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d")
def adaptive_max_pool(case: Case) -> Arithmetic:
    """Take the largest of a part whose size follows from the size of the input."""
    return _largest(case, *_adaptive(case))


@explains("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d")
def adaptive_average(case: Case) -> Arithmetic:
    """Take the average of a part whose size follows from the size of the input."""
    part, axes = _adaptive(case)
    return _average(case, part, axes, prod(len(axis) for axis in axes))


@explains("avg_pool1d avg_pool2d avg_pool3d")
def average_pool(case: Case) -> Arithmetic:
    """Take the average of the window."""
    defaults = {"padding": 0, "count_include_pad": True}
    given = case.bind(
        "input kernel_size stride padding ceil_mode count_include_pad divisor_override", **defaults
    )
    dims = int(case.op.name[-2])
    size, pads = for_each(given["kernel_size"], dims), for_each(given["padding"], dims)
    # An empty tuple, too, stands for the size of the window.
    stride = for_each(given["stride"] or size, dims)
    sides = case.tensor(given["input"]).shape[-dims:]
    axes, counted = [], 1
    for d in range(dims):
        begin = case.index[-dims:][d] * stride[d] - pads[d]
        end = min(begin + size[d], sides[d] + pads[d])
        axes.append(torch.arange(begin, end))
        counted *= end - begin if given["count_include_pad"] else min(end, sides[d]) - max(begin, 0)
    return _average(case, given["input"], axes, given["divisor_override"] or counted)


def _adaptive(case: Case) -> tuple[Any, list[Tensor]]:
    given = case.bind("input output_size")
    dims = int(case.op.name[-2])
    sides = case.tensor(given["input"]).shape[-dims:]
    outs, place = case.shape[-dims:], case.index[-dims:]
    axes = [
        torch.arange(place[d] * sides[d] // outs[d], -(-(place[d] + 1) * sides[d] // outs[d]))
        for d in range(dims)
    ]
    return given["input"], axes


def _window(case: Case, part: Any, axes: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    picture = case.tensor(part)[case.index[: -len(axes)]]
    places, inside = grid(axes, picture.shape)
    return gathered(picture[None], places, inside).cpu(), places, inside


def _largest(case: Case, part: Any, axes: list[Tensor]) -> Arithmetic:
    if case.port:
        raise NotApartError("this is the place of the largest, not its value.")
    patch, places, inside = _window(case, part, axes)
    return chosen(patch[0].masked_fill(~inside, -torch.inf), "max", places=places, source=case.node(part))


def chosen(values: Tensor, how: str, **more: Any) -> Arithmetic:
    """Return the largest (or smallest) of a window as what was chosen from it."""
    flat = values.reshape(-1)
    winner = int(flat.argmax() if how == "max" else flat.argmin())
    return Arithmetic(
        "choice",
        f"{how} of the window",
        float(flat[winner]),
        numbers={"winner": float(winner), "of": float(torch.isfinite(flat).sum())},
        arrays={"patch": values[None].double().cpu(), "inside": torch.isfinite(values).cpu()},
        **more,
    )


def _average(case: Case, part: Any, axes: list[Tensor], divisor: int) -> Arithmetic:
    patch, places, inside = _window(case, part, axes)
    kernel = torch.full_like(patch, 1 / divisor)
    formula = f"Σ patch / {divisor}"
    return summed(patch, kernel, None, inside, formula=formula, places=places, source=case.node(part))


@explains("mean sum amax amin max min")
def reduction(case: Case) -> Arithmetic:
    """Take the average, the sum, the largest or the smallest along some axes."""
    given = case.bind("input dim keepdim", keepdim=False)
    x = case.tensor(given["input"])
    dim = given["dim"]
    if case.port or not isinstance(dim, (int, tuple, list, type(None))):
        raise NotApartError("it does not reduce along axes of one tensor.")
    listed = range(x.dim()) if dim is None or dim == () else (dim,) if isinstance(dim, int) else dim
    axes = {axis % x.dim() for axis in listed} if x.dim() else set()
    waiting = list(case.index)
    index: list[Any] = []
    for axis in range(x.dim()):
        if axis not in axes:
            index.append(waiting.pop(0))
        else:
            index.append(slice(None))
            if given["keepdim"]:
                waiting.pop(0)
    patch = x[tuple(index)].double().cpu()
    name, source = case.op.name, case.node(given["input"])
    if name in {"mean", "sum"}:
        share = 1 / max(1, patch.numel()) if name == "mean" else 1.0
        formula = f"Σ input / {patch.numel()}" if name == "mean" else "Σ input"
        patch = patch[None] if patch.dim() == 2 else patch.reshape(-1) if patch.dim() < 2 else patch
        return summed(patch, torch.full_like(patch, share), None, formula=formula, source=source)
    return chosen(patch, "max" if "max" in name else "min", source=source)


@explains("interpolate upsample")
def interpolated(case: Case) -> Arithmetic:
    """Mix the nearest inputs: the weights are read off, as the operation is linear."""
    given = case.bind("input size scale_factor mode align_corners")
    x = case.tensor(given["input"])
    sample = x[case.index[0] : case.index[0] + 1, case.index[1] : case.index[1] + 1].cpu()
    args, kwargs = case.values.filled(case.op.args[1:]), case.values.filled(case.op.kwargs)
    kwargs.pop("input", None)
    assert case.op.func is not None
    with torch.enable_grad():
        sample = sample.detach().requires_grad_()
        out = case.op.func(sample, *args, **kwargs)[(0, 0, *case.index[2:])]
        (weights,) = torch.autograd.grad(out, sample)
    met = weights[0, 0].nonzero()
    low, high = met.min(0).values, met.max(0).values
    axes = [torch.arange(int(a), int(b) + 1) for a, b in zip(low, high, strict=True)]
    places, inside = grid(axes, sample.shape[2:])
    patch, kernel = (gathered(t[0].detach(), places, inside) for t in (sample, weights))
    return summed(patch, kernel, None, inside, places=places, source=case.node(given["input"]))
