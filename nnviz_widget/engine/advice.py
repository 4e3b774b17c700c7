"""What the user can do about an error that the model raised.

Looks at what was given and at the module that failed, and adds one or two sentences to the error. It says
only what the types and shapes prove; the error itself stays as the model raised it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from nnviz_widget.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["advised"]


def advised(error: ModelError, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ModelError:
    """Return the same error with hints that follow from the inputs and the failing module."""
    hints = [error.hint, *_hints(error, model, args, kwargs)]
    return ModelError(
        error.message,
        hint=" ".join(hint for hint in hints if hint),
        source=error.source,
        node=error.node,
        shapes=error.shapes,
        trace=error.trace,
    )


def _hints(
    error: ModelError, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[str]:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if not tensors:
        given = ", ".join(type(value).__name__ for value in (*args, *kwargs.values())) or "nothing"
        yield f"No tensor was given ({given})."
        return
    about_types = list(_type_hints(error, model, tensors))
    if about_types:
        yield about_types[0]
        return
    listed = next((a for a in args if isinstance(a, (list, tuple)) and a and isinstance(a[0], Tensor)), None)
    if listed is not None and "TypeError" in error.message:
        yield f"A {type(listed).__name__} of tensors was given; torch.stack(...) makes a batch of it."
    expected = _expected(error, model)
    if expected:
        yield expected
        if any(t.is_floating_point() and t.dim() == 3 for t in tensors):
            yield "One image is a batch of one: pass x[None]."


def _type_hints(error: ModelError, model: nn.Module, tensors: list[Tensor]) -> Iterator[str]:
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    if weight is None or not any(
        word in error.message for word in ("type", "Byte", "Double", "Long", "Half")
    ):
        return
    name = str(weight.dtype).removeprefix("torch.")
    for tensor in tensors:
        given = str(tensor.dtype).removeprefix("torch.")
        if tensor.dtype == torch.uint8:
            yield (
                f"The input is uint8 and the weights are {name}: pass x.float() / 255, normalised as in "
                "training."
            )
        elif tensor.dtype != weight.dtype:
            yield f"The input is {given} and the weights are {name}: pass x.to(torch.{name})."


def _expected(error: ModelError, model: nn.Module) -> str:
    """Say what the failing module takes, where its kind tells."""
    path = error.node.partition("@")[0].partition("/")[0]
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return ""
    takes = ""
    if isinstance(module, nn.modules.conv._ConvNd):
        sides = "".join(f"×{side}" for side in ("D", "H", "W")[3 - len(module.kernel_size) :])
        takes = f"{module.in_channels} channel(s): N×{module.in_channels}{sides}"
    elif isinstance(module, nn.Linear):
        takes = f"{module.in_features} features in the last axis"
    elif isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)):
        takes = f"{module.num_features} channels"
    elif isinstance(module, nn.LayerNorm):
        takes = f"{tuple(module.normalized_shape)} in the last axes"
    elif isinstance(module, nn.Embedding):
        takes = f"whole numbers from 0 to {module.num_embeddings - 1}"
    elif isinstance(module, nn.RNNBase):
        takes = f"{module.input_size} features in the last axis"
    return f"{path!r} is a {type(module).__name__} that takes {takes}." if takes else ""
