"""Activations as pictures: every channel a tile of whole numbers, reduced where the tensor is.

A tile is 8 bits per pixel with the channel's own range beside it, so a quarter of the bytes leaves the device
and the page changes colours, sign and range without asking: ``value ~ low + byte / 255 * (high - low)``.
What a number means on the screen is the page's business; raw floats are one call to `Trace.activation` away.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import interpolate

from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Tiles", "patch_grid", "planes", "tiles", "unit_at"]


@dataclass(frozen=True, slots=True)
class Tiles:
    """All channels of one layer for one sample, as small pictures.

    Attributes
    ----------
    kind : str
        ``maps`` (channels of an image or a series), ``tokens`` (features of a sequence of tokens: channel d
        is the column of feature d) or ``vector`` (one row).
    values : ndarray
        uint8 ``[C, h, w]``.
    low, high : ndarray
        float32 ``[C]``: the finite range of each channel, before it was reduced; equal for a constant one.
    strength : ndarray
        float32 ``[C]``: mean magnitude of the finite values.
    bad : ndarray
        int64 ``[C]``: how many values are NaN or infinite. They are drawn as `low`.
    shape : tuple of int
        ``(C, H, W)`` of the activation itself.
    scale : float
        Tile pixels per activation pixel, 1 / n.
    grid : tuple of int or None
        ``(rows, columns, skip)`` where tokens are the patches of an image, after `skip` extra ones.
    """

    kind: str
    values: NDArray[np.uint8]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    strength: NDArray[np.float32]
    bad: NDArray[np.int64]
    shape: tuple[int, int, int]
    scale: float
    grid: tuple[int, int, int] | None


def planes(activation: Tensor, sample: int = 0, *, axis: int | None = None) -> tuple[str, Tensor]:
    """Return what a layer's activation is a picture of, and one sample of it as ``[C, H, W]``.

    Parameters
    ----------
    activation : Tensor
        With a batch axis. Volumes ``[N, C, D, H, W]`` show their middle slice.
    sample : int
        Index in the batch.
    axis : int, optional
        The one that holds the channels, counted with the batch axis. Without it the first after the batch,
        of ``[N, A, B]`` the last: tokens of features, where axis 1 means channels of a series.

    Returns
    -------
    kind : str
        ``maps``, ``tokens`` or ``vector``, as in `Tiles`.
    stack : Tensor
        A view: ``[C, H, W]``, tokens as columns ``[features, tokens, 1]``, a vector as ``[1, 1, length]``.
    """
    if activation.dim() and not -len(activation) <= sample < len(activation):
        raise InputError(f"There is no sample {sample} in a batch of {len(activation)}.")
    values = activation[sample] if activation.dim() else activation
    if values.dim() < 2:
        return "vector", values.reshape(1, 1, -1)
    if values.dim() == 2:
        return ("maps", values[:, None]) if axis == 1 else ("tokens", values.T[:, :, None])
    values = values.movedim((axis or 1) - 1, 0)
    while values.dim() > 3:
        values = values[:, values.shape[1] // 2]
    return "maps", values


def unit_at(shape: Sequence[int], place: tuple[int, ...], *, axis: int | None = None) -> tuple[int, ...]:
    """Return the index of a unit in one sample's activation from its place in the picture: undoes `planes`.

    Parameters
    ----------
    shape : sequence of int
        Of the activation, with its batch axis.
    place : tuple of int
        ``(channel, y, x)`` of a map; anything else is an index already.
    axis : int, optional
        As for `planes`.
    """
    if len(place) != 3:
        return place
    channel, y, x = place
    if len(shape) == 3:
        return channel, x
    axis = axis or 1
    sizes = [*shape[1:axis], *shape[axis + 1 :]]
    index = [*(size // 2 for size in sizes[:-2]), y, x]
    index.insert(axis - 1, channel)
    return tuple(index)


def tiles(
    activation: Tensor,
    sample: int = 0,
    *,
    max_side: int = 128,
    channels: Sequence[int] | None = None,
    axis: int | None = None,
    patches: bool = False,
) -> Tiles:
    """Draw every channel of a layer.

    Parameters
    ----------
    activation, sample, axis
        As for `planes`.
    max_side : int
        Larger maps are averaged down, by the least whole number that makes their longer side fit; tokens and
        vectors are never reduced.
    channels : sequence of int, optional
        Only these, in this order.
    patches : bool
        Whether tokens may be the patches of an image: gives `Tiles.grid` when their number fits a square.

    Raises
    ------
    InputError
        No such sample, or no such channel.
    """
    if max_side < 1:
        raise InputError(f"max_side must be at least 1, got {max_side}.")
    kind, stack = planes(activation.detach(), sample, axis=axis)
    if channels is not None:
        stack = stack[_indices(channels, len(stack), stack.device)]
    count, height, width = stack.shape
    values = stack.abs() if stack.is_complex() else stack
    values = values.float() if values.dtype != torch.float32 else values
    flat = values.reshape(count, height * width)
    grid = patch_grid(height) if patches and kind == "tokens" else None
    shape = (count, height, width)
    if not flat.numel():
        nothing = torch.zeros(count).numpy()
        none_bad = torch.zeros(count, dtype=torch.int64).numpy()
        return Tiles(kind, values.byte().cpu().numpy(), nothing, nothing, nothing, none_bad, shape, 1.0, grid)

    low, high = flat.amin(1), flat.amax(1)
    bad = torch.zeros(count, dtype=torch.int64, device=flat.device)
    if not bool((low - low + high - high == 0).all()):  # NaN and Inf spoil the difference with themselves
        finite = flat.isfinite()
        bad = (~finite).sum(1)
        low = flat.where(finite, torch.inf).amin(1)
        high = flat.where(finite, -torch.inf).amax(1)
        nothing_finite = bad == flat.shape[1]
        low, high = low.masked_fill(nothing_finite, 0.0), high.masked_fill(nothing_finite, 0.0)
        flat = flat.where(finite, low[:, None])
        total = flat.abs().where(finite, 0.0).sum(1)
        strength = total / (flat.shape[1] - bad).clamp(min=1)
    else:
        strength = torch.linalg.vector_norm(flat, 1, dim=1) / flat.shape[1]

    # By a whole number: pixels of a tile are then averages of equal blocks, as far as the sides divide.
    block = -(-max(height, width) // max_side) if kind == "maps" else 1
    scale = 1.0 / block
    small = flat.view(count, height, width)
    if block > 1:
        size = (-(-height // block), -(-width // block))
        small = interpolate(small[:, None], size=size, mode="area")[:, 0]
    # By halves, because the span of two finite numbers may be more than the largest one.
    span = high / 2 - low / 2
    factor = torch.where(span > 0, 255 / span, 0.0)[:, None, None]
    drawn = torch.add(-low[:, None, None] / 2, small, alpha=0.5).mul_(factor).add_(0.5).clamp_(0, 255).byte()
    # One copy for the three vectors: on a GPU each copy waits for the device.
    lows, highs, strengths = torch.stack((low, high, strength)).cpu().numpy()
    return Tiles(kind, drawn.cpu().numpy(), lows, highs, strengths, bad.cpu().numpy(), shape, scale, grid)


def _indices(channels: Sequence[int], count: int, device: torch.device) -> Tensor:
    wrong = [channel for channel in channels if not 0 <= channel < count]
    if wrong:
        raise InputError(f"There is no channel {wrong[0]}; this layer has {count}, 0 to {count - 1}.")
    return torch.tensor(list(channels), dtype=torch.int64, device=device)


def patch_grid(tokens: int) -> tuple[int, int, int] | None:
    """Return rows, columns and extra tokens where the rest of `tokens` fills a square of patches."""
    for skip in (0, 1, 2, 5):  # none; a class token; a distillation token too; four registers
        side = isqrt(max(tokens - skip, 0))
        if side > 1 and side * side == tokens - skip:
            return side, side, skip
    return None
