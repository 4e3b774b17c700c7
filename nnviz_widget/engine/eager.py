"""Run the plain Python behind ``torch.compile`` while a pass is recorded.

A compiled forward would compile the recorder along with the model, for seconds, and show none of the calls in
it. Torch's own switch (``torch.compiler.set_stance``) holds for all threads, so that a training loop in
another one would round differently. Therefore what is compiled is replaced on the modules themselves, for as
long as the pass runs; they are the twin's, which nobody else calls.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from contextlib import contextmanager
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

__all__ = ["uncompiled"]

_INNER = "_torchdynamo_orig_callable"
#: What most attributes of a module are.
_NEVER = frozenset({bool, int, float, str, type(None), tuple, list, dict, set, OrderedDict})


@contextmanager
def uncompiled(module: nn.Module) -> Iterator[None]:
    """Let all methods and functions of a tree of modules that ``torch.compile`` wrapped run plainly.

    Parameters
    ----------
    module : nn.Module
        The root. Modules compiled as a whole are left as they are: the twin has none.
    """
    if "torch._dynamo" not in sys.modules:  # then nothing is compiled
        yield
        return
    undo: list[tuple[dict[str, Any], str, Any]] = []
    compiled: dict[type, dict[str, Any]] = {}
    for part in module.modules():
        kind = type(part)
        if kind not in compiled:
            methods = {name: value for base in reversed(kind.__mro__) for name, value in vars(base).items()}
            compiled[kind] = {name: inner for name, value in methods.items() if (inner := _inner(value))}
        own = vars(part)
        changes = {name: MethodType(inner, part) for name, inner in compiled[kind].items() if name not in own}
        for name, value in own.items():
            if type(value) not in _NEVER and (inner := _inner(value)) is not None:
                changes[name] = _on(inner, part)
        undo += [(own, name, own.get(name)) for name in changes]
        own.update(changes)
    try:
        yield
    finally:
        for own, name, value in undo:
            if value is None:
                own.pop(name, None)
            else:
                own[name] = value


def _inner(value: Any) -> Any:
    """Return what a compiled function wraps, None for everything else."""
    found = None
    while callable(value) and _INNER in getattr(value, "__dict__", ()):
        value = found = value.__dict__[_INNER]
    return found


def _on(function: Any, part: nn.Module) -> Any:
    """Return a method that was compiled for one module as that of its copy."""
    if isinstance(function, MethodType) and type(function.__self__) is type(part):
        return MethodType(function.__func__, part)
    return function
