"""What taking a number apart gives: plain containers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Arithmetic", "Curve", "Operand"]


@dataclass(frozen=True)
class Operand:
    """A number that another one was made of, and where it stands.

    Attributes
    ----------
    name : str
        Its part in the formula (``a``, ``x``).
    value : float
        The number.
    node : str
        Id of the node whose activation holds it; empty for plain numbers, and for values inside a layer.
    index : tuple of int
        Where in that activation, batch axis included.
    """

    name: str
    value: float
    node: str = ""
    index: tuple[int, ...] = ()


@dataclass
class Arithmetic:
    """How one number came about.

    Attributes
    ----------
    kind : str
        ``weighted_sum`` (convolution, linear, average, product of matrices), ``choice`` (the largest or
        smallest of a window), ``normalisation``, ``function`` (one number through a curve), ``elementwise``,
        ``softmax``, ``attention``, ``lookup`` (embedding), ``gates`` (recurrent), ``copy`` (moved, not
        changed), ``source`` (an input, a weight), or ``unknown``.
    formula : str
        In one line, with the names of `numbers`, `operands` and `arrays`.
    result : float
        What the parts give, computed in float64; NaN where the operation is not taken apart.
    numbers : dict of str to float
        The steps, in order: ``sum``, ``bias``; ``mean``, ``var``; gates; ...
    arrays : dict of str to Tensor
        float64, on the CPU. A weighted sum has ``patch``, ``kernel`` and ``products`` of one shape (channels
        first, then the window) and ``inside``, false where the patch is padding; a choice has ``patch`` and
        ``inside``; attention has ``query [heads, E]``, ``keys [heads, S, E]``, and ``scores``, ``weights``,
        ``values`` and ``products`` (``[heads, S]``); gates have ``input``, ``hidden`` and their weights.
    places : Tensor or None
        Where each entry of the patch (without channels) stands in the `source`'s picture, ``[*window, D]``;
        -1 for padding.
    first : int
        Channel of the source that the first channel of the patch is.
    source : str
        Id of the node that the patch is taken from.
    operands : list of Operand
        The single numbers that went in.
    note : str
        What else to know; for ``unknown``, why.
    node, op, unit, sample
        What was asked: layer, operation (``conv2d``), unit without batch axis, sample.
    changed_by : list of str
        The interventions that changed this number once it was there, as Python: `result` is what the layer
        itself gave, `actual` what they made of it.
    at : str
        Id of the node whose operation made the number (of a group: in it).
    actual : float
        The number in the real tensor.
    scale : float
        Largest magnitude of the layer's output and of the terms.
    """

    kind: str
    formula: str = ""
    result: float = float("nan")
    numbers: dict[str, float] = field(default_factory=dict)
    arrays: dict[str, Tensor] = field(default_factory=dict)
    places: Tensor | None = None
    source: str = ""
    first: int = 0
    operands: list[Operand] = field(default_factory=list)
    note: str = ""
    node: str = ""
    op: str = ""
    unit: tuple[int, ...] = ()
    sample: int = 0
    changed_by: list[str] = field(default_factory=list)
    at: str = ""
    actual: float = float("nan")
    scale: float = 1.0

    @property
    def known(self) -> bool:
        """Whether the operation is taken apart."""
        return self.kind != "unknown"

    @property
    def error(self) -> float:
        """Difference of result and real number, as a share of the scale; NaN where that was changed."""
        if self.changed_by:
            return float("nan")
        if self.result == self.actual:
            return 0.0
        return abs(self.result - self.actual) / max(self.scale, 1e-30)

    @property
    def by_channel(self) -> Tensor | None:
        """Sum of the products of each channel, ``[C]``; None where there are no products."""
        products = self.arrays.get("products")
        return None if products is None else products.reshape(products.shape[0], -1).sum(1)

    def __str__(self) -> str:
        steps = ", ".join(f"{name} {value:.6g}" for name, value in self.numbers.items())
        says = f"{self.node}{list(self.unit)} = {self.actual:.6g}: {self.formula or self.note}"
        says = f"{says} ({steps})" if steps else says
        return f"{says}, changed by {', '.join(self.changed_by)}" if self.changed_by else says


@dataclass
class Curve:
    """An activation function over the range of its real inputs.

    Attributes
    ----------
    node, op : str
        Layer and function.
    formula : str
        In one line.
    x, y, slope : Tensor
        Points of the curve, and its derivative there, ``[P]``, float64.
    counts, edges : Tensor
        Histogram of the layer's real inputs, ``[B]`` and ``[B + 1]``.
    saturated : float
        Fraction of the real inputs at which the derivative is smaller than 0.05 in magnitude.
    inputs : int
        How many finite inputs there are.
    note : str
        What else to know.
    """

    node: str
    op: str
    formula: str
    x: Tensor
    y: Tensor
    slope: Tensor
    counts: Tensor
    edges: Tensor
    saturated: float
    inputs: int
    note: str = ""
