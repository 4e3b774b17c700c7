"""Saliency of one unit on the input: the engine against bare autograd on a kept graph, and against Captum."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import torch

from tests.benchmarks import models
from tests.benchmarks.measure import Case, Report, interleave

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    Unit = tuple[int, int, int]


def run(rounds: int | None = None) -> Report:
    """Measure three layers of ResNet-18 against autograd, and `layer1` against Captum."""
    report = Report("saliency")
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    for layer in ("layer1", "layer2", "layer4"):
        report.add(against_autograd(layer, image, rounds or 40))
    report.add(against_captum("layer1", image, rounds or 20))
    return report


def against_autograd(layer: str, image: Tensor, rounds: int) -> Case:
    """Compare on a layer that was clicked before: both sides have kept the graph up to it."""
    from nnviz_widget import Engine

    model = models.resnet18()
    x = image.clone().requires_grad_()
    activation = keep_output(model, layer, x)[0]
    ours, theirs = units(activation.shape), units(activation.shape)
    with Engine(model) as engine:
        trace = engine.trace(image)
        times = interleave(
            {
                "engine": lambda: discard(engine.unit_saliency(trace, layer, next(ours))),
                "autograd": lambda: discard(
                    torch.autograd.grad(activation[next(theirs)], x, retain_graph=True)
                ),
            },
            rounds=rounds,
            warmup=3,
        )
    name = f"ResNet-18 {layer} {'x'.join(map(str, activation.shape))}, clicked before"
    return Case(name, "engine", "autograd", times, aim="<= 1.15")


def against_captum(layer: str, image: Tensor, rounds: int) -> Case:
    """Compare with the public tool that answers the same question."""
    from captum.attr import NeuronGradient

    from nnviz_widget import Engine

    model = models.resnet18()
    shape = keep_output(model, layer, image)[0].shape
    captum = NeuronGradient(model, model.get_submodule(layer))
    x = image.clone().requires_grad_()
    ours, theirs = units(shape), units(shape)
    with Engine(model) as engine:
        trace = engine.trace(image)
        times = interleave(
            {
                "engine": lambda: discard(engine.unit_saliency(trace, layer, next(ours))),
                "captum": lambda: discard(captum.attribute(x, next(theirs))),
            },
            rounds=rounds,
        )
    return Case(f"ResNet-18 {layer}, NeuronGradient", "engine", "captum", times, aim=">= 2.5", inverse=True)


def keep_output(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    """Run the plain model once and return what `layer` gave, with its graph."""
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _module, _inputs, out: kept.append(out))
    model(x)
    handle.remove()
    return kept[0]


def units(shape: torch.Size) -> Iterator[Unit]:
    """Yield units of an activation [C, H, W], at random, the same on both sides."""
    generator = random.Random(0)
    while True:
        yield tuple(generator.randrange(size) for size in shape)


def discard(_: object) -> None:
    """Take a result and keep nothing of it."""
