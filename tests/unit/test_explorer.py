"""The explorer without a page: what it sends is a list, and the page is the test."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref

import ipywidgets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import nnviz_widget as nnviz
from nnviz_widget.errors import InputError, NNVizError, UnknownNameError
from nnviz_widget.explorer.widget import Explorer
from nnviz_widget.wire.arrays import unpack
from nnviz_widget.wire.messages import ERROR_CODES

NAMES = list("abcde")


class Net(nn.Module):
    """Maps, a skip connection, a vector: small, and every gradient is known to autograd."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = self.act(self.conv(x))
        x = self.conv2(x) + x
        return self.fc(x.mean((2, 3)))


X = torch.randn(3, 3, 12, 10, generator=torch.Generator().manual_seed(1))


class Page:
    """Asks an explorer as a page does, and keeps what it said."""

    def __init__(self, explorer):
        self.explorer = explorer
        self.sent = []
        self.count = 0
        self.arrived = threading.Condition()

    def hear(self, content, buffers):
        with self.arrived:
            self.sent.append((content, buffers or []))
            self.arrived.notify_all()

    def ask(self, op, *, slot="", buffers=None, **p):
        self.count += 1
        rid = f"r{self.count}"
        message = {"v": 1, "t": "req", "rid": rid, "view": "a", "slot": slot, "op": op, "p": p}
        self.explorer._handle_custom_msg(message, buffers)
        return rid

    def say(self, **message):
        self.explorer._handle_custom_msg(message, None)

    def terminal(self, rid):
        def ends(message):
            return message.get("rid") == rid and (
                message.get("last") or message["t"] in ("error", "cancelled")
            )

        with self.arrived:
            assert self.arrived.wait_for(lambda: any(ends(m) for m, _ in self.sent), timeout=60)
            return next(m for m, _ in self.sent if ends(m))

    def get(self, op, buffers=None, **p):
        """Ask and return (meta, arrays); an error of the kernel is the test's."""
        rid = self.ask(op, buffers=buffers, **p)
        end = self.terminal(rid)
        assert end["t"] == "chunk", end
        chunks = [(m, b) for m, b in self.sent if m.get("rid") == rid and m["t"] == "chunk"]
        meta = {name: value for m, _ in chunks for name, value in m.get("meta", {}).items()}
        return meta, unpack([(m["arrays"], b) for m, b in chunks])

    def error(self, op, **p):
        end = self.terminal(self.ask(op, **p))
        assert end["t"] == "error", end
        return end


def engines(others):
    """Threads of engines that were not there before."""
    return [one for one in threading.enumerate() if one.name.startswith("nnviz") and one not in others]


@pytest.fixture
def make(front_end, monkeypatch):
    others = set(threading.enumerate())
    pages = {}
    monkeypatch.setattr(
        Explorer, "send", lambda self, content, buffers=None: pages[id(self)].hear(content, buffers)
    )
    made = []

    def make(model=None, inputs=X, **options):
        explorer = nnviz.explore(model or Net(), inputs, **options)
        pages[id(explorer)] = page = Page(explorer)
        made.append(explorer)
        return explorer, page

    yield make
    for explorer in made:
        explorer.close()
    assert not engines(others)


# ---- what is shown


def test_the_first_run_fills_every_trait(make):
    model = Net()
    w, _ = make(model, class_names=NAMES, target=[0, 1, 2])
    assert w.trace
    assert w.status == {"state": "ready"}
    assert {node["id"] for node in w.graph["nodes"]} >= {
        "input",
        "conv",
        "act",
        "conv2",
        "/add",
        "fc",
        "output",
    }
    assert w.info["samples"] == 3
    assert w.info["params"] == sum(p.numel() for p in model.parameters())
    assert w.info["flops"] > 0
    assert w.info["class_names"] == NAMES
    assert w.info["has_targets"]
    assert w.run["sample"] == 0
    assert w.run["run"] == 1
    assert w.run["consistent"]
    with torch.no_grad():
        expected = model(X[:1])[0].softmax(0)
    scored = w.run["predictions"]["classes"]
    assert [entry["index"] for entry in scored] == expected.argsort(descending=True).tolist()
    assert [entry["prob"] for entry in scored] == pytest.approx(
        expected.sort(descending=True).values.tolist()
    )
    assert w.run["predictions"]["true"]["name"] == "a"
    assert [entry["true"] for entry in scored].count(True) == 1


def test_everything_of_one_run_is_published_in_one_message(make, monkeypatch):
    w, _ = make()
    assert w.trace
    published = []
    monkeypatch.setattr(Explorer, "_send", lambda self, msg, buffers=None: published.append(msg))
    w.refresh()
    states = [set(msg["state"]) for msg in published if msg["method"] == "update"]
    assert states == [{"run", "epoch", "status"}]


def test_observers_in_python_hear_of_a_run(make):
    w, _ = make()
    assert w.trace
    heard = []
    w.observe(lambda change: heard.append(change["new"]["run"]), "run")
    w.refresh()
    assert heard == [2]


# ---- operations


def test_maps_are_the_activations_of_the_model(make):
    model = Net()
    _w, page = make(model)
    meta, arrays = page.get("maps", node="conv2", sample=0, max_side=128)
    with torch.no_grad():
        x = model.conv(X[:1]).relu()
        expected = model.conv2(x)[0].numpy()
    assert meta["kind"] == "maps"
    assert meta["shape"] == [6, 12, 10]
    assert meta["bad"] == []
    low, high = arrays["low"][:, None, None], arrays["high"][:, None, None]
    np.testing.assert_allclose(arrays["low"], expected.min((1, 2)), rtol=1e-6)
    decoded = low + arrays["tiles"] / 255 * (high - low)
    assert np.abs(decoded - expected).max() <= ((high - low) / 255).max() * 0.51
    np.testing.assert_allclose(arrays["strength"], np.abs(expected).mean((1, 2)), rtol=1e-5)


def test_raw_values_of_one_map_are_exact(make):
    w, page = make()
    _, arrays = page.get("values", node="conv", sample=0, channel=4)
    np.testing.assert_array_equal(arrays["values"], w.trace.activation("conv")[0, 4].numpy())


def test_statistics_are_those_of_the_activation(make):
    w, page = make()
    meta, arrays = page.get("stats", node="act", sample=0)
    values = w.trace.activation("act").numpy()
    assert meta["mean"] == pytest.approx(values.mean(), rel=1e-5)
    assert meta["zeros"] == pytest.approx((values == 0).mean())
    assert meta["numel"] == values.size
    assert arrays["counts"].sum() == values.size
    assert len(arrays["edges"]) == len(arrays["counts"]) + 1
    meta, _ = page.get("stats", node="act", sample=0, channel=2)
    assert meta["max"] == pytest.approx(values[0, 2].max(), rel=1e-6)


def test_one_number_for_every_node_and_group_comes_in_the_order_of_the_graph(make):
    w, page = make()
    ids = w.trace.graph.ids()
    meta, arrays = page.get("measure", by="mean")
    assert meta == {"by": "mean"}
    measured = dict(zip(ids, arrays["values"], strict=True))
    with torch.no_grad():
        assert measured["conv"] == pytest.approx(float(w.trace.activation("conv").mean()), rel=1e-5)
    assert np.isnan(measured["input"]), "nothing to tell is NaN"
    _, arrays = page.get("measure", by="time")
    times = dict(zip(ids, arrays["values"], strict=True))
    assert times[""] > times["conv"] > 0
    assert w.measure("params")["conv"] == sum(p.numel() for p in Net().conv.parameters())
    steps = [m for m, _ in page.sent if m["t"] == "progress"]
    assert steps[0]["done"] == 0
    assert steps[0]["total"] > 1


def test_strips_hold_the_strongest_maps_of_many_nodes_and_skip_what_is_not_there(make):
    w, page = make()
    nodes = ["conv", "gone", "fc", "conv2"]
    meta, arrays = page.get("strips", nodes=nodes, sample=0, count=4, size=16)
    assert [strip["node"] for strip in meta["strips"]] == ["conv", "fc", "conv2"]
    strength = np.abs(w.trace.activation("conv")[0].numpy()).mean((1, 2))
    assert meta["strips"][0]["channels"] == np.argsort(-strength)[:4].tolist()
    total = sum(len(strip["channels"]) for strip in meta["strips"])
    assert arrays["tiles"].shape == (total, 16, 16)


def test_saliency_is_the_gradient_of_that_unit(make):
    model = Net()
    _w, page = make(model)
    meta, arrays = page.get("saliency", node="conv2", sample=0, unit=[2, 5, 4])
    x = X[:1].clone().requires_grad_()
    value = model.conv2(model.conv(x).relu())[0, 2, 5, 4]
    gradient = torch.autograd.grad(value, x)[0][0]
    assert meta["value"] == pytest.approx(value.item(), rel=1e-6)
    assert meta["field"] == {"box": [3, 2, 8, 7], "exact": True}
    y0, x0, y1, x1 = meta["box"]
    signed = np.zeros((12, 10))
    signed[y0:y1, x0:x1] = (arrays["signed"].astype(float) - 128) / 127 * meta["scale"]
    np.testing.assert_allclose(signed, gradient.sum(0), atol=meta["scale"] / 127 * 0.51)
    magnitude = np.zeros((12, 10))
    magnitude[y0:y1, x0:x1] = arrays["magnitude"] / 255 * meta["magnitude_scale"]
    np.testing.assert_allclose(magnitude, gradient.abs().amax(0), atol=meta["magnitude_scale"] / 255 * 0.51)


def test_a_pixel_of_the_input_tells_its_values_and_the_newest_saliency(make):
    w, page = make()
    meta, _ = page.get("pixel", sample=0, y=5, x=4)
    assert meta["values"] == pytest.approx(X[0, :, 5, 4].tolist())
    _, arrays = page.get("input", sample=0)
    assert meta["display"] == arrays["rgb"][5, 4].tolist()
    assert meta["saliency"] is None
    page.get("saliency", node="conv", sample=0, unit=[0, 5, 4])
    meta, _ = page.get("pixel", sample=0, y=5, x=4)
    w.select("conv", channel=0, pixel=(5, 4))
    assert meta["saliency"] == pytest.approx(w.saliency[:, 5, 4].tolist())
    assert meta["unit"] == [0, 5, 4]


def test_inputs_are_shown_as_the_user_wants_them_undone(make):
    _w, page = make(denormalize=lambda x: torch.full_like(x, 0.5))
    meta, arrays = page.get("inputs", size=6)
    assert meta == {"count": 3, "shown": 3}
    assert arrays["thumbs"].shape == (3, 6, 5, 3)
    meta, arrays = page.get("input", sample=1)
    assert meta == {"shape": [3, 12, 10], "kind": "image"}
    assert (arrays["rgb"] == 128).all()


def test_another_sample_is_traced_and_becomes_the_current_one(make):
    w, page = make()
    before = w.graph if w.trace else None
    meta, _ = page.get("run", sample=2)
    assert meta["sample"] == w.run["sample"] == 2
    assert meta["graph_changed"] is False
    assert w.graph is before
    assert page.error("maps", node="conv", sample=0)["code"] == "stale_epoch"


def test_a_long_reply_arrives_in_acknowledged_chunks(make):
    w, page = make(nn.Conv2d(3, 1500, 1), X[:, :, :, :10].repeat(1, 1, 3, 3))
    rid = page.ask("maps", node=w.trace.graph.nodes[1].id, sample=0, max_side=128)
    seen = set()
    with page.arrived:
        while not any(m.get("last") for m, _ in page.sent if m.get("rid") == rid):
            fresh = [m["seq"] for m, _ in page.sent if m.get("rid") == rid and m["seq"] not in seen]
            for seq in fresh:
                page.say(t="ack", rid=rid, seq=seq)
            seen.update(fresh)
            if not fresh:
                assert page.arrived.wait(timeout=60)
    chunks = [(m, b) for m, b in page.sent if m.get("rid") == rid]
    assert len(chunks) > 2
    arrays = unpack([(m["arrays"], b) for m, b in chunks])
    assert arrays["tiles"].shape == (1500, 36, 30)
    assert "low" in [array["name"] for array in chunks[0][0]["arrays"]]


@pytest.mark.parametrize(
    ("op", "p", "code"),
    [
        ("fly", {}, "unsupported"),
        ("maps", {}, "bad_request"),
        ("maps", {"node": 5}, "bad_request"),
        ("maps", {"node": "cnov"}, "bad_request"),
        ("maps", {"node": "conv", "sample": 9}, "bad_request"),
        ("maps", {"node": "conv", "sample": True}, "bad_request"),
        ("maps", {"node": "conv", "max_side": 10**30}, "bad_request"),
        ("values", {"node": "conv", "channel": 77}, "bad_request"),
        ("saliency", {"node": "conv", "unit": [99, 0, 0]}, "bad_request"),
        ("saliency", {"node": "conv", "unit": [1, 1]}, "bad_request"),
        ("saliency", {"node": "conv", "unit": []}, "bad_request"),
        ("saliency", {"node": "conv", "unit": ["a"]}, "bad_request"),
        ("saliency", {"node": "output", "unit": [5]}, "bad_request"),
        ("measure", {}, "bad_request"),
        ("measure", {"by": "beauty"}, "bad_request"),
        ("measure", {"by": "time", "sample": 9}, "bad_request"),
        ("strips", {"nodes": "conv"}, "bad_request"),
        ("strips", {"nodes": ["x"] * 5000}, "bad_request"),
        ("pixel", {"y": 99, "x": 0}, "bad_request"),
        ("run", {"sample": -1}, "bad_request"),
        ("still", {}, "bad_request"),
    ],
)
def test_a_request_that_makes_no_sense_gets_an_answer_and_changes_nothing(make, op, p, code):
    w, page = make()
    shown = dict(w.run) if w.trace else {}
    error = page.error(op, **p)
    assert error["code"] == code
    assert 0 < len(error["message"]) < 500
    assert w.run == shown
    page.get("maps", node="conv", sample=0)


def test_hundreds_of_strange_requests_are_each_answered_and_stop_nothing(make):
    """Known operations with parameters of every kind; malformed envelopes are tested with the session."""
    w, page = make()
    assert w.trace
    numbers = st.integers(-2, 20) | st.integers() | st.floats() | st.booleans() | st.none()
    json = st.recursive(
        numbers | st.text(max_size=6), lambda inner: st.lists(inner, max_size=4), max_leaves=6
    )
    names = st.sampled_from(["conv", "fc", "/add", "", "input", "output", "nowhere"])
    known = {
        "node": names,
        "sample": st.integers(-1, 4),
        "channel": st.integers(0, 9),
        "unit": st.lists(st.integers(0, 12)),
    }
    ops = st.sampled_from(
        ["inputs", "input", "run", "strips", "maps", "values", "stats", "measure", "saliency", "pixel"]
    )
    ops |= st.sampled_from(["still", "fly"])
    params = st.dictionaries(
        st.sampled_from([*known, "nodes", "size", "count", "max_side", "x", "y", "by"]), json
    ) | (st.fixed_dictionaries({}, optional=known))

    @settings(max_examples=500, deadline=None, database=None)
    @given(ops, params)
    def strange(op, p):
        end = page.terminal(page.ask(op, **p))
        page.sent.clear()
        assert end["t"] == "chunk" or end["code"] in ERROR_CODES
        assert end.get("code") != "internal", end

    strange()
    page.get("run", sample=0)
    page.get("maps", node="conv", sample=0)


def test_an_unexpected_error_is_answered_shortly_and_logged_in_full(make, monkeypatch, caplog):
    w, page = make()
    monkeypatch.setattr(type(w._exploration.engine), "tiles", lambda *a, **k: 1 / 0)
    error = page.error("maps", node="conv", sample=0)
    assert error["code"] == "internal"
    assert "ZeroDivisionError" in error["message"]
    assert "Traceback" not in error["message"]
    assert "Traceback" in caplog.text


def test_the_figure_of_statistics_follows_the_selection(make):
    w, _ = make()
    assert w.trace
    drawn = threading.Event()
    w.statistics.observe(lambda change: drawn.set(), "title")
    w.select("act")
    assert drawn.wait(60)
    bars = w.statistics.marks[0]
    values = w.trace.activation("act").numpy()
    assert "act" in w.statistics.title
    assert bars.y.sum() == values.size
    assert bars.x.min() >= values.min()
    assert ipywidgets.VBox([w, w.statistics]).children == (w, w.statistics)


# ---- select, saliency, feature maps


def test_select_is_what_a_click_does_and_reads_back(make):
    model = Net()
    w, _ = make(model, class_names=NAMES)
    w.select("conv", channel=2, pixel=(3, 4))
    assert w.selection == {"layer": "conv", "channel": 2, "pixel": [3, 4], "sample": 0, "class": None}
    np.testing.assert_array_equal(w.feature_maps, w.trace.activation("conv")[0].numpy())
    w.select(target="c")
    assert w.selection["class"] == 2
    w.select(sample=1)
    assert (w.selection["sample"], w.run["sample"]) == (1, 1)
    w.select(model.conv2)
    assert w.selection["layer"] == "conv2"
    assert w.saliency is None
    w.select()
    assert w.selection["layer"] is None
    assert w.feature_maps is None


def test_saliency_of_a_unit_and_of_a_class_equal_autograd(make):
    model = Net()
    w, _ = make(model)
    x = X[:1].clone().requires_grad_()
    w.select("conv2", channel=1, pixel=(7, 2))
    expected = torch.autograd.grad(model.conv2(model.conv(x).relu())[0, 1, 7, 2], x)[0][0]
    np.testing.assert_allclose(w.saliency, expected, rtol=1e-6, atol=1e-9)
    w.select(target=3)
    expected = torch.autograd.grad(model(x)[0, 3], x)[0][0]
    np.testing.assert_allclose(w.saliency, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("wish", "error", "says"),
    [
        ({"layer": "cvon"}, UnknownNameError, "conv"),
        ({"layer": "conv", "channel": 6}, InputError, "channel=6"),
        ({"layer": "conv", "channel": 0, "pixel": (12, 0)}, InputError, "pixel\\[0\\]=12"),
        ({"layer": "conv", "channel": 0, "pixel": (1,)}, InputError, "not \\(y, x\\)"),
        ({"layer": "conv", "pixel": (1, 1)}, InputError, "without a channel"),
        ({"layer": "fc", "channel": 0, "pixel": (0, 0)}, InputError, "no pixel"),
        ({"channel": 0}, InputError, "no layer selected"),
        ({"sample": 3}, InputError, "sample=3"),
        ({"sample": "1"}, InputError, "sample='1'"),
        ({"target": 5}, InputError, "target=5"),
        ({"target": "zebra"}, UnknownNameError, "zebra"),
    ],
)
def test_a_selection_that_does_not_exist_changes_nothing(make, wish, error, says):
    w, _ = make(class_names=NAMES)
    before = dict(w.selection)
    with pytest.raises(error, match=says):
        w.select(**wish)
    assert w.selection == before


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"layer": 3, "channel": -1, "pixel": [1], "sample": 99, "class": "x"},
        {"layer": "x" * 5000, "channel": 10**30, "pixel": [True, 0], "sample": None, "class": 1.5, "more": 1},
        {"layer": None, "pixel": {"y": 1}},
    ],
)
def test_whatever_a_page_writes_the_selection_keeps_its_form(make, written):
    w, page = make()
    w.set_state({"selection": written})
    assert w.selection == {"layer": None, "channel": None, "pixel": None, "sample": 0, "class": None}
    page.get("maps", node="conv", sample=0)


def test_a_good_selection_of_the_page_is_kept_as_it_is(make):
    w, _ = make()
    written = {"layer": "conv", "channel": 1, "pixel": [2, 3], "sample": 2, "class": None}
    w.set_state({"selection": written})
    assert w.selection == written


# ---- weights that move, cancelling, pausing


def test_weights_that_move_show_as_stale_until_they_are_read_again(make):
    model = Net()
    w, page = make(model)
    assert w.trace
    page.say(t="visible", view="a", visible=True)
    w._exploration.ask(lambda: None)
    assert w.epoch == w.run["epoch"]
    moved = threading.Event()
    w.observe(lambda change: moved.set(), "epoch")
    with torch.no_grad():
        model.fc.weight.add_(1)
    assert moved.wait(60)
    assert w.epoch > w.run["epoch"]
    w.refresh()
    assert w.epoch == w.run["epoch"]
    with torch.no_grad():
        assert w.trace.output.tolist() == model(X[:1]).tolist()


def test_nobody_reads_weights_while_nobody_looks(make):
    _w, page = make()
    names = lambda: [t.name for t in threading.enumerate() if t.name == "nnviz-pulse"]  # noqa: E731
    assert names() == []
    page.say(t="visible", view="a", visible=True)
    assert len(names()) == 1
    page.say(t="visible", view="b", visible=True)
    page.say(t="visible", view="a", visible=False)
    assert len(names()) == 1
    thread = next(t for t in threading.enumerate() if t.name == "nnviz-pulse")
    page.say(t="visible", view="b", visible=False)
    thread.join(60)
    assert names() == []


def test_while_paused_clicks_wait_and_python_is_answered(make):
    w, page = make()
    assert w.trace
    with w.paused():
        rid = page.ask("maps", node="conv", sample=0)
        w.refresh()
        assert not [m for m, _ in page.sent if m.get("rid") == rid]
    assert page.terminal(rid)["t"] == "chunk"


class Gate(nn.Module):
    """Waits inside the forward until the test opens it."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 3)
        self.entered, self.opened = threading.Event(), threading.Event()

    def __deepcopy__(self, memo):
        raise TypeError("events can not be copied")

    def forward(self, x):
        self.entered.set()
        assert self.opened.wait(60)
        return self.lin(x) + self.lin(x)


def test_a_run_can_be_stopped_by_the_page_and_started_again(make):
    model = Gate()
    w, page = make(model, torch.ones(2, 4))
    assert model.entered.wait(60)
    assert page.terminal(page.ask("stop"))["t"] == "chunk"
    model.opened.set()
    w._exploration.ask(lambda: None)
    assert w.status["state"] == "error"
    assert w.status["error"]["title"] == "Stopped"
    w.refresh()
    assert w.status["state"] == "ready"


def test_a_cancelled_or_replaced_request_ends_as_cancelled(make):
    model = Gate()
    _w, page = make(model, torch.ones(2, 4))
    assert model.entered.wait(60)
    first = page.ask("maps", slot="maps", node="lin", sample=0)
    second = page.ask("maps", slot="maps", node="lin", sample=0)
    third = page.ask("maps", node="lin", sample=0)
    page.say(t="cancel", rid=third)
    assert page.terminal(first)["t"] == page.terminal(third)["t"] == "cancelled"
    model.opened.set()
    assert page.terminal(second)["t"] == "chunk"


def test_closing_in_the_middle_of_a_run_ends_it(make):
    model = Gate()
    w, page = make(model, torch.ones(2, 4))
    assert model.entered.wait(60)
    rid = page.ask("maps", node="lin", sample=0)
    threading.Timer(0.05, model.opened.set).start()
    w.close()
    assert page.terminal(rid)["t"] == "cancelled"
    w.close()
    with pytest.raises(NNVizError):
        w.refresh()
    with pytest.raises(NNVizError):
        assert w.trace


# ---- harmless


def test_the_model_is_left_exactly_as_it_was(make):
    model = Net().train()
    model.conv.weight.grad = torch.ones_like(model.conv.weight)
    model.fc.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(11)
    random = torch.get_rng_state()
    w, page = make(model)
    w.select("conv2", channel=1, pixel=(2, 2))
    assert w.saliency is not None
    page.get("maps", node="act", sample=0)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert torch.equal(model.conv.weight.grad, torch.ones_like(model.conv.weight))
    assert model.conv2.weight.grad is None
    assert not model.fc.weight.requires_grad
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_twenty_explorers_leave_no_widget_no_tensor_no_thread(front_end):
    others = set(threading.enumerate())

    def one():
        model = Net()
        w = nnviz.explore(model, X.clone(), class_names=NAMES)
        w.select("conv2", channel=1, pixel=(2, 2))
        assert w.saliency is not None
        assert w.statistics is not None
        w._session.receive({"t": "visible", "view": "a", "visible": True})
        w._session.receive({"v": 1, "t": "req", "rid": "r", "op": "maps", "p": {"node": "conv"}})
        w.close()
        return weakref.ref(w), weakref.ref(model)

    def tensors():
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    one()  # what is made once for all
    gc.collect()
    widgets, before = len(_instances()), tensors()
    refs = [one() for _ in range(20)]
    gc.collect()
    assert [ref() for pair in refs for ref in pair] == [None] * 40
    assert len(_instances()) == widgets
    assert tensors() == before
    assert not engines(others)


def _instances():
    from ipywidgets.widgets import widget

    return widget._instances


def test_importing_the_package_imports_neither_torch_nor_ipywidgets():
    code = (
        "import sys, nnviz_widget, nnviz_widget.errors, nnviz_widget.wire.session\n"
        "print([name for name in ('torch', 'ipywidgets', 'anywidget', 'bqplot') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_front_end_travels_as_text(make):
    w, _ = make()
    assert isinstance(w._esm, str)
    assert "nnviz-still" in w._css
