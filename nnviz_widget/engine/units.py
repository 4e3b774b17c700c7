"""The gradient of one unit on the input, from a kept graph.

The first question about a layer runs the model up to that layer with autograd and keeps the graph; every
further one about the same layer, input and weights is a single ``torch.autograd.grad`` and no forward. A
graph belongs to one epoch of the weights, and is dropped with the trace that it belongs to, or when the byte
budget is full (the least recently used first). Only gradients on inputs are asked for, so nothing reaches the
model's parameters.

Which thread, and whether weights hold still meanwhile, is the business of ``jobs`` and ``twin``.
"""

from __future__ import annotations

import math
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from nnviz_widget.engine.activations import storage_key
from nnviz_widget.engine.interventions import current
from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.watch import Held
from nnviz_widget.errors import InputError, ModelError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.recording import Recording
    from nnviz_widget.engine.trace import Trace
    from nnviz_widget.engine.twin import Twin

__all__ = ["Saliency", "Units", "locate"]

_CHUNK_SECONDS = 0.025  # a cancel is looked for about this often inside one backward
_TOGETHER = 32  # units in one backward

Asked = TypeVar("Asked")


@dataclass(frozen=True)
class Saliency:
    """How one unit depends on the input.

    Attributes
    ----------
    values : Tensor or tuple of Tensor
        d unit / d input, of the shape of the input; a tuple in the order of `Trace.inputs` where several of
        them are of floating point.
    value : float
        The unit's own activation; of a complex one the real part, which is also what the gradient is of.
    epoch : int
        Of the weights that both were computed from; larger than the trace's where the model was trained
        since.
    consistent : bool
        False where the weights moved while it was computed, and could not be held still.
    """

    values: Tensor | tuple[Tensor, ...]
    value: float
    epoch: int
    consistent: bool


def locate(shape: tuple[int, ...], unit: object, sample: object, name: str) -> tuple[int, ...]:
    """Return the index of a unit in an activation: the sample, then the unit's own.

    Raises
    ------
    InputError
        It does not lie within the activation.
    """
    parts = (unit,) if isinstance(unit, int) else unit
    if not shape:
        raise InputError(f"The activation of {name!r} is a single number; it has no samples and no units.")
    if not isinstance(parts, (tuple, list)) or not all(type(part) is int for part in parts):
        raise InputError(
            f"A unit is a tuple of whole numbers, not {unit!r}.",
            hint=f"The activation of one sample of {name!r} has the shape {shape[1:]}.",
        )
    if len(parts) != len(shape) - 1:
        raise InputError(
            f"unit={tuple(parts)} has {len(parts)} number(s), but the activation of one sample of {name!r} "
            f"has the shape {shape[1:]}.",
            hint="Give one number for each of its axes, without the batch axis.",
        )
    if type(sample) is not int or not 0 <= sample < shape[0]:
        raise InputError(f"sample={sample!r} does not exist; this pass has {shape[0]} sample(s), from 0.")
    if not all(0 <= part < size for part, size in zip(parts, shape[1:], strict=True)):
        raise InputError(f"unit={tuple(parts)} lies outside the activation of {name!r}, {shape[1:]} from 0.")
    return (sample, *parts)


class Units:
    """The kept graphs of one engine.

    Parameters
    ----------
    twin : Twin
        The model.
    budget : int
        Bytes that the graphs may hold together. One that is larger on its own is used once and not kept.
    """

    def __init__(self, twin: Twin, budget: int) -> None:
        self._budget = budget
        self._twin = twin
        self._graphs: OrderedDict[tuple[int, str], _Graph] = OrderedDict()

    @property
    def budget(self) -> int:
        """Bytes that the graphs may hold together."""
        return self._budget

    @budget.setter
    def budget(self, budget: int) -> None:
        self._budget = budget
        self._evict()

    @property
    def nbytes(self) -> int:
        """Bytes held by the graphs, weights not counted."""
        return sum(graph.nbytes for graph in list(self._graphs.values()))

    def saliency(self, trace: Trace, name: str, unit: object, sample: object, token: CancelToken) -> Saliency:
        """Return the gradient of a unit on the input.

        Parameters
        ----------
        trace : Trace
            The pass whose input to take.
        name : str
            Id of the node or group that holds the unit.
        unit : int or tuple of int
            Index in the activation of one sample.
        sample : int
            Which sample of the batch.
        token : CancelToken
            Checked at every operation of a forward, and every 25 ms or so of a backward.
        """

        def of(graph: _Graph) -> tuple[tuple[Tensor, ...], float]:
            index = locate(tuple(graph.activation.shape), unit, sample, name)
            value = graph.activation.detach()[index]
            return graph.gradient(index, token), float(value.real if value.is_complex() else value)

        (values, value), epoch, consistent = self._asked(trace, name, of, token)
        return Saliency(values[0] if len(values) == 1 else values, value, epoch, consistent)

    def saliencies(
        self, trace: Trace, name: str, units: Sequence[object], sample: object, token: CancelToken
    ) -> tuple[Tensor, ...]:
        """Return the gradients of several units on each input, ``[units, ...]``, as `saliency` takes them."""

        def of(graph: _Graph) -> tuple[Tensor, ...]:
            shape = tuple(graph.activation.shape)
            return graph.gradients([locate(shape, unit, sample, name) for unit in units], token)

        return self._asked(trace, name, of, token)[0]

    def _asked(
        self, trace: Trace, name: str, of: Callable[[_Graph], Asked], token: CancelToken
    ) -> tuple[Asked, int, bool]:
        """Ask a graph, with the epoch of its weights, and whether they held still meanwhile."""
        if not any(_differentiable(tensor) for tensor in trace.inputs):
            raise InputError(
                "The inputs are whole numbers (token ids, say), on which nothing has a gradient.",
                hint="Pass the embeddings instead, if the model takes them.",
            )

        def run(module: nn.Module, epoch: int) -> Asked:
            return of(self._graph(module, epoch, trace, name, token))

        def kept(epoch: int) -> Held | None:
            graph = self._graphs.get((id(trace), name))
            return graph.held if graph is not None and graph.fits(epoch) else None

        try:
            try:
                return self._twin.steadily(run, kept)
            except (torch.OutOfMemoryError, OutOfMemoryError):
                self.clear()
                return self._twin.steadily(run)
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"The device ran out of memory in the backward pass from {name!r}.",
                hint="Trace fewer samples at a time, or a smaller input.",
            ) from error
        except RuntimeError as error:
            raise ModelError(
                f"Autograd refuses the backward pass from {name!r}: {error}",
                hint="The model cannot be differentiated this way by autograd itself either.",
                node=name,
                trace=trace,
            ) from error

    def clear(self) -> None:
        """Let go of every graph."""
        self._graphs.clear()

    def _graph(self, module: nn.Module, epoch: int, trace: Trace, name: str, token: CancelToken) -> _Graph:
        key = (id(trace), name)
        kept = self._graphs.get(key)
        if kept is not None and kept.fits(epoch):
            self._graphs.move_to_end(key)
            return kept
        for stale in [k for k, graph in self._graphs.items() if graph.epoch != epoch]:
            self._graphs.pop(stale, None)
        graph = self._build(module, epoch, trace, name, token)
        if graph.nbytes <= self.budget:
            # The graph goes with the trace.
            graph.owner = weakref.ref(trace, _forget(weakref.ref(self), key))
            self._graphs[key] = graph
            self._evict()
        return graph

    def _evict(self) -> None:
        while self._graphs and self.nbytes > self._budget:
            self._graphs.popitem(last=False)

    def _build(self, module: nn.Module, epoch: int, trace: Trace, name: str, token: CancelToken) -> _Graph:
        leaves: dict[int, Tensor] = {}

        def leaf(value: Any) -> Any:
            if not isinstance(value, Tensor) or not _differentiable(value):
                return value
            return leaves.setdefault(id(value), value.detach().requires_grad_())

        args, kwargs = tree_map(leaf, (trace.args, trace.kwargs))
        if not leaves:
            raise InputError(
                "The input tensors are inside an object that is not looked into.",
                hint="Pass tensors, or lists, tuples and dicts of tensors.",
            )
        with self._twin.running():
            run = record(module, args, kwargs, keep=None, grad=True, stop_at=name, token=token)
        if run.stopped is None:
            raise InputError(
                f"{name!r} gave no value this time: which layers run depends on values that have changed.",
                hint="Trace the input again.",
            )
        if not run.stopped.requires_grad:
            raise InputError(
                f"No gradient flows from {name!r} to the input: it is made of whole numbers, or of "
                "constants, or the model detaches it.",
                hint="Choose another layer.",
            )
        weights = {storage_key(tensor) for tensor in (*module.parameters(), *module.buffers())}
        return _Graph(
            list(leaves.values()),
            run.stopped,
            epoch=epoch,
            seconds=run.seconds,
            weights=weights,
            held=self._held(run),
        )

    def _held(self, run: Recording) -> Held:
        """Watch the tensors of the model that a pass used, also where it ran on copies of them."""
        module = self._twin.module
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        used = [
            tensors[op.name] for op in run.ops if op.kind in {"parameter", "buffer"} and op.name in tensors
        ]
        return Held([*used, *(op.value for op in run.ops if op.value is not None)])


def _forget(units: weakref.ref[Units], key: tuple[int, str]) -> Callable[[object], None]:
    """Return a callback that drops a graph and keeps nothing alive itself."""

    def forget(_: object) -> None:
        alive = units()
        if alive is not None:
            alive._graphs.pop(key, None)

    return forget


class _Graph:
    """The autograd graph from an input to one layer's activation."""

    def __init__(
        self,
        leaves: list[Tensor],
        activation: Tensor,
        *,
        epoch: int,
        seconds: float,
        weights: set[int],
        held: Held,
    ) -> None:
        self.leaves = leaves
        self.activation = activation
        self.epoch = epoch
        self.interventions = current()
        self.held = held
        self.owner: weakref.ref[Trace] | None = None
        self._check = _Check()
        nodes = sorted(_nodes(activation), key=lambda node: node._sequence_nr())
        self.nbytes = _saved_bytes(nodes, activation, weights)
        # A long backward is one call into C++; a few hooks, evenly spread over its nodes, look for a cancel.
        stops = min(len(nodes), math.ceil(2 * seconds / _CHUNK_SECONDS)) - 1
        for i in range(1, stops + 1):
            nodes[i * len(nodes) // (stops + 1)].register_prehook(self._check)

    def fits(self, epoch: int) -> bool:
        """Whether this is the graph of the network as it is now."""
        return self.epoch == epoch and self.interventions == current()

    def gradient(self, index: tuple[int, ...], token: CancelToken) -> tuple[Tensor, ...]:
        """Return the gradient of one element of the activation on each leaf; keeps the graph."""
        # One number, not a gradient to start from: given a tensor, the first call in a process imports sympy,
        # and somebody's first click would wait most of a second for it.
        with torch.enable_grad():
            unit = self.activation[index]
            unit = unit.real if unit.is_complex() else unit
        token.check()
        self._check.token = token
        try:
            found = torch.autograd.grad(unit, self.leaves, retain_graph=True, allow_unused=True)
        finally:
            self._check.token = None
        return tuple(
            torch.zeros_like(leaf) if gradient is None else _at_least_float32(gradient)
            for gradient, leaf in zip(found, self.leaves, strict=True)
        )

    def gradients(self, indices: Sequence[tuple[int, ...]], token: CancelToken) -> tuple[Tensor, ...]:
        """Return the gradients of several elements on each leaf, ``[units, ...]``, many in one backward."""
        found: list[tuple[Tensor, ...]] = []
        for start in range(0, len(indices), _TOGETHER):
            some = indices[start : start + _TOGETHER]
            try:
                found.append(self._batched(some, token))
            except RuntimeError:  # an operation that knows no batch of gradients
                each = [self.gradient(index, token) for index in some]
                found.append(tuple(torch.stack(column) for column in zip(*each, strict=True)))
        return tuple(torch.cat(column) for column in zip(*found, strict=True))

    def _batched(self, indices: Sequence[tuple[int, ...]], token: CancelToken) -> tuple[Tensor, ...]:
        ways = torch.zeros(len(indices), *self.activation.shape).to(self.activation)
        ways[(torch.arange(len(indices)), *torch.tensor(indices).unbind(1))] = 1
        token.check()
        self._check.token = token
        try:
            found = torch.autograd.grad(
                self.activation,
                self.leaves,
                ways,
                retain_graph=True,
                allow_unused=True,
                is_grads_batched=True,
            )
        finally:
            self._check.token = None
        return tuple(
            leaf.new_zeros(len(indices), *leaf.shape) if gradient is None else _at_least_float32(gradient)
            for gradient, leaf in zip(found, self.leaves, strict=True)
        )


class _Check:
    """A hook on a node of the graph. It holds no graph, so that no circle keeps memory."""

    token: CancelToken | None = None

    def __call__(self, _: object) -> None:
        if self.token is not None:
            self.token.check()


def _nodes(activation: Tensor) -> Iterator[Any]:
    """Yield the nodes of the autograd graph behind a tensor."""
    waiting, seen = [activation.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += [following for following, _ in node.next_functions]


def _saved_bytes(nodes: list[Any], activation: Tensor, weights: set[int]) -> int:
    """Return the bytes of what the nodes saved for their backward, each memory once, without the weights."""
    sizes = {storage_key(activation): activation.untyped_storage().nbytes()}
    for node in nodes:
        for name in _saved_names(type(node)):
            try:
                saved = getattr(node, name)
            except (RuntimeError, AttributeError):
                continue
            for tensor in saved if isinstance(saved, (tuple, list)) else (saved,):
                if isinstance(tensor, Tensor) and storage_key(tensor):
                    sizes[storage_key(tensor)] = tensor.untyped_storage().nbytes()
    return sum(size for key, size in sizes.items() if key not in weights)


_names: dict[type, list[str]] = {}


def _saved_names(kind: type) -> list[str]:
    if kind not in _names:
        _names[kind] = [n for n in dir(kind) if n.startswith("_saved_") or n == "saved_tensors"]
    return _names[kind]


def _differentiable(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
