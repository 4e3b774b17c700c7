"""Many what-ifs of one run: what the model says where a region of the input, or a layer's output, is another.

Occlusion, ablation, masks, deletion curves, knock-outs and patches all ask here, and only here; how the
answer is computed may change without them. Today it is a forward of the whole model on batches of variants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnviz_widget.engine.attribution.targets import scores_of

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

    def work(start: int, stop: int) -> Tensor:
        rows, changed = variants.rows[start:stop], variants.make(start, stop)
        if variants.node == "input":
            inputs, edits = changed, None
        else:
            inputs = [x.index_select(0, rows.to(x.device)) for x in task.inputs]
            edits = {variants.node: lambda _: changed[0]}
        scores, output, _ = task.run(inputs, rows, edits=edits)
        return scores_of(output) if whole else scores

    yield from task.batched(len(variants), work, size=size, kind=f"variants of {variants.node}", first=first)
