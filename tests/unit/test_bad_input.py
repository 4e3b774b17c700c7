"""What users hand to `explore` by mistake: each gets a clear message or simply works; nothing stays."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

import nnviz_widget as nnviz
from nnviz_widget.errors import InputError, NNVizError, UnknownNameError


class Net(nn.Module):
    """A small classifier of pictures, with a place to break it."""

    def __init__(self, output=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)
        self.output = output

    def forward(self, x):
        x = self.bn(self.conv(x)).relu()
        if self.output == "raise":
            raise ValueError("no luck today")
        if self.output == "nan":
            x = x / torch.zeros_like(x)
        x = self.fc(x.mean((2, 3)))
        return {"dict": {"logits": x, "extra": x * 2}, "tuple": (x, x[:, :2])}.get(self.output, x)


X = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


@pytest.fixture
def explore(front_end):
    others = set(threading.enumerate())
    made = []

    def make(*args, **kwargs):
        made.append(nnviz.explore(*args, **kwargs))
        return made[-1]

    yield make
    for explorer in made:
        explorer.close()
    left = [one for one in threading.enumerate() if one.name.startswith("nnviz") and one not in others]
    assert not left


def failure(explorer):
    """Return what the page would show, after the first run."""
    with pytest.raises(NNVizError):
        explorer.refresh()
    return explorer.status["error"]


# ---- refused at the door


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "empty list"),
        ([X[0], X[0, :, :4]], "different shapes"),
        (["cat.png"], "element 0 is a str"),
        ([[1.0, 2.0]], "element 0 is a list"),
        ("cat.png", "inputs is a str"),
        (None, "inputs is a NoneType"),
        (iter([X]), "next\\(iter\\(loader\\)\\)"),
        ({}, "without any tensor"),
        ((), "without any tensor"),
        ({"x": "text"}, "without any tensor"),
        (torch.zeros(0, 3, 8, 8), "no samples"),
        (np.array(["a"]), "array of <U1"),
        (np.array([object()]), "array of object"),
        ((X * 100).byte(), "dtype torch.uint8"),
    ],
)
def test_inputs_that_are_no_batch_are_refused_with_a_way_out(explore, given, says):
    with pytest.raises(InputError, match=says) as caught:
        explore(Net(), given)
    assert caught.value.hint


def test_a_model_that_is_none_is_refused(explore):
    with pytest.raises(InputError, match=r"Make one first: Net\(\)"):
        explore(Net, X)
    with pytest.raises(InputError, match="Give the model first"):
        explore(X, Net())
    with pytest.raises(InputError, match=r"expected a torch\.nn\.Module"):
        explore(lambda x: x, X)


def test_an_unknown_keyword_names_the_nearest(explore):
    with pytest.raises(UnknownNameError, match="Did you mean 'class_names'"):
        explore(Net(), X, class_name=["a"])
    with pytest.raises(UnknownNameError, match="denormalize"):
        explore(Net(), X, zzz=1)


def test_an_unknown_layer_names_the_nearest(explore):
    with pytest.raises(UnknownNameError, match="Did you mean 'conv'"):
        explore(Net(), X, layer="conv1")
    with pytest.raises(UnknownNameError, match="no-such"):
        explore(Net(), X, layer="no-such/add")
    with pytest.raises(UnknownNameError, match="not a module of this model"):
        explore(Net(), X, layer=nn.ReLU())
    with pytest.raises(InputError, match="layer is int"):
        explore(Net(), X, layer=3)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (list("abcd"), "4 names, the model's output has 5 classes"),
        (list("abcdef"), "6 names, the model's output has 5 classes"),
        ({0: "a", 7: "b"}, "2 names, the model's output has 5 classes"),
        ({"a": 0}, "key 'a'"),
        ({-1: "a"}, "key -1"),
        ("abcde", "class_names is str"),
        (5, "class_names is int"),
        ([], "empty"),
    ],
)
def test_class_names_that_do_not_fit_are_refused(explore, names, says):
    with pytest.raises(InputError, match=says):
        explore(Net(), X, class_names=names)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ([1], None),
        ([1, 2, 3], "3 classes for 2 samples"),
        (5, "target has class 5, the model's output has 5"),
        (-1, "target -1"),
        (True, "target True"),
        ([0.5, 1.5], "target 0.5"),
        ("zebra", "'zebra' is not among"),
        (object(), "target is object"),
    ],
)
def test_targets_that_do_not_fit_are_refused(explore, target, says):
    if says is None:
        assert explore(Net(), X, target=target).trace
        return
    with pytest.raises(InputError, match=says):
        explore(Net(), X, target=target, class_names=list("abcde"))


@pytest.mark.parametrize(
    ("denormalize", "says"),
    [
        ("cifar", "unknown"),
        (((0.5,) * 4, (1.0,) * 3), "mean of 4 values for inputs of 3 channels"),
        (lambda x: x.no_such_method(), "does not work on inputs"),
        (lambda x: x[0, 0, 0], "does not work on inputs"),
        (3, "denormalize is int"),
    ],
)
def test_a_denormalize_that_does_not_work_shows_at_the_door(explore, denormalize, says):
    with pytest.raises(InputError, match=says):
        explore(Net(), X, denormalize=denormalize)


def test_a_device_that_is_not_there_is_refused(explore):
    for device in ("cuda:97", "no such device"):
        with pytest.raises(InputError, match="can not be used"):
            explore(Net(), X, device=device)


def test_a_front_end_that_is_not_built_says_how_to_build_it(monkeypatch, tmp_path):
    from nnviz_widget.explorer import widget

    widget.front_end.cache_clear()
    monkeypatch.setattr(widget, "STATIC", tmp_path)
    with pytest.raises(NNVizError, match="make build"):
        nnviz.explore(Net(), X)
    widget.front_end.cache_clear()


# ---- shown in the explorer


@pytest.mark.parametrize("given", [torch.zeros(2, 4, 8, 8), torch.zeros(2, 3), torch.zeros(1, 2, 3, 8, 8)])
def test_a_wrong_shape_shows_the_layer_the_line_and_the_shapes(explore, given):
    explorer = explore(Net(), given)
    error = failure(explorer)
    assert explorer.status["state"] == "error"
    assert error["node"] == "conv"
    assert error["source"].startswith("test_bad_input.py:")
    assert error["shapes"][0] == "×".join(map(str, (1, *given.shape[1:])))


def test_a_model_that_raises_still_shows_the_part_that_ran(explore):
    explorer = explore(Net("raise"), X)
    error = failure(explorer)
    assert "no luck today" in error["message"]
    nodes = {node["id"]: node["status"] for node in explorer.graph["nodes"]}
    assert nodes["conv"] == nodes["bn"] == "ok"
    assert "failed" in nodes.values()
    np.testing.assert_array_equal(explorer.trace.activation("conv").shape, (1, 4, 8, 8))


def test_a_failing_later_run_loses_nothing_that_was_on_the_screen(explore):
    model = Net()
    explorer = explore(model, X)
    shown, graph = dict(explorer.run) if explorer.trace else {}, explorer.graph
    model.output = "raise"
    with pytest.raises(NNVizError, match="no luck today"):
        explorer.refresh()
    assert explorer.status["state"] == "ready"
    assert (explorer.run, explorer.graph) == (shown, graph)
    model.output = None
    explorer.refresh()
    assert explorer.run["run"] == shown["run"] + 1


def test_labels_full_of_html_travel_as_text(explore):
    names = ["<img src=x onerror=alert(1)>", "a & b", "\ud800", "ü", "</script>"]
    explorer = explore(Net(), X, class_names=names)
    assert explorer.trace
    assert explorer.info["class_names"] == [*names[:2], "?", *names[3:]]


# ---- simply works


@pytest.mark.parametrize(
    ("given", "samples"),
    [
        (X, 2),
        (X[0], 1),
        (X.double(), 2),
        (X.half(), 2),
        (X.numpy(), 2),
        (X.numpy().astype(np.float64), 2),
        (X.numpy()[::-1], 2),
        (list(X), 2),
        ([x.numpy() for x in X], 2),
        ((X,), 2),
        ({"x": X}, 2),
        (X.requires_grad_(False).clone().requires_grad_(True), 2),
    ],
)
def test_batches_in_many_forms_simply_work(explore, given, samples):
    explorer = explore(Net(), given)
    assert explorer.info["samples"] == samples
    assert explorer.trace.activation("conv").shape == (1, 4, 8, 8)
    assert explorer.status["state"] == "ready"


def test_several_inputs_are_cut_together_and_options_pass_through(explore):
    class Two(nn.Module):
        def forward(self, a, b, *, scale):
            assert len(a) == len(b) == 1
            return (a + b) * scale

    explorer = explore(
        Two(),
        (
            torch.arange(6.0).reshape(3, 2),
            torch.ones(3, 2),
        ),
        layer=None,
    )
    with pytest.raises(NNVizError):
        explorer.refresh()
    inputs = {"a": torch.arange(6.0).reshape(3, 2), "b": torch.ones(3, 2), "scale": 10}
    explorer = explore(Two(), inputs)
    explorer.select(sample=2)
    assert explorer.trace.output.tolist() == [[50.0, 60.0]]


@pytest.mark.parametrize(
    ("output", "task"), [("dict", "classification"), ("tuple", "other"), (None, "classification")]
)
def test_outputs_of_every_form_are_shown(explore, output, task):
    explorer = explore(Net(output), X, target=1)
    assert explorer.trace
    predictions = explorer.run["predictions"]
    assert predictions["task"] == task
    if task == "classification":
        assert sum(entry["prob"] for entry in predictions["classes"]) == pytest.approx(1)
        explorer.select(target=2)
        assert explorer.saliency.shape == (3, 8, 8)
    else:
        assert predictions["shapes"] == ["output[0]: 1×5", "output[1]: 1×2"]


def test_a_model_without_parameters_or_in_train_mode_works_and_is_left_alone(explore):
    explorer = explore(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), X)
    assert explorer.trace.activation("1").shape == (1, 3, 4, 4)
    model = Net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    explorer = explore(model, X)
    explorer.select("conv", channel=0, pixel=(1, 1))
    assert explorer.saliency.shape == (3, 8, 8)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_nan_and_infinity_are_shown_and_never_sent_as_such(explore):
    import json

    explorer = explore(Net("nan"), X)
    assert explorer.trace.stats("/truediv" if "/truediv" in explorer.trace.graph else "/div").nan > 0
    json.dumps([explorer.run, explorer.graph, explorer.info], allow_nan=False)
    assert explorer.run["predictions"]["classes"][0]["prob"] is None


def test_a_gpu_model_takes_inputs_from_the_cpu(explore):
    model = Net().to("meta")  # stands for another device: what matters is that inputs follow the model
    from nnviz_widget.explorer.inputs import read_batch

    batch = read_batch(model, X)
    assert batch.main.device.type == "cpu"
    assert batch.sample(0)[0][0].device.type == "meta"
