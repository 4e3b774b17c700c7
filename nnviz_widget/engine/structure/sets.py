"""Rules for what works element by element, and for what mixes whole sets: norms, softmax, reductions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.recording import Ref
from nnviz_widget.engine.structure.registry import Call, UnknownStructureError, along, rule
from nnviz_widget.engine.structure.windows import same_group, windows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor


#: What gives each element from those at the same place.
ELEMENTWISE = (
    "abs absolute acos acosh add addcdiv addcmul alpha_dropout angle arccos arcsin arctan asin asinh atan "
    "atan2 atanh bfloat16 bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift "
    "bitwise_xor bool byte ceil celu clamp clamp_max clamp_min clip clone conj contiguous copysign "
    "cos cosh cpu cuda deg2rad detach div double dropout dropout1d dropout2d dropout3d elu eq erf erfc "
    "erfinv exp exp2 expm1 feature_alpha_dropout float float_power floor floor_divide fmax fmin fmod frac "
    "ge gelu gt half hardshrink hardsigmoid hardswish hardtanh heaviside hypot identity imag int isclose "
    "isfinite isinf isnan ldexp le leaky_relu lerp lgamma log log10 log1p log2 logaddexp logical_and "
    "logical_not logical_or logical_xor logit logsigmoid long lt maximum minimum mish mul nan_to_num ne "
    "neg negative nextafter polar positive pow prelu rad2deg real reciprocal relu relu6 remainder round "
    "rrelu rsqrt selu short sgn sigmoid sign silu sin sinc sinh softplus softshrink softsign sqrt square "
    "sub tan tanh tanhshrink threshold to trunc type type_as xlogy"
)


@rule(ELEMENTWISE)
def _elementwise(call: Call) -> Iterable[tuple[Any, Tensor]]:
    for ref in call.live_inputs():
        yield ref, call.mask


#: What gives something of the shape and type of its argument, whatever is in that.
SHAPE_ONLY = (
    "fill zero zeros_like ones_like empty_like full_like new_zeros new_ones new_full new_empty rand_like "
    "randn_like"
)


@rule(SHAPE_ONLY)
def _shape_only(call: Call) -> Iterable[tuple[Any, Tensor]]:  # noqa: ARG001  nothing gets through
    return ()


@rule("copy", "input source")
def _copy(call: Call) -> Iterable[tuple[Any, Tensor]]:
    yield call.get("source"), call.mask


@rule("masked_fill", "input mask value")
def _masked_fill(call: Call) -> Iterable[tuple[Any, Tensor]]:
    chosen = call.get("mask")
    if call.live(chosen):
        yield from _elementwise(call)
    else:
        filled = call.value_of(chosen)
        yield call.get("input"), call.mask & ~filled
        yield call.get("value"), call.mask & filled


@rule("where", "condition input other")
def _where(call: Call) -> Iterable[tuple[Any, Tensor]]:
    condition = call.get("condition")
    if call.live(condition) or not isinstance(condition, Ref):
        yield from _elementwise(call)
    else:
        chosen = call.value_of(condition)
        yield call.get("input"), call.mask & chosen
        yield call.get("other"), call.mask & ~chosen


@rule("batch_norm", "input running_mean running_var weight bias training")
def _batch_norm(call: Call) -> Iterable[tuple[Any, Tensor]]:
    mask = call.mask
    if call.get("training", False) is not False:
        # The statistics of the batch itself: all samples and positions of a channel.
        mask = along(mask, [axis for axis in range(mask.dim()) if axis != 1])
    yield call.get("input"), mask


@rule("layer_norm rms_norm", "input normalized_shape")
def _layer_norm(call: Call) -> Iterable[tuple[Any, Tensor]]:
    yield call.get("input"), along(call.mask, range(-len(call.get("normalized_shape")), 0))


@rule("group_norm", "input num_groups")
def _group_norm(call: Call) -> Iterable[tuple[Any, Tensor]]:
    mask = along(call.mask, range(2, call.mask.dim()))
    yield call.get("input"), same_group(mask, 1, call.get("num_groups"), call.shape[1])


@rule("instance_norm", "input")
def _instance_norm(call: Call) -> Iterable[tuple[Any, Tensor]]:
    yield call.get("input"), along(call.mask, range(2, call.mask.dim()))


@rule("local_response_norm", "input size")
def _local_response_norm(call: Call) -> Iterable[tuple[Any, Tensor]]:
    size, channels = call.get("size"), call.shape[1]
    yield (
        call.get("input"),
        windows(_written_out(call, 1), 1, channels, kernel=size, stride=1, padding=size // 2, dilation=1),
    )


@rule("linear", "input weight bias")
def _linear(call: Call) -> Iterable[tuple[Any, Tensor]]:
    rows = call.mask.movedim(-1, 0).flatten(1).any(1) if call.mask.dim() > 1 else call.mask
    yield call.get("input"), along(call.mask, [-1])
    yield call.get("weight"), rows.unsqueeze(1)
    yield call.get("bias"), rows


@rule("softmax log_softmax softmin", "input dim")
def _softmax(call: Call) -> Iterable[tuple[Any, Tensor]]:
    if call.get("dim") is None:
        raise UnknownStructureError
    yield call.get("input"), along(call.mask, [call.get("dim")])


@rule("normalize", "input p dim")
def _normalize(call: Call) -> Iterable[tuple[Any, Tensor]]:
    dim = call.get("dim", 1)
    yield call.get("input"), along(call.mask, dim if isinstance(dim, (tuple, list)) else [dim])


@rule("glu", "input dim")
def _glu(call: Call) -> Iterable[tuple[Any, Tensor]]:
    whole = _written_out(call, call.get("dim", -1))
    yield call.get("input"), torch.cat([whole, whole], call.get("dim", -1))


@rule("cumsum cumprod logcumsumexp", "input dim")
def _cumulative(call: Call) -> Iterable[tuple[Any, Tensor]]:
    dim = call.get("dim")
    yield call.get("input"), _written_out(call, dim).flip(dim).cummax(dim).values.flip(dim)


@rule(
    "sum mean amax amin max min prod logsumexp nansum nanmean argmax argmin all any count_nonzero",
    "input dim keepdim",
)
def _reduction(call: Call) -> Iterable[tuple[Any, Tensor]]:
    if isinstance(call.get("dim"), Ref):  # the larger of two tensors, element by element
        return _elementwise(call)
    return _reduced(call, call.get("dim"))


@rule("var std", "input dim unbiased keepdim")
def _spread(call: Call) -> Iterable[tuple[Any, Tensor]]:
    dim = call.get("dim")
    return _reduced(call, None if isinstance(dim, bool) else dim)


@rule("norm", "input p dim keepdim")
def _norm(call: Call) -> Iterable[tuple[Any, Tensor]]:
    return _reduced(call, call.get("dim"))


@rule("vector_norm linalg_vector_norm", "x ord dim keepdim")
def _vector_norm(call: Call) -> Iterable[tuple[Any, Tensor]]:
    return _reduced(call, call.get("dim"))


@rule("topk kthvalue", "input k dim")
def _top(call: Call) -> Iterable[tuple[Any, Tensor]]:
    return _reduced(call, call.get("dim", -1))


@rule("sort argsort mode", "input dim")
def _sorted(call: Call) -> Iterable[tuple[Any, Tensor]]:
    return _reduced(call, call.get("dim", -1))


@rule("median nanmedian", "input dim keepdim")
def _median(call: Call) -> Iterable[tuple[Any, Tensor]]:
    return _reduced(call, call.get("dim"))


def _reduced(call: Call, dim: Any) -> Iterable[tuple[Any, Tensor]]:
    source = call.op.inputs[0]
    axes = len(call.shape_of(source))
    dims = [dim] if isinstance(dim, int) else list(dim or range(axes))
    dims = sorted(axis % axes for axis in dims)
    for port, given in call.masks.items():
        mask = given
        if len(call.op.outputs[port].shape) < axes:
            for axis in dims:
                mask = mask.unsqueeze(axis)
        yield source, along(mask, dims)


@rule("embedding", "input weight")
def _embedding(call: Call) -> Iterable[tuple[Any, Tensor]]:
    yield call.get("input"), call.mask.any(-1)


@rule("lstm gru rnn_tanh rnn_relu", "input hx params bias layers dropout training bidirectional batch_first")
def _recurrent(call: Call) -> Iterable[tuple[Any, Tensor]]:
    source, both = call.get("input"), call.get("bidirectional")
    first = call.get("batch_first")
    if not isinstance(both, bool) or not isinstance(first, bool) or len(call.shape_of(source)) != 3:
        raise UnknownStructureError  # packed sequences
    time, batch = (1, 0) if first else (0, 1)
    steps = call.shape_of(source)[time]
    for port, given in call.masks.items():
        if port:  # (layers, batch, features): the state after the last step
            mask = given.any(0).any(-1).unsqueeze(0).unsqueeze(-1).movedim(1, batch)
        else:
            mask = along(given, [-1])
            mask = mask.expand(*[steps if axis == time else -1 for axis in range(3)])
            mask = along(mask, [time]) if both else mask.flip(time).cummax(time).values.flip(time)
        yield source, mask
    states = call.get("hx")
    everything = next(iter(call.masks.values())).new_ones(1, 1, 1)
    for state in states if isinstance(states, (tuple, list)) and not isinstance(states, Ref) else [states]:
        yield state, everything


def _written_out(call: Call, dim: int) -> Tensor:
    """Return the mask with that axis at its full length."""
    mask = call.mask
    return mask.expand(*[call.shape[axis] if axis == dim % mask.dim() else -1 for axis in range(mask.dim())])
