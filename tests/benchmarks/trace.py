"""`engine.trace` (graph and every activation of one pass) against the bare eval forward of the model.

Beside them the floor of anything that keeps activations: the same forward, under a plain hook on every module
that holds on to its output. What a bare forward frees it writes into again, while it is warm; what is kept
takes fresh memory, page by page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tests.benchmarks import models
from tests.benchmarks.measure import Case, Report, interleave, spread

if TYPE_CHECKING:
    from torch import Tensor, nn


def run(rounds: int | None = None) -> Report:
    """Measure convolutional networks and transformers."""
    report = Report("trace")
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    tokens = torch.randint(0, 50_257, (1, 128), generator=torch.Generator().manual_seed(0))
    report.add(compare("ResNet-18, 1 x 224 x 224", models.resnet18(), image, rounds or 30))
    report.add(compare("ResNet-50, 1 x 224 x 224", models.resnet50(), image, rounds or 30))
    swin = models.swin_t()
    if swin is not None:
        report.add(compare("Swin-T, 1 x 224 x 224", swin, image, rounds or 30))
    bert = models.bert()
    if bert is not None:
        report.add(compare("BERT base of transformers, 128 tokens", bert, tokens % 30_000, rounds or 20))
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

    def keeping() -> None:
        kept: list[object] = []
        handles = [part.register_forward_hook(lambda *call: kept.append(call[2])) for part in model.modules()]
        bare()
        for handle in handles:
            handle.remove()

    with Engine(model) as engine:
        contestants = {"trace": lambda: _drop(engine.trace(inputs)), "forward": bare, "keeping": keeping}
        times = interleave(contestants, rounds=rounds)
    case = Case(name, "trace", "forward", times, aim="<= 1.4")
    fastest = {contestant: min(seconds) for contestant, seconds in times.items()}
    case.notes = {
        "fastest / fastest forward": {
            contestant: round(seconds / fastest["forward"], 3) for contestant, seconds in fastest.items()
        },
        "keeping / forward": spread(Case(name, "keeping", "forward", times).ratios()),
    }
    return case


def _drop(_: object) -> None:
    """Let go of a trace within the time that is measured: freeing its activations is part of its cost."""
