"""The tensors behind the references of a trace, and the one operation that is taken apart.

A value that is some node's activation is read from the trace; one inside a layer (what a padded convolution
convolves) is computed again from those, by the recorded call. Weights are read by name. Of a value that an
intervention changed there are two: who reads it outside of the changed module gets what was put in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.arithmetic.result import Operand
from nnviz_widget.engine.recording import STATE, Op, Ref, tensors_of
from nnviz_widget.errors import NNVizError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from nnviz_widget.engine.trace import Trace

__all__ = ["Case", "NotApartError", "Values", "changed_at", "is_inside", "ravel", "unravel"]


class NotApartError(Exception):
    """A number cannot be taken apart; the text says why."""


class Values:
    """Gives the tensor of any value of a trace.

    Parameters
    ----------
    trace : Trace
        Whose values.
    weight : callable
        Returns a parameter or buffer by name.
    """

    def __init__(self, trace: Trace, weight: Callable[[str], Tensor]) -> None:
        self.trace = trace
        self._weight = weight
        self._made: dict[Ref, Tensor] = {}
        #: The node whose number is taken apart, which reads the values.
        self.reader = ""
        #: Node (not group, where there is the choice) that shows each value.
        self._names: dict[Ref, str] = {}
        for name, ref in trace.refs.items():
            self._names.setdefault(ref, name)

    def __call__(self, ref: Ref) -> Tensor:
        """Return a value, detached.

        Raises
        ------
        NotApartError
            It was not kept and may not be computed again.
        """
        if ref not in self._made:
            self._made[ref] = self._find(ref).detach()
        return self._made[ref]

    def _find(self, ref: Ref) -> Tensor:
        op = self.trace.ops[ref.op]
        if name := self.name(ref):
            try:
                return self.trace.activation(name)
            except NNVizError as error:
                raise NotApartError(error.message) from error
        if op.kind in STATE:
            return self._weight(op.name)
        if op.value is not None:
            return op.value
        if op.kind == "identity":
            return self(op.inputs[0])
        if op.kind != "call" or op.func is None or op.unsafe or op.aliases:
            raise NotApartError(
                f"a value inside of it cannot be had again{op.unsafe and f': it {op.unsafe}'}."
            )
        args, kwargs = self.filled(op.args), self.filled(op.kwargs)
        if op.inplace and args:
            args = (args[0].clone(), *args[1:])
        with torch.no_grad():
            found = tensors_of(op.func(*args, **kwargs))
        return found[ref.port][1]

    def name(self, ref: Ref) -> str:
        """Return the node that shows a value as the reader gets it; empty where none does."""
        outside = [site for site in changed_at(self.trace, ref) if not is_inside(self.reader, site)]
        return outside[-1] if outside else self._names.get(ref, "")

    def filled(self, part: Any) -> Any:
        """Replace references by their tensors, at any depth."""
        if isinstance(part, Ref):
            return self(part)
        if isinstance(part, (tuple, list)):
            return type(part)(self.filled(item) for item in part)
        if isinstance(part, dict):
            return {key: self.filled(item) for key, item in part.items()}
        if isinstance(part, slice):
            return slice(*(self.filled(item) for item in (part.start, part.stop, part.step)))
        return part


def changed_at(trace: Trace, ref: Ref) -> list[str]:
    """Return the modules where interventions changed a value, the innermost first."""
    sites = {one.site for one in trace.interventions}
    return sorted((site for site in sites if trace.refs.get(site) == ref), key=len, reverse=True)


def is_inside(node: str, site: str) -> bool:
    """Whether a node is a part of a module call, or the call itself where that is one node."""
    path, _, call = node.partition("@")
    whole, _, number = site.partition("@")
    return call == number and (path == whole or path.startswith((f"{whole}.", f"{whole}/")))


@dataclass
class Case:
    """One number to take apart: which operation made it, and where in its output it stands.

    Attributes
    ----------
    op : Op
        The operation.
    port : int
        Which of its outputs.
    index : tuple of int
        Where in that output, batch axis included.
    """

    values: Values
    op: Op
    port: int
    index: tuple[int, ...]

    def bind(self, names: str, **defaults: Any) -> dict[str, Any]:
        """Return the call's arguments by name, given in order."""
        listed = names.split()
        found = {**dict.fromkeys(listed), **defaults, **dict(zip(listed, self.op.args, strict=False))}
        renamed = {"self": "input", "axis": "dim", "x": "input"}
        for key, value in self.op.kwargs.items():
            name = key if key in found else renamed.get(key, key)
            found[name] = value
        return found

    def tensor(self, part: Any) -> Tensor:
        """Return the tensor of an argument, in float64."""
        if not isinstance(part, Ref):
            raise NotApartError("one of its arguments is no tensor.")
        found = self.values(part)
        if found.is_complex() or found.is_sparse or found.is_nested or found.is_quantized:
            raise NotApartError("its numbers are complex, sparse, nested or quantised.")
        return found.double() if found.is_floating_point() else found

    def optional(self, part: Any) -> Tensor | None:
        """Return the tensor of an argument that may be missing."""
        return None if part is None else self.tensor(part)

    def node(self, part: Any) -> str:
        """Return the id of the node that shows an argument; empty where it is inside of a layer."""
        return self.values.name(part) if isinstance(part, Ref) else ""

    def operand(self, name: str, part: Any, index: tuple[int, ...]) -> Operand:
        """Return one entry of an argument."""
        if not isinstance(part, Ref):
            return Operand(name, float(part))
        return Operand(name, float(self.values(part)[index]), self.node(part), tuple(index))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the output."""
        return self.op.outputs[self.port].shape


def ravel(index: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """Return the place of an index in a flat tensor."""
    flat = 0
    for at, size in zip(index, shape, strict=True):
        flat = flat * size + at
    return flat


def unravel(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the index of a place in a flat tensor."""
    index = []
    for axis in range(len(shape)):
        size = prod(shape[axis + 1 :])
        index.append(flat // size)
        flat %= size
    return tuple(index)
