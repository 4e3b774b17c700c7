"""What may come in: models, devices, inputs. Everything else is refused here, with what to do instead.

Nothing is run here; what the model itself makes of its input is seen when it runs (``advice`` explains its
errors).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from nnviz_widget.engine.sharing import named_weights
from nnviz_widget.errors import InputError

__all__ = ["check_model", "prepared", "usable_device"]


def check_model(model: object) -> None:
    """Raise `InputError` for what is no module, or a module without values."""
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise InputError(
            f"Expected a model, but {model.__name__} is a class.", hint=f"Make one: {model.__name__}(...)."
        )
    if not isinstance(model, nn.Module):
        raise InputError(
            f"Expected a torch.nn.Module, not {type(model).__name__}.",
            hint="A function can be wrapped in a module whose forward calls it.",
        )
    for name, tensor in named_weights(model):
        if torch.nn.parameter.is_lazy(tensor):
            raise InputError(
                f"The parameter {name!r} has no shape yet.", hint="Run the model once: model(inputs)."
            )


def usable_device(device: torch.device | str | None) -> torch.device | None:
    """Return the device, or raise `InputError` where nothing can be computed on it."""
    if device is None:
        return None
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise InputError(f"device={device!r} cannot be used here: {error}") from error
    return found


def prepared(
    args: tuple[Any, ...], kwargs: dict[str, Any], device: torch.device | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Copy the inputs to a device, so that neither side's writes reach the other.

    Without a device the copies stay where the inputs are. Types are kept; NumPy arrays become tensors.
    """
    leaves = tree_leaves((args, kwargs))
    if not any(isinstance(leaf, (Tensor, np.ndarray)) for leaf in leaves):
        listed = next((a for a in (*args, *kwargs.values()) if isinstance(a, (list, tuple))), None)
        if listed is not None and all(isinstance(leaf, (int, float)) for leaf in tree_leaves(listed)):
            raise InputError(
                f"The model takes tensors; a {type(listed).__name__} of numbers was given.",
                hint="Pass torch.tensor(values).",
            )

    def copied(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            value = torch.from_numpy(np.ascontiguousarray(value))
        if not isinstance(value, Tensor):
            return value
        if device is None or value.device == device:
            return value.detach().clone()
        return value.detach().to(device)

    with torch.inference_mode(False), torch.no_grad():
        copies: tuple[tuple[Any, ...], dict[str, Any]] = tree_map(copied, (args, kwargs))
    return copies
