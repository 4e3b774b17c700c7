"""Floating point operations of a recorded operation, from shapes alone.

Two for a multiply-add, counted for the operations that carry a network's cost (convolutions, linear layers,
matrix products, attention, recurrent layers), as ``torch.utils.flop_counter`` counts them; everything else
counts zero. No tensor is needed.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from nnviz_widget.engine.recording import Ref

if TYPE_CHECKING:
    from collections.abc import Callable

    from nnviz_widget.engine.recording import Op

__all__ = ["flops_of"]

Shape = tuple[int, ...]


def flops_of(op: Op, ops: list[Op]) -> int:
    """Return the floating point operations of one recorded operation; 0 where nobody counts them."""
    count = _COUNT.get(op.name)
    if count is None or not op.outputs:
        return 0
    try:
        return int(count(op, lambda value: _shape(value, ops)))
    except (IndexError, KeyError, TypeError, ValueError, AttributeError):
        return 0  # called in a way that no formula here knows; a missing number beats a wrong one


def _shape(value: Any, ops: list[Op]) -> Shape:
    if not isinstance(value, Ref):
        raise TypeError("not a tensor")
    return ops[value.op].outputs[value.port].shape


def _argument(op: Op, place: int, *names: str) -> Any:
    if place < len(op.args):
        return op.args[place]
    return next((op.kwargs[name] for name in names if name in op.kwargs), None)


def _conv(op: Op, shape: Callable[[Any], Shape]) -> int:
    weight = shape(_argument(op, 1, "weight"))
    return 2 * prod(op.outputs[0].shape) * prod(weight[1:])


def _conv_transpose(op: Op, shape: Callable[[Any], Shape]) -> int:
    return 2 * prod(shape(_argument(op, 0, "input"))) * prod(shape(_argument(op, 1, "weight"))[1:])


def _linear(op: Op, shape: Callable[[Any], Shape]) -> int:
    return 2 * prod(op.outputs[0].shape) * shape(_argument(op, 1, "weight"))[-1]


def _bilinear(op: Op, shape: Callable[[Any], Shape]) -> int:
    out, first, second = shape(_argument(op, 2, "weight"))
    rows = prod(op.outputs[0].shape[:-1])
    return 2 * rows * out * first * second


def _matmul(op: Op, shape: Callable[[Any], Shape]) -> int:
    inner = shape(_argument(op, 0, "input", "self"))[-1]
    return 2 * prod(op.outputs[0].shape) * inner


def _add_matmul(op: Op, shape: Callable[[Any], Shape]) -> int:
    return 2 * prod(op.outputs[0].shape) * shape(_argument(op, 1, "mat1", "batch1", "mat", "vec1"))[-1]


def _attention(op: Op, shape: Callable[[Any], Shape]) -> int:
    query, key, value = (shape(_argument(op, i, name)) for i, name in enumerate(("query", "key", "value")))
    scores = prod(query[:-1]) * key[-2]
    return 2 * scores * query[-1] + 2 * scores * value[-1]


def _multi_head(op: Op, shape: Callable[[Any], Shape]) -> int:
    query, key, value = (shape(_argument(op, i, name)) for i, name in enumerate(("query", "key", "value")))
    batch, target, source, width = prod(query[:-1]) // query[0], query[0], key[0], query[-1]
    projections = batch * (target * width * width * 2 + source * width * (key[-1] + value[-1]))
    return 2 * (projections + 2 * batch * target * source * width)


def _einsum(op: Op, shape: Callable[[Any], Shape]) -> int:
    equation, operands = op.args[0], op.args[1:]
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or "..." in equation:
        return _einsum_ellipsis(equation, operands, op, shape)
    terms, _, result = equation.replace(" ", "").partition("->")
    total = 0
    left: set[str] = set()
    sizes: dict[str, int] = {}
    labels = [set(term) for term in terms.split(",")]
    if "->" not in equation:
        joined = terms.replace(",", "")
        result = "".join(label for label in joined if joined.count(label) == 1)
    for place, (term, operand) in enumerate(zip(terms.split(","), operands, strict=True)):
        sizes.update(zip(term, shape(operand), strict=True))
        wanted = set(result).union(*labels[place + 1 :])
        # A label that stands in this operand alone is summed before the product.
        mine = labels[place] & (wanted | left)
        if place:
            left &= wanted | mine
            total += 2 * prod(sizes[label] for label in left | mine)
            left = (left | mine) & wanted
        else:
            left = mine
    return total


def _einsum_ellipsis(equation: Any, operands: tuple[Any, ...], op: Op, shape: Callable[[Any], Shape]) -> int:
    if not isinstance(equation, str) or len(operands) != 2:
        return 0
    terms, _, result = equation.replace(" ", "").partition("->")
    first, second = terms.split(",")
    inner = (set(first) & set(second)) - set(result) - {"."}
    sizes: dict[str, int] = {}
    for term, operand in ((first, operands[0]), (second, operands[1])):
        size = shape(operand)
        head, _, tail = term.partition("...")
        sizes.update(zip(head, size, strict=False))
        sizes.update(zip(reversed(tail), reversed(size), strict=False))
    return 2 * prod(op.outputs[0].shape) * prod(sizes[label] for label in inner)


def _recurrent(op: Op, shape: Callable[[Any], Shape]) -> int:
    """Count a whole recurrent layer: every weight matrix is applied once at each step of each sequence."""
    packed = not isinstance(op.args[2], list)
    weights = op.args[3] if packed else op.args[2]
    rows = shape(op.args[0])
    steps = rows[0] if packed else prod(rows[:-1])
    return sum(2 * steps * prod(shape(weight)) for weight in weights if len(shape(weight)) == 2)


def _cell(op: Op, shape: Callable[[Any], Shape]) -> int:
    rows = prod(shape(op.args[0])[:-1])
    return 2 * rows * (prod(shape(op.args[2])) + prod(shape(op.args[3])))


_COUNT: dict[str, Callable[[Op, Callable[[Any], Shape]], int]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "conv"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv_transpose),
    "linear": _linear,
    "bilinear": _bilinear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "inner"), _matmul),
    **dict.fromkeys(("addmm", "baddbmm", "addmv", "addbmm"), _add_matmul),
    "scaled_dot_product_attention": _attention,
    "multi_head_attention": _multi_head,
    "einsum": _einsum,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _cell),
}
