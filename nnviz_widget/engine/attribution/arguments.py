"""What a model is given in one call, and which of it is explained: tensors, with a row for each variant."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from nnviz_widget.engine.recording import tensors_of
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Arguments"]


class Arguments:
    """The arguments of a batch of samples.

    Parameters
    ----------
    args, kwargs
        As the model takes them. Explained are their tensors of floating point that have the batch axis.
    extra : tuple
        Further positional arguments, not explained.

    Attributes
    ----------
    samples : int
        Rows of the batch.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], extra: tuple[Any, ...] = ()) -> None:
        self._leaves, self._spec = tree_flatten(((*args, *extra), dict(kwargs)))
        explainable = len(tree_flatten((args, dict(kwargs)))[0]) if not kwargs else len(self._leaves)
        tensors = [leaf for leaf in self._leaves if isinstance(leaf, Tensor) and leaf.dim()]
        if not tensors:
            raise InputError("There is no tensor with a batch axis among the inputs.")
        self.samples = int(tensors[0].shape[0])
        self._at = [
            i
            for i, leaf in enumerate(self._leaves)
            if i < explainable and self._has_rows(leaf) and leaf.is_floating_point()
        ]

    @property
    def explained(self) -> tuple[Tensor, ...]:
        """The tensors that are explained; none where all are whole numbers."""
        return tuple(self._leaves[i].detach() for i in self._at)

    @property
    def context(self) -> tuple[Tensor, ...]:
        """The tensors that are not explained."""
        return tuple(
            leaf for i, leaf in enumerate(self._leaves) if isinstance(leaf, Tensor) and i not in self._at
        )

    @property
    def with_rows(self) -> list[Tensor]:
        """The tensors that have a row for each sample."""
        return [leaf for leaf in self._leaves if self._has_rows(leaf)]

    def listed(self) -> list[tuple[Tensor, int]]:
        """List all tensors, each once, as a recording counts them.

        Returns
        -------
        list of (Tensor, int)
            With the number of the explained one that it is, or -1.
        """
        args, kwargs = self.call()
        explained = {id(self._leaves[i]): place for place, i in enumerate(self._at)}
        found: dict[int, tuple[Tensor, int]] = {}
        for _, tensor in [*tensors_of(args), *tensors_of(kwargs)]:
            found.setdefault(id(tensor), (tensor, explained.get(id(tensor), -1)))
        return list(found.values())

    def instead(self, tensors: Sequence[Tensor]) -> Arguments:
        """Return the same with others in the place of what is explained."""
        other = copy.copy(self)
        other._leaves = list(self._leaves)
        for i, tensor in zip(self._at, tensors, strict=False):  # of embeddings, nothing stands here
            other._leaves[i] = tensor
        return other

    def call(self, rows: Tensor | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return arguments and keyword arguments as the model takes them.

        Parameters
        ----------
        rows : Tensor, optional
            Which sample each row of what is explained belongs to, ``[B]``: of all else, these rows are taken.
        """
        leaves = self._leaves
        if rows is not None:
            leaves = [self._taken(leaf, rows) if i not in self._at else leaf for i, leaf in enumerate(leaves)]
        args, kwargs = tree_unflatten(leaves, self._spec)
        return tuple(args), dict(kwargs)

    def repeated(self, count: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return arguments with so many rows, each the first sample."""
        first = torch.zeros(count, dtype=torch.long)
        args, kwargs = tree_unflatten([self._taken(leaf, first) for leaf in self._leaves], self._spec)
        return tuple(args), dict(kwargs)

    def _taken(self, leaf: Any, rows: Tensor) -> Any:
        return leaf.index_select(0, rows.to(leaf.device)) if self._has_rows(leaf) else leaf

    def _has_rows(self, leaf: Any) -> bool:
        return isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == self.samples
