"""What a model does with any number of samples, read off two recordings: the operations, ready to run again.

A recording holds numbers that stand for the size of the batch: in ``view(2, -1)``, in ``expand(2, 1, 768)``.
Of two recordings with two and with three rows, those that differ grow with the batch, and so do the axes of
the values. What follows from that is right or it is not used: a run of the plan is compared with the model's
own (`Replay`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from nnviz_widget.engine.flops import flops_of
from nnviz_widget.engine.recording import Op, Recording, Ref, Spec
from nnviz_widget.engine.structure.sets import SHAPE_ONLY
from nnviz_widget.engine.tape import SHARED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["Batch", "Plan", "Scaled", "UnsafeError", "filled", "plan_of"]

#: Rows of the two recordings.
ROWS = (2, 3)


class UnsafeError(Exception):
    """The operations must not be run again; the text says why, for the user."""


class Scaled(NamedTuple):
    """A whole number that grows with the rows."""

    first: int
    step: int

    def of(self, rows: int) -> int:
        """Return the number for so many rows."""
        return self.first + rows * self.step


class Batch(NamedTuple):
    """Where the rows of a value are: along which axis, and how many places of it each row takes."""

    axis: int
    each: int


@dataclass(frozen=True)
class Plan:
    """The operations of a model, for any number of rows.

    Attributes
    ----------
    ops : list of Op
        As recorded, with `Scaled` in the place of numbers that grow with the rows.
    batches : dict of Ref to Batch
        Of the values that have rows.
    refs : dict of str to Ref
        The value that each node and group gave.
    inputs : tuple of Ref
        The tensors that the model is given, in the order of `tensors_of`.
    outputs : tuple of Ref
        The tensors that it returns, in that order.
    output : object
        What it returned, of two rows.
    flops : list of float
        Of each operation, for one row.
    """

    ops: list[Op]
    batches: dict[Ref, Batch]
    refs: dict[str, Ref]
    inputs: tuple[Ref, ...]
    outputs: tuple[Ref, ...]
    output: Any
    flops: list[float]

    def shape(self, ref: Ref, rows: int) -> tuple[int, ...]:
        """Return the shape of a value for so many rows."""
        shape, batch = list(self.ops[ref.op].outputs[ref.port].shape), self.batches.get(ref)
        if batch is not None:
            shape[batch.axis] = batch.each * rows
        return tuple(shape)

    def after(self, seeds: Collection[Ref]) -> list[int]:
        """List the operations that depend on these values, in order."""
        touched, found = set(seeds), []
        for op in self.ops:
            if any(ref in touched for ref in op.inputs) and not _of_its_shape(op):
                touched.update(Ref(op.index, port) for port in range(len(op.outputs)))
                found.append(op.index)
        return found

    def refuse(self, seeds: Collection[Ref], one: bool) -> None:
        """Raise `UnsafeError` where what follows from these values must not be run again.

        Parameters
        ----------
        seeds : collection of Ref
            What varies.
        one : bool
            Whether all rows are variants of one sample: then what was decided before the seeds is decided.
        """
        after = set(self.after(seeds))
        inputs = set(self.after(self.inputs))
        for op in self.ops:
            if op.unsafe and (op.index in after or (op.index in inputs and not one) or _random(op)):
                raise UnsafeError(f"{op.node or op.name}: {op.unsafe}")
        for index in after:
            op = self.ops[index]
            lost = [port for port in range(len(op.outputs)) if Ref(index, port) not in self.batches]
            if lost and op.kind != "decision":
                raise UnsafeError(f"{op.node or op.name}: its result is one for all samples of a batch")


def _of_its_shape(op: Op) -> bool:
    """Whether an operation reads nothing of its one argument but shape and type."""
    return op.name in SHAPE_ONLY.split() and not op.inplace and len(op.inputs) == 1


def _random(op: Op) -> bool:
    return "random" in op.unsafe


def plan_of(record: Callable[[int], Recording]) -> Plan:
    """Record a model twice and return what it does with any number of rows.

    Parameters
    ----------
    record : callable
        Runs the model on so many rows.

    Raises
    ------
    UnsafeError
        What it does depends on the number of rows in a way that is not understood.
    """
    two, three = (record(rows) for rows in ROWS)
    if not two.harmless:
        raise UnsafeError("the model draws random numbers, or writes into tensors that are not its own")
    read = {ref for op in two.ops for ref in op.inputs[: len(op.inputs) - len(op.aliases)]}
    if len(two.ops) != len(three.ops):
        raise UnsafeError("what the model does depends on the number of samples in a batch")
    ops, batches = [], {}
    for mine, other in zip(two.ops, three.ops, strict=True):
        if (mine.kind, mine.name, mine.inputs, mine.inplace) != (
            other.kind,
            other.name,
            other.inputs,
            other.inplace,
        ):
            raise UnsafeError("what the model does depends on the number of samples in a batch")
        args = tuple(_merged(a, b) for a, b in zip(mine.args, other.args, strict=True))
        kwargs = {key: _merged(value, other.kwargs[key]) for key, value in mine.kwargs.items()}
        for port, (small, large) in enumerate(zip(mine.outputs, other.outputs, strict=True)):
            batch = _batch(small, large)
            if batch is not None:
                batches[Ref(mine.index, port)] = batch
        if mine.kind == "constant" and Ref(mine.index) in batches:
            raise UnsafeError(mine.unsafe or "a constant has a row for each sample")
        ops.append(_followed(replace(mine, args=args, kwargs=kwargs), read))
    return Plan(
        ops,
        batches,
        dict(two.refs),
        tuple(Ref(op.index) for op in ops if op.kind == "input"),
        tuple(op.inputs[0] for op in ops if op.kind == "output"),
        two.output,
        [flops_of(op, two.ops) / ROWS[0] for op in two.ops],
    )


def _followed(op: Op, read: Collection[Ref]) -> Op:
    """Return an operation that writes into shared memory as one that may run again, where it may.

    It may where nobody reads the others that share it, or where these lie over the very same elements and
    become what was written: of modules that gave back what they were given, there are two values.
    """
    lost = [one for one in op.aliases if one.layout != one.written and Ref(op.index, one.port) in read]
    if not op.aliases or op.unsafe != SHARED or lost:
        return op
    return replace(op, inputs=op.inputs[: len(op.inputs) - len(op.aliases)], unsafe="")


def _batch(small: Spec, large: Spec) -> Batch | None:
    if len(small.shape) != len(large.shape):
        raise UnsafeError("what the model does depends on the number of samples in a batch")
    differing = [
        axis for axis, pair in enumerate(zip(small.shape, large.shape, strict=True)) if len(set(pair)) > 1
    ]
    if not differing:
        return None
    axis = differing[0]
    each = large.shape[axis] - small.shape[axis]
    if len(differing) > 1 or small.shape[axis] != ROWS[0] * each:
        raise UnsafeError("samples of one batch are compared with each other")
    return Batch(axis, each)


def _merged(mine: Any, other: Any) -> Any:
    """Return an argument for any number of rows, from what it was for two and for three."""
    if isinstance(mine, Ref):
        if mine != other:
            raise UnsafeError("what the model does depends on the number of samples in a batch")
        return mine
    if type(mine) is int and type(other) is int:
        step = (other - mine) // (ROWS[1] - ROWS[0])
        return mine if not step else Scaled(mine - ROWS[0] * step, step)
    if isinstance(mine, slice) and isinstance(other, slice):
        ends = zip((mine.start, mine.stop, mine.step), (other.start, other.stop, other.step), strict=True)
        return slice(*(_merged(a, b) for a, b in ends))
    if isinstance(mine, (list, tuple)) and len(mine) == len(other):
        parts = [_merged(a, b) for a, b in zip(mine, other, strict=True)]
        return parts if isinstance(mine, list) else tuple(parts)
    if isinstance(mine, dict) and isinstance(other, dict) and list(mine) == list(other):
        return {key: _merged(value, other[key]) for key, value in mine.items()}
    if type(mine) is type(other) and (mine is other or _equal(mine, other)):
        return mine
    raise UnsafeError("what the model does depends on the number of samples in a batch")


def _equal(mine: Any, other: Any) -> bool:
    try:
        return bool(mine == other) or (mine != mine and other != other)  # noqa: PLR0124  nan
    except (RuntimeError, TypeError, ValueError):
        return False


def filled(value: Any, rows: int, tensor: Callable[[Ref], Any]) -> Any:
    """Return an argument with tensors in the place of references, and numbers for so many rows."""
    kind = type(value)
    if kind is Ref:
        return tensor(value)
    if kind is Scaled:
        return value.of(rows)
    if kind is dict:
        return {key: filled(part, rows, tensor) for key, part in value.items()}
    if kind is list or kind is tuple:
        return kind([filled(part, rows, tensor) for part in value])
    if kind is slice:
        return slice(*(filled(part, rows, tensor) for part in (value.start, value.stop, value.step)))
    return value
