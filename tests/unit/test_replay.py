"""Replay gives what the whole model gives, whatever is changed in whatever network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.replay.plan import Plan, plan_of
from nnviz_widget.engine.replay.run import Replay
from tests import models
from tests.random_networks import RandomNetwork

if TYPE_CHECKING:
    from collections.abc import Callable


#: As many float digits as a sum of some thousand products keeps, relative to the largest number.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def planned(model: nn.Module, x: Tensor) -> Plan:
    return plan_of(lambda rows: record(model, (x[:1].expand(rows, *x.shape[1:]).contiguous(),), keep=None))


def replay_of(model: nn.Module, x: Tensor, budget: int = 1 << 30) -> Replay:
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return Replay(planned(model, x), [x], len(x), lookup=lambda name: named[name].detach(), budget=budget)


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    scale = expected.abs().max().clamp(min=1e-30)
    assert float((found - expected).abs().max() / scale) <= TOLERANCE[expected.dtype]


def whole(model: nn.Module, x: Tensor, edits: dict[str, Tensor] | None = None) -> Tensor:
    """Run the model itself, with other outputs of some of its parts, by hooks of torch's own."""
    handles = [
        model.get_submodule(path).register_forward_hook(lambda *_, value=value: value.clone())
        for path, value in (edits or {}).items()
    ]
    try:
        with torch.no_grad():
            output: Tensor = model(x.clone())
            return output
    finally:
        for handle in handles:
            handle.remove()


@st.composite
def questions(draw: Callable[[Any], Any]) -> tuple[RandomNetwork, Tensor, Tensor, list[int]]:
    """A network, samples, and variants of them that differ in a box each."""
    network = RandomNetwork(draw, draw(st.sampled_from([1, 2, 2, 2, 3])))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    network.to(dtype)
    samples = draw(st.integers(1, 2))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1 << 16)))
    x = torch.randn(samples, *network.input_shape, generator=generator, dtype=dtype)
    rows = [draw(st.integers(0, samples - 1)) for _ in range(draw(st.integers(2, 5)))]
    changed = x[rows].clone()
    size = [draw(st.integers(1, max(1, side // 3))) for side in network.input_shape[1:]]
    for row in range(len(rows)):
        box = [slice(None)]
        for side, n in zip(network.input_shape[1:], size, strict=True):
            begin = draw(st.integers(0, side - n))
            box.append(slice(begin, begin + n))
        changed[row][tuple(box)] = torch.randn((), generator=generator, dtype=dtype)
    return network, x, changed, rows


@settings(max_examples=120, suppress_health_check=list(HealthCheck), deadline=None)
@given(question=questions(), data=st.data())
def test_any_box_of_any_network_gives_what_the_whole_network_gives(
    question: tuple[RandomNetwork, Tensor, Tensor, list[int]], data: st.DataObject
) -> None:
    network, x, changed, rows = question
    replay = replay_of(network, x, budget=data.draw(st.sampled_from([0, 20_000, 1 << 30])))
    assert_same(replay.output(), whole(network, x))
    output, _ = replay.run(rows, {replay.plan.inputs[0]: lambda _: changed})
    assert_same(output, whole(network, changed))
    # And from the middle: a part gives something else for each variant, everywhere or in a box.
    if len(network.steps):
        path = f"steps.{data.draw(st.integers(0, len(network.steps) - 1))}"
        ref = replay.plan.refs[path]
        instead = replay.base(ref)[rows].clone()
        instead[:, 0] = 0.25 if data.draw(st.booleans()) else instead[:, 0] * 2
        if data.draw(st.booleans()):
            instead[:, :, : instead.shape[2] // 2] = replay.base(ref)[rows][:, :, : instead.shape[2] // 2]
        output, _ = replay.run(rows, {ref: lambda _: instead})
        assert_same(output, whole(network, x[rows], {path: instead}))
    assert_same(replay.output(), whole(network, x))  # nothing of the unchanged run was written to


@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(question=questions(), data=st.data())
def test_a_run_that_follows_strokes_is_that_of_the_last_picture(
    question: tuple[RandomNetwork, Tensor, Tensor, list[int]], data: st.DataObject
) -> None:
    network, x, changed, _ = question
    picture = x[:1].clone()
    given_before = picture.clone()
    replay = replay_of(network, picture)
    seed = replay.plan.inputs[0]
    goals = [replay.plan.refs[f"steps.{i}"] for i in range(len(network.steps))]
    shown = picture
    for row in changed:
        shown = torch.where(data.draw(st.booleans()) & (row != x[0]), row, shown[0])[None]
        replay.advance(seed, shown, goals if data.draw(st.booleans()) else goals[:1])
        assert_same(replay.output(), whole(network, shown))
    fresh = replay_of(network, shown)
    for goal in goals:
        assert_same(replay.base(goal), fresh.base(goal))
    assert torch.equal(picture, given_before)


def test_a_stroke_that_is_called_off_leaves_the_frame_before() -> None:
    model = models.vision("resnet18")
    x = models.image(1, 64)
    replay = replay_of(model, x)
    seed = replay.plan.inputs[0]
    painted = x.clone()
    painted[..., 20:30, 20:30] = 0
    replay.advance(seed, painted, [])
    after, again = painted.clone(), painted.clone()
    after[..., 40:44, 40:44] = 1
    again[..., 2:9, 2:9] = 1
    calls = iter(range(100))

    def check() -> None:
        if next(calls) == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay.advance(seed, after, [], check)
    assert_same(replay.output(), whole(model, painted))
    replay.advance(seed, again, [])
    assert_same(replay.output(), whole(model, again))
