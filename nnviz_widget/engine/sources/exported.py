"""A ``torch.export.ExportedProgram`` as a module with the hierarchy of the model that was exported.

An exported program is one flat graph; torch can fold it back into modules under their old paths
(``torch.export.unflatten``). These are given the names of their old classes here, so that a convolution is
called one. Where torch cannot unflatten a program, it runs flat.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from torch.export import unflatten

if TYPE_CHECKING:
    from typing import Self

    from torch import nn
    from torch.export import ExportedProgram

__all__ = ["runnable"]

_NOTE = "An exported program: it runs as it was when it was exported, also in train or eval mode."


def runnable(program: ExportedProgram) -> tuple[nn.Module, str]:
    """Return a module that runs the program, and what to know about it.

    The weights are copies of the program's (torch makes them), shared with nothing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch copies what it warns of copying
            module = unflatten(program)
    except Exception as error:  # noqa: BLE001  a program that torch cannot unflatten still runs flat
        return program.module(), f"{_NOTE} Its modules could not be restored ({error})."
    _name_classes(module)
    calls: Any = module.module_call_graph
    module.module_call_graph = _Shared(calls)
    return module, _NOTE


class _Shared(list[Any]):
    """A list that the twin shares: it is only read, and torch warns when its parts are copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def _name_classes(root: nn.Module) -> None:
    made: dict[tuple[type, str], type] = {}
    for module in root.modules():
        name = getattr(module, "type_name", None)
        name = name() if callable(name) else name
        if isinstance(name, str) and name:
            home, _, word = name.rpartition(".")
            key = (type(module), name)
            if key not in made:
                made[key] = type(word, (type(module),), {"__module__": home})
            module.__class__ = made[key]
