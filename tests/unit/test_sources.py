"""What may be given as a model beside a module: exported, wrapped, scripted, from ONNX, from Keras."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

import nnviz_widget as nnviz
from nnviz_widget import Engine
from nnviz_widget.errors import InputError
from tests import torchvision_stub  # noqa: F401

if TYPE_CHECKING:
    from pathlib import Path

    from nnviz_widget.engine.graph import Graph, Node


class SmallCnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + self.block(x)).mean((2, 3)))


def node(graph: Graph, name: str) -> Node:
    return next(item for item in graph.nodes if item.id == name)


def groups(graph: Graph) -> dict[str, str]:
    return {group.id: group.type for group in graph.groups}


def leaves(graph: Graph) -> dict[str, tuple[str, str, int, list[Any]]]:
    return {n.id: (n.type, n.op, n.params, n.output_shapes) for n in graph.nodes if n.kind == "module"}


def edges(graph: Graph) -> set[tuple[str, str]]:
    return {(edge.source, edge.target) for edge in graph.edges}


# -- exported programs --------------------------------------------------------------------------------------


def exported_and_eager(model: nn.Module, x: Tensor) -> tuple[nnviz.Engine, Any, Graph]:
    """Trace the exported program and the model it came from; compare what both gave."""
    model.eval()
    program = torch.export.export(model, (x,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine = Engine(program)
        trace = engine.trace(x)
    with torch.no_grad():
        torch.testing.assert_close(trace.output, model(x))
    with Engine(model) as eager:
        return engine, trace, eager.trace(x).graph


def test_an_exported_cnn_has_the_modules_of_the_model_that_was_exported() -> None:
    torch.manual_seed(0)
    engine, trace, eager = exported_and_eager(SmallCnn(), torch.randn(2, 3, 8, 8))
    with engine:
        assert "exported program" in engine.note
        assert trace.graph.model == "SmallCnn"
        assert leaves(trace.graph) == leaves(eager)
        assert groups(trace.graph) == groups(eager) == {"": "SmallCnn", "block": "Sequential"}
        assert edges(trace.graph) == edges(eager)
        assert trace.activation("block.2").min() == 0


def test_an_exported_resnet_is_the_graph_of_the_resnet() -> None:
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.resnet18()
    engine, trace, eager = exported_and_eager(model, torch.randn(1, 3, 64, 64))
    with engine:
        assert leaves(trace.graph) == leaves(eager)
        assert groups(trace.graph) == groups(eager)
        assert trace.graph["layer2"].params == sum(p.numel() for p in model.layer2.parameters())
        assert trace.graph[""].flops == eager[""].flops
        gradient = engine.unit_saliency(trace, "layer1", unit=(3, 5, 5))
        assert gradient.shape == (1, 3, 64, 64)
        assert gradient.abs().sum() > 0


def test_an_exported_transformer_keeps_its_layers() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), nn.Linear(16, 4))
    engine, trace, _ = exported_and_eager(model, torch.randn(2, 5, 16))
    with engine:
        found = groups(trace.graph)
        assert [found[f"0.layers.{i}"] for i in range(3)] == ["TransformerEncoderLayer"] * 3
        assert node(trace.graph, "0.layers.1.linear1").type == "Linear"
        assert trace.graph[""].params == sum(p.numel() for p in model.parameters())


# -- wrappers and compiled modules --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrap", "names"),
    [
        (lambda model: torch.compile(model, backend="eager"), ["torch.compile"]),
        (nn.DataParallel, ["DataParallel"]),
        (lambda m: torch.compile(nn.DataParallel(m), backend="eager"), ["torch.compile", "DataParallel"]),
    ],
)
def test_a_wrapper_is_looked_through_and_named(wrap: Any, names: list[str]) -> None:
    model, x = SmallCnn().eval(), torch.randn(1, 3, 8, 8)
    with Engine(wrap(model)) as engine, Engine(model) as plain:
        assert all(name in engine.note for name in names)
        assert plain.note == ""
        trace = engine.trace(x)
        assert trace.graph.to_dict() == plain.trace(x).graph.to_dict()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "compiled", [torch.jit.script, lambda m: torch.jit.trace(m, torch.zeros(1, 3, 8, 8))]
)
def test_a_scripted_model_is_one_opaque_node_that_says_why(compiled: Any) -> None:
    model, x = SmallCnn().eval(), torch.randn(1, 3, 8, 8)
    scripted = compiled(model)
    with Engine(scripted) as engine:
        assert "TorchScript" in engine.note
        trace = engine.trace(x)
        torch.testing.assert_close(trace.output, model(x).detach())
        assert [n.kind for n in trace.graph.nodes] == ["input", "module", "output"]
        opaque = trace.graph.nodes[1]
        assert opaque.type == trace.graph.model == "SmallCnn"
        assert "TorchScript" in opaque.detail
        assert opaque.params == sum(p.numel() for p in model.parameters())
        assert edges(trace.graph) == {("input", opaque.id), (opaque.id, "output")}
        assert torch.equal(trace.activation(scripted), trace.output)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_part_is_one_opaque_node_in_its_model() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), torch.jit.script(SmallCnn().eval()), nn.Linear(5, 2)).eval()
    with Engine(model) as engine:
        graph = engine.trace(torch.randn(1, 3, 8, 8)).graph
        assert (node(graph, "1").type, node(graph, "2").type) == ("SmallCnn", "Linear")
        assert edges(graph) == {("input", "0"), ("0", "1"), ("1", "2"), ("2", "output")}


# -- ONNX ---------------------------------------------------------------------------------------------------


@pytest.fixture
def onnx() -> Any:
    pytest.importorskip("onnx2torch", reason="the extra [onnx] is not installed")
    return pytest.importorskip("onnx", reason="the extra [onnx] is not installed")


def save(model: nn.Module, x: Tensor, path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="legacy TorchScript"):
        torch.onnx.export(
            model.eval(), (x,), str(path), dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}}
        )


def test_a_resnet_from_an_onnx_file_computes_the_same(onnx: Any, tmp_path: Path) -> None:
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_()  # so that nothing cancels
    save(model, torch.randn(1, 3, 64, 64), tmp_path / "model.onnx")
    x = torch.randn(2, 3, 64, 64)
    with Engine(tmp_path / "model.onnx") as engine, torch.no_grad():
        assert "ONNX" in engine.note
        trace = engine.trace(x)
        torch.testing.assert_close(trace.output, model(x), rtol=1e-4, atol=1e-4)
        found = [n.op for n in trace.graph.nodes]
        assert (found.count("conv2d"), found.count("add"), found.count("linear")) == (20, 8, 1)
        shown = groups(trace.graph)
        assert trace.graph.model == "model"
        assert [name for name in shown if name.count(".") == 1] == [
            f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)
        ]
        assert node(trace.graph, "layer2.0.conv1").op == "conv2d"
        with Engine(model) as eager:
            theirs = eager.trace(x)
        torch.testing.assert_close(
            trace.activation("layer3.1"), theirs.activation("layer3.1"), rtol=1e-3, atol=1e-4
        )


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")  # onnx2torch slices with lists
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_transformer_from_an_onnx_file_computes_the_same(onnx: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(1, 5, 16)
    save(model, x, tmp_path / "encoder.onnx")
    with Engine(str(tmp_path / "encoder.onnx")) as engine, torch.no_grad():
        trace = engine.trace(x)
        torch.testing.assert_close(trace.output, model(x), rtol=1e-4, atol=1e-5)
        assert {"layers.0", "layers.1", "layers.1.self_attn"} <= set(groups(trace.graph))


def test_what_is_no_onnx_file_is_refused(onnx: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file"):
        nnviz.load_onnx(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(InputError, match="could not be read"):
        Engine(str(tmp_path / "text.onnx"))


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"nnviz_widget\[onnx\]"):
        nnviz.load_onnx(tmp_path / "model.onnx")


# -- Keras --------------------------------------------------------------------------------------------------


@pytest.fixture
def keras() -> Any:
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"
    return pytest.importorskip("keras", reason="the extra [keras] is not installed")


def keras_net(keras: Any) -> Any:
    """A functional model with a branch, and a model inside it."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    block = keras.Sequential(
        [layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization(), layers.ReLU()], name="block"
    )
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1, name="stem")(x)
    x = layers.Add(name="sum")([x, block(x)])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(5, name="head")(x), name="net")


def test_a_keras_model_is_shown_with_its_layers_as_groups(keras: Any) -> None:
    model, x = keras_net(keras), torch.randn(2, 8, 8, 3)
    before = [weight.value.detach().clone() for weight in model.weights]
    with Engine(model) as engine:
        trace = engine.trace(x)
        torch.testing.assert_close(trace.output, model(x, training=False).detach())
        found = groups(trace.graph)
        assert found["stem"] == "Conv2D"
        assert found["block"] == "Sequential"
        assert found["block.conv2d"] == "Conv2D"
        assert found["head"] == "Dense"
        assert trace.graph[""].params == model.count_params() == sum(n.params for n in trace.graph.nodes)
        assert trace.graph["block"].params == model.get_layer("block").count_params()
        assert trace.activation("block").shape == (2, 8, 8, 4)
        assert torch.equal(trace.activation(model.get_layer("head")), trace.output)
        assert not any(n.op == "to" for n in trace.graph.nodes)
        gradient = engine.unit_saliency(trace, "block.conv2d", unit=(4, 4, 1))
        seen = gradient[0].abs().sum(-1).nonzero()
        assert (seen.min(0).values.tolist(), seen.max(0).values.tolist()) == ([3, 3], [5, 5])
    assert all(torch.equal(a, b.value) for a, b in zip(before, model.weights, strict=True))
    assert not any("call" in layer.__dict__ for layer in model._flatten_layers())


def test_a_mobilenet_of_keras_is_shown_layer_by_layer(keras: Any) -> None:
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3), classes=10)
    x = torch.randn(1, 64, 64, 3)
    with Engine(model) as engine:
        trace = engine.trace(x)
        torch.testing.assert_close(trace.output, model(x, training=False).detach())
        ran = {item.path for item in trace.graph}
        layers = {layer.name for layer in model.layers if type(layer).__name__ != "InputLayer"}
        assert layers <= ran
        assert trace.graph[""].params == model.count_params()
        assert trace.graph["block_16_project"].params == model.get_layer("block_16_project").count_params()


def test_the_weights_of_a_keras_model_are_live(keras: Any) -> None:
    model, x = keras_net(keras), torch.randn(1, 8, 8, 3)
    with Engine(model) as engine:
        engine.trace(x)
        epoch = engine.epoch
        model.get_layer("head").bias.assign(torch.arange(5.0))
        assert engine.epoch > epoch
        torch.testing.assert_close(engine.trace(x).output, model(x, training=False).detach())


def test_importing_the_package_imports_no_source() -> None:
    code = (
        "import sys, nnviz_widget; "
        "assert not {'torch', 'onnx', 'onnx2torch', 'keras', 'ipywidgets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
