"""Replays of one engine's model: planned once for each kind of input, and the unchanged run of the last one.

`Replayed` speaks a task's language (rows, targets, module paths) and keeps the books of what was saved.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from math import log2, prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnviz_widget.engine.interventions import current, within
from nnviz_widget.engine.replay.patches import boxes_of
from nnviz_widget.engine.replay.plan import Plan, UnsafeError, plan_of
from nnviz_widget.engine.replay.run import Replay, matches
from nnviz_widget.engine.sites import HEADS, heads_of, split_heads
from nnviz_widget.errors import InputError, ModelError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import nn

    from nnviz_widget.engine.attribution.task import Task
    from nnviz_widget.engine.recording import Op, Ref
    from nnviz_widget.engine.sites import Edit

__all__ = ["UNFORESEEN", "Ledger", "Recomputed", "Replayed", "Replays"]

_DIFFERS = "the replay did not give what the model gives"
_FASTER = "running all of it is as fast here"
#: What a plan may fail with that was read off two runs: a shape that fits no other number of rows, mostly.
UNFORESEEN = (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError, KeyError)


@dataclass(frozen=True)
class Recomputed:
    """How much of the model ran for the variants of a run.

    Attributes
    ----------
    share : float
        Of the arithmetic (floating point operations of convolutions, products and attention): 1 is all.
    operations, total : int
        How many of the model's operations ran for the last variants, in whole or in part, and of how many.
    note : str
        Why all of it ran, where that is so and could have been otherwise; else empty.
    variants : int
        How many there were.
    """

    share: float
    operations: int
    total: int
    note: str = ""
    variants: int = 0

    @classmethod
    def of_all(cls, parts: Iterable[Recomputed | None]) -> Recomputed | None:
        """Return the sum of several runs of one model; None where none of them had variants."""
        known = [part for part in parts if part is not None]
        if not known:
            return None
        count = sum(part.variants for part in known)
        share = sum(part.share * part.variants for part in known) / max(count, 1)
        note = next((part.note for part in known if part.note), "")
        return cls(share, known[-1].operations, known[-1].total, note, count)

    def __str__(self) -> str:
        told = f"recomputed {self.share:.0%}"
        if self.share < 1:
            told = f"{told}: {self.operations} of {self.total} operations"
        return f"{told}; {self.note}" if self.note else told


class Replays:
    """Plans by module and input, and the last unchanged run.

    Attributes
    ----------
    debug : bool
        Whether some variants of each batch are run in full as well, and compared.
    """

    def __init__(self, epoch: Callable[[], int], budget: Callable[[], int]) -> None:
        self.debug = False
        self._epoch, self._budget = epoch, budget
        self._plans: weakref.WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], Plan | str]]
        self._plans = weakref.WeakKeyDictionary()
        self._last: tuple[_Samples, Replayed] | None = None
        self._asked: _Samples | None = None

    def again(self, task: Task) -> bool:
        """Whether these samples were asked about before: then their unchanged run is worth having."""
        asked, self._asked = self._asked, self._samples(task)
        return self._ready(task) is not None or (asked is not None and asked.same(self._asked))

    def known(self, task: Task) -> bool:
        """Whether asking about this task costs no run."""
        plan = self._plans.get(task.passes.module, {}).get(_key(task))
        return isinstance(plan, str) or self._ready(task) is not None

    def of(self, task: Task) -> Replayed:
        """Return the replay of a task's samples.

        Raises
        ------
        UnsafeError
            There is none; the text says why.
        """
        ready = self._ready(task)
        if ready is not None:
            return ready
        self._last = None  # its memory is wanted
        key = _key(task)
        plans = self._plans.setdefault(task.passes.module, {})
        if key not in plans:
            plans[key] = _planned(task)
        plan = plans[key]
        if isinstance(plan, str):
            raise UnsafeError(plan)
        try:
            replayed = Replayed(plan, task, self._budget())
        except torch.OutOfMemoryError as error:  # there may be more of it another time
            raise UnsafeError("there is too little memory for it") from error
        except (UnsafeError, *UNFORESEEN) as error:
            plans[key] = str(error) if isinstance(error, UnsafeError) else _DIFFERS
            raise UnsafeError(str(plans[key])) from error
        self._last = self._samples(task), replayed
        return replayed

    def alone(self, task: Task) -> Replayed:
        """Return a replay that nobody else is given, as `of` does."""
        known, self._last = self._last, None
        try:
            return self.of(task)
        finally:
            self._last = known

    @property
    def last(self) -> Replayed | None:
        """The replay that is held, if any."""
        return self._last[1] if self._last is not None else None

    @property
    def nbytes(self) -> int:
        """Bytes of activations that are held."""
        return self._last[1].replay.nbytes if self._last is not None else 0

    def refuse(self, task: Task, why: str = _DIFFERS) -> None:
        """Run this model in full from here on."""
        self._last = None
        self._plans.setdefault(task.passes.module, {})[_key(task)] = why

    def _samples(self, task: Task) -> _Samples:
        return _Samples(weakref.ref(task.passes.module), self._epoch(), (*task.inputs, *task.context))

    def _ready(self, task: Task) -> Replayed | None:
        same = self._last is not None and self._last[0].same(self._samples(task))
        return self._last[1] if self._last is not None and same else None


@dataclass(frozen=True)
class _Samples:
    """What was run: by which module, with weights of which epoch, on which tensors."""

    module: weakref.ref[nn.Module]
    epoch: int
    tensors: tuple[Tensor, ...]

    def same(self, other: _Samples) -> bool:
        """Whether the unchanged run of these is that of the others."""
        mine, its = self.tensors, other.tensors
        if self.module() is not other.module() or self.epoch != other.epoch or len(mine) != len(its):
            return False
        return all(a is b or torch.equal(a, b) for a, b in zip(mine, its, strict=True))


def _key(task: Task) -> tuple[Any, ...]:
    # The number of samples among it: what is decided by the data may differ between them.
    return tuple((tuple(tensor.shape), tensor.dtype) for tensor in (*task.inputs, *task.context))


def _planned(task: Task) -> Plan | str:
    try:
        with within(()):
            return plan_of(task.recording)
    except UnsafeError as error:
        return str(error)
    except ModelError:
        return "it does not run on another number of samples"
    except OutOfMemoryError:
        return "there is too little memory for it"


class Ledger:
    """The books of one task: what ran for its variants, and what would have."""

    def __init__(self) -> None:
        self.note = ""
        self._flops = self._whole = 0.0
        self._replayed = self._full = 0
        self._operations = self._total = 0

    def replayed(self, replay: Replay, rows: int, before: tuple[float, float]) -> None:
        """Add what a replay of rows has done since it stood at `before`."""
        self._replayed += rows
        self._flops += replay.flops - before[0]
        self._whole += replay.whole_flops - before[1]
        self._operations, self._total = replay.last_operations, replay.total

    def in_full(self, rows: int) -> None:
        """Add rows that went through the whole model."""
        self._full += rows

    def told(self) -> Recomputed | None:
        """Return the sum; None where there were no variants."""
        if not self._replayed:
            if not self._full:
                return None
            return Recomputed(1.0, self._total, self._total, self.note or _FASTER, self._full)
        each = self._whole / self._replayed
        share = (self._flops + self._full * each) / max(self._whole + self._full * each, 1.0)
        return Recomputed(share, self._operations, self._total, self.note, self._replayed + self._full)


class Replayed:
    """Variants of a task's samples.

    Parameters
    ----------
    plan : Plan
        Of the model, for inputs of these shapes.
    task : Task
        Gives the samples.
    budget : int
        Bytes of activations to keep.

    Raises
    ------
    UnsafeError
        The plan does not give what the model gives for the samples themselves.
    """

    def __init__(self, plan: Plan, task: Task, budget: int) -> None:
        module = task.passes.module
        states = [
            *module.named_parameters(remove_duplicate=False),
            *module.named_buffers(remove_duplicate=False),
        ]
        named = {name: tensor.detach() for name, tensor in states}
        given = task.given()
        if len(given) != len(plan.inputs):
            raise UnsafeError("its inputs are of a kind that is not seen through")
        set_to: dict[Ref, Tensor] = {}
        self._seeds: tuple[Ref, ...]
        if task.embedded:
            self._seeds = (_given_by(plan, task.embedding),)
            set_to = {self._seeds[0]: task.inputs[0]}
        else:
            places = {place: ref for ref, (_, place) in zip(plan.inputs, given, strict=True)}
            self._seeds = tuple(ref for place, ref in sorted(places.items()) if place >= 0)
        if len(self._seeds) != len(task.inputs):
            raise UnsafeError("one tensor is given to the model several times")
        self.replay = Replay(
            plan,
            [tensor.detach() for tensor, _ in given],
            task.samples,
            lookup=named.__getitem__,
            budget=budget,
            set_to=set_to,
        )
        self._plan = plan
        self._module = weakref.ref(module)
        #: What was compared with the whole model: variants of the input, or of these layers.
        self.checked: set[str] = set()
        with torch.no_grad(), within(()), task.uncounted():
            if not matches(self.replay.output(), task.output()):
                raise UnsafeError(_DIFFERS)

    @property
    def seed(self) -> Ref:
        """The (first) value that is explained."""
        return self._seeds[0]

    def _site(self, site: str) -> tuple[Ref, int]:
        """Return the value that stands at a site, and of how many heads it is the row; 0 where of none."""
        path, _, call = site.partition("@")
        module = self._module()
        if not path.endswith(HEADS) or module is None:
            return _given_by(self._plan, site), 0
        try:
            heads = heads_of(dict(module.named_modules()), path.removesuffix(HEADS))
        except InputError as error:
            raise UnsafeError(str(error)) from error
        if heads.whole:
            raise UnsafeError("heads are inside one operation")
        return _given_to(self._plan, f"{heads.path}@{call}" if call else heads.path), heads.count

    def refuse(self, node: str) -> None:
        """Raise UnsafeError where variants of the input (``"input"``) or of a layer cannot be replayed."""
        self._plan.refuse(self._changed(node), one=self.replay.samples == 1)

    def cover(self, node: str, changed: Sequence[Tensor], rows: Tensor) -> float:
        """Return about which part of a value variants change, in powers of two; 1 is all of it."""
        largest = 0.0
        for seed, tensor in self._seeded(node, changed):
            if self._plan.batches.get(seed) != (0, 1) or tensor.dim() < 2:
                return 1.0
            _, sizes = boxes_of(tensor, self.replay.base(seed), rows.tolist())
            largest = max(largest, prod(n / side for n, side in zip(sizes, tensor.shape[1:], strict=True)))
        return 2.0 ** round(log2(largest))

    def run(
        self,
        node: str,
        changed: Sequence[Tensor],
        rows: Tensor,
        *,
        unit: str = "",
        check: Callable[[], None] = lambda: None,
    ) -> Any:
        """Return what the model gives for variants.

        Parameters
        ----------
        node : str
            ``"input"``, or the path of a module.
        changed : sequence of Tensor
            The task's inputs, or the one tensor that the module gives instead.
        rows : Tensor
            Which sample each variant is one of.
        unit : str
            Path of a module whose output is wanted instead of the model's.
        check : callable
            Raises where the work is no longer wanted.
        """
        edits = self._interventions()
        for seed, tensor in self._seeded(node, changed):
            edits[seed] = _constant(tensor)
        wanted = [_given_by(self._plan, unit)] if unit else []
        output, values = self.replay.run(rows.tolist(), edits, wanted, check=check)
        return values[0] if unit else output

    def output(self, check: Callable[[], None] = lambda: None) -> Any:
        """Return what the model gives for the samples, with the interventions in force."""
        return self.replay.run(range(self.replay.samples), self._interventions(), check=check)[0]

    def _seeded(self, node: str, changed: Sequence[Tensor]) -> list[tuple[Ref, Tensor]]:
        """Return what the variants of an input, or of a layer, are instead of which values."""
        if node == "input":
            return list(zip(self._seeds, changed, strict=True))
        ref, heads = self._site(node)
        return [(ref, changed[0].flatten(-2) if heads else changed[0])]

    def _changed(self, node: str) -> set[Ref]:
        seeds = self._seeds if node == "input" else (self._site(node)[0],)
        return {*seeds, *self._interventions()}

    def _interventions(self) -> dict[Ref, Edit]:
        edits: dict[Ref, Edit] = {}
        for one in current():
            ref, heads = self._site(one.site)
            edit = _of_heads(one, heads) if heads else one
            before = edits.get(ref)
            edits[ref] = edit if before is None else _after(before, edit)
        return edits


def _given_by(plan: Plan, site: str) -> Ref:
    """Return the value that a module gives."""
    ref = plan.refs.get(site)
    if ref is None:
        raise UnsafeError(f"{site} is nothing that an operation gave")
    return ref


def _given_to(plan: Plan, site: str) -> Ref:
    """Return the value that a module is given, and nobody else."""

    def inside(op: Op) -> bool:
        return op.node == site or op.node.startswith(f"{site}/")

    ref = next((op.inputs[0] for op in plan.ops if inside(op) and op.inputs), None)
    shared = any(ref in op.inputs and not inside(op) for op in plan.ops)
    if ref is None or ref not in plan.batches or shared:
        raise UnsafeError(f"what {site} is given is read by others too")
    return ref


def _of_heads(edit: Edit, heads: int) -> Edit:
    return lambda tensor: edit(split_heads(tensor, heads)).flatten(-2)


def _constant(tensor: Tensor) -> Edit:
    return lambda _: tensor


def _after(first: Edit, second: Edit) -> Edit:
    return lambda tensor: second(first(tensor))
