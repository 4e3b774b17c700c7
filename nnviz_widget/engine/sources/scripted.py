"""A module compiled by TorchScript, as the one part of a module that can be followed.

What runs inside a scripted or traced module is seen by no hook and no mode of torch. The recorder draws such
a part as one opaque node, but the root of a graph is always a group: so the compiled module is put in one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["around"]


class _Around(nn.Module):
    def __init__(self, scripted: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.scripted = scripted
        self.training = scripted.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.scripted(*args, **kwargs)


def around(scripted: torch.jit.ScriptModule) -> nn.Module:
    """Return a module that does nothing but call the compiled one, under the name of what was compiled."""
    kind: type[nn.Module] = type(str(scripted.original_name), (_Around,), {})
    return kind(scripted)
