"""The loop of activation maximisation, step by step on the engine's thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from nnviz_widget.engine.attribution.targets import scores_of
from nnviz_widget.engine.maximization.canvas import Canvas
from nnviz_widget.engine.maximization.objectives import objective_of
from nnviz_widget.engine.passes import Passes
from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.streaming import Stream
from nnviz_widget.errors import InputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.maximization.shaking import Shaking
    from nnviz_widget.engine.streaming import Call, Step
    from nnviz_widget.engine.twin import Twin

__all__ = ["Maximization", "MaximizationStream", "Wish"]

_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # of Adam (Kingma and Ba 2014, arXiv:1412.6980)


@dataclass(frozen=True)
class Wish:
    """What is to be maximised, and how; as `Engine.maximize` takes it, checked.

    Attributes
    ----------
    layer : str
        Path of a module, or ``"output"``.
    shape : tuple of int
        ``(B, C, H, W)``.
    aims : dict
        ``channel``, ``unit``, ``direction`` or ``objective``.
    start, invert : Tensor or None
        Pictures in the range of the model's inputs.
    low, high : Tensor
        Ends of that range, ``[C]``.
    dtype : torch.dtype
        Of the model's inputs.
    shaking : Shaking
        How far pictures are moved at each step.
    steps, seed, learning_rate, total_variation, l2, parametrization, decorrelate, decay
        As `Engine.maximize` takes them.
    """

    layer: str
    shape: tuple[int, int, int, int]
    aims: dict[str, Any]
    start: Tensor | None
    invert: Tensor | None
    low: Tensor
    high: Tensor
    dtype: torch.dtype
    shaking: Shaking
    steps: int
    seed: int
    learning_rate: float
    total_variation: float
    l2: float
    parametrization: str
    decorrelate: bool
    decay: float


@dataclass(frozen=True)
class Maximization:
    """Pictures as they form.

    Attributes
    ----------
    images : Tensor
        ``[B, C, H, W]``, in the range of the model's inputs: what the model can be given.
    pictures : Tensor
        The same with values between 0 and 1.
    objective : Tensor
        What was maximised, on the shaken pictures of the last step, ``[B]``.
    step, steps : int
        How many steps are done, and of how many.
    seconds, seconds_left : float
        Wall time spent in the engine so far, and about how much is still to come.
    epoch : int
        Of the weights.
    consistent : bool
        False where the weights moved meanwhile and could not be held still.
    """

    images: Tensor
    pictures: Tensor
    objective: Tensor
    step: int
    steps: int
    seconds: float
    seconds_left: float
    epoch: int
    consistent: bool

    def __repr__(self) -> str:
        return f"Maximization({tuple(self.images.shape)}, step {self.step} of {self.steps})"

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return self.step / self.steps


@dataclass(frozen=True)
class _Made:
    done: int
    total: int
    objective: Tensor
    pictures: Callable[[], tuple[Tensor, Tensor]]


class MaximizationStream(Stream[Maximization]):
    """Pictures as they form; the last are the result.

    Parameters
    ----------
    call : callable
        Runs a function of a cancel token on the engine's thread and returns what it returns.
    twin : Twin
        The model.
    wish : Wish
        What to do.
    every : int
        How many steps lie between two pictures of the iterator; the last is always given.
    """

    def __init__(self, call: Call, twin: Twin, wish: Wish, *, every: int = 1) -> None:
        super().__init__(call, twin)
        if type(every) is not int or every < 1:
            raise InputError(f"every is a whole number of steps from 1, not {every!r}.")
        self._wish, self._every = wish, every

    def __next__(self) -> Maximization:
        while True:
            found = super().__next__()
            if found.step % self._every == 0 or found.step == found.steps:
                return found

    def _start(self, module: nn.Module, token: CancelToken) -> Iterator[Step]:
        wish = self._wish
        passes = Passes(module, token)
        if wish.layer != "output":
            passes.resolve(wish.layer)
        example = torch.zeros(1, *wish.shape[1:], dtype=wish.dtype, device=wish.low.device)
        stop_at = None if wish.layer == "output" else wish.layer
        try:
            run = record(module, (example,), {}, keep=None, token=token, stop_at=stop_at)
        except ModelError as error:
            raise InputError(
                f"The model does not take pictures of the shape {tuple(example.shape)}: {error.message}",
                hint="Pass image_size= and channels= as the model takes them.",
            ) from error
        return _steps(Passes(module, token, plain=run.harmless), wish)

    def _made(self, step: Step) -> Maximization:
        made = cast("_Made", step)
        images, pictures = made.pictures()
        return Maximization(
            images=images,
            pictures=pictures,
            objective=made.objective,
            step=made.done,
            steps=made.total,
            seconds=self.seconds,
            seconds_left=self.seconds_left,
            epoch=self.epoch,
            consistent=self.consistent,
        )


def _steps(passes: Passes, wish: Wish) -> Iterator[Step]:
    generator = torch.Generator().manual_seed(wish.seed)
    canvas = Canvas(
        wish.shape,
        wish.parametrization,
        low=wish.low,
        high=wish.high,
        generator=generator,
        start=wish.start,
        decorrelate=wish.decorrelate,
        decay=wish.decay,
    )
    like = None if wish.invert is None else _activation(passes, wish, wish.invert, grad=False)
    score: Callable[[Tensor], Tensor] | None = None
    adam = _Adam(canvas.parameters, wish.learning_rate)
    for step in range(1, wish.steps + 1):
        leaf = canvas.parameters.detach().requires_grad_()
        with torch.enable_grad():
            pictures = canvas.picture(leaf)
            shaken = wish.shaking(pictures, generator)
            activation = _activation(passes, wish, canvas.inputs(shaken), grad=True)
            if score is None:
                score = objective_of(activation, like=like, **wish.aims)
            found = score(activation).float()
            kept = found - wish.total_variation * _roughness(pictures) - wish.l2 * _contrast(pictures)
        (gradient,) = passes.gradients(kept, [leaf])
        canvas.parameters = adam.ascend(canvas.parameters, gradient)
        # Behind a ReLU, what does not answer at all has no gradient to follow: try it with something else.
        deaf = gradient.flatten(1).abs().amax(1) == 0
        if bool(deaf.any()):
            canvas.parameters = canvas.disturbed(deaf, generator)
        yield _Made(step, wish.steps, found.detach(), _looker(canvas, canvas.parameters))


def _looker(canvas: Canvas, parameters: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    @torch.no_grad()
    def look() -> tuple[Tensor, Tensor]:
        pictures = canvas.picture(parameters)
        return canvas.inputs(pictures), pictures

    return look


def _activation(passes: Passes, wish: Wish, images: Tensor, *, grad: bool) -> Tensor:
    """Return what the layer gives; the model is run no further than that."""
    images = images.to(wish.dtype)
    if wish.layer == "output":
        output, _ = passes.forward((images,), {}, len(images), grad=grad)
        return scores_of(output)
    _, (value,) = passes.forward((images,), {}, len(images), read=[wish.layer], grad=grad, stop=True)
    return value


def _roughness(pictures: Tensor) -> Tensor:
    """Return the mean difference between neighbouring pixels (total variation), ``[B]``."""
    down = pictures.diff(dim=2).abs().flatten(1).mean(1)
    return down + pictures.diff(dim=3).abs().flatten(1).mean(1)


def _contrast(pictures: Tensor) -> Tensor:
    """Return the mean squared distance from grey, ``[B]``."""
    return (pictures - 0.5).square().flatten(1).mean(1)


class _Adam:
    """Adam upwards, without the machinery of ``torch.optim``, which takes seconds to load."""

    def __init__(self, like: Tensor, rate: float) -> None:
        self._rate, self._step = rate, 0
        self._mean, self._square = torch.zeros_like(like), torch.zeros_like(like)

    @torch.no_grad()
    def ascend(self, parameters: Tensor, gradient: Tensor) -> Tensor:
        """Return the parameters after a step up the gradient."""
        self._step += 1
        self._mean.lerp_(gradient, 1 - _BETAS[0])
        self._square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        mean = self._mean / (1 - _BETAS[0] ** self._step)
        size = (self._square / (1 - _BETAS[1] ** self._step)).sqrt()
        return parameters + self._rate * mean / (size + _EPSILON)
