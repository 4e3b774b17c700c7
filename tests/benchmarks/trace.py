"""`engine.trace` (graph and every activation of one pass) against the bare eval forward of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tests.benchmarks import models
from tests.benchmarks.measure import Case, Report, interleave

if TYPE_CHECKING:
    from torch import Tensor, nn


def run(rounds: int | None = None) -> Report:
    """Measure ResNet-18, ResNet-50 and GPT-2 small."""
    report = Report("trace")
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    tokens = torch.randint(0, 50_257, (1, 128), generator=torch.Generator().manual_seed(0))
    report.add(compare("ResNet-18, 1 x 224 x 224", models.resnet18(), image, rounds or 30))
    report.add(compare("ResNet-50, 1 x 224 x 224", models.resnet50(), image, rounds or 30))
    report.add(compare("GPT-2 small, 128 tokens", models.gpt2(), tokens, rounds or 20))
    hugging_face = models.gpt2_transformers()
    if hugging_face is not None:
        report.add(compare("GPT-2 small of transformers, 128 tokens", hugging_face, tokens, rounds or 20))
    return report


def compare(name: str, model: nn.Module, inputs: Tensor, rounds: int) -> Case:
    """Time one model both ways."""
    from nnviz_widget import Engine

    def bare() -> None:
        with torch.no_grad():
            model(inputs)

    with Engine(model) as engine:
        times = interleave({"trace": lambda: _drop(engine.trace(inputs)), "forward": bare}, rounds=rounds)
    return Case(name, "trace", "forward", times, aim="<= 1.6")


def _drop(_: object) -> None:
    """Let go of a trace within the time that is measured: freeing its activations is part of its cost."""
