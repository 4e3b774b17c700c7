"""What the page of attributions asks for: methods, maps as they sharpen, files."""

from __future__ import annotations

import io
import json
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from nnviz_widget import demo
from nnviz_widget.engine.engine import Engine
from nnviz_widget.explorer.explaining import Shelf, flat_maps
from nnviz_widget.explorer.exploration import Exploration
from nnviz_widget.explorer.inputs import read_batch
from nnviz_widget.explorer.operations import Operations
from nnviz_widget.explorer.pictures import read_denormalize
from nnviz_widget.wire.session import Session


class Page:
    """A page without a browser: it asks, and keeps what comes."""

    def __init__(self):
        shown = demo.digits()
        self.model, self.inputs = shown.model, shown.inputs[:3]
        batch = read_batch(self.model, self.inputs)
        denormalize = read_denormalize(None, batch.main)
        self.exploration = Exploration(
            Engine(self.model), batch, names=None, targets=None, denormalize=denormalize
        )
        self.exploration.ask(lambda: self.exploration.run(0))
        self.replies, self.buffers, self.order = {}, {}, []
        self.arrived = threading.Condition()
        operations = Operations(self.exploration, {})
        self.session = Session(self.hear, operations.start)

    def hear(self, content, buffers):
        with self.arrived:
            self.replies.setdefault(content.get("rid"), []).append(content)
            self.buffers.setdefault(content.get("rid"), []).append([bytes(b) for b in buffers or []])
            self.order.append(content)
            self.arrived.notify_all()

    def send(self, op, rid, slot="", **p):
        request = {"v": 1, "t": "req", "rid": rid, "view": "v", "slot": slot, "op": op, "p": p}
        self.session.receive(request)

    def ended(self, rid):
        return any(m["t"] in {"error", "cancelled"} or m.get("last") for m in self.replies.get(rid, []))

    def wait(self, until):
        """Read, and acknowledge what was read, until something is true."""
        read = 0
        while True:
            with self.arrived:
                assert self.arrived.wait_for(lambda: until() or len(self.order) > read, timeout=60)  # noqa: B023
                fresh, read = self.order[read:], len(self.order)
            for message in fresh:
                if message["t"] == "chunk":
                    self.session.receive({"t": "ack", "rid": message["rid"], "seq": message["seq"]})
            if until():
                return

    def ask(self, op, rid="r", **p):
        self.send(op, rid, **p)
        self.wait(lambda: self.ended(rid))
        return self.replies[rid]

    def array(self, rid, name, at=-1):
        message, buffers = self.replies[rid][at], self.buffers[rid][at]
        index = next(i for i, one in enumerate(message["arrays"]) if one["name"] == name)
        described = message["arrays"][index]
        kinds = {"f4": np.float32, "u1": np.uint8, "i4": np.int32}
        return np.frombuffer(buffers[index], kinds[described["dtype"]]).reshape(described["shape"])


@pytest.fixture
def page():
    page = Page()
    yield page
    page.exploration.close()


def test_the_methods_are_told_with_their_options(page):
    (reply,) = page.ask("methods")
    methods = {one["name"]: one for one in reply["meta"]["methods"]}
    assert methods["integrated_gradients"]["options"]["n_steps"] == 50
    assert all(one["description"] and one["cost"] for one in methods.values())
    json.dumps(reply)


def test_an_attribution_ends_with_what_the_engine_gives(page):
    replies = page.ask("attribute", key="k", method="integrated_gradients", sample=1, target=4)
    assert [m["t"] for m in replies] == ["chunk"] * len(replies)
    shares = [m["meta"]["progress"] for m in replies]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    with Engine(page.model) as engine:
        wanted = engine.attribute(page.inputs[1:2], "integrated_gradients", target=4)
    np.testing.assert_allclose(page.array("r", "signed"), wanted.values[0].sum(0), atol=1e-6)
    np.testing.assert_allclose(page.array("r", "magnitude"), wanted.values[0].abs().sum(0), atol=1e-6)
    meta = replies[-1]["meta"]
    assert meta["delta"] == pytest.approx(float(wanted.delta[0]), abs=1e-5)
    assert meta["call"] == 'engine.attribute(inputs, method="integrated_gradients", target=4)'
    torch.testing.assert_close(page.exploration.shelf.get("k")[1].values, wanted.values, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("method", "options", "complete"),
    [
        ("deep_lift", {}, True),
        ("gradient_shap", {"n_samples": 200}, True),
        ("saliency", {}, False),
        ("grad_cam", {}, False),
        ("lime", {"n_samples": 8}, False),
        ("kernel_shap", {"n_samples": 8}, False),  # a number stands at each pixel of its superpixel
    ],
)
def test_only_values_that_add_up_to_the_change_are_called_complete(page, method, options, complete):
    meta = page.ask("attribute", key="k", method=method, sample=0, target=3, options=options)[-1]["meta"]
    assert ("delta" in meta) == ("change" in meta) == complete
    if complete:
        with torch.no_grad():
            scores = page.model(torch.cat([page.inputs[:1], torch.zeros_like(page.inputs[:1])]))[:, 3]
        assert meta["change"] == pytest.approx(float(scores[0] - scores[1]), abs=1e-4)


def test_methods_have_names_and_descriptions_of_their_own(page):
    (reply,) = page.ask("methods")
    for told in ("name", "description"):
        texts = [one[told] for one in reply["meta"]["methods"]]
        assert len(set(texts)) == len(texts)
    assert [one["name"] for one in reply["meta"]["methods"]] == list(page.exploration.engine.methods())


def test_the_readme_lists_every_method(page):
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    table = readme.partition("| methods | names |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"`([a-z_]+)`", table)) == sorted(page.exploration.engine.methods())


def test_without_a_target_the_best_class_of_the_sample_is_explained(page):
    meta = page.ask("attribute", key="k", method="saliency", sample=2)[-1]["meta"]
    assert meta["target"] == int(page.model(page.inputs[2:3]).argmax())


def test_a_click_is_answered_between_the_steps_of_an_attribution(page):
    page.send(
        "attribute", "long", slot="explain", key="k", method="smooth_grad", options={"nt_samples": 40_000}
    )
    page.wait(lambda: "long" in page.replies)
    page.ask("stats", "click", node="conv1" if "conv1" in page.exploration.current.refs else "input")
    assert not page.ended("long"), "it waits for nobody's end"
    page.session.receive({"t": "cancel", "rid": "long"})
    page.wait(lambda: page.ended("long"))
    assert page.replies["long"][-1]["t"] == "cancelled"


def test_two_attributions_grow_side_by_side(page):
    for name in ("a", "b"):
        page.send(
            "attribute",
            name,
            slot=f"explain {name}",
            key=name,
            method="smooth_grad",
            options={"nt_samples": 600},
        )
    page.wait(lambda: page.ended("a") and page.ended("b"))
    chunks = [m["rid"] for m in page.order if m["t"] == "chunk"]
    assert chunks.index("b") < len(chunks) - 1 - chunks[::-1].index("a"), (
        "the second begins before the first ends"
    )


@pytest.mark.parametrize(
    ("p", "told"),
    [
        ({"method": "salency"}, "Did you mean 'saliency'?"),
        ({"method": 7}, "'method' must be a text"),
        ({"method": "saliency", "sample": 99}, "'sample' is 99"),
        ({"method": "saliency", "target": -1}, "'target' is -1"),
        ({"method": "saliency", "target": 4000}, "outside the output"),
        ({"method": "integrated_gradients", "options": {"n_step": 3}}, "Did you mean 'n_steps'?"),
        ({"method": "integrated_gradients", "options": {"n_steps": "many"}}, "does not fit"),
        ({"method": "integrated_gradients", "options": {"n_steps": 0}}, "from 1"),
        ({"method": "integrated_gradients", "options": {"baselines": "mena"}}, "Did you mean 'mean'?"),
        ({"method": "integrated_gradients", "options": {"baselines": "sample:9"}}, "no sample"),
        ({"method": "integrated_gradients", "options": {"baselines": [0]}}, "a name or a number"),
        ({"method": "integrated_gradients", "options": [1]}, "must be an object"),
    ],
)
def test_what_does_not_fit_is_told(page, p, told):
    (reply,) = page.ask("attribute", key="k", **p)
    assert (reply["t"], told in f"{reply['message']} {reply.get('hint', '')}") == ("error", True), reply


def test_attributions_are_handed_out_as_files(page):
    page.ask("attribute", "1", key="one", method="saliency", sample=0, target=1)
    page.ask("attribute", "2", key="two", method="input_x_gradient", sample=1, target=2)
    page.ask("attribution_file", "file", kind="npz", keys=["one"])
    with np.load(io.BytesIO(page.array("file", "data").tobytes())) as archive:
        assert archive["values"].shape == (1, *page.inputs.shape[1:])
        assert json.loads(str(archive["parameters"]))["method"] == "saliency"
    page.ask("attribution_file", "both", kind="npz", keys=["one", "two"])
    with np.load(io.BytesIO(page.array("both", "data").tobytes())) as archive:
        assert len(archive.files) == 2
    page.ask("attribution_file", "png", kind="png", keys=["one", "two"])
    assert page.array("png", "data").tobytes().startswith(b"\x89PNG")
    page.ask("attribution_file", "svg", kind="svg", keys=["two"])
    assert b"</svg>" in page.array("svg", "data").tobytes()


@pytest.mark.parametrize(("chosen", "wanted"), [("sample:2", "other"), (0.5, 0.5), ("mean", "mean")])
def test_a_baseline_is_a_name_a_number_or_another_sample(page, chosen, wanted):
    options = {"baselines": chosen, "n_steps": 10}
    page.ask("attribute", key="k", method="integrated_gradients", sample=0, target=1, options=options)
    given = page.inputs[2:3] if wanted == "other" else wanted
    with Engine(page.model) as engine:
        right = engine.attribute(
            page.inputs[:1], "integrated_gradients", target=1, baselines=given, n_steps=10
        )
    np.testing.assert_allclose(page.array("r", "signed"), right.values[0].sum(0), atol=1e-5)
    (reply,) = page.ask("baseline", "picture", sample=0, baselines=chosen)
    assert reply["meta"]["low"] == pytest.approx(float(page.inputs[0].min()))
    drawn = page.array("picture", "rgb")
    assert drawn.shape == (*page.inputs.shape[2:], 3)
    assert (drawn.std() == 0) == (wanted != "other")


def test_a_file_of_what_is_no_longer_kept_is_refused(page):
    (reply,) = page.ask("attribution_file", kind="npz", keys=["gone"])
    assert "no longer kept" in reply["message"]


def test_the_shelf_keeps_the_newest(page):
    page.ask("attribute", key="k", method="saliency")
    _, attribution = page.exploration.shelf.get("k")
    shelf = Shelf()
    for number in range(60):
        shelf.put(str(number), 0, attribution)
    assert list(shelf.all()) == [str(number) for number in range(12, 60)]


def test_values_become_a_picture():
    values = torch.tensor([[[1.0, -2.0]], [[-4.0, 1.0]]])
    signed, magnitude = flat_maps(values)
    assert (signed.tolist(), magnitude.tolist()) == ([[-3.0, -1.0]], [[5.0, 3.0]])
    assert flat_maps(values, one=True)[0].tolist() == [[1.0, -2.0]]
    assert flat_maps(torch.tensor([1.0, -2.0]))[1].tolist() == [[1.0, 2.0]]
    assert flat_maps(torch.tensor([[1.0, -2.0], [3.0, 4.0]]))[0].tolist() == [[-1.0, 7.0]]
