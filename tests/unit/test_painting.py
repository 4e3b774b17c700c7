"""Pictures as inputs, live runs of what is in sight, and the painted sample beside the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import nnviz_widget as nnviz
from nnviz_widget.engine.jobs import CancelToken
from nnviz_widget.errors import InputError
from nnviz_widget.explorer.painting import PAINTING, input_from_picture, probe
from nnviz_widget.explorer.pictures import draw_sample, read_denormalize
from nnviz_widget.explorer.replies import Question

MEAN, STD = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])


class Net(nn.Module):
    """Modules, a shortcut, and two functions in a row, of which no module sees the first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.relu = nn.ReLU(inplace=True)
        self.mix = nn.Conv2d(5, 5, 1)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        y = self.relu(self.norm(self.conv(x)))
        y = torch.sigmoid(torch.tanh(self.mix(y) + y))
        return self.head(y.mean((2, 3)))


@pytest.fixture
def x():
    return (torch.rand(3, 3, 8, 10, generator=torch.Generator().manual_seed(2)) - 0.5) * 3


@pytest.fixture
def explorer(x, front_end):
    with torch.no_grad():
        w = nnviz.explore(Net().eval(), x, denormalize=(MEAN, STD), target=[0, 1, 2])
    assert w.trace.complete
    yield w
    w.close()


# ---- from a picture to an input


def cut(x):
    return (x * STD.view(1, 3, 1, 1) + MEAN.view(1, 3, 1, 1)).clamp(0, 1)


def as_bytes(x):
    return (cut(x) * 255).round().byte()


def upright(x):
    return cut(x)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("denormalize", [(MEAN, STD), cut, as_bytes, upright])
def test_an_affine_normalisation_is_found_by_asking(denormalize, x):
    found = probe(read_denormalize(denormalize, x), x[:1])
    atol = 0.02 if denormalize is as_bytes else 1e-5
    if denormalize is as_bytes:  # steps of a byte are no straight line; the difference is added instead
        assert found is None or torch.allclose(found.scale.float(), STD, atol=atol)
    else:
        torch.testing.assert_close(found.scale.float(), STD, rtol=0, atol=atol)
        torch.testing.assert_close(found.shift.float(), MEAN, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "denormalize",
    [
        lambda x: x.sigmoid(),
        lambda x: (x - x.min()) / (x.max() - x.min()).clamp(min=1e-9),
        lambda x: cut(x).flip(1),
        lambda x: cut(x).flip(3),
        torch.zeros_like,
    ],
)
def test_what_is_not_affine_is_not_taken_for_it(denormalize, x):
    assert probe(denormalize, x[:1]) is None


def test_pixels_that_were_not_painted_are_those_of_the_sample(explorer, x):
    picture = draw_sample(x[1:2], 0, explorer._exploration.denormalize).rgb
    explorer.select(sample=1)
    explorer.paint(picture)
    assert np.array_equal(explorer.painted, x[1].numpy())
    picture = picture.copy()
    picture[2:4, 3:5] = (255, 0, 51)
    explorer.paint(picture)
    expected = (torch.tensor([1.0, 0.0, 0.2]) - MEAN) / STD
    np.testing.assert_allclose(explorer.painted[:, 2, 3], expected, rtol=1e-5)
    assert np.array_equal(explorer.painted[:, 5:], x[1, :, 5:].numpy())


def test_where_the_normalisation_is_unknown_the_difference_is_added(x, front_end):
    w = nnviz.explore(Net().eval(), x, denormalize=lambda values: values.sigmoid())
    assert w.trace.complete
    picture = draw_sample(x[:1], 0, w._exploration.denormalize).rgb.copy()
    before = picture[0, 0].astype(float)
    picture[0, 0] = 200
    w.paint(picture)
    span = float(x[0].max() - x[0].min())
    expected = x[0, :, 0, 0].numpy() + span * (200 - before) / 255
    np.testing.assert_allclose(w.painted[:, 0, 0], expected, rtol=1e-5)
    assert np.array_equal(w.painted[:, 1:], x[0, :, 1:].numpy())
    w.close()


# ---- the painted sample


def test_a_painted_input_is_a_sample_after_the_others(explorer, x):
    assert explorer.painted is None
    own = torch.randn(3, 8, 10)
    explorer.paint(own)
    assert explorer.selection["sample"] == explorer.run["sample"] == 3
    assert np.array_equal(explorer.painted, own.numpy())
    with torch.no_grad():
        expected = explorer._exploration.engine.model(own[None])
    torch.testing.assert_close(explorer.trace.output, expected)
    explorer.select(sample=0)
    torch.testing.assert_close(explorer.trace.inputs[0], x[:1])
    explorer.select(sample=3)
    torch.testing.assert_close(explorer.trace.inputs[0], own[None])


@pytest.mark.parametrize("wrong", [torch.zeros(3, 9, 10), np.zeros((8, 9, 3), np.uint8), "picture", [1, 2]])
def test_what_is_no_input_is_refused_and_nothing_changes(explorer, wrong):
    with pytest.raises((InputError, ValueError, TypeError)):
        explorer.paint(wrong)
    assert explorer.run["sample"] == 0
    assert explorer.painted is None


# ---- a frame


def frame(explorer, picture, **p):
    question = Question({"base": 0, **p}, (picture.tobytes(),), CancelToken(), lambda *_: None)
    return explorer._exploration.ask(lambda: PAINTING["paint"](explorer._exploration, question))


def test_a_frame_answers_with_what_is_in_sight_and_no_more(explorer):
    exploration = explorer._exploration
    picture = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8)
    before = explorer.trace
    reply = frame(explorer, picture, nodes=[{"node": "conv", "channels": [4, 1]}], layer="norm", max_side=64)
    assert explorer.trace is before  # the run on the screen is another matter
    assert reply.arrays["tiles"].shape == (2, 36, 36)
    assert reply.meta["strips"] == [{"node": "conv", "kind": "maps", "start": 0, "channels": [4, 1]}]
    assert reply.meta["maps"]["node"] == "norm"
    assert not reply.meta["recorded"]

    exploration.ask(lambda: exploration.run(reply.meta["sample"]))
    tiles = exploration.engine.tiles(explorer.trace, "norm", max_side=64)
    assert np.array_equal(reply.arrays["maps"], tiles.values)
    np.testing.assert_array_equal(reply.arrays["low"], tiles.low)
    assert reply.meta["predictions"]["classes"][0]["logit"] == pytest.approx(
        explorer.run["predictions"]["classes"][0]["logit"]
    )


def test_values_that_no_module_sees_are_read_the_slow_way_and_are_right(explorer, x):
    trace = explorer.trace
    names = [node.id for node in trace.graph.nodes if node.id in trace.refs]
    other = x[1:2]
    engine = explorer._exploration.engine
    seen = engine.glimpse(trace, (other,), looks=dict.fromkeys(names, torch.clone))
    assert seen.recorded
    exact = engine.trace(other)
    for name in names:
        assert torch.equal(seen.seen[name], exact.activation(name)), name


def test_a_layer_that_is_replaced_between_two_frames_is_run_and_looked_at(x):
    model = Net().eval()
    with torch.no_grad(), nnviz.Engine(model) as engine:
        trace = engine.trace(x[:1])
        for conv in (model.conv, nn.Conv2d(3, 5, 3, padding=1)):
            model.conv = conv
            for frame in range(4):  # other pictures altogether: none is answered from the one before
                given = torch.randn(1, 3, 8, 10, generator=torch.Generator().manual_seed(frame))
                found = engine.glimpse(trace, (given,), looks={"conv": torch.clone})
                torch.testing.assert_close(found.seen["conv"], conv(given))
                torch.testing.assert_close(found.output, model(given))
        hooks = [{**part._forward_pre_hooks, **part._forward_hooks} for part in engine._twin.module.modules()]
        assert not any(hooks)


def test_a_frame_stops_where_it_is_cancelled_although_others_ran_before_it(x):
    model = Net().eval()
    looked: list[str] = []
    with torch.no_grad(), nnviz.Engine(model) as engine:
        trace = engine.trace(x[:1])
        engine.glimpse(trace, (x[1:2],), looks={"conv": torch.clone, "mix": torch.clone})

        def frame(token):
            looks = {"conv": lambda _: token.cancel(), "mix": lambda _: looked.append("mix")}
            return engine._live.run(trace, (torch.randn_like(x[:1]),), {}, looks, token)

        job = engine.jobs.submit(frame)
        job.wait(10)
        assert job.state == "cancelled"
        assert looked == []


def test_a_sample_that_is_changed_in_place_is_painted_on_as_it_is_now(explorer):
    exploration, batch = explorer._exploration, explorer._exploration.batch
    picture = draw_sample(batch.row(1), 0, exploration.denormalize).rgb
    first = exploration.ask(lambda: input_from_picture(exploration, picture, 1))
    torch.testing.assert_close(first, batch.row(1), rtol=0, atol=0)
    batch.main[1].add_(0.25)
    picture = draw_sample(batch.row(1), 0, exploration.denormalize).rgb
    second = exploration.ask(lambda: input_from_picture(exploration, picture, 1))
    torch.testing.assert_close(second, batch.row(1), rtol=0, atol=0)


def test_values_between_modules_are_read_from_the_module_that_takes_them(x):
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            return self.b(self.relu(self.a(x) + x))

    with nnviz.Engine(Skips()) as engine:
        trace = engine.trace(x)
        names = [node.id for node in trace.graph.nodes if node.kind in ("module", "op")]
        found = engine.glimpse(trace, (x * 2,), looks=dict.fromkeys(names, torch.clone))
        assert not found.recorded
        exact = engine.trace(x * 2)
        assert all(torch.equal(found.seen[name], exact.activation(name)) for name in names)
        assert not any(part._forward_hooks for part in engine.model.modules())


@pytest.mark.parametrize(
    "p",
    [
        {"nodes": "conv"},
        {"nodes": [{"node": "conv"}]},
        {"nodes": [{"node": "conv", "channels": [0, 1, 2, 3, 4]}]},
        {"nodes": [], "base": 7},
        {"nodes": [], "layer": 3},
    ],
)
def test_what_a_page_asks_wrongly_is_refused(explorer, p):
    with pytest.raises(InputError):
        frame(explorer, np.zeros((8, 10, 3), np.uint8), **p)


def test_a_picture_of_another_size_is_refused(explorer):
    with pytest.raises(InputError, match="bytes"):
        frame(explorer, np.zeros((8, 9, 3), np.uint8), nodes=[])


def test_a_frame_goes_through_the_network_as_the_page_changed_it(explorer):
    picture = np.random.default_rng(0).integers(0, 256, (8, 10, 3), np.uint8)
    half = {"layer": "mix", "kind": "scale", "factor": 0.5, "channel": 2, "on": True}
    reply = frame(explorer, picture, nodes=[], layer="mix", max_side=64, changed=[half])
    plain = frame(explorer, picture, nodes=[], layer="mix", max_side=64)
    assert reply.arrays["high"][2] == pytest.approx(plain.arrays["high"][2] / 2, rel=1e-5)
    np.testing.assert_allclose(np.delete(reply.arrays["high"], 2), np.delete(plain.arrays["high"], 2))
    exploration = explorer._exploration
    engine = exploration.engine
    args, _ = exploration.batch.sample(reply.meta["sample"])
    with engine.intervene("mix", "scale", channel=2, factor=0.5):
        expected = engine.output(args)
    for entry in reply.meta["predictions"]["classes"]:
        assert entry["logit"] == pytest.approx(float(expected[0, entry["index"]]), rel=1e-4)
