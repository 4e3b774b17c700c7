"""What the page is told of influence, logits, the lens and changed pictures."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import nnviz_widget as nnviz
from nnviz_widget.engine.jobs import CancelToken
from nnviz_widget.errors import InputError
from nnviz_widget.explorer.probing import PROBING, influenced
from nnviz_widget.explorer.replies import Question


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        return self.head(torch.tanh(self.conv(x)).mean((2, 3)))


class Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(9, 8)
        layer = [nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(3)]
        self.blocks = nn.ModuleList(layer)
        self.head = nn.Linear(8, 9)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.fixture
def explorer(front_end):
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    w = nnviz.explore(Net().eval(), x, class_names=["a", "b", "c", "d"], denormalize=((0.1,), (0.5,)))
    assert w.trace.complete
    yield w
    w.close()


def ask(w, op, **p):
    question = Question({"sample": 0, **p}, (), CancelToken(), lambda *_: None)
    found = w._exploration.ask(lambda: PROBING[op](w._exploration, question))
    if not hasattr(found, "arrays"):
        parts = []
        while True:
            try:
                part = w._exploration.ask(lambda: next(found))
            except RuntimeError as end:  # a generator that returned, seen through the engine's thread
                return parts, end.__cause__.value
            except StopIteration as end:
                return parts, end.value
            parts.append(part)
    return found


def test_influence_is_told_for_every_node_and_drawn_for_the_open_layer(explorer):
    reply = ask(explorer, "influence", y=3, x=4, layer="conv")
    graph = explorer.trace.graph
    ids = [*(node.id for node in graph.nodes), *(group.id for group in graph.groups)]
    strength = dict(zip(ids, reply.arrays["strength"], strict=True))
    exact = explorer._exploration.engine.influence(explorer.trace, (3, 4))
    own = explorer.trace.activation("conv").norm()
    assert strength["conv"] == pytest.approx(float(exact.derivatives["conv"].norm() / own), rel=1e-5)
    assert reply.meta["how"] == "forward mode"
    assert reply.arrays["maps"].shape == (5, 8, 8)
    # Outside of the kernel's reach nothing moves.
    low, high = reply.arrays["low"][:, None, None], reply.arrays["high"][:, None, None]
    values = low + reply.arrays["maps"] / 255 * (high - low)
    np.testing.assert_allclose(values, exact.derivatives["conv"][0], atol=2e-3)
    read = influenced(explorer._exploration, explorer.trace, "conv", 2)
    np.testing.assert_array_equal(read, exact.derivatives["conv"][0, 2])


def test_the_classes_that_move_are_told_with_how_far(explorer):
    reply = ask(explorer, "influence", y=3, x=4)
    changed = explorer.trace.inputs[0].clone()
    changed[0, :, 3, 4] += reply.meta["change"]
    with torch.no_grad():
        model = explorer._exploration.engine.model
        moved = (model(changed) - model(explorer.trace.inputs[0]))[0]
    for entry in reply.meta["classes"]:
        assert entry["by"] == pytest.approx(float(moved[entry["index"]]), abs=1e-6)


def test_an_influence_of_another_run_is_not_read(explorer):
    ask(explorer, "influence", y=3, x=4)
    explorer.select(sample=1)
    with pytest.raises(InputError, match="no longer"):
        influenced(explorer._exploration, explorer.trace, "conv", 0)


def test_all_logits_are_told_by_name(explorer):
    reply = ask(explorer, "logits")
    np.testing.assert_allclose(reply.arrays["logits"], explorer.trace.output[0].numpy(), rtol=1e-6)
    assert reply.meta == {"names": ["a", "b", "c", "d"], "probabilities": False}


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_changed_picture_keeps_its_budget_in_levels_of_the_picture(explorer, norm):
    budget = 4 / 255 if norm == "linf" else 0.5
    parts, last = ask(explorer, "counterfactual", target=2, method="pgd", norm=norm, budget=budget, steps=5)
    assert last.meta["step"] == last.meta["steps"] == 5
    assert 0 < last.meta[norm] <= budget * (1 + 1e-5)
    assert last.arrays["rgb"].shape == last.arrays["difference"].shape == (8, 8, 3)
    assert sum(entry["prob"] for entry in last.meta["classes"]) == pytest.approx(1)
    assert all(part is None or part.meta["step"] < 5 for part in parts)


def test_the_lens_tells_what_each_block_would_say(front_end):
    w = nnviz.explore(Text().eval(), torch.arange(5)[None])
    assert w.trace.complete
    reply = ask(w, "lens", token=2)
    assert reply.meta["layers"] == ["blocks.0", "blocks.1", "blocks.2"]
    assert reply.meta["token"] == 2
    assert reply.meta["tokens"] == 5
    own = torch.softmax(w.trace.output[0, 2], -1)
    assert reply.arrays["probabilities"][-1, 0] == pytest.approx(float(own.max()), rel=1e-5)
    assert reply.meta["final"]["index"] == int(own.argmax())
    w.close()


@pytest.mark.parametrize(
    ("op", "p"),
    [
        ("influence", {"y": 8, "x": 0}),
        ("influence", {"y": 0}),
        ("lens", {}),
        ("counterfactual", {"method": "magic", "norm": "l2", "budget": 1}),
        ("counterfactual", {"method": "pgd", "norm": "l2", "budget": -1}),
        ("counterfactual", {"method": "pgd", "norm": "l2", "budget": "much"}),
    ],
)
def test_what_is_asked_wrongly_is_refused(explorer, op, p):
    with pytest.raises(InputError):
        ask(explorer, op, **p)


def test_probes_are_those_of_the_engine_on_all_samples_that_were_given(front_end):
    x = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = [0, 1, 2] * 4
    w = nnviz.explore(Net().eval(), x, target=labels, denormalize=((0.1,), (0.5,)))
    w.paint(torch.zeros(3, 8, 8))  # one more sample, whose class nobody knows
    *_, last = ask(w, "probes", sample=None)
    with nnviz.Engine(w._exploration.engine.model) as engine:
        expected = engine.linear_probes(x, labels)
    assert last.meta["layers"] == expected.layers
    np.testing.assert_allclose(last.arrays["accuracy"], expected.accuracy)
    np.testing.assert_allclose(last.arrays["fitted"], expected.fitted)
    assert (last.meta["samples"], last.meta["progress"]) == (12, 1)
    w.close()


def test_probes_need_true_classes(explorer):
    with pytest.raises(InputError, match="true class"):
        ask(explorer, "probes")


def test_what_the_first_influence_would_wait_for_is_loaded_when_it_is_foreseen():
    code = """
import sys, threading, torch
from nnviz_widget.explorer.probing import PROBING
assert "torch._dynamo" not in sys.modules
PROBING["foresee"](None, None)
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join()
assert "torch._dynamo" in sys.modules
PROBING["foresee"](None, None)
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
