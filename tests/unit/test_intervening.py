"""What the side of the page that changes layers asks for: predictions, rankings and heat maps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from nnviz_widget.engine.engine import Engine
from nnviz_widget.engine.jobs import CancelToken
from nnviz_widget.explorer.explaining import EXPLAINING
from nnviz_widget.explorer.exploration import Exploration
from nnviz_widget.explorer.inputs import read_batch
from nnviz_widget.explorer.intervening import INTERVENING
from nnviz_widget.explorer.pictures import read_denormalize
from nnviz_widget.explorer.probing import PROBING
from nnviz_widget.explorer.replies import Question
from tests.unit.test_explaining import Page

CONV = "features.conv2"


@pytest.fixture
def page():
    page = Page()
    yield page
    page.exploration.close()


def intervene(page, *interventions, sample=0):
    rid = f"r{len(page.replies)}"
    return page.ask("intervene", rid, sample=sample, interventions=list(interventions))[-1]


def ablation(**options):
    return {"layer": CONV, "kind": "ablate", "on": True, "channel": 3, **options}


def test_predictions_stand_beside_those_of_the_network_as_it_is(page):
    meta = intervene(page, ablation(), {"layer": CONV, "kind": "scale", "factor": 2.0, "on": True})["meta"]
    json.dumps(meta)
    with torch.no_grad():
        before = page.model(page.inputs[:1]).softmax(1)[0]
    x = page.inputs[:1]
    with (
        Engine(page.model) as engine,
        engine.intervene(CONV, channel=3),
        engine.intervene(CONV, "scale", factor=2),
    ):
        after = engine.output(x).softmax(1)[0]
    for entry in meta["classes"]:
        assert entry["before"] == pytest.approx(float(before[entry["index"]]), abs=1e-6)
        assert entry["after"] == pytest.approx(float(after[entry["index"]]), abs=1e-6)
    assert meta["calls"] == [
        f'engine.intervene("{CONV}", "ablate", channel=3)',
        f'engine.intervene("{CONV}", "scale", factor=2.0)',
    ]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(8, 8)

    def forward(self, x):
        return x + torch.tanh(self.mix(x).cumsum(1))


class Words(nn.Module):
    """Tells at every token which one comes next."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(40, 8), nn.Linear(8, 40)
        self.blocks = nn.ModuleList(Block() for _ in range(3))

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def test_a_language_model_is_asked_for_what_comes_after_the_last_token():
    torch.manual_seed(0)
    model, ids = Words().eval(), torch.randint(40, (2, 6))
    batch = read_batch(model, ids)
    exploration = Exploration(
        Engine(model), batch, names=None, targets=None, denormalize=read_denormalize(None, batch.main)
    )
    exploration.ask(lambda: exploration.run(0))
    twice = {"layer": "blocks.1", "kind": "scale", "factor": -2.0, "on": True}

    def ask(operation, **p):
        return exploration.ask(
            lambda: operation(exploration, Question(p, (), CancelToken(), lambda done, total: None))
        )

    def explain(*asked):
        return [*EXPLAINING["attribute"](*asked)]

    meta = ask(INTERVENING["intervene"], sample=0, interventions=[twice]).meta
    lens = ask(PROBING["lens"], sample=0, token=5, changed=[twice])
    softmax = ask(PROBING["logits"], sample=0, changed=[twice])
    explained = []
    for sample in (0, 1):
        ask(explain, key="k", method="saliency", sample=sample, changed=[twice])
        explained.append(exploration.shelf.get("k", exploration.altered.key)[1])
    exploration.close()
    with torch.no_grad():
        before = model(ids[:1])[0, -1].softmax(0)
        model.blocks[1].register_forward_hook(lambda _, __, out: -2 * out)
        logits = model(ids[:1])[0, -1]
        after = logits.softmax(0)
        likeliest = model(ids)[:, -1].argmax(1).tolist()
    assert [found.target for found in explained] == [(5, word) for word in likeliest]
    for i, found in enumerate(explained):
        words = model.embed(ids[i : i + 1]).detach().requires_grad_()
        handle = model.embed.register_forward_hook(lambda _, __, ___, words=words: words)
        (expected,) = torch.autograd.grad(model(ids[i : i + 1])[0, 5, likeliest[i]], words)
        handle.remove()
        torch.testing.assert_close(found.values, expected, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(softmax.arrays["logits"], logits, atol=1e-5)
    assert meta["token"] == softmax.meta["token"] == 5
    assert {entry["index"] for entry in meta["classes"]} >= {int(before.argmax()), int(after.argmax())}
    for entry in meta["classes"]:
        assert entry["before"] == pytest.approx(float(before[entry["index"]]), abs=1e-6)
        assert entry["after"] == pytest.approx(float(after[entry["index"]]), abs=1e-6)
    assert lens.meta["final"]["index"] == int(after.argmax())
    assert lens.arrays["final"][-1] == pytest.approx(float(after.max()), abs=1e-6)


def test_what_is_switched_off_changes_nothing_and_what_cannot_be_is_told(page):
    wrong = {"layer": "features.nix", "kind": "ablate", "on": True}
    meta = intervene(page, ablation(on=False), wrong)["meta"]
    assert all(entry["before"] == entry["after"] for entry in meta["classes"])
    assert meta["errors"][0] == ""
    assert "features.nix" in meta["errors"][1]


def test_a_unit_is_that_of_the_picture_and_a_patch_comes_from_a_sample(page):
    patch = {"layer": CONV, "kind": "patch", "on": True, "source": 2}
    meta = intervene(page, patch)["meta"]
    assert meta["calls"] == [f'engine.intervene("{CONV}", "patch", source=inputs[2:3])']
    with torch.no_grad():
        other = page.model(page.inputs[2:3]).softmax(1)[0]
    for entry in meta["classes"]:
        assert entry["after"] == pytest.approx(float(other[entry["index"]]), abs=1e-6)
    meta = intervene(page, ablation(channel=None, unit=[3, 2, 1]))["meta"]
    assert meta["calls"] == [f'engine.intervene("{CONV}", "ablate", unit=(3, 2, 1))']


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "explode"},
        {"channel": "x"},
        {"channel": 10**6},
        {"kind": "scale", "factor": "much"},
        {"kind": "patch", "source": 99},
        {"unit": [1, 2, 3, 4, 5]},
        {"layer": None},
    ],
)
def test_nonsense_is_answered_and_hurts_nothing(page, wrong):
    reply = intervene(page, ablation(**wrong))
    assert reply["t"] == "error" or reply["meta"]["errors"][0]
    assert intervene(page, ablation())["meta"]["errors"] == [""]


def test_the_trace_on_the_screen_is_of_the_network_as_it_is(page):
    with torch.no_grad():
        expected = page.model(page.inputs[:1])
    intervene(page, ablation())
    page.exploration.ask(lambda: page.exploration.run(0))
    torch.testing.assert_close(page.exploration.current.output, expected)


def test_knock_outs_come_most_important_first(page):
    replies = page.ask("knock_outs", "k", node=CONV, sample=1, target=None, value="zero", heads=False)
    meta = replies[-1]["meta"]
    with Engine(page.model) as engine:
        expected = engine.knock_outs(page.inputs[1:2], CONV)
    message, buffers = replies[-1], page.buffers["k"][-1]
    names = [one["name"] for one in message["arrays"]]
    channels = np.frombuffer(buffers[names.index("channels")], np.int32)
    assert channels.tolist() == expected.ranking
    np.testing.assert_allclose(
        page.array("k", "effects"), [expected.effect(int(c)) for c in channels], atol=1e-5
    )
    assert meta["target"] == expected.target[0]
    assert meta["progress"] == 1


def test_patch_effects_come_as_layers_by_parts(page):
    replies = page.ask("patch_effects", "p", sample=0, source=1, each="channel")
    meta = replies[-1]["meta"]
    with Engine(page.model) as engine:
        expected = engine.patch_effects(page.inputs[1:2], page.inputs[:1], each="channel")
    assert meta["layers"] == expected.layers
    assert meta["shapes"] == [list(expected.effects[layer].shape) for layer in expected.layers]
    np.testing.assert_allclose(page.array("p", "effects"), expected.matrix().numpy(), atol=1e-4)
    (reply,) = page.ask("patch_effects", "h", sample=0, source=1, each="head")
    assert reply["t"] == "error"
    assert "attention" in reply["message"]
