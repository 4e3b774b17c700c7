"""Two small trained networks with samples, so that there is something to look at without any download.

``shapes()`` is a residual network on drawn pictures with known masks, ``digits()`` a plain one on handwritten
digits. Weights lie beside this file as safetensors; ``scripts/train_demo.py`` in the repository makes them.
The architectures are in ``networks``, the pictures in ``drawing``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from nnviz_widget.demo import drawing
from nnviz_widget.demo.networks import DigitsNet, ShapesNet

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Demo", "digits", "shapes"]

WEIGHTS = Path(__file__).parent / "weights"
SHAPES_SEED = 4
"""Chosen by eye: a mixed and pretty sixteen. Training draws from other seeds."""

SHAPES_MEAN, SHAPES_STD = 0.5, 0.25


@dataclass(frozen=True)
class Demo:
    """A trained network and samples that it has never seen.

    Attributes
    ----------
    model : torch.nn.Module
        On the CPU, in eval mode.
    inputs : Tensor [N, C, H, W]
        What the model takes, float32.
    class_names : list of str
        Names of the model's outputs.
    targets : Tensor [N]
        The true class of each input, int64.
    masks : Tensor [N, H, W] or None
        True where the object is; None where nobody knows.
    denormalize : callable
        Turns inputs back into pictures between 0 and 1.

    Examples
    --------
    >>> import nnviz_widget as nnviz
    >>> demo = nnviz.demo.shapes()
    >>> demo.class_names[int(demo.model(demo.inputs[:1]).argmax())]
    'star'
    """

    model: nn.Module
    inputs: Tensor
    class_names: list[str]
    targets: Tensor
    masks: Tensor | None
    denormalize: Callable[[Tensor], Tensor]


def shapes(samples: int = 16) -> Demo:
    """Return a small residual network that names the shape in a picture.

    Ten classes (circle, square, triangle, star, ...), 64x64 colour pictures with textured backgrounds and
    small distractors, drawn anew in milliseconds and always the same.

    Parameters
    ----------
    samples : int, default 16
        How many pictures to draw; the classes take turns.

    Returns
    -------
    Demo
        ``inputs`` is ``[samples, 3, 64, 64]``; ``masks`` holds the exact outline of every object.
    """
    classes = len(drawing.CLASSES)
    # The star goes first: of all shapes it is the one whose feature maps tell most.
    star = drawing.CLASSES.index("star")
    drawn = drawing.draw([(star + i) % classes for i in range(samples)], seed=SHAPES_SEED)
    return Demo(
        model=_load(ShapesNet(classes), "shapes"),
        inputs=normalize_pictures(drawn.images),
        class_names=list(drawing.CLASSES),
        targets=torch.from_numpy(drawn.labels),
        masks=torch.from_numpy(drawn.masks),
        denormalize=_denormalize_pictures,
    )


def digits() -> Demo:
    """Return a small convolutional network that reads handwritten digits.

    Twenty digits that it was not trained on, from the set that scikit-learn bundles (Alpaydin and Kaynak,
    1998), 8x8 pixels enlarged and framed to 32x32. scikit-learn is not needed.

    Returns
    -------
    Demo
        ``inputs`` is ``[20, 1, 32, 32]``, white ink on black; ``masks`` is None.
    """
    held_out = load_file(WEIGHTS / "digits_samples.safetensors")
    return Demo(
        model=_load(DigitsNet(), "digits"),
        inputs=enlarge_digits(held_out["images"]),
        class_names=[str(digit) for digit in range(10)],
        targets=held_out["targets"].long(),
        masks=None,
        denormalize=_as_it_is,
    )


def normalize_pictures(images: NDArray[np.uint8]) -> Tensor:
    """Turn drawn pictures ``[N, H, W, 3]`` into what the shapes network takes, ``[N, 3, H, W]``."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return ((pixels - SHAPES_MEAN) / SHAPES_STD).contiguous()


def enlarge_digits(images: Tensor) -> Tensor:
    """Turn ``[N, 8, 8]`` digits, 0 to 16, into what the digits network takes: ``[N, 1, 32, 32]``, 0 to 1."""
    ink = images[:, None].float() / 16
    large = interpolate(ink, scale_factor=3, mode="bicubic", align_corners=False).clamp(0, 1)
    return pad(large, (4, 4, 4, 4))


def _denormalize_pictures(inputs: Tensor) -> Tensor:
    return (inputs * SHAPES_STD + SHAPES_MEAN).clamp(0, 1)


def _as_it_is(inputs: Tensor) -> Tensor:
    return inputs


def _load(model: nn.Module, name: str) -> nn.Module:
    """Fill a network with its stored weights; they are half precision on disk and float32 in memory."""
    stored = load_file(WEIGHTS / f"{name}.safetensors")
    model.load_state_dict(stored)
    return model.eval()
