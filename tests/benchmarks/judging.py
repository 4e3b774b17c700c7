"""Maps of a layer against torchcam, judging against Quantus, and how soon a stream shows something and ends.

The same model, input, target and layer on both sides; maps and curves are compared before anything is timed.
Quantus stands in an environment of its own (`judges.txt`, .cache/judges), which is only read from here.
Every table of ours has three maps, for two that know nothing are always there. With as many points on both
sides Quantus judges the same three; at its defaults, every pixel a point of its own, only the first. It has
no insertion: that is its pixel flipping of the map with its sign turned, read backwards. What weights become
random for is explained by both sides in as many passes; these alone, in a plain loop that compares nothing,
are the floor under that row.

A stream is read on a thread of its own and closed at a random moment; what is told is the time until the
engine has run the next job. The first partial result is told as a share of the whole time of its stream.
"""

from __future__ import annotations

import copy
import importlib
import random
import sys
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tests.benchmarks import environment, models
from tests.benchmarks.attribution import discard, engine_of, rows
from tests.benchmarks.measure import Case, Report, interleave, spread

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Ask = Callable[[], object]

FOLDER = Path(__file__).resolve().parents[2] / ".cache/judges"
REQUIREMENTS = Path(__file__).with_name("judges.txt")
#: Of torchcam, by our names. Its Grad-CAM++ lacks the denominator of its weights: timed, not compared.
PEERS = {
    "grad_cam": "GradCAM",
    "layer_cam": "LayerCAM",
    "xgrad_cam": "XGradCAM",
    "grad_cam_plus_plus": "GradCAMpp",
}
#: What takes long enough to be watched, and to be left.
SLOW: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"n_steps": 50},
    "smooth_grad": {"nt_samples": 50},
    "occlusion": {"sliding_window_shapes": (3, 32, 32), "strides": (3, 16, 16)},
    "rise": {"n_samples": 200},
    "lime": {"n_samples": 200},
    "kernel_shap": {"n_samples": 200},
}
IMAGES = 100
STEPS = 32


def run(rounds: int | None = None) -> Report:
    """Measure all of it on ResNet-18, and judging on the digits."""
    report = Report("judging")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peers
        x = picture()
        small = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
        report.add(five_at_once(models.resnet18(), x, rounds or 12))
        for name in PEERS:
            report.add(beside_torchcam(models.resnet18(), x, name, rounds or 12))
        report.add(beside_torchcam(models.resnet18(), small, "score_cam", rounds or 3))
        missing = environment.install(FOLDER, REQUIREMENTS)
        if missing:
            report.figures["not measured"] = missing
            print(f"  {missing}")
        else:
            beside_quantus(report, rounds or 3)
    streams(report, x, rounds or 8)
    return report


def picture() -> Tensor:
    """Return something to be seen, as large as ResNet-18 takes it: superpixels follow nothing in noise."""
    from nnviz_widget import demo

    drawn = demo.shapes(1).inputs
    return torch.nn.functional.interpolate(drawn, size=(224, 224), mode="bilinear", antialias=True)


def five_at_once(model: nn.Module, x: Tensor, rounds: int) -> Case:
    """All five maps of a layer from one pass, against a call for each."""
    engine = engine_of(model)

    def once() -> dict[str, Any]:
        found: dict[str, Any] = engine.cams(x, target=3, layer="layer4")
        return found

    def apart() -> dict[str, Any]:
        return {name: engine.attribute(x, name, target=3, layer="layer4") for name in once_names}

    once_names = list(once())
    for name, found in apart().items():
        assert torch.equal(found.values, once()[name].values), name
    contestants: dict[str, Ask] = {"engine.cams": once, "five calls": apart}
    notes, times = timed(contestants, rounds)
    name = "ResNet-18, five maps of layer4"
    return Case(name, "engine.cams", "five calls", times, ">= 4", inverse=True, notes=notes)


def beside_torchcam(model: nn.Module, x: Tensor, name: str, rounds: int) -> Case:
    """One map of a layer; torchcam's extractor hangs on its model from the beginning."""
    from torchcam import methods

    engine, theirs = engine_of(model), copy.deepcopy(model)
    peer = getattr(methods, PEERS.get(name, "ScoreCAM"))
    extractor = peer(theirs, target_layer="layer4", input_shape=tuple(x.shape[1:]))

    def ours() -> Tensor:
        found = engine.attribute(x, name, target=3, layer="layer4", relu_attributions=True)
        return found.layer_values[:, 0]

    def torchcam() -> Tensor:
        found: Tensor = extractor(class_idx=3, scores=theirs(x), normalized=False)[0]
        return found

    if name not in {"grad_cam_plus_plus", "score_cam"}:
        found, expected = ours(), torchcam()
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max(), name
    contestants: dict[str, Ask] = {"engine": ours, "torchcam": torchcam}
    notes, times = timed(contestants, rounds)
    title = f"ResNet-18, {name} of layer4, {x.shape[-1]} x {x.shape[-1]}"
    return Case(title, "engine", "torchcam", times, "<= 1.10", notes=notes)


def beside_quantus(report: Report, rounds: int) -> None:
    """Deletion, and what is left of maps when weights become random, of 100 digits."""
    sys.path.append(str(environment.packages(FOLDER)))
    importlib.import_module("tests.torchvision_stub")  # Quantus reads torchvision by way of zennit
    import quantus

    from nnviz_widget import demo

    shown = demo.digits()
    noise = torch.randn(IMAGES, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    x = (shown.inputs.repeat(IMAGES // len(shown.inputs), 1, 1, 1) + 0.1 * noise).contiguous()
    targets = shown.targets.repeat(IMAGES // len(shown.inputs))
    engine = engine_of(shown.model)
    found = engine.attribute(x, "saliency", target=targets)
    given = {"x_batch": x.numpy(), "y_batch": targets.numpy()}
    theirs = copy.deepcopy(shown.model)

    def judged(metrics: dict[str, dict[str, Any]]) -> Any:
        return engine.evaluate({"map": found}, metrics, sign="signed")

    def flipping(points: int, maps: list[Tensor]) -> list[NDArray[np.float64]]:
        metric = quantus.PixelFlipping(
            features_in_step=x[0].numel() // points, perturb_baseline=0.0, disable_warnings=True
        )
        return [metric(theirs, a_batch=values.numpy(), **given) for values in maps]

    layers = [part for part in shown.model.modules() if any(True for _ in part.parameters(recurse=False))]
    randomised = quantus.MPRT(disable_warnings=True, abs=False, normalise=False)
    how = {"explain_func": quantus.explain, "explain_func_kwargs": {"method": "Saliency"}}

    def forgetting() -> object:
        return randomised(theirs, a_batch=found.values.numpy(), **given, **how)

    curve = {"baselines": "zero", "steps": STEPS}
    deletion, random = {"deletion": curve}, {"parameter_randomisation": {"steps": len(layers)}}
    all_three = {**deletion, "insertion": curve, **random}
    readings = judged(all_three).curve_readings
    for name, values in (("deletion", found.values), ("insertion", -found.values)):
        y = readings[name]["map"][1]
        told = y[:, 1:] if name == "deletion" else y[:, -2::-1]
        apart = abs(told - flipping(STEPS, [values])[0]).max()
        assert apart <= 1e-4, (name, apart)

    three = [found.values, torch.randn(x.shape), torch.randn(x.shape)]
    contestants: dict[str, Ask] = {
        "engine": lambda: judged(deletion),
        "Quantus": lambda: flipping(STEPS, three),
    }
    add(report, f"deletion, {IMAGES} digits, three maps, {STEPS} points both", contestants, rounds, "-")

    at_random: dict[str, Ask] = {
        "engine": lambda: judged(random),
        "Quantus": forgetting,
        "plain loop": lambda: explained_at_random(shown.model, x, targets),
    }
    notes, times = timed(at_random, 2 * rounds)
    title = f"randomisation, {IMAGES} digits, all {len(layers)} layers"
    for who, peer, aim in (
        ("engine", "Quantus", ">= 10"),
        ("engine", "plain loop", "the explanations alone"),
        ("plain loop", "Quantus", "what nothing can pass"),
    ):
        report.add(Case(f"{title}, {who}", who, peer, times, aim, inverse=True, notes=notes))

    points = x[0].numel()
    at_defaults: dict[str, Ask] = {
        "engine, deletion": lambda: judged(deletion),
        "engine, all three": lambda: judged(all_three),
        "Quantus, deletion": lambda: flipping(points, [found.values]),
        "Quantus, insertion": lambda: flipping(points, [-found.values]),
        "Quantus, randomisation": forgetting,
    }
    notes, times = timed(at_defaults, max(1, rounds // 3), warm=False)
    parts = ("deletion", "insertion", "randomisation")
    each = zip(*(times[f"Quantus, {part}"] for part in parts), strict=True)
    times["Quantus, all three"] = [sum(taken) for taken in each]
    text = f"{IMAGES} digits, three maps against one at Quantus's defaults"
    for asked, aim in (
        ("deletion", ">= 3.3"),
        ("all three", ">= 10"),
    ):  # a third of the maps, of the aim, too
        ours, peer = f"engine, {asked}", f"Quantus, {asked}"
        name = asked if asked == "deletion" else "deletion, insertion and randomisation"
        report.add(Case(f"{name}, {text}", ours, peer, times, aim, inverse=True, notes=notes))


def explained_at_random(model: nn.Module, x: Tensor, targets: Tensor) -> list[Tensor]:
    """Explain by the gradient while the layers become random from the last on; nothing else."""
    private = copy.deepcopy(model).eval().requires_grad_(False)
    layers = [part for part in private.modules() if any(True for _ in part.parameters(recurse=False))]
    maps = []
    for layer in reversed(layers):
        layer.reset_parameters()  # type: ignore[operator]
        leaf = x.detach().requires_grad_()
        score = private(leaf).gather(1, targets[:, None]).sum()
        maps += torch.autograd.grad(score, leaf)
    return maps


def add(report: Report, name: str, contestants: dict[str, Ask], rounds: int, aim: str) -> None:
    """Add a case of ours, named first, against a peer."""
    subject, peer = contestants
    notes, times = timed(contestants, rounds)
    report.add(Case(name, subject, peer, times, aim, inverse=True, notes=notes))


def streams(report: Report, x: Tensor, rounds: int) -> None:
    """Add when something is to be seen first, and how soon the engine is free of a stream that is left."""
    with engine_of(models.resnet18()) as engine:
        for name, options in SLOW.items():
            shares = [first_share(engine, x, name, options) for _ in range(2)]
            report.figure(f"first {name}, new engine: % of the whole", shares[:1], aim="<= 15", scale=100)
            report.figure(f"first {name}: % of the whole", shares[1:], aim="<= 15", scale=100)
        generator = random.Random(0)
        for name, options in SLOW.items():
            left = [leave(engine, x, name, options, generator.uniform(0.05, 1.5)) for _ in range(rounds)]
            report.figure(f"{name} of ResNet-18, closed", left, aim="<= 50")


def first_share(engine: Any, x: Tensor, name: str, options: dict[str, Any]) -> float:
    """Return which share of its time a stream takes until there is something to see."""
    start = time.perf_counter()
    with engine.stream(x, name, target=3, **options) as stream:
        next(stream)
        first = time.perf_counter() - start
        for _ in stream:
            pass
    return first / (time.perf_counter() - start)


def leave(engine: Any, x: Tensor, name: str, options: dict[str, Any], after: float) -> float:
    """Close a stream while it computes; seconds until the engine has run something else."""
    from nnviz_widget.engine.jobs import Cancelled

    stream = engine.stream(x, name, target=3, **options)

    def read() -> None:
        with suppress(Cancelled):
            for _ in stream:
                pass

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(after)
    start = time.perf_counter()
    stream.close()
    engine.jobs.submit(lambda _token: None).result()
    taken = time.perf_counter() - start
    reader.join()
    return taken


def timed(
    contestants: dict[str, Ask], rounds: int, *, warm: bool = True
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Return the rows that each of them runs, and the times of all, interleaved."""
    notes: dict[str, Any] = {f"rows run by {who}": rows(ask) for who, ask in contestants.items()}
    print(f"  {notes}", flush=True)
    asked = {who: lambda ask=ask: discard(ask()) for who, ask in contestants.items()}
    times = interleave(asked, rounds=rounds, warmup=int(warm))  # learns how many rows to run at once
    fastest = {who: spread(taken, scale=1000)["min"] for who, taken in times.items()}
    notes["fastest rounds, ms"] = fastest
    print(f"  fastest rounds in ms: {fastest}", flush=True)
    return notes, times
