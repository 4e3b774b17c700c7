"""Features: which elements of the inputs are asked about together, and inputs that lack some of them.

An element, a token, a superpixel, a column of a table: what the methods of ablation and the surrogate models
give one number each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnviz_widget.engine.attribution.segments import grid_segments, places_of, slic
from nnviz_widget.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nnviz_widget.engine.attribution.task import Task

__all__ = ["Features"]

#: Names for a feature mask.
_NAMED = {
    "auto": "every element where there are few, else tokens of a text, superpixels of an image, cells",
    "slic": "superpixels, which follow the edges of an image",
    "grid": "cells of equal size",
}


class Features:
    """A division of the elements of each sample into features.

    Parameters
    ----------
    task : Task
        Has the inputs.
    feature_mask : str, Tensor, tuple or None
        Whole numbers that broadcast to the input, equal where elements go together, also across inputs; or
        ``"auto"``, ``"slic"``, ``"grid"``; or None, where each element is a feature.
    n_segments : int
        About how many, where it is a name.

    Attributes
    ----------
    counts : Tensor
        How many features each sample has, ``[N]``.
    count : int
        The largest of them.
    """

    def __init__(self, task: Task, feature_mask: Any = None, n_segments: int = 64) -> None:
        self._task = task
        masks = [mask.cpu() for mask in _masks(task, feature_mask, n_segments)]
        samples = max(mask.shape[0] for mask in masks)
        flat = torch.cat([mask.reshape(len(mask), -1).expand(samples, -1) for mask in masks], 1)
        numbered = [torch.unique(line, return_inverse=True)[1] for line in flat]
        counts = torch.stack([line.max() + 1 for line in numbered])
        self.counts = counts.expand(task.samples).clone()
        self.count = int(counts.max())
        parts = torch.split(torch.stack(numbered), [mask[0].numel() for mask in masks], 1)
        self._masks = [
            part.reshape(samples, *mask.shape[1:]).to(x.device)
            for part, mask, x in zip(parts, masks, task.inputs, strict=True)
        ]

    def elements(self, kept: Tensor, rows: Tensor) -> list[Tensor]:
        """Return for each element of the inputs what is said of its feature.

        Parameters
        ----------
        kept : Tensor
            ``[B, M]``, of any type.
        rows : Tensor
            Which sample each row is a variant of, ``[B]``.

        Returns
        -------
        list of Tensor
            For each input a tensor that broadcasts to ``[B, ...]``.
        """
        found = []
        for mask in self._masks:
            said = kept.to(mask.device)
            if mask.shape[0] == 1:
                values = said.index_select(1, mask.flatten())
            else:
                values = said.gather(1, mask[rows.to(mask.device)].reshape(len(rows), -1))
            found.append(values.reshape(-1, *mask.shape[1:]))
        return found

    def which(self, number: Tensor, rows: Tensor) -> list[Tensor]:
        """Return for each element of the inputs whether it is of the one feature, ``[B]``, of its row."""
        found = []
        for mask in self._masks:
            one = number.to(mask.device).reshape(-1, *[1] * (mask.dim() - 1))
            found.append((mask if mask.shape[0] == 1 else mask[rows.to(mask.device)]) == one)
        return found

    def replaced(self, where: Sequence[Tensor], others: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
        """Return samples in which some elements are another's.

        Parameters
        ----------
        where : sequence of Tensor
            For each input truth values that broadcast to ``[B, ...]``.
        others : sequence of Tensor
            For each input what is put there, ``[N, ...]``.
        rows : Tensor
            ``[B]``.
        """
        task = self._task
        return [
            torch.where(hidden, task.rows(other, rows), task.rows(x, rows))
            for hidden, other, x in zip(where, others, task.inputs, strict=True)
        ]

    def spread(self, numbers: Tensor) -> tuple[Tensor, ...]:
        """Return the number of each feature, ``[N, M]``, at all its elements: like the inputs."""
        return self._task.like_inputs(self.elements(self._task.like_scores(numbers), self._task.every))


def _masks(task: Task, given: Any, n_segments: int) -> list[Tensor]:
    """Return a mask for each input, ``[1 or N, ...]``, with as many axes as the input."""
    inputs = task.inputs
    if type(n_segments) is not int or n_segments < 1:
        raise InputError(f"n_segments is a whole number from 1, not {n_segments!r}.")
    if given is None or isinstance(given, str):
        masks: list[Tensor] = []
        for x in inputs:
            mask = _named(given, x, n_segments, task)
            masks.append(mask + (int(masks[-1].max()) + 1 if masks else 0))
        return masks
    each = given if isinstance(given, (tuple, list)) else (given,)
    if len(each) != len(inputs) or not all(isinstance(mask, Tensor) for mask in each):
        raise InputError(
            f"feature_mask={given!r} must be a tensor for each of the {len(inputs)} input(s).",
            hint=f"Known names are {', '.join(_NAMED)}.",
        )
    return [_fitting(mask, x) for mask, x in zip(each, inputs, strict=True)]


def _fitting(mask: Tensor, x: Tensor) -> Tensor:
    if mask.is_floating_point() or mask.is_complex():
        raise InputError(f"A feature mask holds whole numbers, not {mask.dtype}.")
    shaped = mask.detach().long().reshape(*[1] * (x.dim() - mask.dim()), *mask.shape)
    if shaped.dim() != x.dim() or any(
        have not in (1, want) for have, want in zip(shaped.shape, x.shape, strict=True)
    ):
        raise InputError(f"A feature mask of {tuple(mask.shape)} does not fit an input of {tuple(x.shape)}.")
    return shaped


def _named(name: str | None, x: Tensor, count: int, task: Task) -> Tensor:
    shape = x.shape[1:]
    if name is None or (name in _NAMED and x.dim() == 1):
        return torch.arange(x[0].numel()).reshape(1, *shape)
    if name not in _NAMED:
        raise InputError(
            f"There is no feature mask {name!r}.{nearest(name, _NAMED)}",
            hint=f"Known are {', '.join(_NAMED)}, or a tensor of whole numbers.",
        )
    if task.embedded:
        return torch.arange(shape[0]).reshape(1, -1, *[1] * (x.dim() - 2))
    if name == "auto":
        if x[0].numel() <= count or x.dim() == 2:
            return _named(None, x, count, task)
        name = "slic" if x.dim() == 4 else "grid"
    if name == "slic":
        return torch.stack([slic(one, count, check=task.check) for one in x])[:, None]
    places = places_of(x)
    sides = [x.shape[axis] for axis in places]
    kept = [size if axis in places else 1 for axis, size in enumerate(x.shape)]
    return grid_segments(sides, count).reshape(1, *kept[1:])
