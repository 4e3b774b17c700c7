"""Networks for the tests of the engine: small ones that are hard on a recorder, and real ones."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests import torchvision_stub  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Mlp(nn.Module):
    """Three linear layers, the middle one used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.shared = nn.Linear(8, 8)
        self.act = nn.ReLU()
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        x = self.act(self.shared(x))
        x = self.act(self.shared(x))
        return self.last(x)


class Residual(nn.Module):
    """A residual block as torchvision writes it: one ReLU, in place, used twice; `+=` after a batch norm."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return self.relu(out)


class ResidualNet(nn.Module):
    """A stem, three equal residual blocks, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(Residual(), Residual(), Residual())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.blocks(self.stem(x)))
        return self.head(self.drop(torch.flatten(x, 1)))


class ViewWrite(nn.Module):
    """Writes through a view, by index, and with `out=`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y[:, 1].mul_(2.0)
        y[:, 0] = 0.5
        z = torch.empty_like(y)
        torch.add(y, 1.0, out=z)
        return z.mean((2, 3))


class Branching(nn.Module):
    """Takes one of two ways, by the data."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 4)
        self.down = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.up(x)
        return self.down(x)


class ItemLoop(nn.Module):
    """Runs a layer as often as the data says."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(int(x[0, 0].item())):
            x = self.step(x)
        return x


class NumpyRoundTrip(nn.Module):
    """Leaves torch and comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(4, 4)
        self.after = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.before(x)
        away = np.tanh(hidden.detach().numpy())
        return self.after(torch.from_numpy(away))


class TinyLstm(nn.Module):
    """Embedding, LSTM, last state; packed where lengths are given."""

    def __init__(self, *, packed: bool = False) -> None:
        super().__init__()
        self.packed = packed
        self.embed = nn.Embedding(20, 6)
        self.lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 2)

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        x: Any = self.embed(tokens)
        if self.packed and lengths is not None:
            x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, (h, _) = self.lstm(x)
        return self.head(torch.cat([h[0], h[1]], 1))


class Unrolled(nn.Module):
    """A GRU cell, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[0], 4)
        for step in x.unbind(1):
            h = self.cell(step, h)
        return h


@dataclasses.dataclass
class Pair:
    logits: Tensor
    hidden: Tensor


class Point(NamedTuple):
    a: Tensor
    b: Tensor


class Outputs(nn.Module):
    """Returns its two results in the container that it was told."""

    def __init__(self, pack: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.pack = pack
        self.encode = nn.Linear(4, 3)
        self.decode = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Any:
        hidden = self.encode(x)
        return self.pack(self.decode(hidden), hidden)


class Inputs(nn.Module):
    """Takes a tensor, a dict and a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, x: Tensor, extra: dict[str, Tensor], *, scale: Tensor | None = None) -> Tensor:
        y = self.mix(x) + extra["bias"]
        extra["bias"] = y  # must not reach the caller's dict
        return y if scale is None else y * scale


class Raising(nn.Module):
    """Runs a layer, then meets shapes that do not fit."""

    def __init__(self) -> None:
        super().__init__()
        self.good = nn.Linear(4, 4)
        self.bad = nn.Sequential(nn.Linear(5, 2), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.good(x)
        return self.bad(x)


class Counting(nn.Module):
    """Counts its calls in a buffer, in every way people do; scales a parameter; changes its input."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("history", torch.zeros(4))
        self.weight = nn.Parameter(torch.ones(4))
        self.free = torch.zeros(2)  # a plain attribute

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.history[0] = x.mean()
        row = self.history[1:]
        row.add_(1.0)
        self.weight.data.mul_(0.5)
        self.free.copy_(x[0, :2])
        x.sub_(1.0)
        return x * self.weight + self.calls + self.history.sum() + self.free.sum()


class Noisy(nn.Module):
    """Draws random numbers in eval mode, in several ways."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.fc(x), 0.5)
        x = x + torch.randn_like(x) + torch.rand(4) + torch.randn(4)
        x = x * torch.bernoulli(torch.full_like(x, 0.5))
        return x + torch.empty_like(x).normal_() + torch.randint(0, 2, (4,)) + torch.randperm(4)


class Identities(nn.Module):
    """Modules and calls that give back what they are given, before and beside others."""

    def __init__(self) -> None:
        super().__init__()
        self.shortcut = nn.Identity()
        self.empty = nn.Sequential()
        self.drop = nn.Dropout()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        way = self.shortcut(x)
        y = self.drop(self.conv(x)).contiguous()
        return self.empty(y) + way


class Unused(nn.Module):
    """Computes something that nobody asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Linear(4, 4)
        self.aside = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.aside(x)
        return self.main(x)


class Catching(nn.Module):
    """Tries a part that raises, and goes on without it."""

    def __init__(self) -> None:
        super().__init__()
        self.bad = Raising()
        self.good = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        with contextlib.suppress(RuntimeError):
            return self.bad(x)
        return self.good(x)


class Doubling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 2


class Custom(nn.Module):
    """A custom autograd function between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(Doubling.apply(self.a(x)))


class TinyVit(nn.Module):
    """Patches, a class token, positions, two transformer layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.position = nn.Parameter(torch.randn(1, 17, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        return self.head(self.encoder(x)[:, 0])


class UNet(nn.Module):
    """Steps down and up again, with a skip at each size: a map of classes.

    Parameters
    ----------
    widths : sequence of int
        Channels of the input, of each size, and at the bottom.
    classes : int
        Channels of the map.
    norm : bool
        Whether a batch norm follows each convolution of a step.
    """

    def __init__(
        self, widths: Sequence[int] = (3, 4, 8, 16), classes: int = 2, *, norm: bool = False
    ) -> None:
        super().__init__()
        *sizes, bottom = widths
        self.down = nn.ModuleList(two_convolutions(a, b, norm=norm) for a, b in pairwise(sizes))
        self.pool = nn.MaxPool2d(2)
        self.bottom = two_convolutions(sizes[-1], bottom, norm=norm)
        back = list(reversed(widths[1:]))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in pairwise(back))
        self.join = nn.ModuleList(two_convolutions(2 * b, b, norm=norm) for b in back[1:])
        self.head = nn.Conv2d(back[-1], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for step in self.down:
            x = step(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        for up, join, skip in zip(self.up, self.join, reversed(skips), strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        return self.head(x)


def two_convolutions(inputs: int, outputs: int, *, norm: bool = False) -> nn.Sequential:
    """Return one step of a U-Net."""
    parts: list[nn.Module] = []
    for width in (inputs, outputs):
        parts.append(nn.Conv2d(width, outputs, 3, padding=1))
        parts += [nn.BatchNorm2d(outputs)] if norm else []
        parts.append(nn.ReLU(inplace=True))
    return nn.Sequential(*parts)


class LargeBias(nn.Module):
    """One operation, no part: a leaf of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def image(batch: int = 1, size: int = 32, seed: int = 0) -> Tensor:
    """A batch of random images."""
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def rows(batch: int = 2, width: int = 4, seed: int = 0) -> Tensor:
    """A batch of random vectors."""
    return torch.randn(batch, width, generator=torch.Generator().manual_seed(seed))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """Build a model with fixed weights, in eval mode, with batch norms that do something."""
    torch.manual_seed(0)
    model = make().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.bias, 0, 0.1)
    return model


def settled(model: nn.Module, x: Tensor) -> nn.Module:
    """Give the batch norms of a model the statistics of these samples, as training would.

    Of what goes into a deep network with random weights hardly anything comes out otherwise.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model(x)
    return model.eval()


@functools.cache
def vision(name: str, **options: Any) -> nn.Module:
    """One of torchvision's classifiers, with random weights; the same object each time, not to be changed."""
    from torchvision import models

    return seeded(lambda: getattr(models, name)(weights=None, **options))
