"""Windows over a picture: where their entries stand, and what stands there. Shared by all that slides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.arithmetic.result import Arithmetic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["for_each", "gathered", "grid", "summed"]


def for_each(value: Any, dims: int) -> tuple[int, ...]:
    """Return an option that is one number for all axes, or one for each."""
    if isinstance(value, int):
        return (value,) * dims
    return tuple(value) * (dims if len(value) == 1 else 1)


def grid(axes: Sequence[Tensor], sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the places of a window, ``[*window, D]`` (-1 outside of the picture), and which are inside."""
    places = torch.stack(torch.meshgrid(*[axis.long() for axis in axes], indexing="ij"), -1)
    inside = ((places >= 0) & (places < torch.tensor(sizes))).all(-1)
    return places.masked_fill(~inside[..., None], -1), inside


def gathered(picture: Tensor, places: Tensor, inside: Tensor) -> Tensor:
    """Return what a picture ``[C, *sizes]`` has at some places, ``[C, *window]``; 0 outside."""
    at = places.clamp(min=0).to(picture.device).unbind(-1)
    index: tuple[Any, ...] = (slice(None), *at)
    found = picture[index]
    return torch.where(inside.to(picture.device), found, torch.zeros_like(found))


def summed(
    patch: Tensor, kernel: Tensor, bias: Tensor | float | None, inside: Tensor | None = None, **more: Any
) -> Arithmetic:
    """Return a weighted sum, made of its terms."""
    patch, kernel = patch.double().cpu(), kernel.double().cpu()
    products = patch * kernel
    total = float(products.sum())
    numbers = {"sum": total}
    if bias is not None:
        numbers["bias"] = float(bias)
    inside = torch.ones(patch.shape[1:], dtype=torch.bool) if inside is None else inside.cpu()
    return Arithmetic(
        "weighted_sum",
        more.pop("formula", "Σ patch · kernel" + (" + bias" if bias is not None else "")),
        total + numbers.get("bias", 0.0),
        numbers=numbers,
        arrays={"patch": patch, "kernel": kernel, "products": products, "inside": inside},
        **more,
    )
