"""Whether the map lies where the object is; a good network may also look elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  its name everywhere

from nnviz_widget.engine.metrics.case import Reading
from nnviz_widget.engine.metrics.registry import metric
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from nnviz_widget.engine.metrics.case import Case

__all__: list[str] = []


@metric(
    "pointing_game",
    better="higher",
    values="0 to 1",
    paper="Zhang et al. 2016, arXiv:1608.00507",
    needs_mask=True,
)
def pointing_game(case: Case, *, tolerance: float = 0) -> Reading:
    """Look at the strongest position, and see whether it lies on the object.

    1 where the maximum of the map lies on the mask, or within the tolerance of it, else 0; over samples the
    share of hits (Zhang et al. 2016). Of several maxima, the share that hits.

    Options
    -------
    tolerance : float
        Distance in pixels that still counts; 15 in the paper, on photographs.
    """
    if tolerance < 0:
        raise InputError(f"tolerance={tolerance!r} is a distance in pixels, from 0.")
    importance, mask = _on_mask(case)
    found = mask.any(1)
    if tolerance:
        mask = _grown(case, mask, tolerance)
    top = importance == importance.amax(1, keepdim=True)
    hits = (top & mask).sum(1) / top.sum(1).clamp(min=1)
    return Reading(torch.where(found, hits.to(importance.dtype), torch.nan))


@metric(
    "mass_accuracy",
    better="higher",
    values="0 to 1",
    paper="Arras et al. 2020, arXiv:2003.07258",
    needs_mask=True,
)
def mass_accuracy(case: Case) -> Reading:
    """Add up the map, and take the share that lies on the object.

    ``sum of R_i on the mask / sum of all R_i``, with the positive part of the map R (Arras et al. 2020). A
    map of random numbers has the share of the picture that the object covers.
    """
    importance, mask = _on_mask(case)
    positive = importance.clamp(min=0)
    total = positive.sum(1)
    share = (positive * mask).sum(1) / total.clamp(min=1e-30)
    return Reading(torch.where(mask.any(1) & (total > 0), share, torch.nan))


@metric(
    "rank_accuracy",
    better="higher",
    values="0 to 1",
    paper="Arras et al. 2020, arXiv:2003.07258",
    needs_mask=True,
)
def rank_accuracy(case: Case) -> Reading:
    """Take as many of the strongest positions as the object has, and the share of them that lies on it.

    ``|top K and mask| / K``, with K the size of the mask (Arras et al. 2020).
    """
    importance, mask = _on_mask(case)
    ranks = case.ranks[:, : importance.shape[1]]
    if len(case.positions.counts) > 1:  # places among those of the first input alone
        ranks = ranks.argsort(1).argsort(1)
    size = mask.sum(1)
    hits = ((ranks < size[:, None]) & mask).sum(1) / size.clamp(min=1)
    return Reading(torch.where(size > 0, hits.to(importance.dtype), torch.nan))


def _on_mask(case: Case) -> tuple[Tensor, Tensor]:
    """Return the map and the mask of the first input, ``[N, H * W]`` each."""
    assert case.mask is not None
    importance = case.importance[:, : case.positions.counts[0]]
    return importance, case.mask.to(importance.device).flatten(1)


def _grown(case: Case, mask: Tensor, tolerance: float) -> Tensor:
    """Return the mask with everything that is at most so far from it."""
    shape = case.positions.shapes[0]
    if len(shape) != 2:
        raise InputError("tolerance is a distance between pixels, and the input is no image.")
    reach = int(tolerance)
    steps = torch.arange(-reach, reach + 1, device=mask.device)
    disc = (steps[:, None] ** 2 + steps**2 <= tolerance**2).float()
    grown = F.conv2d(mask.reshape(-1, 1, *shape).float(), disc[None, None], padding=reach)
    return (grown > 0.5).flatten(1)
