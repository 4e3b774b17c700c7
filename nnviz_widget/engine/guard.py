"""Run a model that cannot be twinned, and put everything back.

Only for models whose modules cannot be copied: while the block runs, the model is in eval mode, so nothing
else may train it at that moment. One place remembers everything that a pass may touch, and one place puts it
back, also after an exception.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["guarded"]


@contextmanager
def guarded(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode for the block; afterwards it is exactly as it was.

    Flags, hooks, attributes, ``requires_grad``, ``.grad`` and the state of the random number generators come
    back.
    """
    modules = list(model.modules())
    flags = [module.training for module in modules]
    attributes = [(module, _shallow(module)) for module in modules]
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    devices = {p.device for p, _, _ in parameters if p.device.type == "cuda"}
    with torch.random.fork_rng([d.index for d in devices]):
        try:
            for module in modules:
                module.training = False
            yield
        finally:
            for module, before in attributes:
                _put_back(module, before)
            for module, flag in zip(modules, flags, strict=True):
                module.training = flag
            for parameter, needed, grad in parameters:
                parameter.requires_grad_(needed)
                parameter.grad = grad


def _shallow(module: nn.Module) -> dict[str, Any]:
    """Copy a module's attributes, and its hooks, buffers and children one level deep."""
    return {k: v.copy() if isinstance(v, dict) and k.startswith("_") else v for k, v in vars(module).items()}


def _put_back(module: nn.Module, before: dict[str, Any]) -> None:
    now = vars(module)
    for name in [name for name in now if name not in before]:
        del now[name]
    for name, value in before.items():
        if isinstance(value, dict) and name.startswith("_") and isinstance(now.get(name), dict):
            if dict(now[name]) != value or list(now[name]) != list(value):
                now[name].clear()
                now[name].update(value)
        elif now.get(name) is not value:
            now[name] = value
