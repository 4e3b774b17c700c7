"""Rules for matrix products and attention. Masks of attention that are constants cut connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.recording import Ref
from nnviz_widget.engine.structure.registry import Call, UnknownStructureError, along, rule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor


@rule("matmul mm bmm mv dot inner", "input other")
def _matmul(call: Call) -> Iterable[tuple[Any, Tensor]]:
    left, right = call.get("input"), call.get("other", call.op.inputs[-1])
    rows, columns = len(call.shape_of(left)) > 1, len(call.shape_of(right)) > 1
    if call.op.name == "inner" and rows and columns:
        raise UnknownStructureError
    mask = call.mask if columns else call.mask.unsqueeze(-1)
    mask = mask if rows else mask.unsqueeze(-2)
    to_left, to_right = along(mask, [-1]), along(mask, [-2])
    yield left, to_left if rows else to_left.squeeze(-2)
    yield right, to_right if columns else to_right.squeeze(-1)


@rule("addmm baddbmm", "input left right")
def _addmm(call: Call) -> Iterable[tuple[Any, Tensor]]:
    yield call.get("input"), call.mask
    yield call.get("left"), along(call.mask, [-1])
    yield call.get("right"), along(call.mask, [-2])


@rule("outer", "input other")
def _outer(call: Call) -> Iterable[tuple[Any, Tensor]]:
    yield call.get("input"), call.mask.any(1)
    yield call.get("other"), call.mask.any(0)


@rule("bilinear", "left right weight bias")
def _bilinear(call: Call) -> Iterable[tuple[Any, Tensor]]:
    yield call.get("left"), along(call.mask, [-1])
    yield call.get("right"), along(call.mask, [-1])


@rule("einsum")
def _einsum(call: Call) -> Iterable[tuple[Any, Tensor]]:
    equation, *operands = call.op.args
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)) and not isinstance(operands[0], Ref):
        operands = list(operands[0])
    if not isinstance(equation, str) or "." in equation or not all(isinstance(o, Ref) for o in operands):
        raise UnknownStructureError
    left, arrow, right = equation.replace(" ", "").partition("->")
    if not arrow:
        right = "".join(sorted(letter for letter in set(left) - {","} if left.count(letter) == 1))
    for labels, operand in zip(left.split(","), operands, strict=True):
        if len(set(labels)) < len(labels):
            raise UnknownStructureError  # a diagonal
        mask = along(call.mask, [axis for axis, letter in enumerate(right) if letter not in labels])
        shared = [letter for letter in right if letter in labels]
        mask = mask.reshape([n for n, letter in zip(mask.shape, right, strict=True) if letter in labels])
        for letter in labels:
            if letter not in shared:
                mask, shared = mask.unsqueeze(-1), [*shared, letter]
        yield operand, mask.permute([shared.index(letter) for letter in labels])


@rule("scaled_dot_product_attention", "query key value attn_mask dropout_p is_causal scale enable_gqa")
def _attention(call: Call) -> Iterable[tuple[Any, Tensor]]:
    query, key, value = call.get("query"), call.get("key"), call.get("value")
    queries, keys = call.shape_of(query)[-2], call.shape_of(key)[-2]
    if call.get("enable_gqa", False):
        raise UnknownStructureError
    allowed = None
    if call.get("is_causal", False):
        allowed = torch.ones(queries, keys, dtype=torch.bool).tril()
    elif call.get("attn_mask") is not None:
        allowed = _allowed(call, call.get("attn_mask"), true_means=True)
    yield query, along(call.mask, [-1])
    if allowed is None:
        yield key, along(call.mask, [-1, -2])
        yield value, along(call.mask, [-2])
    else:
        mask = call.mask.expand(*[-1] * (call.mask.dim() - 2), queries, -1)
        attended = _or_product(allowed.mT, mask)
        yield key, along(attended, [-1])
        yield value, attended


@rule(
    "multi_head_attention",
    "query key value embed_dim_to_check num_heads in_proj_weight in_proj_bias bias_k bias_v add_zero_attn "
    "dropout_p out_proj_weight out_proj_bias training key_padding_mask need_weights attn_mask",
)
def _multi_head_attention(call: Call) -> Iterable[tuple[Any, Tensor]]:
    query, key, value = call.get("query"), call.get("key"), call.get("value")
    if call.get("key_padding_mask") is not None or len(call.shape_of(query)) != 3:
        raise UnknownStructureError
    allowed = None
    if call.get("attn_mask") is not None:
        allowed = _allowed(call, call.get("attn_mask"), true_means=False)
        if allowed.dim() != 2:
            raise UnknownStructureError
    for port, given in call.masks.items():
        if port:  # the weights, (batch, [heads,] queries, keys): in the order of (queries, batch, 1)
            mask = given.flatten(1, -3).any(1) if given.dim() == 4 else given
            mask = mask.any(-1).mT.unsqueeze(-1)
        else:
            mask = along(given, [-1])
        mask = mask.expand(call.shape_of(query)[0], -1, -1)
        yield query, mask
        attended = along(mask, [0])
        if allowed is not None:
            attended = _or_product(allowed.mT, mask.squeeze(-1)).unsqueeze(-1)
        yield key, attended
        yield value, attended


def _allowed(call: Call, mask: Any, *, true_means: bool) -> Tensor:
    """Return which keys each query may see, from an attention mask that depends on no input."""
    if not isinstance(mask, Ref) or call.live(mask):
        raise UnknownStructureError
    values = call.value_of(mask)
    if values.dtype == torch.bool:
        return values if true_means else ~values
    return values > torch.finfo(values.dtype).min


def _or_product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply boolean matrices: and, then or."""
    return left.float() @ right.float() > 0
