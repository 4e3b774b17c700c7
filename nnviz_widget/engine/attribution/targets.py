"""What is explained: from the output of a model to one number for each row.

A target is a class, one class per sample, an index into the output of one sample (a pixel of a segmentation
map, a token and its word), a function of the output, or nothing: then the class with the largest score.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnviz_widget.engine.recording import tensors_of
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Target", "scores_of"]

Index = tuple[int, ...]


def scores_of(output: Any) -> Tensor:
    """Return the tensor of scores in what a model returned: the first of floating point with a batch axis.

    Raises
    ------
    InputError
        There is none.
    """
    tensors = [tensor for _, tensor in tensors_of(output) if tensor.is_floating_point()]
    found = next((tensor for tensor in tensors if tensor.dim() > 1), tensors[0] if tensors else None)
    if found is None:
        raise InputError(
            "The model returned no tensor of floating point, so there is nothing to explain.",
            hint="Pass target=, a function from the output to one number per sample.",
        )
    return found


class Target:
    """A target, made definite on the output of the unchanged inputs.

    Parameters
    ----------
    given : int, tuple of int, list, Tensor, callable or None
        An int is a class for all samples. A tuple of ints is an index into one sample's output. A list or a
        tensor has one of either for each sample. A callable takes what the model returned and gives one
        number per row. None takes the class with the largest score; where a sample has one number only, that.
    output : object
        What the model returned for a batch of rows; with None for a target, for the samples themselves.
    rows : int
        How many rows these are.
    samples : int
        How many samples there are.

    Attributes
    ----------
    told : object
        The target in plain numbers: what was given, or the class of each sample that was chosen.
    """

    def __init__(self, given: Any, output: Any, rows: int, samples: int) -> None:
        self._function: Callable[[Any], Any] | None = given if callable(given) else None
        self._index: Tensor | None = None
        self._classes = 0
        self.told = given
        if self._function is not None:
            self._rows(self._function(output), rows)
            return
        scores = scores_of(output)
        if scores.shape[:1] != (rows,):
            raise InputError(
                f"The output has the shape {tuple(scores.shape)}, which does not begin with the {rows} "
                "sample(s) of the input.",
                hint="Pass target=, a function from the output to one number per sample.",
            )
        shape = tuple(scores.shape[1:])
        self._classes = shape[0] if len(shape) == 1 else 0
        if given is None:
            if scores[0].numel() > 1 and scores.dim() > 2:
                raise InputError(
                    f"The output of one sample has the shape {shape}; say which number to explain.",
                    hint=f"target={(0,) * len(shape)} is the first one; a function of the output works too.",
                )
            self.told = scores.detach().argmax(1).tolist() if scores.dim() == 2 else None
            indices = [(0,) * len(shape)] * samples if self.told is None else [(c,) for c in self.told]
        else:
            indices = [_index(one, shape) for one in _each(given, samples)]
        self._index = torch.tensor(indices, dtype=torch.long, device=scores.device).reshape(
            samples, len(shape)
        )

    def scores(self, output: Any, rows: Tensor) -> Tensor:
        """Return the target's score of each row, ``[B]``, in the model's own precision.

        Parameters
        ----------
        output : object
            What the model returned for a batch of rows.
        rows : Tensor
            Which sample each row is a variant of, ``[B]``.
        """
        if self._function is not None:
            return self._rows(self._function(output), len(rows))
        assert self._index is not None
        scores = scores_of(output)
        index = self._index.to(scores.device)[rows.to(scores.device)]
        return scores[(torch.arange(len(rows), device=scores.device), *index.unbind(1))]

    @property
    def of_classes(self) -> bool:
        """Whether the target is one of several classes: then it has a probability."""
        return self._index is not None and self._index.shape[1] == 1 and self._classes > 1

    def probabilities(self, scores: Tensor, rows: Tensor) -> Tensor:
        """Return the target's share of the softmax over the classes, ``[B]``.

        Parameters
        ----------
        scores : Tensor
            ``[B, classes]``; taken as they are where they are probabilities already.
        rows : Tensor
            Which sample each row is a variant of, ``[B]``.
        """
        assert self._index is not None
        scores = scores if scores.dtype == torch.float64 else scores.float()
        sums = scores.sum(1)
        already = bool((scores >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all())
        shares = scores if already else scores.softmax(1)
        return shares.gather(1, self._index.to(scores.device)[rows.to(scores.device)])[:, 0]

    def _rows(self, found: Any, count: int) -> Tensor:
        if not isinstance(found, Tensor) or tuple(found.shape) not in {(count,), (count, 1)}:
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"The target function gave {what} for {count} row(s); it must give one number per row.",
                hint="Index the output, for example lambda output: output[:, 3].",
            )
        if not found.is_floating_point():
            raise InputError(
                f"The target function gave numbers of type {found.dtype}, which have no gradient.",
                hint="Use scores, not their argmax.",
            )
        return found.reshape(count)


def _each(given: Any, samples: int) -> list[Any]:
    """Return the target of each sample."""
    if isinstance(given, Tensor):
        given = given.tolist() if given.dim() else int(given.item())
    if isinstance(given, list):
        if len(given) != samples:
            raise InputError(
                f"target has {len(given)} entries for {samples} sample(s).",
                hint="One class for all is an int; an index into the output of a sample is a tuple.",
            )
        return given
    return [given] * samples


def _index(one: Any, shape: tuple[int, ...]) -> Index:
    """Check an index into the output of one sample."""
    index = tuple(one) if isinstance(one, (tuple, list)) else (one,)
    if not all(type(part) is int for part in index):
        raise InputError(
            f"target={one!r} is no class.",
            hint="A target is a whole number, a tuple of them, a list with one per sample, or a function.",
        )
    if not shape and index == (0,):
        return ()
    if len(index) != len(shape):
        raise InputError(
            f"target={one!r} has {len(index)} number(s), but the output of one sample has the shape {shape}.",
            hint="Give one number for each of its axes.",
        )
    if not all(0 <= part < size for part, size in zip(index, shape, strict=True)):
        raise InputError(f"target={one!r} lies outside the output of one sample, {shape} from 0.")
    return index
