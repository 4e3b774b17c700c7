"""What the engine returned, for people: predictions, a gradient as two maps of bytes, another path in words.

Plain functions. They ask the engine nothing and know neither the wire nor the widget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nnviz_widget.engine.trace import Trace

__all__ = [
    "GradientMaps",
    "class_scores",
    "describe_shapes",
    "find_logits",
    "gradient_maps",
    "next_token",
    "path_change",
    "predictions",
]

SHOWN_CLASSES = 10


def find_logits(output: Any) -> tuple[str, Tensor] | None:
    """Return where the scores of the classes are in a model's output, and the scores ``[1, K]``, if anywhere.

    Parameters
    ----------
    output : object
        What the model returned: a tensor, or a mapping (or an object of transformers) with ``logits``.

    Returns
    -------
    key, scores : str, Tensor
        The key is empty when the output itself is the tensor.
    """
    key, scores = "", output
    if isinstance(output, Mapping) or hasattr(output, "logits"):
        key = "logits"
        scores = output.get(key) if isinstance(output, Mapping) else output.logits
    if (
        isinstance(scores, Tensor)
        and scores.dim() == 2
        and scores.shape[0] == 1
        and scores.shape[1] > 1
        and scores.is_floating_point()
    ):
        return key, scores
    return None


def next_token(output: Any, tokens: Tensor) -> Tensor | None:
    """Return the scores ``[1, K]`` of what comes after the last token; None of what is no language model.

    Parameters
    ----------
    output : object
        What the model returned, as for `find_logits`.
    tokens : Tensor
        The input of one sample, ``[1, T]`` whole numbers in a language model.
    """
    scores = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    read = not tokens.is_floating_point() and tokens.dim() == 2
    if not read or not isinstance(scores, Tensor) or scores.dim() != 3 or not scores.is_floating_point():
        return None
    return scores[:, -1] if scores.shape[:2] == tokens.shape and scores.shape[2] > 1 else None


def class_scores(scores: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return probabilities and logits ``[K]`` of ``scores [1, K]``; what sums to one already stays."""
    logits = scores[0].detach().double().cpu()
    is_probability = bool((logits >= 0).all()) and abs(float(logits.sum()) - 1) < 1e-3
    probabilities = logits if is_probability else torch.softmax(logits, 0)
    return probabilities.numpy(), logits.numpy()


def predictions(output: Any, names: Mapping[int, str] | None, target: int | None) -> dict[str, Any]:
    """Describe a model's output for one sample.

    Parameters
    ----------
    output : object
        What the model returned.
    names : mapping, optional
        Class index -> name.
    target : int, optional
        The true class.

    Returns
    -------
    predictions : dict
        JSON: the most probable classes (and the true one, wherever it stands), or the shapes of the
        outputs.
    """
    found = find_logits(output)
    if found is None or found[1].is_meta:  # shapes without values
        return {"task": "other", "classes": [], "shapes": describe_shapes(output)}
    probabilities, logits = class_scores(found[1])

    def entry(index: int) -> dict[str, Any]:
        scored: dict[str, Any] = {
            "index": index,
            "name": (names or {}).get(index, str(index)),
            "prob": float(probabilities[index]),
            "logit": float(logits[index]),
        }
        return scored | ({"true": index == target} if target is not None else {})

    # NaN last: a class without a number is not the best one.
    order = np.argsort(-np.nan_to_num(probabilities, nan=-1.0), kind="stable")
    chosen = [int(index) for index in order[:SHOWN_CLASSES]]
    described: dict[str, Any] = {"task": "classification", "classes": [entry(index) for index in chosen]}
    if target is not None and 0 <= target < len(logits):
        described["true"] = entry(target)
    return described


def describe_shapes(output: Any, name: str = "output") -> list[str]:
    """List the tensors in an output as ``name: 1×10``, at most twenty."""
    lines: list[str] = []
    pending: list[tuple[str, Any]] = [(name, output)]
    while pending and len(lines) < 20:
        label, value = pending.pop(0)
        if isinstance(value, Tensor):
            lines.append(f"{label}: {'×'.join(map(str, value.shape)) or 'scalar'}")
        elif isinstance(value, Mapping):
            pending.extend((f"{label}[{key!r}]", child) for key, child in value.items())
        elif isinstance(value, (list, tuple)):
            pending.extend((f"{label}[{index}]", child) for index, child in enumerate(value))
    return lines


def path_change(trace: Trace, before: Trace | None, sample: int | None) -> dict[str, Any]:
    """Say that a run took another path than the one that it replaces on the screen, and what is new on it.

    Parameters
    ----------
    trace, before : Trace
        The new run and the one before it, if any.
    sample : int, optional
        Which sample the new run is of, where that is another one.

    Returns
    -------
    change : dict
        JSON: empty for the same path; else ``change`` with words, the ids of the nodes that are new, and the
        one to look at first.
    """
    if before is None or not trace.kind == before.kind == "run":
        return {}
    found = trace.graph.diff(before.graph)
    if found.same_structure:
        return {}
    who = "The same sample now" if sample is None else f"Sample {sample}"
    decisions = [parting.node for parting in found.partings]
    first = [*found.added, *decisions, *found.rewired][:1]
    # The sentence goes on where the title ends: "took another path", "at net.py:12 (...): 3 operations new".
    words = str(found).removeprefix("another path")
    return {
        "change": {
            "title": f"{who} took another path{':' if words.startswith(':') else ''}",
            "message": f"{words.lstrip(': ')}.",
            "added": list(found.added),
            "first": first[0] if first else None,
        }
    }


@dataclass(frozen=True)
class GradientMaps:
    """A gradient on the input as bytes, cropped to where it is not zero.

    Attributes
    ----------
    signed : array of uint8 ``[h, w]``
        Sum over the channels; 128 is zero, 1 is ``-scale``, 255 is ``+scale``.
    magnitude : array of uint8 ``[h, w]``
        Largest absolute value over the channels; 255 is ``magnitude_scale``.
    box : tuple of int
        ``(y0, x0, y1, x1)``, half-open: the part of the input that the maps cover.
    scale, magnitude_scale : float
    """

    signed: NDArray[np.uint8]
    magnitude: NDArray[np.uint8]
    box: tuple[int, int, int, int]
    scale: float
    magnitude_scale: float


def gradient_maps(gradient: Tensor) -> GradientMaps:
    """Reduce one sample's gradient to two maps, on its device.

    Parameters
    ----------
    gradient : Tensor ``[C, H, W]``, ``[H, W]`` or ``[D]``
        Of anything larger the middle of the axes after the first is taken.
    """
    values = gradient.detach().float().nan_to_num(0.0, 0.0, 0.0)
    while values.dim() > 3:
        values = values[:, values.shape[1] // 2]
    if values.dim() < 2:
        values = values.reshape(1, -1)
    if values.dim() == 2:
        values = values[None]
    signed, magnitude = values.sum(0), values.abs().amax(0)
    rows, columns = magnitude.amax(1).nonzero(), magnitude.amax(0).nonzero()
    box = (0, 0, 0, 0)
    if len(rows):
        box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    y0, x0, y1, x1 = box
    signed, magnitude = signed[y0:y1, x0:x1], magnitude[y0:y1, x0:x1]
    scale = float(signed.abs().max()) if signed.numel() else 0.0
    top = float(magnitude.max()) if magnitude.numel() else 0.0
    return GradientMaps(
        signed=(signed / (scale or 1.0) * 127 + 128).round().byte().cpu().numpy(),
        magnitude=(magnitude / (top or 1.0) * 255).round().byte().cpu().numpy(),
        box=box,
        scale=scale,
        magnitude_scale=top,
    )
