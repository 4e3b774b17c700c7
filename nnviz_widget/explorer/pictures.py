"""Inputs as people look at them: a sample as bytes ``[H, W, 3]``, a batch as thumbnails, one pixel.

Undoing the normalisation is the user's choice (a callable, ``"imagenet"``, mean and std) or a guess from
the range of the numbers. Nothing here knows the model, the engine or the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Denormalize", "Picture", "draw_sample", "draw_thumbnails", "levels", "read_denormalize"]

Denormalize = Callable[[Tensor], Any]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MAX_THUMBNAILS = 64
MAX_SIDE = 1024


@dataclass(frozen=True)
class Picture:
    """One sample to look at.

    Attributes
    ----------
    rgb : array of uint8 ``[H, W, 3]``
        Not larger than the sample; a vector is one row.
    kind : str
        ``"image"``, ``"vector"`` or ``"other"``.
    """

    rgb: NDArray[np.uint8]
    kind: str


def read_denormalize(denormalize: Any, main: Tensor) -> Denormalize:
    """Return a function that turns ``[1, C, H, W]`` into numbers from 0 to 1, or bytes.

    Parameters
    ----------
    denormalize : callable, "imagenet", (mean, std) or None
        None guesses from the range of the numbers: 0 to 1 and 0 to 255 are taken as they are, others are
        stretched.
    main : Tensor ``[N, ...]``
        The batch; tried once, so that a mistake shows at the door and not in the picture.

    Raises
    ------
    InputError
        Not one of these, or the callable does not work on the inputs.
    """
    if denormalize is None:
        return _guess(main)
    if isinstance(denormalize, str):
        if denormalize != "imagenet":
            raise InputError(
                f"denormalize {denormalize!r} is unknown.", hint="Give 'imagenet', (mean, std) or a function."
            )
        function = _affine(*IMAGENET, main)
    elif callable(denormalize):
        function = denormalize
    elif isinstance(denormalize, Sequence) and len(denormalize) == 2:
        function = _affine(denormalize[0], denormalize[1], main)
    else:
        what = type(denormalize).__name__
        raise InputError(
            f"denormalize is {what}, expected a function, 'imagenet', (mean, std) or None.",
            hint="For example denormalize=((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)).",
        )
    if main.dim() != 4:
        return function  # only pictures are undone
    try:
        _as_bytes(function(main[:1]), main.shape[1])
    except Exception as error:
        raise InputError(
            f"denormalize does not work on inputs of shape {tuple(main[:1].shape)}: {error}",
            hint="It takes a batch of inputs and returns pictures of the same shape with values from 0 to 1.",
        ) from error
    return function


def draw_sample(main: Tensor, index: int, denormalize: Denormalize) -> Picture:
    """Return one sample as a picture.

    Parameters
    ----------
    main : Tensor ``[N, C, H, W]``, ``[N, D]`` or anything else
        The batch.
    index : int
        Which sample.
    denormalize : callable
        From `read_denormalize`.
    """
    sample = main[index : index + 1]
    if sample.dim() == 4:
        return Picture(_as_bytes(denormalize(sample), sample.shape[1]), "image")
    flat = sample[0].detach().float().cpu()
    if flat.dim() <= 1:
        return Picture(_gray(flat.reshape(1, -1)), "vector")
    if flat.dim() == 2:
        return Picture(_gray(flat), "other")
    return Picture(np.zeros((0, 0, 3), np.uint8), "other")


def draw_thumbnails(main: Tensor, size: int, denormalize: Denormalize) -> NDArray[np.uint8]:
    """Return the first samples ``[n, h, w, 3]``, the longer side `size` pixels or less, n at most 64."""
    pictures = [draw_sample(main, index, denormalize) for index in range(min(len(main), MAX_THUMBNAILS))]
    if not pictures or pictures[0].rgb.size == 0:
        return np.zeros((len(pictures), 0, 0, 3), np.uint8)
    stack = torch.from_numpy(np.stack([picture.rgb for picture in pictures])).permute(0, 3, 1, 2).float()
    height, width = stack.shape[-2:]
    shrink = size / max(height, width)
    if shrink < 1:
        target = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        stack = interpolate(stack, size=target, mode="area")
    return np.ascontiguousarray(stack.round().byte().permute(0, 2, 3, 1).numpy())


def _affine(mean: Any, std: Any, main: Tensor) -> Denormalize:
    channels = main.shape[1] if main.dim() > 1 else 1
    factors = []
    for name, values in (("mean", mean), ("std", std)):
        vector = torch.as_tensor(values, dtype=torch.float32).flatten()
        if len(vector) not in (1, channels):
            raise InputError(
                f"denormalize has a {name} of {len(vector)} values for inputs of {channels} channels.",
                hint=f"Give one number or {channels}.",
            )
        factors.append(vector.reshape(1, -1, *[1] * max(0, main.dim() - 2)))
    shift, scale = factors

    def undo(inputs: Tensor) -> Tensor:
        values = inputs.detach().float().cpu()
        return values * scale + shift

    return undo


def _guess(main: Tensor) -> Denormalize:
    """One range for the whole batch, so that its samples can be compared."""
    # By NumPy, on this thread alone: torch would wake a team just while the page is busy with the cell.
    shown = main[:MAX_THUMBNAILS].detach().float().cpu().numpy()
    finite = shown[np.isfinite(shown)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and 1 < high <= 255:
        low, high = 0.0, 255.0
    span = high - low or 1.0

    def stretch(inputs: Tensor) -> Tensor:
        return (inputs.detach().float().cpu() - low) / span

    return stretch


def levels(picture: Any, channels: int) -> Tensor:
    """Turn what a denormalisation returned into ``[C, H, W]`` with values from 0 to 1, if it is a picture."""
    values = _upright(picture, channels)
    return values.double() / 255 if values.dtype == torch.uint8 else values.double()


def _upright(picture: Any, channels: int) -> Tensor:
    """Turn ``[1, C, H, W]``, ``[C, H, W]``, ``[H, W, C]`` or ``[H, W]`` into ``[C, H, W]``.

    Where the first axis is not as long as the sample has channels, the last one is taken for them.
    """
    values = (
        torch.as_tensor(np.asarray(picture) if not isinstance(picture, Tensor) else picture).detach().cpu()
    )
    if values.dim() == 4 and len(values) == 1:
        values = values[0]
    if values.dim() == 2:
        values = values[None]
    if values.dim() != 3:
        raise ValueError(f"a picture has the shape {tuple(values.shape)}, expected [C, H, W]")
    if values.shape[0] != channels and values.shape[-1] in (1, 3, 4):
        values = values.permute(2, 0, 1)
    return values


def _as_bytes(picture: Any, channels: int) -> NDArray[np.uint8]:
    """Turn a picture, from 0 to 1 or bytes, into ``[H, W, 3]`` bytes."""
    values = _upright(picture, channels)
    if values.shape[0] == 4 or values.shape[0] == 3:
        values = values[:3]
    else:
        values = values.float().mean(0, keepdim=True) if values.shape[0] != 1 else values
        values = values.expand(3, -1, -1)
    if values.dtype != torch.uint8:
        values = (values.float().nan_to_num(0.0, 1.0, 0.0).clamp(0, 1) * 255).round().byte()
    return np.ascontiguousarray(values.permute(1, 2, 0).numpy())


def _gray(values: Tensor) -> NDArray[np.uint8]:
    values = values[:MAX_SIDE, :MAX_SIDE]
    finite = values[torch.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    scaled = ((values - low) / (high - low or 1.0)).nan_to_num(0.0, 1.0, 0.0).clamp(0, 1)
    gray = (scaled * 255).round().byte().numpy()
    return np.ascontiguousarray(np.repeat(gray[:, :, None], 3, axis=2))
