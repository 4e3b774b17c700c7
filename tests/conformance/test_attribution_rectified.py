"""Guided backpropagation, deconvolution and their product with Grad-CAM equal Captum's, and go further."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from captum.attr import Deconvolution, GuidedBackprop, GuidedGradCam
from torch import Tensor, nn

from nnviz_widget.engine.engine import Engine
from tests.conformance.test_harmless import Careless, everything
from tests.explained import CONVOLUTIONAL, apart, case
from tests.models import image, seeded

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = {"guided_backprop": GuidedBackprop, "deconvolution": Deconvolution}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:captum")


@pytest.mark.parametrize("name", [*CONVOLUTIONAL, "two_inputs"])
@pytest.mark.parametrize("method", METHODS)
def test_maps_equal_captums(name: str, method: str) -> None:
    c = case(name)
    expected = METHODS[method](c.model).attribute(c.inputs, target=c.target)
    with Engine(c.model) as engine:
        found = engine.attribute(c.inputs, method, target=c.target)
    assert not found.cautions
    for a, b in zip(found.tensors, expected, strict=True):
        assert apart(a, b) <= 1e-5


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_guided_grad_cam_equals_captums(name: str) -> None:
    c = case(name)
    peer = GuidedGradCam(c.model, c.model.get_submodule(c.layer))
    (expected,) = peer.attribute(c.inputs, target=c.target)  # enlarged to the nearest
    with Engine(c.model) as engine:
        found = engine.attribute(
            c.inputs, "guided_grad_cam", target=c.target, layer=c.layer, interpolate_mode="nearest"
        )
        smooth = engine.attribute(c.inputs, "guided_grad_cam", target=c.target, layer=c.layer)
        fine = engine.attribute(c.inputs, "guided_backprop", target=c.target)
        coarse = engine.attribute(
            c.inputs, "grad_cam", target=c.target, layer=c.layer, relu_attributions=True
        )
    assert apart(found.values, expected) <= 1e-5
    assert apart(smooth.values, fine.values * coarse.values) <= 1e-6
    assert torch.equal(smooth.layer_values, coarse.layer_values)


class Spelled(nn.Module):
    """The same network with its ReLUs spelled in one of many ways."""

    def __init__(self, relu: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 5, 3), nn.Linear(5, 3)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.relu(self.second(self.relu(self.first(x)))).mean((2, 3)))


def half_in_place(x: Tensor) -> Tensor:
    """In place, on two views of one tensor."""
    x[:, :2].relu_()
    F.relu_(x[:, 2:])
    return x


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "relu",
    [
        F.relu, torch.relu, Tensor.relu, Tensor.relu_, F.relu_, half_in_place,
        lambda x: F.relu(x, inplace=True), lambda x: F.relu(x, True), lambda x: F.relu(input=x),
        nn.ReLU(inplace=True),
    ],
)  # fmt: skip
def test_relus_are_found_by_whatever_name(relu: Callable[[Tensor], Tensor], method: str) -> None:
    module = seeded(lambda: Spelled(nn.ReLU()))
    spelled = seeded(lambda: Spelled(relu))
    x = image(2, 8)
    (expected,) = METHODS[method](module).attribute((x,), target=1)
    with Engine(spelled) as engine:
        found = engine.attribute(x, method, target=1)
        assert torch.equal(engine.trace(x).output, module(x))
    assert apart(found.values, expected) <= 1e-6


class Rectify(torch.autograd.Function):
    """What the papers say of one ReLU."""

    @staticmethod
    def forward(ctx, x: Tensor, guided: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.guided = guided
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        positive = torch.where(gradient > 0, gradient, 0.0)
        return (torch.where(x > 0, positive, 0.0) if ctx.guided else positive), None


@pytest.mark.parametrize("method", METHODS)
def test_maps_follow_the_papers_in_float64(method: str) -> None:
    x = image(2, 8).double().requires_grad_()
    model = seeded(lambda: Spelled(F.relu)).double()
    reference = seeded(lambda: Spelled(lambda x: Rectify.apply(x, method == "guided_backprop"))).double()
    (expected,) = torch.autograd.grad(reference(x)[:, 2].sum(), x)
    with Engine(model) as engine:
        found = engine.attribute(x, method, target=2)
    assert found.values.dtype == torch.float64
    assert apart(found.values, expected) <= 1e-12


@pytest.mark.parametrize("act", [nn.GELU(), nn.SiLU(), nn.Tanh()])
def test_without_any_relu_it_is_the_plain_gradient_and_says_so(act: nn.Module) -> None:
    model, x = seeded(lambda: Spelled(act)), image(1, 8)
    with Engine(model) as engine:
        plain = engine.attribute(x, "saliency", target=0)
        for method in METHODS:
            found = engine.attribute(x, method, target=0)
            assert torch.equal(found.values, plain.values)
            assert any("no ReLU" in text for text in found.cautions)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("method", [*METHODS, "guided_grad_cam"])
def test_nothing_of_the_model_is_touched(mode: str, method: str) -> None:
    torch.manual_seed(0)
    model = Careless().train(mode == "train")
    x = torch.randn(2, 3, 6, 6)
    before = everything(model)
    with Engine(model) as engine:
        engine.attribute(x, method, target=1)
        assert everything(model) == before
    assert everything(model) == before
