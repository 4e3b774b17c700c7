"""Convolutions as the processor's library computes them best: weights in its order, what follows folded in.

oneDNN computes with weights in blocks, and torch puts them into blocks at each call. With a large batch that
is lost in the work; with one variant, of which perhaps a corner is computed, it is most of it: half of the
time of the last stage of ResNet-18, nine tenths of that of a corner of 8 by 8. Within a replay weights do not
change, so they are put in order once. Where strokes are followed, a batch norm behind them is a part of them,
and a ReLU one of the call. Values have their channels innermost, as the library takes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnviz_widget.engine.recording import STATE, Ref
from nnviz_widget.engine.replay.patches import CHANNELS_LAST

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from nnviz_widget.engine.recording import Op

__all__ = ["CONVOLUTION", "Kernels"]

#: What the arguments are called, in order.
CONVOLUTION = "input weight bias stride padding dilation groups"
_NORM = "input running_mean running_var weight bias training momentum eps"
#: Axes that windows move along, by the name of the operation.
_AXES = {"conv2d": 2, "conv3d": 3}
#: Weights may take this share of the bytes that a replay may hold.
_SHARE = 0.25


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

    def tail(self, op: Op, seen: Container[Ref]) -> list[Op]:
        """Return what follows a convolution and is computed along with it.

        Parameters
        ----------
        op : Op
            Of the plan.
        seen : container of Ref
            Values that are asked for, or changed, and so have to be there.
        """
        if op.index not in self._known:
            return []
        norm = self._next(op, seen)
        if norm is None or norm.name != "batch_norm" or not self._constant(norm):
            return []
        relu = self._next(norm, seen)
        return [norm, relu] if relu is not None and relu.name == "relu" else [norm]

    def run(
        self, op: Op, args: Sequence[Any], kwargs: Mapping[str, Any], tail: Sequence[Op] = ()
    ) -> Tensor | None:
        """Run a convolution.

        Parameters
        ----------
        op : Op
            Of the plan.
        args, kwargs
            Tensors in the place of references.
        tail : sequence of Op
            As `tail` returns it.

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
        key = (op.index, len(tail))
        if key not in self._ordered:
            weight, bias = self._folded(given["weight"], given.get("bias"), tail)
            try:
                weight = torch.ops.mkldnn._reorder_convolution_weight(
                    weight, *how, given.get("groups", 1), list(x.shape)
                )
            except (AttributeError, RuntimeError):  # not in this version of torch, or not on this processor
                self._known.clear()
                return None
            self._ordered[key] = weight, bias
        weight, bias = self._ordered[key]
        last = "relu" if len(tail) > 1 else "none"
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, *how, given.get("groups", 1), last, [], ""
        )
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

    def _constant(self, norm: Op) -> bool:
        """Whether a batch norm does the same to every sample, whatever the others are."""
        given = {**dict(zip(_NORM.split(), norm.args, strict=False)), **norm.kwargs}
        refs = [given.get(name) for name in ("running_mean", "running_var", "weight", "bias")]
        return given.get("training", False) is False and self._states(refs)

    def _states(self, refs: Sequence[Any]) -> bool:
        return all(isinstance(ref, Ref) and self._ops[ref.op].kind in STATE for ref in refs)

    def _folded(
        self, weight: Tensor, bias: Tensor | None, tail: Sequence[Op]
    ) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias of a convolution with the batch norm behind it."""
        if not tail:
            return weight, bias
        given = {**dict(zip(_NORM.split(), tail[0].args, strict=False)), **tail[0].kwargs}
        mean, variance, scale, shift = (
            self._base(given[name]).double() for name in ("running_mean", "running_var", "weight", "bias")
        )
        scale = scale / (variance + given.get("eps", 1e-5)).sqrt()
        shift = shift + ((0.0 if bias is None else bias.double()) - mean) * scale
        wide = weight.double() * scale.reshape(-1, *[1] * (weight.dim() - 1))
        return wide.to(weight.dtype), shift.to(weight.dtype)


_HOW = (("padding", 0), ("stride", 1), ("dilation", 1))


def _each(value: Any, count: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
