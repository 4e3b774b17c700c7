"""DeepLIFT: differences from a baseline, sent back through the network instead of slopes.

Input and baseline run side by side. Where an operation bends (ReLU, GELU, tanh, max pooling), its gradient is
replaced by the change of its result over the change of its argument, so that all contributions add up to the
change of the score in one backward: the rescale rule. Operations that mix what depends on the input with
itself (attention, gates, layer norms) have no such rule; their gradient is taken, and the error says how much
is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnviz_widget.engine.attribution.backwards import OtherBackward, Sent
from nnviz_widget.engine.attribution.gradients import Moments, precise
from nnviz_widget.engine.attribution.integrated import completeness, pools_of
from nnviz_widget.engine.attribution.registry import method
from nnviz_widget.engine.attribution.result import Part
from nnviz_widget.engine.vocabulary import words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nnviz_widget.engine.attribution.task import Task

__all__: list[str] = []

_BENDS = words(
    """
    relu relu6 hardtanh leaky_relu elu selu celu gelu silu mish softplus softsign sigmoid tanh hardswish
    hardsigmoid logsigmoid clamp exp
    """
)
_POOLS = words("max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d")
#: Below this change of an argument, its slope is taken instead.
_STILL = 1e-10
#: An error of more than this share of the change of the score is told.
_TOLERATED = 0.05
#: A score that changes by less has not changed.
_NOTHING = 1e-6


@method("deep_lift", cost="2 (F + B)", family="path", paper="Shrikumar et al. 2017, arXiv:1704.02685")
def deep_lift(task: Task, *, baselines: Any = "zero", seed: int = 0) -> Iterator[Part]:
    """Send the difference from a baseline back: like integrated gradients, at a small part of the cost.

    Options
    -------
    baselines : str, number, Tensor or tuple
        What the input is compared with.
    seed : int
        Of a baseline of noise.
    """
    values, change = _contributions(task, task.inputs, task.baselines(baselines, seed), task.every)
    delta = completeness(values, change)
    _doubt(task, delta, change)
    yield Part(1, 1, lambda: values, delta=lambda: delta)


@method("deep_lift_shap", cost="2 P (F + B)", family="path", paper="Lundberg and Lee 2017, arXiv:1705.07874")
def deep_lift_shap(
    task: Task, *, baselines: Any = "sample", internal_batch_size: Any = "auto", seed: int = 0
) -> Iterator[Part]:
    """Average DeepLIFT over several baselines, so that none of them decides alone.

    Options
    -------
    baselines : str, number, Tensor or tuple
        A tensor of several baselines, ``[P, ...]``; ``"sample"`` takes all samples of the batch.
    internal_batch_size : int or "auto"
        Pairs of a sample and a baseline in one pass.
    seed : int
        Of a baseline of noise.
    """
    pools = pools_of(task, baselines, seed)
    total = pools[0].shape[0] * task.samples
    moments = [Moments(x, task.samples) for x in task.inputs]
    changes = Moments(task.inputs[0].new_zeros(task.samples, 1), task.samples)

    def work(start: int, stop: int) -> None:
        at = torch.arange(start, stop)
        rows, picks = at % task.samples, at // task.samples
        tensors = [x[rows.to(x.device)] for x in task.inputs]
        values, change = _contributions(task, tensors, [pool[picks.to(pool.device)] for pool in pools], rows)
        for moment, value in zip(moments, values, strict=True):
            moment.add(value, rows)
        changes.add(change[:, None], rows)

    def found() -> tuple[Tensor, ...]:
        return tuple(moment.mean() for moment in moments)

    def delta() -> Tensor:
        return completeness(found(), changes.mean()[:, 0])

    for _, stop, _ in task.batched(
        total, work, size=internal_batch_size, kind="pairs of gradients", first=task.samples
    ):
        if stop == total:
            _doubt(task, delta(), changes.mean()[:, 0])
        if stop >= task.samples:
            yield Part(
                stop, total, found, delta=delta, stderr=lambda: tuple(moment.stderr() for moment in moments)
            )


def _contributions(
    task: Task, tensors: Sequence[Tensor], starts: Sequence[Tensor], rows: Tensor
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return what each element of each row adds to the change of the score, and that change."""
    count = len(rows)
    both = [torch.cat([x, start]) for x, start in zip(tensors, starts, strict=True)]
    with Rescaled():
        scores, gradients = task.gradients(both, torch.cat([rows, rows]))
    values = tuple(
        precise(gradient[:count]) * precise(x - start)
        for gradient, x, start in zip(gradients, tensors, starts, strict=True)
    )
    scores = precise(scores)
    return values, scores[:count] - scores[count:]


def _doubt(task: Task, delta: Tensor, change: Tensor) -> None:
    """Tell of an error that is too large, as a share of the change of the score."""
    share = float((delta.abs() / change.abs().clamp(min=_NOTHING)).max())
    if share > _TOLERATED:
        task.caution(
            f"The contributions miss the change of the score by {share:.0%}: DeepLIFT has no rule for some "
            "operations of this model. Integrated gradients hold for every model."
        )


class Rescaled(OtherBackward):
    """While a forward of inputs, and below them their baselines, runs in this block: the rescale rule."""

    def __init__(self) -> None:
        super().__init__(_BENDS | _POOLS)

    def send(self, sent: Sent) -> Tensor:
        """Return what arrives, times the change of the result over the change of the argument."""
        pairs = sent.value.chunk(2), sent.result.chunk(2)
        if any(len(halves) != 2 or halves[0].shape != halves[1].shape for halves in pairs):
            return sent.own  # not of inputs and baselines
        (x, x0), (y, y0) = pairs
        change = torch.cat([x - x0] * 2)
        if sent.name in _POOLS:
            # What the larger of both results gained over the other belongs to whoever has it.
            larger = torch.maximum(y, y0)
            gained = sent.arriving * torch.cat([larger - y0, y - larger])
            with torch.enable_grad():
                leaf = sent.value.requires_grad_()
                (placed,) = torch.autograd.grad(sent.again(leaf), leaf, gained)
            sought = torch.cat([torch.stack(placed.chunk(2)).sum(0)] * 2)
        else:
            sought = sent.arriving * torch.cat([y - y0] * 2)
        return torch.where(change.abs() < _STILL, sent.own, sought / change)
