"""Activation maximisation: what was to grow has grown, a seed gives the same pictures, nothing is left."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

import nnviz_widget as nnviz
from nnviz_widget.engine.engine import Engine
from nnviz_widget.engine.maximization.canvas import Canvas
from nnviz_widget.engine.maximization.shaking import Shaking
from nnviz_widget.errors import InputError, UnknownLayerError
from tests.conformance.test_harmless import Careless, everything

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nnviz_widget.demo import Demo

NORMAL = {"mean": 0.5, "std": 0.25}  # of the shapes
SMALL: dict[str, Any] = {"image_size": 48, "steps": 128, **NORMAL}


@pytest.fixture(scope="module")
def demo() -> Demo:
    return nnviz.demo.shapes()


@pytest.fixture(scope="module")
def engine(demo: Demo) -> Iterator[Engine]:
    with Engine(demo.model) as engine:
        yield engine


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1)).eval()


def answer(demo: Demo, images: Tensor, layer: str) -> Tensor:
    """What a layer gives, by a plain hook on the user's model."""
    kept: list[Tensor] = []
    hook = demo.model.get_submodule(layer).register_forward_hook(lambda *call: kept.append(call[-1]))
    with torch.no_grad():
        demo.model(images)
    hook.remove()
    return kept[0]


def noise(demo: Demo) -> Tensor:
    pictures = torch.rand(64, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    return (pictures - 0.5) / 0.25


@pytest.mark.parametrize("parametrization", ["fourier", "pixel"])
def test_a_channel_answers_more_than_to_noise_and_to_every_sample(
    demo: Demo, engine: Engine, parametrization: str
) -> None:
    found = engine.maximize("stage2.0.conv1", channel=5, parametrization=parametrization, **SMALL)
    reached = answer(demo, found, "stage2.0.conv1")[:, 5].mean()
    random = answer(demo, noise(demo), "stage2.0.conv1")[:, 5].mean((1, 2))
    samples = answer(demo, demo.inputs, "stage2.0.conv1")[:, 5].mean((1, 2))
    assert reached > random.mean() + 10 * random.std()
    assert reached > 1.2 * samples.max()


def test_classes_are_maximised_one_picture_each(demo: Demo, engine: Engine) -> None:
    classes = [0, 3, 9]
    found = engine.maximize("output", classes, image_size=64, steps=96, **NORMAL)
    with torch.no_grad():
        reached, samples = demo.model(found), demo.model(demo.inputs)
    assert found.shape == (3, 3, 64, 64)
    assert reached.argmax(1).tolist() == classes
    for row, each in enumerate(classes):
        assert reached[row, each] > samples[:, each].max()


def test_a_unit_that_does_not_answer_at_first_is_found(demo: Demo, engine: Engine) -> None:
    # No size but the samples' own: a unit is at the same place in both.
    options = {**SMALL, "image_size": 64}
    first = engine.maximize("stage3", unit=(4, 8, 8), **{**options, "steps": 1})
    assert answer(demo, first, "stage3")[0, 4, 8, 8] == 0  # behind a ReLU: no gradient either
    found = engine.maximize("stage3", unit=(4, 8, 8), **options)
    assert (
        answer(demo, found, "stage3")[0, 4, 8, 8]
        > 1.2 * answer(demo, demo.inputs, "stage3")[:, 4, 8, 8].max()
    )


def test_a_layer_is_driven_along_a_direction(demo: Demo, engine: Engine) -> None:
    direction = torch.randn(64, generator=torch.Generator().manual_seed(0))
    found = engine.maximize("stage3", direction=direction, **{**SMALL, "steps": 64})
    reached, samples = (answer(demo, x, "stage3").mean((2, 3)) @ direction for x in (found, demo.inputs))
    assert reached > 2 * samples.max()


def test_an_objective_of_ones_own_is_maximised(demo: Demo, engine: Engine) -> None:
    layer = "stage2.0.conv1"
    found = engine.maximize(layer, objective=lambda a: (a[:, 2] - a[:, 3]).mean((1, 2)), **SMALL)
    reached, samples = (answer(demo, x, layer).mean((2, 3)) for x in (found, demo.inputs))
    assert reached[0, 2] - reached[0, 3] > 1.2 * (samples[:, 2] - samples[:, 3]).max()


def test_one_channel_is_as_good_as_three() -> None:
    digits = nnviz.demo.digits()
    with Engine(digits.model) as engine:
        found = engine.maximize("output", channel=7, image_size=32, steps=40)
    assert found.shape == (1, 1, 32, 32)
    assert found.min() >= 0
    assert found.max() <= 1
    with torch.no_grad():
        assert digits.model(found)[0, 7] > digits.model(digits.inputs)[:, 7].max()


def test_the_same_seed_gives_the_same_pictures(engine: Engine) -> None:
    before = torch.get_rng_state()
    options = {**SMALL, "steps": 6, "images": 2}
    one, again, other = (engine.maximize("stage1", 3, seed=seed, **options) for seed in (5, 5, 6))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
    assert not torch.allclose(one[0], one[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_dream_begins_with_the_picture_and_excites_the_layer(demo: Demo, engine: Engine) -> None:
    start = demo.inputs[:2]
    found = engine.maximize("stage1", start=start, steps=12, **NORMAL)
    still = engine.maximize("stage1", start=start, steps=1, learning_rate=0.0, **NORMAL)
    strength = [answer(demo, x, "stage1").square().mean() for x in (still, found)]
    assert strength[1] > 1.2 * strength[0]
    both = torch.stack([found.flatten(), start.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.7


def test_an_inversion_comes_nearer_to_the_picture_than_all_others(demo: Demo, engine: Engine) -> None:
    target = answer(demo, demo.inputs[:1], "stage1")
    found = engine.maximize("stage1", invert=demo.inputs[0], steps=80, **NORMAL)
    distance = (answer(demo, found, "stage1") - target).square().sum()
    others = (answer(demo, demo.inputs[1:], "stage1") - target).square().sum((1, 2, 3))
    assert distance < 0.25 * others.min()


@pytest.mark.parametrize("parametrization", ["fourier", "pixel"])
@pytest.mark.parametrize("decorrelate", [True, False])
def test_a_canvas_can_be_any_picture(demo: Demo, parametrization: str, decorrelate: bool) -> None:
    low, high = torch.full((3,), -2.0), torch.full((3,), 2.0)
    start = demo.inputs[:2, :, :63, :50].clamp(-1.9, 1.9)
    canvas = Canvas(
        (2, 3, 63, 50),
        parametrization,
        low=low,
        high=high,
        generator=torch.Generator(),
        start=start,
        decorrelate=decorrelate,
    )
    torch.testing.assert_close(canvas.inputs(canvas.picture(canvas.parameters)), start, rtol=1e-4, atol=1e-4)


def test_pixels_climb_as_with_the_optimiser_of_torch() -> None:
    model = small()
    options = {"parametrization": "pixel", "decorrelate": False, "jitter": 0, "scale": 0, "rotate": 0}
    with Engine(model) as engine:
        found = engine.maximize(
            "2", 1, image_size=8, steps=10, l2=0.3, total_variation=0.2, seed=4, **options
        )
    z = 0.01 * torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    z.requires_grad_()
    adam = torch.optim.Adam([z], lr=0.05, maximize=True)
    for _ in range(10):
        picture = z.sigmoid()
        rough = picture.diff(dim=2).abs().mean() + picture.diff(dim=3).abs().mean()
        score = model(picture)[0, 1].mean() - 0.3 * (picture - 0.5).square().mean() - 0.2 * rough
        (z.grad,) = torch.autograd.grad(score, z)
        adam.step()
    torch.testing.assert_close(found, z.detach().sigmoid(), rtol=1e-4, atol=1e-5)


def test_values_stay_in_the_range_of_the_model() -> None:
    with Engine(small()) as engine:
        low = engine.maximize("0", 0, image_size=16, steps=30, learning_rate=1.0, value_range=(-3, [0, 1, 2]))
    assert low.min() >= -3
    assert all(low[:, channel].max() <= channel for channel in range(3))
    assert low[:, 2].max() > 1


@pytest.mark.parametrize(
    "option",
    [
        {"jitter": 3}, {"scale": 0.3}, {"rotate": 45}, {"total_variation": 5.0}, {"l2": 5.0}, {"decay": 0.5},
        {"decorrelate": False}, {"learning_rate": 0.2}, {"steps": 9}, {"parametrization": "pixel"},
    ],
    ids=lambda option: next(iter(option)),
)  # fmt: skip
def test_every_option_changes_the_picture(option: dict[str, Any]) -> None:
    plain = {"image_size": 16, "steps": 6, "jitter": 0, "scale": 0, "rotate": 0}
    with Engine(small()) as engine:
        assert not torch.allclose(
            engine.maximize("2", 1, **plain), engine.maximize("2", 1, **{**plain, **option}), atol=1e-4
        )


def test_regularisers_hold_down_what_they_measure() -> None:
    with Engine(small()) as engine:
        plain, smooth, grey = (
            engine.maximize("0", 2, image_size=16, steps=40, **o)
            for o in ({}, {"total_variation": 20.0}, {"l2": 50.0})
        )
    assert smooth.diff(dim=3).abs().mean() < 0.5 * plain.diff(dim=3).abs().mean()
    assert (grey - 0.5).square().mean() < 0.5 * (plain - 0.5).square().mean()


def test_shaking_moves_turns_and_scales_within_its_bounds() -> None:
    flat = torch.full((4, 3, 20, 30), 0.3)
    generator = torch.Generator().manual_seed(0)
    torch.testing.assert_close(Shaking(5, 0.3, 90)(flat, generator), flat)
    dot = torch.zeros(200, 1, 21, 31)
    dot[:, :, 10, 15] = 1
    moved = Shaking(3, 0, 0)(dot, generator)
    assert moved.flatten(1).sum(1).allclose(torch.ones(200), atol=1e-4)  # a move loses nothing
    rows = (moved.sum(3)[:, 0] * torch.arange(21.0)).sum(1) - 10
    assert rows.abs().max() <= 3
    assert rows.abs().max() > 2.5
    off = torch.zeros(200, 1, 21, 31)
    off[:, :, 10, 25] = 1  # ten to the right of the middle
    turned = Shaking(0, 0, 30)(off, generator)
    rise = (turned.sum(3)[:, 0] * torch.arange(21.0)).sum(1) / turned.flatten(1).sum(1) - 10
    assert rise.abs().max() == pytest.approx(
        5, abs=0.3
    )  # ten times the sine of 30 degrees: pixels are square


def test_the_model_runs_no_further_than_to_the_layer() -> None:
    class Explosive(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("this layer must not run")

    model = nn.Sequential(small(), Explosive()).eval()
    with Engine(model) as engine:
        assert engine.maximize("0.0", 1, image_size=16, steps=3).shape == (1, 3, 16, 16)
        assert engine.maximize(model[0][2], 1, image_size=16, steps=3).shape == (1, 3, 16, 16)


def test_a_stream_shows_pictures_as_they_form_and_ends_with_the_result(engine: Engine) -> None:
    options = {**SMALL, "steps": 10}
    parts = list(engine.stream_maximize("stage1", 3, every=4, **options))
    assert [part.step for part in parts] == [4, 8, 10]
    assert parts[-1].progress == 1
    assert torch.equal(parts[-1].images, engine.maximize("stage1", 3, **options))
    assert not torch.equal(parts[0].images, parts[1].images)
    assert parts[-1].objective > parts[0].objective
    assert parts[0].seconds_left > 0
    torch.testing.assert_close(parts[-1].images, (parts[-1].pictures - 0.5) / 0.25)


def test_a_stream_can_be_stopped_at_any_time_and_the_engine_goes_on(engine: Engine) -> None:
    with engine.stream_maximize("stage3", 3, every=1, **{**SMALL, "steps": 100_000}) as stream:
        next(stream)
        closer = threading.Thread(target=stream.close)
        closer.start()
        closer.join(20)
        assert not closer.is_alive()
        with pytest.raises(StopIteration):
            next(stream)
    assert engine.maximize("stem", 0, **{**SMALL, "steps": 1}).shape == (1, 3, 48, 48)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_model_is_left_as_it_was(mode: str) -> None:
    torch.manual_seed(0)
    model = Careless()
    model(torch.randn(2, 3, 6, 6)).sum().backward()
    model.history.clear()
    model.train(mode == "train")
    before = everything(model)
    with Engine(model) as engine:
        engine.maximize("conv", 2, image_size=6, steps=3)
        engine.maximize("output", 1, image_size=6, steps=3)
        assert everything(model) == before
        with engine.stream_maximize("encoder", image_size=6, steps=50) as stream:
            next(stream)
        with pytest.raises(InputError):
            engine.maximize("conv", objective=lambda a: a, image_size=6, steps=3)
        assert everything(model) == before
    assert everything(model) == before


def test_half_precision_and_double_precision_models_are_given_their_own() -> None:
    for dtype in (torch.bfloat16, torch.float64):
        with Engine(small().to(dtype)) as engine:
            found = engine.maximize("2", 1, image_size=16, steps=5)
        assert found.dtype == torch.float32
        assert found.isfinite().all()


def test_what_cannot_be_maximised_says_so(engine: Engine) -> None:
    options = {**SMALL, "steps": 2}
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("stem", {"channel": 99}, "none of the layer's 16 channels"),
        ("stem", {"channel": 1, "unit": (1, 2, 2)}, "channel and unit"),
        ("stem", {"unit": (1, 99, 2)}, "no index"),
        ("stem", {"direction": torch.ones(7)}, "16 numbers"),
        ("stem", {"channel": 0, "step": 3}, "Did you mean 'steps'"),
        ("stem", {"channel": 0, "parametrization": "wavelet"}, "fourier"),
        ("stem", {"channel": [0, 1], "images": 3}, "images=3"),
        ("stem", {"channel": 0, "value_range": (0, 1)}, "not both"),
        ("stem", {"channel": 0, "channels": 4}, "does not take pictures"),
        ("stem", {"start": torch.ones(3, 4)}, "start has the shape"),
        ("stem", {"channel": 0, "rotate": -1}, "rotate"),
    ]
    for layer, wrong, message in cases:
        with pytest.raises(InputError, match=message):
            engine.maximize(layer, **{**options, **wrong})
    with pytest.raises(UnknownLayerError, match="stage1"):
        engine.maximize("stage11", 1, **options)
