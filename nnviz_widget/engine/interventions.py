"""Changes of what parts of a model give while it runs: which are in force, and how each changes a tensor.

In force are those of the blocks that the asking thread is in; an engine takes them along when it sends work
to its own thread, and every pass of ``recorder`` and of ``passes`` applies them (`applied`). Nothing is left
on the modules afterwards, and those of the user are never touched.

How a value is reached is in ``sites``; what the user calls is in ``intervening``.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nnviz_widget.engine.sites import HEADS, hang
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nnviz_widget.engine.sites import Edit, Swap

__all__ = ["KINDS", "Intervention", "Place", "applied", "current", "likely_axis", "touched", "within"]

#: What can be done, and the options of each.
KINDS = {
    "ablate": ("value",),
    "scale": ("factor",),
    "clamp": ("low", "high"),
    "replace": ("value",),
    "patch": ("source",),
}

Index = tuple[Any, ...]

_LAST = (
    nn.Linear, nn.LayerNorm, nn.Embedding, nn.MultiheadAttention, nn.RNNBase, nn.TransformerEncoderLayer,
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A part of an activation.

    Attributes
    ----------
    name : str
        Of the layer, for errors.
    channels : tuple of int, optional
        Along the axis of the channels.
    unit : tuple of int, optional
        Index in one sample's activation.
    positions : tuple of int, optional
        Along the other axes, in order; the rest is taken whole.
    axis : int
        Of the channels.
    """

    name: str
    channels: tuple[int, ...] | None = None
    unit: tuple[int, ...] | None = None
    positions: tuple[int, ...] | None = None
    axis: int = 1

    def index(self, shape: Sequence[int]) -> Index:
        """Return the index of this part in an activation of that shape, for all samples.

        Raises
        ------
        InputError
            It lies outside.
        """
        shape = tuple(shape)
        if self.unit is not None:
            self._check(self.unit, shape[1:], "unit", exact=True)
            return (slice(None), *self.unit)
        index: list[Any] = [slice(None)] * len(shape)
        if self.channels is None and self.positions is None:
            return tuple(index)
        if len(shape) < 2:
            raise InputError(f"{self.name!r} gives one number for each sample: it has no channels.")
        axis = self.axis % len(shape)
        if self.channels is not None:
            self._check(self.channels, (shape[axis],) * len(self.channels), "channel")
            index[axis] = list(self.channels) if len(self.channels) > 1 else self.channels[0]
        if self.positions is not None:
            others = [i for i in range(1, len(shape)) if i != axis]
            self._check(self.positions, tuple(shape[i] for i in others), "position")
            for i, position in zip(others, self.positions, strict=False):
                index[i] = position
        return tuple(index)

    def _check(self, given: Sequence[int], sizes: Sequence[int], what: str, *, exact: bool = False) -> None:
        if len(given) > len(sizes) or (exact and len(given) != len(sizes)):
            raise InputError(
                f"{what}={tuple(given)} has {len(given)} number(s), but one sample of {self.name!r} has "
                f"{tuple(sizes)} there."
            )
        if not all(0 <= part < size for part, size in zip(given, sizes, strict=False)):
            raise InputError(
                f"{what}={tuple(given)} lies outside what {self.name!r} gives, {tuple(sizes)} from 0."
            )


@dataclass(frozen=True, eq=False)
class Intervention:
    """One change of what a layer gives, in every pass.

    Attributes
    ----------
    owner : object
        The engine's twin: others do not see it.
    kind : str
        A name in `KINDS`.
    site : str
        Path of the module (``path@call``), with ``#heads`` for the heads of an attention.
    place : Place
        Which part.
    options : dict
        Of the kind.
    call : str
        The Python that makes it.
    """

    owner: object
    kind: str
    site: str
    place: Place
    options: dict[str, Any]
    call: str = ""

    @property
    def path(self) -> str:
        """The site without the number of its call."""
        return self.site.partition("@")[0]

    @property
    def number(self) -> int:
        """Which call of the module."""
        return int(self.site.partition("@")[2] or 0)

    def __str__(self) -> str:
        return self.call

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return another tensor, changed at the place; gradients flow through what is kept."""
        index = self.place.index(tensor.shape)
        changed = tensor.clone()
        changed[index] = self._part(tensor, index)
        return changed

    def _part(self, tensor: Tensor, index: Index) -> Tensor:
        part: Tensor = tensor[index]
        options = self.options
        if self.kind == "scale":
            return part.mul(options["factor"])
        if self.kind == "clamp":
            return part.clamp(options.get("low"), options.get("high"))
        if self.kind == "ablate" and options["value"] == "mean":
            return _means(tensor, self.place.axis)[index]
        value = options.get("source", options.get("value"))
        if self.kind == "ablate" or not isinstance(value, Tensor):
            return torch.full_like(part, 0.0 if value is None or self.kind == "ablate" else value)
        value = value.to(tensor.device, tensor.dtype)
        if self.kind == "patch":
            return self._of_source(value, tensor)[index]
        try:
            return value.expand_as(part)
        except RuntimeError as error:
            raise InputError(
                f"value has the shape {tuple(value.shape)}; what it replaces in {self.place.name!r} has "
                f"{tuple(part.shape)}."
            ) from error

    def _of_source(self, source: Tensor, tensor: Tensor) -> Tensor:
        if source.shape[1:] != tensor.shape[1:] or source.shape[0] not in {1, tensor.shape[0]}:
            raise InputError(
                f"{self.place.name!r} gave {tuple(source.shape)} for the source, and gives "
                f"{tuple(tensor.shape)} here.",
                hint="Patch between inputs of the same shape; a source of one sample serves any number.",
            )
        return source.expand_as(tensor)


def _means(tensor: Tensor, axis: int) -> Tensor:
    """Return the mean of each channel, over samples and positions, in the shape of the tensor."""
    axis = axis % tensor.dim() if tensor.dim() > 1 else 0
    dims = [i for i in range(tensor.dim()) if i != axis or tensor.dim() < 2]
    return tensor.mean(dims, keepdim=True).expand_as(tensor)


#: Those of all engines, the outermost first; each thread and each task has its own.
_active: ContextVar[tuple[Intervention, ...]] = ContextVar("interventions", default=())


def current(owner: object = None) -> tuple[Intervention, ...]:
    """Return the interventions in force, the outermost first; of one owner, or of all."""
    return tuple(one for one in _active.get() if owner is None or one.owner is owner)


@contextmanager
def within(interventions: Sequence[Intervention]) -> Iterator[None]:
    """Let exactly these be in force in the block."""
    before = _active.get()
    _active.set(tuple(interventions))
    try:
        yield
    finally:
        _active.set(before)


def touched() -> set[str]:
    """Return the ids of the module calls whose output is changed."""
    return {one.site for one in current() if not one.path.endswith(HEADS)}


@contextmanager
def applied(module: nn.Module, swap: Swap | None = None) -> Iterator[None]:
    """Change what the parts of a module give in this block, as the interventions in force say.

    Parameters
    ----------
    module : nn.Module
        The twin, or a copy of it.
    swap : callable, optional
        As `hang` takes it.
    """
    active = current()
    if not active:
        yield
        return
    modules = dict(module.named_modules(remove_duplicate=False))

    def visit(path: str, call: int) -> Edit | None:
        mine = [one for one in active if one.path == path and one.number == call]
        return (lambda tensor: _in_turn(mine, tensor)) if mine else None

    with ExitStack() as hooks:
        for path in dict.fromkeys(one.path for one in active):
            hooks.callback(hang(modules, path, visit, *(() if swap is None else (swap,))))
        yield


def _in_turn(interventions: Sequence[Intervention], tensor: Tensor) -> Tensor:
    for one in interventions:
        tensor = one(tensor)
    return tensor


def likely_axis(module: nn.Module) -> int:
    """Return the axis of a module's channels as its type tells: of linear layers and norms the last."""
    last = (
        nn.Linear,
        nn.LayerNorm,
        nn.Embedding,
        nn.MultiheadAttention,
        nn.RNNBase,
        nn.TransformerEncoderLayer,
    )
    return -1 if isinstance(module, last) else 1
