"""From maps and the names of metrics to a table, step by step on the engine's thread.

Which maps may stand in one table is decided here, and how each of them is asked again about other inputs or
another network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nnviz_widget.engine.attribution.positions import layout_of
from nnviz_widget.engine.attribution.registry import known_methods
from nnviz_widget.engine.attribution.result import Attribution
from nnviz_widget.engine.metrics.case import Case, Reading
from nnviz_widget.engine.metrics.controls import CONTROLS
from nnviz_widget.engine.metrics.evaluation import Evaluation
from nnviz_widget.engine.metrics.maps import Positions
from nnviz_widget.engine.streaming import Stream
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from torch import nn

    from nnviz_widget.engine.attribution.registry import MethodInfo
    from nnviz_widget.engine.attribution.stream import Question, Runs
    from nnviz_widget.engine.attribution.task import Task
    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.metrics.case import Explain
    from nnviz_widget.engine.metrics.registry import MetricInfo
    from nnviz_widget.engine.streaming import Call, Step

__all__ = ["EvaluationStream", "name_with", "rows_of"]

_SIGNS = ("auto", "absolute", "signed")
#: Whose negative values speak against the target; those of gradients tell of a direction.
_SIGNED = frozenset({"cam", "perturbation", "surrogate", "attention"})
_PARTS = 1000  # of the work on one cell of the table


def rows_of(given: Any) -> dict[str, Attribution]:
    """Return the maps of a table by their names.

    Parameters
    ----------
    given : Attribution, list of Attribution, or dict
        The dict is from names to attributions. Beside one of these a plain tensor may stand, like the inputs.

    Raises
    ------
    InputError
        There is none, one does not know its question, or they explain different things.
    """
    if isinstance(given, Attribution):
        given = [given]
    if isinstance(given, (list, tuple)):
        given = _named(list(given))
    if not isinstance(given, dict) or not given:
        raise InputError(
            f"Expected attributions to evaluate, not {type(given).__name__}.",
            hint="Pass what engine.attribute(...) returned: one, a list, or a dict with names for them.",
        )
    first = next((found for found in given.values() if isinstance(found, Attribution)), None)
    if first is None or first.question is None:
        raise InputError(
            "None of these attributions knows the inputs that it explains.",
            hint="Pass what engine.attribute(...) returned, not a copy that was saved.",
        )
    rows: dict[str, Attribution] = {}
    for name, found in given.items():
        if str(name) in CONTROLS:
            raise InputError(f"{name!r} is the name of a control row, which every table has.")
        row = found
        if isinstance(found, Tensor):
            row = Attribution(found.detach(), str(name), target=first.target, question=first.question)
            row.epoch = first.epoch
        if not isinstance(row, Attribution):
            raise InputError(f"{name!r} is no attribution, but {type(found).__name__}.")
        _check_same(first, row, str(name))
        rows[str(name)] = row
    return rows


class EvaluationStream(Stream[Evaluation]):
    """Tables that fill up; the last is whole.

    Parameters
    ----------
    call : callable
        Runs a function of a cancel token on the engine's thread and returns what it returns.
    runs : Runs
        Of the engine.
    rows : dict of str to Attribution
        As `rows_of` gives them.
    metrics : list of (MetricInfo, dict)
        As `metrics_asked` gives them.
    mask : array, Tensor or None
        ``[N, H, W]``, true where the object is; ``[H, W]`` for all samples.
    sign : str
        ``"absolute"``, ``"signed"``, or ``"auto"``: what suits each method.
    seed : int
        Of everything drawn.
    """

    def __init__(
        self,
        call: Call,
        runs: Runs,
        rows: dict[str, Attribution],
        metrics: list[tuple[MetricInfo, dict[str, Any]]],
        *,
        mask: Any = None,
        sign: str = "auto",
        seed: int = 0,
    ) -> None:
        if sign not in _SIGNS:
            raise InputError(f"sign={sign!r} is not known.", hint=f"Known are {', '.join(_SIGNS)}.")
        super().__init__(call, runs.twin)
        self._runs, self._rows, self._metrics = runs, rows, metrics
        self._mask, self._sign, self._seed = mask, sign, seed
        self._readings: dict[str, dict[str, Reading]] = {}
        self._task: Task | None = None

    def _start(self, module: nn.Module, token: CancelToken) -> Iterator[Step]:
        first = next(iter(self._rows.values()))
        assert first.question is not None
        self._task = self._runs.task(module, first.question, token, first.target)
        if "neuron" in first.options:
            self._task.explain_unit(first.options["layer"], first.options["neuron"])
        self._readings = {name: {} for name in (*self._rows, *CONTROLS)}
        return self._work(self._task)

    def _work(self, task: Task) -> Iterator[Step]:
        cases = self._cases(task)
        total = len(self._metrics) * len(cases) * _PARTS
        done = 0
        for info, options in self._metrics:
            for name, case in cases.items():
                work = info.work(case, options)
                while True:
                    try:
                        share = next(work)
                    except StopIteration as end:
                        self._readings[name][info.name] = end.value
                        break
                    yield _Done(done + min(_PARTS - 1, int(share * _PARTS)), total)
                done += _PARTS
                yield _Done(done, total)

    def _cases(self, task: Task) -> dict[str, Case]:
        axes = [2] if task.embedded else layout_of(task).inputs
        positions = Positions(task.inputs, axes)
        mask = None if self._mask is None else _mask_of(self._mask, task, positions)
        module = task.passes.module
        cases: dict[str, Case] = {}
        shared: dict[str, Any] = {}
        for name, row in self._rows.items():
            positions.check(row.tensors, name)
            info = _method(row)
            cases[name] = Case(
                name=name,
                task=task,
                positions=positions,
                values=tuple(value.to(x.device) for value, x in zip(row.tensors, task.inputs, strict=True)),
                absolute=self._absolute(info),
                mask=mask,
                explain=None if info is None else _explains(info, row.options),
                scratch=lambda: self._twin.scratch(module),
                options=row.options,
                delta=row.delta,
                seed=self._seed,
                shared=shared,
            )
        for name, draw in CONTROLS.items():
            values = draw(positions, task.inputs, self._seed)
            cases[name] = Case(
                name=name,
                task=task,
                positions=positions,
                values=values,
                absolute=False,
                mask=mask,
                explain=_unmoved(values),
                scratch=lambda: self._twin.scratch(module),
                moves=False,
                seed=self._seed,
                shared=shared,
            )
        maps = {name: case.importance for name, case in cases.items()}
        for name, case in cases.items():
            case.others.update({other: found for other, found in maps.items() if other != name})
        return cases

    def _absolute(self, info: MethodInfo | None) -> bool:
        if self._sign != "auto":
            return self._sign == "absolute"
        return info is None or info.family not in _SIGNED

    def _made(self, _: Step) -> Evaluation:
        task = self._task
        assert task is not None
        curves: dict[str, dict[str, tuple[list[float], np.ndarray[Any, Any]]]] = {}
        notes: list[str] = []
        for name, found in self._readings.items():
            for reading in found.values():
                for curve, (x, y) in reading.curves.items():
                    curves.setdefault(curve, {})[name] = (x, _array(y))
                notes += [reading.note] if reading.note else []
        for name, row in self._rows.items():
            notes += [f"{name}: {caution}" for caution in row.cautions]
        if any(row.epoch != self.epoch for row in self._rows.values()):
            notes.append("The weights have changed since these maps were computed.")
        if not self.consistent:
            notes.append("The weights moved during the evaluation.")
        return Evaluation(
            metrics=[info for info, _ in self._metrics],
            readings={
                name: {metric: _array(reading.values) for metric, reading in found.items()}
                for name, found in self._readings.items()
            },
            curve_readings=curves,
            details={
                name: {metric: reading.details for metric, reading in found.items() if reading.details}
                for name, found in self._readings.items()
            },
            signs={
                name: "absolute"
                if name in self._rows and self._absolute(_method(self._rows[name]))
                else "signed"
                for name in self._readings
            },
            targets=_classes(task.told, task.samples),
            notes=tuple(dict.fromkeys(notes)),
            progress=self.progress,
            forward_passes=task.passes.forward_passes,
            backward_passes=task.passes.backward_passes,
            seconds=self.seconds,
            recomputed=task.recomputed,
        )

    def _release(self) -> None:
        self._task = None


@dataclass(frozen=True)
class _Done:
    done: int
    total: int


def name_with(method: str, options: Mapping[str, Any]) -> str:
    """Return the name of a row: the method, and in brackets the options that tell it from others."""
    plain = (str, int, float, bool, type(None))
    told = ", ".join(f"{name}={each if isinstance(each, plain) else '…'}" for name, each in options.items())
    return f"{method} ({told})" if told else method


def _named(found: list[Any]) -> dict[str, Any]:
    """Name maps after their methods, several of one method also by the options in which they differ.

    What cannot be told apart so has a number.
    """
    methods = [str(getattr(each, "method", f"map {i + 1}")) for i, each in enumerate(found)]
    named: dict[str, Any] = {}
    for each, method in zip(found, methods, strict=True):
        same = [other for other, its in zip(found, methods, strict=True) if its == method]
        options = getattr(each, "options", {})
        apart = {
            key: value
            for key, value in options.items()
            if any(not _equal(value, other.options.get(key)) for other in same)
        }
        name = name_with(method, apart)
        number = sum(1 for other in named if other == name or other.startswith(f"{name}, ")) + 1
        named[f"{name}, {number}" if number > 1 else name] = each
    return named


def _method(row: Attribution) -> MethodInfo | None:
    """Return how a map was computed; None where it came from elsewhere."""
    own = row.question.method if row.question is not None else None
    known = known_methods().get(row.method)
    return known if known is not None else own if own is not None and own.name == row.method else None


def _explains(info: MethodInfo, options: Mapping[str, Any]) -> Explain:
    def explain(task: Task) -> Generator[float, None, tuple[Tensor, ...]]:
        part = None
        for part in info.run(task, **options):
            yield part.done / max(1, part.total)
        assert part is not None
        return part.values()

    return explain


def _unmoved(values: tuple[Tensor, ...]) -> Explain:
    """Return the way in which a control explains anything else: just the same."""

    def explain(_: Task) -> Generator[float, None, tuple[Tensor, ...]]:
        yield 1.0
        return values

    return explain


def _check_same(first: Attribution, row: Attribution, name: str) -> None:
    """Raise where two maps do not explain the same inputs and target."""
    one, other = first.question, row.question
    if one is None or other is None:
        raise InputError(
            f"{name!r} does not know the inputs that it explains.",
            hint="Pass what engine.attribute(...) returned, not a copy that was saved.",
        )
    if not _equal(_given(one), _given(other)):
        raise InputError(
            f"{name!r} explains other inputs than the first: their metrics cannot be compared.",
            hint="Evaluate them one by one, or pass methods and data= for many inputs.",
        )
    same_unit = _equal(first.options.get("neuron"), row.options.get("neuron"))
    if not same_unit or (row.target is not None and not _equal(first.target, row.target)):
        raise InputError(
            f"{name!r} explains another target than the first: their metrics cannot be compared.",
            hint="Evaluate them one by one.",
        )


def _given(question: Question) -> list[Any]:
    return [*question.args, *question.extra, *question.kwargs.values()]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        if not all(isinstance(each, (Tensor, np.ndarray, int, float, list, tuple)) for each in (one, other)):
            return False
        a, b = torch.as_tensor(one), torch.as_tensor(other)
        return a.shape == b.shape and a.device == b.device and torch.equal(a, b)
    return one is other or bool(one == other)


def _mask_of(given: Any, task: Task, positions: Positions) -> Tensor:
    """Return a mask of the first input, ``[N, ...]``, from an array or a tensor."""
    mask = torch.as_tensor(np.asarray(given) if not isinstance(given, Tensor) else given) != 0
    shape = positions.shapes[0]
    if mask.dim() == len(shape) + 2 and mask.shape[1] == 1:
        mask = mask[:, 0]
    if tuple(mask.shape) == shape:
        mask = mask.expand(task.samples, *shape)
    if tuple(mask.shape) != (task.samples, *shape):
        raise InputError(
            f"The mask has the shape {tuple(mask.shape)}, and the inputs have the positions "
            f"{(task.samples, *shape)}.",
            hint="A mask has an entry for each position, true where the object is.",
        )
    return mask.to(task.inputs[0].device)


def _classes(told: Any, samples: int) -> list[Any]:
    """Return the target of each sample, where it is a number or an index."""
    if isinstance(told, Tensor):
        told = told.tolist()
    if isinstance(told, list):
        return [tuple(one) if isinstance(one, list) else one for one in told]
    return [told if isinstance(told, (int, tuple)) else None] * samples


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    return np.asarray(tensor.detach().double().cpu().numpy())
