"""The engine on a CUDA device against bare PyTorch on the same device, timed with device events.

Needs torch and the engine, nothing else: no widget, no torchvision, no browser. Device events bracket the
whole call, so that a gap in which the device waits for Python counts. Without a CUDA device it says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tests.benchmarks import models
from tests.benchmarks.measure import Case, Report, interleave
from tests.benchmarks.saliency import keep_output, units

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from nnviz_widget.engine import Engine, Trace

ARCHITECTURES = {
    "ResNet-50": (models.resnet50, ("layer1", "layer3")),
    "ViT-B/16": (models.vit_b_16, ("conv_proj",)),
}


def run(rounds: int | None = None) -> Report | None:
    """Measure every architecture at batch 1 and 32, or say that nothing was run."""
    if not torch.cuda.is_available():
        print("  not run: no CUDA device")
        return None
    report = Report("gpu")
    for name, (make, layers) in ARCHITECTURES.items():
        model = make().cuda()
        for batch in (1, 32):
            measure(report, f"{name}, batch {batch}", model, layers, batch, rounds or 50)
    return report


def measure(
    report: Report, name: str, model: nn.Module, layers: tuple[str, ...], batch: int, rounds: int
) -> None:
    """Add the cases of one model at one batch size."""
    from nnviz_widget import Engine

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 3, 224, 224, generator=generator).cuda()

    def forward() -> object:
        with torch.no_grad():
            return model(x)

    with Engine(model) as engine:
        times = interleave(
            {"trace": on_device(lambda: engine.trace(x)), "forward": on_device(forward)},
            rounds=rounds,
            warmup=5,
        )
        report.add(Case(f"{name}: trace", "trace", "forward", times, aim="<= 1.6"))
        trace = engine.trace(x)
        for layer in layers:
            measure_layer(report, f"{name}: {layer}", engine, trace, model, x, layer, rounds)


def measure_layer(
    report: Report,
    name: str,
    engine: Engine,
    trace: Trace,
    model: nn.Module,
    x: Tensor,
    layer: str,
    rounds: int,
) -> None:
    """Add the cases of one layer: its tiles, and the saliency of its units."""
    activation = trace.activation(layer)
    times = interleave(
        {
            "tiles": on_device(lambda: engine.tiles(trace, layer)),
            "float copy": on_device(activation[0].cpu),
        },
        rounds=rounds,
        warmup=5,
    )
    report.add(Case(f"{name}, tiles", "tiles", "float copy", times))
    leaf = x.clone().requires_grad_()
    kept = keep_output(model, layer, leaf)
    ours, theirs = units(kept[0].shape), units(kept[0].shape)
    times = interleave(
        {
            "engine": on_device(lambda: engine.unit_saliency(trace, layer, next(ours))),
            "autograd": on_device(
                lambda: torch.autograd.grad(kept[(0, *next(theirs))], leaf, retain_graph=True)
            ),
        },
        rounds=rounds,
        warmup=5,
    )
    report.add(Case(f"{name}, saliency", "engine", "autograd", times, aim="<= 1.15"))


def on_device(call: Callable[[], object]) -> Callable[[], float]:
    """Time a call with device events and return seconds."""

    def timed() -> float:
        torch.cuda.synchronize()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        torch.cuda.synchronize()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000

    return timed
