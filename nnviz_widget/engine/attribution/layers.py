"""Layers instead of inputs: how much each unit of a layer speaks for the target, or what a unit itself sees.

Values have the shape of what the layer gave. All run along a path from a baseline to the input, as integrated
gradients do; they differ in what they follow on it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnviz_widget.engine.attribution.gradients import precise
from nnviz_widget.engine.attribution.integrated import completeness, integrated_gradients, path_points
from nnviz_widget.engine.attribution.registry import method
from nnviz_widget.engine.attribution.result import Part
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nnviz_widget.engine.attribution.task import Task

    #: What one pass gives: for rows and their steps, one tensor ``[B, ...]`` to add up.
    Pass = Callable[[Tensor, Tensor], Tensor]

__all__: list[str] = []

#: The path is first walked in so many strides, then the gaps are filled.
_STRIDES = 8


@method("layer_gradient_x_activation", cost="F + B", family="layer", shape="layer")
def layer_gradient_x_activation(task: Task, *, layer: Any = None) -> Iterator[Part]:
    """Multiply what a layer gave by its gradient: each unit's share, if all after it were linear.

    Options
    -------
    layer : str or nn.Module
        Dotted path, ``path@call`` or module.
    """
    values, gradients = _layer(task, layer, task.inputs, task.every)
    yield Part(1, 1, lambda: (values * gradients,))


@method(
    "layer_integrated_gradients",
    cost="n_steps (F + B)",
    family="layer",
    shape="layer",
    paper="Sundararajan et al. 2017, arXiv:1703.01365",
)
def layer_integrated_gradients(
    task: Task,
    *,
    layer: Any = None,
    baselines: Any = "zero",
    n_steps: int = 50,
    quadrature: str = "midpoint",
    internal_batch_size: Any = "auto",
    seed: int = 0,
) -> Iterator[Part]:
    """Integrate gradients of a layer, from what it gives for a baseline to what it gives for the input.

    The way is straight inside the layer, while everything beside it stays what it is for the input; the
    error is that of this way, ``sum(values) - (F(x) - F(x with the layer's value for the baseline))``.

    Options
    -------
    layer : str or nn.Module
        Dotted path, ``path@call`` or module.
    baselines, n_steps, quadrature, internal_batch_size, seed
        As of integrated_gradients; the baseline is one of the input.
    """
    begin, end = (
        precise(_same_batch(task.read([_required(layer)], tensors, task.every)[0], task.samples, layer))
        for tensors in (task.baselines(baselines, seed), task.inputs)
    )
    given = task.read([layer], task.inputs, task.every)[0].dtype
    way = end - begin
    alphas, _ = path_points(n_steps, quadrature)

    def one(rows: Tensor, steps: Tensor) -> Tensor:
        at = rows.to(way.device)
        alpha = _each(alphas[steps].to(way), way)
        point = (begin[at] + alpha * way[at]).to(given).requires_grad_()
        tensors = [x[rows.to(x.device)] for x in task.inputs]
        scores, _, _ = task.run(tensors, rows, edits={_key(layer): lambda _: point.clone()}, grad=True)
        (gradient,) = task.passes.gradients(scores, [point])
        return precise(gradient)

    replaced = {_key(layer): lambda _: begin.to(given, copy=True)}
    change = task.scores(task.inputs, task.every) - task.run(task.inputs, task.every, edits=replaced)[0]
    change = precise(change.detach())
    yield from _mean(task, n_steps, quadrature, one, size=internal_batch_size, way=way, change=change)


@method(
    "internal_influence",
    cost="n_steps (F + B)",
    family="layer",
    shape="layer",
    paper="Leino et al. 2018, arXiv:1802.03788",
)
def internal_influence(
    task: Task,
    *,
    layer: Any = None,
    baselines: Any = "zero",
    n_steps: int = 50,
    quadrature: str = "midpoint",
    internal_batch_size: Any = "auto",
    seed: int = 0,
) -> Iterator[Part]:
    """Average the gradient on a layer while the input goes from a baseline to itself.

    Options
    -------
    layer : str or nn.Module
        Dotted path, ``path@call`` or module.
    baselines, n_steps, quadrature, internal_batch_size, seed
        As of integrated_gradients.
    """
    path = _Path(task, task.baselines(baselines, seed), path_points(n_steps, quadrature)[0])

    def one(rows: Tensor, steps: Tensor) -> Tensor:
        return _layer(task, layer, path.at(rows, steps), rows)[1]

    yield from _mean(task, n_steps, quadrature, one, size=internal_batch_size)


@method(
    "layer_conductance",
    cost="(n_steps + 1) (F + B)",
    family="layer",
    shape="layer",
    paper="Dhamdhere et al. 2018, arXiv:1805.12233",
)
def layer_conductance(
    task: Task,
    *,
    layer: Any = None,
    baselines: Any = "zero",
    n_steps: int = 50,
    quadrature: str = "even",
    internal_batch_size: Any = "auto",
    seed: int = 0,
) -> Iterator[Part]:
    """Follow integrated gradients through a layer: how much of the change each unit of it passes on.

    Options
    -------
    layer : str or nn.Module
        Dotted path, ``path@call`` or module.
    baselines : str, number, Tensor or tuple
        Where the way begins.
    n_steps : int
        Steps on the way, between one point more.
    quadrature : str
        ``"even"``: points at even distances, both ends included, and the mean gradient of each step. Or
        ``"gausslegendre"``: Captum's points, which leave out both ends, and the gradient where a step begins.
    internal_batch_size : int or "auto"
        Rows in one pass.
    seed : int
        Of a baseline of noise.
    """
    if quadrature == "even":
        path_points(n_steps, "midpoint")  # for its errors
        alphas, shares = torch.linspace(0, 1, n_steps + 1, dtype=torch.float64), (0.5, 0.5)
    else:
        alphas = path_points(n_steps, quadrature)[0]
        if quadrature != "gausslegendre":
            raise InputError(f"quadrature is 'even' or 'gausslegendre' here, not {quadrature!r}.")
        alphas, shares = path_points(n_steps + 1, quadrature)[0].sort().values, (1.0, 0.0)
    starts = task.baselines(baselines, seed)
    path = _Path(task, starts, alphas)
    change = precise(task.scores(task.inputs, task.every)) - precise(task.scores(starts, task.every))
    chain = _Chain(n_steps + 1, task.samples, shares)
    order = chain.order()
    total = len(order) * task.samples

    def work(start: int, stop: int) -> None:
        at = torch.arange(start, stop)
        rows, points = at % task.samples, order[at // task.samples]
        values, gradients = _layer(task, layer, path.at(rows, points), rows)
        chain.add(points, rows, values, gradients)

    for _, stop, _ in task.batched(
        total, work, size=internal_batch_size, kind="layer gradient", first=3 * task.samples
    ):
        if stop >= 2 * task.samples:

            def values() -> tuple[Tensor, ...]:
                return (chain.total(),)

            yield Part(stop, total, values, delta=lambda: completeness((chain.total(),), change))


@method(
    "neuron_integrated_gradients",
    cost="n_steps (F + B)",
    family="layer",
    paper="Shrikumar et al. 2018, arXiv:1807.09946",
)
def neuron_integrated_gradients(
    task: Task,
    *,
    layer: Any = None,
    neuron: Any = None,
    baselines: Any = "zero",
    n_steps: int = 50,
    quadrature: str = "midpoint",
    internal_batch_size: Any = "auto",
    seed: int = 0,
) -> Iterator[Part]:
    """Integrate gradients of one unit inside the model: what in the input made it as active as it is.

    Options
    -------
    layer : str or nn.Module
        Dotted path, ``path@call`` or module.
    neuron : int, tuple of int or callable
        Index into what the layer gave for one sample, or a function from what it gave to one number per
        row. The target is not looked at.
    baselines, n_steps, quadrature, internal_batch_size, seed
        As of integrated_gradients.
    """
    task.explain_unit(_required(layer), neuron)
    yield from integrated_gradients(
        task,
        baselines=baselines,
        n_steps=n_steps,
        quadrature=quadrature,
        internal_batch_size=internal_batch_size,
        seed=seed,
    )


class _Path:
    """Points on the straight way from baselines to the inputs."""

    def __init__(self, task: Task, starts: tuple[Tensor, ...], alphas: Tensor) -> None:
        self._starts = starts
        self._ways = [x - start for x, start in zip(task.inputs, starts, strict=True)]
        self._alphas = alphas

    def at(self, rows: Tensor, steps: Tensor) -> list[Tensor]:
        """Return the inputs of each row at its step."""
        points = []
        for begin, way in zip(self._starts, self._ways, strict=True):
            at = rows.to(way.device)
            points.append(begin[at] + _each(self._alphas[steps].to(way), way) * way[at])
        return points


class _Chain:
    """Sum of gradient times change over neighbouring points of a path, whatever the order of their visits.

    Points that were visited but have gaps between them stand for a coarser path. What no later point can
    change is added up and let go.

    Parameters
    ----------
    points : int
        On the path.
    samples : int
        N.
    shares : tuple of float
        How the gradients at both ends of a step are weighted.
    """

    def __init__(self, points: int, samples: int, shares: tuple[float, float]) -> None:
        self._points, self._samples, self._shares = points, samples, shares
        self._seen = [0] * points
        self._held: dict[int, tuple[Tensor, Tensor]] = {}
        self._sum: Tensor | None = None
        self._ended: set[int] = set()

    def order(self) -> Tensor:
        """Return the points in a good order for partial sums: strides over all of the path, then the gaps."""
        last = self._points - 1
        stride = max(1, last // _STRIDES)
        coarse = list(dict.fromkeys([0, last, *range(stride, last, stride)]))
        return torch.tensor(coarse + [point for point in range(last) if point not in set(coarse)])

    def add(self, points: Tensor, rows: Tensor, values: Tensor, gradients: Tensor) -> None:
        """Take what a layer gave, and the gradient on it, at a point of the path of a sample."""
        for point, row, value, gradient in zip(
            points.tolist(), rows.tolist(), values, gradients, strict=True
        ):
            if point not in self._held:
                empty = value.new_zeros(self._samples, *value.shape)
                self._held[point] = (empty, empty.clone())
            self._held[point][0][row], self._held[point][1][row] = value, gradient
            self._seen[point] += 1
        self._fold()

    def total(self) -> Tensor:
        """Return the sum over the points that are known for all samples, ``[N, ...]``."""
        known = sorted(point for point in self._held if self._seen[point] == self._samples)
        found = self._sum.clone() if self._sum is not None else torch.zeros_like(self._held[known[0]][0])
        for left, right in pairwise(known):
            if left not in self._ended:
                found += self._step(left, right)
        return found

    def _step(self, left: int, right: int) -> Tensor:
        (before, slope), (after, next_slope) = self._held[left], self._held[right]
        mean = self._shares[0] * slope + self._shares[1] * next_slope
        return mean * (after - before)

    def _fold(self) -> None:
        """Add up the steps between neighbours that are both known, and drop points that no step needs."""
        whole = [seen == self._samples for seen in self._seen]
        for left in range(self._points - 1):
            if left not in self._ended and whole[left] and whole[left + 1]:
                step = self._step(left, left + 1)
                self._sum = step if self._sum is None else self._sum + step
                self._ended.add(left)
        for point in list(self._held):
            if whole[point] and point in self._ended and (point == 0 or point - 1 in self._ended):
                del self._held[point]


def _mean(
    task: Task,
    count: int,
    quadrature: str,
    one: Pass,
    *,
    size: Any,
    way: Tensor | None = None,
    change: Tensor | None = None,
) -> Iterator[Part]:
    """Average over a quadrature what one pass gives for each step; multiplied by `way` where there is one."""
    _, weights = path_points(count, quadrature)
    gathered: list[Tensor] = []
    done = torch.zeros(task.samples, dtype=torch.float64)
    total = count * task.samples

    def work(start: int, stop: int) -> None:
        at = torch.arange(start, stop)
        rows, steps = at % task.samples, at // task.samples
        found = one(rows, steps)
        if not gathered:
            gathered.append(found.new_zeros(task.samples, *found.shape[1:]))
        done.index_add_(0, rows, weights[steps])
        weight = _each(weights[steps].to(found), found)
        gathered[0].index_add_(0, rows.to(found.device), found * weight)

    def values() -> tuple[Tensor, ...]:
        mean = gathered[0] / _each(done.to(gathered[0]), gathered[0])
        return (mean if way is None else way * mean,)

    delta = None if change is None else lambda: completeness(values(), change)
    for _, stop, _ in task.batched(total, work, size=size, kind="layer gradient", first=task.samples):
        if stop >= task.samples:
            yield Part(stop, total, values, delta=delta)


def _layer(task: Task, layer: Any, tensors: Sequence[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a layer gave for each row, and the gradient on it."""
    _, (value,), (gradient,) = task.layer_gradients([_required(layer)], tensors, rows)
    return precise(_same_batch(value, len(rows), layer)), precise(gradient)


def _required(layer: Any) -> Any:
    if layer is None:
        raise InputError(
            "This method explains a layer; say which one with layer=.",
            hint="A dotted path such as 'layer4', a node id, or the module.",
        )
    return layer


def _key(layer: Any) -> str:
    return str(layer)


def _same_batch(value: Tensor, rows: int, layer: Any) -> Tensor:
    if value.shape[:1] != (rows,):
        raise InputError(
            f"The layer {layer!r} gives {tuple(value.shape)} for {rows} sample(s), and does not begin with "
            "the axis of the samples.",
            hint="Choose a layer around it.",
        )
    return value


def _each(numbers: Tensor, like: Tensor) -> Tensor:
    """Return one number per row, shaped to multiply rows of `like`."""
    return numbers.reshape(-1, *[1] * (like.dim() - 1))
