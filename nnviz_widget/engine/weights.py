"""What a layer has learned: its kernels, how large they are, which are dead and which say the same.

Reads tensors that it is given; which layer they are of, and changing them, is the engine's business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from nnviz_widget.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["Weights", "read_weights"]

_ALIKE = 0.99
_DEAD = 1e-3  # of the median norm
_MOST_FILTERS = 4096
_MOST_PAIRS = 200
_BARS = 64


@dataclass
class Weights:
    """The weights of one layer.

    Attributes
    ----------
    layer, type : str
        Path of the module, and its class.
    name : str
        Which of its parameters the rest is about (``weight``).
    names : list of str
        All parameters and buffers that it has itself.
    values : Tensor
        That parameter as it is, a copy on the CPU.
    kernels : Tensor or None
        ``[filters, inputs, *window]`` of a convolution (also of a transposed one, whose own order is
        another), ``[outputs, inputs]`` of a matrix; None for vectors.
    norms : Tensor
        Euclidean norm of each filter, ``[filters]``; of a vector the magnitudes.
    singular_values : Tensor or None
        Of the kernels as a matrix of filters, the largest first.
    counts, edges : Tensor
        Histogram of the finite values.
    mean, std, low, high, zeros : float
        Of the values; ``zeros`` is the fraction of exact ones.
    dead : list of int
        Filters whose norm is about zero: less than a thousandth of the median.
    duplicates : list of (int, int, float)
        Pairs of filters that point the same way, with their cosine (more than 0.99), the most alike first.
    notes : list of str
        What was left out, and why.
    """

    layer: str
    type: str
    name: str
    names: list[str]
    values: Tensor
    kernels: Tensor | None
    norms: Tensor
    singular_values: Tensor | None
    counts: Tensor
    edges: Tensor
    mean: float
    std: float
    low: float
    high: float
    zeros: float
    dead: list[int]
    duplicates: list[tuple[int, int, float]]
    notes: list[str] = field(default_factory=list)
    _groups: int = 0

    def entry(self, index: tuple[int, ...]) -> tuple[int, ...]:
        """Return where an entry of `kernels` stands in `values`, whose inputs may come first."""
        if not self._groups:
            return index
        out, into, *window = index
        group = out // self.values.shape[1]
        return (group * (self.values.shape[0] // self._groups) + into, out % self.values.shape[1], *window)

    def __repr__(self) -> str:
        shape = " × ".join(map(str, self.values.shape))
        return f"Weights({self.layer}.{self.name}, {shape}, {len(self.dead)} dead)"


def read_weights(module: nn.Module, layer: str, name: str | None = None) -> Weights:
    """Describe one parameter of a module.

    Parameters
    ----------
    module : nn.Module
        Whose own parameters, not those of its parts, are looked at.
    layer : str
        Its path.
    name : str, optional
        By default the first one with at least two axes, or else the first.

    Raises
    ------
    InputError
        The module has none, or not this one.
    """
    own = _own(module)
    if not own:
        raise InputError(
            f"{layer or 'The model'!r} ({type(module).__name__}) has no weights of its own.",
            hint="Choose a layer that learns, such as a convolution or a linear layer.",
        )
    if name is None:
        name = next((key for key, tensor in own.items() if tensor.dim() > 1), next(iter(own)))
    if name not in own:
        raise InputError(
            f"{layer!r} has no weight {name!r}.{nearest(name, own)}", hint=f"It has {', '.join(own)}."
        )
    values = own[name].detach().cpu().clone()
    numbers = values.double()
    finite = numbers[torch.isfinite(numbers)]
    kernels = _kernels(module, name, values)
    rows = values.reshape(-1, 1) if kernels is None else kernels.reshape(len(kernels), -1)
    norms = rows.double().norm(dim=1).float()
    notes: list[str] = []
    singular = None
    if kernels is not None and min(rows.shape) <= _MOST_FILTERS and torch.isfinite(rows).all():
        singular = torch.linalg.svdvals(rows.float())
    elif kernels is not None:
        notes.append(
            "Too large for singular values." if min(rows.shape) > _MOST_FILTERS else "Not all are finite."
        )
    counts, edges = _histogram(finite)
    dead = _dead(norms) if kernels is not None else []
    return Weights(
        layer,
        type(module).__name__,
        name,
        list(own),
        values,
        kernels,
        norms,
        singular,
        counts,
        edges,
        mean=float(finite.mean()) if finite.numel() else float("nan"),
        std=float(finite.std(unbiased=False)) if finite.numel() else float("nan"),
        low=float(finite.min()) if finite.numel() else float("nan"),
        high=float(finite.max()) if finite.numel() else float("nan"),
        zeros=float((values == 0).double().mean()) if values.numel() else 0.0,
        dead=dead,
        duplicates=_duplicates(rows, dead, notes) if kernels is not None else [],
        notes=notes,
        _groups=_swapped(module, name),
    )


def _own(module: nn.Module) -> Mapping[str, Tensor]:
    named = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return {key: tensor for key, tensor in named if tensor.numel() and not tensor.is_complex()}


def _swapped(module: nn.Module, name: str) -> int:
    """Return the groups of a transposed convolution, whose weight has the inputs first; 0 of others."""
    swapped = name == "weight" and type(module).__name__.startswith("ConvTranspose")
    return int(getattr(module, "groups", 1)) if swapped else 0


def _kernels(module: nn.Module, name: str, values: Tensor) -> Tensor | None:
    """Return a parameter with its filters first; None for vectors."""
    if values.dim() < 2:
        return None
    groups = _swapped(module, name)
    if groups:
        # [inputs, outputs / groups, ...]: each group of inputs makes its own outputs.
        parts = values.reshape(groups, -1, *values.shape[1:]).transpose(1, 2)
        return parts.reshape(-1, *parts.shape[2:])
    return values


def _histogram(finite: Tensor) -> tuple[Tensor, Tensor]:
    low = float(finite.min()) if finite.numel() else 0.0
    high = float(finite.max()) if finite.numel() else 1.0
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = torch.linspace(low, high, _BARS + 1, dtype=torch.float64)
    return torch.histogram(finite, edges).hist.long(), edges


def _dead(norms: Tensor) -> list[int]:
    usual = float(norms.median()) if len(norms) else 0.0
    # Where most are dead, the largest tells what is usual.
    usual = usual or float(norms.max()) if len(norms) else 0.0
    return (norms <= _DEAD * usual).nonzero().flatten().tolist()


def _duplicates(rows: Tensor, dead: list[int], notes: list[str]) -> list[tuple[int, int, float]]:
    if rows.shape[1] < 2 or len(rows) < 2:
        return []  # single numbers all point one way, or the other
    if len(rows) > _MOST_FILTERS:
        notes.append(f"More than {_MOST_FILTERS} filters are not compared with each other.")
        return []
    directions = nn.functional.normalize(rows.float(), dim=1)
    directions[dead] = 0
    alike = (directions @ directions.T).triu(1)
    pairs = (alike > _ALIKE).nonzero()
    strengths = alike[pairs[:, 0], pairs[:, 1]]
    order = strengths.argsort(descending=True)
    if len(order) > _MOST_PAIRS:
        notes.append(f"{len(order)} pairs are alike; the first {_MOST_PAIRS} are listed.")
    return [(*pairs[i].tolist(), float(strengths[i])) for i in order[:_MOST_PAIRS].tolist()]
