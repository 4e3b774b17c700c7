"""What differs between two runs: the path, the shapes, and the decision that parted them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from nnviz_widget.engine.graph import Graph
from nnviz_widget.engine.graph_json import pack, unpack
from nnviz_widget.engine.recorder import record
from tests import models
from tests.models import image, rows, seeded

if TYPE_CHECKING:
    from collections.abc import Callable


def both(make: Callable[[], nn.Module], first: Tensor, second: Tensor) -> tuple[Graph, Graph]:
    model = seeded(make)
    return record(model, (first,)).graph, record(model, (second,)).graph


def line_of(make: type, text: str) -> str:
    """Where in its file a line of a class stands, by counting."""
    lines, start = inspect.getsourcelines(make)
    at = next(number for number, line in enumerate(lines) if text in line)
    return f"{Path(inspect.getsourcefile(make) or '').name}:{start + at}"


class Exit(nn.Module):
    """Leaves by the first head if that is sure enough; the same operations come after it again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.early = nn.Linear(4, 4), nn.Linear(4, 3)
        self.deep, self.late = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        sure = self.early(x).softmax(1)
        if sure.max() > 0.5:
            return sure * 2
        x = self.deep(x).relu()
        return self.late(x).softmax(1)


class Skipping(nn.Module):
    """Leaves out the first of three equal operations."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = x * 2
        x = x * 3
        return x * 4


class Settling(nn.Module):
    """Halves until small; computes with a number that Python read, which decides nothing."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + x.mean().item()
        while x.abs().max() > 1:
            x = x / 2
        return x


class Swapping(nn.Module):
    """The same operations in both cases, but another one's result."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.one(x), self.two(x)
        y = a if x.sum() > 0 else b
        return y.tanh()


def test_the_same_input_takes_the_same_path() -> None:
    found = both(models.Branching, rows(), rows())
    change = found[1].diff(found[0])
    assert change.same_structure
    assert (change.partings, change.shapes, str(change)) == ((), {}, "the same path")


def test_a_branch_names_what_is_new_what_is_gone_and_the_condition() -> None:
    before, now = both(models.Branching, rows().abs(), -rows().abs())
    change = now.diff(before)
    assert (change.added, change.removed, change.operations) == (("down",), ("up",), (1, 1))
    (parting,) = change.partings
    at = line_of(models.Branching, "if x.sum() > 0")
    assert parting == ("/decision", "False", "True", at, "if x.sum() > 0:")
    words = f"another path at {at} (`if x.sum() > 0` was False): 1 operation new, 1 gone"
    assert str(change) == words
    back = before.diff(now)
    assert (back.added, back.removed, back.partings[0].value) == (("up",), ("down",), "True")


@pytest.mark.parametrize(("first", "second"), [(2.0, 4.0), (4.0, 2.0), (0.0, 1.0)])
def test_a_loop_of_another_length_has_more_or_fewer_turns(first: float, second: float) -> None:
    a, b = rows(), rows()
    a[0, 0], b[0, 0] = first, second
    before, now = both(models.ItemLoop, a, b)
    change = now.diff(before)
    turns = ["step" if turn == 0 else f"step@{turn}" for turn in range(4)]
    assert change.added == tuple(turns[int(first) : int(second)])
    assert change.removed == tuple(turns[int(second) : int(first)])
    (parting,) = change.partings
    assert (parting.node, parting.value, parting.before) == ("/decision", f"{second:g}", f"{first:g}")
    assert f"read {second:g}, before {first:g}" in str(change)


def test_an_early_exit_takes_away_what_came_after_it() -> None:
    model = seeded(Exit)
    with torch.no_grad():
        model.stem.weight.copy_(torch.eye(4))
        model.stem.bias.zero_()
        model.early.weight.copy_(torch.tensor([[5.0], [0.0], [0.0]]).expand(3, 4))
        model.early.bias.zero_()
    sure, unsure = torch.ones(2, 4), torch.zeros(2, 4)  # scores of (20, 0, 0), and three equal ones
    before, now = (record(model, (given,)).graph for given in (unsure, sure))
    change = now.diff(before)
    assert change.added == ("/mul",)
    assert change.removed == ("deep", "/relu#1", "late", "/softmax#1")
    assert change.operations == (1, 4)
    assert [(parting.code, parting.value) for parting in change.partings] == [
        ("if sure.max() > 0.5:", "True")
    ]


def test_of_equal_operations_the_one_on_the_left_out_line_is_gone() -> None:
    before, now = both(Skipping, rows().abs(), -rows().abs())
    change = now.diff(before)
    assert (change.added, change.removed) == ((), ("/mul",))
    assert before["/mul"].source == line_of(Skipping, "x * 2")
    # What is called `/mul` now is what was `/mul#1`.
    assert now["/mul"].source == before["/mul#1"].source
    assert now.diff(before).rewired == ()
    assert before.diff(now).added == ("/mul",)


def test_a_number_that_only_takes_part_is_not_what_decided() -> None:
    small, large = rows() * 0 + 0.1, rows() * 0 + 3.0
    before, now = both(Settling, small, large)
    change = now.diff(before)
    assert [node.value for node in now.decisions] == ["3", "True", "True", "True", "False"]
    assert [(parting.node, parting.value, parting.before) for parting in change.partings] == [
        ("/decision#1", "True", "False")
    ]
    again = record(seeded(Settling), (small * 2,)).graph.diff(before)
    assert again.same_structure, "another number is no other path"


def test_the_same_operations_wired_in_another_way_are_told() -> None:
    before, now = both(Swapping, rows().abs(), -rows().abs())
    change = now.diff(before)
    assert (change.added, change.removed, change.rewired) == ((), (), ("/tanh",))
    assert not change.same_structure
    assert change.partings[0].value == "False"
    assert str(change).endswith("the same operations, wired in another way")


def test_another_length_of_a_sequence_is_the_same_path_with_other_shapes() -> None:
    before, now = (
        record(seeded(models.TinyLstm), (torch.randint(0, 20, (2, length)),)).graph for length in (7, 5)
    )
    change = now.diff(before)
    assert change.same_structure
    assert change.shapes["lstm"] == ([(2, 7, 10), (2, 2, 5), (2, 2, 5)], [(2, 5, 10), (2, 2, 5), (2, 2, 5)])
    assert "/cat" not in change.shapes
    assert str(change) == f"the same path, {len(change.shapes)} shapes changed"


def test_a_loop_over_a_longer_series_is_another_path_for_its_shape() -> None:
    before, now = both(models.Unrolled, torch.randn(2, 3, 3), torch.randn(2, 5, 3))
    change = now.diff(before)
    assert len(change.added) > 0
    assert change.partings == ()
    assert "another path at an input of another shape" in str(change)


def test_a_graph_of_a_convolutional_network_equals_itself_at_another_size() -> None:
    before, now = both(models.ResidualNet, image(1, 16), image(1, 32))
    change = now.diff(before)
    assert change.same_structure
    assert set(change.shapes) >= {"input"}
    assert all(old != new for old, new in change.shapes.values())


def test_what_was_read_survives_the_way_through_json() -> None:
    graph = record(seeded(models.Branching), (rows().abs(),)).graph
    (node,) = graph.decisions
    assert (node.value, node.code) == ("True", "if x.sum() > 0:")
    assert unpack(pack(graph)) == graph
    assert Graph.from_dict(graph.to_dict()) == graph
