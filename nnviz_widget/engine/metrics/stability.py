"""Whether the map stays the same when hardly anything changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nnviz_widget.engine.metrics.case import Reading, part_of
from nnviz_widget.engine.metrics.fidelity import range_of
from nnviz_widget.engine.metrics.registry import metric
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch import Tensor

    from nnviz_widget.engine.metrics.case import Case

__all__: list[str] = []


@metric("sensitivity_max", better="lower", values="0 and more", paper="Yeh et al. 2019, arXiv:1901.09392")
def sensitivity_max(
    case: Case, *, perturb_radius: float = 0.02, relative: bool = False, n_perturb_samples: int = 10
) -> Generator[float, None, Reading]:
    """Move the input a little, and see how far the map changes at most.

    ``max ||phi(x + d) - phi(x)|| / ||phi(x)||`` over uniform random d with ``|d_i| <= perturb_radius`` (Yeh
    et al. 2019), by Monte Carlo. The controls have 0: a map that ignores the input is perfectly stable, so
    this alone recommends nothing.

    Options
    -------
    perturb_radius : float
        Largest change of each value.
    relative : bool
        Whether the radius is a share of the sample's own range; else it is in units of the input.
    n_perturb_samples : int
        Random changes of each sample; the method runs once for each.
    """
    if type(n_perturb_samples) is not int or n_perturb_samples < 1:
        raise InputError(f"n_perturb_samples is a whole number from 1, not {n_perturb_samples!r}.")
    if perturb_radius < 0:
        raise InputError(f"perturb_radius={perturb_radius!r} must not be negative.")
    if case.explain is None:
        return Reading(
            torch.full((case.task.samples,), torch.nan), note=f"{case.name} cannot be asked again."
        )
    inputs = case.task.inputs
    reach = [
        perturb_radius
        * (range_of(x) if relative else torch.ones_like(range_of(x))).reshape(-1, *[1] * (x.dim() - 1))
        for x in inputs
    ]
    worst = torch.zeros(case.task.samples, dtype=case.values[0].dtype, device=case.values[0].device)
    size = _norm(case.values)
    for number in range(n_perturb_samples):
        moved = []
        for i, (x, radius) in enumerate(zip(inputs, reach, strict=True)):
            generator = torch.Generator().manual_seed(case.seed + 1_000_003 * (i + 1) + number)
            drawn = torch.rand(x.shape, generator=generator).to(x.device, x.dtype)
            moved.append(x + radius * (2 * drawn - 1))
        again = case.explain(case.task.again(moved))
        found = yield from part_of(again, number, n_perturb_samples)
        away = tuple(a.to(b) - b for a, b in zip(found, case.values, strict=True))
        worst = torch.maximum(worst, _norm(away) / size.clamp(min=1e-30))
    return Reading(worst)


def _norm(values: tuple[Tensor, ...]) -> Tensor:
    """Return the Euclidean length of all values of each sample, ``[N]``."""
    return torch.stack([value.flatten(1).square().sum(1) for value in values]).sum(0).sqrt()
