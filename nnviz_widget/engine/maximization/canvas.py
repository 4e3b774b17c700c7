"""What is optimised, and the picture that it makes.

Optimising pixels themselves gives high-frequency noise that networks answer to and people see nothing in. In
the Fourier parametrisation every wave length has its own coefficients, with the weight that it has in natural
pictures; colours are likewise mixed from lightness and two contrasts (Olah et al. 2017,
https://distill.pub/2017/feature-visualization). A sigmoid keeps every value within the range of the model's
inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nnviz_widget.errors import InputError

__all__ = ["PARAMETRIZATIONS", "Canvas"]

PARAMETRIZATIONS = ("fourier", "pixel")
_FIRST_SPREAD, _MOST_NOISE = 0.01, 0.5
_EDGE = 0.01  # a given picture is kept so far from the ends of the range, where the sigmoid is flat
_CALM = 4.0  # by so much waves are scaled down, for the same learning rate to suit both parametrisations


class Canvas:
    """A batch of pictures that can be optimised.

    Parameters
    ----------
    shape : tuple of int
        ``(B, C, H, W)``.
    parametrization : str
        ``"fourier"`` or ``"pixel"``.
    low, high : Tensor
        Ends of the range of the model's inputs, ``[C]`` each; they also say where to compute.
    generator : torch.Generator
        On the CPU; draws the first picture.
    start : Tensor, optional
        The first picture, like the shape, in the range of the model's inputs.
    decorrelate : bool
        Mix colours from lightness and contrasts; only with three channels.
    decay : float
        How fast the weight of a wave falls with its frequency.

    Attributes
    ----------
    parameters : Tensor
        What to optimise, float32.
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        parametrization: str,
        *,
        low: Tensor,
        high: Tensor,
        generator: torch.Generator,
        start: Tensor | None = None,
        decorrelate: bool = True,
        decay: float = 1.0,
    ) -> None:
        if parametrization not in PARAMETRIZATIONS:
            raise InputError(
                f"parametrization={parametrization!r} is not known.",
                hint=f"Known are {', '.join(PARAMETRIZATIONS)}.",
            )
        self._shape, self._noise = shape, _FIRST_SPREAD
        self._low, self._reach = (x.float().reshape(1, -1, 1, 1) for x in (low, high - low))
        self._colours = _colours(low.device) if decorrelate and shape[1] == 3 else None
        self._weights = (
            _wave_weights(shape[2], shape[3], decay).to(low.device) if parametrization == "fourier" else None
        )
        if start is None:
            size = shape if self._weights is None else (*shape[:2], *self._weights.shape, 2)
            self.parameters = torch.randn(size, generator=generator).to(low.device) * _FIRST_SPREAD
        else:
            self.parameters = self._inverse(start.to(low.device).float())

    def picture(self, parameters: Tensor) -> Tensor:
        """Return the pictures with values between 0 and 1, ``[B, C, H, W]``."""
        field = parameters
        if self._weights is not None:
            waves = torch.view_as_complex(parameters.contiguous()) * (self._weights / _CALM)
            field = torch.fft.irfft2(waves, s=self._shape[2:], norm="ortho")
        if self._colours is not None:
            field = torch.einsum("dc,bchw->bdhw", self._colours, field)
        return torch.sigmoid(field)

    def disturbed(self, which: Tensor, generator: torch.Generator) -> Tensor:
        """Return the parameters with noise on some of the pictures, ``[B]`` flags; more each time."""
        self._noise = min(2 * self._noise, _MOST_NOISE)
        drawn = torch.randn(self.parameters.shape, generator=generator).to(self.parameters.device)
        return self.parameters + self._noise * drawn * which.reshape(-1, *[1] * (drawn.dim() - 1))

    def inputs(self, pictures: Tensor) -> Tensor:
        """Return pictures between 0 and 1 in the range of the model's inputs."""
        return self._low + self._reach * pictures

    def _inverse(self, start: Tensor) -> Tensor:
        """Return the parameters that make a given picture."""
        shares = ((start - self._low) / self._reach).clamp(_EDGE, 1 - _EDGE)
        field = torch.logit(shares)
        if self._colours is not None:
            field = torch.einsum("dc,bchw->bdhw", torch.linalg.inv(self._colours), field)
        if self._weights is None:
            return field.clone()
        waves = torch.fft.rfft2(field, norm="ortho") / (self._weights / _CALM)
        return torch.view_as_real(waves).clone()


def _colours(device: torch.device) -> Tensor:
    """Return the matrix from lightness, blue to yellow, and red to green to the three channels.

    These are about the independent axes of natural colours, and how far contrasts reach along them (Ruderman,
    Cronin and Chiao 1998).
    """
    axes = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, -2.0], [1.0, -1.0, 0.0]])
    axes = axes / axes.norm(dim=1, keepdim=True) * torch.tensor([[1.0], [0.3], [0.15]])
    mixed: Tensor = axes.T.contiguous().to(device)
    return mixed


def _wave_weights(height: int, width: int, decay: float) -> Tensor:
    """Return the weight of each wave, ``[H, W // 2 + 1]``: one over its frequency, up to a whole picture."""
    down = torch.fft.fftfreq(height)[:, None]
    right = torch.fft.rfftfreq(width)[None]
    frequency = (down**2 + right**2).sqrt().clamp(min=1 / max(height, width))
    weights: Tensor = 1 / frequency**decay
    return weights
