"""Gradients of many rows are summed behind the first convolution, wherever that is right, and only there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.profiler import ProfilerActivity, profile

from nnviz_widget import Engine

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS, CHUNK = 7, 3


def head(channels: int) -> nn.Module:
    pooled = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(pooled, nn.Tanh(), nn.Linear(4 * channels, 3))


class Beside(nn.Module):
    """The input goes around its convolution, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), head(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x) + x)


class Branches(nn.Module):
    """Two convolutions take the input."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), head(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.one(x) * self.other(x))


class Decides(nn.Module):
    """It depends on the values by which of two convolutions a batch goes in."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(3, 5, 5, padding=2), nn.Conv2d(3, 5, 3, padding=1)
        self.head = head(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.wide(x) if float(x.sum()) > 0 else self.narrow(x))


class Kernel(nn.Module):
    """The explained tensor is what the convolution has as its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.picture, self.head = nn.Parameter(torch.randn(1, 3, 12, 12)), head(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.conv2d(self.picture, x).transpose(0, 1))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Sequential(nn.Conv2d(3, 5, 3, stride=2, padding=1, dilation=2), head(5)),
    "groups": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, bias=False), head(6)),
    "same": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding="same", dilation=2), head(4)),
    "reflected": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), head(4)),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1), head(4)),
    "parametrized": lambda: nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), head(4)),
    "beside": Beside,
    "branches": Branches,
    "decides": Decides,
    "kernel": Kernel,
}  # fmt: skip


def by_definition(model: nn.Module, x: Tensor) -> Tensor:
    """Integrated gradients from zero, step by step, in chunks as the engine makes them."""
    alphas = (torch.arange(STEPS, dtype=x.dtype) + 0.5) / STEPS
    rows = torch.cat([alpha * x for alpha in alphas])
    found = []
    for chunk in rows.split(CHUNK):
        leaf = chunk.clone().requires_grad_()
        found += torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)[0]
    return x * torch.stack(found).reshape(STEPS, *x.shape).mean(0)


@pytest.mark.parametrize("name", MODELS)
def test_integrated_gradients_are_their_definition_however_a_model_begins(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    with Engine(model) as engine:
        options = {"n_steps": STEPS, "internal_batch_size": CHUNK, "quadrature": "midpoint"}
        found = engine.attribute(x, "integrated_gradients", target=1, **options)
    assert not found.values.requires_grad
    torch.testing.assert_close(found.values, by_definition(model, x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("name", "times"), [("plain", 1), ("beside", 3)])
def test_the_first_convolution_is_gone_back_through_once(name: str, times: int) -> None:
    x = torch.randn(1, 3, 9, 9)
    with Engine(MODELS[name]().eval()) as engine:

        def profiled() -> dict[str, int]:
            with profile(activities=[ProfilerActivity.CPU]) as seen:
                options = {"n_steps": 9, "internal_batch_size": 3, "target": 1}
                engine.attribute(x, "integrated_gradients", **options)
            return {event.key: event.count for event in seen.key_averages()}

        counts = engine.jobs.call(lambda _: profiled())  # one thread is profiled: where it runs
    assert counts["aten::convolution_backward"] == times
