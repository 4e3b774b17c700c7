"""Gradients on the input, plain and averaged over noise.

Maps are signed; the absolute value that the paper of saliency takes is a choice of the picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnviz_widget.engine.attribution.registry import method
from nnviz_widget.engine.attribution.result import Part
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nnviz_widget.engine.attribution.task import Task

__all__: list[str] = []


@method("saliency", cost="F + B", family="gradient", paper="Simonyan et al. 2013, arXiv:1312.6034")
def saliency(task: Task) -> Iterator[Part]:
    """Take the gradient, signed: how the score changes with each input value."""
    _, gradients = task.gradients(task.inputs, task.every)
    yield Part(task.samples, task.samples, lambda: tuple(precise(g) for g in gradients))


@method("input_x_gradient", cost="F + B", family="gradient", paper="Shrikumar et al. 2016, arXiv:1605.01713")
def input_x_gradient(task: Task) -> Iterator[Part]:
    """Multiply gradient and input: each value's share of a linear model."""
    _, gradients = task.gradients(task.inputs, task.every)
    pairs = zip(task.inputs, gradients, strict=True)
    values = tuple(precise(x) * precise(g) for x, g in pairs)
    yield Part(task.samples, task.samples, lambda: values)


@method(
    "smooth_grad", cost="nt_samples (F + B)", family="gradient", paper="Smilkov et al. 2017, arXiv:1706.03825"
)
def smooth_grad(
    task: Task,
    *,
    nt_samples: int = 25,
    stdevs: float | tuple[float, ...] = 0.15,
    relative: bool = True,
    internal_batch_size: Any = "auto",
    seed: int = 0,
) -> Iterator[Part]:
    """Average the gradient over noisy copies of the input.

    Options
    -------
    nt_samples : int
        Noisy copies of each sample.
    stdevs : float, or one for each input
        Spread of the Gaussian noise.
    relative : bool
        Whether `stdevs` is a share of the sample's own range; else it is in units of the input.
    internal_batch_size : int or "auto"
        Rows in one pass.
    seed : int
        Of the noise.
    """
    noise = _Noise(task.inputs, _spreads(task, stdevs, relative), seed)
    yield from _noisy(task, noise, nt_samples, internal_batch_size, "mean")


@method(
    "smooth_grad_squared",
    cost="nt_samples (F + B)",
    family="gradient",
    paper="Hooker et al. 2018, arXiv:1806.10758",
)
def smooth_grad_squared(
    task: Task,
    *,
    nt_samples: int = 25,
    stdevs: float | tuple[float, ...] = 0.15,
    relative: bool = True,
    internal_batch_size: Any = "auto",
    seed: int = 0,
) -> Iterator[Part]:
    """Average the squared gradient over noisy copies of the input (options of smooth_grad)."""
    noise = _Noise(task.inputs, _spreads(task, stdevs, relative), seed)
    yield from _noisy(task, noise, nt_samples, internal_batch_size, "square")


@method(
    "var_grad", cost="nt_samples (F + B)", family="gradient", paper="Adebayo et al. 2018, arXiv:1810.03292"
)
def var_grad(
    task: Task,
    *,
    nt_samples: int = 25,
    stdevs: float | tuple[float, ...] = 0.15,
    relative: bool = True,
    internal_batch_size: Any = "auto",
    seed: int = 0,
) -> Iterator[Part]:
    """Take the variance of the gradient over noisy copies of the input (options of smooth_grad)."""
    noise = _Noise(task.inputs, _spreads(task, stdevs, relative), seed)
    yield from _noisy(task, noise, nt_samples, internal_batch_size, "variance")


def _noisy(task: Task, noise: _Noise, count: int, size: Any, kind: str) -> Iterator[Part]:
    if type(count) is not int or count < 1:
        raise InputError(f"nt_samples is a whole number from 1, not {count!r}.")
    moments = [Moments(x, task.samples) for x in task.inputs]
    total = count * task.samples

    def work(start: int, stop: int) -> None:
        rows = torch.arange(start, stop) % task.samples
        tensors = noise.rows(start, stop)
        _, gradients = task.gradients(tensors, rows)
        for moment, gradient in zip(moments, gradients, strict=True):
            moment.add(precise(gradient).square() if kind == "square" else precise(gradient), rows)

    def make(value: Callable[[Moments], Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        return lambda: tuple(value(moment) for moment in moments)

    for _, stop, _ in task.batched(total, work, size=size, kind="gradient"):
        if stop < task.samples:
            continue  # not yet one copy of every sample
        if kind == "variance":
            yield Part(stop, total, make(lambda moment: moment.variance()))
        else:
            yield Part(stop, total, make(lambda m: m.mean()), stderr=make(lambda m: m.stderr()))


class _Noise:
    """Noisy copies, row by row the same whatever the size of the chunks."""

    def __init__(self, inputs: tuple[Tensor, ...], spreads: list[Tensor], seed: int) -> None:
        self._inputs, self._spreads = inputs, spreads
        self._random = Rewinding(seed)

    def rows(self, start: int, stop: int) -> list[Tensor]:
        generator = self._random.at(start)
        made: list[list[Tensor]] = [[] for _ in self._inputs]
        for row in range(start, stop):
            for i, (x, spread) in enumerate(zip(self._inputs, self._spreads, strict=True)):
                sample = row % x.shape[0]
                # Drawn on the CPU, so that a seed means the same noise on every device.
                drawn = torch.randn(x.shape[1:], generator=generator, dtype=torch.float32)
                made[i].append(x[sample] + drawn.to(x.device, x.dtype) * spread[sample])
        return [torch.stack(rows) for rows in made]


class Rewinding:
    """Random numbers on the CPU that are the same again for a chunk that did not fit and is tried smaller.

    Parameters
    ----------
    seed : int
        Of all of them.
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._start, self._state = 0, self._generator.get_state()

    def at(self, start: int) -> torch.Generator:
        """Return the generator as it is before row `start`; rows are drawn in order."""
        if start == self._start:
            self._generator.set_state(self._state)
        else:
            self._start, self._state = start, self._generator.get_state()
        return self._generator


class Moments:
    """Running mean and variance of each element over the rows of each sample.

    Parameters
    ----------
    like : Tensor
        ``[N, ...]``, what rows look like.
    samples : int
        N.
    """

    def __init__(self, like: Tensor, samples: int) -> None:
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        self.count = torch.zeros(samples, *[1] * (like.dim() - 1), dtype=dtype, device=like.device)
        self._mean = torch.zeros(like.shape, dtype=dtype, device=like.device)
        self._squares = torch.zeros_like(self._mean)

    def add(self, values: Tensor, rows: Tensor) -> None:
        """Take one row of values for each entry of `rows`."""
        rows = rows.to(values.device)
        values = values.to(self._mean.dtype)
        # The chunk's own mean and squares, then both sides at once (Chan et al.).
        ones = values.new_ones(len(rows), *self.count.shape[1:])
        count = torch.zeros_like(self.count).index_add_(0, rows, ones)
        mean = torch.zeros_like(self._mean).index_add_(0, rows, values) / count.clamp(min=1)
        squares = torch.zeros_like(self._mean).index_add_(0, rows, (values - mean[rows]).square_())
        together = (self.count + count).clamp(min=1)
        away = mean - self._mean
        self._mean += away * (count / together)
        self._squares += squares + away.square_() * (self.count * count / together)
        self.count += count

    def mean(self) -> Tensor:
        """Return the mean, ``[N, ...]``."""
        return self._mean.clone()

    def variance(self) -> Tensor:
        """Return the mean squared distance from the mean, ``[N, ...]``."""
        return self._squares / self.count.clamp(min=1)

    def stderr(self) -> Tensor:
        """Return the standard error of the mean, ``[N, ...]``; infinite from a single row."""
        several = self._squares / (self.count - 1).clamp(min=1) / self.count.clamp(min=1)
        return torch.where(self.count > 1, several.sqrt(), torch.inf)


def _spreads(task: Task, stdevs: Any, relative: bool) -> list[Tensor]:
    """Return the spread of the noise for each input, ``[N, 1, ...]``."""
    each = stdevs if isinstance(stdevs, (tuple, list)) else (stdevs,) * len(task.inputs)
    if len(each) != len(task.inputs) or not all(isinstance(s, (int, float)) and s >= 0 for s in each):
        raise InputError(f"stdevs={stdevs!r} must be a number from 0, or one for each input.")
    spreads = []
    for x, share in zip(task.inputs, each, strict=True):
        flat = x.reshape(x.shape[0], -1)
        reach = flat.amax(1) - flat.amin(1) if relative else torch.ones_like(flat[:, 0])
        spreads.append((reach * share).reshape(-1, *[1] * (x.dim() - 1)))
    return spreads


def precise(tensor: Tensor) -> Tensor:
    """Return a tensor in which sums are safe: float32 at least."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
