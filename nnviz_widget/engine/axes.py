"""Which axis of each recorded value holds the channels.

Torch names no axes. A convolution puts its channels second (``[N, C, H, W]``), a linear layer or a norm over
the last axis puts its features last (``[N, H, W, C]`` in Swin and ConvNeXt), and what stands between carries
the axis along: a permutation moves it, a reshape may merge it away, everything elementwise keeps it. So the
axis follows from the operations, first from what made a value, then from what reads it. Where it does not
follow, nothing is said.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from nnviz_widget.engine.recording import Ref
from nnviz_widget.engine.vocabulary import words

if TYPE_CHECKING:
    from nnviz_widget.engine.recording import Op

__all__ = ["channel_axes"]

#: Channels are axis 1 of the first argument and of the result, if these have as many axes as the digit says.
_SPATIAL = {
    f"{name}{digit}d": digit + 2
    for digit in (1, 2, 3)
    for name in (
        "conv", "conv_transpose", "max_pool", "avg_pool", "lp_pool", "adaptive_avg_pool", "adaptive_max_pool",
    )
}  # fmt: skip
#: The same, with any number of axes.
_SECOND = words("batch_norm  instance_norm  group_norm  interpolate  pixel_shuffle  pixel_unshuffle  prelu")
#: Features are the last axis of the first argument and of the result, unless they are known to be another: a
#: linear layer may also mix along a row.
_LAST = words("linear  layer_norm  rms_norm  lstm  gru  rnn_tanh  rnn_relu  multi_head_attention")
_RESHAPE = words("view  reshape  flatten  unflatten  unsqueeze  squeeze  view_as  reshape_as")
#: The axes of the result are not those of any argument.
_OPAQUE = words("matmul  bmm  einsum  scaled_dot_product_attention  tensordot  stack  as_strided")


def channel_axes(ops: list[Op]) -> dict[Ref, int]:
    """Return the axis of the channels for each value where it follows from the operations.

    Parameters
    ----------
    ops : list of Op
        A recording.

    Returns
    -------
    dict of Ref to int
        Counted from 0, the batch; never 0.
    """
    return _Axes(ops).known


class _Axes:
    def __init__(self, ops: list[Op]) -> None:
        self.ops = ops
        self.known: dict[Ref, int] = {}
        for op in ops:
            self._forward(op)
        for op in reversed(ops):
            self._backward(op)
        for op in ops:  # what the readers told about one branch goes on into the others
            self._forward(op)

    def _shape(self, ref: Ref) -> tuple[int, ...]:
        return self.ops[ref.op].outputs[ref.port].shape

    def _learn(self, ref: Ref, axis: int | None) -> None:
        if axis is not None and 0 < axis < len(self._shape(ref)):
            self.known.setdefault(ref, axis)

    def _forward(self, op: Op) -> None:
        for alias in op.aliases:
            self._learn(Ref(op.index, alias.port), self.known.get(alias.before))
        if not op.inputs:
            if op.name == "embedding":
                self._learn(Ref(op.index), len(op.outputs[0].shape) - 1)
            return
        fixed = self._by_itself(op)
        for port in range(len(op.outputs) - len(op.aliases)):
            result = Ref(op.index, port)
            if fixed is not None:
                same = len(self._shape(result)) == len(self._shape(op.inputs[0]))
                self._learn(result, fixed if same else None)
                continue
            for source in op.inputs:
                axis = self.known.get(source)
                moved = None if axis is None else self._carried(op, source, result, axis)
                if moved is not None:
                    self._learn(result, moved)
                    break

    def _backward(self, op: Op) -> None:
        if not op.inputs:
            return
        fixed = self._by_itself(op)
        if fixed is not None:
            self._learn(op.inputs[0], fixed)
            return
        for port in range(len(op.outputs) - len(op.aliases)):
            result = Ref(op.index, port)
            axis = self.known.get(result)
            if axis is not None:
                for source in op.inputs:
                    self._learn(source, self._carried(op, result, source, axis, back=True))

    def _by_itself(self, op: Op) -> int | None:
        """Return the axis that the operation itself asks for."""
        first = op.inputs[0]
        dims = len(self._shape(first))
        if _SPATIAL.get(op.name) == dims or (op.name in _SECOND and dims > 2):
            return 1
        weights = op.name == "matmul" and len(op.inputs) == 2 and len(self._shape(op.inputs[1])) == 2
        if op.name in _LAST or (weights and dims > 2):
            if op.name in {"layer_norm", "rms_norm"} and len(_sizes(op)) > 1:
                return None  # over several axes, so it says nothing about one
            return self.known.get(first, dims - 1)
        return None

    def _carried(self, op: Op, source: Ref, result: Ref, axis: int, *, back: bool = False) -> int | None:
        """Return where an axis of one value is in the other, going through an operation (or back)."""
        before, after = self._shape(source), self._shape(result)
        if op.name in _OPAQUE:
            return None
        if op.name in _RESHAPE:
            return _reshaped(before, after, axis)
        if len(before) != len(after):
            return None
        order = _order(op, len(before))
        if order is None:
            return axis
        return order[axis] if back else order.index(axis)


def _reshaped(before: tuple[int, ...], after: tuple[int, ...], axis: int) -> int | None:
    """Return where an axis went whose size, and the number of values before it, stayed the same."""
    outside = prod(before[:axis])
    for place in range(1, len(after)):
        if prod(after[:place]) == outside and after[place] == before[axis]:
            return place
    return None


def _order(op: Op, dims: int) -> list[int] | None:
    """Return which axis of its argument each axis of a permutation's result is; None for other operations."""
    given: Any = op.args[1:] or tuple(op.kwargs.values())
    order = list(range(dims))
    if op.name == "permute":
        given = given[0] if len(given) == 1 else given
        return [place % dims for place in given]
    if op.name in {"transpose", "swapaxes", "swapdims"}:
        a, b = given[0] % dims, given[1] % dims
        order[a], order[b] = order[b], order[a]
        return order
    if op.name in {"movedim", "moveaxis"}:
        origins, targets = ([place % dims for place in _several(part)] for part in given[:2])
        rest = [place for place in order if place not in origins]
        for target, origin in sorted(zip(targets, origins, strict=True)):
            rest.insert(target, origin)
        return rest
    return None


def _several(part: Any) -> tuple[int, ...]:
    return (part,) if isinstance(part, int) else tuple(part)


def _sizes(op: Op) -> tuple[int, ...]:
    return _several(op.args[1] if len(op.args) > 1 else op.kwargs.get("normalized_shape", 0))
