"""Maps, thumbnails, statistics and gradients of the network as a page changed it, beside plain hooks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

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


@pytest.mark.parametrize("wrong", ["much", [1], [{}] * 65])
def test_what_is_no_list_of_interventions_is_refused(page, wrong):
    assert page.ask("values", "w", node=CONV, sample=0, channel=0, changed=wrong)[-1]["t"] == "error"
    assert page.ask("values", "x", node=CONV, sample=0, channel=0)[-1]["t"] == "chunk"
