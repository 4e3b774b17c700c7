"""Normalisations, and softmax: a number beside those that it is compared with."""

from __future__ import annotations

from math import prod, sqrt
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.arithmetic.registry import explains
from nnviz_widget.engine.arithmetic.result import Arithmetic
from nnviz_widget.engine.arithmetic.values import NotApartError

if TYPE_CHECKING:
    from torch import Tensor

    from nnviz_widget.engine.arithmetic.values import Case

__all__: list[str] = []


@explains("batch_norm")
def batch_norm(case: Case) -> Arithmetic:
    """Compare with the channel's mean over all that was trained on (or over this batch)."""
    # F.batch_norm and torch.batch_norm differ in their order.
    plain = isinstance(case.op.func, FunctionType)
    order = "running_mean running_var weight bias" if plain else "weight bias running_mean running_var"
    given = case.bind(f"input {order} training momentum eps", training=False, eps=1e-5)
    x, channel = case.tensor(given["input"]), case.index[1]
    own = given["training"] or given["running_mean"] is None
    members = x[:, channel]
    mean = members.mean() if own else case.tensor(given["running_mean"])[channel]
    var = members.var(unbiased=False) if own else case.tensor(given["running_var"])[channel]
    note = "Mean and variance are of this batch." if own else "Mean and variance are those of training."
    return _normalised(
        case, given, mean, var, channel, members=members if own else x[case.index[0], channel], note=note
    )


@explains("instance_norm")
def instance_norm(case: Case) -> Arithmetic:
    """Compare with the mean of this channel of this sample."""
    plain = isinstance(case.op.func, FunctionType)
    order = "running_mean running_var weight bias" if plain else "weight bias running_mean running_var"
    given = case.bind(f"input {order} use_input_stats momentum eps", use_input_stats=True, eps=1e-5)
    x = case.tensor(given["input"])
    # `[C, L]` without batch is taken as such only by the module, which adds the axis itself.
    members, channel = x[case.index[:2]], case.index[1]
    if given["use_input_stats"]:
        mean, var = members.mean(), members.var(unbiased=False)
    else:
        mean, var = (case.tensor(given[name])[channel] for name in ("running_mean", "running_var"))
    return _normalised(case, given, mean, var, channel, members=members)


@explains("group_norm")
def group_norm(case: Case) -> Arithmetic:
    """Compare with the mean of a group of channels of this sample."""
    given = case.bind("input num_groups weight bias eps", eps=1e-5)
    x, channel = case.tensor(given["input"]), case.index[1]
    size = x.shape[1] // given["num_groups"]
    first = channel // size * size
    members = x[case.index[0], first : first + size]
    note = f"Over channels {first} to {first + size - 1}."
    return _normalised(
        case, given, members.mean(), members.var(unbiased=False), channel, members=members, note=note
    )


@explains("layer_norm")
def layer_norm(case: Case) -> Arithmetic:
    """Compare with the mean over the features."""
    given = case.bind("input normalized_shape weight bias eps", eps=1e-5)
    dims = len(given["normalized_shape"])
    members = case.tensor(given["input"])[case.index[:-dims]]
    at = case.index[-dims:]
    return _normalised(case, given, members.mean(), members.var(unbiased=False), at, members=members)


@explains("rms_norm")
def rms_norm(case: Case) -> Arithmetic:
    """Divide by the root of the mean square over the features."""
    given = case.bind("input normalized_shape weight eps")
    dims = len(given["normalized_shape"])
    x = case.values(given["input"])
    members = x.double()[case.index[:-dims]]
    at = case.index[-dims:]
    eps = given["eps"] if given["eps"] is not None else torch.finfo(x.dtype).eps
    square = float(members.square().mean())
    weight = case.optional(given["weight"])
    value, scale = float(members[at]), 1.0 if weight is None else float(weight[at])
    root = sqrt(square + eps)
    return Arithmetic(
        "normalisation",
        "x / √(mean of squares + ε) · weight",
        value / root * scale,
        numbers={
            "x": value, "mean of squares": square, "ε": eps, "normalised": value / root, "weight": scale,
        },
        arrays={"members": members.cpu()},
        operands=[case.operand("x", given["input"], case.index)],
        source=case.node(given["input"]),
    )  # fmt: skip


def _normalised(
    case: Case, given: dict[str, Any], mean: Tensor, var: Tensor, at: Any, *, members: Tensor, note: str = ""
) -> Arithmetic:
    value = float(case.tensor(given["input"])[case.index])
    weight, bias = (case.optional(given[name]) for name in ("weight", "bias"))
    scale, shift = 1.0 if weight is None else float(weight[at]), 0.0 if bias is None else float(bias[at])
    normalised = (value - float(mean)) / sqrt(float(var) + given["eps"])
    numbers = {
        "x": value,
        "mean": float(mean),
        "variance": float(var),
        "ε": given["eps"],
        "normalised": normalised,
    }
    if weight is not None:
        numbers["weight"] = scale
    if bias is not None:
        numbers["bias"] = shift
    formula = (
        "(x − mean) / √(variance + ε)" + " · weight" * (weight is not None) + " + bias" * (bias is not None)
    )
    return Arithmetic(
        "normalisation",
        formula,
        normalised * scale + shift,
        numbers=numbers,
        arrays={"members": members.double().cpu()},
        operands=[case.operand("x", given["input"], case.index)],
        source=case.node(given["input"]),
        note=note or f"Over {prod(members.shape)} numbers.",
    )


@explains("softmax log_softmax softmin")
def softmax(case: Case) -> Arithmetic:
    """Share one among many, by their exponentials."""
    given = case.bind("input dim")
    dim = given["dim"]
    if not isinstance(dim, int):
        raise NotApartError("along which axis is not said.")
    x = case.tensor(given["input"])
    index: list[Any] = list(case.index)
    at = index[dim]
    index[dim] = slice(None)
    logits = (x[tuple(index)] * (-1 if case.op.name == "softmin" else 1)).cpu()
    top = logits.max()
    # The largest is taken off first, as torch does: it changes nothing but keeps the exponentials small.
    powers = (logits - top).exp()
    share = float(powers[at] / powers.sum())
    log = case.op.name == "log_softmax"
    return Arithmetic(
        "softmax",
        "x − max − log Σ exp(x − max)" if log else "exp(x − max) / Σ exp(x − max)",
        float(logits[at] - top - powers.sum().log()) if log else share,
        numbers={
            "x": float(logits[at]),
            "max": float(top),
            "exp": float(powers[at]),
            "sum": float(powers.sum()),
            "place": float(at),
        },
        arrays={"logits": logits, "exps": powers, "shares": powers / powers.sum()},
        operands=[case.operand("x", given["input"], case.index)],
        source=case.node(given["input"]),
    )
