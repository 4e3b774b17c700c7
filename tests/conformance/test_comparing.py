"""Two runs side by side: CKA against plain formulas, exact differences, alignment, errors, harmlessness."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

import nnviz_widget as nnviz
from nnviz_widget.engine.comparison.alignment import Layer, align
from nnviz_widget.engine.comparison.similarity import linear_cka, partners
from nnviz_widget.engine.engine import Engine
from nnviz_widget.engine.jobs import Cancelled
from nnviz_widget.errors import InputError, ModelError, UnknownLayerError, UnknownNameError
from tests.conformance.test_harmless import Careless, everything


def rows(n: int, p: int, seed: int = 0) -> Tensor:
    return torch.randn(n, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_cka(x: Tensor, y: Tensor) -> float:
    """Kornblith et al. 2019, by its definition: HSIC of centered Gram matrices."""
    n = len(x)
    center = torch.eye(n, dtype=torch.float64) - 1 / n
    k, m = x.double() @ x.double().T, y.double() @ y.double().T

    def hsic(k: Tensor, m: Tensor) -> Tensor:
        return torch.trace(k @ center @ m @ center) / (n - 1) ** 2

    return float(hsic(k, m) / (hsic(k, k) * hsic(m, m)).sqrt())


def unbiased_cka(x: Tensor, y: Tensor) -> float:
    """Song et al. 2012, equation 5, with every matrix written out."""
    n = len(x)
    one = torch.ones(n, 1, dtype=torch.float64)
    k, m = (z.double() @ z.double().T for z in (x, y))

    def hsic(k: Tensor, m: Tensor) -> Tensor:
        k, m = k - torch.diag(k.diagonal()), m - torch.diag(m.diagonal())
        first = torch.trace(k @ m)
        second = (one.T @ k @ one) * (one.T @ m @ one) / ((n - 1) * (n - 2))
        third = 2 / (n - 2) * (one.T @ k @ m @ one)
        return (first + second - third).squeeze() / (n * (n - 3))

    return float(hsic(k, m) / (hsic(k, k) * hsic(m, m)).sqrt())


@pytest.mark.parametrize(("n", "p", "q"), [(60, 5, 7), (6, 50, 40), (9, 9, 30), (12, 1, 3)])
@pytest.mark.parametrize("unbiased", [False, True])
def test_cka_is_that_of_the_plain_formula_whichever_product_is_cheaper(n, p, q, unbiased):
    x = rows(n, p) + 3
    y = rows(n, q, 1) + x[:, :1] @ rows(1, q, 2) - 5
    found = linear_cka(x.float(), y.float(), unbiased=unbiased)
    reference = (unbiased_cka if unbiased else plain_cka)(x.float(), y.float())
    assert found == pytest.approx(reference, rel=1e-9, abs=1e-12)


def test_cka_of_chunks_is_that_of_the_whole(monkeypatch):
    x, y = rows(40, 6), rows(40, 30, 1)
    wide = x.T @ rows(40, 900, 2), y[:6] @ rows(30, 900, 3)
    whole = linear_cka(x, y), linear_cka(*wide)
    monkeypatch.setattr("nnviz_widget.engine.comparison.similarity._CHUNK", 64)
    assert (linear_cka(x, y), linear_cka(*wide)) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize(("n", "p"), [(40, 6), (5, 30)])
def test_cka_does_not_see_rotations_scales_or_shifts_but_sees_stretching(n, p):
    x, y = rows(n, p), rows(n, p, 1)
    turn = torch.linalg.qr(rows(p, p, 2))[0]
    plain = linear_cka(x, y)
    assert linear_cka(x @ turn, y) == pytest.approx(plain, rel=1e-9)
    assert linear_cka(-1e3 * x, y) == pytest.approx(plain, rel=1e-9)
    assert linear_cka(x + rows(1, p, 3), y) == pytest.approx(plain, rel=1e-9)
    assert linear_cka(y, x) == pytest.approx(plain, rel=1e-9)
    assert linear_cka(x, x @ turn * 7 + 1) == pytest.approx(1, abs=1e-9)
    stretch = torch.diag(torch.logspace(-3, 3, p, dtype=torch.float64))
    assert linear_cka(x, x @ stretch) < 0.95


def test_unbiased_cka_of_unrelated_features_is_about_nothing_where_the_plain_one_is_not():
    x, y = rows(24, 2000), rows(24, 2000, 1)
    assert linear_cka(x, y) > 0.9
    assert abs(linear_cka(x, y, unbiased=True)) < 0.1


def test_cka_is_none_where_there_is_none():
    x = rows(8, 3)
    assert linear_cka(x, torch.full((8, 2), 0.1)) is None
    assert linear_cka(x[:1], x[:1]) is None
    assert linear_cka(x, x.where(x > -1, torch.nan)) is None
    assert linear_cka(x[:3], x[:3], unbiased=True) is None


def test_partners_find_a_shuffled_and_mixed_copy():
    x = rows(50, 6)
    order = torch.tensor([3, 0, 5, 1])
    index, value = partners(x, torch.cat([x[:, order] * -2 + 1, torch.ones(50, 1)], 1))
    assert [int(index[i]) for i in order] == [0, 1, 2, 3]
    assert value[order].tolist() == pytest.approx([-1] * 4)
    assert int(partners(torch.ones(50, 1), x)[0][0]) == -1


# ---- alignment ---------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, width: int, names: tuple[str, str]) -> None:
        super().__init__()
        self.first, self.second = names
        self.add_module(self.first, nn.Conv2d(width, width, 3, padding=1))
        self.add_module(self.second, nn.BatchNorm2d(width))

    def forward(self, x):
        return x + torch.relu(self._modules[self.second](self._modules[self.first](x)))


class Net(nn.Module):
    """A stem, blocks, a head; with names and a width of one's own."""

    def __init__(self, blocks=3, *, stem="stem", trunk="blocks", names=("conv", "norm"), width=6, classes=4):
        super().__init__()
        self.order = (stem, trunk)
        self.add_module(stem, nn.Conv2d(3, width, 3, padding=1))
        self.add_module(trunk, nn.Sequential(*(Block(width, names) for _ in range(blocks))))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        for part in self.order:
            x = self._modules[part](x)
        return self.head(x.mean((2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def x():
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def test_layers_with_other_names_are_aligned_by_order_and_the_rest_by_path(model, x):
    other = Net(stem="entry", trunk="body", names=("c", "n"))
    other.load_state_dict(dict(zip(other.state_dict(), model.state_dict().values(), strict=True)))
    found = nnviz.compare(model, other, x)
    by = {pair.a: (pair.b, pair.by) for pair in found.layers}
    assert by["stem"] == ("entry", "order")
    assert by["blocks.1.conv"] == ("body.1.c", "order")
    assert by["blocks.2/add"] == ("body.2/add", "order")
    assert by["head"] == ("head", "path")
    assert found.only_a == found.only_b == []
    # The same weights under other names: every pair is the right one.
    assert all(pair.difference == 0 for pair in found.pairs)
    assert {pair.a: pair.b for pair in found.pairs if pair.group}["blocks.0"] == "body.0"


def test_blocks_that_were_cut_out_have_no_partner(model, x):
    found = nnviz.compare(model, Net(2), x)
    assert all(pair.a == pair.b and pair.by == "path" for pair in found.layers)
    assert len(found.only_a) == 4
    assert all(name.startswith("blocks.2") for name in found.only_a)
    renamed = nnviz.compare(Net(2, trunk="body"), model, x)
    assert [pair.by for pair in renamed.layers if pair.a.startswith("body")] == ["order"] * 8
    assert len(renamed.only_b) == 4


def test_what_does_something_else_is_never_paired_by_order_and_anchors_hold_the_rest_in_place():
    first = [Layer("a", "conv", (1, 4)), Layer("x", "norm", (1, 4)), Layer("b", "conv", (1, 4))]
    second = [Layer("p", "conv", (1, 8)), Layer("q", "relu", (1, 4)), Layer("b", "conv", (1, 4))]
    assert align(first, second) == [("a", "p", "order"), ("b", "b", "path")]
    # The one that agrees in shape and name, though another one comes first.
    first = [Layer("m.conv", "conv", (1, 4))]
    second = [Layer("n.down", "conv", (1, 8)), Layer("n.conv", "conv", (1, 4))]
    assert align(first, second) == [("m.conv", "n.conv", "order")]
    # A path that means another operation is no path.
    assert align([Layer("0", "conv", ())], [Layer("0", "relu", ())]) == []


def test_the_best_alignment_is_found_among_all(model):
    def best(a, b):
        """By trying everything."""
        if not a or not b:
            return 0
        score = 0.0
        if a[0].does == b[0].does:
            score = 4 + 2 * (a[0].shape == b[0].shape) + 2 + best(a[1:], b[1:])
        return max(score, best(a[1:], b), best(a, b[1:]))

    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        sides = [
            [
                Layer(
                    f"{side}{i}.same",
                    "ab"[int(torch.randint(2, (1,), generator=generator))],
                    (int(torch.randint(2, (1,), generator=generator)),),
                )
                for i in range(5)
            ]
            for side in "ab"
        ]
        known = [{layer.id: layer for layer in side} for side in sides]
        found = align(*sides)
        total = sum(4 + 2 * (known[0][m.a].shape == known[1][m.b].shape) + 2 for m in found)
        assert total == best(*sides)
        assert [m.b for m in found] == sorted(m.b for m in found)


# ---- two inputs, two models --------------------------------------------------------------------------------


def given(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    kept = []
    handle = model.get_submodule(layer).register_forward_hook(lambda *run: kept.append(run[2].clone()))
    with torch.no_grad():
        model(x)
    handle.remove()
    return kept[0]


@pytest.mark.parametrize("samples", [5, 1])
def test_the_numbers_are_those_of_hooks_on_the_model(model, x, samples):
    a = x[:samples]
    b = a + 0.3 * torch.randn(a.shape, generator=torch.Generator().manual_seed(1))
    with Engine(model) as engine:
        found = engine.compare(a, b)
        for layer in ("stem", "blocks.1.norm", "head"):
            pair, ours, theirs = found.pair(layer), given(model, layer, a), given(model, layer, b)
            exact = (ours.double() - theirs.double()).norm() / ours.double().norm()
            assert pair.difference == pytest.approx(float(exact), rel=1e-12)
            assert pair.correlation == pytest.approx(
                float(torch.corrcoef(torch.stack([ours.double().flatten(), theirs.double().flatten()]))[0, 1])
            )
            if samples > 1:
                assert (pair.examples, pair.count) == ("samples", samples)
                assert pair.cka == pytest.approx(plain_cka(ours.flatten(1), theirs.flatten(1)), rel=1e-9)
            elif ours.dim() == 4:
                assert (pair.examples, pair.count) == ("positions", 64)
                flat = [one.movedim(1, -1).reshape(-1, one.shape[1]) for one in (ours, theirs)]
                assert pair.cka == pytest.approx(plain_cka(*flat), rel=1e-9)
            else:
                assert pair.cka is None
                assert "one sample" in pair.note
        assert torch.equal(found.map("stem", 2), (given(model, "stem", b) - given(model, "stem", a))[0, 2])
        probabilities = found.probabilities
        with torch.no_grad():
            torch.testing.assert_close(probabilities[1], model(b).double().softmax(1))
        assert torch.equal(found.changed, probabilities[0].argmax(1) != probabilities[1].argmax(1))
        over = engine.compare(a, b, examples="positions", layers=["stem"]).pairs
        assert [(pair.a, pair.examples, pair.count) for pair in over] == [("stem", "positions", 64 * samples)]
        assert "stem" in str(found)


def test_features_of_tokens_are_the_features(x):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    tokens = rows(7, 8).float()[None], rows(7, 8, 1).float()[None]
    with Engine(layer) as engine:
        pair = engine.compare(*tokens).pair("linear2")
    assert (pair.examples, pair.count) == ("positions", 7)


def test_a_checkpoint_is_another_model_with_its_weights(model, x):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.blocks[1].conv.weight.mul_(0.5)
    with Engine(model) as engine:
        found = engine.compare_models(other, x)
        stored = engine.compare_models(other.state_dict(), x)
        prefixed = engine.compare_models({f"module.{k}": v for k, v in other.state_dict().items()}, x)
    for one in (stored, prefixed):
        assert [(p.a, p.cka, p.difference) for p in one.pairs] == [
            (p.a, p.cka, p.difference) for p in found.pairs
        ]
    assert found.pair("blocks.0").difference == 0
    assert found.pair("blocks.0").cka == pytest.approx(1, abs=1e-12)
    assert found.pair("blocks.1.conv").difference > 0
    assert found.pair("blocks.1").cka < 1
    assert found.what == "models"


def test_a_narrower_copy_has_cka_and_partners_but_no_difference(model, x):
    torch.manual_seed(0)
    thin = Net(width=4)
    keep = torch.tensor([5, 0, 3, 2])
    thin.stem.weight.data, thin.stem.bias.data = model.stem.weight.data[keep], model.stem.bias.data[keep]
    found = nnviz.compare(model, thin, x)
    pair = found.pair("stem")
    assert pair.cka == pytest.approx(
        plain_cka(given(model, "stem", x).flatten(1), given(thin, "stem", x).flatten(1)), rel=1e-9
    )
    assert pair.difference is pair.correlation is None
    assert "shapes" in pair.note
    index, value = found.partners("stem")
    assert [int(index[channel]) for channel in keep] == [0, 1, 2, 3]
    assert value[keep].tolist() == pytest.approx([1] * 4)
    with pytest.raises(InputError, match="partners"):
        found.map("stem", 0)


def test_a_small_memory_budget_gives_the_same_numbers(model, x):
    with Engine(model) as engine:
        whole = engine.compare(x, x + 0.1)
        engine.memory_budget = 3000
        few = engine.compare(x, x + 0.1)
        assert few.a.nbytes <= 3000
        assert [(p.a, p.cka, p.difference) for p in few.pairs] == [
            (p.a, p.cka, p.difference) for p in whole.pairs
        ]


def test_a_stream_fills_up_and_is_cancelled_in_the_middle(model, x):
    with Engine(model) as engine:
        with engine.stream_compare(x, x + 0.1) as stream:
            parts = list(stream)
        assert [part.progress for part in parts] == sorted(part.progress for part in parts)
        assert not any(pair.measured for pair in parts[0].pairs)
        assert all(pair.measured for pair in parts[-1].pairs)
        assert parts[-1].progress == 1
        with engine.stream_compare(x, x + 0.1) as stream:
            next(stream)
        with pytest.raises((StopIteration, Cancelled)):
            next(stream)


def test_weights_that_move_in_the_middle_are_never_mixed(model, x):
    with Engine(model) as engine:
        with engine.stream_compare(x, x + 0.1) as stream:
            for _ in range(4):
                next(stream)
            with torch.no_grad():
                model.blocks[0].conv.weight.add_(0.3)
            *_, last = stream
        fresh = engine.compare(x, x + 0.1)
    assert [(p.a, p.cka, p.difference) for p in last.pairs] == [
        (p.a, p.cka, p.difference) for p in fresh.pairs
    ]


def test_memory_that_nobody_filled_is_not_compared(x):
    class Writes(nn.Module):
        def forward(self, x):
            out = torch.empty_like(x)
            out[:] = 2 * x
            return out + 1

    with Engine(Writes()) as engine:
        found = engine.compare(x, x)
    assert all(pair.difference == 0 for pair in found.pairs)
    assert not any("empty" in pair.a for pair in found.pairs)


def test_interventions_in_force_change_both_inputs_but_not_the_other_model(model, x):
    with Engine(model) as engine, engine.intervene("stem", "ablate"):
        both = engine.compare(x, x + 1)
        one = engine.compare_models(model, x)
    assert both.pair("stem").difference == 0
    assert both.a.activation("stem").abs().max() == 0
    assert one.a.activation("stem").abs().max() == 0
    assert one.b.activation("stem").abs().max() > 0


# ---- bad input ---------------------------------------------------------------------------------------------


def test_what_cannot_be_compared_is_told(model, x):
    with Engine(model) as engine:
        with pytest.raises(InputError, match=r"\(5, 3, 8, 8\), the others \(4, 3, 8, 8\)"):
            engine.compare(x, x[:4])
        with pytest.raises(UnknownNameError, match="positions"):
            engine.compare(x, x, examples="position")
        with pytest.raises(UnknownNameError, match="unbiased"):
            engine.compare(x, x, cka="debiased")
        with pytest.raises(UnknownLayerError, match="stem"):
            engine.compare(x, x, layers=["stemm"])
        with pytest.raises(InputError, match=r"has 4 classes, the other 7.*layers="):
            engine.compare_models(Net(classes=7), x)
        assert engine.compare_models(Net(classes=7), x, layers=["stem", "blocks.0"]).pair("stem").measured
        with pytest.raises(ModelError, match="compared with raised"):
            engine.compare_models(nn.Linear(3, 4), x)
        with pytest.raises(InputError, match="Expected a torch"):
            engine.compare_models("resnet", x)


def test_a_checkpoint_that_does_not_fit_says_what_is_wrong_with_it(model, x):
    state = model.state_dict()
    with Engine(model) as engine:
        less = OrderedDict((name, value) for name, value in state.items() if not name.startswith("head"))
        with pytest.raises(InputError, match=r"lacks 'head.weight', 'head.bias'"):
            engine.compare_models(less, x)
        with pytest.raises(InputError, match="'tail', which the model does not"):
            engine.compare_models({**state, "tail": torch.ones(1)}, x)
        with pytest.raises(InputError, match=r"'head.weight' is \(7, 6\), not \(4, 6\)"):
            engine.compare_models({**state, "head.weight": torch.ones(7, 6)}, x)
        with pytest.raises(InputError, match=r"checkpoint\['state_dict'\]"):
            engine.compare_models({"epoch": 3, "state_dict": state}, x)
        with pytest.raises(InputError, match="'epoch' is no weight"):
            engine.compare_models({**state, "epoch": 3}, x)
        with pytest.raises(InputError, match="empty"):
            engine.compare_models({}, x)


# ---- harmless ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [True, False])
def test_both_models_the_checkpoint_and_the_inputs_are_left_bitwise_as_they_were(train):
    torch.manual_seed(0)
    first, second = Careless().train(train), Careless().train(train)
    state = {name: value.clone() for name, value in second.state_dict().items()}
    stored = {name: (value._version, value.tolist()) for name, value in state.items()}
    x = torch.randn(2, 3, 6, 6) * 4
    kept = x.clone()
    before = everything(first), everything(second)
    with Engine(first) as engine:
        engine.compare(x, x + 1)
        engine.compare_models(second, x)
        engine.compare_models(state, x)
        with engine.stream_compare_models(second, x) as stream:
            next(stream)
        with pytest.raises(InputError):
            engine.compare_models({}, x)
    assert (everything(first), everything(second)) == before
    assert {name: (value._version, value.tolist()) for name, value in state.items()} == stored
    assert torch.equal(x, kept)
    assert x._version == 0


def test_an_exception_in_either_model_leaves_both_as_they_were():
    torch.manual_seed(0)
    first, second = Careless(), Careless()
    x = torch.randn(2, 3, 6, 6)

    def fail() -> None:
        raise ZeroDivisionError("halfway")

    for broken in (first, second):
        broken.interrupt = fail
        before = everything(first), everything(second)
        with Engine(first) as engine, pytest.raises(ModelError, match="halfway"):
            engine.compare_models(second, x)
        assert (everything(first), everything(second)) == before
        broken.interrupt = None
