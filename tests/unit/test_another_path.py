"""Samples that take other paths: what the explorer announces to the page when one replaces the other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnviz_widget.engine.engine import Engine
from nnviz_widget.errors import NNVizError
from nnviz_widget.explorer.exploration import Exploration
from nnviz_widget.explorer.inputs import read_batch
from tests import models
from tests.models import rows, seeded


class Counting(nn.Module):
    """A loop over an iterated tensor: no value is read, yet the path depends on the data."""

    def forward(self, x):
        for row in x[0].nonzero():
            x = x + row
        return x


class Picky(nn.Module):
    """Raises for some."""

    def forward(self, x):
        if x.sum() > 100:
            raise ValueError("too much")
        return x.tanh() if x.sum() > 0 else x.sigmoid()


class Screen:
    """An exploration and everything that it announced."""

    def __init__(self, model, batch):
        self.exploration = Exploration(
            Engine(model), read_batch(model, batch), names=None, targets=None, denormalize=None
        )
        self.said = []
        self.exploration.announce = lambda **traits: self.said.append(traits)

    def show(self, sample):
        """Put a sample on the screen; return what the page hears of it."""
        self.exploration.ask(lambda: self.exploration.run(sample))
        return self.said[-1]


@pytest.fixture
def screen():
    opened = []

    def open_one(model, batch):
        opened.append(Screen(model, batch))
        return opened[-1]

    yield open_one
    for one in opened:
        one.exploration.close()


def signs(*values):
    return torch.stack([rows(1, 4)[0].abs() * value for value in values])


def test_another_path_is_said_with_what_is_new_and_going_back_says_the_reverse(screen):
    page = screen(seeded(models.Branching), signs(1, -1))
    assert "change" not in page.show(0)["run"], "the first run replaces nothing"
    there = page.show(1)
    assert next(iter(there)) == "graph", "the graph comes before the run that belongs to it"
    change = there["run"]["change"]
    assert change["title"] == "Sample 1 took another path"
    assert change["message"].startswith("at models.py:")
    assert change["message"].endswith("(`if x.sum() > 0` was False): 1 operation new, 1 gone.")
    assert (change["added"], change["first"]) == (["down"], "down")
    back = page.show(0)["run"]["change"]
    assert back["title"] == "Sample 0 took another path"
    assert "was True" in back["message"]
    assert back["added"] == ["up"]


def test_the_same_path_is_not_worth_a_word(screen):
    page = screen(seeded(models.Branching), signs(1, -1, -2))
    page.show(0)
    page.show(1)
    again = page.show(2)
    assert "change" not in again["run"]
    assert "graph" not in again, "the same graph is not sent twice"


def test_only_gone_operations_lead_to_the_decision(screen):
    batch = signs(1, 1)
    batch[0, 0], batch[1, 0] = 3.0, 1.0
    page = screen(seeded(models.ItemLoop), batch)
    page.show(0)
    change = page.show(1)["run"]["change"]
    assert change["message"].endswith("read 1, before 3): 2 operations gone.")
    assert (change["added"], change["first"]) == ([], "/decision")


def test_a_path_without_a_known_decision_is_told_all_the_same(screen):
    batch = torch.zeros(2, 4)
    batch[0, 0] = batch[1, 0] = batch[1, 2] = 1.0
    page = screen(Counting(), batch)
    page.show(0)
    change = page.show(1)["run"]["change"]
    assert change["title"] == "Sample 1 took another path:"
    assert change["message"].endswith("new.")


def test_new_weights_can_turn_the_same_sample(screen):
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Linear(4, 1)

        def forward(self, x):
            return x * 2 if self.score(x).sum() > 0 else x.neg()

    model = Gate()
    nn.init.ones_(model.score.weight)
    nn.init.zeros_(model.score.bias)
    page = screen(model, signs(1))
    page.show(0)
    with torch.no_grad():
        model.score.weight.neg_()
    change = page.show(0)["run"]["change"]
    assert change["title"] == "The same sample now took another path"
    assert change["added"] == ["/neg"]


def test_a_failed_run_in_between_hides_no_change(screen):
    page = screen(Picky(), torch.tensor([[1.0] * 4, [1000.0] * 4, [-1.0] * 4]))
    page.show(0)
    with pytest.raises(NNVizError):
        page.show(1)
    assert page.show(2)["run"]["change"]["added"] == ["/sigmoid"]


def test_a_whole_run_after_a_broken_first_one_is_no_other_path(screen):
    page = screen(Picky(), torch.tensor([[1000.0] * 4, [-1.0] * 4]))
    with pytest.raises(NNVizError):
        page.show(0)
    assert "change" not in page.show(1)["run"]
