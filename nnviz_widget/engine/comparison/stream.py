"""Two runs and a walk over the pairs of their layers, one pair after the other.

Both runs are recorded, with what the memory budget allows to keep; what it does not is computed again, as
many layers in one pass as fit, and let go. How steps become jobs, and what happens when A's weights move, is
in ``streaming``; the weights of B are looked at before and after, and a move is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from nnviz_widget.engine.comparison.alignment import align, layers_of
from nnviz_widget.engine.comparison.result import Comparison, Pair, scores_in
from nnviz_widget.engine.comparison.similarity import (
    correlation,
    examples,
    linear_cka,
    relative_difference,
)
from nnviz_widget.engine.interventions import current, within
from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.streaming import Stream
from nnviz_widget.engine.trace import Trace
from nnviz_widget.errors import InputError, ModelError, StaleError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.recording import Ref
    from nnviz_widget.engine.streaming import Call, Step
    from nnviz_widget.engine.twin import Twin

__all__ = ["CKA", "OVER", "ComparisonStream"]

#: What an example of CKA is.
OVER = ("auto", "samples", "positions")
CKA = ("linear", "unbiased")

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


class ComparisonStream(Stream[Comparison]):
    """Comparisons that fill up; the last is the whole.

    Parameters
    ----------
    call : callable
        Runs a function of a cancel token on the engine's thread and returns what it returns.
    twin : Twin
        A's model.
    other : Twin, optional
        B's model; by default the same, and then it is the inputs that differ.
    inputs : (args, kwargs)
        Of A, as the model takes them.
    others : (args, kwargs)
        Of B.
    budget : int
        Bytes of activations that both runs may hold together.
    layers : sequence of str, optional
        Ids in A; by default all that have a partner.
    over : str
        One of `OVER`.
    cka : str
        One of `CKA`.

    Attributes
    ----------
    any_classes : bool
        Whether two models may have different numbers of classes; their predictions are then left out.
    """

    def __init__(
        self,
        call: Call,
        twin: Twin,
        other: Twin | None,
        inputs: Inputs,
        others: Inputs,
        *,
        budget: int,
        layers: Sequence[str] | None,
        over: str,
        cka: str,
    ) -> None:
        super().__init__(call, twin)
        self._other = other
        self._inputs, self._others = inputs, others
        self._budget = budget
        self._layers = layers
        self.any_classes = layers is not None
        self._over, self._unbiased = over, cka == "unbiased"

    def _start(self, module: nn.Module, token: CancelToken) -> Iterator[_Found]:
        return self._compared(module, token)

    def _compared(self, module: nn.Module, token: CancelToken) -> Iterator[_Found]:
        half = self._budget // 2
        a = _Side(self._call, self._twin, module, self._inputs, budget=half, token=token)
        if self._other is None:
            b = _Side(self._call, self._twin, module, self._others, budget=half, token=token)
        else:
            try:
                b = _Side(self._call, self._other, None, self._others, budget=half, token=token)
            except ModelError as error:
                raise ModelError(
                    f"The model that it is compared with raised: {error.message}",
                    hint=error.hint,
                    source=error.source,
                    node=error.node,
                    shapes=error.shapes,
                ) from error
        found = self._aligned(a.trace, b.trace)
        yield found
        samples = _rows(self._inputs)
        for units in _chunks(found.units, a, b, half):
            first, second = a.read([one.a for one in units]), b.read([one.b for one in units])
            for unit in units:
                numbers = self._measured(
                    found, unit, first.get(unit.a), second.get(unit.b), samples=samples, token=token
                )
                for place in unit.places:
                    found.pairs[place] = found.pairs[place].found(numbers)
                found.done += 1
                yield found

    def _aligned(self, a: Trace, b: Trace) -> _Found:
        scores = scores_in(a.output), scores_in(b.output)
        if not self.any_classes and scores[0] is not None and scores[1] is not None:
            counts = [one.shape[1] for one in scores if one is not None]
            if counts[0] != counts[1]:
                raise InputError(
                    f"The first model has {counts[0]} classes, the other {counts[1]}: their predictions "
                    "cannot be compared.",
                    hint='Name the layers to compare, without the output: layers=["layer1", ...].',
                )
        if scores[0] is None or scores[1] is None or scores[0].shape != scores[1].shape:
            scores = None, None
        sides = layers_of(a), layers_of(b)
        pairs: list[Pair] = []
        for group in (False, True):
            mine, theirs = sides[0][group], sides[1][group]
            shapes = [{layer.id: layer.shape for layer in side} for side in (mine, theirs)]
            pairs += [
                Pair(match.a, match.b, match.by, group, (shapes[0][match.a], shapes[1][match.b]))
                for match in align(mine, theirs)
            ]
        known = {pair.a for pair in pairs}, {pair.b for pair in pairs}
        only = [[layer.id for layer in sides[i][0] if layer.id not in known[i]] for i in (0, 1)]
        if self._layers is not None:
            wanted = set(map(a.resolve, self._layers))
            missing = wanted - known[0]
            if missing:
                raise InputError(
                    f"{min(missing)!r} has no partner in B, or gave no numbers of floating point.",
                    hint="Without layers= all that have one are compared.",
                )
            pairs = [pair for pair in pairs if pair.a in wanted]
        if not pairs:
            raise InputError("No layer of one is a layer of the other: there is nothing to compare.")
        units: dict[tuple[Ref, Ref], _Unit] = {}
        for place, pair in enumerate(pairs):
            key = a.refs[pair.a], b.refs[pair.b]
            units.setdefault(key, _Unit(pair.a, pair.b, [])).places.append(place)
        return _Found(0, len(units), pairs, only, a, b, scores, list(units.values()))

    def _measured(
        self,
        found: _Found,
        unit: _Unit,
        a: Tensor | None,
        b: Tensor | None,
        *,
        samples: int,
        token: CancelToken,
    ) -> dict[str, Any]:
        """Return what is told of a pair: the numbers of `Pair`."""
        if a is None or b is None:
            return {"note": "no values"}
        b = b.to(a.device)
        over = self._over if self._over != "auto" else "positions" if samples == 1 else "samples"
        axes = found.a.channel_axis(unit.a), found.b.channel_axis(unit.b)
        (x, what), (y, other) = (
            examples(one, axis, samples, over) for one, axis in zip((a, b), axes, strict=True)
        )
        notes = []
        cka = None
        if what != other or len(x) != len(y):
            notes.append(f"{len(x)} {what} in A, {len(y)} in B")
        elif len(x) < (4 if self._unbiased else 2):
            words = "one sample and no positions" if len(x) == 1 else f"only {len(x)} {what}"
            notes.append(f"{words}: CKA needs several examples")
        else:
            cka = linear_cka(x, y, unbiased=self._unbiased, check=token.check)
            if cka is None:
                notes.append("the same for all examples, or not finite")
        same = a.shape == b.shape
        if not same:
            notes.append("other shapes")
        return {
            "cka": cka,
            "difference": relative_difference(a, b, check=token.check) if same else None,
            "correlation": correlation(a, b, check=token.check) if same else None,
            "examples": what,
            "count": len(x),
            "note": "; ".join(notes),
        }

    def _made(self, step: Step) -> Comparison:
        found = cast("_Found", step)
        return Comparison(
            pairs=list(found.pairs),
            only_a=found.only[0],
            only_b=found.only[1],
            what="inputs" if self._other is None else "models",
            cka="unbiased" if self._unbiased else "linear",
            a=found.a,
            b=found.b,
            scores_a=found.scores[0],
            scores_b=found.scores[1],
            progress=self.progress,
            seconds=self.seconds,
            epoch=self.epoch,
        )


@dataclass
class _Unit:
    """Two values that are compared, and the pairs whose they are: a group has that of its last layer."""

    a: str
    b: str
    places: list[int]


@dataclass
class _Found:
    """What there is after a pair."""

    done: int
    total: int
    pairs: list[Pair]
    only: list[list[str]]
    a: Trace
    b: Trace
    scores: tuple[Tensor | None, Tensor | None]
    units: list[_Unit]


class _Side:
    """One of the two runs.

    Parameters
    ----------
    call : callable
        Of the engine.
    twin : Twin
        Whose weights are used.
    module : nn.Module, optional
        What runs: the twin's own, or a private copy of it. By default what holds still of the two.
    inputs : (args, kwargs)
        As the module takes them.
    budget : int
        Bytes of activations to hold.
    token : CancelToken
        Looked at inside the passes.
    """

    def __init__(
        self,
        call: Call,
        twin: Twin,
        module: nn.Module | None,
        inputs: Inputs,
        *,
        budget: int,
        token: CancelToken,
    ) -> None:
        args, kwargs = inputs
        interventions = current(twin)

        def run(module: nn.Module, epoch: int) -> tuple[Any, nn.Module, int]:
            with twin.running(), within(interventions):
                return record(module, args, kwargs, token=token, budget=budget), module, epoch

        if module is None:
            recording, module, epoch = twin.steadily(run)[0]
        else:
            recording, module, epoch = run(module, twin.epoch)
        own = module

        def again(ids: frozenset[str]) -> Mapping[str, Tensor]:
            def work(token: CancelToken) -> Mapping[str, Tensor]:
                if own is twin.module and twin.sync() != epoch:
                    raise StaleError(
                        "The activation was let go to save memory, and the weights have changed since.",
                        hint="Compare again, or raise engine.memory_budget.",
                    )
                with twin.running(), within(interventions):
                    return record(own, args, kwargs, keep=ids, token=token).activations

            found: Mapping[str, Tensor] = call(work)
            return found

        self._again = again
        paths = {id(part): name for name, part in twin.module.named_modules()}
        self.trace = Trace(
            recording,
            module_path=lambda part: paths.get(id(part)),
            recompute=again,
            budget=budget,
            epoch=epoch,
        )

    def read(self, ids: Sequence[str]) -> dict[str, Tensor | None]:
        """Return activations; those that are no longer held by one pass, and not kept."""
        values: dict[str, Tensor | None] = {}
        gone = []
        for name in ids:
            if self.trace.holds(name):
                values[name] = self.trace.activation(name)
            else:
                gone.append(name)
        if gone:
            found = self._again(frozenset(gone))
            values |= {name: found.get(name) for name in gone}
        return values

    def size(self, name: str) -> int:
        """Return the bytes of an activation."""
        ref = self.trace.refs[name]
        spec = self.trace.ops[ref.op].outputs[ref.port]
        return prod(spec.shape) * (spec.dtype.itemsize if spec.dtype is not None else 4)


def _chunks(units: Sequence[_Unit], a: _Side, b: _Side, budget: int) -> Iterator[list[_Unit]]:
    """Take first what is at hand, one by one, then as much of the rest together as the budget allows."""
    gone = []
    for unit in units:
        if a.trace.holds(unit.a) and b.trace.holds(unit.b):
            yield [unit]
        else:
            gone.append(unit)
    while gone:
        taken, size = [gone.pop(0)], 0
        while gone and size <= budget:
            size += a.size(gone[0].a) + b.size(gone[0].b)
            taken.append(gone.pop(0))
        yield taken


def _rows(inputs: Inputs) -> int:
    """Return the number of samples: the length of the first tensor."""
    tensors = [value for value in (*inputs[0], *inputs[1].values()) if isinstance(value, Tensor)]
    return len(tensors[0]) if tensors and tensors[0].dim() else 1
