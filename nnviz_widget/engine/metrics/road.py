"""ROAD: remove positions so that what fills the holes does not tell the network where they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  its name everywhere

from nnviz_widget.engine.metrics.case import Reading, answers
from nnviz_widget.engine.metrics.fidelity import range_of
from nnviz_widget.engine.metrics.registry import metric
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from torch import Tensor

    from nnviz_widget.engine.metrics.case import Case

__all__ = ["filled"]

_TOLERANCE = 1e-5
_ROUNDS = 500


@metric(
    "road",
    better="higher",
    values="-1 to 1 for probabilities, else in units of the score",
    paper="Rong et al. 2022, arXiv:2202.00449",
)
def road(
    case: Case,
    *,
    shares: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    noise: float = 0.01,
    output: str = "auto",
    batch_size: Any = "auto",
) -> Generator[float, None, Reading]:
    """Remove positions, fill the holes from their surroundings, and see whether the map's order matters.

    The mean score with the least important positions removed first, minus that with the most important ones
    removed first, over the shares removed (Rong et al. 2022). Removed pixels become weighted means of their
    neighbours (1/6 beside, 1/12 across), solved for all of them at once, and a little noise. The row
    ``random`` has about 0.

    Options
    -------
    shares : sequence of float
        Shares of the positions that are removed, between 0 and 1.
    noise : float
        Spread of the Gaussian noise on filled positions, as a share of the sample's own range.
    output, batch_size
        As for deletion.
    """
    if not shares or not all(0 < share < 1 for share in shares):
        raise InputError(f"shares={shares!r} must lie between 0 and 1: something must be left to fill from.")
    positions, inputs, ranks = case.positions, case.task.inputs, case.ranks
    if len(inputs) != 1 or not positions.spatial or len(positions.shapes[0]) > 2 or case.task.embedded:
        raise InputError(
            "road fills removed positions from their neighbours, and only images and series have any.",
            hint="deletion and pixel_flipping work with every input.",
        )
    x, total = inputs[0], positions.total
    limits = torch.tensor([round(total * share) for share in shares], device=ranks.device)
    spread = noise * range_of(x)
    backward = total - 1 - ranks

    def make(rows: Tensor, numbers: Tensor) -> list[Tensor]:
        least_first = numbers >= len(shares)
        order = torch.where(least_first[:, None], backward[rows], ranks[rows])
        removed = positions.spread(order < limits[numbers % len(shares)][:, None])[0].to(x.device)
        at = rows.to(x.device)
        return [_noisy(filled(x[at], removed), removed, spread[at], rows, case.seed)]

    y = yield from answers(case, 2 * len(shares), make, output=output, size=batch_size)
    most, least = y[:, : len(shares)], y[:, len(shares) :]
    x_axis = [float(share) for share in shares]
    curves = {"road, most important first": (x_axis, most), "road, least important first": (x_axis, least)}
    return Reading((least - most).mean(1), curves)


def filled(x: Tensor, removed: Tensor) -> Tensor:
    """Fill removed positions so that each is the weighted mean of its neighbours, known and filled alike.

    Parameters
    ----------
    x : Tensor
        ``[B, C, L]`` or ``[B, C, H, W]``.
    removed : Tensor
        ``[B, 1, ...]``, true where to fill; not everywhere.

    Returns
    -------
    Tensor
        Like `x`. The linear system (neighbours weigh 1/6 beside and 1/12 across, fewer at the edge) is
        symmetric, and solved by conjugate gradients for the whole batch at once.
    """
    kept = ~removed
    shape = (-1, 1, *x.shape[2:])
    known = (x * kept).reshape(shape).float()
    hole = removed.expand_as(x).reshape(shape).float()
    weight = _neighbours(torch.ones_like(known[:1]))
    mean = (known.flatten(1).sum(1) / (1 - hole).flatten(1).sum(1).clamp(min=1)).reshape(
        -1, *[1] * (x.dim() - 1)
    )

    def system(u: Tensor) -> Tensor:
        return hole * (weight * u - _neighbours(u))

    u = hole * mean
    rest = hole * _neighbours(known) - system(u)
    way, size = rest.clone(), _dot(rest, rest)
    enough = _TOLERANCE**2 * _dot(known, known).clamp(min=1e-30)
    for _ in range(_ROUNDS):
        if bool((size <= enough).all()):
            break
        along = system(way)
        step = size / _dot(way, along).clamp(min=1e-30)
        u, rest = u + step * way, rest - step * along
        before, size = size, _dot(rest, rest)
        way = rest + (size / before.clamp(min=1e-30)) * way
    return torch.where(removed, u.reshape(x.shape).to(x.dtype), x)


def _neighbours(u: Tensor) -> Tensor:
    """Return the weighted sum of the neighbours of each position; beyond the edge there are none."""
    if u.dim() == 3:
        kernel = u.new_tensor([0.5, 0.0, 0.5])[None, None]
        return F.conv1d(u, kernel, padding=1)
    beside, across = 1 / 6, 1 / 12
    kernel = u.new_tensor([[across, beside, across], [beside, 0.0, beside], [across, beside, across]])
    return F.conv2d(u, kernel[None, None], padding=1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.dim() - 1))


def _noisy(x: Tensor, removed: Tensor, spread: Tensor, rows: Tensor, seed: int) -> Tensor:
    """Add noise to what was filled, the same for each sample whatever the chunk."""
    drawn = [
        torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(seed + 1_000_003 * (row + 1)))
        for row in rows.tolist()
    ]
    noise = torch.stack(drawn).to(x.device, x.dtype) * spread.reshape(-1, *[1] * (x.dim() - 1))
    return x + noise * removed
