"""Many what-ifs of one run: what the model says where a region of the input, or a layer's output, is another.

Occlusion, ablation, masks, deletion curves, knock-outs and patches all ask here, and only here; how the
answer is computed may change without them. Today it is a forward of the whole model on batches of variants;
where a layer of a single sample varies, what runs before it is run for one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.attribution.targets import scores_of
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from nnviz_widget.engine.attribution.task import Task

__all__ = ["Variants", "outcomes"]


@dataclass(frozen=True)
class Variants:
    """Changed versions of the samples of one task.

    Attributes
    ----------
    rows : Tensor
        Which sample each variant is one of, ``[V]``, whole numbers.
    make : callable
        Takes start and stop and returns these variants: one tensor ``[B, ...]`` for each of the task's
        inputs, or, where `node` names a layer, the one tensor that it gives instead.
    node : str
        Where the change is: ``"input"``, or the path (``path@call``) of a module.
    boxes : Tensor or None
        Where a variant may differ from its sample: ``[V, D, 2]``, half-open, along the D axes after the
        channels of the (first) changed tensor. None where it may differ anywhere.
    """

    rows: Tensor
    make: Callable[[int, int], Sequence[Tensor]]
    node: str = "input"
    boxes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)


def outcomes(
    task: Task, variants: Variants, *, size: Any = "auto", whole: bool = False, first: int = 0
) -> Iterator[tuple[int, int, Tensor]]:
    """Yield what the model says of each variant, chunk by chunk and in order.

    Parameters
    ----------
    task : Task
        The samples, the target and the model.
    variants : Variants
        What to run.
    size : int or "auto"
        Variants in one pass.
    whole : bool
        Give the whole scores of each variant (``[B, classes]``), not only the target's (``[B]``).
    first : int
        After how many variants there is something to see (`Task.batched`).

    Yields
    ------
    start, stop : int
        Which variants.
    found : Tensor
        Detached, in the precision of the model.
    """
    short: bool | None = None if variants.node != "input" and task.samples == 1 else False

    def work(start: int, stop: int) -> Tensor:
        nonlocal short
        rows, changed = variants.rows[start:stop], variants.make(start, stop)
        if short is None:
            short = _same_from(task, variants.node, changed[0], rows)
        if short:
            scores, output = task.run_from(variants.node, changed[0], rows)
            return (scores_of(output) if whole else scores).detach()
        if variants.node == "input":
            inputs, edits = changed, None
        else:
            inputs = [x.index_select(0, rows.to(x.device)) for x in task.inputs]
            edits = {variants.node: lambda _: changed[0]}
        scores, output, _ = task.run(inputs, rows, edits=edits)
        return scores_of(output) if whole else scores

    yield from task.batched(len(variants), work, size=size, kind=f"variants of {variants.node}", first=first)


def _same_from(task: Task, node: str, value: Tensor, rows: Tensor) -> bool:
    """Whether variants of a layer may begin there: two rows give what they give in whole passes."""
    at = torch.tensor([0, len(rows) - 1])
    value, rows = value.index_select(0, at.to(value.device)), rows[at]
    inputs = [x.index_select(0, rows.to(x.device)) for x in task.inputs]
    expected, _, _ = task.run(inputs, rows, edits={node: lambda _: value.clone()})
    try:
        found, _ = task.run_from(node, value.clone(), rows)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, InputError):
        return False
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
