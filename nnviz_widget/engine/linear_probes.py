"""What a linear classifier can read from each stage of a network: where the classes come apart.

A stage's activation is pooled over its positions, so each sample is one row of features, a number for each
channel; on these rows a softmax regression is fitted, and judged on samples that it was not fitted to. What
is not linearly separable after pooling may still be there: a probe that fails proves nothing.

Alain and Bengio 2016, Understanding intermediate layers using linear classifier probes, arXiv:1610.01644.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from math import isnan, sqrt
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from nnviz_widget.engine.patching import sites_of
from nnviz_widget.engine.streaming import Stream
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nnviz_widget.engine.attribution.stream import Runs
    from nnviz_widget.engine.attribution.task import Task
    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.streaming import Call, Step

__all__ = ["LinearProbes", "ProbeStream", "read_labels"]

_LOOKED_AT = 2  # samples of the pass that tells shapes and axes
_STEPS, _FLAT = 200, 1e-9


@dataclass
class LinearProbes:
    """How well a linear classifier tells the classes apart after each stage.

    Attributes
    ----------
    layers : list of str
        In the order in which they run.
    accuracy : Tensor
        Share of the samples that are classified right while they are held out, ``[L]``, 0 to 1; NaN where it
        is not known yet.
    stderr : Tensor
        Standard error of `accuracy` as a share of `samples`, ``[L]``.
    fitted : Tensor
        Accuracy on the samples that a classifier was fitted to, mean over the folds, ``[L]``: much above
        `accuracy`, there are too few samples for so many features.
    chance : float
        Accuracy of always answering the commonest class.
    predicted : Tensor
        The class of each sample while it is held out, ``[L, N]``; -1 where it is not known yet.
    features : list of int
        Channels of each layer.
    samples, classes, folds : int
        How many.
    progress : float
        From 0 to 1.
    seconds : float
        Wall time so far.
    forward_passes : int
        Rows that went through the model.
    epoch : int
        Of the weights.
    """

    layers: list[str]
    accuracy: Tensor
    stderr: Tensor
    fitted: Tensor
    chance: float
    predicted: Tensor = field(repr=False)
    features: list[int]
    samples: int
    classes: int
    folds: int
    progress: float = 1.0
    seconds: float = 0.0
    forward_passes: int = 0
    epoch: int = 0

    def __str__(self) -> str:
        width = max(map(len, self.layers), default=0)
        lines = [
            f"{layer:<{width}}  {_share(right)} ± {_share(error)}  of {features} features"
            for layer, right, error, features in self._rows()
        ]
        return "\n".join([self._title(), *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td style="text-align: left">{escape(layer)}</td>'
            f'<td style="min-width: 12em"><div style="height: 0.8em; background: #1976d2; '
            f'width: {0 if isnan(right) else 100 * right:.1f}%"></div></td>'
            f"<td>{_share(right)} ± {_share(error)}</td><td>{features}</td></tr>"
            for layer, right, error, features in self._rows()
        )
        head = "<tr><th>layer</th><th></th><th>accuracy</th><th>features</th></tr>"
        title = f'<caption style="text-align: left">{escape(self._title())}</caption>'
        return f"<table>{title}<thead>{head}</thead><tbody>{rows}</tbody></table>"

    def _title(self) -> str:
        return (
            f"Linear probes on {self.samples} samples of {self.classes} classes, held out in {self.folds} "
            f"folds; chance is {_share(self.chance).strip()}"
        )

    def _rows(self) -> Iterator[tuple[str, float, float, int]]:
        return zip(self.layers, self.accuracy.tolist(), self.stderr.tolist(), self.features, strict=True)


def _share(number: float) -> str:
    return "  –   " if isnan(number) else f"{100 * number:5.1f}%"


def _classes(labels: Tensor) -> Tensor:
    """Return each class once, in order."""
    found: Tensor = torch.unique(labels)
    return found


def read_labels(labels: Any) -> Tensor:
    """Return the class of each sample, ``[N]``, int64, on the CPU.

    Raises
    ------
    InputError
        They are no whole numbers, or all the same.
    """
    try:
        given = torch.as_tensor(labels).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError("labels are whole numbers, the class of each sample.") from error
    if given.dim() != 1 or given.is_floating_point() or given.is_complex():
        raise InputError(
            f"labels are whole numbers, one for each sample, not {given.dtype} of shape {tuple(given.shape)}."
        )
    if len(_classes(given)) < 2:
        raise InputError("A probe needs samples of at least two classes.")
    return given.long()


class ProbeStream(Stream[LinearProbes]):
    """Results that fill up, a layer at a time; the last is the whole.

    Parameters
    ----------
    call, runs
        Of the engine.
    inputs : tuple
        Positional, keyword and further arguments of the model, on its device.
    labels : Tensor
        From `read_labels`.
    sites : sequence of str, optional
        By default the blocks of the network.
    folds, l2, seed
        As `Engine.linear_probes` takes them.
    size : int or "auto"
        Samples in one pass.
    """

    def __init__(
        self,
        call: Call,
        runs: Runs,
        inputs: tuple[Any, Any, Any],
        labels: Tensor,
        *,
        sites: Sequence[str] | None,
        folds: int,
        l2: float,
        seed: int,
        size: Any,
    ) -> None:
        super().__init__(call, runs.twin)
        self._runs, self._inputs, self._labels, self._sites = runs, inputs, labels, sites
        self._fold_count, self._l2, self._seed, self._size = folds, l2, seed, size
        self._task: Task | None = None

    def _start(self, module: nn.Module, token: CancelToken) -> Iterator[_Found]:
        args, kwargs, extra = self._inputs
        task = self._task = self._runs.task_of(module, args, kwargs, token, extra=extra)
        labels = self._labels
        if task.samples != len(labels):
            raise InputError(f"There are {len(labels)} labels for {task.samples} samples.")
        few = tree_map(lambda leaf: _first(leaf, task.samples), (args, dict(kwargs), extra))
        small = self._runs.task_of(module, few[0], few[1], token, extra=few[2])
        return self._probed(task, *sites_of(small, self._sites, "layer"))

    def _probed(self, task: Task, sites: list[str], axes: list[int]) -> Iterator[_Found]:
        labels, samples = self._labels, task.samples
        folds = fold_of(labels, min(self._fold_count, samples), self._seed)
        count = int(folds.max()) + 1
        chance = float((labels == labels.mode().values).double().mean())
        found = _Found(0, samples + len(sites) * count * samples, sites, chance)

        def pooled(start: int, stop: int) -> list[Tensor]:
            rows = torch.arange(start, stop)
            values = task.read(sites, [task.rows(x, rows) for x in task.inputs], rows)
            return [pool(value, axis) for value, axis in zip(values, axes, strict=True)]

        parts: list[list[Tensor]] = []
        # Slices of a forward first, then the fits; each counts as much as samples went through it.
        for _, stop, values in task.batched(samples, pooled, size=self._size, kind="probes"):
            parts.append(values)
            found.done = stop
            yield found
        for at, site in enumerate(sites):
            features = torch.cat([part[at] for part in parts])
            if not features.isfinite().all():
                raise InputError(f"{site!r} gives values that are not finite.", hint="Leave it out.")
            found.features[site] = features.shape[1]
            predicted = torch.full((samples,), -1)
            fitted = []
            for fold in range(count):
                held = folds == fold
                probe = Probe(features[~held], labels[~held], l2=self._l2, token=task.passes.token)
                predicted[held] = probe.predict(features[held])
                fitted.append(float((probe.predict(features[~held]) == labels[~held]).double().mean()))
                found.done += samples
                if fold == count - 1:
                    found.predicted[site] = predicted
                    found.fitted[site] = sum(fitted) / count
                yield found

    def _made(self, step: Step) -> LinearProbes:
        found, labels = cast("_Found", step), self._labels
        layers = found.layers
        unknown = torch.full((len(labels),), -1)
        predicted = torch.stack([found.predicted.get(layer, unknown) for layer in layers])
        accuracy = (predicted == labels).double().mean(1)
        accuracy[(predicted < 0).any(1)] = torch.nan
        return LinearProbes(
            layers=list(layers),
            accuracy=accuracy.float(),
            stderr=(accuracy * (1 - accuracy) / len(labels)).sqrt().float(),
            fitted=torch.tensor([found.fitted.get(layer, torch.nan) for layer in layers]),
            chance=found.chance,
            predicted=predicted,
            features=[found.features.get(layer, 0) for layer in layers],
            samples=len(labels),
            classes=len(_classes(labels)),
            folds=min(self._fold_count, len(labels)),
            progress=self.progress,
            seconds=self.seconds,
            forward_passes=0 if self._task is None else self._task.passes.forward_passes,
            epoch=self.epoch,
        )

    def _release(self) -> None:
        self._task = None


@dataclass
class _Found:
    """What there is after a piece of work."""

    done: int
    total: int
    layers: list[str]
    chance: float
    features: dict[str, int] = field(default_factory=dict)
    predicted: dict[str, Tensor] = field(default_factory=dict)
    fitted: dict[str, float] = field(default_factory=dict)


def _first(leaf: Any, samples: int) -> Any:
    batched = isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == samples
    return leaf[:_LOOKED_AT] if batched else leaf


def pool(value: Tensor, axis: int) -> Tensor:
    """Return the mean of each channel over all positions, ``[N, C]``, float64 on the CPU."""
    axis %= value.dim()
    others = [i for i in range(1, value.dim()) if i != axis]
    values = value.cpu().double()
    return values.mean(others) if others else values


def fold_of(labels: Tensor, folds: int, seed: int) -> Tensor:
    """Return which fold holds each sample out, ``[N]``: as many of each class in each as can be."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    ordered = shuffled[labels[shuffled].argsort(stable=True)]
    found = torch.empty_like(labels)
    found[ordered] = torch.arange(len(labels)) % folds
    return found


class Probe:
    """A softmax regression on standardised features, fitted in float64.

    It minimises the sum of the cross entropies and ``l2 / 2`` times the squares of the weights, which has one
    minimum: the result does not depend on where the search begins.

    Parameters
    ----------
    features : Tensor
        ``[N, D]``, float64.
    labels : Tensor
        ``[N]``.
    l2 : float
        Above 0.
    token : CancelToken
        Looked at at every step.
    """

    def __init__(self, features: Tensor, labels: Tensor, *, l2: float, token: CancelToken) -> None:
        self.classes = _classes(labels)
        index = torch.searchsorted(self.classes, labels)
        self._mean, spread = features.mean(0), features.std(0, correction=0)
        self._spread = torch.where(spread > 0, spread, 1.0)
        scaled = (features - self._mean) / self._spread
        # The weights that the penalty leaves are sums of samples: no more directions than there are of these.
        turn = torch.linalg.svd(scaled, full_matrices=False)[2] if scaled.shape[1] > len(scaled) else None
        rows = scaled if turn is None else scaled @ turn.T
        weight, self.bias = _minimum(rows, index, len(self.classes), l2, token)
        self.weight = weight if turn is None else weight @ turn

    def scores(self, features: Tensor) -> Tensor:
        """Return the logit of each of `classes`, ``[N, K]``."""
        scaled = (features - self._mean) / self._spread
        return scaled @ self.weight.T + self.bias

    def predict(self, features: Tensor) -> Tensor:
        """Return the likeliest class of each row, ``[N]``."""
        return self.classes[self.scores(features).argmax(1)]


def _minimum(
    rows: Tensor, index: Tensor, classes: int, l2: float, token: CancelToken
) -> tuple[Tensor, Tensor]:
    """Return weights ``[K, D]`` and biases ``[K]`` of a softmax regression, by Newton's method.

    Each step is solved by conjugate gradients: the matrix of second derivatives, ``(K D) ** 2`` numbers, is
    never made.
    """
    known = torch.cat((rows, rows.new_ones(len(rows), 1)), 1)
    penalty = torch.full((known.shape[1], 1), l2, dtype=rows.dtype)
    penalty[-1] = 0.0  # of the bias
    truth = nn.functional.one_hot(index, classes).to(rows.dtype)
    weight = rows.new_zeros(known.shape[1], classes)

    def loss(weight: Tensor) -> float:
        entropy = -(torch.log_softmax(known @ weight, 1) * truth).sum()
        return float(entropy + 0.5 * (penalty * weight.square()).sum())

    value = loss(weight)
    for _ in range(_STEPS):
        shares = torch.softmax(known @ weight, 1)
        slope = known.T @ (shares - truth) + penalty * weight

        def curve(way: Tensor, shares: Tensor = shares) -> Tensor:
            moved = shares * (known @ way)
            return known.T @ (moved - shares * moved.sum(1, keepdim=True)) + penalty * way

        steep = float(slope.norm())
        if steep <= _FLAT * len(rows):
            break
        step = _solved(curve, slope, min(0.1, sqrt(steep)) * steep, token)
        descent, length = float((slope * step).sum()), 1.0
        while (after := loss(weight - length * step)) > value - 1e-4 * length * descent and length > 1e-6:
            length /= 2
        if after >= value:
            break  # flat as far as float64 can tell
        weight, value = weight - length * step, after
    return weight[:-1].T, weight[-1]


def _solved(curve: Callable[[Tensor], Tensor], slope: Tensor, enough: float, token: CancelToken) -> Tensor:
    """Return a step with ``curve(step) = slope``, nearly: by conjugate gradients."""
    step = torch.zeros_like(slope)
    rest, way = slope.clone(), slope.clone()
    left = float(rest.square().sum())
    for _ in range(_STEPS):
        token.check()
        bent = curve(way)
        length = left / float((way * bent).sum())
        step += length * way
        rest -= length * bent
        before, left = left, float(rest.square().sum())
        if sqrt(left) <= enough:
            break
        way = rest + left / before * way
    return step
