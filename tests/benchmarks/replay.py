"""Recomputing only what changed, against Captum, hooks and the model's own forward.

The same model, input, windows and channels on both sides; the answers that were timed are compared.
Captum's best setting is the fastest of a few batch sizes. Notes give the samples that went through the model
and the share of its arithmetic that was computed for them.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import nnviz_widget as nnviz
from tests.benchmarks.attribution import discard, engine_of, seconds
from tests.benchmarks.measure import Case, Report, interleave
from tests.benchmarks.models import resnet18
from tests.models import UNet, seeded, settled, vision

if TYPE_CHECKING:
    from collections.abc import Callable

    from nnviz_widget import Engine

    Ask = Callable[..., Tensor]

THREADS = 2


def run(rounds: int | None = None) -> Report:
    """Measure occlusion, interventions, knock-outs and strokes."""
    torch.set_num_threads(THREADS)
    report = Report("replay")
    picture = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    few = rounds or 2  # a round of Captum's defaults takes most of a minute
    occlusion(report, "ResNet-18", resnet18(), picture, 8, few, (16,), ">= 2.5", ">= 3")
    occlusion(report, "VGG-16", vision("vgg16"), picture, 16, few, (8,), ">= 4")
    alive = settled(copy.deepcopy(vision("mobilenet_v3_large")), torch.randn(4, 3, 224, 224))
    occlusion(report, "MobileNetV3", alive, picture, 16, few, (16,))
    occlusion(report, "U-Net, 112 x 112", seeded(u_net), picture[..., :112, :112], 16, few, (8,))
    shapes = nnviz.demo.shapes()
    beside_the_whole(report, "shapes", shapes.model, shapes.inputs[:1], rounds or 15)
    intervention(report, resnet18(), picture, rounds or 30)
    knock_outs(report, resnet18(), picture, few)
    for name, model in (("ResNet-18", resnet18()), ("VGG-16", vision("vgg16"))):
        strokes(report, name, model, picture, rounds or 15)
    return report


def u_net() -> nn.Module:
    """Return a network of four sizes, whose scores are means over a map of classes."""
    return nn.Sequential(UNet((3, 32, 64, 128, 256), 5, norm=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def occlusion(
    report: Report,
    name: str,
    model: nn.Module,
    x: Tensor,
    stride: int,
    rounds: int,
    settings: tuple[int, ...],
    aim: str = "-",
    default_aim: str = "",
) -> None:
    """Windows of 16 pixels, hidden one after another."""
    from captum.attr import Occlusion

    engine, captum = engine_of(model), Occlusion(model)
    options = {"target": 3, "sliding_window_shapes": (3, 16, 16), "strides": (3, stride, stride)}

    def ours() -> Tensor:
        values: Tensor = engine.attribute(x, "occlusion", **options).values
        return values

    def theirs(size: int = 1) -> Tensor:
        values: Tensor = captum.attribute(x, perturbations_per_eval=size, **options)
        return values

    for _ in range(2):  # learns how many rows to run at once
        found = engine.attribute(x, "occlusion", **options)
    maps: dict[str, Tensor] = {}

    def run(who: str, ask: Ask) -> None:
        maps[who] = ask()

    best = min(settings, key=lambda size: seconds(theirs, size)) if len(settings) > 1 else settings[0]
    tuned = f"captum, {best} at once"
    asked: dict[str, Ask] = {"replay": ours, tuned: lambda: theirs(best)}
    if default_aim:
        asked["captum's default"] = theirs
    contestants = {who: lambda who=who, ask=ask: run(who, ask) for who, ask in asked.items()}
    # Many passes each: what a first round has to wait for does not show.
    times = interleave(contestants, rounds=rounds, warmup=0)
    assert (maps["replay"] - maps[tuned]).abs().max() <= 1e-3 * maps[tuned].abs().max(), name
    notes = {"rows": found.forward_passes, "recomputed": str(found.recomputed)}
    case = f"{name}, occlusion 16 by {stride}"
    report.add(Case(f"{case}, tuned", "replay", tuned, times, aim, inverse=True, notes=notes))
    if default_aim:
        report.add(Case(f"{case}, default", "replay", "captum's default", times, default_aim, inverse=True))


def in_full(model: nn.Module) -> Engine:
    """Return an engine that runs every variant in full."""
    engine = nnviz.Engine(model)
    engine._shared_runs().replays = None
    return engine


def beside_the_whole(report: Report, name: str, model: nn.Module, x: Tensor, rounds: int) -> None:
    """A network so small that running all of it may be faster: the engine is to find that out."""
    options = {"target": 0, "sliding_window_shapes": 8, "strides": 4}
    engines = {"replay": engine_of(model), "in full": in_full(model)}
    for engine in engines.values():
        for _ in range(4):
            engine.attribute(x, "occlusion", **options)
    times = interleave(
        {
            who: lambda engine=engine: discard(engine.attribute(x, "occlusion", **options).values)
            for who, engine in engines.items()
        },
        rounds=rounds,
    )
    notes = {"recomputed": str(engines["replay"].attribute(x, "occlusion", **options).recomputed)}
    report.add(
        Case(f"{name}, occlusion 8 by 4", "replay", "in full", times, ">= 1", inverse=True, notes=notes)
    )


def intervention(report: Report, model: nn.Module, x: Tensor, rounds: int) -> None:
    """Another factor on a layer, as under a slider, against a forward."""
    engine = engine_of(model)
    factors = iter(range(1, 1 << 20))

    def changed() -> None:
        with engine.intervene("layer3", "scale", factor=0.5 + 1e-3 * next(factors)):
            engine.output(x)

    def forward() -> None:
        with torch.no_grad():
            model(x)

    for _ in range(4):
        changed()
    times = interleave({"intervention": changed, "forward": forward}, rounds=rounds)
    report.add(Case("ResNet-18, intervention at layer3", "intervention", "forward", times, "<= 0.55"))


def knock_outs(report: Report, model: nn.Module, x: Tensor, rounds: int) -> None:
    """Every channel of the last block knocked out, against a loop of forwards with a hook."""
    engine, channels = engine_of(model), 512

    def loop() -> Tensor:
        effects = torch.zeros(channels)
        with torch.no_grad():
            whole = model(x)[0, 3]
            for channel in range(channels):

                def hook(_: nn.Module, __: Any, output: Tensor, channel: int = channel) -> Tensor:
                    output = output.clone()
                    output[:, channel] = 0
                    return output

                handle = model.layer4.register_forward_hook(hook)  # type: ignore[union-attr]
                effects[channel] = whole - model(x)[0, 3]
                handle.remove()
        return effects

    def ours() -> Tensor:
        effects: Tensor = engine.knock_outs(x, "layer4", target=3).effects
        return effects

    channel_of = engine.knock_outs(x, "layer4", target=3).channels
    effects: dict[str, Tensor] = {}

    def run(who: str, ask: Ask) -> None:
        effects[who] = ask()

    times = interleave(
        {"engine": lambda: run("engine", ours), "loop": lambda: run("loop", loop)}, rounds=rounds, warmup=0
    )
    assert (effects["engine"] - effects["loop"][channel_of]).abs().max() <= 1e-4
    report.add(Case("ResNet-18, knock-outs of layer4", "engine", "loop", times, ">= 4", inverse=True))


def strokes(report: Report, name: str, model: nn.Module, x: Tensor, rounds: int) -> None:
    """A brush of 16 pixels that moves on by 8 with each frame, against a forward of each picture."""
    engine = engine_of(model)
    trace = engine.trace(x)
    pictures = [x]
    for step in range(24):
        painted = pictures[-1].clone()
        painted[..., 96:112, 8 * step + 8 : 8 * step + 24] = 1
        pictures.append(painted)
    at, shares = iter(range(1 << 20)), []

    def frame() -> None:
        found = engine.glimpse(trace, (pictures[next(at) % len(pictures)],), looks={})
        shares.append(found.recomputed)

    def forward() -> None:
        with torch.no_grad():
            model(pictures[next(at) % len(pictures)])

    for _ in range(2 * len(pictures)):
        frame()
    shares.clear()
    at = iter(range(1 << 20))
    times = interleave({"frame": frame, "forward": forward}, rounds=rounds)
    notes = {"recomputed, mean": round(sum(shares) / len(shares), 3)}
    report.add(
        Case(f"{name}, a stroke of 16 pixels", "frame", "forward", times, ">= 2", inverse=True, notes=notes)
    )
