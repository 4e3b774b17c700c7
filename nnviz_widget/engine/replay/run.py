"""Replay: what a recorded model says of variants of its run, computed anew only where they differ from it.

The unchanged run is computed once, operation by operation, and what variants will need of it is kept, within
a budget of bytes; what does not fit is computed again from what does. The first result is compared with the
model's own: a plan that does not give the same is not used.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from nnviz_widget.engine.activations import storage_key
from nnviz_widget.engine.recording import STATE, Ref, tensors_of
from nnviz_widget.engine.replay import local_moves, local_sets, local_windows  # noqa: F401  they register
from nnviz_widget.engine.replay.convolving import Kernels
from nnviz_widget.engine.replay.flow import Flow, apply
from nnviz_widget.engine.replay.patches import Patch, lay
from nnviz_widget.engine.replay.plan import Plan, UnsafeError, filled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nnviz_widget.engine.replay.convolving import Tail
    from nnviz_widget.engine.replay.flow import Boxes
    from nnviz_widget.engine.sites import Edit

    T = TypeVar("T")

__all__ = ["Replay", "Route"]

_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}


@dataclass(frozen=True)
class Route:
    """The way from changed values to results.

    Attributes
    ----------
    order : list of int
        The operations on it.
    made : set of Ref
        Values that they give.
    done : dict of int to list of Ref
        Values that are read for the last time by each operation.
    read : set of Ref
        Values whose unchanged ones may be read on the way; of what varies, too, around each box.
    tails : dict of int to Tail
        What is computed along with a convolution, where strokes are followed (`Kernels.tail`).
    """

    order: list[int]
    made: set[Ref]
    done: dict[int, list[Ref]]
    read: set[Ref]
    tails: dict[int, Tail]


class Replay:
    """One unchanged run of a model, and runs that differ from it somewhere.

    Parameters
    ----------
    plan : Plan
        What the model does.
    inputs : sequence of Tensor
        What it is given, one for each of the plan's inputs.
    samples : int
        Rows of the unchanged run.
    lookup : callable
        Tensor of a parameter or buffer by its name.
    budget : int
        Bytes of activations to keep.
    set_to : mapping of Ref to Tensor, optional
        Values that are others than the model computes: embeddings that are given.

    Attributes
    ----------
    flops, whole_flops : float
        Floating point operations of all variants so far, and what the model itself would have taken for them.
    last_operations, local, total : int
        Operations that ran for the last variants, of how many of these only a part, and how many there are.
    """

    def __init__(
        self,
        plan: Plan,
        inputs: Sequence[Tensor],
        samples: int,
        *,
        lookup: Callable[[str], Tensor],
        budget: int,
        set_to: Mapping[Ref, Tensor] | None = None,
    ) -> None:
        self.plan = plan
        self.samples = samples
        self.flops = self.whole_flops = 0.0
        self.last_operations = self.local = 0
        self.total = sum(op.kind == "call" for op in plan.ops)
        self._lookup = lookup
        self._budget = budget
        self._given = {**dict(zip(plan.inputs, inputs, strict=True)), **(set_to or {})}
        self._kept: dict[Ref, Tensor] = {}
        self._routes: dict[tuple[Any, ...], Route] = {}
        self._memory: dict[object, Any] = {}
        #: Storages of inputs, weights and constants, once the run follows changes: never written into.
        self._foreign: set[int] = set()
        self._following: tuple[frozenset[Ref], tuple[Ref, ...]] | None = None
        self.kernels = Kernels(plan.ops, self.base, budget)

    @property
    def nbytes(self) -> int:
        """Bytes of activations that are kept, and of weights in another order."""
        return self.kernels.nbytes + sum(_bytes(value) for value in self._kept.values())

    # -- the unchanged run ----------------------------------------------------------------------------------

    def base(self, ref: Ref) -> Tensor:
        """Return a value of the unchanged run."""
        op = self.plan.ops[ref.op]
        if op.kind in STATE:
            return self._lookup(op.name)
        if ref in self._given:
            return self._given[ref]
        if op.value is not None:
            return op.value
        if ref not in self._kept:
            return self._held(ref, self._computed([ref])[ref])
        return self._kept[ref]

    def output(self) -> Any:
        """Return what the model gives for the unchanged samples."""
        return _with(self.plan.output, [self.base(ref) for ref in self.plan.outputs])

    def _held(self, ref: Ref, value: Tensor) -> Tensor:
        """Keep a value within the budget; the largest go first, which lie near the inputs and are cheap."""
        value = self.kernels.arranged(value)
        if storage_key(value) in self._foreign:
            value = value.clone()  # before anything is written into it
        size = _bytes(value)
        excess = self.nbytes + size - self._budget
        for other in sorted(self._kept, key=lambda ref: _bytes(self._kept[ref]), reverse=True):
            if excess <= 0 or _bytes(self._kept[other]) <= size:
                break
            excess -= _bytes(self._kept.pop(other))
        if excess <= 0:
            self._kept[ref] = value
        return value

    def _known(self, ref: Ref) -> bool:
        op = self.plan.ops[ref.op]
        return ref in self._given or ref in self._kept or op.value is not None or op.kind in STATE

    def _computed(self, wanted: Sequence[Ref]) -> dict[Ref, Tensor]:
        """Compute values from those that are known."""
        needed, waiting = set(), {ref.op for ref in wanted if not self._known(ref)}
        while waiting:
            index = waiting.pop()
            needed.add(index)
            inputs = self.plan.ops[index].inputs
            waiting |= {ref.op for ref in inputs if not self._known(ref) and ref.op not in needed}
        order, goal = sorted(needed), set(wanted)
        last = {ref: index for index in order for ref in self.plan.ops[index].inputs}
        values: dict[Ref, Tensor] = {}

        def value(ref: Ref) -> Tensor:
            return values[ref] if ref in values else self.base(ref)

        for index in order:
            op = self.plan.ops[index]
            if op.kind == "identity" and len(op.inputs) == len(op.outputs):
                outputs = [value(ref) for ref in op.inputs]
            else:
                args = filled(op.args, self.samples, value)
                outputs = apply(op, args, filled(op.kwargs, self.samples, value))
            values.update({Ref(index, port): tensor for port, tensor in enumerate(outputs)})
            for ref in set(op.inputs):
                if last.get(ref) == index and ref not in goal:
                    values.pop(ref, None)
        return {ref: value(ref) for ref in wanted}

    def remember(self, key: object, make: Callable[[], T]) -> T:
        """Return what was made before under this key, or make it."""
        if key not in self._memory:
            self._memory[key] = make()
        found: T = self._memory[key]
        return found

    # -- variants -------------------------------------------------------------------------------------------

    def run(
        self,
        rows: Sequence[int],
        edits: Mapping[Ref, Edit],
        wanted: Sequence[Ref] = (),
        *,
        check: Callable[[], None] = lambda: None,
    ) -> tuple[Any, list[Tensor]]:
        """Run variants of the unchanged samples.

        Parameters
        ----------
        rows : sequence of int
            Which sample each variant is one of.
        edits : mapping of Ref to callable
            Takes a value of all variants, returns what they hold instead.
        wanted : sequence of Ref
            Further values that are asked for; without any the model's output is.
        check : callable
            Raises where the work is no longer wanted.

        Returns
        -------
        output : object
            As the model returns it, of all variants; None where values were asked for.
        values : list of Tensor
            What was asked for.
        """
        goals = tuple(wanted) or self.plan.outputs
        with torch.no_grad():
            route = self._route(frozenset(edits), goals)
            flow = Flow(self, rows, route, check)
            flow.run(edits)
            values = [flow.whole(ref) for ref in goals]
        self.flops += flow.flops
        self.whole_flops += sum(self.plan.flops) * len(rows)
        self.last_operations, self.local = flow.operations, flow.local
        return (None if wanted else _with(self.plan.output, values)), values if wanted else []

    def advance(
        self,
        seed: Ref,
        value: Tensor,
        goals: Sequence[Ref],
        check: Callable[[], None] = lambda: None,
        boxes: Boxes | None = None,
    ) -> None:
        """Let one value be another in the unchanged run from here on; of a single sample.

        Parameters
        ----------
        seed : Ref
            What changes.
        value : Tensor
            What it is from here on, ``[1, ...]``; not to be written into by anybody.
        goals : sequence of Ref
            The values that are kept up to date, beside the outputs; all others are forgotten.
        check : callable
            Raises where the work is no longer wanted.
        boxes : tuple, optional
            Where it changes, as `boxes_of` finds it, where that is known.
        """
        key = (frozenset([seed]), (*self.plan.outputs, *goals))
        if key != self._following:
            route = self._route(*key)
            kept = {ref: tensor for ref, tensor in self._kept.items() if ref in route.read}
            self._foreign |= {storage_key(tensor) for tensor in self._states()}
            self._following, self._kept = key, {}
            for ref, tensor in kept.items():
                self._held(ref, tensor)
        self._foreign |= {storage_key(value), *(storage_key(tensor) for tensor in self._given.values())}

        def settle(ref: Ref, change: Patch | Tensor) -> None:
            if ref == seed:
                self._given[seed] = value
            elif ref in self._kept:
                if isinstance(change, Patch):
                    lay(self._kept[ref], change.axes, np.zeros_like(change.starts), change)
                else:
                    mine = storage_key(change) not in self._foreign
                    self._kept[ref] = change if mine else change.clone()

        before = self._given[seed]
        flow = Flow(self, [0], self._route(*key), check)
        try:
            with torch.no_grad():
                flow.follow(seed, value, settle, through=True, boxes=boxes)
        except BaseException:
            self._kept, self._given[seed] = {}, before  # half of what was kept is of this value
            raise
        self._foreign.discard(storage_key(before))
        self.flops += flow.flops
        self.whole_flops += sum(self.plan.flops)
        self.last_operations, self.local = flow.operations, flow.local

    def changes(self, seed: Ref, value: Tensor) -> dict[Ref, Patch | Tensor]:
        """Return every value that another value of the first sample changes, and leave all as it is."""
        found: dict[Ref, Patch | Tensor] = {}
        with torch.no_grad():
            flow = Flow(self, [0], self._route(frozenset([seed]), self.plan.outputs), lambda: None)
            flow.follow(seed, value, found.__setitem__)
        return found

    def begin(self, seed: Ref, value: Tensor) -> None:
        """Let one value be another, and compute all that is kept anew."""
        self._given[seed] = value
        wanted = list(self._kept)
        self._kept = {}
        self._kept = self._computed(wanted)

    def _states(self) -> list[Tensor]:
        return [self._lookup(op.name) for op in self.plan.ops if op.kind in STATE] + [
            op.value for op in self.plan.ops if op.value is not None
        ]

    def _route(self, seeds: frozenset[Ref], goals: tuple[Ref, ...]) -> Route:
        key = (seeds, goals)
        if key not in self._routes:
            self.plan.refuse(seeds, one=self.samples == 1)
            self._routes[key] = self._new_route(seeds, goals)
        return self._routes[key]

    def _new_route(self, seeds: frozenset[Ref], goals: tuple[Ref, ...]) -> Route:
        ops = self.plan.ops
        after = self.plan.after(seeds)
        leading, wanted = set(), set(goals)
        for index in reversed(after):
            if any(Ref(index, port) in wanted for port in range(len(ops[index].outputs))):
                leading.add(index)
                wanted.update(ops[index].inputs)
        order = [index for index in after if index in leading and ops[index].kind != "output"]
        made = {Ref(index, port) for index in order for port in range(len(ops[index].outputs))}
        last: dict[Ref, int] = {}
        for index in order:
            last.update(dict.fromkeys(ops[index].inputs, index))
        done: dict[int, list[Ref]] = {index: [] for index in order}
        for ref, index in last.items():
            if ref not in goals:
                done[index].append(ref)
        tails = {index: self.kernels.tail(ops[index], {*seeds, *goals}) for index in order}
        folded = {op.index for tail in tails.values() for op in tail.ops}
        read = {ref for index in order if index not in folded for ref in ops[index].inputs}
        read |= {tail.beside for tail in tails.values() if tail.beside is not None}
        return Route(order, made, done, {*seeds, *read, *goals}, tails)


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()


def matches(found: Any, expected: Any) -> bool:
    """Whether two outputs of a model are the same, as far as its precision goes."""
    mine, other = tensors_of(found), tensors_of(expected)
    if len(mine) != len(other):
        return False
    for (_, a), (_, b) in zip(mine, other, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        tolerance = _TOLERANCE.get(a.dtype, 0.0)
        finite = b.isfinite() if b.is_floating_point() else None
        largest = float(b[finite].abs().max()) if finite is not None and bool(finite.any()) else 0.0
        if not torch.allclose(a, b, rtol=tolerance, atol=tolerance * largest, equal_nan=True):
            return False
    return True


def _with(output: Any, tensors: Sequence[Tensor]) -> Any:
    """Return a structure like a model's output with these tensors in it, in the order of `tensors_of`."""
    waiting = iter(tensors)
    made = _filled(output, waiting)
    if next(waiting, None) is not None:
        raise UnsafeError("its output is of a kind that cannot be made again")
    return made


def _filled(value: Any, waiting: Any) -> Any:
    if isinstance(value, Tensor):
        return next(waiting)
    if isinstance(value, (list, tuple)):
        parts = [_filled(part, waiting) for part in value]
        if isinstance(value, list):
            return parts
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, Mapping):
        other = copy.copy(value)
        for key, part in value.items():
            other[key] = _filled(part, waiting)  # type: ignore[index]  # a copy of a dict
        return other
    if is_dataclass(value) and not isinstance(value, type):
        same = copy.copy(value)
        for entry in fields(value):
            part = getattr(value, entry.name, None)
            if part is not None:
                setattr(same, entry.name, _filled(part, waiting))
        return same
    return value
