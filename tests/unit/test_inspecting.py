"""What the pages of numbers and weights ask for, through the operations themselves."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from nnviz_widget.engine.engine import Engine
from nnviz_widget.errors import InputError, UnknownLayerError
from nnviz_widget.explorer.exploration import Exploration
from nnviz_widget.explorer.inputs import read_batch
from nnviz_widget.explorer.inspecting import INSPECTING
from nnviz_widget.explorer.pictures import read_denormalize
from nnviz_widget.explorer.replies import Question


class Ask:
    """Asks an exploration, without a wire."""

    def __init__(self, model, inputs):
        batch = read_batch(model, inputs)
        denormalize = read_denormalize(None, batch.main)
        self.exploration = Exploration(
            Engine(model), batch, names=None, targets=None, denormalize=denormalize
        )
        self.told = {}
        self.exploration.announce = lambda **traits: self.told.update(traits)
        self.exploration.ask(lambda: self.exploration.run(0))

    def __call__(self, op, **p):
        question = Question(p, (), token=None, progress=lambda done, total: None)
        return self.exploration.ask(lambda: INSPECTING[op](self.exploration, question))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(30, 4, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 6, 2, groups=2, bias=False),
        nn.Flatten(),
        nn.Linear(6 * 7 * 7, 200),
        nn.Softmax(-1),
    ).eval()


@pytest.fixture
def ask():
    asking = Ask(network(), torch.randn(2, 30, 6, 6))
    yield asking
    asking.exploration.close()


def test_the_strongest_channels_come_first_and_the_rest_is_summed(ask):
    reply = ask("arithmetic", node="0", unit=[2, 0, 3])
    module, x = ask.exploration.engine.model[0], ask.exploration.batch.main[:1]
    terms = nn.functional.unfold(x, 3, padding=1)[0, :, 3].reshape(30, 9) * module.weight[2].reshape(30, 9)
    sums = terms.detach().sum(1).numpy()
    order = np.argsort(-np.abs(sums))
    assert reply.arrays["channels"].tolist() == order[:24].tolist()
    np.testing.assert_allclose(reply.arrays["partial"], sums[order[:24]], atol=1e-6)
    assert reply.meta["rest"] == pytest.approx(sums[order[24:]].sum(), abs=1e-6)
    assert reply.meta["source"] == "input"
    assert reply.arrays["places"][:3].tolist() == [[-1, -1]] * 3
    assert reply.arrays["inside"][0].tolist() == [0, 0, 0]


def test_every_kind_can_be_sent(ask):
    for node, unit, kind in (("1", [0, 1, 1], "function"), ("3", [5], "copy"), ("5", [7], "softmax")):
        reply = ask("arithmetic", node=node, unit=unit)
        assert reply.meta["kind"] == kind
        assert reply.meta["error"] < 1e-5
    assert reply.meta["place"] == 7
    assert float(reply.arrays["shares"].sum()) == pytest.approx(1)
    curve = ask("curve", node="1")
    assert curve.meta["inputs"] == 4 * 6 * 6
    with pytest.raises(InputError, match="unit"):
        ask("arithmetic", node="0", unit=[99, 0, 0])


def test_filters_are_tiles_and_a_large_matrix_is_a_part_of_it(ask):
    model = ask.exploration.engine.model
    tiles = ask("weights", node="0", filter=3)
    strongest = tiles.arrays["strongest"]
    np.testing.assert_array_equal(tiles.arrays["tiles"][1, 0], model[0].weight[1, strongest[1]].detach())
    np.testing.assert_array_equal(tiles.arrays["slices"], model[0].weight[3].detach())
    matrix = ask("weights", node="4", row=190, column=10)
    row, column = matrix.meta["row"], matrix.meta["column"]
    shown = matrix.arrays["matrix"]
    assert (row + len(shown), column) == (200, 10)
    np.testing.assert_array_equal(shown, model[4].weight[row:, 10 : 10 + shown.shape[1]].detach())


@pytest.mark.parametrize(
    ("node", "name", "index", "entry"),
    [
        ("0", "weight", [1, 2, 0, 1], (1, 2, 0, 1)),
        ("0", "bias", [0, 3], (3,)),
        ("2", "weight", [4, 1, 0, 1], (3, 1, 0, 1)),
        ("4", "weight", [150, 20], (150, 20)),
    ],
)
def test_a_change_acts_where_it_was_clicked_and_is_taken_back(ask, node, name, index, entry):
    model = ask.exploration.engine.model
    x = ask.exploration.batch.main[:1]
    changed = copy.deepcopy(model)
    getattr(changed.get_submodule(node), name).data[entry] = 2.5
    reply = ask("change_weight", node=node, name=name, index=index, value=2.5)
    assert reply.meta["changes"] == [{"layer": node, "name": name, "index": list(entry), "value": 2.5}]
    torch.testing.assert_close(ask.exploration.current.output, changed(x).detach())
    assert ask.told["status"]["note"]["title"] == "1 weight is changed."
    ask("change_weight", index=None)
    assert torch.equal(ask.exploration.current.output, model(x).detach())
    assert ask.told["status"] == {"state": "ready"}


def test_what_a_page_must_not_ask_is_refused(ask):
    for wrong in (
        {"node": "0", "name": "weight", "index": [9, 0, 0, 0], "value": 1.0},
        {"node": "0", "name": "weight", "index": [0], "value": 1.0},
        {"node": "0", "name": "weight", "index": [0, 0, 0, 0], "value": "1"},
        {"node": "0", "name": "nothing", "index": [0, 0, 0, 0], "value": 1.0},
    ):
        with pytest.raises(InputError):
            ask("change_weight", **wrong)
    with pytest.raises(UnknownLayerError):
        ask("weights", node="/add")
    assert ask.exploration.changes.listed == []
