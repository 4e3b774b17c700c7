"""What shall grow: from what a layer gave to one number for each picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["objective_of"]

Objective = "Callable[[Tensor], Tensor]"


def objective_of(
    activation: Tensor,
    *,
    channel: Any = None,
    unit: Any = None,
    direction: Any = None,
    objective: Any = None,
    like: Tensor | None = None,
) -> Callable[[Tensor], Tensor]:
    """Return a function from what the layer gives, ``[B, ...]``, to one number for each picture, ``[B]``.

    Parameters
    ----------
    activation : Tensor
        An example, for the shapes.
    channel, unit, direction, objective
        As `Engine.maximize` takes them; at most one.
    like : Tensor, optional
        What the layer shall give: ``[1, ...]`` or ``[B, ...]``.

    Raises
    ------
    InputError
        More than one is given, or it does not fit the layer.
    """
    asked = {
        "channel": channel, "unit": unit, "direction": direction, "objective": objective, "invert": like
    }  # fmt: skip
    named = [name for name, value in asked.items() if value is not None]
    if len(named) > 1:
        raise InputError(f"Give one thing to maximize, not {' and '.join(named)}.")
    if like is not None:
        return _near(like)
    if channel is not None:
        return _channel(activation, channel)
    if unit is not None:
        return _unit(activation, unit)
    if direction is not None:
        return _along(activation, direction)
    if objective is not None:
        return _own(objective)
    return lambda a: a.flatten(1).square().mean(1)


def channel_axis(activation: Tensor) -> int:
    """Return the axis of the channels: the second of images and vectors, the last of tokens."""
    return 2 if activation.dim() == 3 else 1


def _channel(activation: Tensor, channel: Any) -> Callable[[Tensor], Tensor]:
    if activation.dim() < 2:
        raise InputError(f"The layer gives {tuple(activation.shape)}, which has no channels.")
    axis, rows = channel_axis(activation), activation.shape[0]
    count = activation.shape[axis]
    each = list(channel) if isinstance(channel, (list, tuple, range)) else [channel] * rows
    if len(each) != rows:
        raise InputError(f"There are {len(each)} channels for {rows} pictures.")
    for one in each:
        if type(one) is not int or not 0 <= one < count:
            raise InputError(f"channel={one!r} is none of the layer's {count} channels, counted from 0.")
    chosen = torch.tensor(each, device=activation.device)

    def score(a: Tensor) -> Tensor:
        moved = a.movedim(axis, 1)
        picked = moved[torch.arange(len(a), device=a.device), chosen]
        return picked.reshape(len(a), -1).mean(1)

    return score


def _unit(activation: Tensor, unit: Any) -> Callable[[Tensor], Tensor]:
    index = tuple(unit) if isinstance(unit, (tuple, list)) else (unit,)
    shape = tuple(activation.shape[1:])
    fits = len(index) == len(shape) and all(
        type(one) is int and 0 <= one < size for one, size in zip(index, shape, strict=True)
    )
    if not fits:
        raise InputError(
            f"unit={unit!r} is no index into what the layer gives for one picture, {shape}.",
            hint="The shape depends on image_size.",
        )
    return lambda a: a[(slice(None), *index)]


def _along(activation: Tensor, direction: Any) -> Callable[[Tensor], Tensor]:
    way = torch.as_tensor(direction).detach().to(activation.device, activation.dtype)
    axis = channel_axis(activation)
    whole = way.shape == activation.shape[1:]
    if not whole and way.shape != activation.shape[axis : axis + 1]:
        raise InputError(
            f"The direction has the shape {tuple(way.shape)}, and the layer gives "
            f"{tuple(activation.shape[1:])} for one picture.",
            hint=f"Give {activation.shape[axis]} numbers, one for each channel, or one for each unit.",
        )
    if not bool(way.any()):
        raise InputError("The direction is zero everywhere.")
    way = way / way.norm()
    if whole:
        return lambda a: (a * way).flatten(1).sum(1)
    return lambda a: (a.movedim(axis, -1) * way).sum(-1).reshape(len(a), -1).mean(1)


def _own(objective: Any) -> Callable[[Tensor], Tensor]:
    if not callable(objective):
        raise InputError(f"objective={objective!r} is no function of what the layer gives.")

    def score(a: Tensor) -> Tensor:
        found = objective(a)
        if not isinstance(found, Tensor) or found.shape != (len(a),):
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"The objective gave {what} for {len(a)} picture(s); one number for each is needed."
            )
        return found

    return score


def _near(like: Tensor) -> Callable[[Tensor], Tensor]:
    """Return minus the squared distance from what the layer gave for another picture, as a share of that."""
    size = like.flatten(1).square().sum(1).clamp(min=1e-12)

    def score(a: Tensor) -> Tensor:
        return -(a - like).flatten(1).square().sum(1) / size

    return score
