"""What the explorer says of models that are not run, and that it takes models from elsewhere."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nnviz_widget as nnviz
from nnviz_widget.errors import ModelError, NNVizError
from tests.models import ResidualNet

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def explore(front_end: Any) -> Any:
    made = []

    def explore(model: Any, inputs: Any = ..., **options: Any) -> Any:
        explorer = nnviz.explore(model, inputs, **options)
        made.append(explorer)
        explorer._exploration.ask(lambda: None)  # behind the first run
        return explorer

    yield explore
    for explorer in made:
        explorer.close()


def graph_of(explorer: Any) -> Any:
    return explorer._exploration._graph


def test_without_inputs_the_modules_are_shown_and_the_page_says_so(explore: Any) -> None:
    model = ResidualNet()
    explorer = explore(model)
    assert explorer.status["state"] == "ready"
    assert explorer.status["note"]["title"] == "Modules only."
    assert "not run" in explorer.status["note"]["message"]
    assert graph_of(explorer)["kind"] == "tree"
    ids = {item["id"] for table in ("nodes", "groups") for item in graph_of(explorer)[table]}
    assert ids == {name for name, _ in model.named_modules()}
    with pytest.raises(NNVizError, match="No inputs were given"):
        explorer.trace  # noqa: B018


def test_a_model_on_the_meta_device_is_shown_by_its_shapes(explore: Any) -> None:
    with torch.device("meta"):
        model = ResidualNet()
    explorer = explore(model, X, class_names=list("abcde"))
    assert explorer.status["state"] == "ready"
    assert explorer.status["note"]["title"] == "Shapes only."
    assert "meta device" in explorer.status["note"]["message"]
    assert graph_of(explorer)["kind"] == explorer.trace.kind == "shapes"
    assert explorer.run["predictions"]["classes"] == []
    explorer.select("stem")
    with pytest.raises(NNVizError, match="shapes and no values"):
        explorer.feature_maps  # noqa: B018


def test_a_forward_that_cannot_be_called_leaves_the_modules(explore: Any) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.fc(x) + y

    explorer = explore(Two(), torch.randn(2, 3))
    assert explorer.status["state"] == "error"
    assert "modules alone" in explorer.status["error"]["hint"]
    assert [node["id"] for node in graph_of(explorer)["nodes"]] == ["fc"]
    assert graph_of(explorer)["kind"] == "tree"


def test_a_forward_that_broke_off_still_shows_where(explore: Any) -> None:
    explorer = explore(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), X)
    assert explorer.status["state"] == "error"
    assert graph_of(explorer)["kind"] == "run"
    assert {node["id"]: node["status"] for node in graph_of(explorer)["nodes"]}["0"] == "failed"
    with pytest.raises(ModelError):
        raise explorer._exploration.failure


def test_the_first_operation_of_a_model_is_shown_where_it_fails(explore: Any) -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(5, 5))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight

    explorer = explore(Product(), torch.randn(2, 3))
    assert {node["id"]: node["status"] for node in graph_of(explorer)["nodes"]}["/matmul"] == "failed"


def test_an_exported_program_is_explored_under_its_own_names(explore: Any) -> None:
    model = ResidualNet().eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (X,), dynamic_shapes=({0: batch},))
    explorer = explore(program, X, layer="blocks.1.conv2")
    assert explorer.info["model"] == "ResidualNet"
    assert explorer.status == {"state": "ready"}
    with torch.no_grad():
        torch.testing.assert_close(explorer.trace.output, model(X[:1]))
    assert explorer.feature_maps.shape == (4, 8, 8)


def test_a_keras_model_is_explored_by_its_layers(explore: Any) -> None:
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"
    keras = pytest.importorskip("keras", reason="the extra [keras] is not installed")
    layers = keras.layers
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu", name="first"), layers.Dense(3)])
    explorer = explore(model, torch.randn(4, 6), layer=model.get_layer("first"))
    assert explorer.selection["layer"] == "first"
    assert explorer.feature_maps.shape == (8,)
    assert explorer.status == {"state": "ready"}
