"""Captum's classes give through the engine what they give alone, and leave nothing behind."""

from __future__ import annotations

import copy
import importlib
from typing import Any

import captum.attr
import pytest
import torch
from torch import Tensor

from nnviz_widget.engine.attribution import adapter
from nnviz_widget.engine.engine import Engine
from nnviz_widget.errors import InputError, NNVizError, UnknownLayerError
from tests.conformance.test_harmless import Careless, everything
from tests.explained import apart, case

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:captum")

UNIT = {"neuron_selector": (3, 4, 4)}
CALLS: dict[str, dict[str, Any]] = {
    "DeepLift": {"baselines": 0.1},
    "LayerActivation": {},
    "LayerConductance": {"n_steps": 4},
    "LayerDeepLift": {"baselines": 0.1},
    "LayerDeepLiftShap": {"baselines": torch.rand(3, 3, 32, 32)},
    "LayerFeatureAblation": {
        "layer_mask": torch.arange(32).reshape(1, 32, 1, 1),
        "perturbations_per_eval": 8,
    },
    "LayerGradCam": {},
    "LayerIntegratedGradients": {"n_steps": 4},
    "NeuronConductance": {**UNIT, "n_steps": 4},
    "NeuronDeconvolution": UNIT,
    "NeuronDeepLift": {**UNIT, "baselines": 0.1},
    "NeuronGradient": UNIT,
    "NeuronGuidedBackprop": UNIT,
    "NeuronIntegratedGradients": {**UNIT, "n_steps": 4},
}
#: What explains a unit, or nothing, looks at no target.
WITHOUT_TARGET = {name for name in CALLS if name.startswith("Neuron")} - {"NeuronConductance"} | {
    "LayerActivation"
}


def first(found: Any) -> Tensor:
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("name", CALLS)
def test_values_are_captums_own(name: str) -> None:
    c = case("shapes")
    x = c.inputs[0][:, :, ::2, ::2]
    of_layer = name.startswith(("Layer", "Neuron"))
    alone = copy.deepcopy(c.model)  # LayerDeepLift leaves tensors on modules
    given = (alone, alone.get_submodule(c.layer)) if of_layer else (alone,)
    target = {} if name in WITHOUT_TARGET else {"target": c.target}
    expected = getattr(captum.attr, name)(*given).attribute(x, **CALLS[name], **target)
    before = everything(c.model)
    with Engine(c.model) as engine:
        found = engine.attribute(
            x, "captum", target=c.target, attribution=name, layer=c.layer if of_layer else None,
            arguments=CALLS[name],
        )  # fmt: skip
        assert apart(found.values, first(expected)) <= 1e-6
        assert everything(c.model) == before
        for part in engine._twin.module.modules():
            assert not part._forward_hooks
            assert not part._backward_hooks
            assert not {"input", "output"} & set(vars(part))


def test_exact_shapley_values_are_a_feature_each() -> None:
    c = case("two_inputs")
    expected = captum.attr.ShapleyValues(c.model).attribute(
        c.inputs, target=1, feature_mask=(torch.tensor([[0, 0, 1, 1, 2]]), torch.tensor([[3, 3, 4]]))
    )
    with Engine(c.model) as engine:
        found = engine.attribute(
            c.inputs, "captum", target=1, attribution="ShapleyValues",
            arguments={"feature_mask": (torch.tensor([[0, 0, 1, 1, 2]]), torch.tensor([[3, 3, 4]]))},
        )  # fmt: skip
    for a, b in zip(found.tensors, expected, strict=True):
        assert apart(a, b) <= 1e-6


def test_the_convergence_delta_is_given_where_it_is_asked_for() -> None:
    c = case("shapes")
    arguments = {"baselines": 0.1, "return_convergence_delta": True}
    _, delta = captum.attr.DeepLift(c.model).attribute(c.inputs[0], target=c.target, **arguments)
    with Engine(c.model) as engine:
        found = engine.attribute(
            c.inputs, "captum", target=c.target, attribution="DeepLift", arguments=arguments
        )
    assert torch.allclose(found.delta, delta, atol=1e-5)


def test_what_captum_can_not_do_is_said() -> None:
    c = case("resnet18")
    with Engine(c.model) as engine:
        with pytest.raises(InputError, match="Captum's DeepLift does not work here"):
            engine.attribute(c.inputs, "captum", attribution="DeepLift", target=1)
        with pytest.raises(InputError, match="The attribution 'LRP' is not offered"):
            engine.attribute(c.inputs, "captum", attribution="LRP", target=1)
        with pytest.raises(InputError, match="layer="):
            engine.attribute(c.inputs, "captum", attribution="LayerGradCam", target=1)
        with pytest.raises(UnknownLayerError):
            engine.attribute(c.inputs, "captum", attribution="LayerGradCam", layer="layer9", target=1)
        with pytest.raises(InputError, match="stepsize"):
            engine.attribute(
                c.inputs, "captum", attribution="LayerGradCam", layer="layer4", arguments={"stepsize": 3}
            )


def test_without_captum_it_is_listed_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        if name == "captum.attr":
            raise ModuleNotFoundError("No module named 'captum'")
        return importlib.import_module(name)

    monkeypatch.setattr(adapter, "import_module", absent)
    c = case("shapes")
    with Engine(c.model) as engine:
        assert engine.methods()["captum"].needs
        with pytest.raises(NNVizError, match='pip install "captum'):
            engine.attribute(c.inputs, "captum", attribution="LayerGradCam", layer=c.layer)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", ["LayerDeepLift", "NeuronGuidedBackprop", "LayerFeatureAblation"])
def test_nothing_of_the_model_is_touched(mode: str, name: str) -> None:
    torch.manual_seed(0)
    model = Careless().train(mode == "train")
    x = torch.randn(2, 3, 6, 6)
    before = everything(model)
    with Engine(model) as engine:
        arguments = {"neuron_selector": (1, 2, 2)} if name.startswith("Neuron") else {}
        engine.attribute(x, "captum", attribution=name, layer="norm", target=1, arguments=arguments)
        assert everything(model) == before
        with pytest.raises(InputError):
            engine.attribute(x, "captum", attribution=name, layer="norm", arguments={"nonsense": 1})
        assert everything(model) == before
    assert everything(model) == before
