"""Rules for the operations that only move data: boxes move with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nnviz_widget.engine.recording import Ref
from nnviz_widget.engine.replay.patches import Patch
from nnviz_widget.engine.replay.registry import Call, NotLocalError, local

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__: list[str] = []


@local("permute", "input dims")
def _permute(call: Call) -> list[Patch]:
    ref, patch = call.only("input")
    order = call.op.kwargs.get("dims", call.op.args[1:])
    order = order[0] if len(order) == 1 and not isinstance(order[0], int) else order
    return _reordered(call, ref, patch, order)


@local("transpose swapaxes swapdims", "input first second")
def _transpose(call: Call) -> list[Patch]:
    ref, patch = call.only("input")
    dims = len(call.shape_of(ref))
    first, second = (
        call.op.kwargs.get("dim0", call.get("first")),
        call.op.kwargs.get("dim1", call.get("second")),
    )
    order = list(range(dims))
    order[first % dims], order[second % dims] = order[second % dims], order[first % dims]
    return _reordered(call, ref, patch, order)


def _reordered(call: Call, ref: Ref, patch: Patch, order: Sequence[int]) -> list[Patch]:
    order = [axis % len(order) for axis in order]
    if order[0]:
        raise NotLocalError
    places = {axis: order.index(axis) for axis in patch.axes}
    ranked = sorted(patch.axes, key=places.__getitem__)
    starts = patch.starts[:, [patch.axes.index(axis) for axis in ranked]]
    return call.moved(ref, [places[axis] for axis in ranked], starts)


@local("view reshape reshape_as view_as flatten unflatten squeeze unsqueeze", "input")
def _reshape(call: Call) -> list[Patch]:
    ref, patch = call.only("input")
    old, new = call.shape_of(ref), call.shape
    if call.flow.plan.batches[Ref(call.op.index)] != (0, 1):
        raise NotLocalError
    first, last = patch.axes[0], patch.axes[-1]
    # What boxes cut must stay as it is: as the last axes, or as the first ones behind the rows.
    behind, before = len(old) - first, last + 1
    if len(new) > behind and old[-behind:] == new[-behind:]:
        shape = [len(call.flow.rows), *new[1:-behind], *patch.tensor.shape[-behind:]]
        axes = [axis + len(new) - len(old) for axis in patch.axes]
    elif len(new) >= before and old[:before] == new[:before]:
        shape = [*patch.tensor.shape[:before], *new[before:]]
        axes = list(patch.axes)
    else:
        raise NotLocalError
    return [Patch(patch.tensor.reshape(shape), tuple(axes), patch.starts)]


@local("flip fliplr flipud", "input dims")
def _flip(call: Call) -> list[Patch]:
    ref, patch = call.only("input")
    dims = len(call.shape_of(ref))
    if call.op.name == "flip":
        given = call.op.kwargs.get("dims", call.op.args[1:])
        given = given[0] if len(given) == 1 and not isinstance(given[0], int) else given
    else:
        given = [1 if call.op.name == "fliplr" else 0]
    turned = {axis % dims for axis in given}
    if 0 in turned:
        raise NotLocalError
    starts = patch.starts.copy()
    for place, axis in enumerate(patch.axes):
        if axis in turned:
            starts[:, place] = call.shape[axis] - starts[:, place] - patch.tensor.shape[axis]
    return call.moved(ref, patch.axes, starts)


@local("cat", "tensors dim")
def _cat(call: Call) -> list[Patch]:
    return _put_together(call, call.get("tensors"), call.op.kwargs.get("axis", call.get("dim", 0)))


def _put_together(call: Call, tensors: Any, dim: int) -> list[Patch]:
    dims = len(call.shape)
    dim %= dims
    if dim == 0 or not all(isinstance(ref, Ref) for ref in tensors):
        raise NotLocalError
    parts = []
    for ref in call.patches:
        patch = call.uncut(ref, [dim])
        if len(call.shape_of(ref)) != dims:
            raise NotLocalError
        parts.append(patch)
    axes, starts, sizes = _around(call, parts)
    cuts: dict[Ref, Tensor] = {}
    for ref in dict.fromkeys(tensors):
        if call.flow.plan.batches.get(ref) != (0, 1):
            raise NotLocalError
        cuts[ref] = call.cut(ref, axes, starts, sizes)
    return [Patch(made, axes, starts) for made in call.run(cuts)]


def _around(call: Call, parts: Sequence[Patch]) -> tuple[tuple[int, ...], Any, tuple[int, ...]]:
    axes = tuple(sorted({axis for patch in parts for axis in patch.axes}))
    if not axes:
        raise NotLocalError
    begins, ends = [], []
    for patch in parts:
        at, long = patch.along(axes)
        begins.append(at)
        ends.append(at + np.asarray(long))
    starts, sizes = call.smallest(axes, np.minimum.reduce(begins), np.maximum.reduce(ends))
    return axes, starts, sizes


@local("chunk split tensor_split split_with_sizes unbind", "input sizes dim")
def _divided(call: Call) -> list[Patch]:
    ref, _ = call.only("input")
    dims = len(call.shape_of(ref))
    place = 1 if call.op.name == "unbind" else 2
    dim = call.op.kwargs.get("dim", call.op.args[place] if len(call.op.args) > place else 0) % dims
    patch = call.uncut(ref, [dim])
    if dim == 0 or not patch.axes:
        raise NotLocalError
    gone = call.op.name == "unbind"
    axes = tuple(axis - 1 if gone and axis > dim else axis for axis in patch.axes)
    return [Patch(made, axes, patch.starts) for made in call.run({ref: patch.tensor})]


@local("pad constant_pad_nd", "input pad mode value")
def _pad(call: Call) -> list[Patch]:
    ref, patch = call.only("input")
    pad = call.get("pad")
    if call.op.name == "pad" and call.get("mode", "constant") != "constant":
        raise NotLocalError
    if not isinstance(pad, (tuple, list)) or min(pad) < 0:
        raise NotLocalError
    dims = len(call.shape_of(ref))
    before = {dims - 1 - i // 2: pad[i] for i in range(0, len(pad), 2)}
    after = {dims - 1 - i // 2: pad[i + 1] for i in range(0, len(pad), 2)}
    padded = [axis for axis in before if before[axis] or after[axis]]
    if 0 in padded or not set(padded) <= set(patch.axes):
        raise NotLocalError
    shift = np.asarray([before.get(axis, 0) for axis in patch.axes], np.int64)
    return [Patch(patch.tensor, patch.axes, patch.starts + shift)]


@local("getitem", "input index")
def _getitem(call: Call) -> list[Patch]:
    ref, patch = call.only("input")
    shape = call.shape_of(ref)
    index = call.get("index")
    index = list(index) if isinstance(index, tuple) else [index]
    if not all(part is None or part is Ellipsis or type(part) in (int, slice) for part in index):
        raise NotLocalError
    taken = sum(type(part) in (int, slice) for part in index)
    if Ellipsis not in index:
        index.append(Ellipsis)
    at = index.index(Ellipsis)
    index[at : at + 1] = [slice(None)] * (len(shape) - taken)
    if index[0] != slice(None):
        raise NotLocalError
    begins, steps, axes_out = {}, {}, {}
    axis = out = 0
    for part in index:
        if part is None:
            out += 1
            continue
        if type(part) is int:
            if axis in patch.axes:
                raise NotLocalError
        else:
            if not all(end is None or type(end) is int for end in (part.start, part.stop, part.step)):
                raise NotLocalError
            begins[axis], _, steps[axis] = part.indices(shape[axis])
            axes_out[axis] = out
            out += 1
        axis += 1
    axes = patch.axes
    begin = np.asarray([begins[axis] for axis in axes], np.int64)
    step = np.asarray([steps[axis] for axis in axes], np.int64)
    if (step < 1).any():
        raise NotLocalError
    there = tuple(axes_out[axis] for axis in axes)
    first = -((begin - patch.starts) // step)
    last = (patch.starts + np.asarray(patch.sizes) - 1 - begin) // step + 1
    starts, sizes = call.smallest(there, first, last)
    # The same slice of all other axes, and of those that boxes cut every step-th place.
    needed = ((np.asarray(sizes) - 1) * step + 1).tolist()
    cut = call.cut(ref, axes, starts * step + begin, needed)
    inner = list(index)
    places = [i for i, part in enumerate(index) if part is not None]
    for axis in axes:
        inner[places[axis]] = slice(None, None, steps[axis])
    return [Patch(cut[tuple(inner)], there, starts)]


@local("pixel_shuffle", "input factor")
def _pixel_shuffle(call: Call) -> list[Patch]:
    ref, _ = call.only("input")
    patch = call.uncut(ref, [-3])
    dims = len(call.shape_of(ref))
    factor = call.op.kwargs.get("upscale_factor", call.get("factor"))
    if not patch.axes or patch.axes[0] < dims - 2:
        raise NotLocalError
    return [Patch(made, patch.axes, patch.starts * factor) for made in call.run({ref: patch.tensor})]


@local("channel_shuffle native_channel_shuffle", "input groups")
def _channel_shuffle(call: Call) -> list[Patch]:
    ref, _ = call.only("input")
    patch = call.uncut(ref, [1])
    if not patch.axes:
        raise NotLocalError
    return [Patch(made, patch.axes, patch.starts) for made in call.run({ref: patch.tensor})]


@local("stack", "tensors dim")
def _stack(call: Call) -> list[Patch]:
    tensors, dims = call.get("tensors"), len(call.shape)
    dim = call.get("dim", 0) % dims
    if dim == 0 or not all(call.flow.plan.batches.get(ref) == (0, 1) for ref in tensors):
        raise NotLocalError
    parts = [call.patches[ref] for ref in call.patches]
    wide = [
        Patch(p.tensor.unsqueeze(dim), tuple(axis + (axis >= dim) for axis in p.axes), p.starts)
        for p in parts
    ]
    axes, starts, sizes = _around(call, wide)
    inner = [axis - (axis > dim) for axis in axes]
    cuts = {ref: call.cut(ref, inner, starts, sizes) for ref in dict.fromkeys(tensors)}
    return [Patch(made, axes, starts) for made in call.run(cuts)]
