"""Class activation maps equal Captum's, torch-cam's and the formulas of the papers."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import Tensor, nn

from nnviz_widget.engine.engine import Engine
from nnviz_widget.errors import InputError, UnknownLayerError
from tests.conformance.test_harmless import Careless, everything
from tests.explained import CONVOLUTIONAL, NAMES, Case, apart, case
from tests.models import Mlp, TinyLstm, TinyVit, image, seeded, vision

if TYPE_CHECKING:
    from collections.abc import Callable

FIVE = ["grad_cam", "grad_cam_plus_plus", "layer_cam", "hires_cam", "xgrad_cam"]


def seen(case: Case, layer: nn.Module) -> tuple[Tensor, Tensor]:
    """What a layer gave, and the gradient of the target on it, by plain autograd."""
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _, __, output: kept.append(output))
    try:
        score = case.model(*case.inputs)[:, case.target].sum()
    finally:
        handle.remove()
    return kept[-1].detach(), torch.autograd.grad(score, kept[-1])[0]


def by_the_papers(a: Tensor, g: Tensor) -> dict[str, Tensor]:
    """The maps of one sample, ``[C, h, w]`` each, channel by channel and with the fractions as printed."""
    maps = {name: torch.zeros_like(a[0]) for name in FIVE}
    for channel, slope in zip(a, g, strict=True):
        maps["grad_cam"] += slope.sum() / slope.numel() * channel
        maps["hires_cam"] += slope * channel
        maps["layer_cam"] += slope.clamp(min=0) * channel
        maps["xgrad_cam"] += ((slope * channel).sum() / channel.sum() * channel).nan_to_num()
        alpha = slope**2 / (2 * slope**2 + channel.sum() * slope**3)
        maps["grad_cam_plus_plus"] += (alpha.nan_to_num() * slope.clamp(min=0)).sum() * channel
    return maps


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_grad_cam_equals_captums_and_is_enlarged_bilinearly(name: str) -> None:
    c = case(name)
    expected = LayerGradCam(c.model, c.model.get_submodule(c.layer)).attribute(c.inputs, target=c.target)
    with Engine(c.model) as engine:
        found = engine.attribute(c.inputs, "grad_cam", target=c.target, layer=c.layer)
        cut = engine.attribute(c.inputs, "grad_cam", target=c.target, layer=c.layer, relu_attributions=True)
    assert apart(found.layer_values, expected) <= 1e-5
    assert torch.equal(cut.layer_values, found.layer_values.clamp(min=0))
    x = c.inputs[0]
    enlarged = F.interpolate(expected, size=x.shape[2:], mode="bilinear", align_corners=False)
    assert apart(found.values, enlarged.expand_as(x)) <= 1e-5


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_the_five_maps_follow_the_papers_in_float64(name: str) -> None:
    c = case(name).double()
    values, gradients = seen(c, c.model.get_submodule(c.layer))
    with Engine(c.model) as engine:
        found = engine.cams(c.inputs, target=c.target, layer=c.layer)
    assert list(found) == FIVE
    for row, (a, g) in enumerate(zip(values, gradients, strict=True)):
        for method, expected in by_the_papers(a, g).items():
            assert apart(found[method].layer_values[row, 0], expected) <= 1e-8, method


@pytest.mark.parametrize("name", NAMES)
def test_all_five_from_one_pass_are_those_from_five(name: str) -> None:
    c = case(name)
    with Engine(c.model) as engine:
        engine.cams(c.inputs, target=c.target, layer=c.layer)  # learns the layout
        together = engine.cams(c.inputs, target=c.target, layer=c.layer)
        alone = {
            method: engine.attribute(c.inputs, method, target=c.target, layer=c.layer) for method in FIVE
        }
    for method in FIVE:
        one, other = together[method], alone[method]
        assert (one.forward_passes, one.backward_passes) == (2, 2)
        assert (one.method, one.call, one.options) == (method, other.call, other.options)
        for a, b, x in zip(one.tensors, other.tensors, c.inputs, strict=True):
            assert torch.equal(a, b)
            assert a.shape == x.shape
        assert torch.equal(one.layer_values, other.layer_values)


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_torch_cam_finds_the_same_maps(name: str) -> None:
    # Its Grad-CAM++ is left out: 0.5.0 divides a copy, so that the weights lack their denominator.
    methods = pytest.importorskip("torchcam.methods")
    c = case(name)
    model = copy.deepcopy(c.model)
    with Engine(c.model) as engine:
        found = engine.cams(c.inputs, target=c.target, layer=c.layer, relu_attributions=True)
    for method, peer in (("grad_cam", "GradCAM"), ("layer_cam", "LayerCAM"), ("xgrad_cam", "XGradCAM")):
        with getattr(methods, peer)(model, target_layer=c.layer, input_shape=c.inputs[0].shape[1:]) as cam:
            (expected,) = cam(class_idx=c.target, scores=model(*c.inputs), normalized=False)
        assert apart(found[method].layer_values[:, 0], expected) <= 1e-5, method


class AtInputSize(nn.Module):
    """A network whose maps need no enlarging."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 7, 3, padding=1)
        self.act = nn.ReLU()
        self.head = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.conv(x)).mean((2, 3)))


def score_cam(model: nn.Module, x: Tensor, a: Tensor, target: int) -> Tensor:
    """One sample, one channel at a time: the mask is enlarged, then stretched to [0, 1]."""
    scores = []
    for channel in a:
        mask = F.interpolate(channel[None, None], size=x.shape[1:], mode="bilinear", align_corners=False)[0]
        low, high = mask.min(), mask.max()
        mask = (mask - low) / (high - low) if high > low else torch.zeros_like(mask)
        scores.append(model((x * mask)[None])[0, target])
    return (torch.stack(scores).softmax(0)[:, None, None] * a).sum(0)


@pytest.mark.parametrize("name", ["digits", "vgg"])
def test_score_cam_follows_the_paper(name: str) -> None:
    c = case(name).double()
    values, _ = seen(c, c.model.get_submodule(c.layer))
    with Engine(c.model) as engine, torch.no_grad():
        found = engine.attribute(c.inputs, "score_cam", target=c.target, layer=c.layer)
        for row, x in enumerate(c.inputs[0]):
            expected = score_cam(c.model, x, values[row], c.target)
            assert apart(found.layer_values[row, 0], expected) <= 1e-8


def test_torch_cam_finds_the_same_score_cam_where_nothing_is_enlarged() -> None:
    methods = pytest.importorskip("torchcam.methods")
    model, x = seeded(AtInputSize), image(2, 8)
    with methods.ScoreCAM(copy.deepcopy(model), target_layer="act", input_shape=(3, 8, 8)) as cam:
        cam.model(x)
        (expected,) = cam(class_idx=2, normalized=False)
    with Engine(model) as engine:
        found = engine.attribute(x, "score_cam", target=2, layer="act", relu_attributions=True)
    assert apart(found.layer_values[:, 0], expected) <= 1e-5


def test_score_cam_does_not_depend_on_its_chunks_and_begins_with_the_strongest_channels() -> None:
    model, x = seeded(AtInputSize), image(2, 8)
    with Engine(model) as engine:
        whole = engine.attribute(x, "score_cam", layer="act", perturbations_per_eval=100)
        parts = list(engine.stream(x, "score_cam", layer="act", perturbations_per_eval=3))
        strength = engine.trace(x).activation("act").abs().mean((2, 3))
    assert apart(parts[-1].values, whole.values) <= 1e-6
    assert [part.progress for part in parts] == sorted(part.progress for part in parts)
    # After four of fourteen rows two channels of each sample are known: the map lies between these two.
    strongest = strength.argsort(1, descending=True)[:, :2]
    with Engine(model) as engine:
        a = engine.trace(x).activation("act")
        early = next(iter(engine.stream(x, "score_cam", layer="act", perturbations_per_eval=4)))
    for row in range(2):
        pair = a[row, strongest[row]]
        assert (early.layer_values[row, 0] >= pair.amin(0) - 1e-6).all()
        assert (early.layer_values[row, 0] <= pair.amax(0) + 1e-6).all()


@pytest.mark.parametrize(
    ("make", "x", "layer"),
    [
        (lambda: vision("resnet18"), image(1, 64), "layer4"),
        (lambda: vision("vgg11"), image(1, 64), "features"),
        (lambda: vision("swin_t"), image(1, 64), "permute"),
        (lambda: vision("convnext_tiny"), image(1, 64), "features"),
        (lambda: vision("mobilenet_v2"), image(1, 64), "features"),
        (lambda: seeded(TinyVit), image(2, 16), "encoder.layers.0"),  # before the last attention
        (lambda: seeded(TinyLstm), torch.arange(14).reshape(2, 7), "embed"),  # the last step alone is read
    ],
)
def test_the_layer_that_is_taken_by_itself_is_the_last_with_positions(
    make: Callable[[], nn.Module], x: Tensor, layer: str
) -> None:
    model = make()
    with Engine(model) as engine:
        found = engine.attribute(x, "grad_cam", target=1)
        named = engine.attribute(x, "grad_cam", target=1, layer=layer)
    assert found.options["layer"] == layer
    assert torch.equal(found.values, named.values)
    assert found.values.any()


def test_of_a_segmentation_the_coarsest_layer_is_taken() -> None:
    model = seeded(
        lambda: nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU()),
            nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(6, 2, 1)),
        )
    )
    with Engine(model) as engine:
        found = engine.attribute(image(1, 8), "grad_cam", target=(1, 3, 4))
    assert found.options["layer"] == "1"
    assert found.layer_values.shape == (1, 1, 4, 4)


def test_channels_last_are_read_as_channels() -> None:
    model, x = vision("swin_t"), image(1, 64)
    with Engine(model) as engine:
        last = engine.cams(x, target=3, layer="norm")  # [N, h, w, C]
        first = engine.cams(x, target=3, layer="permute")  # the same values as [N, C, h, w]
    for method in FIVE:
        assert apart(last[method].values, first[method].values) <= 1e-6


def test_tokens_are_put_back_on_the_grid_of_their_patches() -> None:
    c = case("vit").double()
    values, gradients = seen(c, c.model.get_submodule(c.layer))
    with Engine(c.model) as engine:
        found = engine.attribute(c.inputs, "hires_cam", target=c.target, layer=c.layer)
    expected = (values * gradients).sum(2)[:, 1:].reshape(2, 1, 4, 4)  # without the class token
    assert apart(found.layer_values, expected) <= 1e-12


def test_a_text_is_mapped_token_by_token() -> None:
    model = seeded(
        lambda: nn.Sequential(nn.Embedding(20, 6), nn.Linear(6, 5), nn.ReLU(), Pooled(), nn.Linear(5, 3))
    )
    ids = torch.randint(0, 20, (2, 7))
    with Engine(model) as engine:
        found = engine.attribute(ids, "hires_cam", layer="2", target=1)
    hidden = model[2](model[1](model[0](ids))).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model[4](hidden.mean(1))[:, 1].sum(), hidden)
    expected = (hidden * gradient).sum(2)
    assert apart(found.layer_values[:, 0], expected) <= 1e-5
    assert apart(found.values, expected[:, :, None].expand(2, 7, 6)) <= 1e-5


class Pooled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class ImageAndTable(nn.Module):
    """An image and a table of features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.table = nn.Linear(5, 4)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        seen = torch.relu(self.conv(x)).mean((2, 3))
        return self.head(torch.cat([seen, torch.relu(self.table(table))], 1))


@pytest.mark.parametrize("method", ["grad_cam", "score_cam"])
def test_of_several_inputs_the_map_lies_on_those_with_the_same_axes(method: str) -> None:
    model, inputs = seeded(ImageAndTable), (image(2, 9), torch.randn(2, 5))
    with Engine(model) as engine:
        found = engine.attribute(inputs, method, target=0)
    assert found.options["layer"] == "conv"
    assert [tensor.shape for tensor in found.tensors] == [x.shape for x in inputs]
    assert found.tensors[0].any()
    assert not found.tensors[1].any()


def test_a_layer_without_positions_says_so() -> None:
    c = case("two_inputs")
    with Engine(c.model) as engine:
        found = engine.attribute(c.inputs, "grad_cam", layer="join", target=1)
        with pytest.raises(InputError, match="No layer of this model has positions"):
            engine.attribute(c.inputs, "grad_cam")
        with pytest.raises(InputError, match="no positions"):
            engine.attribute(c.inputs, "score_cam", layer="join")
    assert any("no positions" in text for text in found.cautions)
    for tensor in found.tensors:
        assert torch.equal(tensor, tensor[:, :1].expand_as(tensor))


def test_an_empty_map_says_why() -> None:
    model, x = seeded(TinyVit), image(1, 16)
    with Engine(model) as engine:
        found = engine.attribute(x, "grad_cam", layer="encoder")  # only the class token is read from there
    assert not found.values.any()
    assert any("does not depend" in text for text in found.cautions)


def test_a_layer_that_the_next_one_overwrites_keeps_what_it_gave() -> None:
    c = case("vgg")
    careful = copy.deepcopy(c.model)
    for part in careful.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False
    with Engine(c.model) as engine, Engine(careful) as other:
        found, expected = (
            each.attribute(c.inputs, "grad_cam", layer="4", target=1) for each in (engine, other)
        )
    assert torch.equal(found.values, expected.values)


def test_a_reused_layer_is_named_with_its_call() -> None:
    c = case("resnet18")
    with Engine(c.model) as engine:
        first, second = (
            engine.attribute(c.inputs, "hires_cam", target=1, layer=layer)
            for layer in ("layer3.1.relu", "layer3.1.relu@1")
        )
        whole = engine.attribute(c.inputs, "hires_cam", target=1, layer="layer3.1")
    assert apart(second.values, whole.values) <= 1e-6
    assert apart(first.values, whole.values) > 1e-3


def test_what_cannot_be_mapped_raises() -> None:
    c = case("resnet18")
    with Engine(c.model) as engine:
        with pytest.raises(UnknownLayerError, match="layer4"):
            engine.attribute(c.inputs, "grad_cam", layer="layer5")
        with pytest.raises(InputError, match="relu_attributions"):
            engine.attribute(c.inputs, "grad_cam", relu=True)
    flat = seeded(
        lambda: nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    )
    with Engine(flat) as engine, pytest.raises(InputError, match="positions along 1"):
        engine.attribute(torch.randn(2, 6), "grad_cam", layer="1")
    with Engine(seeded(Mlp)) as engine, pytest.raises(InputError, match="saliency"):
        engine.cams(torch.randn(2, 6))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_nothing_of_the_model_is_touched(mode: str) -> None:
    torch.manual_seed(0)
    model = Careless().train(mode == "train")
    x = torch.randn(2, 3, 6, 6)
    before = everything(model)
    with Engine(model) as engine:
        engine.cams(x, target=1, layer="act")
        assert everything(model) == before
        for method in ("grad_cam", "score_cam"):
            engine.attribute(x, method, target=1)
            assert everything(model) == before
    assert everything(model) == before


def test_a_stream_that_is_closed_leaves_nothing_behind() -> None:
    c = case("vgg")
    before: Any = everything(c.model)
    with Engine(c.model) as engine:
        stream = engine.stream(c.inputs, "score_cam", layer=c.layer, perturbations_per_eval=1)
        next(stream)
        stream.close()
        assert everything(c.model) == before
