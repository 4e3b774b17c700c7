"""What the page is told of two runs side by side, and how Python sets something beside a sample."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import nnviz_widget as nnviz
from nnviz_widget.engine.jobs import CancelToken
from nnviz_widget.errors import InputError, NNVizError, StaleError, UnknownLayerError
from nnviz_widget.explorer.comparing import COMPARING
from nnviz_widget.explorer.replies import Question, Reply
from tests.unit.test_probing_operations import Net


@pytest.fixture
def x():
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def explorer(front_end, x):
    w = nnviz.explore(Net().eval(), x, class_names=["a", "b", "c", "d"])
    assert w.trace.complete
    yield w
    w.close()


def ask(w, op, **p):
    """Ask an operation as a page does; of a stream, its parts and the last."""
    question = Question({"sample": w._exploration.sample, **p}, (), CancelToken(), lambda *_: None)
    found = w._exploration.ask(lambda: COMPARING[op](w._exploration, question))
    if hasattr(found, "arrays"):
        return found

    def all_of() -> tuple[list[Reply | None], Reply]:
        last: list[Reply] = []

        def whole():
            last.append((yield from found))

        return list(whole()), last[0]

    return w._exploration.ask(all_of)


def compare(w, **p):
    parts, last = ask(w, "compare", **{"examples": "positions", **p})
    meta: dict = {}
    for part in (*filter(None, parts), last):
        meta |= part.meta
    return meta, last.arrays


def values(bytes_, low, high):
    low, high = low[:, None, None], high[:, None, None]
    return low + bytes_ / 255 * (high - low)


def test_another_sample_is_told_layer_by_layer_and_drawn_with_its_differences(explorer, x):
    meta, arrays = compare(explorer, other=4)
    names = [pair[0] for pair in meta["pairs"]]
    assert names[0] == "conv"
    assert meta["pairs"][0] == ["conv", "conv", "path", False]
    exact = explorer._exploration.engine.compare(x[:1], x[4:5])
    assert arrays["cka"][0] == pytest.approx(exact.pair("conv").cka)
    assert arrays["difference"][0] == pytest.approx(exact.pair("conv").difference)
    place = names.index("head")
    assert np.isnan(arrays["cka"][place])
    assert "one sample" in meta["notes"][arrays["note"][place]]
    model = explorer._exploration.engine.model
    with torch.no_grad():
        shares = model(x[[0, 4]]).softmax(1)
        maps = model.conv(x[[0, 4]])
    for entry in meta["classes"]:
        both = shares[:, entry["index"]].tolist()
        assert (entry["a"], entry["b"]) == pytest.approx(tuple(both), abs=1e-6)
    drawn = ask(explorer, "compare_maps", other=4, node="conv")
    for name, expected in (("a", maps[0]), ("b", maps[1]), ("d", maps[1] - maps[0])):
        shown = values(*(drawn.arrays[key] for key in (name, f"low_{name}", f"high_{name}")))
        np.testing.assert_allclose(shown, expected, atol=0.01)
    read = ask(explorer, "compare_values", other=4, node="conv", channel=2)
    np.testing.assert_allclose(read.arrays["a"], maps[0, 2], atol=1e-6)
    np.testing.assert_allclose(read.arrays["b"], maps[1, 2], atol=1e-6)
    assert explorer.comparison.pair("conv").cka == exact.pair("conv").cka


def test_maps_of_another_comparison_are_not_drawn(explorer):
    compare(explorer, other=4)
    with pytest.raises(StaleError, match="no longer kept"):
        ask(explorer, "compare_maps", other=3, node="conv")
    with pytest.raises(UnknownLayerError, match="no partner"):
        ask(explorer, "compare_maps", other=4, node="input")
    explorer.select(sample=1)
    with pytest.raises(StaleError, match="no longer kept"):
        ask(explorer, "compare_maps", other=4, node="conv")
    with pytest.raises(NNVizError, match="not on the screen"):
        ask(explorer, "compare", sample=0, other=4, examples="positions")


def test_another_model_is_compared_over_positions_or_samples(explorer, x):
    other = copy.deepcopy(explorer._exploration.engine.model)
    with torch.no_grad():
        other.conv.weight[:2] = 0
    explorer.compare_with(model=other, name="pruned")
    assert explorer.info["compare"] == {"kind": "model", "name": "pruned", "version": 1}
    meta, arrays = compare(explorer)
    assert (meta["what"], meta["cka"], meta["samples"]) == ("models", "linear", 1)
    meta, over = compare(explorer, examples="samples")
    assert (meta["cka"], meta["samples"]) == ("unbiased", 6)
    exact = nnviz.compare(explorer._exploration.engine.model, other, x, cka="unbiased")
    assert over["cka"][0] == pytest.approx(exact.pair("conv").cka)
    assert not np.allclose(over["cka"][0], arrays["cka"][0])
    drawn = ask(explorer, "compare_maps", node="conv")
    assert drawn.arrays["strength"][2:].max() == 0
    assert drawn.arrays["strength"][:2].min() > 0


def test_a_narrower_model_is_drawn_with_the_channel_that_goes_with_each(explorer):
    model = explorer._exploration.engine.model
    thin = Net()
    thin.conv, thin.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 7)
    keep = [4, 0, 2]
    with torch.no_grad():
        thin.conv.weight.copy_(model.conv.weight[keep])
        thin.conv.bias.copy_(model.conv.bias[keep])
    explorer.compare_with(model=thin)
    meta, _ = compare(explorer)
    assert meta["classes"] == []  # of other classes there is nothing to say
    drawn = ask(explorer, "compare_maps", node="conv")
    assert [int(drawn.arrays["partner"][channel]) for channel in keep] == [0, 1, 2]
    assert drawn.arrays["fit"][keep].tolist() == pytest.approx([1, 1, 1])
    assert drawn.arrays["strength"][keep].max() == pytest.approx(0, abs=1e-6)
    assert drawn.meta["channels_b"] == 3


def test_the_changed_network_stands_beside_itself_as_it_is(explorer, x):
    changed = [{"layer": "conv", "kind": "scale", "factor": 3, "on": True}]
    meta, arrays = compare(explorer, other="plain", changed=changed)
    assert meta["what"] == "models"
    assert arrays["cka"][0] == pytest.approx(1)
    assert arrays["difference"][0] == pytest.approx(2 / 3)
    drawn = ask(explorer, "compare_values", other="plain", node="conv", channel=1, changed=changed)
    np.testing.assert_allclose(drawn.arrays["a"], 3 * drawn.arrays["b"], rtol=1e-6)
    # Of two inputs both are run through the changed network.
    compare(explorer, other=4, changed=changed)
    both = ask(explorer, "compare_values", other=4, node="conv", channel=1, changed=changed)
    np.testing.assert_array_equal(both.arrays["a"], drawn.arrays["a"])
    model = explorer._exploration.engine.model
    with torch.no_grad():
        np.testing.assert_allclose(both.arrays["b"], 3 * model.conv(x[4:5])[0, 1], atol=1e-5)


def test_a_checkpoint_and_other_inputs_are_set_beside_it_from_python(explorer, x):
    state = {name: 2 * value for name, value in explorer._exploration.engine.model.state_dict().items()}
    explorer.compare_with(state_dict=state)
    assert explorer.comparison.pair("conv").difference == pytest.approx(1)
    explorer.compare_with(inputs=-x)
    assert explorer.info["compare"]["kind"] == "inputs"
    explorer.select(sample=2)
    found = explorer.comparison
    torch.testing.assert_close(found.b.inputs[0], -x[2:3])
    explorer.compare_with(inputs=x[5])
    torch.testing.assert_close(explorer.comparison.b.inputs[0], x[5:6])
    explorer.compare_with(sample=3)
    torch.testing.assert_close(explorer.comparison.b.inputs[0], x[3:4])
    assert explorer.info["compare"]["version"] == 4


def test_what_does_not_fit_changes_nothing(explorer, x):
    with pytest.raises(InputError, match="nothing to compare"):
        _ = explorer.comparison
    explorer.compare_with(sample=3)
    before = explorer.info["compare"]
    with pytest.raises(InputError, match="none given"):
        explorer.compare_with()
    with pytest.raises(InputError, match="2 given"):
        explorer.compare_with(sample=1, inputs=x)
    with pytest.raises(InputError, match="not one of the 6"):
        explorer.compare_with(sample=6)
    with pytest.raises(InputError, match="4 other inputs for 6"):
        explorer.compare_with(inputs=x[:4])
    with pytest.raises(InputError, match=r"\(3, 9, 9\)"):
        explorer.compare_with(inputs=torch.zeros(6, 3, 9, 9))
    with pytest.raises(InputError, match="lacks"):
        explorer.compare_with(state_dict={"conv.bias": torch.zeros(5)})
    assert explorer.info["compare"] == before
    assert explorer.comparison.pair("conv").measured


def test_tokens_and_vectors_are_one_plane(front_end):
    torch.manual_seed(0)
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 5)).eval()
    w = nnviz.explore(model, torch.randn(3, 7, 8))
    try:
        compare(w, other=1)
        drawn = ask(w, "compare_maps", other=1, node="0.linear2")
        assert (drawn.meta["kind"], drawn.arrays["d"].shape) == ("tokens", (1, 7, 8))
    finally:
        w.close()
