"""Which channels, or heads, of a layer matter most to the target: each is knocked out, the score compared.

The variants are asked through ``variants``; what the layer gives is read once, and one channel of it replaced
in each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from nnviz_widget.engine.attribution.positions import layout_of
from nnviz_widget.engine.interventions import likely_axis
from nnviz_widget.engine.sites import HEADS
from nnviz_widget.engine.streaming import Stream
from nnviz_widget.engine.variants import Variants, outcomes
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nnviz_widget.engine.attribution.stream import Runs
    from nnviz_widget.engine.attribution.task import Task
    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.replay.replays import Recomputed
    from nnviz_widget.engine.streaming import Call, Step

__all__ = ["KnockOutStream", "KnockOuts", "axis_of"]


@dataclass
class KnockOuts:
    """What is lost without each channel of a layer.

    Attributes
    ----------
    layer : str
        Path of the module; with ``#heads`` for those of an attention.
    channels : Tensor
        The channels that were knocked out so far, ``[K]``, in the order in which they were.
    effects : Tensor
        By how much the target's score falls without each of them, mean over the samples, ``[K]``; negative
        where it rises.
    probabilities : Tensor or None
        By how much the target's probability falls, ``[K]``, where the target is one of several classes.
    baseline : float
        The score with all channels, mean over the samples.
    target : object
        In plain numbers.
    total : int
        How many channels there are to knock out.
    progress : float
        From 0 to 1.
    seconds : float
        Wall time so far.
    forward_passes : int
        Rows that went through the model.
    recomputed : Recomputed or None
        How much of the model ran for them.
    epoch : int
        Of the weights.
    """

    layer: str
    channels: Tensor
    effects: Tensor
    probabilities: Tensor | None
    baseline: float
    target: Any
    total: int
    progress: float = 1.0
    seconds: float = 0.0
    forward_passes: int = 0
    recomputed: Recomputed | None = None
    epoch: int = 0

    @property
    def ranking(self) -> list[int]:
        """The channels, that without which most is lost first."""
        order = self.effects.argsort(descending=True, stable=True)
        return [int(channel) for channel in self.channels[order]]

    def effect(self, channel: int) -> float:
        """Return by how much the score falls without one channel."""
        found = (self.channels == channel).nonzero()
        if not len(found):
            raise InputError(f"Channel {channel} of {self.layer!r} was not knocked out.")
        return float(self.effects[found[0, 0]])

    def __str__(self) -> str:
        shown = self.ranking[:10]
        lines = [f"{channel:>7}  {self.effect(channel):+.4f}" for channel in shown]
        more = len(self.channels) - len(shown)
        title = f"{self.layer}: the score ({self.baseline:.4f}) falls without a channel by"
        return "\n".join([title, *lines, *([f"... and {more} more"] if more else [])])


class KnockOutStream(Stream[KnockOuts]):
    """Rankings that fill up; the last is the whole.

    Parameters
    ----------
    call, runs
        Of the engine.
    site : str
        The layer, or its heads.
    inputs : tuple
        Positional, keyword and further arguments of the model, on its device.
    target : object
        As `Target` takes it.
    mean : bool
        Replace by the mean, not by zero.
    channels : sequence of int, optional
        Which ones.
    size : int or "auto"
        Variants in one pass.
    """

    def __init__(
        self,
        call: Call,
        runs: Runs,
        site: str,
        inputs: tuple[Any, Any, Any],
        *,
        target: Any = None,
        mean: bool = False,
        channels: Sequence[int] | None = None,
        size: Any = "auto",
    ) -> None:
        super().__init__(call, runs.twin)
        self._runs, self._site, self._inputs = runs, site, inputs
        self._given, self._mean, self._channels, self._size = target, mean, channels, size
        self._task: Task | None = None
        self._watched = True

    def result(self) -> KnockOuts:
        """Compute all that is left and return the whole; other questions are answered in between."""
        self._watched = False
        return super().result()

    def _start(self, module: nn.Module, token: CancelToken) -> Iterator[_Found]:
        args, kwargs, extra = self._inputs
        self._task = self._runs.task_of(module, args, kwargs, token, target=self._given, extra=extra)
        self._task.watched = self._watched
        return _knocked(self._task, self._site, mean=self._mean, channels=self._channels, size=self._size)

    def _made(self, step: Step) -> KnockOuts:
        found, task = cast("_Found", step), self._task
        assert task is not None
        done = found.done
        return KnockOuts(
            layer=self._site,
            channels=found.channels[:done],
            effects=found.effects[:done].clone(),
            probabilities=None if found.probabilities is None else found.probabilities[:done].clone(),
            baseline=found.baseline,
            target=task.told,
            total=found.total,
            progress=self.progress,
            seconds=self.seconds,
            forward_passes=task.passes.forward_passes,
            recomputed=task.recomputed,
            epoch=self.epoch,
        )

    def _release(self) -> None:
        self._task = None


@dataclass
class _Found:
    """What there is after a chunk."""

    done: int
    total: int
    channels: Tensor
    effects: Tensor
    probabilities: Tensor | None
    baseline: float


def _knocked(
    task: Task, site: str, *, mean: bool, channels: Sequence[int] | None, size: Any
) -> Iterator[_Found]:
    axis = axis_of(task, site)
    with torch.no_grad():
        scores, output, values = task.run(task.inputs, task.every, read=[site])
    value = values[0].detach()
    if not value.is_floating_point() or value.dim() < 2 or value.shape[0] != task.samples:
        raise InputError(
            f"{site!r} gives {value.dtype} of shape {tuple(value.shape)}: no channels for each sample."
        )
    axis %= value.dim()
    count = value.shape[axis]
    if channels is not None and max(channels) >= count:
        raise InputError(f"channels has {max(channels)}; {site!r} has {count}, from 0.")
    others = [i for i in range(value.dim()) if i != axis]
    instead = value.mean(others, keepdim=True).expand_as(value) if mean else torch.zeros_like(value)
    chosen = torch.arange(count) if channels is None else torch.tensor(channels)
    # What changes most comes first: most of what matters is known early.
    change = (value - instead).abs().mean(others).cpu()
    order = chosen[change[chosen].argsort(descending=True, stable=True)]
    samples = task.samples

    def make(start: int, stop: int) -> list[Tensor]:
        rows = torch.arange(start, stop) % samples
        changed = value.index_select(0, rows.to(value.device))
        channels = order[torch.arange(start, stop) // samples]
        # A view with the channels second, through which each row loses its own.
        changed.movedim(axis, 1)[torch.arange(stop - start), channels] = instead.movedim(axis, 1)[
            rows, channels
        ]
        return [changed]

    variants = Variants(torch.arange(len(order) * samples) % samples, make, node=site)
    of_classes = task.target.of_classes
    baseline = scores.detach().double().cpu()
    before = _probabilities(task, output, task.every) if of_classes else None
    lost = torch.zeros(len(order), samples, dtype=torch.float64)
    lost_shares = torch.zeros_like(lost) if of_classes else None
    total = len(order)
    for start, stop, found in outcomes(task, variants, size=size, whole=of_classes, first=samples * 8):
        rows = torch.arange(start, stop) % samples
        at = torch.arange(start, stop) // samples
        told = task.target.scores(found, rows) if of_classes else found
        lost[at, rows] = baseline[rows] - told.double().cpu()
        if lost_shares is not None and before is not None:
            lost_shares[at, rows] = before[rows] - _probabilities(task, found, rows)
        shares = None if lost_shares is None else lost_shares.mean(1).float()
        yield _Found(stop // samples, total, order, lost.mean(1).float(), shares, float(baseline.mean()))


def _probabilities(task: Task, output: Any, rows: Tensor) -> Tensor:
    from nnviz_widget.engine.attribution.targets import scores_of  # noqa: PLC0415  beside `Target`

    return task.target.probabilities(scores_of(output).detach(), rows).double().cpu()


def axis_of(task: Task, site: str) -> int:
    """Return the axis of a site's channels, as the operations of a pass tell, or else its type."""
    if site.partition("@")[0].endswith(HEADS):
        return -2
    layout = layout_of(task)
    if site not in layout.layers:
        path = site.partition("@")[0]
        return likely_axis(dict(task.passes.module.named_modules(remove_duplicate=False))[path])
    _, known, shape = layout.layers[site]
    if known is None and len(shape) == 3:
        return 1 if layout.series else 2
    return known or 1
