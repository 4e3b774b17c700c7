"""What a comparison found: a number or three for each pair of layers, and the two runs behind them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnviz_widget.engine.comparison.similarity import examples, partners
from nnviz_widget.engine.tiles import planes
from nnviz_widget.errors import InputError, UnknownLayerError, nearest

if TYPE_CHECKING:
    from torch import nn

    from nnviz_widget.engine.trace import Trace

__all__ = ["Comparison", "Pair", "scores_in"]

_ROWS = 40  # of the printed table


@dataclass(frozen=True)
class Pair:
    """One layer of A and the one of B that it is compared with.

    Attributes
    ----------
    a, b : str
        Node or group ids.
    by : str
        How they were paired: ``"path"`` (same path, same operation) or ``"order"`` (what was left, in order
        of execution).
    group : bool
        Whether it is a pair of groups, not of layers.
    shapes : (tuple of int, tuple of int)
        Of the two activations.
    cka : float or None
        Linear CKA: 1 where one is the other but for a rotation, a reflection and one scale.
    difference : float or None
        ``|a - b| / |a|``; None where the shapes differ.
    correlation : float or None
        Of all numbers; None where the shapes differ, or one is constant.
    examples : str
        Over what CKA was taken: ``"samples"``, or ``"positions"`` of maps, series or tokens.
    count : int
        How many of them.
    note : str
        Why something is None.
    measured : bool
        False while the pair waits for its turn.
    """

    a: str
    b: str
    by: str
    group: bool
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    cka: float | None = None
    difference: float | None = None
    correlation: float | None = None
    examples: str = ""
    count: int = 0
    note: str = ""
    measured: bool = False

    def found(self, numbers: dict[str, Any]) -> Pair:
        """Return the pair with what was measured."""
        return replace(self, measured=True, **numbers)


@dataclass(frozen=True)
class Comparison:
    """Two runs beside each other: A and B.

    Attributes
    ----------
    pairs : list of Pair
        Layers, then groups, each in A's order of execution.
    only_a, only_b : list of str
        Layers without a partner.
    what : str
        ``"inputs"`` (two inputs of one model) or ``"models"`` (one input of two).
    cka : str
        ``"linear"``, or ``"unbiased"`` for linear CKA by unbiased estimates.
    a, b : Trace
        The two runs.
    scores_a, scores_b : Tensor or None
        The class scores of both, ``[N, K]``, where the output has any.
    progress : float
        From 0 to 1.
    seconds : float
        Wall time so far.
    epoch : int
        Of A's weights.
    """

    pairs: list[Pair]
    only_a: list[str]
    only_b: list[str]
    what: str
    cka: str
    a: Trace = field(repr=False)
    b: Trace = field(repr=False)
    scores_a: Tensor | None = field(repr=False)
    scores_b: Tensor | None = field(repr=False)
    progress: float = 1.0
    seconds: float = 0.0
    epoch: int = 0

    @property
    def layers(self) -> list[Pair]:
        """The pairs of layers, without those of groups."""
        return [pair for pair in self.pairs if not pair.group]

    @property
    def probabilities(self) -> tuple[Tensor, Tensor] | None:
        """Softmax of both scores, float64 ``[N, K]`` each; None where the output is no row of scores."""
        if self.scores_a is None or self.scores_b is None:
            return None
        first, second = (scores.double().softmax(1).cpu() for scores in (self.scores_a, self.scores_b))
        return first, second

    @property
    def changed(self) -> Tensor | None:
        """Whether the best class of each sample is another one, bool ``[N]``; None without scores."""
        found = self.probabilities
        return None if found is None else found[0].argmax(1) != found[1].argmax(1)

    def pair(self, layer: str | nn.Module) -> Pair:
        """Return the pair that a layer of A is in.

        Raises
        ------
        UnknownLayerError
            There is no such layer, or it has no partner.
        """
        name = self.a.resolve(layer)
        for pair in self.pairs:
            if pair.a == name:
                return pair
        known = [pair.a for pair in self.pairs]
        raise UnknownLayerError(
            f"{name!r} has no partner in B.{nearest(name, known)}",
            hint="comparison.pairs lists those that have one, comparison.only_a those that have none.",
        )

    def activations(self, layer: str | nn.Module) -> tuple[Tensor, Tensor]:
        """Return what both layers of a pair gave, each with its batch axis."""
        pair = self.pair(layer)
        return self.a.activation(pair.a), self.b.activation(pair.b)

    def map(self, layer: str | nn.Module, channel: int = 0, *, sample: int = 0) -> Tensor:
        """Return the difference map of a channel, B less A.

        Parameters
        ----------
        layer : str or nn.Module
            Of A; dotted path, node or group id, or module.
        channel : int
            Index of a feature map, or of a feature of tokens; 0 of a vector.
        sample : int
            Which sample of the batch.

        Returns
        -------
        Tensor
            float32 ``[H, W]``; ``[tokens, 1]`` of a feature, ``[1, length]`` of a vector.

        Raises
        ------
        InputError
            The two activations have different shapes, or there is no such channel.
        """
        first, second = self.stacks(layer, sample=sample)
        if first.shape != second.shape:
            raise InputError(
                f"{self.pair(layer).a!r} gives {tuple(first.shape)} in A and {tuple(second.shape)} in B, so "
                "there is no difference of the two.",
                hint="comparison.partners(layer) tells which channels go together.",
            )
        if not 0 <= channel < len(first):
            raise InputError(f"channel={channel} does not exist; there are {len(first)}, from 0.")
        return second[channel].float().cpu() - first[channel].float().cpu()

    def stacks(self, layer: str | nn.Module, *, sample: int = 0) -> tuple[Tensor, Tensor]:
        """Return one sample of both activations as ``[C, H, W]``, as the engine's tiles draw them."""
        pair = self.pair(layer)
        sides = ((self.a, pair.a), (self.b, pair.b))
        first, second = (
            planes(trace.activation(name), sample, axis=trace.channel_axis(name))[1] for trace, name in sides
        )
        return first, second

    def partners(self, layer: str | nn.Module) -> tuple[Tensor, Tensor]:
        """Return for each channel of A's layer the channel of B's that goes with it best.

        For layers with other channels, as after pruning. Over all positions of all samples.

        Returns
        -------
        index : Tensor
            int64 ``[C]``; -1 for a channel that does not vary.
        correlation : Tensor
            float32 ``[C]``: of the two channels; the largest in magnitude.

        Raises
        ------
        InputError
            The two have other positions, or there is only one.
        """
        pair = self.pair(layer)
        first, second = (
            examples(trace.activation(name), trace.channel_axis(name), -1, "positions")[0]
            for trace, name in ((self.a, pair.a), (self.b, pair.b))
        )
        if len(first) != len(second) or len(first) < 2:
            raise InputError(
                f"{pair.a!r} has {len(first)} positions in A and {len(second)} in B: nothing to go by."
            )
        return partners(first, second)

    def __str__(self) -> str:
        rows = [pair for pair in self.layers or self.pairs if pair.measured]
        width = max([len(_named(pair)) for pair in rows[:_ROWS]], default=5)
        lines = [f"{'layer':<{width}}  {'CKA':>6}  {'differs':>8}  {'corr.':>6}"]
        lines += [
            f"{_named(pair):<{width}}  {_number(pair.cka, '.3f'):>6}  {_number(pair.difference, '.1%'):>8}  "
            f"{_number(pair.correlation, '.3f'):>6}"
            for pair in rows[:_ROWS]
        ]
        lines += [f"... and {len(rows) - _ROWS} more"] if len(rows) > _ROWS else []
        for side, names in (("A", self.only_a), ("B", self.only_b)):
            if names:
                more = ", ..." if len(names) > 5 else ""
                lines.append(f"only in {side}: {', '.join(names[:5])}{more}")
        changed = self.changed
        if changed is not None and len(changed):
            lines.append(f"{int(changed.sum())} of {len(changed)} predictions changed")
        return "\n".join(lines)


def scores_in(output: Any) -> Tensor | None:
    """Return the class scores ``[N, K]`` in what a model returned, if anywhere."""
    if isinstance(output, dict) or hasattr(output, "logits"):
        output = output.get("logits") if isinstance(output, dict) else output.logits
    if isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] > 1:
        return output.detach() if torch.is_floating_point(output) else None
    return None


def _named(pair: Pair) -> str:
    return pair.a if pair.a == pair.b else f"{pair.a} | {pair.b}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
