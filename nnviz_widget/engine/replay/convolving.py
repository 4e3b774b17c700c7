"""Convolutions as the processor's library computes them best: weights in its order, what follows folded in.

oneDNN computes with weights in blocks, and torch puts them into blocks at each call. With a large batch that
is lost in the work; with one variant, of which perhaps a corner is computed, it is most of it: half of the
time of the last stage of ResNet-18, nine tenths of that of a corner of 8 by 8. Within a replay weights do not
change, so they are put in order once. Where strokes are followed, a batch norm behind them is a part of them,
and the sum with a residual and a ReLU are parts of the call. Values have their channels innermost, as the
library takes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from nnviz_widget.engine.recording import STATE, Ref
from nnviz_widget.engine.replay.patches import CHANNELS_LAST

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from nnviz_widget.engine.recording import Op

__all__ = ["ALONE", "CONVOLUTION", "Kernels", "Tail"]

#: What the arguments are called, in order.
CONVOLUTION = "input weight bias stride padding dilation groups"
_NORM = "input running_mean running_var weight bias training momentum eps"
#: Axes that windows move along, by the name of the operation.
_AXES = {"conv2d": 2, "conv3d": 3}
#: Weights may take this share of the bytes that a replay may hold.
_SHARE = 0.25


class Tail(NamedTuple):
    """What follows a convolution and is computed along with it, in this order; any of it may be missing."""

    norm: Op | None = None
    add: Op | None = None
    relu: Op | None = None
    #: What is added.
    beside: Ref | None = None

    @property
    def ops(self) -> list[Op]:
        """The operations."""
        return [op for op in (self.norm, self.add, self.relu) if op is not None]


ALONE = Tail()


class Kernels:
    """The convolutions of one plan.

    Parameters
    ----------
    ops : list of Op
        Of the plan.
    base : callable
        Tensor of a parameter or buffer.
    budget : int
        Bytes that the replay may hold, of which weights take a part.

    Attributes
    ----------
    nbytes : int
        What weights take.
    """

    def __init__(self, ops: list[Op], base: Callable[[Ref], Tensor], budget: int) -> None:
        self.nbytes = 0
        self._ops, self._base = ops, base
        self._room = int(budget * _SHARE)
        self._readers: dict[Ref, list[Op]] = {}
        for op in ops:
            for ref in op.inputs:
                self._readers.setdefault(ref, []).append(op)
        self._ordered: dict[tuple[int, int], tuple[Tensor, Tensor | None]] = {}
        usable = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled  # type: ignore[no-untyped-call]
        self._known = {op.index for op in ops if usable and self._fits(op)}

    def tail(self, op: Op, seen: Container[Ref]) -> Tail:
        """Return what follows a convolution and can be computed along with it.

        Parameters
        ----------
        op : Op
            Of the plan.
        seen : container of Ref
            Values that are asked for, or changed, and so have to be there.
        """
        if op.index not in self._known:
            return ALONE
        last, tail = op, ALONE
        follower = self._next(last, seen)
        if follower is not None and follower.name == "batch_norm" and self._constant(follower):
            last, tail = follower, tail._replace(norm=follower)
            follower = self._next(last, seen)
        if follower is not None and follower.name == "add":
            beside = _added(follower, Ref(last.index))
            # Of two branches that meet, the one that is computed later adds the other.
            if beside is None or beside.op >= op.index or not self._alike(beside, op):
                return tail
            last, tail = follower, tail._replace(add=follower, beside=beside)
            follower = self._next(last, seen)
        if follower is not None and follower.name == "relu":
            tail = tail._replace(relu=follower)
        return tail

    def run(
        self,
        op: Op,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        tail: Tail = ALONE,
        beside: Tensor | None = None,
    ) -> Tensor | None:
        """Run a convolution.

        Parameters
        ----------
        op : Op
            Of the plan.
        args, kwargs
            Tensors in the place of references.
        tail : Tail
            As `tail` returns it.
        beside : Tensor, optional
            What the tail adds, of the shape of the result.

        Returns
        -------
        Tensor or None
            What the last of the tail gives; None where torch is to run the convolution itself, and the tail.
        """
        if op.index not in self._known:
            return None
        given = {**dict(zip(CONVOLUTION.split(), args, strict=False)), **kwargs}
        x = self.arranged(given["input"])
        count = _AXES[op.name]
        # In the order in which the library takes them.
        how = [_each(given.get(name, default), count) for name, default in _HOW]
        key = (op.index, tail.norm is not None)
        if key not in self._ordered:
            weight, bias = self._folded(given["weight"], given.get("bias"), tail.norm)
            try:
                weight = torch.ops.mkldnn._reorder_convolution_weight(
                    weight, *how, given.get("groups", 1), list(x.shape)
                )
            except (AttributeError, RuntimeError):  # not in this version of torch, or not on this processor
                self._known.clear()
                return None
            self._ordered[key] = weight, bias
        weight, bias = self._ordered[key]
        relu = "relu" if tail.relu is not None else None
        how = [*how, given.get("groups", 1)]
        made: Tensor
        if beside is None:
            made = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *how, relu or "none", [], "")
        else:
            terms = x, self.arranged(beside), weight, bias
            made = torch.ops.mkldnn._convolution_pointwise.binary(*terms, *how, "add", 1.0, relu, [], "")
        return made

    def arranged(self, value: Tensor) -> Tensor:
        """Return a value in the order that these convolutions take: channels innermost.

        So a pixel is one stretch of memory, which boxes are cut from and laid into faster, too.
        """
        inner = CHANNELS_LAST.get(value.dim()) if self._known else None
        return value if inner is None else value.contiguous(memory_format=inner)

    # -- inside ---------------------------------------------------------------------------------------------

    def _fits(self, op: Op) -> bool:
        """Whether the library computes a convolution, and there is room for its weights in another order."""
        if op.name not in _AXES or op.kind != "call":
            return False
        given = {**dict(zip(CONVOLUTION.split(), op.args, strict=False)), **op.kwargs}
        refs = [given.get("weight"), *([given["bias"]] if given.get("bias") is not None else [])]
        if not self._states(refs) or isinstance(given.get("padding", 0), str):
            return False
        tensors = [self._base(ref) for ref in refs]
        size = _bytes(tensors[0])
        plain = all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in tensors)
        batched = len(op.outputs[0].shape) == _AXES[op.name] + 2
        if (
            not plain
            or not batched
            or op.outputs[0].dtype != torch.float32
            or self.nbytes + size > self._room
        ):
            return False
        self.nbytes += size
        return True

    def _next(self, op: Op, seen: Container[Ref]) -> Op | None:
        """Return the one operation that reads what this one gave, where nobody else wants it."""
        ref = Ref(op.index)
        readers = self._readers.get(ref, [])
        if len(op.outputs) != 1 or ref in seen or len(readers) != 1 or readers[0].kind != "call":
            return None
        return readers[0]

    def _alike(self, beside: Ref, op: Op) -> bool:
        """Whether a value was computed, and is of the kind that a convolution gives."""
        other, made = self._ops[beside.op].outputs[beside.port], op.outputs[0]
        computed = self._ops[beside.op].kind not in STATE
        return computed and (tuple(other.shape), other.dtype) == (tuple(made.shape), made.dtype)

    def _constant(self, norm: Op) -> bool:
        """Whether a batch norm does the same to every sample, whatever the others are."""
        given = {**dict(zip(_NORM.split(), norm.args, strict=False)), **norm.kwargs}
        refs = [given.get(name) for name in ("running_mean", "running_var", "weight", "bias")]
        return given.get("training", False) is False and self._states(refs)

    def _states(self, refs: Sequence[Any]) -> bool:
        return all(isinstance(ref, Ref) and self._ops[ref.op].kind in STATE for ref in refs)

    def _folded(self, weight: Tensor, bias: Tensor | None, norm: Op | None) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias of a convolution with the batch norm behind it."""
        if norm is None:
            return weight, bias
        given = {**dict(zip(_NORM.split(), norm.args, strict=False)), **norm.kwargs}
        mean, variance, scale, shift = (
            self._base(given[name]).double() for name in ("running_mean", "running_var", "weight", "bias")
        )
        scale = scale / (variance + given.get("eps", 1e-5)).sqrt()
        shift = shift + ((0.0 if bias is None else bias.double()) - mean) * scale
        wide = weight.double() * scale.reshape(-1, *[1] * (weight.dim() - 1))
        return wide.to(weight.dtype), shift.to(weight.dtype)


def _added(op: Op, mine: Ref) -> Ref | None:
    """Return what a sum adds to one of its terms; None where it is not the plain sum of two values."""
    others = [ref for ref in op.inputs if ref != mine]
    plain = not op.kwargs and len(op.args) == 2 and all(isinstance(term, Ref) for term in op.args)
    return others[0] if plain and len(others) == 1 and len(op.inputs) == 2 else None


_HOW = (("padding", 0), ("stride", 1), ("dilation", 1))


def _each(value: Any, count: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
