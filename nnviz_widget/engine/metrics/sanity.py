"""The verdict on one map from the cascade of random layers, in words for a student."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nnviz_widget.engine.metrics.evaluation import Evaluation

__all__ = ["METRIC", "Sanity", "sanity_of"]

METRIC = "parameter_randomisation"


@dataclass(frozen=True)
class Sanity:
    """Whether a map shows the network; prints as the reason in words.

    Attributes
    ----------
    passes : bool or None
        None where it could not be asked.
    correlation : float
        Between the map and those of networks that have forgotten more and more, the mean over the cascade and
        over the samples.
    final : float
        The same when every layer is random.
    threshold : float
        From this correlation on it fails.
    sign : str
        ``"absolute"`` or ``"signed"``: which map was compared.
    steps : list of dict
        For each step of the cascade the last ``layer`` made random, how many ``layers`` are, and the means of
        ``spearman_signed``, ``spearman_absolute`` and ``ssim`` (None where the map is no image).
    text : str
        The verdict in words.
    """

    passes: bool | None
    correlation: float
    final: float
    threshold: float
    sign: str
    steps: list[dict[str, Any]]
    text: str

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Sanity(passes={self.passes}, correlation={self.correlation:.2f}): {self.text}"


def sanity_of(table: Evaluation, name: str, threshold: float) -> Sanity:
    """Return the verdict on the row `name` of a table that has the metric of random layers."""
    told = table.details.get(name, {}).get(METRIC, {}).get("steps", [])
    steps = [
        {
            "layer": step["layer"],
            "layers": step["layers"],
            **{
                kind: None if step[kind] is None else float(np.mean(step[kind]))
                for kind in ("spearman_signed", "spearman_absolute", "ssim")
            },
        }
        for step in told
    ]
    values = table.readings[name][METRIC]
    correlation = float(np.mean(values)) if len(values) else float("nan")
    sign = table.signs[name]
    final = float(steps[-1][f"spearman_{sign}"]) if steps else float("nan")
    passes = None if isnan(correlation) else correlation < threshold
    return Sanity(passes, correlation, final, threshold, sign, steps, _words(passes, correlation, final))


def _words(passes: bool | None, correlation: float, final: float) -> str:
    if passes is None:
        return "This map came from elsewhere and cannot be asked of a network that has forgotten."
    seen = f"{correlation:.2f} on average and {final:.2f} when all of them are random"
    if passes:
        return (
            "The map depends on what the network has learned: while its layers are made random, one after "
            f"the other, it becomes another one (correlation {seen}; 1 is the same map)."
        )
    return (
        "The map hardly depends on what the network has learned: while its layers are made random, one after "
        f"the other, it stays much the same (correlation {seen}; 1 is the same map). It shows more of the "
        "picture than of the network."
    )
