"""All that a page shows of the network as it changed it, beside plain hooks on the same model."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from nnviz_widget.engine.engine import Engine
from tests.unit.test_explaining import Page
from tests.unit.test_intervening import CONV, ablation

LATER = "features.pool3"
KINDS = {
    "off": [ablation(on=False)],
    "ablate": [ablation()],
    "two": [ablation(), {"layer": "features.conv1", "kind": "scale", "factor": -2.0, "on": True}],
    "after": [{"layer": "features.relu3", "kind": "clamp", "high": 0.1, "on": True}],
}


@pytest.fixture
def page():
    page = Page()
    yield page
    page.exploration.close()


def zero(_, __, out):
    out = out.clone()
    out[:, 3] = 0
    return out


HOOKS = {
    "off": {},
    "ablate": {CONV: zero},
    "two": {CONV: zero, "features.conv1": lambda _, __, out: -2 * out},
    "after": {"features.relu3": lambda _, __, out: out.clamp(max=0.1)},
}


def hooked(model: nn.Module, inputs: torch.Tensor, name: str, layer: str):
    """What a layer gives, and the output, with plain hooks."""
    kept = []
    handles = [model.get_submodule(path).register_forward_hook(hook) for path, hook in HOOKS[name].items()]
    handles.append(
        model.get_submodule(layer).register_forward_hook(lambda _, __, out: kept.append(out.clone()))
    )
    output = model(inputs)
    for handle in handles:
        handle.remove()
    return kept[0], output


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("layer", [CONV, LATER, "classifier.norm"])
def test_maps_values_and_statistics_are_those_of_the_changed_network(page, name, layer):
    changed = KINDS[name]
    with torch.no_grad():
        expected, _ = hooked(page.model, page.inputs[:1], name, layer)
        plain, _ = hooked(page.model, page.inputs[:1], "off", layer)
    flat = expected[0].reshape(len(expected[0]), -1) if expected.dim() > 2 else expected.reshape(1, -1)
    replies = page.ask("maps", "m", node=layer, sample=0, max_side=64, changed=changed)
    low, high = page.array("m", "low"), page.array("m", "high")
    np.testing.assert_allclose(low, flat.amin(1), atol=1e-5)
    np.testing.assert_allclose(high, flat.amax(1), atol=1e-5)
    drawn = page.array("m", "tiles").reshape(len(flat), -1)
    told = low[:, None] + drawn / 255.0 * (high - low)[:, None]
    np.testing.assert_allclose(told, flat, atol=float((high - low).max()) / 255 + 1e-5)
    assert replies[-1]["last"]
    # A channel keeps its place on the sheet: the order is that of the network as it is.
    own = plain[0].reshape(len(flat), -1)
    np.testing.assert_allclose(page.array("m", "strength"), own.abs().mean(1), atol=1e-5)
    if expected.dim() == 4:
        page.ask("values", "v", node=layer, sample=0, channel=3, changed=changed)
        np.testing.assert_allclose(page.array("v", "values"), expected[0, 3], atol=1e-5)
    meta = page.ask("stats", "s", node=layer, sample=0, channel=None, changed=changed)[-1]["meta"]
    assert meta["mean"] == pytest.approx(float(expected.double().mean()), abs=1e-5)
    assert meta["zeros"] == pytest.approx(float((expected == 0).double().mean()))


def test_thumbnails_keep_their_channels_and_ranges(page):
    plain = page.ask("strips", "a", nodes=[CONV, LATER], sample=0, count=4, size=8)[-1]["meta"]["strips"]
    before = page.array("a", "tiles").copy()
    chosen = plain[0]["channels"][0]
    for factor in (0.0, 0.5):
        scale = {"layer": CONV, "kind": "scale", "channel": chosen, "factor": factor, "on": True}
        rid = f"b{factor}"
        meta = page.ask("strips", rid, nodes=[CONV, LATER], sample=0, count=4, size=8, changed=[scale])[-1]
        assert meta["meta"]["strips"] == plain
        after = page.array(rid, "tiles")
        assert np.array_equal(after[1:4], before[1:4]), "the other channels of the layer are as they were"
        with torch.no_grad():
            values = hooked(page.model, page.inputs[:1], "off", CONV)[0][0, chosen]
        sized = torch.nn.functional.interpolate(values[None, None], size=(8, 8), mode="area")[0, 0]
        low, high = sized.min(), sized.max()
        expected = ((factor * sized - low) / (high - low) * 255).clamp(0, 255)
        np.testing.assert_allclose(after[0], expected, atol=1)


@pytest.mark.parametrize("name", ["ablate", "two"])
def test_a_clicked_unit_has_the_gradient_of_the_changed_network(page, name):
    x = page.inputs[:1].clone().requires_grad_()
    unit = (5, 1, 1)
    value = hooked(page.model, x, name, LATER)[0][(0, *unit)]
    (expected,) = torch.autograd.grad(value, x)
    page.ask("saliency", "s", node=LATER, sample=0, unit=list(unit), changed=KINDS[name])
    shown = page.exploration.saliency
    torch.testing.assert_close(shown.gradient, expected[0], atol=1e-6, rtol=1e-5)
    assert shown.value == pytest.approx(float(value.detach()), rel=1e-5)
    page.ask("saliency", "t", node=LATER, sample=0, unit=list(unit))
    plain = hooked(page.model, x, "off", LATER)[0][(0, *unit)]
    (expected,) = torch.autograd.grad(plain, x)
    torch.testing.assert_close(page.exploration.saliency.gradient, expected[0], atol=1e-6, rtol=1e-5)


def test_one_run_answers_all_and_a_new_run_asks_again(page, monkeypatch):
    runs = []
    plain = page.exploration.engine.trace
    monkeypatch.setattr(
        page.exploration.engine, "trace", lambda *args, **kwargs: runs.append(1) or plain(*args, **kwargs)
    )
    for rid, op in (("a", "maps"), ("b", "values"), ("c", "stats"), ("d", "maps")):
        more = {"max_side": 64} if op == "maps" else {"channel": 1}
        page.ask(op, rid, node=CONV, sample=0, changed=KINDS["ablate"], **more)
    assert len(runs) == 1
    page.ask("run", "r", sample=1)
    page.ask("values", "e", node=CONV, sample=1, channel=0, changed=KINDS["two"])
    with torch.no_grad():
        expected = hooked(page.model, page.inputs[1:2], "two", CONV)[0]
    np.testing.assert_allclose(page.array("e", "values"), expected[0, 0], atol=1e-5)
    assert len(runs) == 3


def test_the_predictions_of_the_changed_network_come_as_those_of_a_run_do(page):
    meta = page.ask("intervene", "i", sample=0, interventions=KINDS["two"])[-1]["meta"]
    with torch.no_grad():
        shares = hooked(page.model, page.inputs[:1], "two", CONV)[1].softmax(1)[0]
    for entry in meta["predictions"]["classes"]:
        assert entry["prob"] == pytest.approx(float(shares[entry["index"]]), abs=1e-5)


def told(page, op, **p):
    """The meta of the last answer, and its arrays by name."""
    rid = f"{op}{len(page.replies)}"
    reply = page.ask(op, rid, **p)[-1]
    assert reply["t"] == "chunk", reply
    return reply["meta"], {one["name"]: page.array(rid, one["name"]) for one in reply["arrays"]}


def hooked_copy(model: nn.Module, name: str) -> nn.Module:
    copied = copy.deepcopy(model)
    for path, hook in HOOKS[name].items():
        copied.get_submodule(path).register_forward_hook(hook)
    return copied


def test_a_number_that_was_set_is_told_as_set_and_others_are_sums_of_what_came(page):
    changed = KINDS["two"]
    with torch.no_grad():
        set_here, _ = hooked(page.model, page.inputs[:1], "two", CONV)
        came, _ = hooked(page.model, page.inputs[:1], "two", "features.pool1")
        own = page.model.get_submodule(CONV)(came)
    for channel in (3, 2):
        unit = [channel, 2, 1]
        meta, arrays = told(page, "arithmetic", node=CONV, sample=0, unit=unit, changed=changed)
        assert meta["result"] == pytest.approx(float(own[(0, *unit)]), abs=1e-5)
        assert meta["actual"] == pytest.approx(float(set_here[(0, *unit)]), abs=1e-6)
        assert meta["changed_by"] == (
            [f'engine.intervene("{CONV}", "ablate", channel=3)'] if channel == 3 else []
        )
        assert (meta["error"] is None) == (channel == 3)
        assert float(arrays["partial"].sum()) + meta["rest"] == pytest.approx(
            float(own[(0, *unit)] - page.model.get_submodule(CONV).bias[channel].detach()), abs=1e-5
        )
    meta, _ = told(page, "arithmetic", node=LATER, sample=0, unit=[3, 1, 1], changed=changed)
    assert meta["changed_by"] == []
    assert meta["error"] < 1e-5
    plain, _ = told(page, "arithmetic", node=CONV, sample=0, unit=[3, 2, 1])
    assert plain["changed_by"] == []
    assert plain["error"] < 1e-5


def test_a_curve_stands_over_what_the_function_gets_then(page):
    with torch.no_grad():
        given, _ = hooked(page.model, page.inputs[:1], "two", "features.conv3")
    meta, _ = told(page, "curve", node="features.relu3", sample=0, changed=KINDS["two"])
    assert meta["saturated"] == pytest.approx(float((given <= 0).double().mean()), abs=1e-6)


@pytest.mark.parametrize("by", ["mean", "dead"])
def test_what_the_graph_is_coloured_by_is_of_the_changed_network(page, by):
    _, arrays = told(page, "measure", by=by, sample=0, changed=KINDS["two"])
    ids = page.exploration.current.graph.ids()
    values = dict(zip(ids, arrays["values"], strict=True))
    for layer in (CONV, LATER):
        with torch.no_grad():
            value, _ = hooked(page.model, page.inputs[:1], "two", layer)
        dead = float((value[0].flatten(1) == 0).all(1).double().mean())
        expected = float(value.double().mean()) if by == "mean" else dead
        assert values[layer] == pytest.approx(expected, abs=1e-5)


def test_attributions_and_their_table_are_of_the_changed_network(page):
    keys = {"saliency": "a", "integrated_gradients": "b"}
    for method, key in keys.items():
        meta, _ = told(page, "attribute", key=key, method=method, sample=0, target=3, changed=KINDS["two"])
        assert meta["call"].startswith(f'with engine.intervene("{CONV}", "ablate", channel=3), engine.')
    table, _ = told(page, "judge", keys=[*keys.values()], metrics=["deletion"], changed=KINDS["two"])
    with Engine(hooked_copy(page.model, "two")) as other:
        expected = {key: other.attribute(page.inputs[:1], method, target=3) for method, key in keys.items()}
        rows = other.evaluate(expected, ["deletion"]).rows
        for key, found in expected.items():
            _, shown = page.exploration.shelf.get(key, page.exploration.altered.key)
            torch.testing.assert_close(shown.values, found.values, atol=1e-5, rtol=1e-4)
    for row, wanted in zip(table["rows"], rows, strict=True):
        assert row["values"]["deletion"] == pytest.approx(wanted["deletion"], abs=1e-4)
    # They are never taken for those of the network as it is.
    assert page.ask("judge", "x", keys=["a"], metrics=["deletion"])[-1]["t"] == "error"


def test_the_page_of_the_output_is_of_the_changed_network(page):
    other = hooked_copy(page.model, "two")
    meta, arrays = told(page, "logits", sample=0, changed=KINDS["two"])
    with torch.no_grad():
        np.testing.assert_allclose(arrays["logits"], other(page.inputs[:1])[0], atol=1e-5)
    wish = {"target": 5, "method": "fgsm", "norm": "linf", "budget": 0.1, "steps": 5}
    meta, arrays = told(page, "counterfactual", sample=0, changed=KINDS["two"], **wish)
    scale = page.exploration.affine(page.inputs[:1]).scale.float()
    added = torch.from_numpy(arrays["difference"].copy())[..., :1].permute(2, 0, 1) / scale[:, None, None]
    with torch.no_grad():
        shares = other(page.inputs[:1] + added).softmax(1)[0]
    for entry in meta["classes"]:
        assert entry["prob"] == pytest.approx(float(shares[entry["index"]]), abs=1e-5)
    meta, arrays = told(page, "influence", sample=0, y=10, x=10, layer=LATER, changed=KINDS["two"])
    step = torch.zeros_like(page.inputs[:1])
    step[0, :, 10, 10] = 1
    with torch.no_grad():
        moved = other(page.inputs[:1] + meta["change"] * step) - other(page.inputs[:1])
    for entry in meta["classes"]:
        assert entry["by"] == pytest.approx(float(moved[0, entry["index"]]), abs=1e-4)


def test_changed_weights_and_interventions_hold_together(page):
    other = hooked_copy(page.model, "ablate")
    with torch.no_grad():
        other.get_submodule("features.conv1").weight[0, 0, 1, 1] = 3.0
    page.ask("change_weight", "w", node="features.conv1", name="weight", index=[0, 0, 1, 1], value=3.0)
    changed = KINDS["ablate"]
    _, arrays = told(page, "logits", sample=0, changed=changed)
    with torch.no_grad():
        np.testing.assert_allclose(arrays["logits"], other(page.inputs[:1])[0], atol=1e-5)
    told(page, "attribute", key="k", method="saliency", sample=0, target=3, changed=changed)
    _, shown = page.exploration.shelf.get("k", page.exploration.altered.key)
    x = page.inputs[:1].clone().requires_grad_()
    (expected,) = torch.autograd.grad(other(x)[0, 3], x)
    torch.testing.assert_close(shown.values, expected, atol=1e-6, rtol=1e-5)
    for node, unit in (("features.conv1", [0, 4, 4]), (LATER, [2, 1, 1])):
        meta, _ = told(page, "arithmetic", node=node, sample=0, unit=unit, changed=changed)
        assert meta["error"] < 1e-5
        kept = []
        handle = other.get_submodule(node).register_forward_hook(
            lambda _, __, out, kept=kept: kept.append(out)
        )
        with torch.no_grad():
            other(page.inputs[:1])
        handle.remove()
        assert meta["actual"] == pytest.approx(float(kept[0][(0, *unit)]), abs=1e-5)


@pytest.mark.parametrize("wrong", ["much", [1], [{}] * 65])
def test_what_is_no_list_of_interventions_is_refused(page, wrong):
    assert page.ask("values", "w", node=CONV, sample=0, channel=0, changed=wrong)[-1]["t"] == "error"
    assert page.ask("values", "x", node=CONV, sample=0, channel=0)[-1]["t"] == "chunk"
