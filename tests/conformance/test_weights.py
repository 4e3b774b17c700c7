"""Weights are described as NumPy and torch describe them, and are changed on private copies alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import nnviz_widget as nnviz
from nnviz_widget.errors import InputError, UnknownLayerError


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.ConvTranspose2d(6, 4, 3, groups=2), nn.Flatten(),
        nn.Linear(4 * 8 * 8, 5),
    )  # fmt: skip


INPUT = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def as_found(model):
    """All that must stay: values and identities, flags, gradients, hooks."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [(name, id(t), t.detach().clone(), t._version, t.grad, t.requires_grad) for name, t in tensors] + [
        (name, module.training, dict(module._forward_hooks)) for name, module in model.named_modules()
    ]


def same(before, after):
    for one, other in zip(before, after, strict=True):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_kernels_norms_singular_values_and_distribution():
    model = network()
    with nnviz.Engine(model) as engine:
        conv, linear = engine.weights("0"), engine.weights(model[5])
    reference = model[0].weight.detach().numpy()
    matrix = reference.reshape(6, -1)
    np.testing.assert_array_equal(conv.kernels.numpy(), reference)
    np.testing.assert_allclose(conv.norms, np.linalg.norm(matrix, axis=1), rtol=1e-6)
    np.testing.assert_allclose(conv.singular_values, np.linalg.svd(matrix, compute_uv=False), rtol=1e-5)
    counts, edges = np.histogram(reference, bins=len(conv.counts))
    assert int(conv.counts.sum()) == reference.size == counts.sum()
    np.testing.assert_allclose([conv.edges[0], conv.edges[-1]], [edges[0], edges[-1]], rtol=1e-6)
    assert (conv.mean, conv.std) == pytest.approx((reference.mean(), reference.std()), abs=1e-6)
    assert conv.names == ["weight", "bias"]
    assert linear.kernels.shape == (5, 256)


def test_filters_of_a_transposed_convolution_are_what_makes_each_output_channel():
    model = network()
    with nnviz.Engine(model) as engine:
        kernels = engine.weights("3").kernels
    assert kernels.shape == (4, 3, 3, 3)
    # Output channel 3 is the second of the second group, which reads inputs 3 to 5.
    assert torch.equal(kernels[3], model[3].weight[3:6, 1])


def test_dead_and_duplicate_filters_are_found():
    model = network()
    with torch.no_grad():
        model[0].weight[2] = 0
        model[0].weight[4] = 1e-9
        model[0].weight[5] = 3 * model[0].weight[1] + 1e-4
    with nnviz.Engine(model) as engine:
        found = engine.weights("0")
    assert found.dead == [2, 4]
    assert [pair[:2] for pair in found.duplicates] == [(1, 5)]
    cosine = torch.cosine_similarity(*(model[0].weight.detach()[i].flatten() for i in (1, 5)), 0)
    assert found.duplicates[0][2] == pytest.approx(float(cosine), abs=1e-6)


def test_every_weight_of_a_recurrent_layer_by_its_name():
    model = nn.Sequential(nn.LSTM(4, 3))
    with nnviz.Engine(model) as engine:
        assert engine.weights("0").name == "weight_ih_l0"
        assert torch.equal(engine.weights("0", "bias_hh_l0").values, model[0].bias_hh_l0)
        with pytest.raises(InputError, match="weight_hh_l0"):
            engine.weights("0", "weight_hh_l9")


def test_a_changed_weight_acts_and_the_model_never_notices():
    model = network().train()
    before = as_found(model)
    reference = copy.deepcopy(model).eval()
    with torch.no_grad():
        plain = reference(INPUT)
        reference[0].weight[1, 0, 2, 2] = 5.0
        reference[5].bias[:] = 1.0
        changed = reference(INPUT)
        gradient_input = INPUT.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(reference(gradient_input)[0, 2], gradient_input)
    with nnviz.Engine(model) as engine:
        assert torch.equal(engine.trace(INPUT).output, plain)
        with engine.weights_changed("0", "weight", (1, 0, 2, 2), 5.0):
            with engine.weights_changed(model[5], "bias", slice(None), torch.ones(5)):
                trace = engine.trace(INPUT)
                torch.testing.assert_close(trace.output, changed)
                torch.testing.assert_close(engine.unit_saliency(trace, "output", 2)[0], gradient[0])
                assert float(engine.weights("0").values[1, 0, 2, 2]) == 5.0
                assert engine.arithmetic(trace, "0", (1, 3, 3)).error < 1e-5
                assert float(engine.arithmetic(trace, "0", (1, 3, 3)).arrays["kernel"][0, 2, 2]) == 5.0
            assert not torch.equal(engine.trace(INPUT).output, changed)
        assert torch.equal(engine.trace(INPUT).output, plain)
        assert torch.equal(engine.weights("0").values, model[0].weight)
    same(before, as_found(model))


def test_after_an_error_in_the_block_and_after_closing_nothing_is_left():
    model = network()
    before = as_found(model)
    with nnviz.Engine(model) as engine:
        with pytest.raises(ZeroDivisionError), engine.weights_changed("0", "weight", 0, 0.0):
            raise ZeroDivisionError
        assert torch.equal(engine.trace(INPUT).output, copy.deepcopy(model).eval()(INPUT))
        block = engine.weights_changed("0", "weight", 0, 0.0)
        block.__enter__()
        engine.trace(INPUT)
    block.__exit__(None, None, None)
    same(before, as_found(model))


def test_training_goes_on_under_a_changed_weight():
    model = network()
    with nnviz.Engine(model) as engine, engine.weights_changed("0", "weight", (0, 0, 0, 0), 2.0):
        engine.trace(INPUT)
        with torch.no_grad():
            model[0].weight.mul_(0.5)
        values = engine.weights("0").values
        assert float(values[0, 0, 0, 0]) == 2.0
        assert torch.equal(values[1:], model[0].weight[1:])


def test_a_tied_weight_changes_wherever_it_is_used():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 3, bias=False))
    model[2].weight = model[0].weight
    x = torch.randn(2, 3)
    with nnviz.Engine(model) as engine, engine.weights_changed("0", "weight", (0, 0), 4.0):
        weight = model[0].weight.detach().clone()
        weight[0, 0] = 4.0
        torch.testing.assert_close(engine.trace(x).output, (x @ weight.T).relu() @ weight.T)


def test_wrong_questions_say_what_is_wrong():
    model = network()
    with nnviz.Engine(model) as engine:
        with pytest.raises(InputError, match="no weights of its own"):
            engine.weights("2")
        with pytest.raises(UnknownLayerError, match="no module"):
            engine.weights("nothing")
        for layer, name, index, value in (
            ("0", "wieght", 0, 0.0),
            ("0", "weight", (9, 0, 0, 0), 0.0),
            ("0", "weight", 0, "much"),
            ("0", "weight", 0, torch.ones(7)),
        ):
            with pytest.raises(InputError), engine.weights_changed(layer, name, index, value):
                pass
        assert engine.epoch == engine.trace(INPUT).epoch
