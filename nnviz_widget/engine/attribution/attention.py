"""Attention: which tokens a transformer looks at, in one layer or through all of them.

The weights are caught where they are computed (``nn.MultiheadAttention``, scaled dot product attention, or a
softmax over tokens), so that every library's transformer is understood without asking it for anything. They
belong to no class: attention shows where information comes from, not what it says.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  its name everywhere
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nnviz_widget.engine.attribution.cams import whole_map
from nnviz_widget.engine.attribution.gradients import precise
from nnviz_widget.engine.attribution.positions import layout_of, on_grid
from nnviz_widget.engine.attribution.registry import method
from nnviz_widget.engine.attribution.result import Part
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nnviz_widget.engine.attribution.task import Task

__all__: list[str] = []

#: Of `F.scaled_dot_product_attention`, which torch implements without telling their names.
_ARGUMENTS = ["query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa"]
_FUSED = {"mean": lambda w: w.mean(1), "max": lambda w: w.amax(1), "min": lambda w: w.amin(1)}


@method("attention", cost="F", family="attention", paper="Vaswani et al. 2017, arXiv:1706.03762")
def attention(
    task: Task, *, layer: Any = None, head: int | None = None, query: int | str | None = None
) -> Iterator[Part]:
    """Show how much attention each token gets in one layer of a transformer, whatever the target.

    Options
    -------
    layer : int, str or nn.Module
        Number of the attention, from 0 or back from -1, or a module around it; by default the last one.
    head : int
        By default the mean over all heads.
    query : int or "mean"
        Which token looks. By default the class token in front of patches; the last token where each sees only
        those before it; else the mean over all.
    """
    weights = _caught(task, layer)[-1]
    if head is not None:
        weights = weights[:, [_number(head, weights.shape[1], "head")]]
    yield _part(task, weights.mean(1), query)


@method("attention_rollout", cost="F", family="attention", paper="Abnar and Zuidema 2020, arXiv:2005.00928")
def attention_rollout(
    task: Task, *, head_fusion: str = "mean", query: int | str | None = None
) -> Iterator[Part]:
    """Multiply attention through all layers of a transformer: from where information reaches the end.

    Options
    -------
    head_fusion : str
        ``"mean"``, ``"max"`` or ``"min"`` over the heads of a layer.
    query : int or "mean"
        As of attention.
    """
    if head_fusion not in _FUSED:
        raise InputError(f"head_fusion is one of {', '.join(_FUSED)}, not {head_fusion!r}.")
    layers = _caught(task, None)
    tokens = layers[-1].shape[2:]
    fitting = [weights for weights in layers if weights.shape[2:] == tokens and tokens[0] == tokens[1]]
    if len(fitting) < len(layers):
        task.caution(
            f"{len(layers) - len(fitting)} of {len(layers)} attentions are between other tokens: left out."
        )
    if not fitting:
        raise InputError("No attention of this model is from tokens to the same tokens.")
    rolled = torch.eye(tokens[0], dtype=fitting[0].dtype, device=fitting[0].device)
    for weights in fitting:
        # Half of what a layer gives comes past the attention, by the residual connection.
        mixed = _FUSED[head_fusion](weights) + torch.eye(tokens[0], dtype=rolled.dtype, device=rolled.device)
        rolled = (mixed / mixed.sum(-1, keepdim=True)) @ rolled
    yield _part(task, rolled, query)


def _part(task: Task, weights: Tensor, query: int | str | None) -> Part:
    """Return the row of one query (``[N, T, S]``) as a map on the input."""
    count = weights.shape[1]
    if query is None:
        causal = count > 1 and not weights.triu(1).any()
        patches = on_grid(weights[:, :1], task)
        query = count - 1 if causal else 0 if patches[0].numel() < weights.shape[2] else "mean"
        task.decided["query"] = query
    looking = [*range(count)] if query == "mean" else [_number(query, count, "query")]
    found = on_grid(weights[:, looking].mean(1, keepdim=True), task)
    return Part(1, 1, lambda: whole_map(task, found), layer_values=lambda: found)


def _number(given: Any, count: int, what: str) -> int:
    if type(given) is not int or not -count <= given < count:
        raise InputError(f"{what}={given!r} is no number of one of the {count}, from 0 to {count - 1}.")
    return given


def _caught(task: Task, layer: Any) -> list[Tensor]:
    """Return the weights of all attentions, ``[N, heads, T, S]`` each, or of those that a module computes."""
    numbered = layer is None or isinstance(layer, int)
    path, _ = task.passes.resolve("" if numbered else layer)
    module = dict(task.passes.module.named_modules(remove_duplicate=False))[path]
    found: list[Tensor] = []
    begun: list[int] = []

    def enter(*_: Any) -> None:
        begun.append(len(caught.weights))

    def leave(*_: Any) -> None:
        found.extend(caught.weights[begun.pop() :])

    handles = [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with Attentions(task.samples) as caught:
            task.read([], task.inputs, task.every)
    finally:
        for handle in handles:
            handle.remove()
    # Windows that fill up to whole ones have tokens that stand nowhere.
    tokens = {prod(shape[1:]) // shape[axis] for _, axis, shape in layout_of(task).layers.values() if axis}
    caught.others += sum(weights.shape[-1] not in tokens for weights in found)
    found = [weights for weights in found if weights.shape[-1] in tokens]
    if not found:
        where = "The model" if numbered else repr(layer)
        raise InputError(
            f"{where} computes no attention between all tokens of a sample.",
            hint="Attention inside windows has no map." if caught.others else "This is for transformers.",
        )
    if caught.others:
        task.caution(f"{caught.others} attentions are inside windows, and left out.")
    return [found[_number(layer, len(found), "layer")]] if isinstance(layer, int) else found


class Attentions(TorchFunctionMode):
    """Keeps the weights of every attention that is computed in this block.

    Parameters
    ----------
    samples : int
        N; attention with another batch (windows) is counted, not kept.

    Attributes
    ----------
    weights : list of Tensor
        ``[N, heads, T, S]`` each, in order, detached.
    others : int
        How many attentions had another batch.
    """

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.weights: list[Tensor] = []
        self.others = 0
        self._samples = samples

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            return self._multi_head(args, kwargs)
        result = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            self._keep(_weights(**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs))
        elif getattr(func, "__name__", "") == "softmax" and isinstance(result, Tensor):
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            last = dim in (-1, result.dim() - 1)
            if last and result.dim() in (3, 4) and result.shape[-1] == result.shape[-2]:
                self._keep(result)
        return result

    def _multi_head(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        wanted = kwargs.get("need_weights", True)
        averaged = kwargs.get("average_attn_weights", True)
        kwargs = {**kwargs, "need_weights": True, "average_attn_weights": False}
        output, weights = F.multi_head_attention_forward(*args, **kwargs)
        assert weights is not None
        self._keep(weights)
        if not wanted:
            return output, None
        return output, weights.mean(-3) if averaged else weights

    def _keep(self, weights: Tensor) -> None:
        weights = precise(weights.detach())
        if weights.dim() == 3 and weights.shape[0] % self._samples == 0:
            weights = weights.reshape(self._samples, -1, *weights.shape[1:])
        if weights.dim() == 4 and weights.shape[0] == self._samples:
            self.weights.append(weights.clone())
        else:
            self.others += 1


def _weights(
    *,
    query: Tensor,
    key: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    **_: Any,
) -> Tensor:
    """Return the weights that `F.scaled_dot_product_attention`, called like this, uses and does not give."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = query @ key.transpose(-2, -1) * (scale if scale is not None else query.shape[-1] ** -0.5)
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, -torch.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1).nan_to_num()  # a token that may look at nothing
