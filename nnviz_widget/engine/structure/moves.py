"""One rule for the operations that only move data: their own gradient moves the mask.

Slices, concatenation, padding and resampling are linear in what they move, so running the operation on zeros
and pulling the mask back through it gives exactly the elements that it took. Indices must be constants. The
commonest, reshapes and permutations, are done on the mask itself, so that what is "all alike" along an axis
stays small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnviz_widget.engine.recording import Ref, tensors_of
from nnviz_widget.engine.structure.registry import Call, UnknownStructureError, rule

if TYPE_CHECKING:
    from collections.abc import Iterable


@rule("view reshape reshape_as view_as flatten unflatten ravel squeeze unsqueeze", "input")
def _reshape(call: Call) -> Iterable[tuple[Any, Tensor]]:
    source, mask = call.get("input"), call.mask
    old, new = list(call.shape_of(source)), list(call.shape)
    if call.spec_of(source).dtype != call.op.outputs[0].dtype:
        raise UnknownStructureError  # a view of the bits
    if mask.numel() == 1:
        yield source, mask.reshape([1] * len(old))
        return
    alike = 0
    while old and new and old[-1] == new[-1] and mask.shape[len(new) - 1] == 1:
        alike, old, new = alike + 1, old[:-1], new[:-1]
    mask = mask.reshape(mask.shape[: len(new)]).expand(new).reshape(old)
    yield source, mask.reshape(old + [1] * alike)


@rule("permute", "input")
def _permute(call: Call) -> Iterable[tuple[Any, Tensor]]:
    order = call.op.kwargs.get("dims", call.op.args[1:])
    order = order[0] if len(order) == 1 and not isinstance(order[0], int) else order
    back = sorted(range(len(order)), key=lambda axis: order[axis] % len(order))
    yield call.get("input"), call.mask.permute(back)


@rule("transpose swapaxes swapdims", "input first second")
def _transpose(call: Call) -> Iterable[tuple[Any, Tensor]]:
    if call.op.kwargs:
        raise UnknownStructureError
    yield call.get("input"), call.mask.transpose(call.get("first"), call.get("second"))


@rule(
    "movedim moveaxis T mT H mH adjoint expand expand_as broadcast_to broadcast_tensors repeat tile "
    "repeat_interleave cat stack hstack vstack dstack column_stack row_stack chunk split tensor_split "
    "hsplit vsplit split_with_sizes unsafe_chunk unsafe_split unbind getitem select narrow index_select "
    "gather take take_along_dim diagonal diag diag_embed tril triu flip fliplr flipud rot90 roll pad "
    "constant_pad_nd pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle unfold fold "
    "interpolate upsample grid_sample as_strided select_scatter slice_scatter diagonal_scatter index_add "
    "index_copy index_fill scatter scatter_add setitem atleast_1d atleast_2d atleast_3d meshgrid "
    "block_diag"
)
def _moves(call: Call) -> Iterable[tuple[Any, Tensor]]:
    leaves = {
        ref: torch.zeros(call.shape_of(ref), requires_grad=True)
        for ref in call.live_inputs()
        if _is_data(call, ref)
    }

    def fill(value: Any) -> Any:
        if isinstance(value, Ref):
            if value in leaves:
                return leaves[value]
            # What is moved may as well be zero; where it is moved from must be known.
            return torch.zeros(call.shape_of(value)) if _is_data(call, value) else call.value_of(value)
        if isinstance(value, slice):
            return slice(fill(value.start), fill(value.stop), fill(value.step))
        if isinstance(value, (list, tuple)):
            parts = [fill(part) for part in value]
            return parts if isinstance(value, list) else tuple(parts)
        if isinstance(value, torch.dtype):
            raise UnknownStructureError  # a view of the bits
        return value

    if call.op.func is None or (call.op.inplace and not isinstance(call.op.args[0], Ref)):
        raise UnknownStructureError
    with torch.enable_grad():
        args = [fill(value) for value in call.op.args]
        kwargs = {name: fill(value) for name, value in call.op.kwargs.items() if name != "out"}
        if call.op.inplace:
            args[0] = args[0].clone()
        result = call.op.func(*args, **kwargs)
    made = [tensor for _, tensor in tensors_of(args[0] if result is None else result)]
    ports = [port for port in call.masks if port < len(made) and made[port].requires_grad]
    if not ports:
        return
    # Unequal and positive: interpolation has negative weights, which must not cancel.
    weights = [torch.linspace(1, 2, made[port].numel()).reshape(made[port].shape) for port in ports]
    masks = [call.masks[port] * weight for port, weight in zip(ports, weights, strict=True)]
    moved = torch.autograd.grad([made[p] for p in ports], list(leaves.values()), masks, allow_unused=True)
    for ref, gradient in zip(leaves, moved, strict=True):
        if gradient is not None:
            yield ref, gradient != 0


def _is_data(call: Call, ref: Ref) -> bool:
    """Whether a value is moved, rather than telling where from; where from must not depend on an input."""
    kind = call.spec_of(ref).dtype
    if ref == call.op.inputs[0] or (kind is not None and kind.is_floating_point):
        return True
    if call.op.name in {"cat", "stack", "hstack", "vstack", "broadcast_tensors", "meshgrid", "block_diag"}:
        return True
    if call.is_live(ref):
        raise UnknownStructureError
    return False
