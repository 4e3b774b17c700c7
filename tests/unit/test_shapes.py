"""A pass over shapes alone, and the tree of modules: each against the run or the model itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnviz_widget import Engine
from nnviz_widget.engine.graph import Graph
from nnviz_widget.errors import ModelError, NNVizError, OutOfMemoryError
from tests.models import ResidualNet


def fit(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    torch.manual_seed(0)
    if name == "residual":
        return ResidualNet(), (torch.randn(2, 3, 16, 16),)
    if name == "lstm":
        return nn.LSTM(4, 8, num_layers=2), (torch.randn(3, 2, 4),)
    if name == "swin":
        import torchvision

        return torchvision.models.swin_t(), (torch.randn(1, 3, 224, 224),)
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=99)
    return GPT2LMHeadModel(config), (torch.randint(0, 50, (1, 7)),)


@pytest.mark.parametrize("name", ["residual", "lstm", "swin", "gpt2"])
def test_a_pass_over_shapes_draws_the_graph_of_the_run(name: str) -> None:
    model, args = fit(name)
    with Engine(model.eval()) as engine:
        run, shapes = engine.trace(*args), engine.trace(*args, shapes_only=True)
        assert (run.kind, run.graph.kind, run.note) == ("run", "run", "")
        assert (shapes.kind, shapes.graph.kind) == ("shapes", "shapes")
        assert "asked for" in shapes.note
        assert shapes.graph.to_dict() | {"kind": "run"} == run.graph.to_dict()
        assert shapes.nbytes == 0


def test_it_has_no_values_and_says_so() -> None:
    model, x = ResidualNet().eval(), torch.randn(2, 3, 16, 16)
    with Engine(model) as engine:
        trace = engine.trace(x, shapes_only=True)
        assert (trace.output.shape, trace.output.device.type) == ((2, 5), "meta")
        for ask in (
            lambda: trace.activation("stem"),
            lambda: trace.stats("stem"),
            lambda: engine.tiles(trace, "stem"),
            lambda: engine.unit_saliency(trace, "stem", unit=(0, 1, 1)),
        ):
            with pytest.raises(NNVizError, match="shapes and no values"):
                ask()
        assert Graph.from_dict(trace.graph.to_dict()) == trace.graph


def test_a_model_without_values_is_traced_by_its_shapes() -> None:
    with torch.device("meta"):
        model = ResidualNet().eval()
    real, x = ResidualNet().eval(), torch.randn(1, 3, 16, 16)
    with Engine(model) as engine, Engine(real) as other:
        trace = engine.trace(x)
        assert trace.kind == "shapes"
        assert "meta device" in trace.note
        assert trace.graph.to_dict() | {"kind": "run"} == other.trace(x).graph.to_dict()


class Greedy(nn.Module):
    """Asks for more memory than there is."""

    def __init__(self, error: type[Exception] | None = None) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc(x)
        if self.error is not None:
            raise self.error("CUDA out of memory")
        return x[:, :1].expand(len(x), 1 << 50).contiguous()[:, :2]


def test_where_memory_does_not_suffice_the_shapes_are_shown() -> None:
    with Engine(Greedy()) as engine:
        trace = engine.trace(torch.randn(2, 3))
        assert trace.kind == "shapes"
        assert "too little memory" in trace.note
        assert trace.graph["output"].output_shapes == [(2, 2)]
        assert trace.output.shape == (2, 2)


def test_where_the_shapes_fail_too_the_error_is_that_of_the_run() -> None:
    with Engine(Greedy(torch.OutOfMemoryError)) as engine, pytest.raises(OutOfMemoryError):
        engine.trace(torch.randn(2, 3))


def test_a_decision_on_data_cannot_be_traced_by_shapes_and_says_where() -> None:
    class Decides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc(x)
            return x * 2 if x.sum() > 0 else x

    with Engine(Decides()) as engine:
        with pytest.raises(ModelError, match="needs a value") as caught:
            engine.trace(torch.randn(2, 3), shapes_only=True)
        partial: Any = caught.value.trace
        assert (partial.kind, partial.graph.kind) == ("shapes", "shapes")
        assert partial.graph["fc"].output_shapes == [(2, 3)]
        assert caught.value.source.startswith("test_shapes.py:")


def test_the_user_s_model_and_input_are_left_alone_by_a_pass_over_shapes() -> None:
    model, x = ResidualNet().train(), torch.randn(2, 3, 16, 16)
    before, given = {k: v.clone() for k, v in model.state_dict().items()}, x.clone()
    with Engine(model) as engine:
        engine.trace(x, shapes_only=True)
        assert model.training
        assert torch.equal(x, given)
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
        assert engine.trace(x).kind == "run"


def test_the_tree_has_every_module_and_every_parameter() -> None:
    model = ResidualNet()
    with Engine(model) as engine:
        graph = engine.tree()
    types = {name: type(module).__name__ for name, module in model.named_modules() if name}
    assert graph.kind == "tree"
    assert graph.edges == []
    assert {item.id: item.type for item in graph if item.id} == types
    for item in graph:
        assert item.params == sum(p.numel() for p in model.get_submodule(item.id).parameters())
    blocks = [group for group in graph.groups if group.path.startswith("blocks.")]
    assert [group.fold for group in blocks] == [3, 3, 3]


def test_tied_weights_count_once_in_the_tree() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    with Engine(model) as engine:
        graph = engine.tree()
    assert [node.params for node in graph.nodes] == [20, 0, 4]
    assert graph.nodes[2].shared == "0"
    assert graph.groups[0].params == sum(p.numel() for p in model.parameters()) == 24


def test_the_kind_of_a_graph_survives_a_file(tmp_path: Any) -> None:
    with Engine(ResidualNet()) as engine:
        graph = engine.tree()
    graph.save(tmp_path / "tree.json")
    assert Graph.load(tmp_path / "tree.json") == graph
