"""Baselines: what an input looks like when there is nothing to see.

Every method that compares takes one, and which one it is decides what it shows; therefore they have names,
can be looked at, and are written into the result.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  its name everywhere
from torch import Tensor

from nnviz_widget.errors import InputError, nearest

__all__ = ["NAMED", "baseline_of"]

#: Names that every method with ``baselines`` takes, and what they mean.
NAMED = {
    "zero": "zeros",
    "mean": "each channel's mean over the positions of the sample itself",
    "blur": "the sample, blurred beyond recognition (Gaussian, an eighth of its shorter side)",
    "noise": "uniform noise within the sample's own range",
    "sample": "the next sample of the batch",
}


def baseline_of(given: Any, inputs: tuple[Tensor, ...], seed: int = 0) -> tuple[Tensor, ...]:
    """Return a baseline like the inputs, for each of them.

    Parameters
    ----------
    given : str, number, Tensor, tuple, or None
        A name in `NAMED`, a number, a tensor that broadcasts to the input (one sample, or all of them), or a
        tuple with one of these for each input. None is ``"zero"``.
    inputs : tuple of Tensor
        ``[N, ...]`` each.
    seed : int
        Of ``"noise"``.

    Raises
    ------
    InputError
        No such name, or a tensor that does not fit.
    """
    if isinstance(given, (tuple, list)):
        if len(given) != len(inputs):
            raise InputError(f"baselines has {len(given)} entries for {len(inputs)} input(s).")
        return tuple(_one(each, x, seed) for each, x in zip(given, inputs, strict=True))
    return tuple(_one(given, x, seed) for x in inputs)


def _one(given: Any, x: Tensor, seed: int) -> Tensor:
    if given is None:
        given = "zero"
    if isinstance(given, str):
        return _named(given, x, seed)
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return torch.full_like(x, given)
    if not isinstance(given, Tensor):
        raise InputError(
            f"baselines={given!r} is no baseline.",
            hint=f"Give a tensor, a number, or one of {', '.join(NAMED)}.",
        )
    moved = given.detach().to(x.device, x.dtype)
    try:
        return (
            moved.expand_as(x).clone()
            if moved.dim() != x.dim() - 1
            else moved.expand_as(x[0]).expand_as(x).clone()
        )
    except RuntimeError:
        raise InputError(
            f"The baseline has the shape {tuple(given.shape)}, the input {tuple(x.shape)}.",
            hint="Give one baseline for all samples, or one for each.",
        ) from None


def _named(name: str, x: Tensor, seed: int) -> Tensor:
    if name == "zero":
        return torch.zeros_like(x)
    if name == "mean":
        axes = tuple(range(2, x.dim()))
        mean = x.mean(axes, keepdim=True) if axes else x.mean(0, keepdim=True)
        return mean.expand_as(x).clone()
    if name == "blur":
        return _blurred(x)
    if name == "noise":
        generator = torch.Generator(x.device).manual_seed(seed)
        low, high = x.flatten(1).amin(1), x.flatten(1).amax(1)
        share = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        low, high = (edge.reshape(-1, *[1] * (x.dim() - 1)) for edge in (low, high))
        return low + share * (high - low)
    if name == "sample":
        if x.shape[0] < 2:
            raise InputError('baselines="sample" takes another sample of the batch, and there is only one.')
        return x.roll(-1, 0)
    raise InputError(
        f"There is no baseline {name!r}.{nearest(name, NAMED)}", hint=f"Known are {', '.join(NAMED)}."
    )


def _blurred(x: Tensor) -> Tensor:
    """Blur all axes after the channels with a Gaussian of an eighth of the shorter side."""
    if x.dim() < 3:
        raise InputError('baselines="blur" needs positions to blur over, such as the pixels of an image.')
    sigma = min(x.shape[2:]) / 8
    blurred = x
    for axis in range(2, x.dim()):
        reach = min(int(3 * sigma) + 1, x.shape[axis] - 1)
        offsets = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
        kernel = torch.exp(-(offsets**2) / (2 * max(sigma, 0.5) ** 2))
        lines = blurred.movedim(axis, -1)
        flat = lines.reshape(-1, 1, x.shape[axis])
        flat = F.conv1d(F.pad(flat, (reach, reach), mode="reflect"), (kernel / kernel.sum())[None, None])
        blurred = flat.reshape(lines.shape).movedim(-1, axis)
    return blurred
