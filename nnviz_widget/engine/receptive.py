"""The true receptive field of a unit: every input pixel with a path to it, whatever the values.

Walks the recorded operations backwards from the unit, with a boolean mask for each value, and asks
``structure`` for each operation which elements of its inputs lead to the masked elements of its outputs.
Nothing of the model runs. Where an operation has no rule, everything is taken to reach everything, and the
answer says that it is not exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils._pytree import tree_leaves, tree_map

from nnviz_widget.engine.recording import Alias, Op, Ref, Spec
from nnviz_widget.engine.structure import Call, UnknownStructureError, fit, reach

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

__all__ = ["ReceptiveField", "receptive_field"]

#: What a rule may raise that is called in a way it did not foresee.
_UNFORESEEN = (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError)
_SOURCES = frozenset({"input", "parameter", "buffer", "constant"})


@dataclass(frozen=True)
class ReceptiveField:
    """The part of an input that a unit can see.

    Attributes
    ----------
    mask : Tensor
        Boolean, on the CPU: ``[H, W]`` for images (channels taken together), else of the shape of one sample.
    box : tuple of int
        ``(y0, x0, y1, x1)``, half open, around the mask of an image; empty for inputs that are no images, and
        all zero where nothing is seen.
    exact : bool
        False where an operation on the way is not known: the true field then lies within the mask.
    """

    mask: Tensor
    box: tuple[int, ...]
    exact: bool


def receptive_field(
    ops: list[Op],
    unit: Ref,
    index: tuple[int, ...],
    source: Ref,
    *,
    lookup: Callable[[str], Tensor],
    check: Callable[[], None] | None = None,
) -> ReceptiveField:
    """Return the receptive field of one element of a recorded value on one input of the model.

    Parameters
    ----------
    ops : list of Op
        The recording.
    unit : Ref
        The value that holds the unit.
    index : tuple of int
        The unit within it, the sample first.
    source : Ref
        The input.
    lookup : callable
        Tensor of a parameter or buffer by its name.
    check : callable, optional
        Called before each operation; raises when the answer is no longer wanted.
    """
    walk = _Walk(ops, lookup, check)
    shape = ops[unit.op].outputs[unit.port].shape
    start = torch.zeros(shape, dtype=torch.bool)
    start[index] = True
    walk.back(unit, start)
    shape = ops[source.op].outputs[source.port].shape
    mask = walk.masks.get(source)
    mask = torch.zeros(shape, dtype=torch.bool) if mask is None else mask.expand(shape)
    mask = mask[index[0]] if len(shape) > 1 else mask
    if len(shape) != 4:
        return ReceptiveField(mask.clone(), (), walk.exact)
    mask = mask.any(0)
    rows, columns = mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist()
    box = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) if rows else (0, 0, 0, 0)
    return ReceptiveField(mask, box, walk.exact)


class _Walk:
    """The masks of one walk."""

    def __init__(
        self, ops: list[Op], lookup: Callable[[str], Tensor], check: Callable[[], None] | None
    ) -> None:
        self.ops = ops
        self.check = check
        self.lookup = lookup
        self.masks: dict[Ref, Tensor] = {}
        self.exact = True
        self._values: dict[Ref, Tensor] = {}
        self._live: set[int] = set()
        # Constants that may be made of the inputs where nobody saw it: in numpy, in compiled code.
        self._unseen = {op.index for op in ops if op.kind == "constant" and op.unsafe}
        for op in ops:
            if op.kind == "output":
                self._unseen |= {ref.op for ref in op.inputs if ops[ref.op].kind == "constant"}
        for op in ops:
            unseen = op.index in self._unseen
            if op.kind == "input" or unseen or any(ref.op in self._live for ref in op.inputs):
                self._live.add(op.index)

    def back(self, unit: Ref, mask: Tensor) -> None:
        """Walk from the unit to the inputs."""
        self.masks[unit] = mask
        for op in reversed(self.ops[: unit.op + 1]):
            if op.index in self._unseen and Ref(op.index) in self.masks and self.masks[Ref(op.index)].any():
                self._give_up([Ref(source.index) for source in self.ops if source.kind == "input"])
            if op.index not in self._live or op.kind in _SOURCES:
                continue
            masks = {
                port: self.masks.pop(Ref(op.index, port))
                for port in range(len(op.outputs))
                if Ref(op.index, port) in self.masks
            }
            if masks:
                if self.check is not None:
                    self.check()
                self._through(op, masks)

    def _through(self, op: Op, masks: dict[int, Tensor]) -> None:
        for alias in op.aliases:
            if alias.port in masks:
                self._through_alias(masks.pop(alias.port), alias, masks)
        if not masks:
            return
        if op.kind in {"identity", "output"} and len(op.inputs) == len(op.outputs):
            for port, mask in masks.items():
                self._add(op.inputs[port], mask)
            return
        call = Call(op, masks, spec_of=self._spec, live=self._is_live, value_of=self._value)
        try:
            for ref, mask in list(reach(call)):
                self._add(ref, mask)
        except (UnknownStructureError, *_UNFORESEEN):
            if any(mask.any() for mask in masks.values()):
                self._give_up(call.live_inputs())

    def _give_up(self, refs: list[Ref]) -> None:
        """Let all of these values be seen, and say that it is not known better."""
        self.exact = False
        for ref in refs:
            self._add(ref, torch.ones([1] * len(self._spec(ref).shape), dtype=torch.bool))

    def _through_alias(self, mask: Tensor, alias: Alias, masks: dict[int, Tensor]) -> None:
        """Send the overwritten part of an alias to what was written there, and the rest to what it was."""
        shape, stride, offset = alias.layout
        written_shape, written_stride, written_offset = alias.written
        length = max(_end(*alias.layout), _end(*alias.written))
        memory = torch.zeros(length, dtype=torch.bool)
        memory.as_strided(written_shape, written_stride, written_offset).fill_(True)
        overwritten = memory.as_strided(shape, stride, offset)
        self._add(alias.before, mask.expand(shape) & ~overwritten)
        memory = torch.zeros(length, dtype=torch.bool)
        memory.as_strided(shape, stride, offset).copy_(mask.expand(shape))
        through = memory.as_strided(written_shape, written_stride, written_offset)
        if through.any():
            masks[0] = masks[0] | through if 0 in masks else through.clone()

    def _add(self, ref: Ref, mask: Tensor) -> None:
        if self._is_live(ref):
            mask = fit(mask, tuple(self._spec(ref).shape))
            self.masks[ref] = self.masks[ref] | mask if ref in self.masks else mask

    def _spec(self, ref: Ref) -> Spec:
        return self.ops[ref.op].outputs[ref.port]

    def _is_live(self, ref: Ref) -> bool:
        return ref.op in self._live

    def _value(self, ref: Ref) -> Tensor:
        """Return a value that depends on no input: a constant, or what is made of constants, made again."""
        if ref in self._values:
            return self._values[ref]
        op = self.ops[ref.op]
        if op.value is not None:
            value: object = op.value
        elif op.kind in {"parameter", "buffer"}:
            value = self.lookup(op.name)
        else:
            value = self._made(op)[ref.port]
        if not isinstance(value, torch.Tensor):
            raise UnknownStructureError
        self._values[ref] = value.detach().cpu()
        return self._values[ref]

    def _made(self, op: Op) -> list[Tensor]:
        if op.kind in {"identity"}:
            return [self._value(ref) for ref in op.inputs]
        if op.func is None or op.unsafe or op.aliases or op.index in self._live:
            raise UnknownStructureError

        def fill(value: object) -> object:
            return (
                self._value(value).clone()
                if isinstance(value, Ref)
                else torch.device("cpu")
                if isinstance(value, torch.device)
                else value
            )

        with torch.no_grad():
            args = tree_map(fill, op.args, is_leaf=lambda v: isinstance(v, Ref))
            kwargs = tree_map(fill, op.kwargs, is_leaf=lambda v: isinstance(v, Ref))
            result = op.func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        return made or [args[0]]


def _end(shape: tuple[int, ...], stride: tuple[int, ...], offset: int) -> int:
    return offset + 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
