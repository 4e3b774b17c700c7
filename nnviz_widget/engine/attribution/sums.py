"""Weighted sums of gradients over many rows, taken back through the first convolution once for all of them.

What a convolution hands back is linear in what it is handed, and does not depend on its input: of a weighted
sum of rows it gives the weighted sum. Where an input goes into a convolution and nowhere else, the gradients
are therefore summed at what that convolution gives. With few channels on one side it is among the slowest
layers for its size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from nnviz_widget.engine.attribution.gradients import precise
from nnviz_widget.engine.passes import graph_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nnviz_widget.engine.attribution.task import Task

__all__ = ["GradientSums"]


class GradientSums:
    """For each sample, the weighted sum of the gradients of its rows.

    Parameters
    ----------
    task : Task
        Whose rows these are.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._direct = [precise(x).new_zeros(x.shape) for x in task.inputs]
        # A model that decides may begin with one convolution or another.
        self._behind: list[dict[_Convolution, Tensor]] = [{} for _ in task.inputs]
        self._values: tuple[Tensor, ...] | None = None

    def add(self, tensors: Sequence[Tensor], rows: Tensor, weights: Tensor) -> None:
        """Run rows, and add their gradients.

        Parameters
        ----------
        tensors, rows
            As for `Task.gradients`.
        weights : Tensor
            What each row counts, ``[B]``.
        """
        self._values = None
        found: list[_Convolution | None] = []

        def early(scores: Tensor, leaves: Sequence[Tensor]) -> list[Tensor | GradientEdge]:
            edges = [_first(scores, leaf) for leaf in leaves]
            found[:] = [edge and edge[1] for edge in edges]
            return [edge[0] if edge else leaf for edge, leaf in zip(edges, leaves, strict=True)]

        _, gradients = self._task.gradients(tensors, rows, at=early)
        for at, (gradient, convolution) in enumerate(zip(gradients, found, strict=True)):
            if convolution is None:
                total = self._direct[at]
            else:
                fresh = precise(gradient).new_zeros(self._task.samples, *gradient.shape[1:])
                total = self._behind[at].setdefault(convolution, fresh)
            shares = torch.zeros(len(total), len(rows), dtype=total.dtype)
            shares[rows, torch.arange(len(rows))] = weights.to(shares)
            total.flatten(1).addmm_(shares.to(total.device), precise(gradient).flatten(1))

    @torch.no_grad()
    def values(self) -> tuple[Tensor, ...]:
        """Return the sums, like the inputs."""
        if self._values is None:
            self._values = tuple(
                sum((one.back(total, x) for one, total in behind.items()), start=direct)
                for direct, behind, x in zip(self._direct, self._behind, self._task.inputs, strict=True)
            )
        return self._values


class _Convolution(NamedTuple):
    """A convolution as autograd keeps it; equal ones share their weights."""

    weight: Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    def back(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Return the gradient on `x` of what has this gradient on the output."""
        weight, *rest = self
        mask = [True, False, False]
        found: Tensor = torch.ops.aten.convolution_backward(gradient, x, weight, None, *rest, mask)[0]
        return found


def _first(scores: Tensor, leaf: Tensor) -> tuple[GradientEdge, _Convolution] | None:
    """Return what convolution alone takes an input, and the edge of the graph behind it."""
    takers = [
        (node, at)
        for node in graph_of(scores)
        for at, (following, _) in enumerate(node.next_functions)
        if getattr(following, "variable", None) is leaf
    ]
    # Of numbers of two or three digits, the sum must not be rounded to as many.
    if len(takers) != 1 or leaf.dtype not in (torch.float32, torch.float64):
        return None
    ((node, at),) = takers
    # Weights that are computed anew in each pass would make a sum for each.
    if node.name() != "ConvolutionBackward0" or at != 0 or not isinstance(node._saved_weight, nn.Parameter):
        return None
    convolution = _Convolution(
        node._saved_weight,
        tuple(node._saved_stride),
        tuple(node._saved_padding),
        tuple(node._saved_dilation),
        node._saved_transposed,
        tuple(node._saved_output_padding),
        node._saved_groups,
    )
    return GradientEdge(node, 0), convolution
