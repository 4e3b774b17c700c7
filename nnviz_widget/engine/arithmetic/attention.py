"""Attention: a query is compared with every key, and mixes the values by how well they fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.arithmetic.registry import explains
from nnviz_widget.engine.arithmetic.result import Arithmetic
from nnviz_widget.engine.arithmetic.values import NotApartError

if TYPE_CHECKING:
    from torch import Tensor

    from nnviz_widget.engine.arithmetic.values import Case

__all__: list[str] = []

_MULTI_HEAD = (
    "query key value embed_dim_to_check num_heads in_proj_weight in_proj_bias bias_k bias_v add_zero_attn "
    "dropout_p out_proj_weight out_proj_bias training key_padding_mask need_weights attn_mask "
    "use_separate_proj_weight q_proj_weight k_proj_weight v_proj_weight static_k static_v "
    "average_attn_weights is_causal"
)


@explains("scaled_dot_product_attention")
def scaled(case: Case) -> Arithmetic:
    """Take one head apart: the operation itself knows no projections."""
    given = case.bind(
        "query key value attn_mask dropout_p is_causal scale enable_gqa", dropout_p=0.0, is_causal=False
    )
    if given["dropout_p"]:
        raise NotApartError("it drops weights at random.")
    query, key, value = (case.tensor(given[name]) for name in ("query", "key", "value"))
    *lead, token, feature = case.index
    if given.get("enable_gqa"):
        share = query.shape[-3] // key.shape[-3]
        at = (*lead[:-1], lead[-1] // share)
    else:
        at = tuple(lead)
    keys, values = (_leading(tensor, at) for tensor in (key, value))
    one = _leading(query, tuple(lead))[token]
    factor = given["scale"] if given["scale"] is not None else one.shape[-1] ** -0.5
    mask = None if given["attn_mask"] is None else case.values(given["attn_mask"])
    row = _mask_row(mask, tuple(lead), token, len(keys))
    if given["is_causal"]:
        row = row + _causal(token, len(keys))
    source = case.node(given["query"])
    column = values[None, :, feature]
    return _mixed(one[None], keys[None], column, row[None], factor=factor, source=source)


@explains("multi_head_attention")
def multi_head(case: Case) -> Arithmetic:
    """Take all heads apart, with the projections before and after them."""
    given = case.bind(_MULTI_HEAD, add_zero_attn=False, use_separate_proj_weight=False)
    if case.port:
        raise NotApartError("these are its weights; choose its output.")
    if given["training"] and given["dropout_p"]:
        raise NotApartError("it drops weights at random.")
    if given["bias_k"] is not None or given["add_zero_attn"] or given["static_k"] is not None:
        raise NotApartError("it adds tokens of its own.")
    tensors = [case.tensor(given[name]) for name in ("query", "key", "value")]
    if tensors[0].dim() == 3:  # [T, N, E]
        token, sample, feature = case.index
        tensors = [tensor[:, sample] for tensor in tensors]
    else:
        (token, feature), sample = case.index, 0
    heads = given["num_heads"]
    width = tensors[0].shape[-1]
    projected = []
    for place, (tensor, weight) in enumerate(zip(tensors, _projections(case, given, width), strict=True)):
        found = tensor @ weight.T
        bias = case.optional(given["in_proj_bias"])
        if bias is not None:
            found = found + bias[place * width : (place + 1) * width]
        projected.append(found.reshape(len(found), heads, -1).transpose(0, 1))  # [heads, T, E / heads]
    query, keys, values = projected
    out, bias = case.tensor(given["out_proj_weight"]), case.optional(given["out_proj_bias"])
    # What each token's value would add to this feature, head by head.
    values = (values * out[feature].reshape(heads, 1, -1)).sum(-1)
    masks = torch.zeros(heads, keys.shape[1], dtype=torch.float64, device=keys.device)
    if given["attn_mask"] is not None:
        mask = case.values(given["attn_mask"])
        if mask.dim() == 3:  # of each head of each sample
            mask = mask[sample * heads : (sample + 1) * heads]
        masks = masks + torch.stack([_additive(part[token]) for part in mask.expand(heads, *mask.shape[-2:])])
    if given["key_padding_mask"] is not None:
        padding = case.values(given["key_padding_mask"])
        masks = masks + _additive(padding[sample] if padding.dim() == 2 else padding)
    factor = keys.shape[-1] ** -0.5
    shift = None if bias is None else float(bias[feature])
    source = case.node(given["query"])
    return _mixed(query[:, token], keys, values, masks, factor=factor, bias=shift, source=source)


def _mixed(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    masks: Tensor,
    *,
    factor: float,
    bias: float | None = None,
    **more: Any,
) -> Arithmetic:
    """Return what heads ``[H, E]``, keys ``[H, S, E]`` and values ``[H, S]`` give."""
    scores = (keys @ query[:, :, None])[..., 0] * factor + masks.to(query.device)
    weights = scores.softmax(-1).nan_to_num()  # a token that may look at nothing
    products = weights * values
    total = float(products.sum())
    numbers = {"scale": factor, "sum": total}
    if bias is not None:
        numbers["bias"] = bias
    arrays = {"query": query, "keys": keys, "scores": scores, "weights": weights}
    arrays |= {"values": values, "products": products}
    return Arithmetic(
        "attention",
        "Σ softmax(query · key · scale) · value" + (" + bias" if bias is not None else ""),
        total + (bias or 0.0),
        numbers=numbers,
        arrays={name: array.double().cpu() for name, array in arrays.items()},
        **more,
    )


def _projections(case: Case, given: dict[str, Any], width: int) -> list[Tensor]:
    if given["use_separate_proj_weight"]:
        return [case.tensor(given[f"{letter}_proj_weight"]) for letter in "qkv"]
    return list(torch.split(case.tensor(given["in_proj_weight"]), width))


def _leading(tensor: Tensor, lead: tuple[int, ...]) -> Tensor:
    """Return the matrix at some leading indices, of which the tensor may have fewer, or ones."""
    own = tensor.shape[:-2]
    at = tuple(0 if size == 1 else i for i, size in zip(lead[len(lead) - len(own) :], own, strict=True))
    return tensor[at]


def _mask_row(mask: Tensor | None, lead: tuple[int, ...], token: int, keys: int) -> Tensor:
    """Return what is added to the scores of one query."""
    if mask is None:
        return torch.zeros(keys, dtype=torch.float64)
    rows = _leading(mask, lead) if mask.dim() > 2 else mask
    row = rows[token if rows.shape[0] > 1 else 0]
    # Here true means that a key may be looked at.
    return _additive(~row if row.dtype == torch.bool else row).expand(keys).cpu()


def _additive(mask: Tensor) -> Tensor:
    """Return a mask as what is added; true hides."""
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=torch.float64, device=mask.device).masked_fill(mask, -torch.inf)
    return mask.double()


def _causal(token: int, keys: int) -> Tensor:
    return torch.zeros(keys, dtype=torch.float64).masked_fill(torch.arange(keys) > token, -torch.inf)
