"""Interventions for the page: predictions with and without them, knock-outs, patches from another sample.

What an operation is, and when it runs, is told in ``operations``.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from nnviz_widget.engine.interventions import KINDS
from nnviz_widget.engine.patching import EACH
from nnviz_widget.engine.tiles import unit_at
from nnviz_widget.errors import InputError, NNVizError
from nnviz_widget.explorer import params
from nnviz_widget.explorer.replies import Reply, growing
from nnviz_widget.explorer.results import class_scores, find_logits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from nnviz_widget.engine.knock_outs import KnockOuts
    from nnviz_widget.engine.patching import PatchEffects
    from nnviz_widget.explorer.exploration import Exploration
    from nnviz_widget.explorer.replies import Question, Stream

__all__ = ["INTERVENING"]

_MOST = 64  # interventions on one shelf
_SHOWN = 8  # classes


def _intervene(exploration: Exploration, question: Question) -> Reply:
    """Answer with the predictions under the interventions that are switched on, beside those without."""
    started = time.perf_counter()
    sample = _sample(exploration, question, "sample")
    given = question.p.get("interventions")
    if not isinstance(given, list) or len(given) > _MOST or not all(isinstance(one, dict) for one in given):
        raise InputError(f"'interventions' must be a list of at most {_MOST} objects.")
    engine, inputs = exploration.engine, _inputs(exploration, sample)
    before = _scored(engine.output(inputs))
    calls: list[str] = []
    errors: list[str] = []
    with ExitStack() as stack:
        for one in given:
            call, error = "", ""
            try:
                options = _options(exploration, one)
                made = engine.intervene(options.pop("layer"), options.pop("kind"), **options)
                if one.get("on") is True:
                    call = _named(str(stack.enter_context(made)), one)
                else:
                    with made as shown:
                        call = _named(str(shown), one)
            except NNVizError as failure:
                error = str(failure)
            calls.append(call)
            errors.append(error)
        after = _scored(engine.output(inputs))
    return Reply(
        meta={
            "sample": sample,
            "classes": _compared(exploration, before, after),
            "calls": calls,
            "errors": errors,
            "ms": round((time.perf_counter() - started) * 1e3, 2),
        }
    )


def _options(exploration: Exploration, one: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `Engine.intervene` for an object of the page."""
    kind = params.choice(one, "kind", tuple(KINDS))
    node = exploration.resolve(params.name(one, "layer"))
    options: dict[str, Any] = {"layer": node, "kind": kind}
    for part in ("channel", "head"):
        number = params.integer(one, part, 0, 2**31, default=None)
        if number is not None:
            options[part] = number
    if one.get("unit") is not None:
        trace = exploration.current
        ref = None if trace is None else trace.refs.get(node)
        unit = params.integers(one, "unit", 8)
        if trace is not None and ref is not None:
            shape = trace.ops[ref.op].outputs[ref.port].shape
            unit = unit_at(shape, unit, axis=trace.channel_axis(node))
        options["unit"] = unit
    if kind == "patch":
        options["source"] = _inputs(exploration, _sample(exploration, one, "source"))
        return options
    for name in KINDS[kind]:
        value = one.get(name)
        if value is None:
            continue
        mean = kind == "ablate" and value in ("zero", "mean")
        if not mean and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise InputError(f"{name!r} must be a number.")
        options[name] = value
    return options


def _named(call: str, one: Mapping[str, Any]) -> str:
    """Write the source of a patch as people write it."""
    source = one.get("source")
    return (
        call.replace("source=source", f"source=inputs[{source}:{source + 1}]") if source is not None else call
    )


def _scored(output: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    found = find_logits(output)
    if found is None:
        raise InputError("The model's output is no row of class scores, so there are no bars to compare.")
    return class_scores(found[1])


def _compared(exploration: Exploration, before: Any, after: Any) -> list[dict[str, Any]]:
    """Return the classes that are likely with or without the interventions, the likeliest before first."""
    best = [np.argsort(-np.nan_to_num(one[0], nan=-1.0), kind="stable")[:_SHOWN] for one in (before, after)]
    chosen = list(dict.fromkeys([*map(int, best[0]), *map(int, best[1][:3])]))
    names = exploration.names or {}
    return [
        {
            "index": index,
            "name": names.get(index, str(index)),
            "before": float(before[0][index]),
            "after": _finite(after[0][index]),
            "logit_before": float(before[1][index]),
            "logit_after": _finite(after[1][index]),
        }
        for index in chosen
    ]


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


def _knock_outs(exploration: Exploration, question: Question) -> Stream:
    sample = _sample(exploration, question, "sample")
    node = exploration.resolve(params.name(question.p, "node"))
    target = params.integer(question.p, "target", 0, 2**31, default=None)
    value = params.choice(question.p, "value", ("zero", "mean"))
    heads = question.p.get("heads") is True
    stream = exploration.engine.stream_knock_outs(
        _inputs(exploration, sample), node, target=target, value=value, heads=heads
    )
    return _ranked((yield from growing(stream, question.token, _ranked)))


def _ranked(found: KnockOuts) -> Reply:
    order = found.effects.argsort(descending=True, stable=True)
    known = len(order)
    # The parts of an answer have one shape: a place that is not filled yet has the channel -1.
    channels = np.full(found.total, -1, np.int32)
    channels[:known] = found.channels[order].numpy()
    arrays: dict[str, NDArray[Any]] = {"channels": channels}
    for name, values in (("effects", found.effects), ("probabilities", found.probabilities)):
        if values is not None:
            arrays[name] = np.zeros(found.total, np.float32)
            arrays[name][:known] = values[order].numpy()
    meta = {
        "layer": found.layer,
        "target": found.target[0] if isinstance(found.target, list) else found.target,
        "baseline": found.baseline,
        "progress": found.progress,
        "seconds": found.seconds,
    }
    return Reply(arrays, meta, epoch=found.epoch)


def _patch_effects(exploration: Exploration, question: Question) -> Stream:
    each = params.choice(question.p, "each", EACH)
    corrupted = _inputs(exploration, _sample(exploration, question, "sample"))
    clean = _inputs(exploration, _sample(exploration, question, "source"))
    stream = exploration.engine.stream_patch_effects(clean, corrupted, each=each)
    return _mapped((yield from growing(stream, question.token, _mapped)))


def _mapped(found: PatchEffects) -> Reply:
    meta = {
        "layers": [layer.partition("#")[0] for layer in found.layers],
        "shapes": [list(found.effects[layer].shape) for layer in found.layers],
        "each": found.each,
        "clean": found.clean,
        "corrupted": found.corrupted,
        "target": list(found.target) if isinstance(found.target, tuple) else [found.target],
        "progress": found.progress,
        "seconds": found.seconds,
    }
    return Reply({"effects": found.matrix().numpy()}, meta, epoch=found.epoch)


def _sample(exploration: Exploration, p: Any, name: str) -> int:
    given = p if isinstance(p, dict) else p.p
    return params.integer(given, name, 0, exploration.batch.total, default=exploration.sample)


def _inputs(exploration: Exploration, sample: int) -> Any:
    args, kwargs = exploration.batch.sample(sample)
    return kwargs or args


INTERVENING: Mapping[str, Any] = {
    "intervene": _intervene,
    "knock_outs": _knock_outs,
    "patch_effects": _patch_effects,
}
