"""Explanations on a device: the engine, the same rows in plain batches, and these batches as a CUDA graph.

The plain batches are written by hand, with nothing around them: no chunks, no errors, no cancel. Of several
pictures they take one after the other. How alike both maps are is noted, as a cosine (of SmoothGrad both draw
noise of their own). What a CUDA graph gains over plain batches is what launching from Python costs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tests.benchmarks.measure import Case, Report, interleave

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from nnviz_widget.engine import Engine

    Ask = Callable[[], object]

TARGET = 3
NOISE = 0.15


@dataclass(frozen=True)
class Sizes:
    """Steps of a path, noisy copies, and side and stride of the windows that are hidden."""

    steps: int = 50
    copies: int = 25
    window: int = 16
    stride: int = 8


def measure(report: Report, name: str, model: nn.Module, x: Tensor, sizes: Sizes, rounds: int) -> None:
    """Add integrated gradients, SmoothGrad and occlusion of each picture."""
    from nnviz_widget import Engine

    model.requires_grad_(False)
    side = sizes.window
    masks = windows(x, side)
    with Engine(model) as engine:
        for method, options, plain in (
            ("integrated_gradients", {"n_steps": sizes.steps}, lambda one: path(model, one, sizes.steps)),
            (
                "smooth_grad",
                {"nt_samples": sizes.copies, "stdevs": NOISE},
                lambda one: noisy(model, one, sizes.copies),
            ),
            (
                "occlusion",
                {"sliding_window_shapes": (3, side, side), "strides": (3, side, side)},
                lambda one: hidden(model, one, masks),
            ),
        ):
            beside_plain(report, f"{name}: {method}", engine, x, method, options, plain, rounds)


def beside_plain(
    report: Report,
    name: str,
    engine: Engine,
    x: Tensor,
    method: str,
    options: dict[str, Any],
    plain: Callable[[Tensor], Tensor],
    rounds: int,
) -> None:
    """Add one method against plain batches, and against these captured."""
    one = x[:1].clone()
    replay = captured(lambda: plain(one))

    def ours() -> Tensor:
        values: Tensor = engine.attribute(x, method, target=TARGET, **options).values
        return values

    def batches() -> Tensor:
        return torch.cat([plain(x[i : i + 1]) for i in range(len(x))])

    def replays() -> None:
        assert replay is not None
        for i in range(len(x)):
            one.copy_(x[i : i + 1])
            replay()

    for _ in range(4):  # learns how many rows to run at once
        found = ours()
    expected = batches().expand_as(found)
    alike = torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten().to(found), dim=0)
    contestants: dict[str, Ask] = {"engine": ours, "plain batches": batches}
    if replay is not None:
        contestants["CUDA graph"] = replays
    times = interleave({who: on_device(ask) for who, ask in contestants.items()}, rounds=rounds)
    notes = {
        "cosine": round(float(alike), 4),
        "pictures per second": {who: round(len(x) / min(taken), 2) for who, taken in times.items()},
    }
    report.add(Case(name, "engine", "plain batches", times, "<= 1.1", notes=notes))
    if replay is not None:
        report.add(Case(f"{name}, CUDA graph", "engine", "CUDA graph", times, notes=notes))


def replayed(report: Report, name: str, model: nn.Module, x: Tensor, sizes: Sizes, rounds: int) -> None:
    """Add occlusion where only what changed is computed, against a forward of every variant in batches."""
    from nnviz_widget import Engine

    options = {
        "sliding_window_shapes": (3, sizes.window, sizes.window),
        "strides": (3, sizes.stride, sizes.stride),
    }
    with Engine(model) as engine, Engine(model) as whole:
        whole._shared_runs().replays = None
        asks: dict[str, Ask] = {
            who: lambda each=each: each.attribute(x, "occlusion", target=TARGET, **options)
            for who, each in (("replay", engine), ("batched forward", whole))
        }
        for ask in asks.values():
            for _ in range(4):
                ask()
        times = interleave({who: on_device(ask) for who, ask in asks.items()}, rounds=rounds)
        told = engine.attribute(x, "occlusion", target=TARGET, **options)
    title = f"{name}, occlusion {sizes.window} by {sizes.stride}"
    notes = {"recomputed": str(told.recomputed), "rows": told.forward_passes}
    report.add(Case(title, "replay", "batched forward", times, ">= 1", inverse=True, notes=notes))


def path(model: nn.Module, x: Tensor, steps: int) -> Tensor:
    """Integrate gradients from zero with the midpoint rule, all steps of one picture in a batch."""
    alphas = (torch.arange(steps, device=x.device) + 0.5) / steps
    rows = (alphas.view(-1, 1, 1, 1) * x).to(x.dtype)
    return x.float() * gradients(model, rows).mean(0, keepdim=True)


def noisy(model: nn.Module, x: Tensor, copies: int) -> Tensor:
    """Average the gradient over noisy copies of one picture, in a batch."""
    spread = NOISE * (x.amax() - x.amin())
    rows = x + spread * torch.randn(copies, *x.shape[1:], device=x.device, dtype=x.dtype)
    return gradients(model, rows).mean(0, keepdim=True)


def gradients(model: nn.Module, rows: Tensor) -> Tensor:
    """Return the gradient of the target on each row."""
    leaf = rows.detach().requires_grad_()
    return torch.autograd.grad(model(leaf)[:, TARGET].sum(), leaf)[0].float()


@torch.no_grad()
def hidden(model: nn.Module, x: Tensor, masks: Tensor) -> Tensor:
    """Hide one window of one picture in each row of a batch; the last row is whole."""
    scores = model(torch.where(masks, 0, x))[:, TARGET].float()
    return ((scores[-1] - scores).view(-1, 1, 1, 1) * masks).sum(0, keepdim=True)


def windows(x: Tensor, side: int) -> Tensor:
    """Return a mask for each window of a grid, and one of nothing, ``[W + 1, 1, height, width]``."""
    height, width = x.shape[2:]
    down, right = (torch.arange(n, device=x.device) // side for n in (height, width))
    number = down[:, None] * (int(right[-1]) + 1) + right
    count = int(number.max()) + 1
    return number == torch.arange(count + 1, device=x.device).view(-1, 1, 1, 1)


def captured(call: Ask, stream: torch.cuda.Stream | None = None) -> Ask | None:
    """Capture what a call launches; returns what launches it again, or None where that cannot be."""
    if not torch.cuda.is_available():
        return None
    stream = stream if stream is not None else torch.cuda.Stream()
    try:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            kept = call()
    except RuntimeError as error:
        print(f"  no CUDA graph: {str(error).splitlines()[0]}", flush=True)
        torch.cuda.synchronize()
        return None

    def replay() -> object:
        graph.replay()
        return kept

    return replay


def on_device(call: Ask) -> Callable[[], float]:
    """Time a call and return seconds: with device events where there is a device, else by the wall clock."""

    def timed() -> float:
        torch.cuda.synchronize()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        torch.cuda.synchronize()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000

    def by_the_wall() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return timed if torch.cuda.is_available() else by_the_wall
