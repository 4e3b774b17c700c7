"""Random networks of every operation that boxes are led through, for the property tests of replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

    Draw = Callable[[st.SearchStrategy[Any]], Any]

__all__ = ["RandomNetwork"]

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_MAX_POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVG_POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
_ADAPTIVE = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
_LINEAR_MODE = {1: "linear", 2: "bilinear", 3: "trilinear"}


class Step(nn.Module):
    """A step without weights, written as a function."""

    def __init__(self, name: str, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.name = name
        self.function = function

    def extra_repr(self) -> str:
        return self.name

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class ChannelsLast(nn.Module):
    """A layer norm and a linear layer over channels, as ConvNeXt has them."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(channels), nn.Linear(channels, channels)
        self.scale = nn.Parameter(torch.rand(channels, *[1] * dims))

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(F.gelu(self.norm(x.movedim(1, -1) if x.dim() != 4 else x.permute(0, 2, 3, 1))))
        y = y.movedim(-1, 1) if x.dim() != 4 else y.permute(0, 3, 1, 2)
        return x + self.scale * y


class Gate(nn.Module):
    """Squeeze and excitation: every place is weighed by a mean over all of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.sigmoid(self.fc(x.flatten(2).mean(2)))
        return x * weights.reshape(*weights.shape, *[1] * (x.dim() - 2))


class RandomNetwork(nn.Module):
    """Steps one after the other, some of which take an earlier value as well.

    Parameters
    ----------
    draw : callable
        Of hypothesis.
    dims : int
        Axes of places.
    """

    def __init__(self, draw: Draw, dims: int) -> None:
        super().__init__()
        self.dims = dims
        side = draw(st.integers(*{1: (24, 48), 2: (14, 24), 3: (7, 10)}[dims]))
        self.input_shape = (draw(st.integers(1, 4)), *[side] * dims)
        if dims == 2:
            self.input_shape = (*self.input_shape[:2], draw(st.integers(14, 24)))
        self.steps = nn.ModuleList()
        self.joins: list[tuple[str, int]] = []
        shapes = [self.input_shape]
        for _ in range(draw(st.integers(2, 7))):
            step, join = self._drawn(draw, shapes)
            probe = torch.zeros(1, *shapes[-1])
            try:
                with torch.no_grad():
                    made = step.eval()(probe)
            except RuntimeError:  # a window that does not fit
                continue
            if join[0] == "cat":
                made = torch.cat([made, torch.zeros(1, *shapes[join[1]])], 1)
            if min(made.shape[2:]) < 3 or made.numel() > 40_000:
                continue
            self.steps.append(step)
            self.joins.append(join)
            shapes.append(tuple(made.shape[1:]))
        self.head = nn.Linear(shapes[-1][0], 5)
        self.flat = draw(st.booleans()) and torch.Size(shapes[-1]).numel() < 4000
        if self.flat:
            self.head = nn.Linear(torch.Size(shapes[-1]).numel(), 5)
        self._settle(draw(st.integers(0, 1 << 16)))

    def _settle(self, seed: int) -> None:
        """Give every weight and statistic a value that is not its default."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, tensor in [*self.named_parameters(), *self.named_buffers()]:
                if tensor.is_floating_point():
                    tensor.copy_(
                        torch.randn(tensor.shape, generator=generator) * (0.5 if tensor.dim() > 1 else 0.2)
                    )
                    if name.endswith("running_var"):
                        tensor.abs_().add_(0.5)
        self.eval()

    def _drawn(self, draw: Draw, shapes: list[tuple[int, ...]]) -> tuple[nn.Module, tuple[str, int]]:
        shape, dims = shapes[-1], self.dims
        channels = shape[0]
        kind = draw(st.sampled_from(_KINDS))
        if kind == "join":
            same = [i for i, other in enumerate(shapes[:-1]) if other == shape]
            alike = [i for i, other in enumerate(shapes[:-1]) if other[1:] == shape[1:]]
            step = _with_relu(_conv(draw, channels, channels, dims, keep=True))
            if same and draw(st.booleans()):
                return step, ("add", draw(st.sampled_from(same)))
            return (step, ("cat", draw(st.sampled_from(alike)))) if alike else (step, ("", 0))
        return _step(draw, kind, shape, dims), ("", 0)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for step, (join, at) in zip(self.steps, self.joins, strict=True):
            y = step(values[-1])
            if join == "add":
                y += values[at]
            elif join == "cat":
                y = torch.cat([y, values[at]], 1)
            values.append(y)
        y = values[-1]
        return self.head(y.flatten(1) if self.flat else y.mean(tuple(range(2, y.dim()))))


_KINDS = (
    "conv", "conv", "conv", "norm", "relu", "join", "join", "max", "avg", "up", "transposed", "pad", "slice",
    "flip", "split", "last", "gate", "act", "adaptive", "reflect", "shuffle", "softmax", "roll", "scale",
)  # fmt: skip


def _conv(draw: Draw, inputs: int, outputs: int, dims: int, *, keep: bool = False) -> nn.Module:
    groups = draw(st.sampled_from([n for n in (1, 2, inputs) if inputs % n == 0 and outputs % n == 0]))
    kernel = draw(st.sampled_from([1, 3] if keep else [1, 2, 3, 4]))
    dilation = 1 if kernel == 1 else draw(st.integers(1, 2))
    if keep or draw(st.integers(0, 4)) == 0:
        return _CONV[dims](inputs, outputs, kernel, padding="same", dilation=dilation, groups=groups)
    stride, padding = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    mode = draw(st.sampled_from(["zeros", "zeros", "zeros", "reflect"]))
    return _CONV[dims](
        inputs, outputs, kernel, stride, padding, dilation, groups, draw(st.booleans()), padding_mode=mode
    )


def _with_relu(step: nn.Module) -> nn.Module:
    return nn.Sequential(step, nn.ReLU(inplace=True))


def _step(draw: Draw, kind: str, shape: tuple[int, ...], dims: int) -> nn.Module:
    channels = shape[0]
    last = tuple(range(2, 2 + dims))
    if kind == "conv":
        outputs = draw(st.integers(1, 3)) * channels if channels < 4 else draw(st.sampled_from([channels, 6]))
        step = _conv(draw, channels, outputs, dims)
        return _with_relu(step) if draw(st.booleans()) else step
    if kind == "norm":
        return _NORM[dims](channels)
    if kind in {"relu", "act"}:
        return draw(
            st.sampled_from([nn.ReLU(), nn.ReLU6(), nn.GELU(), nn.SiLU(), nn.PReLU(channels), nn.ELU()])
        )
    if kind == "max":
        kernel = draw(st.integers(2, 3))
        ceil, padding = draw(st.booleans()), draw(st.integers(0, 1))
        return _MAX_POOL[dims](kernel, draw(st.integers(1, 3)), padding, ceil_mode=ceil)
    if kind == "avg":
        kernel = draw(st.integers(2, 3))
        padding, ceil, every = draw(st.integers(0, 1)), draw(st.booleans()), draw(st.booleans())
        return _AVG_POOL[dims](kernel, draw(st.integers(1, 3)), padding, ceil, every)
    if kind == "up":
        mode = draw(st.sampled_from(["nearest", _LINEAR_MODE[dims]]))
        align = None if mode == "nearest" else draw(st.booleans())
        factor = draw(st.sampled_from([2, 1.5, 3]))
        return nn.Upsample(scale_factor=factor, mode=mode, align_corners=align)
    if kind == "transposed":
        kernel, stride = draw(st.integers(2, 4)), draw(st.integers(1, 3))
        extra = draw(st.integers(0, stride - 1))
        return _TRANSPOSED[dims](
            channels, draw(st.integers(1, 4)), kernel, stride, draw(st.integers(0, 1)), extra, 1, True
        )
    if kind == "pad":
        pads = [draw(st.integers(0, 2)) for _ in range(2 * dims)]
        return Step(f"pad {pads}", lambda x: F.pad(x, pads, value=0.5))
    if kind == "reflect":
        return Step(
            "reflect", lambda x: F.pad(x, [1] * 2 * dims, mode="reflect" if dims < 3 else "replicate")
        )
    if kind == "slice":
        begin, step = draw(st.integers(0, 2)), draw(st.integers(1, 2))
        return Step(f"slice {begin}::{step}", lambda x: x[..., begin::step])
    if kind == "flip":
        return Step("flip", lambda x: x.flip(-1))
    if kind == "split" and channels > 1:
        return Step("split", lambda x: torch.cat([*reversed(x.chunk(2, 1))], 1))
    if kind == "last":
        return ChannelsLast(channels, dims)
    if kind == "gate":
        return Gate(channels)
    if kind == "adaptive":
        return _ADAPTIVE[dims](draw(st.integers(4, 7)))
    if kind == "shuffle" and dims == 2 and channels % 4 == 0:
        return nn.PixelShuffle(2)
    if kind == "softmax":
        return Step("softmax", lambda x: x.softmax(1) * 3)
    if kind == "roll":
        return Step("roll", lambda x: x.roll(1, last[-1]))
    return Step("scale", lambda x: (2 * x - 0.3).clamp(-2).mul_(1.5))
