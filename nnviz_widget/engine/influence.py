"""What one number of the input does to every layer: exact derivatives forward, and the effect of changing it.

A gradient asks one output about all inputs; this asks one input about all outputs. Forward-mode derivatives
answer it in a single recorded pass. Where an operation has none, the derivative is taken backward twice (a
gradient is linear in what it is weighted with; its own gradient on these weights is the product sought), and
where that fails too, by central differences. `Influence.how` says which it was.

J. Revels et al. 2016, arXiv:1607.07892 (forward mode); J. Townsend 2017 (backward twice).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from nnviz_widget.engine.passes import graph_of
from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.recording import tensors_of
from nnviz_widget.errors import InputError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.recording import Recording
    from nnviz_widget.engine.trace import Trace
    from nnviz_widget.engine.twin import Twin

__all__ = ["Influence", "influence", "place_of"]

FORWARD, BACKWARD, DIFFERENCES = "forward mode", "backward twice", "finite differences"


@dataclass(frozen=True)
class Influence:
    """How every layer depends on one number of the input, or on all channels of one pixel together.

    Attributes
    ----------
    derivatives : dict of str to Tensor
        By node and group id: d activation / d input, of the shape of the activation. For a pixel, the
        derivative on brightening all its channels by the same amount.
    measured : dict of str to Tensor
        The activation with the pixel changed minus that without; empty where no `change` was asked for.
    how : str
        ``"forward mode"``, ``"backward twice"`` or ``"finite differences"``; the first two are exact.
    why : str
        Why it is not forward mode; empty where it is.
    place : tuple of slice or int
        Which part of the input was moved, with the batch axis.
    change : float
        How far the input was changed for `measured`; 0 for not at all.
    epoch : int
        Of the weights.
    consistent : bool
        False where they moved meanwhile.
    """

    derivatives: dict[str, Tensor]
    measured: dict[str, Tensor]
    how: str
    why: str
    place: tuple[Any, ...]
    change: float
    epoch: int
    consistent: bool

    def strength(self) -> dict[str, float]:
        """Return how strongly each layer answers: the length (l2) of its derivative, by id."""
        return {name: float(torch.linalg.vector_norm(d.double())) for name, d in self.derivatives.items()}


def place_of(shape: Sequence[int], pixel: Any, sample: int) -> tuple[Any, ...]:
    """Return the index of a pixel or a single number in an input.

    Parameters
    ----------
    shape : sequence of int
        Of the input, with its batch axis.
    pixel : int or tuple of int
        An index in one sample; or, where that has more axes, ``(y, x)`` for all channels.
    sample : int
        Index in the batch.

    Raises
    ------
    InputError
        There is no such place.
    """
    index = (pixel,) if isinstance(pixel, int) else tuple(pixel) if isinstance(pixel, (tuple, list)) else ()
    sizes = tuple(shape[1:])
    whole = len(sizes) - len(index)
    fits = index and all(type(i) is int for i in index) and (whole == 0 or (whole == 1 and len(index) == 2))
    if not fits or not all(0 <= i < size for i, size in zip(index, sizes[whole:], strict=True)):
        raise InputError(
            f"pixel={pixel!r} is no place in an input of shape {sizes}.",
            hint="Give (y, x) for all channels of a pixel, or a whole index without the batch axis.",
        )
    if type(sample) is not int or not 0 <= sample < shape[0]:
        raise InputError(f"sample={sample!r} does not exist; this pass has {shape[0]}, from 0.")
    return (sample, *[slice(None)] * whole, *index)


def influence(
    twin: Twin,
    trace: Trace,
    pixel: Any,
    names: Sequence[str],
    *,
    sample: int,
    change: float,
    token: CancelToken,
) -> Influence:
    """Return what one number of the input, or one pixel, does to some layers.

    Parameters
    ----------
    twin : Twin
        The model.
    trace : Trace
        Gives the input: its first tensor of floating point.
    pixel, sample
        As for `place_of`.
    names : sequence of str
        Ids of nodes and groups.
    change : float
        How far to change the input for the measured effect; 0 measures none.
    token : CancelToken
        Looked at at every operation.
    """
    source = next((t for t in trace.inputs if t.is_floating_point()), None)
    if source is None:
        raise InputError("The inputs are whole numbers, on which nothing has a derivative.")
    place = place_of(source.shape, pixel, sample)
    named = tensors_of(trace.args) + tensors_of(trace.kwargs)
    given = next(name for name, tensor in named if tensor is source)
    direction = torch.zeros_like(source)
    direction[place] = 1

    def run(module: nn.Module, _: int) -> tuple[dict[str, Tensor], dict[str, Tensor], str, str]:
        ask = _Asking(module, trace, source, direction, names=frozenset(names), token=token)
        with twin.running():
            found, way, why = ask.derive()
            measured = ask.changed(change) if change else {}
        # What was given to the model moves by as much as it is moved.
        for name in found.keys() & trace.refs.keys():
            op = trace.ops[trace.refs[name].op]
            if op.kind == "input" and (len(trace.inputs) == 1 or op.name == given):
                found[name] = direction
        return found, measured, way, why

    (found, measured, how, why), epoch, consistent = twin.steadily(run)
    return Influence(found, measured, how, why, place, change, epoch, consistent)


class _Asking:
    """One question, and the ways to answer it."""

    def __init__(
        self,
        module: nn.Module,
        trace: Trace,
        source: Tensor,
        direction: Tensor,
        *,
        names: frozenset[str],
        token: CancelToken,
    ) -> None:
        self.module = module
        self.trace = trace
        self.source = source
        self.direction = direction
        self.names = names
        self.token = token

    def derive(self) -> tuple[dict[str, Tensor], str, str]:
        """Return the derivatives, how they were taken, and why not in the best way."""
        try:
            return self.forward(), FORWARD, ""
        except (RuntimeError, ModelError) as error:
            why = str(error).splitlines()[0][:200]
        try:
            return self.backward(), BACKWARD, why
        except (RuntimeError, ModelError):
            return self.differences(), DIFFERENCES, why

    def record(self, value: Tensor, *, grad: bool) -> Recording:
        """Run the model with another tensor in the place of the source."""
        swap = _swapper(self.source, value)
        args = tuple(swap(part) for part in self.trace.args)
        kwargs = {key: swap(part) for key, part in self.trace.kwargs.items()}
        # Only this kind of attention has derivatives of every sort.
        with sdpa_kernel(SDPBackend.MATH):
            return record(self.module, args, kwargs, keep=self.names, grad=grad, token=self.token)

    def forward(self) -> dict[str, Tensor]:
        """Take derivatives in one pass of dual numbers."""
        found: dict[str, Tensor] = {}
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(self.source.detach(), self.direction)  # type: ignore[no-untyped-call]
            run = self.record(dual, grad=False)
            for name, value in _floating(run.activations).items():
                tangent = forward_ad.unpack_dual(value).tangent  # type: ignore[no-untyped-call]
                found[name] = torch.zeros_like(value) if tangent is None else tangent.detach().clone()
        return found

    def backward(self) -> dict[str, Tensor]:
        """Take the gradient of the gradient on the weights of the outputs, in which it is linear."""
        source = self.source.detach().clone().requires_grad_()
        values = _floating(self.record(source, grad=True).activations)
        moving = {name: value for name, value in values.items() if value.requires_grad}
        found = {name: torch.zeros_like(value) for name, value in values.items()}
        if not moving:
            return found
        with torch.enable_grad():
            weights = [torch.zeros_like(value, requires_grad=True) for value in moving.values()]
            (pulled,) = torch.autograd.grad(
                list(moving.values()), source, weights, create_graph=True, allow_unused=True
            )
            if pulled is None or not pulled.requires_grad:
                return found
            if any(node.name().endswith("::Error") for node in graph_of(pulled)):
                raise RuntimeError("An operation of the model allows one gradient only.")
            pushed = torch.autograd.grad(pulled, weights, self.direction, allow_unused=True)
        for name, derivative in zip(moving, pushed, strict=True):
            if derivative is not None:
                found[name] = derivative.detach()
        return found

    def differences(self) -> dict[str, Tensor]:
        """Take central differences, with the step that balances cutting off and rounding."""
        step = torch.finfo(self.source.dtype).eps ** (1 / 3) * max(1.0, float(self.source.abs().max()))
        return {
            name: value / (2 * step)
            for name, value in self.between(self.source - step * self.direction, step).items()
        }

    def between(self, low: Tensor, step: float) -> dict[str, Tensor]:
        """Return the activations two steps on minus those here."""
        before = _floating(self.record(low, grad=False).activations)
        after = _floating(self.record(low + 2 * step * self.direction, grad=False).activations)
        return {name: after[name] - value for name, value in before.items() if name in after}

    def changed(self, change: float) -> dict[str, Tensor]:
        """Return what a change of this size does, as it is."""
        return self.between(self.source, change / 2)


def _floating(activations: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in activations.items() if value.is_floating_point()}


def _swapper(old: Tensor, new: Tensor) -> Callable[[Any], Any]:
    return lambda part: tree_map(lambda leaf: new if leaf is old else leaf, part)
