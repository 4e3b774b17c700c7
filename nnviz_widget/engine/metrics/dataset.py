"""Methods over a data set: batch by batch, in the caller's own thread, each question a job of its own."""

from __future__ import annotations

from collections.abc import Sized
from typing import TYPE_CHECKING, Any

from torch import Tensor

from nnviz_widget.engine.attribution.registry import method_named
from nnviz_widget.engine.attribution.result import Attribution
from nnviz_widget.engine.metrics.evaluating import name_with
from nnviz_widget.engine.metrics.evaluation import Evaluation, joined
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nnviz_widget.engine.explaining import Explaining

__all__ = ["methods_of", "over_data"]


def methods_of(given: Any) -> dict[str, Any]:
    """Return methods by the names of their rows: pairs of a name and options, or functions.

    Parameters
    ----------
    given : str, list, or dict
        Names of methods, ``(name, options)``, or functions of inputs and targets that return an attribution
        or a tensor like the inputs; a dict gives them the names of their rows.
    """
    if isinstance(given, str) or callable(given) or isinstance(given, tuple):
        given = [given]
    if isinstance(given, list):
        names = [_name_of(each) for each in given]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(
                f"Two rows would be called {twice!r}.", hint="Give them names: a dict from names to methods."
            )
        given = dict(zip(names, given, strict=True))
    if not isinstance(given, dict) or not given:
        raise InputError(
            f"Expected methods to evaluate over the data, not {type(given).__name__}.",
            hint='Pass names, such as ["saliency", ("integrated_gradients", {"baselines": "mean"})].',
        )
    methods: dict[str, Any] = {}
    for name, each in given.items():
        if callable(each):
            methods[str(name)] = each
            continue
        method, options = each if isinstance(each, tuple) else (each, {})
        method_named(method).checked(options)  # before any work
        methods[str(name)] = (method, dict(options))
    return methods


def over_data(
    engine: Explaining,
    methods: dict[str, Any],
    data: Iterable[Any],
    *,
    metrics: Any,
    sign: str,
    seed: int,
) -> Iterator[Evaluation]:
    """Yield the table of all batches so far, after each batch.

    Parameters
    ----------
    engine : Engine
        Answers.
    methods : dict
        As `methods_of` gives them.
    data : iterable
        Of ``(inputs, target)`` or ``(inputs, target, mask)``.
    metrics, sign, seed
        As `Engine.evaluate` takes them.
    """
    total = len(data) if isinstance(data, Sized) else 0
    parts: list[Evaluation] = []
    for batch in data:
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise InputError(
                "Each batch of the data is (inputs, target) or (inputs, target, mask).",
                hint="The target may be None: then the class with the largest score.",
            )
        inputs, target, mask = (*batch, None)[:3]
        rows: dict[str, Any] = {}
        for name, how in methods.items():
            if isinstance(how, tuple):
                rows[name] = engine.attribute(inputs, how[0], target=target, **how[1])
            else:
                rows[name] = _own(engine, name, how(inputs, target), inputs, target)
        found = engine.evaluate(rows, metrics, mask, sign=sign, seed=seed + len(parts))
        parts.append(found)
        whole = joined(parts)
        whole.progress = len(parts) / total if total else 1.0
        yield whole
    if not parts:
        raise InputError("There is no batch in the data.")


def _own(engine: Explaining, name: str, found: Any, inputs: Any, target: Any) -> Attribution:
    """Return what a user's function gave as an attribution that knows its question."""
    if isinstance(found, Attribution):
        return found
    if not isinstance(found, Tensor):
        raise InputError(
            f"{name!r} gave {type(found).__name__}, not an attribution or a tensor like the inputs."
        )
    asked = engine.attribute(inputs, "saliency", target=target)  # makes inputs and target definite
    return Attribution(found.detach(), name, target=asked.target, question=asked.question, epoch=asked.epoch)


def _name_of(each: Any) -> str:
    if isinstance(each, tuple) and each:
        options = each[1] if len(each) > 1 and isinstance(each[1], dict) else {}
        return name_with(str(each[0]), options)
    return str(each) if isinstance(each, str) else str(getattr(each, "__name__", type(each).__name__))
