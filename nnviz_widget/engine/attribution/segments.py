"""Segments: which neighbouring places of an input go together, where an input has too many to ask for each.

Superpixels follow the edges of an image (SLIC), a grid does not; both number the segments in reading order.
What is done with them lives in ``features``.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["grid_segments", "places_of", "slic"]


def places_of(x: Tensor, *, tokens: bool = False) -> tuple[int, ...]:
    """Return the axes of an input along which neighbours belong together.

    Of an image or a volume all but the channels, of a table its one axis, of a text the tokens. Of any other
    input with two axes both, since nothing tells a series of features from channels of a signal.

    Parameters
    ----------
    x : Tensor
        ``[N, ...]``.
    tokens : bool
        Whether these are embeddings, ``[N, T, D]``.
    """
    if x.dim() < 2:
        raise InputError(
            "One of the inputs is a single number for each sample: there is nowhere to look.",
            hint="feature_ablation and the Shapley methods take it as one feature.",
        )
    if tokens or x.dim() == 2:
        return (1,)
    return (1, 2) if x.dim() == 3 else tuple(range(2, x.dim()))


def grid_segments(shape: Sequence[int], count: int) -> Tensor:
    """Return cells of about equal sides, numbered in reading order.

    Parameters
    ----------
    shape : sequence of int
        Of the places.
    count : int
        About how many cells.

    Returns
    -------
    Tensor
        Whole numbers from 0, of this shape.
    """
    side = (prod(shape) / count) ** (1 / len(shape))
    cells = [min(size, max(1, round(size / side))) for size in shape]
    labels = torch.zeros((), dtype=torch.long)
    for size, some in zip(shape, cells, strict=True):
        labels = labels[..., None] * some + torch.arange(size) * some // size
    return labels


def slic(
    image: Tensor,
    count: int,
    *,
    compactness: float = 0.5,
    rounds: int = 10,
    check: Callable[[], object] = lambda: None,
) -> Tensor:
    """Return superpixels: connected regions of similar colour and similar size.

    Means of colour and place, as k-means finds them, where a pixel chooses among the nine means that began
    around it; then what is cut off from its region goes to a neighbour (SLIC, Achanta et al. 2012). Where
    there is nothing to follow, as in noise, hardly anything is connected: then these are the cells of a grid.

    Parameters
    ----------
    image : Tensor
        ``[C, H, W]``, of any range.
    count : int
        About how many.
    compactness : float
        Weight of the distance in place, in sides of a superpixel, against that in colour, in standard
        deviations of the image.
    rounds : int
        Of k-means.
    check : callable
        Called now and then; raises where the work is no longer wanted.

    Returns
    -------
    Tensor
        Whole numbers from 0, ``[H, W]``, on the CPU.
    """
    if image.dim() != 3:
        raise InputError(
            f"Superpixels are of images; this input has the shape {tuple(image.shape)} without its batch.",
            hint='"grid" divides any input into cells.',
        )
    image = image.detach().cpu().float()
    height, width = image.shape[1:]
    side = (height * width / count) ** 0.5
    rows, columns = max(1, round(height / side)), max(1, round(width / side))
    rows, columns = min(rows, height), min(columns, width)
    colours = (image - image.mean()) / image.std(unbiased=False).clamp(min=1e-12) / image.shape[0] ** 0.5
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    weight = compactness**0.5 / side
    points = torch.cat([colours.flatten(1), (torch.stack([y, x]) * weight).flatten(1)]).T
    row, column = y * rows // height, x * columns // width
    labels = (row * columns + column).flatten()
    # The nine cells around each pixel's own, those beyond the edge replaced by the nearest inside.
    around = torch.stack([
        (row + dy).clamp(0, rows - 1) * columns + (column + dx).clamp(0, columns - 1)
        for dy in (-1, 0, 1) for dx in (-1, 0, 1)
    ]).flatten(1)  # fmt: skip
    for _ in range(rounds):
        check()
        sums = torch.zeros(rows * columns, points.shape[1]).index_add_(0, labels, points)
        sizes = torch.bincount(labels, minlength=rows * columns).clamp(min=1)
        means = sums / sizes[:, None]
        distances = torch.stack([(points - means[cells]).square().sum(1) for cells in around])
        chosen = around.gather(0, distances.argmin(0)[None])[0]
        if torch.equal(chosen, labels):
            break
        labels = chosen
    cells = rows * columns
    whole = _connected(labels.reshape(height, width), height * width / cells / 4, check)
    numbers: Tensor = torch.unique(whole, return_inverse=True)[1]
    return (
        numbers if cells <= 4 * (int(numbers.max()) + 1) <= 16 * cells else grid_segments(whole.shape, count)
    )


def _connected(labels: Tensor, smallest: float, check: Callable[[], object]) -> Tensor:
    """Return connected regions; smaller ones join a neighbour."""
    # Every pixel learns the smallest index in its region, from neighbour to neighbour.
    numbers = torch.arange(labels.numel()).reshape(labels.shape)
    while True:
        check()
        least = numbers
        for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
            same = _shifted(labels, shift, axis, -1) == labels
            least = torch.where(same, torch.minimum(least, _shifted(least, shift, axis, 0)), least)
        # Whoever it learned from may know better by now.
        least = least.flatten()[least]
        if torch.equal(least, numbers):
            break
        numbers = least
    sizes = torch.bincount(numbers.flatten(), minlength=numbers.numel())
    regions = torch.where(sizes[numbers] >= smallest, numbers, -1)
    if (regions < 0).all():
        return numbers
    while (regions < 0).any():
        check()
        for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
            regions = torch.where(regions < 0, _shifted(regions, shift, axis, -1), regions)
    return regions


def _shifted(grid: Tensor, shift: int, axis: int, edge: int) -> Tensor:
    """Return each place's neighbour, and `edge` where there is none."""
    moved = grid.roll(shift, axis)
    moved.select(axis, 0 if shift > 0 else -1).fill_(edge)
    return moved
