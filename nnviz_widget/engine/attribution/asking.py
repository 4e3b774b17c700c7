"""From what a user writes to a question: inputs in all their forms, options checked, the call written out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from nnviz_widget.engine.admission import prepared
from nnviz_widget.engine.attribution.registry import method_named
from nnviz_widget.engine.attribution.stream import Question
from nnviz_widget.errors import UnknownLayerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from nnviz_widget.engine.attribution.registry import MethodInfo

__all__ = ["arguments", "ask", "literal", "written"]


def ask(
    method: str | MethodInfo,
    inputs: Any,
    *,
    target: Any = None,
    additional_forward_args: Any = None,
    options: Mapping[str, Any],
    device: torch.device | None,
    path: Callable[[nn.Module], str | None],
) -> Question:
    """Return the question that a call of `Engine.attribute` asks.

    Parameters
    ----------
    method : str or MethodInfo
        Name of the method, or what is known of it.
    inputs : Tensor, tuple, list or dict
        One input, several positional ones, or keyword arguments.
    target, additional_forward_args
        As `Engine.attribute` takes them.
    options : mapping
        The method's own options.
    device : torch.device, optional
        Where the model is.
    path : callable
        Returns the path of a module of the user's model, or None.
    """
    info = method_named(method)
    checked = info.checked(options)
    if isinstance(checked.get("layer"), nn.Module):
        checked["layer"] = _path_of(checked["layer"], path)
    args, kwargs = arguments(inputs)
    extra = additional_forward_args
    extras = () if extra is None else tuple(extra) if isinstance(extra, (tuple, list)) else (extra,)
    (args, extras), kwargs = prepared((args, extras), kwargs, device)
    call = written(info, target, {name: value for name, value in options.items() if name in info.options})
    return Question(info, args, kwargs, extras, target, checked, call)


def arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments that one input, several in a tuple or a list, or a dict of them stand for."""
    if isinstance(inputs, dict):
        return (), inputs
    if isinstance(inputs, (tuple, list)) and any(hasattr(part, "shape") for part in inputs):
        return tuple(inputs), {}
    return (inputs,), {}


def _path_of(module: nn.Module, path: Callable[[nn.Module], str | None]) -> str:
    found = path(module)
    if found is None:
        raise UnknownLayerError(f"This {type(module).__name__} is not a part of the model.")
    return found


def written(info: MethodInfo, target: Any, options: Mapping[str, Any]) -> str:
    """Return the Python of a call; what has no literal is named after its option."""
    parts = ["inputs", f'method="{info.name}"']
    if target is not None:
        parts.append(f"target={literal(target, 'target')}")
    parts += [
        f"{name}={literal(value, name)}" for name, value in options.items() if value is not info.options[name]
    ]
    return f"engine.attribute({', '.join(parts)})"


def literal(value: Any, name: str) -> str:
    """Return the Python of a value; of one without a literal, its name."""
    if isinstance(value, Tensor):
        return repr(value.tolist()) if value.numel() <= 8 and not value.is_floating_point() else name
    if isinstance(value, (tuple, list)):
        parts = [literal(part, f"{name}{i}") for i, part in enumerate(value)]
        comma = "," if len(parts) == 1 and isinstance(value, tuple) else ""
        return f"({', '.join(parts)}{comma})" if isinstance(value, tuple) else f"[{', '.join(parts)}]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value) if value is None or isinstance(value, (bool, int, float)) else name
