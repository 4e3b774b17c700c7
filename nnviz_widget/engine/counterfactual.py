"""What would have to change for another answer: the smallest step along a gradient, FGSM and PGD.

Each keeps a budget that can be seen: no value moves further than `epsilon` (L-inf), or all together no
further than that (L2). In L-inf, signs, steps and projections are those of the papers and of
``captum.robust``; in L2 the steps go along the gradient itself.

I. Goodfellow et al. 2015, arXiv:1412.6572 (FGSM); A. Madry et al. 2018, arXiv:1706.06083 (PGD).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._pytree import tree_map

from nnviz_widget.engine.admission import prepared
from nnviz_widget.engine.attribution.targets import scores_of
from nnviz_widget.engine.passes import Passes
from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.recording import tensors_of
from nnviz_widget.engine.streaming import Stream
from nnviz_widget.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.streaming import Call, Step
    from nnviz_widget.engine.twin import Twin

__all__ = ["METHODS", "NORMS", "Aim", "Counterfactual", "CounterfactualStream", "asked"]

METHODS = ("gradient", "fgsm", "pgd")
NORMS = ("linf", "l2")
_DEFAULTS: Mapping[str, Any] = {
    "method": "pgd",
    "norm": "linf",
    "epsilon": 8 / 255,
    "step_size": None,
    "steps": 40,
    "lower": float("-inf"),
    "upper": float("inf"),
}
#: How often the smallest step is halved: it is then known to a thousandth of the budget.
_HALVINGS = 10


@dataclass(frozen=True)
class Aim:
    """What is asked, checked; as `Engine.counterfactual` takes it.

    Attributes
    ----------
    source : Tensor
        The input that is changed, ``[N, ...]``.
    target : Tensor or None
        Class wanted of each sample, ``[N]``; None for any other than the present one.
    method, norm, steps
        As given.
    epsilon, step_size : Tensor
        Budget and step, numbers or one for each channel, that the input can be multiplied with.
    lower, upper : Tensor
        Ends of the range of the inputs.
    """

    source: Tensor
    target: Tensor | None
    method: str
    norm: str
    epsilon: Tensor
    step_size: Tensor
    steps: int
    lower: Tensor
    upper: Tensor


@dataclass(frozen=True)
class Counterfactual:
    """An input that was changed a little.

    Attributes
    ----------
    values : Tensor
        The changed input, ``[N, ...]``.
    perturbation : Tensor
        What was added to it.
    predicted : Tensor
        Class of each sample now, ``[N]``.
    success : Tensor
        Whether that is the one that was wanted, ``[N]``.
    scores : Tensor
        All logits now, ``[N, K]``.
    linf, l2 : Tensor
        Size of the perturbation, ``[N]``: its largest value, and its length.
    target : Tensor or None
        What was wanted.
    step, steps : int
        How far, and of how many.
    seconds : float
        Wall time spent in the engine.
    epoch : int
        Of the weights.
    """

    values: Tensor
    perturbation: Tensor
    predicted: Tensor
    success: Tensor
    scores: Tensor
    linf: Tensor
    l2: Tensor
    target: Tensor | None
    step: int
    steps: int
    seconds: float
    epoch: int

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return self.step / self.steps


@dataclass(frozen=True)
class _Made:
    done: int
    total: int
    values: Tensor
    scores: Tensor
    wanted: Tensor | None
    before: Tensor


class CounterfactualStream(Stream[Counterfactual]):
    """The changed input, step by step; the last is the result.

    Parameters
    ----------
    call : callable
        Runs a function of a cancel token on the engine's thread and returns what it returns.
    twin : Twin
        The model.
    args, kwargs
        As the model takes them, on its device.
    aim : Aim
        What to do with which of them.
    """

    def __init__(
        self, call: Call, twin: Twin, args: tuple[Any, ...], kwargs: Mapping[str, Any], aim: Aim
    ) -> None:
        super().__init__(call, twin)
        self._args, self._kwargs, self._aim = args, dict(kwargs), aim

    def _start(self, module: nn.Module, token: CancelToken) -> Iterator[Step]:
        run = record(module, self._args, self._kwargs, keep=None, token=token)
        search = _Search(Passes(module, token, plain=run.harmless), self._args, self._kwargs, self._aim)
        return search.smallest() if self._aim.method == "gradient" else search.descend()

    def _made(self, step: Step) -> Counterfactual:
        made = cast("_Made", step)
        perturbation = made.values - self._aim.source
        flat = perturbation.flatten(1)
        predicted = made.scores.argmax(1)
        wanted = made.wanted
        return Counterfactual(
            values=made.values,
            perturbation=perturbation,
            predicted=predicted,
            success=predicted != made.before if wanted is None else predicted == wanted,
            scores=made.scores,
            linf=flat.abs().amax(1),
            l2=flat.norm(dim=1),
            target=wanted,
            step=made.done,
            steps=made.total,
            seconds=self.seconds,
            epoch=self.epoch,
        )


class _Search:
    """One search, on one model."""

    def __init__(self, passes: Passes, args: tuple[Any, ...], kwargs: Mapping[str, Any], aim: Aim) -> None:
        self.passes = passes
        self.args = args
        self.kwargs = kwargs
        self.aim = aim
        self.rows = len(aim.source)
        self.before = self.run(aim.source).argmax(1)

    def run(self, values: Tensor, *, grad: bool = False) -> Tensor:
        """Return the logits of changed inputs, ``[N, K]``."""
        source = self.aim.source
        args, kwargs = tree_map(
            lambda leaf: values if leaf is source else leaf, (self.args, dict(self.kwargs))
        )
        output, _ = self.passes.forward(args, kwargs, self.rows, grad=grad)
        scores = scores_of(output)
        if scores.dim() != 2 or scores.shape[1] < 2:
            raise InputError(f"The output has the shape {tuple(scores.shape)}, which are no classes.")
        target = self.aim.target
        if target is not None and int(target.max()) >= scores.shape[1]:
            raise InputError(
                f"target={int(target.max())} does not exist; the model has {scores.shape[1]} classes."
            )
        return scores if grad else scores.detach()

    def gradient(self, values: Tensor) -> Tensor:
        """Return which way to go: towards the class that is wanted, or away from the present one."""
        leaf = values.detach().requires_grad_()
        scores = self.run(leaf, grad=True)
        target = self.aim.target
        with torch.enable_grad():
            loss = cross_entropy(scores, self.before if target is None else target, reduction="none")
        (found,) = self.passes.gradients(loss, (leaf,))
        return found if target is None else -found

    def stepped(self, values: Tensor, size: Tensor) -> Tensor:
        """Return inputs after one step of this size."""
        way = self.gradient(values)
        way = way.sign() if self.aim.norm == "linf" else _unit(way)
        return self.bounded(values + size * way)

    def bounded(self, values: Tensor) -> Tensor:
        """Cut off what no input can be."""
        return values.clamp(self.aim.lower, self.aim.upper)

    def projected(self, values: Tensor) -> Tensor:
        """Return the nearest inputs within the budget."""
        aim = self.aim
        way = values - aim.source
        if aim.norm == "linf":
            return aim.source + torch.maximum(torch.minimum(way, aim.epsilon), -aim.epsilon)
        # A budget for each channel is one in units of that channel.
        way = way / aim.epsilon
        return aim.source + aim.epsilon * way / _length(way).clamp(min=1)

    def descend(self) -> Iterator[_Made]:
        """FGSM in one step, PGD in many."""
        aim = self.aim
        values, steps = aim.source, 1 if aim.method == "fgsm" else aim.steps
        for step in range(1, steps + 1):
            size = aim.epsilon if aim.method == "fgsm" else aim.step_size
            values = self.bounded(self.projected(self.stepped(values, size))).detach()
            yield self.made(step, steps, values)

    def smallest(self) -> Iterator[_Made]:
        """Find the smallest step along the gradient of the input as it is that changes the answer."""
        aim = self.aim
        way = self.gradient(aim.source)
        way = way.sign() if aim.norm == "linf" else _unit(way)
        shape = (-1, *[1] * (way.dim() - 1))
        low = torch.zeros(self.rows, dtype=way.dtype, device=way.device)
        high = torch.ones_like(low)
        found = self.bounded(aim.source + aim.epsilon * way)
        for step in range(_HALVINGS + 1):
            middle = high if step == 0 else (low + high) / 2
            tried = self.bounded(aim.source + middle.reshape(shape) * aim.epsilon * way)
            hit = self.hit(self.run(tried))
            if step == 0:
                reached = hit
            found = torch.where(hit.reshape(shape), tried, found)
            high, low = torch.where(hit, middle, high), torch.where(hit, low, middle)
            # Where the whole budget is too small there is nothing to look for.
            high = torch.where(reached, high, torch.ones_like(high))
            yield self.made(step + 1, _HALVINGS + 1, found)

    def hit(self, scores: Tensor) -> Tensor:
        """Whether the answer is the one that was wanted."""
        predicted = scores.argmax(1)
        return predicted != self.before if self.aim.target is None else predicted == self.aim.target

    def made(self, step: int, steps: int, values: Tensor) -> _Made:
        """Describe where it is."""
        return _Made(step, steps, values, self.run(values), self.aim.target, self.before)


def _unit(way: Tensor) -> Tensor:
    return way / _length(way).clamp(min=torch.finfo(way.dtype).tiny)


def _length(way: Tensor) -> Tensor:
    """Return the length of each sample, shaped to be divided by."""
    length: Tensor = torch.linalg.vector_norm(way.flatten(1), dim=1)
    return length.reshape(-1, *[1] * (way.dim() - 1))


def asked(
    inputs: Any, target: Any, options: Mapping[str, Any], device: torch.device | None
) -> tuple[tuple[Any, ...], dict[str, Any], Aim]:
    """Check what was asked; returns the model's arguments, on its device, and what to do with them.

    Parameters
    ----------
    inputs, target, options
        As `Engine.counterfactual` takes them.
    device : device, optional
        Where the model is.
    """
    unknown = sorted(options.keys() - _DEFAULTS.keys())
    if unknown:
        raise InputError(f"There is no option {unknown[0]!r}.{nearest(unknown[0], _DEFAULTS)}")
    args = () if isinstance(inputs, Mapping) else inputs if isinstance(inputs, tuple) else (inputs,)
    args, kwargs = prepared(args, dict(inputs) if isinstance(inputs, Mapping) else {}, device)
    source = next((t for _, t in tensors_of((args, kwargs)) if t.is_floating_point()), None)
    if source is None:
        raise InputError("Only inputs of floating point can be changed a little.")
    return args, kwargs, _aim(source, target, {**_DEFAULTS, **options})


def _aim(source: Tensor, target: Any, options: Mapping[str, Any]) -> Aim:
    method, norm, steps = options["method"], options["norm"], options["steps"]
    for name, value, known in (("method", method, METHODS), ("norm", norm, NORMS)):
        if value not in known:
            raise InputError(f"{name}={value!r} is unknown.", hint=f"Choose one of {', '.join(known)}.")
    if type(steps) is not int or steps < 1:
        raise InputError(f"steps is a whole number from 1, not {steps!r}.")
    if not source.is_floating_point() or source.dim() < 2:
        raise InputError("Only inputs of floating point with a batch axis can be changed a little.")
    epsilon = _number("epsilon", options["epsilon"], source)
    given = options["step_size"]
    step_size = epsilon * (2.5 / steps) if given is None else _number("step_size", given, source)
    if not bool((epsilon > 0).all()) or not bool((step_size > 0).all()):
        raise InputError("epsilon and step_size must be larger than 0.")
    lower = _number("lower", options["lower"], source)
    upper = _number("upper", options["upper"], source)
    classes = None
    if target is not None:
        classes = torch.as_tensor(target, device=source.device).long().flatten()
        classes = classes.expand(len(source)) if len(classes) == 1 else classes
        if len(classes) != len(source) or int(classes.min()) < 0:
            raise InputError(f"target={target!r} does not name one class for each of {len(source)} samples.")
    return Aim(source, classes, method, norm, epsilon, step_size, steps, lower, upper)


def _number(name: str, value: Any, source: Tensor) -> Tensor:
    """Return a number, or one for each channel, as a tensor that fits the input."""
    found = torch.as_tensor(value, dtype=source.dtype, device=source.device)
    if found.dim() == 0:
        return found
    if found.dim() != 1 or found.shape[0] != source.shape[1]:
        raise InputError(
            f"{name} has the shape {tuple(found.shape)}; give a number, or one for each channel."
        )
    return found.reshape(-1, *[1] * (source.dim() - 2))
