"""The graph as plain data: its JSON form, and which siblings fold."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnviz_widget.engine.graph import Edge, Graph, Group, Node, fold_siblings
from nnviz_widget.engine.recorder import record
from tests.models import Identities, Residual, TinyVit, image, seeded, vision

shapes = st.lists(st.integers(0, 300), max_size=4).map(tuple)
nodes = st.builds(
    Node,
    id=st.text(max_size=8),
    path=st.text(max_size=8),
    call=st.integers(0, 9),
    detail=st.text(max_size=8),
    input_shapes=st.lists(shapes, max_size=3),
    output_shapes=st.lists(shapes, max_size=3),
    params=st.integers(0, 10**12),
)
graphs = st.builds(
    Graph,
    model=st.text(max_size=8),
    nodes=st.lists(nodes, max_size=4),
    edges=st.lists(st.builds(Edge, st.text(max_size=4), st.text(max_size=4), shapes), max_size=4),
    groups=st.lists(
        st.builds(Group, id=st.text(max_size=4), children=st.lists(st.text(max_size=4))), max_size=3
    ),
)


@given(graphs)
def test_a_graph_survives_the_way_through_json(graph: Graph) -> None:
    assert Graph.from_dict(json.loads(json.dumps(graph.to_dict()))) == graph


def test_a_recorded_graph_survives_the_way_through_json() -> None:
    graph = record(seeded(TinyVit), (image(1, 16),)).graph
    assert Graph.from_dict(json.loads(json.dumps(graph.to_dict()))) == graph


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        Graph.from_dict({"nodes": [{"id": "a", "colour": "red"}]})


def test_a_node_or_group_is_found_by_its_id() -> None:
    graph = Graph(nodes=[Node(id="a.b")], groups=[Group(id=""), Group(id="a")])
    assert graph["a.b"] is graph.nodes[0]
    assert graph["a"] is graph.groups[1]
    assert "" in graph
    assert "b" not in graph
    with pytest.raises(KeyError):
        graph["b"]


def test_reading_a_graph_needs_no_torch() -> None:
    code = "import sys; import nnviz_widget.engine.graph; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def chain_of_groups(kinds: list[str], *, linked: bool = True) -> Graph:
    graph = Graph(nodes=[Node(id="input")], groups=[Group(id="", children=["input"])])
    for place, kind in enumerate(kinds):
        name = f"block{place}"
        graph.groups[0].children.append(name)
        graph.groups.append(Group(id=name, type="Block", children=[f"{name}.f"]))
        graph.nodes.append(Node(id=f"{name}.f", op=kind, parent=name, output_shapes=[(1, 4)]))
        before = f"block{place - 1}.f" if place and linked else "input"
        graph.edges.append(Edge(before, f"{name}.f", (1, 4)))
    fold_siblings(graph)
    return graph


def folds(graph: Graph) -> list[int]:
    return [group.fold for group in graph.groups[1:]]


def test_equal_siblings_in_a_chain_fold() -> None:
    assert folds(chain_of_groups(["a"] * 4)) == [4, 4, 4, 4]


def test_a_different_sibling_ends_the_fold() -> None:
    assert folds(chain_of_groups(["b", "a", "a", "b", "b", "b"])) == [1, 2, 2, 3, 3, 3]


def test_parallel_branches_do_not_fold() -> None:
    assert folds(chain_of_groups(["a"] * 3, linked=False)) == [1, 1, 1]


def test_blocks_of_a_resnet_fold_without_the_one_that_downsamples() -> None:
    graph = record(vision("resnet50"), (image(1, 64),)).graph
    found = {group.id: group.fold for group in graph.groups if group.type == "Bottleneck"}
    assert found["layer3.0"] == 1
    assert [found[f"layer3.{i}"] for i in range(1, 6)] == [5] * 5
    assert [found[f"layer4.{i}"] for i in range(3)] == [1, 2, 2]


def test_layers_of_a_transformer_fold() -> None:
    graph = record(seeded(TinyVit), (image(1, 16),)).graph
    assert [graph[f"encoder.layers.{i}"].fold for i in range(2)] == [2, 2]


def test_dropout_that_is_off_does_not_keep_blocks_from_folding() -> None:
    graph = record(vision("convnext_tiny"), (image(1, 32),)).graph
    assert max(group.fold for group in graph.groups if group.type == "CNBlock") == 9


def test_swin_blocks_that_shift_do_not_fold_with_those_that_do_not() -> None:
    graph = record(vision("swin_t"), (image(1, 224),)).graph
    assert [graph[f"features.5.{i}"].fold for i in range(6)] == [1] * 6
    # At 7 by 7 one window holds everything, so that nothing is left to shift.
    assert [graph[f"features.7.{i}"].fold for i in range(2)] == [2, 2]


def test_a_group_lists_its_children_in_order_of_execution() -> None:
    graph = record(seeded(lambda: Residual(3)), (image(1, 8),)).graph
    assert graph[""].children == [
        "input", "conv1", "bn1", "relu", "conv2", "bn2", "/add", "relu@1", "output",
    ]  # fmt: skip


def test_every_edge_goes_forward_between_known_nodes() -> None:
    graph = record(seeded(Identities), (image(1, 4),)).graph
    place = {node.id: index for index, node in enumerate(graph.nodes)}
    assert len(place) == len(graph.nodes)
    assert all(place[edge.source] < place[edge.target] for edge in graph.edges)
