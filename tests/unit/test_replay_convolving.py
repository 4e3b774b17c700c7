"""Convolutions of a replay are those of the model, with what follows folded in or not; strokes add up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from tests.unit.test_replay import assert_same, replay_of, whole

if TYPE_CHECKING:
    from collections.abc import Callable


class Stage(nn.Module):
    """A stem, a residual block and a head; everything that a fold meets."""

    def __init__(self, conv: type[nn.Module], norm: type[nn.Module], *, inplace: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 8, 3, stride=2, padding=1), norm(8), nn.ReLU(inplace))
        self.grouped = conv(8, 8, 3, padding=2, dilation=2, groups=4, bias=False)
        self.norm = norm(8)
        self.last = conv(8, 12, 3, padding=1)  # nothing follows that could be folded in
        self.relu = nn.ReLU(inplace)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.relu(self.norm(self.grouped(x)) + x)
        return self.last(x).flatten(2).mean(2)


KINDS = {"2d": (nn.Conv2d, nn.BatchNorm2d, (24, 20)), "3d": (nn.Conv3d, nn.BatchNorm3d, (12, 10, 8))}


def stage(kind: str = "2d", *, inplace: bool = True) -> tuple[nn.Module, Tensor]:
    conv, norm, sides = KINDS[kind]
    torch.manual_seed(0)
    model = Stage(conv, norm, inplace=inplace)
    for part in model.modules():
        if isinstance(part, norm):
            for tensor in (part.weight, part.bias, part.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(part.running_var, 0.2, 3)
    return model.eval().requires_grad_(False), torch.randn(1, 3, *sides)


def painted(x: Tensor, at: int, value: float) -> Tensor:
    x = x.clone()
    x[(..., *[slice(at, at + 3)] * (x.dim() - 2))] = value
    return x


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_convolutions_with_weights_in_order_give_what_the_model_gives(kind: str, inplace: bool) -> None:
    model, x = stage(kind, inplace=inplace)
    replay = replay_of(model, x)
    variants = torch.cat([painted(x, at, value) for at, value in ((0, 2.0), (3, -1.0), (5, 0.5))])
    output, _ = replay.run([0, 0, 0], {replay.plan.inputs[0]: lambda _: variants})
    assert_same(output, whole(model, variants))
    weights = sum(p.numel() * 4 for name, p in model.named_parameters() if p.dim() > 1)
    assert replay.kernels.nbytes == weights  # all of them were in the library's order


@pytest.mark.parametrize("layer", ["stem.0", "stem.1", "stem.2", "grouped", "norm"])
def test_a_value_behind_a_convolution_can_be_changed_and_be_asked_for(layer: str) -> None:
    model, x = stage()
    replay = replay_of(model, x)
    ref = replay.plan.refs[layer]
    _, (value,) = replay.run([0], {replay.plan.inputs[0]: lambda _: painted(x, 4, 1.0)}, [ref])
    known: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda *given: known.append(given[2].clone()))
    model(painted(x, 4, 1.0))
    handle.remove()
    assert_same(value, known[0])
    other = value.clone()
    other[:, 1, 2:5, 3:5] = 3.0
    output, _ = replay.run([0], {ref: lambda _: other})
    assert_same(output, whole(model, x, {layer: other}))


def test_strokes_on_strokes_are_the_picture_that_they_make() -> None:
    model, x = stage()
    replay = replay_of(model, x)
    seed, normed = replay.plan.inputs[0], replay.plan.refs["stem.1"]
    for at in (2, 4, 17, 9, 10, 0):
        x = painted(x, at, 0.1 * at)
        replay.advance(seed, x, [normed])
        assert_same(replay.output(), whole(model, x))
        assert_same(replay.base(normed), model.get_submodule("stem")[:2](x))


class Branches(nn.Module):
    """Sums of every kind that follows a convolution, some of which are computed along with it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)  # a ReLU follows at once
        self.main = nn.Conv2d(8, 8, 1)
        self.wide = nn.Conv2d(8, 8, 7, padding=3)  # reaches further than what it is added to
        self.point = nn.Conv2d(8, 8, 1)
        self.down = nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.short = nn.Conv2d(8, 12, 1, stride=2)
        self.bias = nn.Parameter(torch.randn(1, 12, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu_()
        x = (self.wide(x) + self.main(x)).relu()
        y = self.point(x)
        y += self.wide(x)
        x = torch.add(self.main(y), x, alpha=0.5)
        z = self.norm(self.down(x))
        z = (self.short(x) + z) + self.bias
        return (z + 1).relu().mean((2, 3))


def test_sums_behind_convolutions_are_the_model_s_under_strokes() -> None:
    torch.manual_seed(1)
    model, x = Branches().eval().requires_grad_(False), torch.randn(1, 3, 40, 36)
    replay = replay_of(model, x)
    seed, ops = replay.plan.inputs[0], replay.plan.ops
    route = replay._route(frozenset([seed]), replay.plan.outputs)
    folded = [[op.name for op in route.tails[op.index].ops] for op in ops if op.name == "conv2d"]
    assert folded == [["relu"], [], ["add", "relu"], [], ["add"], [], ["batch_norm"], ["add"]]
    for at in (2, 30, 17, 9, 10, 0):
        x = painted(x, at, 0.1 * at)
        replay.advance(seed, x, [])
        assert_same(replay.output(), whole(model, x))
        assert replay.local > 12  # the rest is cut and laid


def test_a_stroke_that_is_broken_off_leaves_the_picture_before_it() -> None:
    model, x = stage()
    replay = replay_of(model, x)
    seed = replay.plan.inputs[0]
    replay.advance(seed, x := painted(x, 3, 1.0), [])

    def stopping(after: int) -> Callable[[], None]:
        steps = iter(range(after))

        def check() -> None:
            if next(steps, None) is None:
                raise InterruptedError

        return check

    for after in range(0, 12, 3):
        with pytest.raises(InterruptedError):
            replay.advance(seed, painted(x, 8, -2.0), [], stopping(after))
        assert_same(replay.output(), whole(model, x))
        replay.advance(seed, x := painted(x, after, 0.3), [])
        assert_same(replay.output(), whole(model, x))


def test_without_room_for_weights_torch_convolves() -> None:
    model, x = stage()
    replay = replay_of(model, x, budget=100)
    output, _ = replay.run([0], {replay.plan.inputs[0]: lambda _: painted(x, 6, 1.0)})
    assert replay.kernels.nbytes == 0
    assert_same(output, whole(model, painted(x, 6, 1.0)))


def test_other_precisions_are_left_to_torch() -> None:
    model, x = stage()
    model, x = model.double(), x.double()
    replay = replay_of(model, x)
    output, _ = replay.run([0], {replay.plan.inputs[0]: lambda _: painted(x, 6, 1.0)})
    assert_same(output, whole(model, painted(x, 6, 1.0)))
