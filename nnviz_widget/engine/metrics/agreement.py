"""Whether the methods tell the same story."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nnviz_widget.engine.metrics.case import Reading
from nnviz_widget.engine.metrics.controls import CONTROLS
from nnviz_widget.engine.metrics.maps import spearman
from nnviz_widget.engine.metrics.registry import metric

if TYPE_CHECKING:
    from nnviz_widget.engine.metrics.case import Case

__all__: list[str] = []


@metric("agreement", better="", values="-1 to 1", paper="Krishna et al. 2022, arXiv:2202.01602")
def agreement(case: Case) -> Reading:
    """Compare the orders in which the methods put the positions.

    Spearman's rank correlation with the map of each other row (Krishna et al. 2022); the value is the mean
    over the other methods, controls left out. ``details["with"]`` has each of them. Methods that agree may
    all be wrong, and methods that ask different questions need not agree.
    """
    found = {
        name: spearman(case.importance, other.to(case.importance)) for name, other in case.others.items()
    }
    told = {name: rho.tolist() for name, rho in found.items()}
    methods = [rho for name, rho in found.items() if name not in CONTROLS]
    if not methods:
        return Reading(torch.full((case.task.samples,), torch.nan), details={"with": told})
    return Reading(torch.stack(methods).mean(0), details={"with": told})
