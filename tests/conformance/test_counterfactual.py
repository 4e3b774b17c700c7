"""Changed inputs against captum.robust, against formulas, and against what they promise."""

from __future__ import annotations

import pytest
import torch
from captum.robust import FGSM, PGD
from torch import nn
from torch.nn.functional import cross_entropy

import nnviz_widget as nnviz
from nnviz_widget.errors import InputError


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 36, 4)
    ).eval().double()  # fmt: skip


@pytest.fixture
def x():
    return torch.rand(3, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def losses(outputs, target):
    return cross_entropy(outputs, target, reduction="none")


@pytest.mark.parametrize("targeted", [True, False])
def test_fgsm_is_captums(model, x, targeted):
    target = torch.tensor([1, 2, 3]) if targeted else None
    present = model(x).argmax(1).detach()
    reference = FGSM(model, losses, lower_bound=0.0, upper_bound=1.0).perturb(
        x.clone(), epsilon=0.05, target=target if targeted else present, targeted=targeted
    )
    with nnviz.Engine(model) as engine:
        found = engine.counterfactual(x, target, method="fgsm", epsilon=0.05, lower=0.0, upper=1.0)
    moved = (reference - x).abs() > 0  # captum leaves gradients below 1e-6 alone
    assert moved.double().mean() > 0.95
    torch.testing.assert_close(found.values[moved], reference.detach()[moved], rtol=0, atol=1e-12)
    assert float(found.linf.max()) <= 0.05 + 1e-12
    assert found.steps == 1


@pytest.mark.parametrize("targeted", [True, False])
def test_pgd_is_captums(model, x, targeted):
    target = torch.tensor([1, 2, 3]) if targeted else None
    present = model(x).argmax(1).detach()
    # Captum leaves gradients below 1e-6 alone, so the loss is made large enough for them not to matter.
    reference = PGD(model, lambda o, t: 1e6 * losses(o, t), lower_bound=0.0, upper_bound=1.0).perturb(
        x.clone(),
        radius=0.04,
        step_size=0.01,
        step_num=7,
        target=target if targeted else present,
        targeted=targeted,
    )
    with nnviz.Engine(model) as engine:
        found = engine.counterfactual(x, target, epsilon=0.04, step_size=0.01, steps=7, lower=0.0, upper=1.0)
    torch.testing.assert_close(found.values, reference.detach(), rtol=0, atol=1e-10)


def test_l2_steps_go_along_the_gradient_and_stay_in_the_ball(model, x):
    target = torch.tensor([1, 2, 3])
    values = x.clone()
    for _ in range(5):
        leaf = values.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(losses(model(leaf), target).sum(), leaf)
        values = values - 0.2 * gradient / gradient.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        values = x + torch.renorm(values - x, 2, 0, 0.5)
    with nnviz.Engine(model) as engine:
        found = engine.counterfactual(x, target, norm="l2", epsilon=0.5, step_size=0.2, steps=5)
    torch.testing.assert_close(found.values, values, rtol=1e-6, atol=1e-6)
    assert float(found.l2.max()) <= 0.5 + 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_smallest_step_changes_the_answer_and_a_smaller_one_does_not(model, x, norm):
    with nnviz.Engine(model) as engine:
        found = engine.counterfactual(x, method="gradient", norm=norm, epsilon=20.0)
    assert found.success.any()
    present = model(x).argmax(1)
    assert torch.equal(model(found.values).argmax(1), found.predicted)
    for row in found.success.nonzero().flatten():
        assert found.predicted[row] != present[row]
        nearly = x[row] + found.perturbation[row] * (1 - 2**-8 * 20 / float(getattr(found, norm)[row]))
        assert model(nearly[None]).argmax(1) == present[row]


def test_a_budget_for_each_channel_is_kept_in_each(model, x):
    with nnviz.Engine(model) as engine:
        found = engine.counterfactual(x, 2, epsilon=torch.tensor([0.01, 0.1]), steps=10)
    largest = found.perturbation.abs().amax((0, 2, 3))
    torch.testing.assert_close(largest, torch.tensor([0.01, 0.1], dtype=torch.float64))


def test_steps_are_streamed_and_the_loss_falls(model, x):
    target = torch.tensor([1, 2, 3])
    with nnviz.Engine(model) as engine:
        parts = list(engine.stream_counterfactual(x, target, steps=8, epsilon=0.1))
    assert [part.step for part in parts] == list(range(1, 9))
    falls = [float(losses(part.scores, target).sum()) for part in parts]
    assert falls[-1] < falls[0] < float(losses(model(x), target).sum())


def test_the_model_is_left_as_it_was(model, x):
    model.train()
    with nnviz.Engine(model) as engine:
        stream = engine.stream_counterfactual(x, 1, steps=50)
        next(stream)
        stream.close()
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(part.training and not part._forward_hooks for part in model.modules())


@pytest.mark.parametrize(
    "options",
    [
        {"method": "magic"},
        {"norm": "l1"},
        {"epsilon": 0.0},
        {"steps": 0},
        {"target": 9},
        {"target": [1, 2]},
        {"epsilon": torch.ones(3)},
    ],
)
def test_what_does_not_fit_is_refused(model, x, options):
    with nnviz.Engine(model) as engine, pytest.raises(InputError):
        engine.counterfactual(x, **options)
