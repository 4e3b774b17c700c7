"""Operations that move numbers and change none: reshapes, concatenations, slices, padding.

Which number went where is read off by sending the places themselves through the recorded call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.arithmetic.registry import explains
from nnviz_widget.engine.arithmetic.result import Arithmetic, Operand
from nnviz_widget.engine.arithmetic.values import NotApartError, unravel
from nnviz_widget.engine.recording import Ref, tensors_of

if TYPE_CHECKING:
    from torch import Tensor

    from nnviz_widget.engine.arithmetic.values import Case, Values
    from nnviz_widget.engine.recording import Op

__all__ = ["MOVES", "came_from", "origin"]

MOVES = (
    "flatten reshape view unflatten transpose permute T mT t swapaxes swapdims movedim moveaxis squeeze "
    "unsqueeze contiguous clone detach data getitem narrow select index_select gather take_along_dim chunk "
    "split tensor_split unbind cat stack hstack vstack dstack column_stack expand expand_as repeat tile "
    "repeat_interleave roll flip fliplr flipud rot90 pixel_shuffle pixel_unshuffle channel_shuffle "
    "unfold pad to float double half bfloat16 type_as view_as reshape_as ravel as_strided alias adjoint "
    "broadcast_to diagonal tril triu requires_grad cpu cuda type"
)
_JOINS = frozenset({"cat", "stack", "hstack", "vstack", "dstack", "column_stack"})
#: What cannot be sent through: it changes the type, which the places must keep.
_TYPES = frozenset(
    {"to", "float", "double", "half", "bfloat16", "type_as", "type", "cpu", "cuda", "requires_grad"}
)


@explains(MOVES)
def moved(case: Case) -> Arithmetic:
    """Say where the number stood before."""
    part, index = came_from(case.values, case.op, case.port, case.index)
    if part is None:
        constant = float(index[0])
        return Arithmetic("copy", "filled in", constant, operands=[Operand("x", constant)])
    operand = case.operand("x", part, index)
    return Arithmetic("copy", "moved, not changed", operand.value, operands=[operand], source=operand.node)


def came_from(
    values: Values, op: Op, port: int, index: tuple[int, ...]
) -> tuple[Ref | None, tuple[Any, ...]]:
    """Return the argument and index a number came from; None and the number, where it was filled in."""
    if op.kind == "identity" or op.name in _TYPES:
        return op.inputs[0], index
    if op.func is None or op.unsafe or not op.args:
        raise NotApartError("what it moves where cannot be followed.")
    parts = list(op.args[0]) if op.name in _JOINS else [op.args[0]]
    if not all(isinstance(part, Ref) for part in parts):
        raise NotApartError("what it moves is no tensor.")
    marks: list[Tensor] = []
    start = 1  # 0 is what tril and constant padding fill in
    for part in parts:
        like = values(part)
        marks.append(torch.arange(start, start + like.numel(), dtype=torch.float64).reshape(like.shape))
        start += like.numel()
    rest = values.filled(op.args[1:])
    kwargs = values.filled(op.kwargs)
    rest, kwargs, filler = _fill_with_zero(op, rest, kwargs)
    whole: Any = type(op.args[0])(marks) if op.name in _JOINS else marks[0]
    with torch.no_grad():
        found = tensors_of(op.func(whole, *_on_cpu(rest), **_on_cpu(kwargs)))[port][1]
    flat = int(found[index])
    if flat == 0:
        return None, (filler,)
    for part, mark in zip(parts, marks, strict=True):
        if flat <= int(mark.reshape(-1)[-1]) if mark.numel() else False:
            return part, unravel(flat - int(mark.reshape(-1)[0]), tuple(mark.shape))
    raise NotApartError("what it moves where cannot be followed.")


def _fill_with_zero(
    op: Op, rest: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any], float]:
    """Let padding fill in zeros, and return what it fills in."""
    if op.name != "pad":
        return rest, kwargs, 0.0
    filler = rest[2] if len(rest) > 2 else kwargs.get("value")
    if len(rest) > 2:
        rest = (*rest[:2], 0.0)
    elif kwargs.get("value") is not None:
        kwargs = {**kwargs, "value": 0.0}
    return rest, kwargs, float(filler or 0.0)


def _on_cpu(part: Any) -> Any:
    if isinstance(part, torch.Tensor):
        return part.cpu()
    if isinstance(part, (tuple, list)):
        return type(part)(_on_cpu(item) for item in part)
    if isinstance(part, dict):
        return {key: _on_cpu(item) for key, item in part.items()}
    return part


def origin(case: Case, part: Any, places: Tensor) -> tuple[str, Tensor, str]:
    """Return where the places of a padded picture stood before the padding.

    Returns
    -------
    source : str
        Node that shows the picture; empty where it is not padding that lies between.
    places : Tensor
        As given, ``[*window, D]``, in that picture; -1 for what was filled in.
    how : str
        In words.
    """
    op = case.values.trace.ops[part.op]
    if op.name != "pad" or not op.args or not case.node(op.args[0]):
        return "", places, "The input is a value inside of this layer."
    before = case.values(op.args[0])
    dims = places.shape[-1]
    sizes = before.shape[-dims:]
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in sizes], indexing="ij")
    kwargs = {key: value for key, value in case.values.filled(op.kwargs).items() if key != "value"}
    rest = case.values.filled(op.args[1:3])
    mode = kwargs.get("mode", rest[1] if len(rest) > 1 else "constant")
    assert op.func is not None
    marks = (
        torch.stack([op.func((axis + 1)[None, None], *rest, **kwargs)[0, 0] for axis in axes], -1).long() - 1
    )
    at = places.clamp(min=0).unbind(-1)
    return case.node(op.args[0]), marks[tuple(at)], f"Padding: {mode}."
