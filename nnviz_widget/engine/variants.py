"""Many what-ifs of one run: what the model says where a region of the input, or a layer's output, is another.

Occlusion, ablation, masks, deletion curves, knock-outs and patches all ask here, and only here. The answer is
a replay of the recorded operations, which computes anew only what changed (``replay``), or a forward of the
whole model on batches of variants: where the model cannot be replayed, and where that is faster.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.attribution.targets import scores_of
from nnviz_widget.engine.replay.plan import UnsafeError
from nnviz_widget.engine.replay.run import matches
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from nnviz_widget.engine.attribution.task import Task
    from nnviz_widget.engine.replay.replays import Replayed

__all__ = ["Variants", "outcomes"]

#: Fewer variants are not worth the passes from which a plan is made.
_FEW = 24
#: A replay that takes less than this share of what a forward took is the faster way without asking further.
_SURELY = 0.5
#: It must take at most this share to be chosen.
_GAIN = 0.9
#: Either way is timed by at least this many chunks, the whole model only while it may be the faster one.
_TRIES = 3
#: So many variants of a chunk are compared with the whole model.
_SAMPLE = 3
#: In debug mode one chunk in so many, from the first on, is compared with the whole model.
_CHECKED = 4


@dataclass(frozen=True)
class Variants:
    """Changed versions of the samples of one task.

    Attributes
    ----------
    rows : Tensor
        Which sample each variant is one of, ``[V]``, whole numbers.
    make : callable
        Takes start and stop and returns these variants: one tensor ``[B, ...]`` for each of the task's
        inputs, or, where `node` names a layer, the one tensor that it gives instead. Where they differ from
        their samples is found out by comparing.
    node : str
        Where the change is: ``"input"``, or the path (``path@call``) of a module.
    """

    rows: Tensor
    make: Callable[[int, int], Sequence[Tensor]]
    node: str = "input"

    def __len__(self) -> int:
        return len(self.rows)


def outcomes(
    task: Task,
    variants: Variants,
    *,
    size: Any = "auto",
    whole: bool = False,
    first: int = 0,
    of: int = 0,
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
    of : int
        How many variants will be asked for in all, where these are not the only ones.

    Yields
    ------
    start, stop : int
        Which variants.
    found : Tensor
        Detached, in the precision of the model.
    """
    way = _Way(task, variants, max(of, len(variants)), first)

    def work(start: int, stop: int) -> Tensor:
        rows, changed = variants.rows[start:stop], variants.make(start, stop)
        scores, output = way.run(changed, rows)
        return (scores_of(output) if whole else scores).detach()

    yield from task.batched(len(variants), work, size=size, kind=way.kind, first=first)


class _Way:
    """How variants are run: replayed, or in full; the faster of the two, as it turns out."""

    def __init__(self, task: Task, variants: Variants, total: int, first: int) -> None:
        self._task, self._variants, self._total = task, variants, total
        self._node = variants.node
        self._whole, self._part = f"variants of {variants.node}", f"replay of {variants.node}"
        self._replayed: Replayed | None = None
        self._chunks = self._done = 0
        self._replaying = False
        self._short: bool | None = None if variants.node != "input" and task.samples == 1 else False
        #: After how many variants it is looked how they could be replayed: making a plan takes passes, and
        #: somebody who watches is not to wait for these too. None once that is done.
        self._begin: int | None = first if task.watched and not task.debug and first < total else 0

    def kind(self) -> str:
        """Choose the way of the next chunk; returns what its size is remembered by."""
        if self._begin is not None and (self._done >= self._begin or self._task.planned):
            self._begin = None
            self._task.ran_in_full(self._done)
            self._prepare()
        self._replaying = self._replayed is not None and (self._task.debug or self._faster())
        return self._part if self._replaying else self._whole

    def _prepare(self) -> None:
        variants, node = self._variants, self._node
        try:
            self._replayed = self._task.replayed(node, known=self._total < _FEW)
            if self._replayed is not None:
                two = min(2, len(variants))
                cover = self._replayed.cover(node, variants.make(0, two), variants.rows[:two])
                self._part += f", {cover:.1e}"
                if cover >= 1 and node == "input":
                    self._replayed = None  # everything differs: there is nothing to save
        except UnsafeError as error:
            self._task.ran_in_full(why=str(error))

    def _faster(self) -> bool:
        part, whole = self._task.known(self._part), self._task.known(self._whole)
        if sum(part.tries.values()) < _TRIES:
            return True
        replay = min(part.seconds.values())
        if not whole.seconds:
            alone = self._task.passes.first_seconds / self._task.samples
            return 0 < replay < _SURELY * alone
        full = min(whole.seconds.values())
        return replay <= _GAIN * full and (sum(whole.tries.values()) >= _TRIES or full > 2 * replay)

    def run(self, changed: Sequence[Tensor], rows: Tensor) -> tuple[Tensor, Any]:
        """Return scores and output of variants."""
        task, replayed = self._task, self._replayed
        if not self._replaying or replayed is None:
            if self._begin is None:
                task.ran_in_full(len(rows))
            found = self._full(changed, rows)
            self._done += len(rows)
            return found
        try:
            found = task.replay(replayed, self._node, changed, rows)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            return self._refused(f"it could not be replayed ({error})", changed, rows)
        again = task.debug and self._chunks % _CHECKED == 0
        self._chunks += 1
        if again or self._node not in replayed.checked:
            at = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self._chunks))[:_SAMPLE]
            few = [tensor.index_select(0, at.to(tensor.device)) for tensor in changed]
            with task.uncounted():
                expected, _ = self._full(few, rows[at])
            if not matches(found[0].index_select(0, at.to(found[0].device)), expected):
                warnings.warn(
                    "A replay did not give what the model gives; the model is run in full from here on.",
                    RuntimeWarning,
                    stacklevel=2,
                )
                return self._refused("the replay did not give what the model gives", changed, rows)
            replayed.checked.add(self._node)
        return found

    def _refused(self, why: str, changed: Sequence[Tensor], rows: Tensor) -> tuple[Tensor, Any]:
        self._task.refuse_replay(why)
        self._task.ran_in_full(len(rows))
        self._replayed, self._replaying = None, False
        return self._full(changed, rows)

    def _full(self, changed: Sequence[Tensor], rows: Tensor) -> tuple[Tensor, Any]:
        task, node = self._task, self._node
        if self._short is None:
            self._short = _same_from(task, node, changed[0], rows)
        if self._short:
            return task.run_from(node, changed[0], rows)
        if node == "input":
            inputs, edits = changed, None
        else:
            inputs = [x.index_select(0, rows.to(x.device)) for x in task.inputs]
            edits = {node: lambda _: changed[0]}
        scores, output, _ = task.run(inputs, rows, edits=edits)
        return scores, output


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
