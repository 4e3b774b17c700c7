"""Operations of hands on the input and the output: influence, all logits, lens, probes, counterfactuals.

What an operation is, and when it runs, is told in ``operations``; what is computed, in the engine.
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nnviz_widget.engine.counterfactual import METHODS, NORMS
from nnviz_widget.engine.tiles import planes, tiles
from nnviz_widget.errors import InputError
from nnviz_widget.explorer import params
from nnviz_widget.explorer.changing import changed_of, run_of, sample_of
from nnviz_widget.explorer.pictures import draw_sample
from nnviz_widget.explorer.replies import Reply, growing
from nnviz_widget.explorer.results import class_scores, find_logits, next_token

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from nnviz_widget.engine.counterfactual import Counterfactual
    from nnviz_widget.engine.linear_probes import LinearProbes
    from nnviz_widget.engine.trace import Trace
    from nnviz_widget.explorer.exploration import Exploration
    from nnviz_widget.explorer.replies import Question, Stream

__all__ = ["PROBING", "influenced"]

_TOP = 5
_SLOW = "torch._dynamo"


# ---- what an input pixel does ------------------------------------------------------------------------------


def _foresee(_: Exploration, __: Question) -> Reply:
    """Load what the first forward-mode derivative of a normalisation imports, on a thread of its own.

    It takes torch most of a second, which the first click on a pixel would wait for.
    """
    if _SLOW not in sys.modules:
        threading.Thread(target=importlib.import_module, args=(_SLOW,), daemon=True).start()
    return Reply()


def _influence(exploration: Exploration, question: Question) -> Reply:
    """Answer with how strongly every node answers to a pixel, and with the maps of the open layer."""
    started = time.perf_counter()
    trace = run_of(exploration, question.p)
    place, change = _pixel(exploration, question, sample_of(exploration, question.p))
    with exploration.altered.again(exploration, changed_of(question.p)):
        found = exploration.engine.influence(trace, place, change=change)
    exploration.influenced = found
    names = [*(node.id for node in trace.graph.nodes), *(group.id for group in trace.graph.groups)]
    strength = [_answer(trace, name, found.derivatives) for name in names]
    arrays: dict[str, NDArray[Any]] = {"strength": np.asarray(strength, np.float32)}
    meta: dict[str, Any] = {"how": found.how, "why": found.why, "change": change}
    logits = _measured_logits(exploration, trace, found.measured)
    meta |= {"classes": logits}
    layer = question.p.get("layer")
    if layer is not None:
        node = exploration.resolve(params.name(question.p, "layer"))
        values = found.derivatives.get(node)
        if values is not None:
            patches = any(op.name == "conv2d" for op in trace.ops)
            drawn = tiles(values, axis=trace.channel_axis(node), patches=patches)
            arrays |= {
                "maps": drawn.values,
                "low": drawn.low,
                "high": drawn.high,
                "reach": drawn.strength,
            }
            meta["maps"] = {
                "node": node,
                "kind": drawn.kind,
                "shape": list(drawn.shape),
                "scale": drawn.scale,
            }
            if drawn.grid is not None:
                meta["maps"]["grid"] = dict(zip(("rows", "cols", "skip"), drawn.grid, strict=True))
    meta["ms"] = round((time.perf_counter() - started) * 1e3, 2)
    return Reply(arrays, meta, epoch=found.epoch)


def influenced(exploration: Exploration, trace: Trace, node: str, channel: int) -> NDArray[np.float32]:
    """Return one channel of what the pixel that was asked about last does to a layer, ``[H, W]``."""
    kept = exploration.influenced
    values = kept.derivatives.get(node) if kept is not None else None
    if values is None:
        raise InputError("This influence is no longer kept.", hint="Click the pixel again.")
    _, stack = planes(values, axis=trace.channel_axis(node))
    if channel >= len(stack):
        raise InputError(f"channel {channel} does not exist: {node!r} has {len(stack)}, counting from 0.")
    found: NDArray[np.float32] = stack[channel].float().cpu().numpy()
    return found


def _pixel(exploration: Exploration, question: Question, sample: int) -> tuple[tuple[int, ...], float]:
    """Return the place in the input, and the change that brings it to the other end of its range."""
    row = exploration.batch.row(sample)
    height, width = (row.shape[-2], row.shape[-1]) if row.dim() > 2 else (1, row.shape[-1])
    y = params.integer(question.p, "y", 0, int(height))
    x = params.integer(question.p, "x", 0, int(width))
    place = (y, x) if row.dim() > 2 else (x,)
    now = float(row[(0, ..., *place)].double().mean())
    low, high = float(row.min()), float(row.max())
    return place, high - now if now < (low + high) / 2 else low - now


def _answer(trace: Trace, name: str, derivatives: Mapping[str, Tensor]) -> float:
    """Return how much of a layer's activation moves: the length of its derivative as a share of its own."""
    derivative = derivatives.get(name)
    if derivative is None or not trace.holds(name):
        return float("nan")
    own = float(torch.linalg.vector_norm(trace.activation(name).double()))
    moved = float(torch.linalg.vector_norm(derivative.double()))
    return moved / own if own > 0 else (0.0 if moved == 0 else float("nan"))


def _measured_logits(
    exploration: Exploration, trace: Trace, measured: Mapping[str, Tensor]
) -> list[dict[str, Any]]:
    """Return the classes that move most, with how their logits change."""
    found = find_logits(trace.output)
    moved = measured.get(exploration.resolve("output")) if found is not None else None
    if moved is None or found is None or moved.shape != found[1].shape:
        return []
    order = moved[0].abs().argsort(descending=True)[:_TOP].tolist()
    names = exploration.names or {}
    return [{"index": i, "name": names.get(i, str(i)), "by": float(moved[0, i])} for i in order]


# ---- the output --------------------------------------------------------------------------------------------


def _logits(exploration: Exploration, question: Question) -> Reply:
    """Answer with all logits of the run on the screen, of a language model those after the last token."""
    trace = run_of(exploration, question.p)
    found = find_logits(trace.output)
    tokens = exploration.batch.row(exploration.sample)
    scores = found[1] if found is not None else next_token(trace.output, tokens)
    if scores is None:
        raise InputError("The model's output is no row of class scores.")
    probabilities, logits = class_scores(scores)
    names = exploration.names or {}
    meta: dict[str, Any] = {
        "names": [names.get(i, str(i)) for i in range(len(logits))],
        "probabilities": bool(np.array_equal(probabilities, logits)),
    }
    if found is None:
        meta["token"] = tokens.shape[1] - 1
    return Reply({"logits": logits.astype(np.float32)}, meta)


def _lens(exploration: Exploration, question: Question) -> Reply:
    """Answer with the most probable classes after each block, at the last token where there are several."""
    trace = run_of(exploration, question.p)
    with exploration.altered.again(exploration, changed_of(question.p)):
        found = exploration.engine.logit_lens(trace)
    logits = found.logits[:, 0]
    token = int(logits.shape[1]) - 1 if logits.dim() == 3 else None
    if token is not None:
        token = params.integer(question.p, "token", 0, int(logits.shape[1]), default=token)
        logits = logits[:, token]
    count = int(min(_TOP, logits.shape[-1]))
    probabilities = torch.softmax(logits.float(), -1)
    values, indices = probabilities.topk(count, -1)
    # How what the model says in the end comes up.
    final = int(logits[-1].argmax())
    names = exploration.names or {}
    meta = {
        "layers": list(found.layers),
        "token": token,
        "tokens": int(found.logits.shape[2]) if found.logits.dim() == 4 else None,
        "final": {"index": final, "name": names.get(final, str(final))},
        "names": [[names.get(i, str(i)) for i in row] for row in indices.tolist()],
    }
    arrays = {
        "indices": indices.to(torch.int32).numpy(),
        "probabilities": values.numpy(),
        "final": probabilities[:, final].numpy(),
    }
    return Reply(arrays, meta, epoch=found.epoch)


def _probes(exploration: Exploration, question: Question) -> Stream:
    """Stream how well linear classifiers read the true classes from each stage, of all samples given."""
    if exploration.targets is None:
        raise InputError(
            "Linear probes need the true class of each sample.", hint="Give them: explore(..., target=...)."
        )
    args, kwargs = exploration.batch.whole()
    with exploration.altered.again(exploration, changed_of(question.p)):
        stream = exploration.engine.stream_linear_probes(kwargs or args, exploration.targets)
    return _told((yield from growing(stream, question.token, _told)))


def _told(found: LinearProbes) -> Reply:
    arrays = {name: getattr(found, name).float().numpy() for name in ("accuracy", "stderr", "fitted")}
    meta = {
        "layers": found.layers,
        "features": found.features,
        "chance": found.chance,
        "samples": found.samples,
        "classes": found.classes,
        "folds": found.folds,
        "progress": found.progress,
        "seconds": found.seconds,
    }
    return Reply(arrays, meta, epoch=found.epoch)


def _counterfactual(exploration: Exploration, question: Question) -> Stream:
    """Stream a changed picture and what was added to it, magnified by the page."""
    p = question.p
    sample = sample_of(exploration, p)
    exploration.trace_of(sample)
    row = exploration.batch.row(sample)
    target = params.integer(p, "target", 0, 2**31, default=None)
    budget = p.get("budget")
    if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not 0 < budget <= 1e3:
        raise InputError("'budget' must be a number above 0.")
    norm = params.choice(p, "norm", NORMS)
    args, kwargs = exploration.batch.sample(sample)
    options = {
        "method": params.choice(p, "method", METHODS),
        "norm": norm,
        "steps": params.integer(p, "steps", 1, 1001, default=40),
        **_range(exploration, row, float(budget)),
    }
    with exploration.altered.again(exploration, changed_of(p)):
        stream = exploration.engine.stream_counterfactual(kwargs or args, target, **options)
    found = yield from growing(stream, question.token, lambda part: _changed(exploration, row, part))
    return _changed(exploration, row, found)


def _range(exploration: Exploration, row: Tensor, budget: float) -> dict[str, Any]:
    """Return a budget in levels of the picture, and the ends of its range, in units of the input."""
    affine = exploration.affine(row) if row.dim() == 4 and row.shape[1] in (1, 3) else None
    if affine is None:
        span = float(row.max() - row.min()) or 1.0
        return {"epsilon": budget * span}
    scale = affine.scale.abs()
    ends = torch.stack(((0 - affine.shift) / affine.scale, (1 - affine.shift) / affine.scale))
    # What lies outside of the picture's range already stays where it is.
    own = row[0].double().cpu().flatten(1)
    return {
        "epsilon": (budget / scale).to(row.dtype),
        "lower": torch.minimum(ends.amin(0), own.amin(1)).to(row.dtype),
        "upper": torch.maximum(ends.amax(0), own.amax(1)).to(row.dtype),
    }


def _changed(exploration: Exploration, row: Tensor, found: Counterfactual) -> Reply:
    values = found.values.detach().cpu().to(row.dtype)
    perturbation = found.perturbation[0].detach().double().cpu()
    picture = draw_sample(values, 0, exploration.denormalize).rgb
    affine = exploration.affine(row) if row.dim() == 4 and row.shape[1] in (1, 3) else None
    if affine is not None:
        perturbation = perturbation * affine.scale[:, None, None]
    elif row.dim() == 4:
        perturbation = perturbation / (float(row.max() - row.min()) or 1.0)
    shown = perturbation if perturbation.dim() == 3 else perturbation.reshape(1, 1, -1)
    shown = shown if shown.shape[0] == 3 else shown.mean(0, keepdim=True).expand(3, -1, -1)
    probabilities, _ = class_scores(found.scores.detach().cpu())
    order = np.argsort(-probabilities)[:_TOP]
    names = exploration.names or {}
    meta = {
        "step": found.step,
        "steps": found.steps,
        "success": bool(found.success[0]),
        "predicted": int(found.predicted[0]),
        "linf": float(perturbation.abs().max()),
        "l2": float(perturbation.norm()),
        "classes": [
            {"index": int(i), "name": names.get(int(i), str(int(i))), "prob": float(probabilities[i])}
            for i in order
        ],
        "seconds": found.seconds,
    }
    difference = np.ascontiguousarray(shown.permute(1, 2, 0).float().numpy())
    return Reply({"rgb": picture, "difference": difference}, meta, epoch=found.epoch)


PROBING: Mapping[str, Any] = {
    "foresee": _foresee,
    "influence": _influence,
    "logits": _logits,
    "lens": _lens,
    "probes": _probes,
    "counterfactual": _counterfactual,
}
