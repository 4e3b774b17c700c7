"""Seven networks that attributions are compared on, and how two of them are compared."""

from __future__ import annotations

import copy
import functools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nnviz_widget import demo
from tests.models import TinyVit, image, seeded, vision


class Case(NamedTuple):
    """A network, its inputs, a layer with positions (or else just a layer), and a target."""

    model: nn.Module
    inputs: tuple[Tensor, ...]
    layer: str
    target: int = 1

    def double(self) -> Case:
        """The same in float64."""
        return self._replace(
            model=copy.deepcopy(self.model).double(), inputs=tuple(x.double() for x in self.inputs)
        )


class Lstm(nn.Module):
    """A sequence of vectors; the mean over its steps decides."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.act = nn.Tanh()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.lstm(x)[0]).mean(1))


class TwoInputs(nn.Module):
    """Two tables of features, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(5, 6), nn.Linear(3, 6)
        self.act, self.squash = nn.ReLU(), nn.Tanh()
        self.join = nn.Linear(12, 8)
        self.last = nn.Linear(8, 4)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        joined = self.act(torch.cat([self.left(a), self.right(b)], 1))
        return self.last(self.squash(self.join(joined)))


def _vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 16), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(16, 5),
    )  # fmt: skip


def _rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@functools.cache
def case(name: str) -> Case:
    """One of `NAMES`; the same object each time, not to be changed."""
    if name == "digits":
        digits = demo.digits()
        return Case(digits.model, (digits.inputs[:2],), "features.relu3")
    if name == "shapes":
        shapes = demo.shapes()
        return Case(shapes.model, (shapes.inputs[:2],), "stage2.1")
    if name == "resnet18":
        return Case(vision("resnet18"), (image(2, 64),), "layer3")
    if name == "vgg":
        return Case(seeded(_vgg), (image(2, 16),), "5")
    if name == "lstm":
        return Case(seeded(Lstm), (_rows(2, 5, 4),), "act")
    if name == "vit":
        return Case(seeded(TinyVit), (image(2, 16),), "encoder.layers.0")
    return Case(seeded(TwoInputs), (_rows(2, 5), _rows(2, 3, seed=1)), "squash")


NAMES = ("digits", "shapes", "resnet18", "vgg", "lstm", "vit", "two_inputs")
#: Those whose `Case.layer` gives ``[N, C, h, w]``.
CONVOLUTIONAL = NAMES[:4]


def apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest expected value."""
    assert found.shape == expected.shape
    expected = expected.detach()
    largest = expected.abs().max()
    assert largest > 0, "nothing is compared with nothing"
    return float((found.to(expected.dtype) - expected).abs().max() / largest)
