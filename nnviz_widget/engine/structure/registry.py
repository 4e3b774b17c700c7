"""The registry of structural rules, and what a rule is given. No rule lives here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from nnviz_widget.engine.recording import Ref

if TYPE_CHECKING:
    from torch import Tensor

    from nnviz_widget.engine.recording import Op, Spec

__all__ = ["Call", "Rule", "UnknownStructureError", "along", "fit", "reach", "rule"]


class UnknownStructureError(Exception):
    """No rule says how this call connects its inputs to its outputs."""


class Call:
    """One recorded operation, with the masks of its outputs.

    Parameters
    ----------
    op : Op
        The operation.
    masks : dict of int to Tensor
        Masks of those of its outputs that matter, by port.
    spec_of : callable
        Shape and type of the value of a `Ref`.
    live : callable
        Whether the value of a `Ref` depends on an input of the model.
    value_of : callable
        The tensor of a `Ref` that depends on no input; raises `UnknownStructureError` where it is not to be
        had.
    """

    def __init__(
        self,
        op: Op,
        masks: dict[int, Tensor],
        *,
        spec_of: Callable[[Ref], Spec],
        live: Callable[[Ref], bool],
        value_of: Callable[[Ref], Tensor],
    ) -> None:
        self.op = op
        self.masks = masks
        self.spec_of = spec_of
        self.is_live = live
        self.value_of = value_of
        self.names: tuple[str, ...] = ()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the argument of that name, given by position or by keyword."""
        if name in self.op.kwargs:
            return self.op.kwargs[name]
        place = self.names.index(name) if name in self.names else len(self.op.args)
        return self.op.args[place] if place < len(self.op.args) else default

    def live(self, value: object) -> bool:
        """Whether an argument is a tensor that depends on an input of the model."""
        return isinstance(value, Ref) and self.is_live(value)

    def live_inputs(self) -> list[Ref]:
        """List the arguments that depend on an input of the model, each once."""
        arguments = self.op.inputs[: len(self.op.inputs) - len(self.op.aliases)]
        return list(dict.fromkeys(ref for ref in arguments if self.is_live(ref)))

    def shape_of(self, ref: Ref) -> tuple[int, ...]:
        """Return the shape of a value."""
        return tuple(self.spec_of(ref).shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first output."""
        return tuple(self.op.outputs[0].shape)

    @property
    def mask(self) -> Tensor:
        """Mask of the first output, where no other one matters."""
        if set(self.masks) != {0}:
            raise UnknownStructureError
        return self.masks[0]


Rule = Callable[[Call], Iterable[tuple[Any, "Tensor"]]]
_rules: dict[str, tuple[tuple[str, ...], Rule]] = {}


def rule(names: str, parameters: str = "") -> Callable[[Rule], Rule]:
    """Register a rule for the operations of these names, whose arguments are called ``parameters`` in order.

    The rule yields pairs of an argument and its mask; what is no tensor, or depends on no input, is passed
    over.
    """

    def register(function: Rule) -> Rule:
        for name in names.split():
            if name in _rules:
                raise ValueError(f"{name!r} has a rule already.")
            _rules[name] = (tuple(parameters.split()), function)
        return function

    return register


def reach(call: Call) -> Iterator[tuple[Ref, Tensor]]:
    """Yield masks of the inputs of a call from the masks of its outputs.

    Raises
    ------
    UnknownStructureError
        There is no rule for it, or not for this way of calling it.
    """
    if call.op.name not in _rules or call.op.kind not in {"call", "identity"}:
        raise UnknownStructureError(call.op.name)
    call.names, function = _rules[call.op.name]
    for ref, mask in function(call):
        if call.live(ref):
            yield ref, fit(mask, call.shape_of(ref))


def fit(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo broadcasting: the mask of a value of this shape, from that of what it was broadcast to."""
    while mask.dim() > len(shape):
        mask = mask.any(0)
    while mask.dim() < len(shape):
        mask = mask.unsqueeze(0)
    for axis, size in enumerate(shape):
        if size == 1 and mask.shape[axis] > 1:
            mask = mask.any(axis, keepdim=True)
    return mask


def along(mask: Tensor, axes: Iterable[int]) -> Tensor:
    """Let whatever is set anywhere along these axes be set all along them."""
    for axis in axes:
        mask = mask.any(axis, keepdim=True)
    return mask
