"""Weights that were changed by hand: on private copies, which the twin runs instead of the user's tensors.

Nothing here touches a tensor of the user's model. What the twin is, and when it is rebuilt, is in ``twin``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Change", "Edits"]


class Change(NamedTuple):
    """Some entries of one weight, and what they are instead."""

    original: Tensor
    index: Any
    value: Any


class Edits:
    """The changes in force, the newest last, and the private copies that hold them."""

    def __init__(self) -> None:
        self._changes: list[Change] = []
        #: By the id of the original: it, what stands for it otherwise, and the changed copy.
        self._made: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._epoch = -1

    def __len__(self) -> int:
        return len(self._changes)

    def add(self, change: Change) -> None:
        """Put a change in force.

        Raises
        ------
        InputError
            The weight has no such entries, or the value does not fit them.
        """
        trial = torch.zeros_like(change.original, device="cpu", requires_grad=False)
        try:
            _write(trial, change)
        except (IndexError, TypeError, RuntimeError, ValueError) as error:
            raise InputError(
                f"A weight of shape {tuple(trial.shape)} has no entries {change.index!r} that can become "
                f"{_short(change.value)}: {str(error).splitlines()[0]}.",
                hint="index is as in weight[index] = value.",
            ) from error
        self._changes.append(change)
        self._made.clear()

    def remove(self, change: Change) -> None:
        """Take a change back; others of the same weight stay."""
        self._changes = [other for other in self._changes if other is not change]
        self._made.clear()

    def __call__(self, original: Tensor, stands: Tensor) -> Tensor:
        """Return the changed copy of a tensor, always the same one; else what stands for it."""
        if not any(change.original is original for change in self._changes):
            return stands
        if id(original) not in self._made:
            copied = stands.detach().clone()
            self.write(original, copied)
            if isinstance(original, nn.Parameter):
                copied = nn.Parameter(copied, requires_grad=stands.requires_grad)
            self._made[id(original)] = (original, stands, copied)
        return self._made[id(original)][2]

    @torch.no_grad()
    def write(self, original: Tensor, copied: Tensor) -> None:
        """Write the changes of a tensor into a copy of it."""
        for change in self._changes:
            if change.original is original:
                _write(copied, change)

    @torch.no_grad()
    def refresh(self, epoch: int) -> None:
        """Follow the user's weights into a new epoch; what was changed stays changed."""
        if epoch == self._epoch:
            return
        self._epoch = epoch
        for original, stands, copied in self._made.values():
            copied.copy_(stands)
            self.write(original, copied)


@torch.no_grad()
def _write(tensor: Tensor, change: Change) -> None:
    value = change.value
    tensor[change.index] = value.to(tensor) if isinstance(value, torch.Tensor) else value


def _short(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)[:40]
