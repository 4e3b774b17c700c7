"""The architectures of the two bundled networks: plain ``torch.nn``, named so that the graph reads well.

Here live the layers and nothing else; weights, samples and training are elsewhere, so each network can also
be made fresh and trained in a lesson.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DigitsNet", "ResidualBlock", "ShapesNet"]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut around them (He et al., 2016, https://arxiv.org/abs/1512.03385).

    Parameters
    ----------
    inputs, outputs : int
        Number of channels before and after.
    stride : int, default 1
        Step of the first convolution; 2 halves height and width.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, ``[N, outputs, H / stride, W / stride]``."""
        y = self.relu1(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        out: Tensor = self.relu2(y + self.shortcut(x))
        return out


class ShapesNet(nn.Module):
    """A small residual network for 64x64 colour pictures.

    The first stage keeps the full 64x64, so that its feature maps can be read as pictures.

    Parameters
    ----------
    classes : int, default 10
        Number of outputs.
    width : int, default 16
        Channels of the first stage; each later stage has twice as many as the one before.
    """

    def __init__(self, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, width, 5, padding=2, bias=False), norm=nn.BatchNorm2d(width), relu=nn.ReLU()
            )
        )
        self.stage1 = nn.Sequential(ResidualBlock(width, width))
        self.stage2 = nn.Sequential(
            ResidualBlock(width, 2 * width, stride=2), ResidualBlock(2 * width, 2 * width)
        )
        self.stage3 = nn.Sequential(
            ResidualBlock(2 * width, 4 * width, stride=2), ResidualBlock(4 * width, 4 * width)
        )
        self.head = nn.Sequential(
            OrderedDict(
                pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), classify=nn.Linear(4 * width, classes)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[N, classes]`` for normalised pictures ``[N, 3, 64, 64]``."""
        x = self.stem(x)
        x = self.stage1(x)
        x = self.stage2(x)
        x = self.stage3(x)
        logits: Tensor = self.head(x)
        return logits


class DigitsNet(nn.Module):
    """A plain convolutional network for 32x32 handwritten digits, after LeNet-5 (LeCun et al., 1998).

    Parameters
    ----------
    classes : int, default 10
        Number of outputs.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(1, 12, 5, padding=2),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(12, 24, 3, padding=1),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
                conv3=nn.Conv2d(24, 32, 3, padding=1),
                relu3=nn.ReLU(),
                pool3=nn.MaxPool2d(2),
            )
        )
        self.classifier = nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                hidden=nn.Linear(32 * 4 * 4, 48, bias=False),
                norm=nn.BatchNorm1d(48),
                relu=nn.ReLU(),
                dropout=nn.Dropout(0.2),
                classify=nn.Linear(48, classes),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[N, classes]`` for pictures ``[N, 1, 32, 32]`` of white ink on black, 0 to 1."""
        logits: Tensor = self.classifier(self.features(x))
        return logits
