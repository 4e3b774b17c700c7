"""The registry of local rules, and what a rule is given. No rule lives here.

A rule says how boxes go through an operation: it is given the operation with the patches that reach it, and
returns the patches that leave it, or raises `NotLocalError`; the operation then runs on whole values.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from nnviz_widget.engine.recording import Ref
from nnviz_widget.engine.replay.patches import Patch, smallest
from nnviz_widget.engine.replay.plan import filled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from nnviz_widget.engine.recording import Op
    from nnviz_widget.engine.replay.flow import Flow

    Rule = Callable[["Call"], "list[Patch]"]

__all__ = ["Call", "NotLocalError", "local", "rule_of"]

#: Boxes that are more than this share of a value are not worth cutting.
_MOST = 0.7


class NotLocalError(Exception):
    """The operation needs whole values."""


class Call:
    """One operation, with the patches that reach it.

    Parameters
    ----------
    op : Op
        Of the plan.
    flow : Flow
        Holds the values.
    names : tuple of str
        What its arguments are called, in order.

    Attributes
    ----------
    patches : dict of Ref to Patch
        Those of its inputs that vary.
    """

    def __init__(self, op: Op, flow: Flow, names: tuple[str, ...]) -> None:
        self.op = op
        self.flow = flow
        self.patches = {ref: flow.patches[ref] for ref in op.inputs if ref in flow.patches}
        self._names = names

    def get(self, name: str, default: Any = None) -> Any:
        """Return the argument of that name, given by position or by keyword."""
        if name in self.op.kwargs:
            return self.op.kwargs[name]
        place = self._names.index(name) if name in self._names else len(self.op.args)
        return self.op.args[place] if place < len(self.op.args) else default

    def shape_of(self, ref: Ref) -> tuple[int, ...]:
        """Return the shape of a value; its first axis is as recorded."""
        return tuple(self.flow.plan.ops[ref.op].outputs[ref.port].shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first output; its first axis is as recorded."""
        return tuple(self.op.outputs[0].shape)

    def only(self, name: str) -> tuple[Ref, Patch]:
        """Return the one input that varies; NotLocalError where another one does too."""
        ref = self.get(name)
        if not isinstance(ref, Ref) or set(self.patches) != {ref}:
            raise NotLocalError
        return ref, self.patches[ref]

    def worth(self, axes: Sequence[int], sizes: Sequence[int], shape: Sequence[int] | None = None) -> None:
        """Raise NotLocalError where boxes of these sizes cover most of the (first) output."""
        shape = self.shape if shape is None else shape
        if prod(n / shape[axis] for axis, n in zip(axes, sizes, strict=True)) > _MOST:
            raise NotLocalError

    def smallest(
        self, axes: Sequence[int], begins: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], tuple[int, ...]]:
        """Return boxes of one size in the first output, where they are worth it."""
        starts, sizes = smallest(begins, ends, [self.shape[axis] for axis in axes])
        self.worth(axes, sizes)
        return starts, sizes

    def cut(
        self,
        ref: Ref,
        axes: Sequence[int],
        starts: NDArray[np.int64],
        sizes: Sequence[int],
        *,
        fill: float = 0.0,
    ) -> Tensor:
        """Return what the variants hold in boxes of an input; they may reach outside."""
        return self.flow.cut(ref, axes, starts, sizes, fill=fill)

    def fixed(self, name: str) -> Any:
        """Return an argument that does not vary, tensors in the place of references."""
        return self.fill(self.get(name), {})

    def fill(self, value: Any, tensors: dict[Ref, Tensor]) -> Any:
        """Return an argument; of those that vary, or have a row for each sample, the tensors are given."""

        def tensor(ref: Ref) -> Tensor:
            if ref in tensors:
                return tensors[ref]
            if ref in self.flow.plan.batches:
                raise NotLocalError
            return self.flow.base(ref)

        return filled(value, len(self.flow.rows), tensor)

    def run(self, tensors: dict[Ref, Tensor]) -> list[Tensor]:
        """Run the operation with these tensors in the place of inputs."""
        args = self.fill(self.op.args, tensors)
        kwargs = self.fill(self.op.kwargs, tensors)
        return self.flow.apply(self.op, args, kwargs)

    def moved(self, ref: Ref, axes: Sequence[int], starts: NDArray[np.int64]) -> list[Patch]:
        """Run the operation on the box of an input as it is; the results are boxes at these places."""
        return [Patch(made, tuple(axes), starts) for made in self.run({ref: self.patches[ref].tensor})]

    def uncut(self, ref: Ref, axes: Sequence[int]) -> Patch:
        """Return the patch of an input with these axes whole."""
        patch = self.patches[ref]
        shape = self.shape_of(ref)
        wide = sorted({axis % len(shape) for axis in axes} & set(patch.axes))
        if not any(patch.tensor.shape[axis] < shape[axis] for axis in wide):
            kept = [place for place, axis in enumerate(patch.axes) if axis not in wide]
            return Patch(patch.tensor, tuple(patch.axes[i] for i in kept), patch.starts[:, kept])
        axes = tuple(axis for axis in patch.axes if axis not in wide)
        if not axes:
            raise NotLocalError
        starts, sizes = patch.along(axes)
        return Patch(self.cut(ref, axes, starts, sizes), axes, starts)


_rules: dict[str, tuple[tuple[str, ...], Rule]] = {}


def local(names: str, parameters: str = "") -> Callable[[Rule], Rule]:
    """Register a rule for the operations of these names, whose arguments are called ``parameters`` in order.

    The rule returns a patch for each output.
    """

    def register(function: Rule) -> Rule:
        for name in names.split():
            if name in _rules:
                raise ValueError(f"{name!r} has a rule already.")
            _rules[name] = (tuple(parameters.split()), function)
        return function

    return register


def rule_of(name: str) -> tuple[tuple[str, ...], Rule] | None:
    """Return the names of the arguments of an operation, and its rule; None where it has none."""
    return _rules.get(name)
