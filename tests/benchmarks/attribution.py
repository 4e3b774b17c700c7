"""Attribution against Captum, at its defaults and at its best setting, and what it needs of memory.

The same model, input, baseline, steps, windows and samples on both sides; the maps are compared before
anything is timed. Captum's best setting is the fastest of a few batch sizes, found beforehand. Rows that go
through the model are counted on both sides. Peak memory is that of a process of its own, above what it had
after a first pass of one sample.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tests.benchmarks import models
from tests.benchmarks.measure import Case, Report, interleave

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[..., Tensor]

MEMORY = ("engine", "captum")


def run(rounds: int | None = None) -> Report:
    """Measure paths, windows and surrogates on a small network and on ResNet-18, and memory."""
    report = Report("attribution")
    few = rounds or 5
    digit = torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    picture = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    for name, model, x, count in (
        ("small CNN", small(), digit, rounds or 40),
        ("ResNet-18", models.resnet18(), picture, few),
    ):
        ours, captum = paths(model, x)
        compare(report, f"{name}, integrated gradients, 50 steps", ours, captum, count, (4, 8, 16), ">= 1.0")
    ours, captum = hidden(small(), digit, (1, 5, 5), (1, 1, 1))
    name = "small CNN, occlusion 5x5 by 1"
    compare(report, name, ours, captum, rounds or 20, (16, 64, 256), ">= 1.0", ">= 4")
    ours, captum = hidden(models.resnet18(), picture, (3, 56, 56), (3, 28, 28))
    name = "ResNet-18, occlusion 56x56 by 28"
    compare(report, name, ours, captum, few, (4, 8, 16), ">= 1.0", ">= 1.3")
    for method in ("lime", "kernel_shap"):
        ours, captum = surrogates(small(), digit, method)
        name = f"small CNN, {method}, 49 cells, 1000 sets"
        compare(report, name, ours, captum, few, (64,), "-", ">= 3", same=False)
    report.add(jacobian(rounds or 30))
    memory(report, "integrated gradients, 50 steps, ResNet-18")
    return report


def compare(
    report: Report,
    name: str,
    ours: Ask,
    captum: Ask,
    rounds: int,
    settings: tuple[int, ...],
    aim: str,
    default_aim: str = "-",
    *,
    same: bool = True,
) -> None:
    """Add a case against Captum's best setting and one against its defaults."""
    if same:
        expected = captum()
        for _ in range(4):  # learns how many rows to run at once
            found = ours()
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max(), name
    best = min((None, *settings), key=lambda setting: seconds(captum, setting))
    contestants = {"engine": ours, "captum's default": captum}
    if best is not None:
        contestants[f"captum, {best} at once"] = lambda: captum(best)
    times = interleave(
        {who: (lambda ask=ask: discard(ask())) for who, ask in contestants.items()}, rounds=rounds
    )
    notes: dict[str, Any] = {"rows run by the engine": rows(ours), "rows run by Captum": rows(captum)}
    print(f"  {name}: {notes}", flush=True)
    peers = [who for who in contestants if who != "engine"]
    fastest = {who: min(taken) for who, taken in times.items()}
    notes |= {f"fastest rounds, {who} / engine": round(fastest[who] / fastest["engine"], 3) for who in peers}
    report.add(Case(f"{name}, at its best", "engine", peers[-1], times, aim=aim, inverse=True, notes=notes))
    if len(peers) > 1:
        report.add(
            Case(
                f"{name}, at its defaults", "engine", peers[0], times, default_aim, inverse=True, notes=notes
            )
        )


def paths(model: nn.Module, x: Tensor) -> tuple[Ask, Ask]:
    """Integrated gradients of both sides, with what they lack of the change of the score."""
    from captum.attr import IntegratedGradients

    engine, captum = engine_of(model), IntegratedGradients(model)
    return (
        lambda: engine.attribute(x, "integrated_gradients", target=3, quadrature="gausslegendre").values,
        lambda size=None: captum.attribute(
            x, target=3, n_steps=50, internal_batch_size=size, return_convergence_delta=True
        )[0],
    )


def hidden(model: nn.Module, x: Tensor, sizes: tuple[int, ...], strides: tuple[int, ...]) -> tuple[Ask, Ask]:
    """Occlusion of both sides."""
    from captum.attr import Occlusion

    engine, captum = engine_of(model), Occlusion(model)
    options = {"target": 3, "sliding_window_shapes": sizes, "strides": strides}
    return (
        lambda: engine.attribute(x, "occlusion", **options).values,
        lambda size=1: captum.attribute(x, perturbations_per_eval=size or 1, **options),
    )


def surrogates(model: nn.Module, x: Tensor, method: str) -> tuple[Ask, Ask]:
    """LIME or KernelSHAP of both sides; the sets are drawn, so that the maps are not the same."""
    from captum.attr import KernelShap, Lime

    side = torch.arange(28) // 4
    cells = (side[:, None] * 7 + side)[None, None]
    engine, captum = engine_of(model), (Lime if method == "lime" else KernelShap)(model)
    options = {"target": 3, "feature_mask": cells, "n_samples": 1000}
    return (
        lambda: engine.attribute(x, method, **options).values,
        lambda size=1: captum.attribute(x, perturbations_per_eval=size or 1, **options),
    )


def jacobian(rounds: int) -> Case:
    """Saliency of all 196 units of a map, against one backward after another on a graph that is kept."""
    model = small()
    x = torch.randn(1, 1, 28, 28)
    leaf = x.clone().requires_grad_()
    output = model[:5](leaf)[0, 5]
    units = [(5, y, column) for y in range(14) for column in range(14)]
    engine = engine_of(model)
    trace = engine.trace(x)

    def loop() -> Tensor:
        return torch.stack(
            [torch.autograd.grad(unit, leaf, retain_graph=True)[0][0] for unit in output.flatten()]
        )

    def ours() -> Tensor:
        return engine.unit_saliencies(trace, "4", units)[:, 0]

    assert (ours() - loop()).abs().max() <= 1e-6
    times = interleave({"engine": lambda: discard(ours()), "loop": lambda: discard(loop())}, rounds=rounds)
    return Case("small CNN, Jacobian of 196 units", "engine", "loop", times, aim=">= 1.5", inverse=True)


def small() -> nn.Module:
    """A small network for digits."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 49, 10),
    ).eval()  # fmt: skip


def memory(report: Report, name: str) -> None:
    """Add what a path needs of memory at its peak, on both sides."""
    peaks = {}
    for who in MEMORY:
        command = [sys.executable, "-m", "tests.benchmarks.attribution", who]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
        peaks[who] = json.loads(done.stdout.splitlines()[-1])
        report.figure(f"{name}: MiB at the peak, {who}", [peaks[who]], scale=1 / 2**20)
    share = peaks["engine"] / peaks["captum"]
    report.figure(f"{name}: share of Captum's default", [share], aim="<= 0.25", scale=1)


def peak(who: str) -> int:
    """Return by how many bytes this process grew at most while it explained."""
    model, x = models.resnet18(), torch.randn(1, 3, 224, 224)
    ours, captum = paths(model, x)
    leaf = x.clone().requires_grad_()
    torch.autograd.grad(model(leaf)[0, 3], leaf)
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    (captum if who == "captum" else ours)()
    return resident("VmHWM") - before


def resident(which: str = "VmRSS") -> int:
    """Return memory of this process in bytes, as Linux counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


def engine_of(model: nn.Module) -> Any:
    """Return an engine on a model."""
    from nnviz_widget import Engine

    return Engine(model)


def rows(ask: Callable[[], object]) -> dict[str, int]:
    """Count the rows that go forward and backward through the linear layer that sees most of them."""
    counts: dict[str, Counter[tuple[int, int]]] = {"forward": Counter(), "backward": Counter()}

    def forward(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(module, nn.Linear):
            layer = module.in_features, module.out_features
            counts["forward"][layer] += len(output)
            if output.requires_grad:
                output.register_hook(lambda gradient: counts["backward"].update({layer: len(gradient)}))

    handle = nn.modules.module.register_module_forward_hook(forward)
    try:
        ask()
    finally:
        handle.remove()
    return {way: max(counted.values(), default=0) for way, counted in counts.items()}


def seconds(ask: Ask, setting: int | None) -> float:
    """Return how long one call takes, the better of two."""
    taken = []
    for _ in range(2):
        start = time.perf_counter()
        ask(setting) if setting is not None else ask()
        taken.append(time.perf_counter() - start)
    return min(taken)


def discard(_: object) -> None:
    """Take a result and keep nothing of it."""


if __name__ == "__main__":
    print(peak(sys.argv[1]))
