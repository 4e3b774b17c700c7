"""What one pixel does to every layer, against the Jacobian of autograd and differences in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

import nnviz_widget as nnviz
from nnviz_widget.errors import InputError


class Branches(nn.Module):
    """In-place and functional operations, a skip, a concatenation, and a value computed twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(8 * 9, 5)

    def forward(self, x):
        y = self.relu(self.norm(self.conv(x)))
        y = torch.cat((y, torch.tanh(y) * y), 1)
        return self.head(self.pool(y).flatten(1))


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)

    def forward(self, x):
        return self.block(self.embed(x)).mean(1)


class Rounds(torch.autograd.Function):
    """An operation of somebody's own: a gradient, and no forward mode."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(Rounds.apply(self.linear(x)))


class Once(torch.autograd.Function):
    """A gradient that can be taken once only."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


class Hard(Own):
    def forward(self, x):
        return self.out(Once.apply(self.linear(x)))


def seeded(kind):
    torch.manual_seed(3)
    return kind().eval().double()


def of_layer(model, path):
    """Return what a layer gives as a function of the input, by a plain hook."""

    def run(x):
        kept = []
        module = model.get_submodule(path)
        handle = module.register_forward_hook(lambda _, __, output: kept.append(output.clone()))
        model(x)
        handle.remove()
        return kept[0]

    return run


@pytest.mark.parametrize(
    ("kind", "shape", "pixel", "how"),
    [
        (Branches, (2, 2, 6, 6), (1, 2, 3), "forward mode"),
        (Attends, (1, 5, 6), (2, 4), "forward mode"),
        (Own, (2, 5), 3, "backward twice"),
        (Hard, (2, 5), 3, "finite differences"),
    ],
)
def test_derivatives_are_a_column_of_the_jacobian(kind, shape, pixel, how):
    model = seeded(kind)
    x = torch.randn(shape, dtype=torch.float64)
    index = (pixel,) if isinstance(pixel, int) else pixel
    tolerance = 1e-6 if how == "finite differences" else 1e-10
    with nnviz.Engine(model) as engine:
        trace = engine.trace(x)
        found = engine.influence(trace, pixel if kind is not Attends else (2, 4))
        assert found.how == how
        assert bool(found.why) == (how != "forward mode")
        checked = 0
        for path, module in model.named_modules():
            if path not in found.derivatives or not path or isinstance(module, nn.Dropout):
                continue
            if path.startswith("block.self_attn"):
                continue  # called without its forward
            whole = jacobian(of_layer(model, path), x) if kind is not Hard else None
            if whole is None:
                step = 1e-6
                high, low = x.clone(), x.clone()
                high[(0, *index)] += step
                low[(0, *index)] -= step
                with torch.no_grad():
                    expected = (of_layer(model, path)(high) - of_layer(model, path)(low)) / (2 * step)
            else:
                expected = whole[(..., 0, *index)]
            torch.testing.assert_close(found.derivatives[path], expected, rtol=tolerance, atol=tolerance)
            checked += 1
        assert checked >= 2


def test_operations_between_modules_have_derivatives_too():
    model = seeded(Branches)
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64)
    with nnviz.Engine(model) as engine:
        trace = engine.trace(x)
        found = engine.influence(trace, (1, 4, 4), change=1e-6)
        operations = [node.id for node in trace.graph.nodes if node.kind == "op"]
        assert {trace.graph[name].op for name in operations} >= {"cat", "tanh", "mul"}
        for name in operations:
            difference = found.measured[name] / 1e-6
            torch.testing.assert_close(found.derivatives[name], difference, rtol=1e-4, atol=1e-5)


def test_a_pixel_of_an_image_is_all_its_channels_together():
    model = seeded(Branches)
    x = torch.randn(1, 2, 6, 6, dtype=torch.float64)
    with nnviz.Engine(model) as engine:
        trace = engine.trace(x)
        both = engine.influence(trace, (2, 3), ["head"]).derivatives["head"]
        each = [engine.influence(trace, (c, 2, 3), ["head"]).derivatives["head"] for c in range(2)]
        torch.testing.assert_close(both, each[0] + each[1], rtol=1e-12, atol=1e-12)


def test_the_measured_effect_is_that_of_the_changed_input():
    model = seeded(Branches)
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    changed = x.clone()
    changed[1, :, 2, 3] += 1.5
    with nnviz.Engine(model) as engine, torch.no_grad():
        trace = engine.trace(x)
        found = engine.influence(trace, (2, 3), ["head"], sample=1, change=1.5)
        torch.testing.assert_close(found.measured["head"], model(changed) - model(x), rtol=1e-9, atol=1e-12)
        assert not found.measured["head"][0].any()


def test_the_model_is_left_as_it_was():
    model = seeded(Branches).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    with nnviz.Engine(model) as engine:
        engine.influence(engine.trace(x), (2, 3), change=1.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(part.training and not part._forward_hooks for part in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("pixel", [(6, 0), (0, 0, 0, 0), (-1, 2), 1.5, "x", (2, 6, 6)])
def test_what_is_no_place_is_refused(pixel):
    with nnviz.Engine(seeded(Branches)) as engine:
        trace = engine.trace(torch.randn(1, 2, 6, 6, dtype=torch.float64))
        with pytest.raises(InputError, match="pixel"):
            engine.influence(trace, pixel)
