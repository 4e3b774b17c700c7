"""The compact form of the graph: nothing is lost, both ends read the same, a file says what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given

from nnviz_widget.engine.graph import Edge, Graph, Group, Node
from nnviz_widget.engine.graph_json import pack, unpack
from nnviz_widget.engine.recorder import record
from nnviz_widget.errors import InputError
from tests.fixtures.graph.make import GRAPH
from tests.models import Identities, TinyVit, image, seeded
from tests.unit.test_graph import graphs

FIXTURE = Path(__file__).parents[1] / "fixtures" / "graph" / "packed.json"


@given(graphs)
def test_any_graph_survives_packing(graph: Graph) -> None:
    assert unpack(json.loads(json.dumps(pack(graph)))) == graph
    assert pack(graph.to_dict()) == pack(graph)


@pytest.mark.parametrize("model", [TinyVit, Identities])
def test_a_recorded_graph_survives_packing(model) -> None:
    graph = record(seeded(model), (image(1, 16),)).graph
    assert unpack(json.loads(json.dumps(pack(graph)))) == graph


def test_the_golden_graph_is_what_the_page_reads() -> None:
    golden = json.loads(FIXTURE.read_text(encoding="utf-8"))
    assert pack(GRAPH) == golden["packed"]
    assert unpack(golden["packed"]) == GRAPH
    assert Graph.from_dict(golden["rows"]) == GRAPH


def test_twelve_blocks_of_a_transformer_stay_small() -> None:
    """As many rows as GPT-2 of 12 blocks makes, with the long names of a library."""
    graph = Graph("GPT2LMHeadModel", groups=[Group("")])
    before = "input"
    for block in range(12):
        path = f"transformer.h.{block}.attn"
        graph.groups.append(Group(path, path, type="GPT2Attention", source="modeling_gpt2.py:391"))
        for place in range(44):
            node = Node(
                f"{path}/operation_{place}",
                path=path,
                op=f"operation_{place}",
                input_shapes=[(1, 12, 16, 64)],
                output_shapes=[(1, 12, 16, 64)],
                dtype="float32",
                flops=2_359_296 + place,
                bytes=49_152,
                source=f"modeling_gpt2.py:{300 + place}",
                parent=path,
            )
            graph.nodes.append(node)
            graph.edges.append(Edge(before, node.id, (1, 12, 16, 64)))
            graph.groups[-1].children.append(node.id)
            before = node.id
    rows, packed = (len(json.dumps(data)) for data in (graph.to_dict(), pack(graph)))
    assert rows > 250_000
    assert packed < 90_000


def test_a_saved_graph_is_read_back(tmp_path) -> None:
    GRAPH.save(tmp_path / "net.json")
    assert Graph.load(tmp_path / "net.json") == GRAPH
    assert Graph.load(str(tmp_path / "net.json")) == GRAPH
    assert json.loads((tmp_path / "net.json").read_text(encoding="utf-8"))["version"] == 1


def test_reading_a_graph_takes_no_torch(tmp_path) -> None:
    GRAPH.save(tmp_path / "net.json")
    code = "import nnviz_widget as n, sys; n.Graph.load(sys.argv[1]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "net.json")], check=True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("not json", "no whole graph"),
        ("[]", "no whole graph"),
        ("{}", "not a saved graph"),
        ('{"format": "nnviz-graph", "version": 99}', "version 99"),
        ('{"format": "nnviz-graph", "version": 1}', "no whole graph"),
        (json.dumps({**pack(GRAPH), "texts": []}), "no whole graph"),
    ],
)
def test_a_file_that_is_no_graph_is_refused(tmp_path, text: str, says: str) -> None:
    (tmp_path / "net.json").write_text(text)
    with pytest.raises(InputError, match=says):
        Graph.load(tmp_path / "net.json")
