"""Relevance equals zennit's where its canonizers reach, goes further, and is refused where it were wrong."""

from __future__ import annotations

import copy
import importlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnviz_widget.engine.attribution import relevance
from nnviz_widget.engine.engine import Engine
from nnviz_widget.errors import InputError, NNVizError
from tests.conformance.test_harmless import everything
from tests.explained import apart, case
from tests.models import Mlp, TinyLstm, TinyVit, image, rows, seeded, vision

zennit = pytest.importorskip("zennit")

COMPOSITES = ["epsilon_plus", "epsilon_gamma_box", "epsilon_alpha2_beta1", "epsilon_plus_flat",
              "epsilon_alpha2_beta1_flat"]  # fmt: skip


def by_zennit(model: nn.Module, x: Tensor, target: int, name: str, canonizer: Any) -> Tensor:
    """The relevance of the score itself, by zennit alone, on a copy: it changes weights."""
    box = {"low": torch.full_like(x, -3.0), "high": torch.full_like(x, 3.0)} if "box" in name else {}
    composite = zennit.composites.COMPOSITES[name](canonizers=[canonizer], **box)
    x = x.clone().requires_grad_()
    with composite.context(copy.deepcopy(model)) as changed:
        score = changed(x)[:, target]
        return torch.autograd.grad(score, x, score.detach())[0]


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", ["digits", "resnet18", "vgg"])
def test_relevance_equals_zennits(name: str, composite: str) -> None:
    c = case(name)
    x = c.inputs[0][:, :, :32, :32]
    canonizers = zennit.canonizers.SequentialMergeBatchNorm(), zennit.torchvision.ResNetCanonizer()
    expected = by_zennit(c.model, x, c.target, composite, canonizers[name == "resnet18"])
    box = {"low": -3.0, "high": 3.0} if "box" in composite else {}
    with Engine(c.model) as engine:
        found = engine.attribute(x, "lrp", target=c.target, composite=composite, **box)
        score = engine.trace(x).output[:, c.target]
    assert apart(found.values, expected) <= 1e-5
    # The score is that of the network with its batch norms merged, which rounds a little differently.
    assert torch.allclose(found.delta, found.values.flatten(1).sum(1) - score, atol=1e-3)
    assert not found.cautions


class Block(nn.Module):
    """A shortcut, and an activation that is a function: what no canonizer knows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y += x
        return F.relu(y, inplace=True)


class Net(nn.Module):
    """Without biases, so that no relevance is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 4, 3, bias=False), nn.Sequential(Block(), Block())
        self.last = nn.Linear(4, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.blocks(F.gelu(self.stem(x))).mean((2, 3)))


def by_the_epsilon_rule(model: Net, x: Tensor, target: int, tiny: float = 1e-6) -> Tensor:
    """Each layer's relevance from that of the next: in proportion to what each input adds to each sum."""

    def share(relevance: Tensor, given: list[Tensor], run: Any) -> tuple[Tensor, ...]:
        leaves = [value.detach().requires_grad_() for value in given]
        result = run(*leaves)
        ratio = relevance / (result + torch.where(result < 0, -tiny, tiny)).detach()
        slopes = torch.autograd.grad(result, leaves, ratio)
        return tuple(slope * value for slope, value in zip(slopes, given, strict=True))

    stem = model.stem(x)
    values = [F.gelu(stem)]
    for block in model.blocks:
        values.append(F.relu(block.conv(values[-1]) + values[-1]))
    pooled = values[-1].mean((2, 3))
    score = F.one_hot(torch.tensor([target] * len(x)), 3) * model.last(pooled)
    (relevance,) = share(score, [pooled], model.last)
    (relevance,) = share(relevance, [values[-1]], lambda v: v.mean((2, 3)))
    for block, before in reversed(list(zip(model.blocks, values, strict=False))):
        through, past = share(relevance, [block.conv(before), before], torch.add)
        (back,) = share(through, [before], block.conv)
        relevance = back + past
    return share(relevance, [x], model.stem)[0]


def test_sums_between_modules_are_shared_out_in_proportion() -> None:
    model, x = seeded(Net).double(), image(2, 10).double()
    # A composite of the epsilon rule alone.
    original = zennit.composites.COMPOSITES["epsilon_plus"]
    epsilon = lambda canonizers: zennit.composites.LayerMapComposite(  # noqa: E731  one place only
        [(zennit.types.Activation, zennit.rules.Pass()), (zennit.types.Linear, zennit.rules.Epsilon())],
        canonizers=canonizers,
    )
    zennit.composites.COMPOSITES["epsilon_plus"] = epsilon
    try:
        with Engine(model) as engine:
            found = engine.attribute(x, "lrp", target=1)
    finally:
        zennit.composites.COMPOSITES["epsilon_plus"] = original
    assert apart(found.values, by_the_epsilon_rule(model, x, 1).detach()) <= 1e-8
    score = model(x)[:, 1]
    assert (found.delta.abs() <= 1e-3 * score.abs()).all()


def test_a_network_of_the_users_own_keeps_its_relevance_at_every_shortcut() -> None:
    c = case("shapes")
    (x,) = c.inputs
    alone = by_zennit(c.model, x, 1, "epsilon_plus", zennit.canonizers.SequentialMergeBatchNorm())
    with Engine(c.model) as engine:
        found = engine.attribute(x, "lrp", target=1)
        score = engine.trace(x).output[:, 1]
    kept = found.values.flatten(1).sum(1)
    # Zennit alone gives both ways of a shortcut all of it.
    assert ((kept - score).abs() < (alone.flatten(1).sum(1) - score).abs()).all()


@pytest.mark.parametrize(
    ("model", "x", "text"),
    [
        (lambda: seeded(TinyVit), image(1, 16), "multi_head_attention at"),
        (lambda: seeded(TinyLstm), torch.arange(6)[None], "lstm at 'lstm'"),
        (lambda: vision("convnext_tiny"), image(1, 64), "layer_norm at"),
        (lambda: seeded(Mlp), rows(2, 6), "'shared', which is used more than once"),
        (lambda: seeded(Gated), rows(2, 4), "for mul at"),
    ],
)
def test_what_has_no_rule_is_refused(model: Any, x: Tensor, text: str) -> None:
    with Engine(model()) as engine, pytest.raises(InputError, match=text):
        engine.attribute(x, "lrp", target=0)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.value(x) * torch.sigmoid(self.gate(x))


def test_batch_norms_that_nothing_precedes_are_told() -> None:
    model = seeded(
        lambda: nn.Sequential(
            nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)
        )
    )
    with Engine(model) as engine:
        found = engine.attribute(image(1, 6), "lrp", target=0)
    assert any("batch norm" in text for text in found.cautions)


def test_a_composite_that_is_not_there_raises() -> None:
    c = case("vgg")
    with Engine(c.model) as engine, pytest.raises(InputError, match="epsilon_plus"):
        engine.attribute(c.inputs, "lrp", composite="epsilon_pluss")


def test_without_zennit_it_is_listed_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        if name == "zennit":
            raise ModuleNotFoundError("No module named 'zennit'")
        return importlib.import_module(name)

    monkeypatch.setattr(relevance, "import_module", absent)
    c = case("vgg")
    with Engine(c.model) as engine:
        assert engine.methods()["lrp"].needs == "nnviz_widget[lrp]"
        with pytest.raises(NNVizError, match=r'pip install "nnviz_widget\[lrp\]"'):
            engine.attribute(c.inputs, "lrp")


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_nothing_of_the_model_is_touched(mode: str) -> None:
    # Batch norms are merged into weights, and weights replaced: none of them may be the user's.
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(64, 2),
    ).train(mode == "train")
    model[4].weight.grad = torch.ones(2, 64)
    x = image(2, 6)
    before = everything(model)
    with Engine(model) as engine:
        for composite in COMPOSITES:
            engine.attribute(x, "lrp", target=1, composite=composite)
            assert everything(model) == before
        assert not any(part._forward_hooks or part._backward_hooks for part in engine._twin.module.modules())
    assert everything(model) == before
