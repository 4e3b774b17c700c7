"""The short hint on a node: ``7×7 /2``, ``64→128``, ``p=0.5``, ``dim=1``.

Only words for people; nothing else reads them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.recording import Ref
from nnviz_widget.engine.vocabulary import traits_of, words

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from nnviz_widget.engine.recording import Op

__all__ = ["module_detail", "op_detail", "read_label", "type_name"]

_LONGEST = 40
#: Attributes of modules that say something.
_TOLD = words(
    """
    kernel_size in_channels in_features input_size num_embeddings in1_features groups num_layers num_heads
    num_groups num_features normalized_shape output_size p negative_slope dim scale_factor
    upscale_factor start_dim
    """
)


def type_name(module: nn.Module) -> str:
    """Return the class that a module is of; of a scripted one, the class that was compiled."""
    return str(module.original_name) if isinstance(module, torch.jit.ScriptModule) else type(module).__name__


def module_detail(module: nn.Module) -> str:
    """Describe a leaf module in a few characters; empty for one that says nothing."""
    if isinstance(module, torch.jit.ScriptModule):
        return "compiled by TorchScript: not seen inside"
    known = module.__dict__
    if _TOLD.isdisjoint(known):
        return ""
    return " ".join([*_sizes(known.get), *_options(known.get)])[:_LONGEST]


def _sizes(get: Callable[..., Any]) -> list[str]:
    parts = []
    if isinstance(get("kernel_size"), (int, tuple)):
        parts.append(_times(get("kernel_size")))
        stride = get("stride")
        if stride is not None and not _is(stride, 1):
            parts.append(f"/{_slim(stride)}")
        if get("dilation") is not None and not _is(get("dilation"), 1):
            parts.append(f"d{_slim(get('dilation'))}")
    pairs = (("in_channels", "out_channels"), ("in_features", "out_features"), ("input_size", "hidden_size"))
    for first, second in (*pairs, ("num_embeddings", "embedding_dim")):
        if isinstance(get(first), int) and isinstance(get(second), int):
            parts.append(f"{get(first)}→{get(second)}")
    if get("in1_features"):
        parts.append(f"{get('in1_features')}·{get('in2_features')}→{get('out_features')}")
    groups = get("groups")
    if isinstance(groups, int) and groups > 1:
        parts.append("depthwise" if groups == get("in_channels") else f"{groups} groups")
    return parts


def _options(get: Callable[..., Any]) -> list[str]:
    parts = []
    layers = get("num_layers")
    if isinstance(layers, int) and layers > 1:
        parts.append(f"×{layers}")
    if get("bidirectional") is True:
        parts.append("↔")
    if isinstance(get("num_heads"), int):
        parts.append(f"{get('embed_dim', '')} {get('num_heads')} heads".strip())
    if isinstance(get("num_groups"), int):
        parts.append(f"{get('num_groups')} groups of {get('num_channels')}")
    sizes = (get("num_features"), get("normalized_shape"), get("output_size"))
    parts += [_times(size) for size in sizes if isinstance(size, (int, tuple))]
    if isinstance(get("p"), float):
        parts.append(f"p={get('p'):g}")
    numbers = [
        (name, get(name)) for name in ("negative_slope", "dim", "scale_factor", "upscale_factor", "start_dim")
    ]
    return parts + [f"{name}={value:g}" for name, value in numbers if isinstance(value, (int, float))]


def op_detail(op: Op) -> str:
    """Describe an operation by the plain arguments it was called with."""
    if op.kind == "decision" and op.func is not None:
        return traits_of(op.func).reads
    if op.kind == "constant":
        return "from numpy" if "numpy" in op.unsafe else ""
    if op.name in {"getitem", "setitem"} and len(op.args) > 1:
        return _index(op.args[1])[:_LONGEST]
    shown = [_plain(value) for value in op.args[1:] if _is_plain(value)]
    shown += [
        f"{key}={_plain(value)}" for key, value in op.kwargs.items() if _is_plain(value) and key[0] != "_"
    ]
    return ", ".join(shown)[:_LONGEST]


def read_label(value: Any) -> str:
    """Return what Python read from the data, in a word: ``True``, ``3``, ``0.731``; empty for too much."""
    if isinstance(value, list):
        parts = [read_label(part) for part in value[:5]]
        return f"[{', '.join(parts)}]" if len(value) < 5 and all(parts) else ""
    return f"{value:g}" if isinstance(value, float) else str(value)[:_LONGEST]


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)) and not isinstance(value, Ref):
        return len(value) <= 6 and all(isinstance(part, (int, float)) for part in value)
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)


def _plain(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(str, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _index(value: Any) -> str:
    if isinstance(value, tuple) and not isinstance(value, Ref):
        return f"[{', '.join(_index(part).strip('[]') for part in value)}]"
    if isinstance(value, slice):
        ends = ["" if end is None else _index(end).strip("[]") for end in (value.start, value.stop)]
        step = "" if value.step is None else f":{value.step}"
        return f"[{':'.join(ends)}{step}]"
    if value is Ellipsis:
        return "[…]"
    return "[·]" if isinstance(value, (Ref, list)) else f"[{value}]"


def _is(value: Any, number: int) -> bool:
    return all(part == number for part in value) if isinstance(value, tuple) else value == number


def _slim(value: Any) -> str:
    return str(value[0]) if isinstance(value, tuple) and len(set(value)) == 1 else _times(value)


def _times(value: Any) -> str:
    if isinstance(value, tuple):
        return "×".join(map(str, value))
    return str(value)
