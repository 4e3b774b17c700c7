"""Moves, turns and scales pictures a little, differently at every step: what survives that is no noise."""

from __future__ import annotations

from dataclasses import dataclass
from math import radians

import torch
import torch.nn.functional as F  # noqa: N812  its name everywhere
from torch import Tensor

from nnviz_widget.errors import InputError

__all__ = ["Shaking"]


@dataclass(frozen=True)
class Shaking:
    """How far pictures are shaken.

    Attributes
    ----------
    jitter : float
        Largest move along each axis, in pixels.
    scale : float
        Largest change of the size: 0.1 is from 0.9 to 1.1.
    rotate : float
        Largest angle, in degrees.
    """

    jitter: float
    scale: float
    rotate: float

    def __post_init__(self) -> None:
        for name in ("jitter", "scale", "rotate"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or value < 0 or (name == "scale" and value >= 1):
                raise InputError(
                    f"{name}={value!r} must be a number from 0{', below 1' * (name == 'scale')}."
                )

    def __call__(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Return the pictures ``[B, C, H, W]``, each shaken on its own; drawn on the CPU."""
        if not (self.jitter or self.scale or self.rotate):
            return pictures
        count, _, height, width = pictures.shape
        drawn = 2 * torch.rand(4, count, generator=generator) - 1
        angle = radians(self.rotate) * drawn[0]
        size = 1 / (1 + self.scale * drawn[1])
        cos, sin = angle.cos() * size, angle.sin() * size
        # Rows of the map from the new positions to the old ones, in units of half the sides.
        right = torch.stack([cos, -sin * height / width, 2 * self.jitter * drawn[2] / width], 1)
        down = torch.stack([sin * width / height, cos, 2 * self.jitter * drawn[3] / height], 1)
        ways = torch.stack([right, down], 1).to(pictures.device, pictures.dtype)
        grid = F.affine_grid(ways, list(pictures.shape), align_corners=False)
        return F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
