"""Rules for what works element by element, and for what mixes an axis that boxes do not cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nnviz_widget.engine.recording import Ref
from nnviz_widget.engine.replay.patches import Patch, crop
from nnviz_widget.engine.replay.registry import Call, NotLocalError, local
from nnviz_widget.engine.structure.sets import ELEMENTWISE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["joined"]


@local(ELEMENTWISE.replace(" prelu ", " "))
def _elementwise(call: Call) -> list[Patch]:
    ref, *others = call.op.inputs
    if not others and call.shape_of(ref)[1:] == call.shape[1:]:  # the most frequent: nothing to join
        return call.moved(ref, call.patches[ref].axes, call.patches[ref].starts)
    axes, starts, sizes = joined(call, len(call.shape))
    cuts = {ref: _operand(call, ref, axes, starts, sizes) for ref in dict.fromkeys(call.op.inputs)}
    return [Patch(made, axes, starts) for made in call.run(cuts)]


@local("where", "condition input other")
def _where(call: Call) -> list[Patch]:
    return _elementwise(call)


@local("masked_fill", "input mask value")
def _masked_fill(call: Call) -> list[Patch]:
    return _elementwise(call)


def joined(
    call: Call, dims: int, axes: Sequence[int] = ()
) -> tuple[tuple[int, ...], NDArray[np.int64], tuple[int, ...]]:
    """Return boxes around all patches of an operation, along the axes of its first output.

    Parameters
    ----------
    call : Call
        The operation.
    dims : int
        Axes of the result.
    axes : sequence of int
        Of the inputs, which are to be whole.
    """
    parts = []
    for ref in call.patches:
        shape = call.shape_of(ref)
        if len(shape) != dims:
            raise NotLocalError
        patch = call.uncut(ref, axes) if axes else call.patches[ref]
        if any(shape[axis] != call.shape[axis] for axis in patch.axes):
            raise NotLocalError  # it is spread over the axis that its box cuts
        parts.append(patch)
    every = tuple(sorted({axis for patch in parts for axis in patch.axes}))
    if not every:
        raise NotLocalError
    if len(parts) == 1:
        return every, parts[0].starts, parts[0].sizes
    edges = []
    for patch in parts:
        begins, long = patch.along(every)
        edges.append((begins, begins + np.asarray(long)))
    begins = np.minimum.reduce([edge[0] for edge in edges])
    ends = np.maximum.reduce([edge[1] for edge in edges])
    starts, sizes = call.smallest(every, begins, ends)
    return every, starts, sizes


def _operand(
    call: Call, ref: Ref, axes: Sequence[int], starts: NDArray[np.int64], sizes: Sequence[int]
) -> Tensor:
    """Return what stands at the places of the boxes in an operand that broadcasts to the result."""
    shape, dims, flow = call.shape_of(ref), len(call.shape), call.flow
    batch = flow.plan.batches.get(ref)
    if batch is not None and (len(shape) != dims or batch != (0, 1)):
        raise NotLocalError
    missing = dims - len(shape)
    long = [axis for axis in axes if axis >= missing and shape[axis - missing] > 1]
    if batch is None and not long:
        return flow.base(ref)
    some = [list(axes).index(axis) for axis in long]
    places, lengths = starts[:, some], [sizes[i] for i in some]
    if batch is None:
        value = flow.base(ref)
        value = value.reshape(*[1] * missing, *shape)
        if value.shape[0] != 1:
            raise NotLocalError
        return crop(value, [0] * len(flow.rows), long, places, lengths)
    return flow.cut(ref, long, places, lengths)


@local("batch_norm", "input running_mean running_var weight bias training")
def _batch_norm(call: Call) -> list[Patch]:
    if call.get("training", False) is not False:
        raise NotLocalError
    return _mixing(call, [1])


@local("prelu", "input weight")
def _prelu(call: Call) -> list[Patch]:
    return _mixing(call, [1])


@local("layer_norm rms_norm", "input normalized_shape")
def _layer_norm(call: Call) -> list[Patch]:
    return _mixing(call, range(-len(call.get("normalized_shape")), 0))


@local("local_response_norm", "input size")
def _local_response_norm(call: Call) -> list[Patch]:
    return _mixing(call, [1])


@local("linear", "input weight bias")
def _linear(call: Call) -> list[Patch]:
    return _mixing(call, [-1])


@local("softmax log_softmax softmin", "input dim")
def _softmax(call: Call) -> list[Patch]:
    if call.get("dim") is None:
        raise NotLocalError
    return _mixing(call, [call.get("dim")])


@local("normalize", "input p dim")
def _normalize(call: Call) -> list[Patch]:
    dim = call.get("dim", 1)
    return _mixing(call, list(dim) if isinstance(dim, (tuple, list)) else [dim])


@local("glu", "input dim")
def _glu(call: Call) -> list[Patch]:
    return _mixing(call, [call.get("dim", -1)])


@local("cumsum cumprod logcumsumexp", "input dim")
def _cumulative(call: Call) -> list[Patch]:
    return _mixing(call, [call.get("dim")])


def _mixing(call: Call, axes: Sequence[int]) -> list[Patch]:
    """Run an operation on boxes that leave whole the axes which it mixes."""
    ref, _ = call.only("input")
    patch = call.uncut(ref, axes)
    if not patch.axes:
        raise NotLocalError
    return [Patch(made, patch.axes, patch.starts) for made in call.run({ref: patch.tensor})]


@local("sum mean amax amin prod logsumexp any all", "input dim keepdim")
def _reduction(call: Call) -> list[Patch]:
    ref, _ = call.only("input")
    given, dims = call.get("dim"), len(call.shape_of(ref))
    if given is None or isinstance(given, Ref):
        raise NotLocalError
    gone = sorted({axis % dims for axis in ([given] if isinstance(given, int) else given)})
    patch = call.uncut(ref, gone)
    kept = len(call.shape) == dims
    if 0 in gone or not patch.axes:
        raise NotLocalError
    axes = tuple(axis if kept else axis - sum(one < axis for one in gone) for axis in patch.axes)
    return [Patch(made, axes, patch.starts) for made in call.run({ref: patch.tensor})]
