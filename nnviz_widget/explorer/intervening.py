"""Interventions for the page: predictions with and without them, knock-outs, patches from another sample.

What an operation is, and when it runs, is told in ``operations``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from nnviz_widget.engine.patching import EACH
from nnviz_widget.explorer import params
from nnviz_widget.explorer.changing import changed_of, in_force, inputs_of, sample_of
from nnviz_widget.explorer.replies import Reply, growing, saved
from nnviz_widget.explorer.results import class_scores, find_logits, next_token, predictions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from nnviz_widget.engine.knock_outs import KnockOuts
    from nnviz_widget.engine.patching import PatchEffects
    from nnviz_widget.explorer.exploration import Exploration
    from nnviz_widget.explorer.replies import Question, Stream

__all__ = ["INTERVENING"]

_SHOWN = 8  # classes


def _intervene(exploration: Exploration, question: Question) -> Reply:
    """Answer with the predictions under the interventions that are switched on, beside those without."""
    started = time.perf_counter()
    sample = sample_of(exploration, question.p)
    given = changed_of(question.p, "interventions")
    engine, inputs = exploration.engine, inputs_of(exploration, sample)
    with in_force(exploration, given) as made:
        on = any(one.get("on") is True and not error for one, error in zip(given, made.errors, strict=True))
        after = engine.output(inputs) if on else None
    before = _known_output(exploration, sample)
    if before is None:
        before = engine.output(inputs)
    after = before if after is None else after
    return Reply(
        meta={
            "sample": sample,
            **_compared(exploration, before, after, exploration.batch.row(sample)),
            "predictions": predictions(after, exploration.names, exploration.target_of(sample)),
            "calls": made.calls,
            "errors": made.errors,
            "ms": round((time.perf_counter() - started) * 1e3, 2),
        }
    )


def _known_output(exploration: Exploration, sample: int) -> Any:
    """Return what the run on the screen gave, if it is that of the sample and of the weights as they are."""
    trace = exploration.current
    fresh = trace is not None and sample == exploration.sample and trace.epoch == exploration.engine.epoch
    return trace.output if trace is not None and fresh and trace.kind == "run" else None


def _compared(exploration: Exploration, before: Any, after: Any, row: Tensor) -> dict[str, Any]:
    """Return the classes that are likely with or without the interventions, the likeliest before first.

    Of a language model they are what comes after the last token, whose place is told as ``token``. None where
    the output has no class scores.
    """
    found = [find_logits(output) for output in (before, after)]
    scores = [one[1] for one in found if one is not None]
    told: dict[str, Any] = {}
    if not scores:
        scores = [one for output in (before, after) if (one := next_token(output, row)) is not None]
        told = {"token": row.shape[1] - 1} if scores else {}
    if len(scores) < 2:
        return {"classes": []}
    scored = [class_scores(one) for one in scores]
    (shares, logits), (new_shares, new_logits) = scored
    best = [np.argsort(-np.nan_to_num(one, nan=-1.0), kind="stable")[:_SHOWN] for one in (shares, new_shares)]
    chosen = list(dict.fromkeys([*map(int, best[0]), *map(int, best[1][:3])]))
    names = exploration.names or {}
    classes = [
        {
            "index": index,
            "name": names.get(index, str(index)),
            "before": float(shares[index]),
            "after": _finite(new_shares[index]),
            "logit_before": float(logits[index]),
            "logit_after": _finite(new_logits[index]),
        }
        for index in chosen
    ]
    return told | {"classes": classes}


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


def _knock_outs(exploration: Exploration, question: Question) -> Stream:
    sample = sample_of(exploration, question.p)
    node = exploration.resolve(params.name(question.p, "node"))
    target = params.integer(question.p, "target", 0, 2**31, default=None)
    value = params.choice(question.p, "value", ("zero", "mean"))
    heads = question.p.get("heads") is True
    stream = exploration.engine.stream_knock_outs(
        inputs_of(exploration, sample), node, target=target, value=value, heads=heads
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
        "recomputed": saved(found.recomputed),
    }
    return Reply(arrays, meta, epoch=found.epoch)


def _patch_effects(exploration: Exploration, question: Question) -> Stream:
    each = params.choice(question.p, "each", EACH)
    corrupted = inputs_of(exploration, sample_of(exploration, question.p))
    clean = inputs_of(exploration, sample_of(exploration, question.p, "source"))
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
        "recomputed": saved(found.recomputed),
    }
    return Reply({"effects": found.matrix().numpy()}, meta, epoch=found.epoch)


INTERVENING: Mapping[str, Any] = {
    "intervene": _intervene,
    "knock_outs": _knock_outs,
    "patch_effects": _patch_effects,
}
