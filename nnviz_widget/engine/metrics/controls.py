"""The two maps that every table holds: one of random numbers, and one that says "look at the middle".

They know nothing of the model. A metric on which they do well says little about the maps beside them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from nnviz_widget.engine.metrics.maps import Positions

__all__ = ["CONTROLS"]


def _random(positions: Positions, like: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
    """Return uniform random numbers from 0 to 1 for each position of each sample."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(like[0].shape[0], positions.total, generator=generator)
    return _laid(positions, like, drawn)


def _center(positions: Positions, like: tuple[Tensor, ...], _: int = 0) -> tuple[Tensor, ...]:
    """Return a map that falls from 1 in the middle to 0 in the corners, the same for every sample."""
    parts = []
    for shape in positions.shapes:
        axes = [torch.linspace(-1, 1, side) if side > 1 else torch.zeros(1) for side in shape]
        grid = torch.meshgrid(*axes, indexing="ij")
        distance = torch.stack(grid).square().sum(0).sqrt() / max(1, len(shape)) ** 0.5
        parts.append((1 - distance).flatten())
    return _laid(positions, like, torch.cat(parts).expand(like[0].shape[0], -1))


def _laid(positions: Positions, like: tuple[Tensor, ...], numbers: Tensor) -> tuple[Tensor, ...]:
    laid = positions.spread(numbers)
    dtypes = (torch.float64 if x.dtype == torch.float64 else torch.float32 for x in like)
    return tuple(part.to(x.device, dtype) for part, x, dtype in zip(laid, like, dtypes, strict=True))


#: By the names of their rows.
CONTROLS: dict[str, Callable[[Positions, tuple[Tensor, ...], int], tuple[Tensor, ...]]] = {
    "random": _random,
    "center": _center,
}
