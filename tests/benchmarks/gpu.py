"""The engine on a CUDA device against bare PyTorch on the same device, timed with device events.

Needs torch and the engine, nothing else: no widget, no torchvision, no browser. Device events bracket the
whole call, so that a gap in which the device waits for Python counts. Without a CUDA device it says so.
`python -m tests.benchmarks.gpu --small` goes through all of it on small networks, on any device, and keeps
nothing: that it runs can be seen without a GPU.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tests.benchmarks import gpu_maps, models
from tests.benchmarks.gpu_maps import Sizes, captured, on_device
from tests.benchmarks.measure import Case, Report, interleave
from tests.benchmarks.saliency import keep_output, units

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from nnviz_widget.engine import Engine, Trace

    Make = Callable[[], nn.Module]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Plan:
    """What is measured: networks with layers whose units are clicked, networks for replay, and sizes."""

    networks: dict[str, tuple[Make, tuple[str, ...]]]
    replayed: dict[str, Make]
    batch: int
    sizes: Sizes


FULL = Plan(
    {
        "ResNet-50": (models.resnet50, ("layer1", "layer3")),
        "ViT-B/16": (models.vit_b_16, ("conv_proj",)),
    },
    {"ResNet-18": models.resnet18, "ResNet-50": models.resnet50, "ViT-B/16": models.vit_b_16},
    32,
    Sizes(),
)
SMALL = Plan(
    {
        "ResNet": (lambda: models.ResNet(models.Basic, (1, 1, 1, 1), expansion=1), ("layer1",)),
        "ViT": (lambda: models.VisionTransformer(48, 2, 2), ("conv_proj",)),
    },
    {"ResNet": lambda: models.ResNet(models.Basic, (1, 1, 1, 1), expansion=1)},
    2,
    Sizes(steps=4, copies=3, window=112, stride=112),
)


def run(rounds: int | None = None, *, small: bool = False) -> Report | None:
    """Measure every architecture in both precisions, one picture and many, or say that nothing was run."""
    if not torch.cuda.is_available() and not small:
        print("  not run: no CUDA device")
        return None
    plan, device = (SMALL if small else FULL), "cuda" if torch.cuda.is_available() else "cpu"
    report = Report("gpu_small" if small else "gpu")
    for name, (make, layers) in plan.networks.items():
        for told, dtype in DTYPES.items():
            model = make().to(device, dtype)
            for batch in (1, plan.batch):
                x = pictures(batch, device, dtype)
                title = f"{name}, {told}, batch {batch}"
                measure(report, title, model, layers, x, rounds or 50)
                gpu_maps.measure(report, title, model, x, plan.sizes, rounds or (20 if batch == 1 else 3))
    for name, make in plan.replayed.items():
        gpu_maps.replayed(
            report, name, make().to(device), pictures(1, device, torch.float32), plan.sizes, rounds or 10
        )
    return report


def pictures(count: int, device: str, dtype: torch.dtype) -> Tensor:
    """Return noise as large as the networks take it."""
    drawn = torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    return drawn.to(device, dtype)


def measure(
    report: Report, name: str, model: nn.Module, layers: tuple[str, ...], x: Tensor, rounds: int
) -> None:
    """Add the trace of one model at one batch size, and the cases of its layers."""
    from nnviz_widget import Engine

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
    stream = torch.cuda.Stream() if x.is_cuda else None
    with torch.cuda.stream(stream):  # what goes back is captured on the stream of what went forward
        kept = keep_output(model, layer, leaf)
    if x.is_cuda:
        torch.cuda.synchronize()
    ours, theirs, graphs = (units(kept[0].shape) for _ in range(3))
    wanted = torch.zeros_like(kept)

    def backward() -> Tensor:
        return torch.autograd.grad(kept, leaf, wanted, retain_graph=True)[0]

    contestants: dict[str, Callable[[], object]] = {
        "engine": lambda: engine.unit_saliency(trace, layer, next(ours)),
        "autograd": lambda: torch.autograd.grad(kept[(0, *next(theirs))], leaf, retain_graph=True),
    }
    replay = captured(backward, stream)
    if replay is not None:

        def graphed() -> None:
            wanted.zero_()
            wanted[(0, *next(graphs))] = 1
            replay()

        contestants["CUDA graph"] = graphed
    times = interleave({who: on_device(ask) for who, ask in contestants.items()}, rounds=rounds, warmup=5)
    report.add(Case(f"{name}, saliency", "engine", "autograd", times, aim="<= 1.15"))
    if replay is not None:
        report.add(Case(f"{name}, saliency, CUDA graph", "engine", "CUDA graph", times))


def main() -> None:
    """Run it and keep the figures; with `--small` only show that it runs."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu")
    parser.add_argument("--small", action="store_true", help="small networks, on any device, nothing kept")
    parser.add_argument("--rounds", type=int, help="rounds of each case")
    arguments = parser.parse_args()
    report = run(arguments.rounds or (2 if arguments.small else None), small=arguments.small)
    if report is not None and arguments.small:
        report.discard()
    elif report is not None:
        print(f"  -> {report.write()}")


if __name__ == "__main__":
    main()
