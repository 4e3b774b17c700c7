"""Run the plain Python behind ``torch.compile`` while a pass is recorded.

A compiled forward would compile the recorder along with the model, for seconds, and show none of the calls in
it. Torch's own switch (``torch.compiler.set_stance``) holds for all threads, so that a training loop in
another one would round differently; here it is thrown for one thread alone. Methods that are compiled are
also replaced on the modules themselves, for as long as the pass runs: they are the twin's, which nobody else
calls, and torch 2.5 has no such switch.
"""

from __future__ import annotations

import sys
import threading
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
    """Let everything that ``torch.compile`` wrapped run plainly, in this thread.

    Parameters
    ----------
    module : nn.Module
        The root of the modules that will run. Those compiled as a whole are left as they are: the twin has
        none.
    """
    if "torch._dynamo" not in sys.modules:  # then nothing is compiled
        yield
        return
    with _eager_stance(), _replaced(module):
        yield


class _Here:
    """A stance of dynamo's: ``force_eager`` in one thread until it ends, elsewhere the one before."""

    def __init__(self, before: Any) -> None:
        self.before = before
        self.thread: int | None = threading.get_ident()

    @property
    def stance(self) -> str:
        return "force_eager" if threading.get_ident() == self.thread else str(self.before.stance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.before, name)


@contextmanager
def _eager_stance() -> Iterator[None]:
    dynamo: Any = sys.modules.get("torch._dynamo.eval_frame")
    if not hasattr(dynamo, "_stance"):  # torch 2.5, or only half imported yet
        yield
        return
    mine = dynamo._stance = _Here(dynamo._stance)
    try:
        yield
    finally:
        mine.thread = None
        # What another thread has put there meanwhile stays, and finds that this one has ended.
        while isinstance(dynamo._stance, _Here) and dynamo._stance.thread is None:
            dynamo._stance = dynamo._stance.before


@contextmanager
def _replaced(module: nn.Module) -> Iterator[None]:
    undo: list[tuple[dict[str, Any], str, Any]] = []
    compiled: dict[type, dict[str, Any]] = {}
    some: dict[type, bool] = {}
    for part in module.modules():
        kind = type(part)
        if kind not in compiled:
            compiled[kind] = _compiled_methods(kind, some)
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


def _compiled_methods(kind: type, some: dict[type, bool]) -> dict[str, Any]:
    """Return what the compiled ones of a class's methods wrap, by their names.

    Parameters
    ----------
    kind : type
        The class.
    some : dict
        By class whether it has any of its own; added to, since nearly all share the long one of modules.
    """
    for base in kind.__mro__:
        if base not in some:
            some[base] = any(_inner(value) is not None for value in vars(base).values())
    if not any(some[base] for base in kind.__mro__):
        return {}
    methods = {name: value for base in reversed(kind.__mro__) for name, value in vars(base).items()}
    return {name: inner for name, value in methods.items() if (inner := _inner(value))}


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
