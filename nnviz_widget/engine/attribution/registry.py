"""The methods by name, with their options; and what is said about options that are none.

A method is a generator function. It takes a `Task` and keyword options, and yields `Part` after `Part`, the
last of them whole; the first line of its docstring is what people read about it.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nnviz_widget.errors import InputError, UnknownNameError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from nnviz_widget.engine.attribution.result import Part

    Method = Callable[..., Iterator[Part]]

__all__ = ["MethodInfo", "described", "known_methods", "method", "method_named"]

#: Imported when methods are first asked for, in the order in which people meet them.
_FAMILIES = (
    "gradients",
    "integrated",
    "deeplift",
    "cams",
    "rectified",
    "layers",
    "attention",
    "relevance",
    "adapter",
    "occlusion",
    "rise",
    "ablation",
    "surrogates",
)


@dataclass(frozen=True)
class MethodInfo:
    """What is known of a method without running it.

    Attributes
    ----------
    name : str
        As `Engine.attribute` takes it.
    description : str
        One line.
    options : mapping of str to object
        Each option and its default. ``target`` and ``additional_forward_args`` are taken by all.
    cost : str
        Model passes for one sample: ``F`` is a forward, ``B`` a backward.
    family : str
        ``gradient``, ``path``, ``cam``, ``perturbation``, ``surrogate``, ``layer``, ``attention`` or
        ``relevance``.
    shape : str
        ``input``, or ``layer`` where the values have the shape of a layer's activation.
    paper : str
        Where it comes from.
    needs : str
        What must be installed for it, such as ``nnviz_widget[lrp]``; empty for most.
    """

    name: str
    description: str
    options: Mapping[str, Any]
    cost: str
    family: str
    shape: str
    paper: str
    run: Method
    needs: str = ""

    def __str__(self) -> str:
        return self.description

    def checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return all options with their defaults; raise `InputError` for one that there is not."""
        for name in options:
            if name not in self.options:
                takes = ", ".join(self.options) or "no options"
                raise InputError(
                    f"{self.name!r} has no option {name!r}.{nearest(name, self.options)}",
                    hint=f"It takes {takes}.",
                )
        return {**self.options, **options}


_methods: dict[str, MethodInfo] = {}


def method(
    name: str, *, cost: str, family: str, paper: str = "", shape: str = "input", needs: str = ""
) -> Callable[[Method], Method]:
    """Register a generator function as a method. Its options are its keyword-only parameters."""

    def register(run: Method) -> Method:
        other = _methods.get(name)
        if other is not None and (other.run.__module__, other.run.__name__) != (run.__module__, run.__name__):
            raise ValueError(f"There are two methods {name!r}: {other.run.__name__} and {run.__name__}.")
        _methods[name] = described(name, run, cost=cost, family=family, shape=shape, paper=paper, needs=needs)
        return run

    return register


def described(name: str, run: Method, **told: str) -> MethodInfo:
    """Return what there is to know of a generator function, without making it a method that people meet."""
    options = {
        parameter.name: parameter.default
        for parameter in inspect.signature(run).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    line = (inspect.getdoc(run) or name).splitlines()[0]
    return MethodInfo(name, line, options, run=run, **{"shape": "input", "paper": "", **told})


def known_methods() -> dict[str, MethodInfo]:
    """Return every method by its name."""
    for family in _FAMILIES:
        import_module(f"nnviz_widget.engine.attribution.{family}")
    return dict(_methods)


def method_named(name: object) -> MethodInfo:
    """Return a method, or raise `UnknownNameError` with the nearest name there is."""
    if isinstance(name, MethodInfo):
        return name
    known = known_methods()
    if not isinstance(name, str) or name not in known:
        raise UnknownNameError(
            f"There is no method {name!r}.{nearest(str(name), known)}",
            hint="engine.methods() lists all of them.",
        )
    return known[name]
