"""Methods of layers and units equal Captum's, a float64 reference, and what they promise to add up to."""

from __future__ import annotations

import pytest
import torch
from captum.attr import (
    InternalInfluence,
    LayerConductance,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    NeuronIntegratedGradients,
)
from torch import Tensor, nn

from nnviz_widget.engine.engine import Engine
from nnviz_widget.errors import InputError
from tests.conformance.test_harmless import Careless, everything
from tests.explained import NAMES, apart, case
from tests.models import Residual, TinyLstm, image, seeded

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:captum")

#: Ours, Captum's, and whether it goes along a path.
METHODS = {
    "layer_gradient_x_activation": LayerGradientXActivation,
    "layer_integrated_gradients": LayerIntegratedGradients,
    "internal_influence": InternalInfluence,
    "layer_conductance": LayerConductance,
}
NEURONS = {
    "digits": (2, 5, 5), "shapes": (3, 4, 4), "resnet18": (7, 1, 2), "vgg": (0, 2, 1), "lstm": (2, 4),
    "vit": (5, 3), "two_inputs": (4,),
}  # fmt: skip
STEPS = 12


def neuron_of(name: str, values: Tensor) -> tuple[int, ...]:
    """An index whose unit is active: of a dead one there is nothing to compare."""
    if values[(slice(None), *NEURONS[name])].abs().min() > 0:
        return NEURONS[name]
    strongest = values.abs().amin(0)
    return tuple(int(i) for i in torch.unravel_index(strongest.argmax(), strongest.shape))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", METHODS)
def test_values_equal_captums(name: str, method: str) -> None:
    c = case(name)
    starts = tuple(torch.full_like(x, 0.05) for x in c.inputs)
    plain = method == "layer_gradient_x_activation"
    options = {} if plain else {"baselines": starts, "n_steps": STEPS}
    peer = METHODS[method](c.model, c.model.get_submodule(c.layer))
    expected = peer.attribute(
        c.inputs, target=c.target, **options, **({} if plain else {"method": "gausslegendre"})
    )
    expected = expected[0] if isinstance(expected, tuple) else expected
    with Engine(c.model) as engine:
        found = engine.attribute(
            c.inputs, method, layer=c.layer, target=c.target, **options,
            **({} if plain else {"quadrature": "gausslegendre"}),
        )  # fmt: skip
    assert apart(found.values, expected) <= 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_integrated_gradients_of_a_neuron_equal_captums(name: str) -> None:
    c = case(name)
    with Engine(c.model) as engine:
        neuron = neuron_of(name, engine.trace(*c.inputs).activation(c.layer))
        found = engine.attribute(
            c.inputs, "neuron_integrated_gradients", layer=c.layer, neuron=neuron, n_steps=STEPS,
            quadrature="gausslegendre",
        )  # fmt: skip
        start = engine.trace(*(torch.zeros_like(x) for x in c.inputs)).activation(c.layer)
        end = engine.trace(*c.inputs).activation(c.layer)
    expected = NeuronIntegratedGradients(c.model, c.model.get_submodule(c.layer)).attribute(
        c.inputs, neuron, n_steps=STEPS, method="gausslegendre"
    )
    at = (slice(None), *neuron)
    for a, b in zip(found.tensors, expected, strict=True):
        assert apart(a, b) <= 1e-5
    summed = sum(tensor.flatten(1).sum(1) for tensor in found.tensors)
    assert torch.allclose(found.delta, summed - (end[at] - start[at]), atol=1e-6)
    assert found.target == neuron


class Pieces(nn.Module):
    """Two layers, so that the path inside the second is known by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)) ** 2)


def test_values_follow_the_formulas_in_float64() -> None:
    model = seeded(Pieces).double()
    x, start = torch.randn(3, 5, dtype=torch.float64), torch.randn(1, 5, dtype=torch.float64)
    weight = model.last.weight[1]

    def slope(h: Tensor) -> Tensor:  # of the score on what the first layer gives
        return weight * 2 * h.tanh() * (1 - h.tanh() ** 2)

    h, h0 = model.first(x).detach(), model.first(start).detach().expand(3, 4)
    alphas = (torch.arange(40, dtype=torch.float64) + 0.5) / 40
    mean = torch.stack([slope(h0 + alpha * (h - h0)) for alpha in alphas]).mean(0)
    edges = torch.linspace(0, 1, 41, dtype=torch.float64)
    slopes = torch.stack([slope(h0 + edge * (h - h0)) for edge in edges])
    expected = {
        "layer_gradient_x_activation": h * slope(h),
        "layer_integrated_gradients": (h - h0) * mean,
        "internal_influence": mean,
        "layer_conductance": ((slopes[1:] + slopes[:-1]) / 2).mean(0) * (h - h0),
    }
    with Engine(model) as engine:
        for method, values in expected.items():
            options = {} if "activation" in method else {"baselines": start, "n_steps": 40}
            found = engine.attribute(x, method, layer="first", target=1, **options)
            assert found.values.dtype == torch.float64
            assert apart(found.values, values) <= 1e-8, method


@pytest.mark.parametrize("name", ["vgg", "shapes"])
@pytest.mark.parametrize("method", ["layer_integrated_gradients", "layer_conductance"])
def test_over_a_whole_layer_values_add_up_to_the_change_of_the_score(name: str, method: str) -> None:
    c = case(name)
    (x,) = c.inputs
    start = torch.full_like(x, 0.05)
    with Engine(c.model) as engine:
        found = engine.attribute(x, method, layer=c.layer, target=c.target, baselines=start, n_steps=100)
    with torch.no_grad():
        change = (c.model(x) - c.model(start))[:, c.target]
    assert torch.allclose(found.delta, found.values.flatten(1).sum(1) - change, atol=1e-5)
    assert (found.delta.abs() <= 0.03 * change.abs().max()).all()


def test_with_a_way_beside_the_layer_the_error_is_that_of_the_way_inside_it() -> None:
    model = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 1), Residual(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        )
    )
    x = image(2, 6)
    with Engine(model) as engine:
        found = engine.attribute(x, "layer_integrated_gradients", layer="1.bn2", target=1, n_steps=200)
        inside, shortcut = engine.trace(torch.zeros_like(x)), engine.trace(x)
        replaced = torch.relu(inside.activation("1.bn2") + shortcut.activation("0"))
        change = (shortcut.output - model[4](model[3](model[2](replaced))))[:, 1]
    assert torch.allclose(found.values.flatten(1).sum(1) - change.detach(), found.delta, atol=1e-5)
    assert found.delta.abs().max() <= 1e-2 * change.abs().max()


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("layer_integrated_gradients", {}),
        ("internal_influence", {}),
        ("layer_conductance", {}),
        ("layer_conductance", {"quadrature": "gausslegendre"}),
        ("neuron_integrated_gradients", {"neuron": (0, 2, 1)}),
    ],
)
def test_chunks_change_nothing_and_partial_results_come_near(method: str, options: dict[str, object]) -> None:
    c = case("vgg")
    asked = {"layer": c.layer, "n_steps": 33, **options}
    with Engine(c.model) as engine:
        whole = engine.attribute(c.inputs, method, internal_batch_size=256, **asked)
        for size in (1, 5):
            parts = list(engine.stream(c.inputs, method, internal_batch_size=size, **asked))
            assert apart(parts[-1].values, whole.values) <= 1e-6
            assert [part.progress for part in parts] == sorted(part.progress for part in parts)
            away = [apart(part.values, whole.values) for part in parts]
            assert away[len(away) // 2] < 0.25
            assert max(away[-4:]) < 0.1
            assert parts[0].progress <= 0.15


def test_a_neuron_may_be_a_function_of_what_the_layer_gave() -> None:
    c = case("vgg")
    with Engine(c.model) as engine:
        one = engine.attribute(
            c.inputs, "neuron_integrated_gradients", layer=c.layer, neuron=(0, 2, 1), n_steps=5
        )
        same = engine.attribute(
            c.inputs, "neuron_integrated_gradients", layer=c.layer, neuron=lambda h: h[:, 0, 2, 1], n_steps=5
        )
    assert torch.equal(one.values, same.values)


def test_an_embedding_can_be_the_layer_and_a_reused_module_has_calls() -> None:
    model, ids = seeded(TinyLstm), torch.randint(0, 20, (2, 6))
    with Engine(model) as engine:
        by_layer = engine.attribute(
            ids, "layer_integrated_gradients", layer="embed", target=1, baselines="zero"
        )
        by_input = engine.attribute(ids, "integrated_gradients", target=1, baselines="zero")
    assert apart(by_layer.values, by_input.values) <= 1e-5
    c = case("resnet18")
    with Engine(c.model) as engine:
        first, second = (
            engine.attribute(c.inputs, "layer_gradient_x_activation", target=1, layer=layer)
            for layer in ("layer3.1.relu", "layer3.1.relu@1")
        )
        trace = engine.trace(*c.inputs)
        assert not (first.values != 0)[trace.activation("layer3.1.relu") == 0].any()
        assert not (second.values != 0)[trace.activation("layer3.1.relu", call=1) == 0].any()
    assert not torch.equal(first.values, second.values)


def test_what_does_not_fit_raises() -> None:
    c = case("vgg")
    with Engine(c.model) as engine:
        with pytest.raises(InputError, match="say which one with layer="):
            engine.attribute(c.inputs, "layer_conductance")
        with pytest.raises(InputError, match="'even' or 'gausslegendre'"):
            engine.attribute(c.inputs, "layer_conductance", layer=c.layer, quadrature="midpoint")
        with pytest.raises(InputError, match="n_steps"):
            engine.attribute(c.inputs, "layer_conductance", layer=c.layer, n_steps=0)
        with pytest.raises(InputError, match=r"neuron=.* is no unit of .8., which gives .16,."):
            engine.attribute(c.inputs, "neuron_integrated_gradients", layer="8", neuron=(1, 3, 3), n_steps=2)
    steps_first = seeded(StepsFirst)
    with Engine(steps_first) as engine, pytest.raises(InputError, match="axis of the samples"):
        engine.attribute(torch.randn(2, 5, 4), "internal_influence", layer="lstm", target=0)


class StepsFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.transpose(0, 1))[0].mean(0))


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("method", [*METHODS, "neuron_integrated_gradients"])
def test_nothing_of_the_model_is_touched(mode: str, method: str) -> None:
    torch.manual_seed(0)
    model = Careless().train(mode == "train")
    x = torch.randn(2, 3, 6, 6)
    before = everything(model)
    options = {} if "activation" in method else {"n_steps": 3}
    if "neuron" in method:
        options["neuron"] = (1, 2, 2)
    with Engine(model) as engine:
        engine.attribute(x, method, layer="act", target=1, **options)
        assert everything(model) == before
        stream = engine.stream(x, method, layer="act", target=1, **options)
        next(stream)
        stream.close()
        assert everything(model) == before
    assert everything(model) == before
