"""From what a user writes to a wish: pictures, sizes and ranges checked, and defaults that fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from nnviz_widget.engine.maximization.shaking import Shaking
from nnviz_widget.engine.maximization.stream import Wish
from nnviz_widget.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["OPTIONS", "wish_for"]

_SIZE = 128


#: Every option of `Engine.maximize` but the layer and the channel, and its default.
OPTIONS: dict[str, Any] = {
    "unit": None,
    "direction": None,
    "objective": None,
    "invert": None,
    "start": None,
    "steps": 256,
    "seed": 0,
    "images": None,
    "image_size": None,
    "channels": None,
    "value_range": None,
    "mean": None,
    "std": None,
    "parametrization": "fourier",
    "decorrelate": True,
    "decay": 1.0,
    "total_variation": 0.0,
    "l2": 0.0,
    "jitter": None,
    "scale": None,
    "rotate": None,
    "learning_rate": 0.05,
}
_AIMS = ("unit", "direction", "objective")
_NUMBERS = ("learning_rate", "total_variation", "l2", "decay")
_AS_GIVEN = (*_NUMBERS, "steps", "seed", "parametrization", "decorrelate")


def wish_for(
    layer: str | nn.Module,
    channel: Any,
    options: Mapping[str, Any],
    *,
    module: nn.Module,
    device: torch.device,
    path: Callable[[nn.Module], str | None],
) -> Wish:
    """Return what is to be maximised, and how.

    Parameters
    ----------
    layer, channel, options
        As `Engine.maximize` takes them.
    module : nn.Module
        The twin; only read.
    device : torch.device
        Where to compute.
    path : callable
        Returns the path of a module of the user's model, or None.
    """
    for name in options:
        if name not in OPTIONS:
            raise InputError(
                f"maximize has no option {name!r}.{nearest(name, OPTIONS)}",
                hint=f"It takes {', '.join(OPTIONS)}.",
            )
    asked = {**OPTIONS, **options}
    if type(asked["steps"]) is not int or asked["steps"] < 1:
        raise InputError(f"steps is a whole number from 1, not {asked['steps']!r}.")
    for name in _NUMBERS:
        if not isinstance(asked[name], (int, float)) or asked[name] < 0:
            raise InputError(f"{name}={asked[name]!r} must be a number from 0.")
    if isinstance(layer, nn.Module):
        found = path(layer)
        if found is None:
            raise InputError(f"This {type(layer).__name__} is not a part of the model.")
        layer = found
    first, like = (_picture(asked[name], name, device) for name in ("start", "invert"))
    given = first if first is not None else like
    height, width = _size(asked["image_size"], given)
    channels = asked["channels"] or (given.shape[1] if given is not None else _channels(module))
    aims = {"channel": channel, **{name: asked[name] for name in _AIMS}}
    count = _count(asked["images"], channel, [picture for picture in (first, like) if picture is not None])
    shape = (count, channels, height, width)
    low, high = _range(asked["value_range"], asked["mean"], asked["std"], channels, device)
    # What is compared pixel for pixel must not move.
    shaken = {"jitter": max(1, min(height, width) // 16), "scale": 0.1, "rotate": 10}
    shaken = {name: 0 if like is not None else default for name, default in shaken.items()}
    return Wish(
        layer=layer,
        shape=shape,
        aims=aims,
        start=None if first is None else _fitted(first, shape, "start"),
        invert=None if like is None else _fitted(like, shape, "invert"),
        low=low,
        high=high,
        dtype=next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32),
        shaking=Shaking(**{n: d if asked[n] is None else asked[n] for n, d in shaken.items()}),
        **{name: asked[name] for name in _AS_GIVEN},
    )


def _picture(given: Any, name: str, device: torch.device) -> Tensor | None:
    """Return pictures ``[B, C, H, W]`` from a tensor or array with or without the batch axis."""
    if given is None:
        return None
    picture = given.detach() if isinstance(given, Tensor) else torch.as_tensor(np.asarray(given))
    picture = picture[None] if picture.dim() == 3 else picture
    if picture.dim() != 4 or not picture.is_floating_point():
        raise InputError(
            f"{name} has the shape {tuple(picture.shape)} and the type {picture.dtype}.",
            hint="Give pictures [C, H, W] or [B, C, H, W] of floating point, as the model takes them.",
        )
    return picture.to(device).float().clone()


def _size(given: Any, picture: Tensor | None) -> tuple[int, int]:
    if given is None:
        return (_SIZE, _SIZE) if picture is None else (picture.shape[2], picture.shape[3])
    size = (given, given) if isinstance(given, int) else tuple(given)
    if len(size) != 2 or not all(type(side) is int and side > 1 for side in size):
        raise InputError(f"image_size={given!r} is one side in pixels, or height and width.")
    return size[0], size[1]


def _channels(module: nn.Module) -> int:
    """Return how many channels the model's pictures have: what its first convolution takes."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            return part.in_channels
    return 3


def _count(images: int | None, channel: Any, pictures: list[Tensor]) -> int:
    wanted = [len(channel)] if isinstance(channel, (list, tuple, range)) else []
    wanted += [len(picture) for picture in pictures if len(picture) > 1]
    wanted += [images] if images is not None else []
    if len(set(wanted)) > 1 or any(type(one) is not int or one < 1 for one in wanted):
        raise InputError(
            f"images={images!r}, but {' and '.join(map(str, dict.fromkeys(wanted)))} are asked for.",
            hint="images is a whole number from 1; several channels give one picture each.",
        )
    return wanted[0] if wanted else 1


def _range(
    value_range: Any, mean: Any, std: Any, channels: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the lowest and highest value of the model's inputs, for each channel."""
    if (mean is not None or std is not None) and value_range is not None:
        raise InputError("Give value_range, or mean and std, not both.")
    if value_range is None:
        centre, spread = (
            _each(x, channels, device) for x in (0.0 if mean is None else mean, 1.0 if std is None else std)
        )
        low, high = (0 - centre) / spread, (1 - centre) / spread
    else:
        try:
            ends = tuple(value_range)
        except TypeError:
            ends = ()
        if len(ends) != 2:
            raise InputError(
                f"value_range={value_range!r} is the lowest and the highest value of the inputs."
            )
        low, high = (_each(end, channels, device) for end in ends)
    if not bool((low < high).all()):
        raise InputError("The lowest value of the model's inputs must lie below the highest; std above 0.")
    return low, high


def _each(given: Any, channels: int, device: torch.device) -> Tensor:
    values = torch.as_tensor(given, dtype=torch.float32, device=device).flatten()
    if values.numel() not in (1, channels):
        raise InputError(f"{given!r} has {values.numel()} numbers for {channels} channels.")
    return values.expand(channels).clone()


def _fitted(picture: Tensor, shape: tuple[int, int, int, int], name: str) -> Tensor:
    """Return pictures of this shape: enlarged, and one for all."""
    if picture.shape[1] != shape[1]:
        raise InputError(f"{name} has {picture.shape[1]} channels, and the pictures have {shape[1]}.")
    if tuple(picture.shape[2:]) != shape[2:]:
        picture = nn.functional.interpolate(
            picture, size=shape[2:], mode="bilinear", align_corners=False, antialias=True
        )
    return picture.expand(shape)
