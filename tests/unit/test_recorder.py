"""What the recorder writes down: nodes, edges, values, weights; and what it leaves alone."""

from __future__ import annotations

import copy
import gc
import random
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from nnviz_widget.engine.engine import Engine
from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.recording import Ref
from nnviz_widget.engine.statistics import statistics
from nnviz_widget.engine.trace import Trace
from nnviz_widget.errors import InputError, ModelError, NNVizError, UnknownLayerError
from tests import models
from tests.models import image, rows, seeded, vision

if TYPE_CHECKING:
    from collections.abc import Callable

    from nnviz_widget.engine.graph import Graph


def draw(make: Callable[[], nn.Module], *args: Any, **kwargs: Any) -> Graph:
    return record(seeded(make), args, kwargs).graph


def edges(graph: Graph) -> set[tuple[str, str]]:
    return {(edge.source, edge.target) for edge in graph.edges}


def ids(graph: Graph) -> list[str]:
    return [node.id for node in graph.nodes]


# -- names and places ---------------------------------------------------------------------------------------


def test_a_module_used_several_times_is_a_node_for_each_call() -> None:
    graph = draw(models.Mlp, rows(2, 6))
    assert ids(graph) == [
        "input", "first", "act", "shared", "act@1", "shared@1", "act@2", "last", "output",
    ]  # fmt: skip
    assert [graph[name].call for name in ("shared", "shared@1")] == [0, 1]
    assert [graph[name].path for name in ("shared", "shared@1")] == ["shared", "shared"]
    assert edges(graph) == set(zip(ids(graph), ids(graph)[1:], strict=False))


def test_weights_used_twice_count_once_and_say_where_they_are_shared() -> None:
    graph = draw(models.Mlp, rows(2, 6))
    assert (graph["shared"].params, graph["shared"].shared) == (72, "")
    assert (graph["shared@1"].params, graph["shared@1"].shared) == (0, "shared")


def test_tied_weights_count_once_and_each_name_is_kept() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, 4)
            self.head = nn.Linear(4, 10, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.embed(x))

    graph = draw(Tied, torch.tensor([[1, 2]]))
    assert [(graph[name].params, graph[name].shared) for name in ("embed", "head")] == [
        (40, ""),
        (0, "embed"),
    ]
    assert graph[""].params == 40


def test_a_module_with_two_names_goes_by_the_one_its_caller_has() -> None:
    class Half(nn.Module):
        def __init__(self, table: nn.Embedding) -> None:
            super().__init__()
            self.table = table

        def forward(self, x: Tensor) -> Tensor:
            return self.table(x) + 1

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            table = nn.Embedding(5, 3)
            self.left, self.right = Half(table), Half(table)

        def forward(self, x: Tensor) -> Tensor:
            return self.left(x) + self.right(x)

    graph = draw(Two, torch.tensor([1, 2]))
    assert graph["left"].children == ["left.table", "left/add"]
    assert graph["right"].children == ["right.table", "right/add"]
    assert graph["right.table"].shared == "left.table"


def test_operations_are_named_after_the_module_that_ran_them() -> None:
    graph = draw(models.ResidualNet, image())
    assert graph["blocks.0/add"].parent == "blocks.0"
    assert graph["blocks.0/add"].path == "blocks.0"
    assert "/flatten" in graph
    graph = draw(models.ViewWrite, image(1, 4))
    assert "/getitem" in graph
    graph = draw(models.TinyVit, image(1, 16))
    assert {"encoder.layers.0/add", "encoder.layers.0/add#1"} <= set(ids(graph))


def test_the_root_is_a_group_even_when_it_is_a_single_layer() -> None:
    graph = draw(lambda: nn.Linear(4, 2), rows())
    assert ids(graph) == ["input", "/linear", "output"]
    assert graph[""].type == "Linear"
    assert graph["/linear"].params == graph[""].params == 10


def test_a_module_without_parts_that_runs_one_operation_is_a_node() -> None:
    graph = draw(lambda: nn.Sequential(models.LargeBias()), rows())
    node = graph["0"]
    assert (node.kind, node.type, node.op, node.params) == ("module", "LargeBias", "mul", 4)


def test_a_layer_of_torch_is_one_node_whatever_runs_inside() -> None:
    graph = draw(lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")), image(1, 8))
    assert ids(graph) == ["input", "0", "output"]
    assert graph["0"].op == "conv2d"
    assert len(record(seeded(models.TinyVit), (image(1, 16),)).graph["encoder.layers.0"].children) == 11


def test_details_are_what_people_look_for() -> None:
    graph = record(vision("mobilenet_v3_small"), (image(1, 64),)).graph
    details = {node.detail for node in graph.nodes}
    assert "3×3 /2 3→16" in details
    assert "3×3 /2 16→16 depthwise" in details
    assert "576→1024" in details
    assert "p=0.2" in details


def test_the_source_is_the_line_of_the_user_not_of_torch() -> None:
    graph = draw(models.ResidualNet, image())
    lines = open(models.__file__).read().splitlines()  # noqa: PTH123, SIM115
    for name, text in (
        ("stem", "self.stem(x)"),
        ("blocks.1.conv1", "self.conv1(x)"),
        ("blocks.1/add", "out += x"),
        ("/flatten", "torch.flatten"),
    ):
        file, _, line = graph[name].source.partition(":")
        assert file == "models.py"
        assert text in lines[int(line) - 1]


def test_shapes_types_and_bytes_are_on_nodes_and_edges() -> None:
    graph = draw(models.ResidualNet, image(2, 32))
    node = graph["stem"]
    assert node.input_shapes == [(2, 3, 32, 32)]
    assert node.output_shapes == [(2, 4, 16, 16)]
    assert (node.dtype, node.bytes) == ("float32", 2 * 4 * 16 * 16 * 4)
    assert all(edge.shape == graph[edge.source].output_shapes[0] for edge in graph.edges)
    assert graph["blocks.0/add"].input_shapes == [(2, 4, 16, 16)] * 2


# -- what goes where ----------------------------------------------------------------------------------------


def test_residual_branches_meet_in_one_node() -> None:
    graph = draw(models.ResidualNet, image())
    into = {edge.source for edge in graph.edges if edge.target == "blocks.1/add"}
    assert into == {"blocks.1.bn2", "blocks.0.relu@1"}


def test_a_write_through_a_view_reaches_what_reads_the_whole() -> None:
    graph = draw(models.ViewWrite, image(1, 4))
    assert {("/getitem", "/mul"), ("conv", "/mul"), ("/mul", "/setitem"), ("/setitem", "/add")} <= edges(
        graph
    )
    assert ("conv", "/add") not in edges(graph)
    assert graph["/empty_like"].status == "unused"


def test_writing_one_half_does_not_touch_the_other() -> None:
    class Halves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a, b = (x + 1).chunk(2, 1)
            a.mul_(2)
            return a - b

    assert ("/mul", "/sub") in edges(draw(Halves, rows()))
    assert {edge for edge in edges(draw(Halves, rows())) if edge[1] == "/sub"} == {
        ("/mul", "/sub"),
        ("/chunk", "/sub"),
    }


def test_a_write_that_nobody_reads_by_another_name_is_no_second_way() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.AdaptiveAvgPool2d(2)
            self.act = nn.ReLU(inplace=True)
            self.drop = nn.Dropout(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            pooled = self.pool(x)
            return self.drop(self.act(pooled.flatten(1)))

    graph = draw(Model, image())
    assert [(edge.source, edge.target) for edge in graph.edges] == [
        ("input", "pool"), ("pool", "/flatten"), ("/flatten", "act"), ("act", "drop"), ("drop", "output"),
    ]  # fmt: skip


def test_a_branch_on_data_is_a_decision() -> None:
    up, down = (draw(models.Branching, x) for x in (rows().abs(), -rows().abs()))
    assert "up" in up
    assert "down" not in up
    assert "down" in down
    node = up["/decision"]
    assert (node.op, node.detail, node.status) == ("decision", "bool", "ok")
    assert {("input", "/sum"), ("/sum", "/gt"), ("/gt", "/decision")} <= edges(up)


def test_a_loop_of_data_dependent_length_is_as_long_as_it_ran() -> None:
    x = rows()
    x[0, 0] = 3.0
    graph = draw(models.ItemLoop, x)
    assert [name for name in ids(graph) if name.startswith("step")] == ["step", "step@1", "step@2"]
    assert graph["/decision"].detail == "item"


def test_a_round_trip_through_numpy_comes_back_as_a_constant() -> None:
    graph = draw(models.NumpyRoundTrip, rows())
    node = graph["const:/constant"]
    assert (node.kind, node.detail, node.output_shapes) == ("constant", "from numpy", [(2, 4)])
    assert {("/detach", "/numpy"), ("const:/constant", "after")} <= edges(graph)


def test_states_of_an_lstm_are_ports_of_one_node() -> None:
    graph = draw(models.TinyLstm, torch.randint(0, 20, (2, 7)))
    assert graph["lstm"].output_shapes == [(2, 7, 10), (2, 2, 5), (2, 2, 5)]
    assert {
        ("lstm", "/getitem"),
        ("lstm", "/getitem#1"),
        ("/getitem", "/cat"),
        ("/getitem#1", "/cat"),
    } <= edges(graph)


def test_a_packed_sequence_passes_through_an_lstm() -> None:
    graph = draw(lambda: models.TinyLstm(packed=True), torch.randint(0, 20, (2, 7)), torch.tensor([5, 7]))
    assert {("/pack_padded_sequence", "lstm"), ("lstm", "/getitem")} <= edges(graph)
    assert {"input:0", "input:1"} <= set(ids(graph))
    assert graph["input:1"].status == "ok"


def test_an_unrolled_cell_is_a_chain() -> None:
    graph = draw(models.Unrolled, torch.randn(2, 3, 3))
    assert {
        ("cell", "cell@1"),
        ("cell@1", "cell@2"),
        ("/unbind", "cell@2"),
        ("const:/zeros", "cell"),
    } <= edges(graph)


def test_iterating_over_a_tensor_is_seen() -> None:
    class Rows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            total = torch.zeros(4)
            for row in x:
                total = total + row
            return total

    assert ("/unbind", "/add#1") in edges(draw(Rows, rows()))


def test_a_custom_autograd_function_does_not_cut_the_graph() -> None:
    assert {("a", "/mul"), ("/mul", "b")} <= edges(draw(models.Custom, rows()))


def test_modules_that_do_nothing_stand_beside_the_way_not_in_it() -> None:
    graph = draw(models.Identities, image(1, 4))
    for name in ("shortcut", "drop", "/contiguous", "empty"):
        assert graph[name].status == "identity"
    assert edges(graph) == {
        ("input", "shortcut"), ("input", "conv"), ("conv", "drop"), ("drop", "/contiguous"),
        ("/contiguous", "empty"), ("empty", "/add"), ("shortcut", "/add"), ("/add", "output"),
    }  # fmt: skip


def test_what_nobody_uses_is_marked() -> None:
    graph = draw(models.Unused, rows())
    assert {node.id: node.status for node in graph.nodes} == {
        "input": "ok", "aside": "unused", "main": "ok", "output": "ok",
    }  # fmt: skip


def test_reading_shapes_and_types_leaves_no_trace() -> None:
    class Curious(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            n, d = x.shape
            assert x.size(0) == n == len(x)
            assert x.dim() == x.ndim == 2
            assert x.is_floating_point()
            assert x.numel() == n * d
            assert x.device.type == x.cpu().device.type
            assert x.requires_grad is False
            return x.reshape(n * d)

    assert ids(draw(Curious, rows())) == ["input", "/cpu", "/reshape", "output"]


def test_attention_of_torch_is_recorded_part_by_part_without_its_fast_path() -> None:
    graph = draw(models.TinyVit, image(1, 16))
    assert graph["encoder.layers.0.self_attn"].op == "multi_head_attention"
    assert graph["encoder.layers.1"].children[0] == "encoder.layers.1.self_attn"
    assert {"const:token", "const:position"} <= set(ids(graph))
    assert graph["const:position"].params == 17 * 8


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.filterwarnings("ignore:None of the inputs")
def test_a_checkpointed_part_is_recorded_once(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(checkpoint(self.body, x, use_reentrant=reentrant))

    assert edges(draw(Checkpointed, rows())) == {
        ("input", "body.0"), ("body.0", "body.1"), ("body.1", "head"), ("head", "output"),
    }  # fmt: skip


def test_attention_across_two_sequences_has_their_shapes_and_gives_its_weights() -> None:
    graph = draw(lambda: Across(nn.MultiheadAttention(8, 2, batch_first=True)),
                 torch.randn(1, 3, 8), torch.randn(1, 5, 8))  # fmt: skip
    assert graph["attention"].input_shapes == [(1, 3, 8), (1, 5, 8)]
    assert graph["attention"].output_shapes == [(1, 3, 8), (1, 3, 5)]
    assert edges(graph) == {
        ("input:0", "attention"), ("input:1", "attention"),
        ("attention", "output:0"), ("attention", "output:1"),
    }  # fmt: skip


class Across(nn.Module):
    """Attends from one sequence to another."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.attention(x, y, y)


class CompiledParts(nn.Module):
    """Compiles a method, an attribute, and a part as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))
        self.attribute = torch.compile(self.plain, backend="eager")
        self.third.compile(backend="eager")

    def plain(self, x: Tensor) -> Tensor:
        return self.second(x)

    @torch.compile(backend="eager")
    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.attribute(self.first(x).relu()))


@pytest.mark.filterwarnings("error")
def test_what_is_compiled_is_recorded_as_it_was_written_and_stays_compiled() -> None:
    model = seeded(CompiledParts)
    inside = {name: dict(vars(part)) for name, part in model.named_modules()}
    graph = record(model, (rows(),)).graph
    assert ids(graph) == ["input", "first", "/relu", "second", "third", "output"]
    assert {name: dict(vars(part)) for name, part in model.named_modules()} == inside
    with Engine(model) as engine:
        trace = engine.trace(rows())
        assert trace.graph == graph
        assert engine.unit_saliency(trace, "second", 1).shape == (2, 4)


def test_compiled_functions_run_plainly_in_a_pass_and_stay_compiled_in_other_threads() -> None:
    compiled: list[str] = []
    ran: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        compiled.append(threading.current_thread().name)

        def run(*args: Tensor) -> Any:
            ran.append(threading.current_thread().name)
            return graph.forward(*args)

        return run

    @torch.compile(backend=backend, fullgraph=True)
    def squash(x: Tensor) -> Tensor:
        return x.sin().cos()

    data = rows()

    class CallsIt(nn.Module):
        beside = True

        def forward(self, x: Tensor) -> Tensor:
            if self.beside:
                other = threading.Thread(target=squash, args=(data,), name="training")
                other.start()
                other.join()
            return squash(x)

    stance = torch._dynamo.eval_frame._stance
    assert ids(draw(CallsIt, rows())) == ["input", "/sin", "/cos", "output"]
    assert compiled == ran == ["training"]
    assert torch._dynamo.eval_frame._stance is stance
    model = CallsIt()
    model.beside = False
    with torch.no_grad():
        model(rows())
    here = threading.current_thread().name
    assert ran == ["training", here]
    compiled.clear()
    assert ids(draw(CallsIt, rows())) == ["input", "/sin", "/cos", "output"]
    assert compiled == []
    assert ran == ["training", here, "training"]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_scripted_parts_are_one_opaque_node() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.ReLU(), nn.Linear(4, 2)))
    graph = draw(lambda: nn.Sequential(nn.Linear(4, 4), scripted), rows())
    assert not scripted._forward_hooks
    assert ("0", "1") in edges(graph)
    assert graph["1"].params == 10


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_parametrised_and_pruned_layers_show_what_makes_their_weights() -> None:
    spectral = draw(lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))), rows())
    assert spectral["0"].children == ["0.parametrizations.weight", "0/linear"]
    assert ("0.parametrizations.weight.0", "0/linear") in edges(spectral)
    pruned = nn.Linear(4, 2)
    prune.random_unstructured(pruned, "weight", 0.5)
    graph = record(nn.Sequential(pruned).eval(), (rows(),)).graph
    assert ids(graph) == ["input", "0", "output"]


# -- inputs and outputs -------------------------------------------------------------------------------------


def test_inputs_are_named_after_how_they_are_given() -> None:
    graph = draw(models.Inputs, rows(), {"bias": rows(2, 4, 1)}, scale=rows(2, 4, 2))
    assert [node.id for node in graph.nodes if node.kind == "input"] == [
        "input:0",
        "input:1.bias",
        "input:scale",
    ]
    assert ("input:1.bias", "/add") in edges(graph)


def test_what_the_model_does_to_its_dict_stays_with_it() -> None:
    given = {"bias": rows(2, 4, 1)}
    record(seeded(models.Inputs), (rows(), given))
    assert list(given) == ["bias"]
    assert torch.equal(given["bias"], rows(2, 4, 1))


@pytest.mark.parametrize(
    ("pack", "names"),
    [
        (lambda a, b: (a, b), ["output:0", "output:1"]),
        (lambda a, b: {"logits": a, "deep": [b]}, ["output:logits", "output:deep.0"]),
        (models.Pair, ["output:logits", "output:hidden"]),
        (models.Point, ["output:a", "output:b"]),
        (lambda a, b: {"logits": a, "words": "none", "count": 2}, ["output"]),
    ],
)
def test_outputs_come_in_any_container(pack: Callable[[Tensor, Tensor], Any], names: list[str]) -> None:
    model = seeded(lambda: models.Outputs(pack))
    trace = Trace(record(model, (rows(),)))
    assert [node.id for node in trace.graph.nodes if node.kind == "output"] == names
    assert type(trace.output) is type(model(rows()))
    logits = model.decode(model.encode(rows())).detach()
    assert torch.equal(trace.activation(names[0]), logits)
    assert torch.equal(trace.activation("output"), logits)


def test_hugging_face_outputs_and_caches_are_understood() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=50, n_positions=16)
    model = transformers.GPT2LMHeadModel(config).eval()
    tokens = torch.randint(0, 50, (1, 5))
    trace = Trace(record(model, (tokens,)))
    assert torch.equal(trace.output.logits, model(tokens).logits)
    assert trace.graph["transformer.h.0"].fold == 2
    assert trace.graph["lm_head"].shared == "transformer.wte"
    assert sum(node.params for node in trace.graph.nodes) == sum(p.numel() for p in model.parameters())


# -- failures -----------------------------------------------------------------------------------------------


def failure(model: nn.Module, *args: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        record(model, args)
    return caught.value


def test_a_forward_that_raises_leaves_the_part_that_ran() -> None:
    error = failure(seeded(models.Raising), rows())
    assert error.node == "bad.0"
    assert error.shapes == ("2×4",)
    assert error.source.startswith("models.py:")
    assert isinstance(error.__cause__, RuntimeError)
    assert "2×4" in str(error)
    trace = error.trace
    assert isinstance(trace, Trace)
    assert {node.id: node.status for node in trace.graph.nodes} == {
        "input": "ok", "good": "ok", "bad.0": "failed",
    }  # fmt: skip
    assert ("good", "bad.0") in edges(trace.graph)
    assert [group.status for group in trace.graph.groups] == ["failed", "failed"]
    assert trace.activation("good").shape == (2, 4)
    with pytest.raises(InputError, match=r"bad\.0"):
        trace.activation("bad.0")


def test_an_exception_of_the_users_own_is_shown_where_it_was_raised() -> None:
    class Strict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            self.fc(x)
            raise ValueError("never like this")

    error = failure(nn.Sequential(Strict()), rows())
    assert error.node == "0/raise"
    assert "never like this" in str(error)
    assert error.source.startswith("test_recorder.py:")


def test_an_operation_that_raises_outside_a_layer_is_the_failing_node() -> None:
    class Crooked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ torch.zeros(3, 3)

    error = failure(nn.Sequential(nn.Identity(), Crooked()), rows())
    assert error.node == "1/matmul"
    assert error.shapes == ("2×4", "3×3")


def test_missing_arguments_are_reported() -> None:
    error = failure(seeded(models.Inputs), rows())
    assert "extra" in str(error)


def test_a_part_that_raises_and_is_caught_is_red_and_the_run_goes_on() -> None:
    graph = draw(models.Catching, rows())
    assert graph["bad.bad.0"].status == "failed"
    assert graph["output"].status == "ok"
    assert ("good", "output") in edges(graph)


def hooks(model: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


def test_no_hook_is_left_behind_whatever_happens() -> None:
    class Token:
        left = 5

        def check(self) -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    good, bad = seeded(models.ResidualNet), seeded(models.Raising)
    record(good, (image(),))
    failure(bad, rows())
    with pytest.raises(KeyboardInterrupt):
        record(good, (image(),), token=Token())
    record(good, (image(),), stop_at="stem")
    assert hooks(good) == hooks(bad) == 0
    assert not torch.overrides._get_current_function_mode_stack()


def test_backward_inside_a_forward_is_refused() -> None:
    class Learner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                self.fc(x).sum().backward()
            return x

    model = Learner()
    with pytest.raises(InputError, match="backward"):
        record(model, (rows(),))
    assert model.fc.weight.grad is None


# -- harmless -----------------------------------------------------------------------------------------------


def test_writes_into_the_models_own_tensors_are_diverted() -> None:
    model, twin = seeded(models.Counting), seeded(models.Counting)
    before = copy.deepcopy(model.state_dict())
    free, x = model.free.clone(), rows()
    output = record(model, (x,)).output
    assert torch.equal(x, rows())
    assert torch.equal(model.free, free)
    assert torch.equal(model.weight, before["weight"])
    assert torch.equal(model.history, before["history"])
    with torch.no_grad():
        assert torch.equal(output, twin(rows()))


def test_an_embedding_that_renormalises_leaves_its_weights() -> None:
    model = nn.Embedding(5, 4, max_norm=0.1).eval()
    before, tokens = model.weight.detach().clone(), torch.tensor([0, 3])
    output = record(model, (tokens,)).output
    assert torch.equal(model.weight, before)
    assert torch.equal(output, model(tokens).detach())
    assert not torch.equal(model.weight, before)


def test_statistics_of_a_batch_norm_in_training_mode_stay() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.InstanceNorm1d(4, track_running_stats=True)).train()
    before = copy.deepcopy(model.state_dict())
    record(model, (torch.randn(3, 4, 5),))
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if "num_batches" not in name)


def test_flags_set_in_a_forward_do_not_reach_the_users_tensors() -> None:
    class Flagging(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                x.requires_grad_()
                (slope,) = torch.autograd.grad((x**2).sum(), x)
            return slope

    x = rows()
    assert torch.equal(record(Flagging(), (x,)).output, 2 * x)
    assert not x.requires_grad
    assert x.grad is None


def test_random_numbers_come_from_the_engines_own_generator() -> None:
    model, x = seeded(models.Noisy), rows()
    state = torch.get_rng_state()
    first, second = record(model, (x,)), record(model, (x,))
    other = record(model, (x,), seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.output, second.output)
    assert not torch.equal(first.output, other.output)
    unsafe = {op.name for op in first.ops if op.unsafe == "draws random numbers"}
    assert unsafe == {
        "dropout", "randn_like", "rand", "randn", "bernoulli", "normal", "randint", "randperm",
    }  # fmt: skip


def test_dropout_that_is_on_has_the_right_mean() -> None:
    class MonteCarlo(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.25, training=True)

    x = torch.ones(200, 200)
    assert abs(float(record(MonteCarlo(), (x,)).output.mean()) - 1) < 0.02


def test_another_thread_that_runs_the_same_model_is_not_recorded() -> None:
    done, began = threading.Event(), threading.Event()
    outputs: list[Tensor] = []

    class Slow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.fc(x)
            if threading.current_thread() is threading.main_thread():
                began.set()
                assert done.wait(20)
            return y + 1

    model = Slow().eval()

    def elsewhere() -> None:
        assert began.wait(20)
        outputs.append(model(rows()))
        done.set()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    graph = record(model, (rows(),)).graph
    thread.join()
    assert ids(graph) == ["input", "fc", "/add", "output"]
    assert len(outputs) == 1


def test_recording_works_on_any_thread() -> None:
    found: list[Graph] = []
    thread = threading.Thread(target=lambda: found.append(draw(models.ResidualNet, image())))
    thread.start()
    thread.join()
    assert found[0] == draw(models.ResidualNet, image())


def test_hooks_of_the_user_still_run_and_what_they_change_counts() -> None:
    model = seeded(models.Mlp)
    model.first.register_forward_hook(lambda module, args, output: output * 0)
    trace = Trace(record(model, (rows(2, 6),)))
    assert not trace.activation("first").any()
    assert torch.equal(trace.output, model(rows(2, 6)).detach())


def test_weights_that_move_during_a_pass_are_noticed() -> None:
    model = seeded(models.Mlp)

    class Meddling:
        def check(self) -> None:
            model.last.bias.data = model.last.bias.data  # not a write
            with torch.no_grad():
                model.last.bias.add_(0)

    assert record(model, (rows(2, 6),)).consistent
    assert not record(model, (rows(2, 6),), token=Meddling()).consistent


# -- stopping, gradients, keeping ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["stem", "blocks.1.bn1", "blocks.1/add", "blocks.1", "blocks", "output", "", "input"]
)
def test_a_run_stops_where_it_is_told_with_the_gradient_attached(name: str) -> None:
    model = seeded(models.ResidualNet)
    x = image(2).requires_grad_()
    recording = record(model, (x,), keep=None, grad=True, stop_at=name)
    assert recording.stopped is not None
    whole = Trace(record(model, (image(2),)))
    assert torch.equal(recording.stopped.detach(), whole.activation(name))
    assert len(recording.ops) <= len(whole.ops)
    (gradient,) = torch.autograd.grad(recording.stopped.sum(), x)
    assert gradient.shape == x.shape


def test_the_gradient_is_that_of_the_plain_model_even_where_it_writes_into_its_input() -> None:
    class Normalising(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            x.sub_(0.5).div_(2.0)
            return self.conv(x)

    model = seeded(Normalising)
    x = image(1, 8).requires_grad_()
    stopped = record(model, (x,), grad=True, stop_at="conv").stopped
    assert stopped is not None
    (found,) = torch.autograd.grad(stopped[0, 1, 2, 3], x)
    (expected,) = torch.autograd.grad(model(x.clone())[0, 1, 2, 3], x)
    assert torch.equal(found, expected)
    assert torch.equal(x.detach(), image(1, 8))


def test_only_what_is_asked_for_is_kept() -> None:
    model = seeded(models.ResidualNet)
    recording = record(model, (image(),), keep={"blocks.0", "/flatten"})
    assert set(recording.activations) == {"blocks.0", "/flatten"}
    assert not record(model, (image(),), keep=None).activations


def test_over_the_budget_the_largest_are_let_go() -> None:
    model = seeded(models.ResidualNet)
    budget = 4 * 16 * 16 * 4 * 3
    recording = record(model, (image(),), budget=budget)
    assert recording.activations.nbytes <= budget
    assert "head" in recording.activations
    assert not recording.activations.holds("stem")


def test_progress_is_told() -> None:
    seen: list[tuple[int, int]] = []
    record(seeded(models.ResidualNet), (image(),), progress=lambda done, total: seen.append((done, total)))
    assert seen[0][0] == 1
    assert seen == sorted(seen)
    assert all(done <= total for done, total in seen)


# -- the operations -----------------------------------------------------------------------------------------


def replay(recording: Any, model: nn.Module) -> list[Tensor]:
    """Run the recorded operations again, from the inputs, weights and constants alone."""
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    given = {f"{i}": x for i, x in enumerate(recording.args)}
    values: dict[Ref, Tensor] = {}

    def fill(part: Any) -> Any:
        if isinstance(part, Ref):
            return values[part]
        if isinstance(part, (list, tuple)):
            return type(part)(fill(inner) for inner in part)
        if isinstance(part, dict):
            return {key: fill(inner) for key, inner in part.items()}
        if isinstance(part, slice):
            return slice(fill(part.start), fill(part.stop), fill(part.step))
        return part

    def tensors(result: Any) -> list[Tensor]:
        if isinstance(result, Tensor):
            return [result]
        return [t for part in result for t in tensors(part)] if isinstance(result, (list, tuple)) else []

    outputs = []
    for op in recording.ops:
        if op.kind == "input":
            results = [given[op.name or "0"].clone()]
        elif op.kind in {"parameter", "buffer"}:
            results = [state[op.name]]
        elif op.kind == "constant":
            results = [op.value]
        elif op.kind == "output":
            outputs.append(values[op.inputs[0]])
            continue
        elif op.kind == "identity":
            results = [values[op.inputs[0]]]
        elif op.kind == "decision":
            continue
        else:
            assert op.func is not None
            results = tensors(op.func(*fill(op.args), **fill(op.kwargs)))
            if op.inplace and not results:  # an item assignment returns nothing
                results = [values[op.inputs[0]]]
            results += [values[alias.before] for alias in op.aliases]
        for port, value in enumerate(results):
            values[Ref(op.index, port)] = value
    return outputs


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (models.ResidualNet, image(2)),
        (models.TinyVit, image(2, 16)),
        (models.ViewWrite, image(1, 6)),
        (models.TinyLstm, torch.randint(0, 20, (2, 7))),
        (models.Unrolled, torch.randn(2, 3, 3)),
        (models.Identities, image(1, 4)),
        (models.Custom, rows()),
        (lambda: vision("mobilenet_v3_small"), image(1, 64)),
    ],
)
def test_the_recorded_operations_can_be_run_again(make: Callable[[], nn.Module], x: Tensor) -> None:
    model = seeded(make)
    recording = record(model, (x,))
    with torch.no_grad():
        (again,) = replay(recording, model)
    assert torch.equal(again, recording.output)


def test_every_reference_points_back_to_a_value_that_exists() -> None:
    recording = record(vision("googlenet", init_weights=False), (image(1, 64),))
    for place, op in enumerate(recording.ops):
        assert op.index == place
        for ref in op.inputs:
            assert ref.op < place
            assert ref.port < len(recording.ops[ref.op].outputs)
    for name, ref in recording.refs.items():
        assert recording.ops[ref.op].outputs[ref.port].shape == tuple(recording.activations[name].shape)


def test_what_makes_running_again_unsafe_is_said() -> None:
    def unsafe(make: Callable[[], nn.Module], x: Tensor) -> set[str]:
        return {op.unsafe for op in record(seeded(make), (x,)).ops if op.unsafe}

    assert not unsafe(models.ResidualNet, image())
    assert unsafe(models.Branching, rows()) == {"Python reads a value here (bool)"}
    assert "the data leaves torch here (numpy)" in unsafe(models.NumpyRoundTrip, rows())
    assert unsafe(models.ViewWrite, image(1, 4)) == {"writes into memory that other values share"}


# -- costs --------------------------------------------------------------------------------------------------


def counted(model: nn.Module, *args: Tensor) -> int:
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        kernel = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
        with torch.no_grad(), kernel, FlopCounterMode(display=False) as counter:
            model(*args)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops()


class Products(nn.Module):
    """Every way of multiplying that a formula stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 5))
        self.bias = nn.Parameter(torch.randn(5))
        self.up = nn.ConvTranspose2d(3, 4, 3, stride=2, groups=1)
        self.grouped = nn.Conv1d(4, 8, 3, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x).mean((2, 3))
        z = self.grouped(torch.randn(2, 4, 9))
        batch = torch.randn(3, 4, 6)
        a = torch.addmm(self.bias, batch[0], self.weight)
        b = batch @ self.weight + torch.bmm(batch, torch.randn(3, 6, 5))
        c = torch.einsum("bij,bkj->bik", batch, batch) + torch.einsum(
            "ij,kj,kl->il", batch[0], batch[1], batch[2, :, :4]
        )
        d = torch.baddbmm(torch.zeros(3, 4, 4), batch, batch.mT)
        e = F.scaled_dot_product_attention(batch[None], batch[None], batch[None])
        return y.sum() + z.sum() + a.sum() + b.sum() + c.sum() + d.sum() + e.sum()


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (models.ResidualNet, image(2)),
        (models.TinyVit, image(2, 16)),
        (Products, image(2, 8)),
        (lambda: vision("mobilenet_v3_small"), image(1, 64)),
        (lambda: vision("vgg11"), image(1, 32)),
        (lambda: vision("swin_t"), image(1, 64)),
    ],
)
def test_operations_are_counted_as_torch_counts_them(make: Callable[[], nn.Module], x: Tensor) -> None:
    model = seeded(make)
    graph = record(model, (x,)).graph
    assert sum(node.flops for node in graph.nodes) == graph[""].flops == counted(model, x)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_16", "convnext_tiny"])
def test_parameters_of_all_nodes_sum_to_those_of_the_model(name: str) -> None:
    model = vision(name)
    graph = record(model, (image(1, 224 if "vit" in name else 64),)).graph
    total = sum(parameter.numel() for parameter in model.parameters())
    assert sum(node.params for node in graph.nodes) == graph[""].params == total


# -- trace --------------------------------------------------------------------------------------------------


def test_a_layer_is_named_by_path_id_or_module() -> None:
    model = seeded(models.Mlp)
    paths = {module: name for name, module in model.named_modules()}
    trace = Trace(record(model, (rows(2, 6),)), module_path=paths.get)
    assert torch.equal(trace.activation("shared", call=1), trace.activation("shared@1"))
    assert torch.equal(trace.activation(model.shared), trace.activation("shared"))
    assert torch.equal(trace.activation(model), trace.output)
    assert torch.equal(trace.inputs[0], rows(2, 6))
    with pytest.raises(UnknownLayerError, match="'shared'"):
        trace.activation("shaerd")
    with pytest.raises(UnknownLayerError, match="2 time"):
        trace.activation("shared", call=2)
    with pytest.raises(UnknownLayerError, match="not a part"):
        trace.activation(nn.Linear(1, 1))
    with pytest.raises(NNVizError, match="int"):
        trace.activation(3)  # type: ignore[arg-type]


def test_activations_over_the_budget_are_computed_again_when_asked_for() -> None:
    model = seeded(models.ResidualNet)
    asked: list[str] = []

    def recompute(names: frozenset[str]) -> Any:
        asked.extend(names)
        return record(model, (image(),), keep=names).activations

    full = Trace(record(model, (image(),)))
    small = Trace(record(model, (image(),)), recompute=recompute, budget=10_000)
    assert small.nbytes <= 10_000
    names = full.graph.ids()
    random.Random(0).shuffle(names)
    for name in names[:15]:
        assert torch.equal(small.activation(name), full.activation(name))
    assert asked
    full.release()
    assert full.nbytes == 0
    with pytest.raises(InputError, match="not kept"):
        full.activation("stem")


def test_statistics_are_those_of_the_activation() -> None:
    trace = Trace(record(seeded(models.ResidualNet), (image(2),)))
    values = trace.activation("blocks.0.relu").double()
    stats = trace.stats("blocks.0.relu", bins=10)
    assert stats.mean == pytest.approx(float(values.mean()), rel=1e-9)
    assert stats.std == pytest.approx(float(values.std(correction=0)), rel=1e-9)
    assert (stats.min, stats.max) == (float(values.min()), float(values.max()))
    assert stats.zeros == float((values == 0).double().mean())
    assert sum(stats.counts) == stats.numel == values.numel()
    assert len(stats.edges) == 11
    one = trace.stats("blocks.0.relu", sample=1, channel=2)
    assert one.max == float(values[1, 2].max())
    with pytest.raises(InputError, match="sample=2"):
        trace.stats("blocks.0.relu", sample=2)


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor([0.0, 1.0, float("nan"), float("inf"), -float("inf"), 3.0]),
        torch.tensor([0.0, 1.0, float("nan"), float("inf"), -float("inf"), 3.0], dtype=torch.float16),
        torch.tensor([0.0, 1.0, float("nan"), float("inf"), -float("inf"), 3.0], dtype=torch.bfloat16),
    ],
)
def test_statistics_leave_out_what_is_not_finite(values: Tensor) -> None:
    stats = Trace(record(nn.Identity(), (values,))).stats("output", bins=4)
    assert (stats.nan, stats.inf, stats.numel) == (1, 2, 6)
    assert (stats.min, stats.max) == (0.0, 3.0)
    assert stats.mean == pytest.approx(4 / 3, rel=1e-6)
    assert stats.zeros == pytest.approx(1 / 6)
    assert sum(stats.counts) == 3


@pytest.mark.parametrize(
    ("values", "mean", "zeros"),
    [
        (torch.tensor([[0, 2], [4, 2**40]]), (6 + 2**40) / 4, 0.25),
        (torch.tensor([True, False, True, True]), 0.75, 0.25),
        (torch.full((3,), 7.0), 7.0, 0.0),
        (torch.full((100_000,), 1e4, dtype=torch.float16), 1e4, 0.0),
        (torch.full((10,), 3e38), 3e38, 0.0),
    ],
)
def test_statistics_take_every_type(values: Tensor, mean: float, zeros: float) -> None:
    stats = Trace(record(nn.Identity(), (values,))).stats("output")
    assert stats.mean == pytest.approx(mean, rel=1e-6)
    assert stats.zeros == zeros
    assert sum(stats.counts) == values.numel()


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200), st.integers(1, 30))
def test_the_histogram_is_that_of_numpy(values: list[float], bins: int) -> None:
    stats = statistics(torch.tensor(values), bins=bins)
    counts, bounds = np.histogram(np.array(values, dtype=np.float32).astype(np.float64), bins=bins)
    assert stats.edges == pytest.approx(bounds.tolist(), rel=1e-9, abs=1e-9)
    # A value on a bound may fall on either side, by one bit of rounding.
    assert np.abs(np.cumsum(stats.counts) - np.cumsum(counts)).max() <= sum(
        bool(np.isclose(value, bounds, rtol=1e-12, atol=1e-12).any()) for value in values
    )
    assert sum(stats.counts) == len(values)


def test_statistics_of_nothing_are_nothing() -> None:
    stats = Trace(record(nn.Identity(), (torch.zeros(0, 3),))).stats("output", bins=3)
    assert stats.numel == 0
    assert stats.counts == (0, 0, 0)
    assert stats.mean != stats.mean


def test_a_pass_whose_graph_is_drawn_lets_go_of_the_modules_without_the_collector() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), nn.Linear(3, 3))
    alive = [weakref.ref(part) for part in model.modules()]
    gc.disable()
    try:
        recording = record(model, (torch.ones(1, 3),))
        assert len(recording.graph.nodes) == 5
        del model
        assert [part() for part in alive] == [None] * 5
    finally:
        gc.enable()
