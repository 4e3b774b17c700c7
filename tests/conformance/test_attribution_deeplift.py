"""DeepLIFT equals Captum's where that holds, adds up where it does not, and says where neither does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from captum.attr import DeepLift, DeepLiftShap
from torch import Tensor, nn

from nnviz_widget.engine.engine import Engine
from tests.conformance.test_harmless import Careless, everything
from tests.explained import apart, case
from tests.models import TinyVit, image, seeded, vision

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:captum")

#: Without max pooling: what Captum finds for it does not add up behind an activation.
WITHOUT_POOLS = ("shapes", "two_inputs")


def change(model: nn.Module, x: tuple[Tensor, ...], start: tuple[Tensor, ...], target: int) -> Tensor:
    with torch.no_grad():
        return (model(*x) - model(*start))[:, target]


@pytest.mark.parametrize("name", WITHOUT_POOLS)
def test_contributions_equal_captums(name: str) -> None:
    c = case(name)
    starts = tuple(torch.full_like(x, 0.1) for x in c.inputs)
    expected, delta = DeepLift(c.model).attribute(
        c.inputs, starts, target=c.target, return_convergence_delta=True
    )
    with Engine(c.model) as engine:
        found = engine.attribute(c.inputs, "deep_lift", target=c.target, baselines=starts)
    for a, b in zip(found.tensors, expected, strict=True):
        assert apart(a, b) <= 1e-5
    assert (found.delta - delta).abs().max() <= 1e-5
    assert (found.forward_passes, found.backward_passes) == (4, 4)


def test_max_pooling_equals_captums_where_nothing_bends_before_it() -> None:
    model = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 8), nn.Tanh(), nn.Linear(8, 3)
        )
    )
    x, start = image(2, 8), image(2, 8, seed=1)
    expected = DeepLift(model).attribute(x, start, target=2)
    with Engine(model) as engine:
        found = engine.attribute(x, "deep_lift", target=2, baselines=start)
    assert apart(found.values, expected) <= 1e-5


def test_a_bend_before_max_pooling_is_one_rule_after_the_other() -> None:
    # Captum's contributions miss the change of the score here.
    x, start = image(2, 8), image(2, 8, seed=1)
    first, act = nn.Conv2d(3, 6, 3), nn.Sigmoid()
    rest = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 3))
    with Engine(nn.Sequential(first, act, rest)) as engine, Engine(rest) as after:
        found = engine.attribute(x, "deep_lift", target=2, baselines=start)
        a, b = first(x).detach(), first(start).detach()
        later = after.attribute(act(a), "deep_lift", target=2, baselines=act(b))
    expected = DeepLift(rest).attribute(act(a), act(b), target=2)
    assert apart(later.values, expected) <= 1e-5
    leaf = x.clone().requires_grad_()
    (multiplier,) = torch.autograd.grad(first(leaf), leaf, later.values / (a - b))
    assert apart(found.values, multiplier * (x - start)) <= 1e-5
    assert found.delta.abs().max() <= 1e-6


@pytest.mark.parametrize("name", WITHOUT_POOLS)
def test_the_mean_over_baselines_equals_captums(name: str) -> None:
    c = case(name)
    pools = tuple(torch.rand(3, *x.shape[1:]) for x in c.inputs)
    expected = DeepLiftShap(c.model).attribute(c.inputs, pools, target=c.target)
    with Engine(c.model) as engine:
        found = engine.attribute(c.inputs, "deep_lift_shap", target=c.target, baselines=pools)
        parts = list(
            engine.stream(c.inputs, "deep_lift_shap", target=c.target, baselines=pools, internal_batch_size=1)
        )
    for a, b, last, error in zip(
        found.tensors, expected, parts[-1].tensors, _several(found.stderr), strict=True
    ):
        assert apart(a, b) <= 1e-5
        assert apart(last, a) <= 1e-6
        assert error.shape == a.shape


def _several(found: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else found


def rescaled(model: nn.Sequential, x: Tensor, start: Tensor, target: int) -> Tensor:
    """The rescale rule for layers one after the other, from the values of both runs alone."""
    values, values0 = [x], [start]
    for layer in model:
        values.append(layer(values[-1]))
        values0.append(layer(values0[-1]))
    multiplier = F.one_hot(torch.tensor([target]), values[-1].shape[1]).to(x)
    for layer, a, b, y, y0 in reversed(
        list(zip(model, values, values0, values[1:], values0[1:], strict=False))
    ):
        if isinstance(layer, nn.Linear):
            multiplier = multiplier @ layer.weight
        else:
            multiplier = multiplier * (y - y0) / (a - b)
    return multiplier * (x - start)


@pytest.mark.parametrize("act", [nn.Sigmoid, nn.GELU, nn.SiLU, nn.Softplus, nn.Hardswish])
def test_the_rule_holds_for_every_bend_in_float64(act: Callable[[], nn.Module]) -> None:
    model = seeded(
        lambda: nn.Sequential(nn.Linear(5, 7), act(), nn.Linear(7, 6), act(), nn.Linear(6, 3))
    ).double()
    x = torch.randn(1, 5, dtype=torch.float64)
    start = torch.randn(1, 5, dtype=torch.float64)
    with Engine(model) as engine:
        found = engine.attribute(x, "deep_lift", target=1, baselines=start)
    assert apart(found.values, rescaled(model, x, start, 1)) <= 1e-10
    assert found.delta.abs().max() <= 1e-12


def test_of_a_linear_model_it_is_weight_times_difference() -> None:
    model = seeded(lambda: nn.Linear(6, 3))
    x, start = torch.randn(4, 6), torch.randn(1, 6)
    with Engine(model) as engine:
        found = engine.attribute(x, "deep_lift", target=2, baselines=start)
    assert apart(found.values, model.weight[2] * (x - start)) <= 1e-6


class Spelled(nn.Module):
    """One ReLU used again and again, in place; overlapping pools; functions instead of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.act, self.last = nn.ReLU(inplace=True), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.act(self.first(x)), 3, 2, 1)
        y = self.act(F.gelu(self.second(x)) - 0.05)
        y += x
        return self.last(F.adaptive_max_pool2d(F.leaky_relu_(y, 0.2), 1).flatten(1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: seeded(Spelled),
        lambda: case("resnet18").model,
        lambda: case("vgg").model,
        lambda: vision("densenet121"),
        lambda: seeded(lambda: nn.Sequential(Series(), nn.Flatten(), nn.Linear(48, 3))),
    ],
)
def test_contributions_add_up_where_captum_gives_up(make: Callable[[], nn.Module]) -> None:
    model = make()
    x = image(2, 64 if len(list(model.modules())) > 30 else 16)
    start = image(2, x.shape[-1], seed=1)
    with Engine(model) as engine:
        found = engine.attribute(x, "deep_lift", target=1, baselines=start)
    difference = change(model, (x,), (start,), 1)
    assert (found.values.sum((1, 2, 3)) - difference).abs().max() <= 1e-4 * difference.abs().max()
    assert not found.cautions


class Series(nn.Module):
    """Max pooling along one axis, which torch does by way of two."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool1d(torch.tanh(x.flatten(2)), 16).clamp(min=-0.5)


def test_what_has_no_rule_is_told_with_the_error() -> None:
    model, x = seeded(TinyVit), image(2, 16)
    with Engine(model) as engine:
        found = engine.attribute(x, "deep_lift", target=0, baselines="mean")
    start = x.mean((2, 3), keepdim=True).expand_as(x)
    difference = change(model, (x,), (start,), 0)
    assert (found.delta - (found.values.sum((1, 2, 3)) - difference)).abs().max() <= 1e-6
    assert (found.delta.abs() / difference.abs()).max() > 0.05
    assert any("DeepLIFT has no rule" in text for text in found.cautions)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("method", ["deep_lift", "deep_lift_shap"])
def test_nothing_of_the_model_is_touched(mode: str, method: str) -> None:
    torch.manual_seed(0)
    model = Careless().train(mode == "train")
    x = torch.randn(2, 3, 6, 6)
    before = everything(model)
    with Engine(model) as engine:
        engine.attribute(x, method, target=1)
        assert everything(model) == before
    assert everything(model) == before
