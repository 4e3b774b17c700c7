"""Unit saliency equals plain ``torch.autograd.grad`` to 1e-6, and Captum's ``NeuronGradient`` to 1e-5.

On architectures as people use them: in-place and reused ReLUs, depthwise convolutions, attention (its fast
path is off for both sides: with autograd it is not taken).
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

import tests.torchvision_stub  # noqa: F401
from nnviz_widget.engine.engine import Engine
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable


def torchvision_model(name: str, **options: Any) -> nn.Module:
    import torchvision

    return getattr(torchvision.models, name)(weights=None, **options)


def vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(64, 16, 3, 3, 48, 96, num_classes=20)
    nn.init.normal_(model.heads[0].weight)  # zero as it comes: then no class depends on anything
    return model


def tiny_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(6, 4, 3), nn.GELU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 5),
    )  # fmt: skip


class FirstInPlace(nn.Module):
    """Writes into its own input before anything else."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.act(x.mul_(2))).tanh_()


class Reused(nn.Module):
    """One ReLU, in place, used three times, with a residual around it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.a(x))
        y = self.b(y)
        y += x
        y = self.relu(y)
        return self.head(self.relu(y - 0.1).mean((2, 3)))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "resnet18": (
        lambda: torchvision_model("resnet18"),
        (2, 3, 64, 64),
        ["conv1", "layer1", "layer2.0.conv1", "layer3", "fc"],
    ),
    "vgg11": (
        lambda: torchvision_model("vgg11"),
        (1, 3, 64, 64),
        ["features.0", "features.8", "features.20", "classifier.0"],
    ),
    "mobilenet_v3_small": (
        lambda: torchvision_model("mobilenet_v3_small"),
        (1, 3, 64, 64),
        ["features.0", "features.4.block.1", "features.8", "classifier"],
    ),
    "vit": (
        vit,
        (1, 3, 64, 64),
        [
            "conv_proj",
            "encoder.layers.encoder_layer_0",
            "encoder.layers.encoder_layer_1.mlp",
            "encoder.layers.encoder_layer_2.self_attention",
            "heads",
        ],
    ),
    "tiny cnn": (tiny_cnn, (3, 3, 16, 16), ["0", "3", "6", "8"]),
    "in place first": (FirstInPlace, (2, 3, 8, 8), ["act", "conv"]),
    "reused in place": (Reused, (2, 3, 8, 8), ["a", "b", "head"]),
}


@functools.cache
def built(name: str) -> nn.Module:
    """Build each model once: the engine leaves it as it was, and so do the references."""
    torch.manual_seed(0)
    return CASES[name][0]()


def plain_gradient(model: nn.Module, x: Tensor, layer: str, index: tuple[int, ...]) -> Tensor:
    """The definition, on the user's model in eval mode: hook the layer, take the gradient."""
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(
        # A clone: what comes later may overwrite it in place.
        lambda module, args, output: kept.append((output[0] if isinstance(output, tuple) else output).clone())
    )
    leaf = x.clone().requires_grad_()
    model(leaf.clone())
    handle.remove()
    return torch.autograd.grad(kept[0][index], leaf)[0]


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("name", "layer"), [(name, layer) for name, (_, _, layers) in CASES.items() for layer in layers]
)
def test_a_unit_has_the_gradient_of_autograd_and_of_captum(name: str, layer: str) -> None:
    from captum.attr import NeuronGradient

    model = built(name).train()
    torch.manual_seed(1)
    x = torch.randn(CASES[name][1])
    sample = len(x) - 1
    with Engine(model) as engine:
        trace = engine.trace(x)
        values = trace.activation(layer)[sample]
        unit = tuple(int(i) for i in torch.unravel_index(values.abs().argmax(), values.shape))
        first = engine.unit_saliency(trace, layer, unit, sample=sample)
        again = engine.unit_saliency(trace, layer, unit, sample=sample)
    assert isinstance(first, Tensor)
    assert isinstance(again, Tensor)
    model.eval()
    expected = plain_gradient(model, x, layer, (sample, *unit))
    assert expected.abs().max() > 0
    assert first.shape == x.shape
    assert first.dtype == torch.float32
    assert relative(first, expected) <= 1e-6
    assert torch.equal(first, again)
    if name == "in place first" or layer.endswith("self_attention"):
        return  # Captum lets the model write into a leaf, and fails on outputs that hold a None
    one = x[sample : sample + 1].clone().requires_grad_()
    captum = NeuronGradient(model, model.get_submodule(layer)).attribute(one, unit)
    assert relative(first[sample], captum[0]) <= 1e-5


@pytest.mark.parametrize("name", ["resnet18", "tiny cnn", "vit"])
def test_a_class_is_a_unit_of_the_output(name: str) -> None:
    torch.manual_seed(0)
    model = built(name).eval()
    x = torch.randn(CASES[name][1])
    with Engine(model) as engine:
        found = engine.unit_saliency(engine.trace(x), "output", 3)
    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(model(leaf)[0, 3], leaf)[0]
    assert isinstance(found, Tensor)
    assert relative(found, expected) <= 1e-6


def test_the_same_layer_twice_is_two_nodes_with_their_own_gradients() -> None:
    torch.manual_seed(0)
    model = Reused().eval()
    x = torch.randn(1, 3, 8, 8)
    kept: list[Tensor] = []
    model.relu.register_forward_hook(lambda module, args, output: kept.append(output.clone()))
    leaf = x.clone().requires_grad_()
    model(leaf.clone())
    with Engine(model) as engine:
        trace = engine.trace(x)
        for call in range(3):
            expected = torch.autograd.grad(kept[call][0, 1, 4, 4], leaf, retain_graph=True)[0]
            found = engine.unit_saliency(trace, f"relu@{call}" if call else "relu", (1, 4, 4))
            assert isinstance(found, Tensor)
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_a_float64_run_confirms_the_float32_one() -> None:
    torch.manual_seed(0)
    model = tiny_cnn().eval()
    x = torch.randn(1, 3, 16, 16)
    with Engine(model) as engine:
        single = engine.unit_saliency(engine.trace(x), "4", (1, 2, 2))
    with Engine(model.double()) as engine:
        double = engine.unit_saliency(engine.trace(x.double()), "4", (1, 2, 2))
    assert isinstance(single, Tensor)
    assert isinstance(double, Tensor)
    assert double.dtype == torch.float64
    assert relative(single, double.float()) <= 1e-5


def test_half_precision_models_answer_in_float32() -> None:
    torch.manual_seed(0)
    model = tiny_cnn().eval()
    x = torch.randn(1, 3, 16, 16)
    with Engine(model) as engine:
        expected = engine.unit_saliency(engine.trace(x), "4", (1, 2, 2))
    with Engine(model.bfloat16()) as engine:
        found = engine.unit_saliency(engine.trace(x.bfloat16()), "4", (1, 2, 2))
    assert isinstance(found, Tensor)
    assert isinstance(expected, Tensor)
    assert found.dtype == torch.float32
    assert relative(found, expected) <= 0.05


@pytest.mark.parametrize("name", ["resnet18", "tiny cnn", "vit", "in-place"])
def test_many_units_at_once_are_the_same_as_one_by_one(name: str) -> None:
    torch.manual_seed(0)
    model = (Reused() if name == "in-place" else built(name)).eval()
    x = torch.randn(2, 3, 8, 8) if name == "in-place" else torch.randn(CASES[name][1])
    with Engine(model) as engine:
        trace = engine.trace(x)
        layer = "relu@1" if name == "in-place" else "output"
        shape = trace.activation(layer).shape[1:]
        units = [tuple(index) for index in itertools.product(*(range(min(size, 6)) for size in shape))][:40]
        found = engine.unit_saliencies(trace, layer, units)
        each = [engine.unit_saliency(trace, layer, unit) for unit in units]
    assert isinstance(found, Tensor)
    assert relative(found, torch.stack(each)) <= 1e-6


def test_units_behind_an_operation_that_knows_no_batch_of_gradients_are_asked_one_by_one() -> None:
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return torch.from_numpy(gradient.numpy() * 2)  # leaves torch: nothing that can be batched

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Doubled.apply(x**2)

    x = torch.randn(1, 5)
    with Engine(Model()) as engine:
        found = engine.unit_saliencies(engine.trace(x), "output", range(5))
        with pytest.raises(InputError, match="no unit"):
            engine.unit_saliencies(engine.trace(x), "output", [])
    assert torch.allclose(found[:, 0], torch.diag(4 * x[0]))
