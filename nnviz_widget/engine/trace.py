"""Answers about one recorded pass: its graph, its output, the activation and the statistics of any layer.

A trace is what `Engine.trace` returns. It keeps activations within a budget of bytes; what was let go is
computed again when asked for, by a function that the engine gives it. It runs no model itself, and knows
neither threads nor pages.
"""

from __future__ import annotations

import threading
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

from torch import nn

from nnviz_widget.engine.axes import channel_axes
from nnviz_widget.engine.recording import tensors_of
from nnviz_widget.engine.statistics import Stats, statistics
from nnviz_widget.errors import InputError, NNVizError, UnknownLayerError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from torch import Tensor

    from nnviz_widget.engine.graph import Graph
    from nnviz_widget.engine.recording import Op, Recording, Ref
    from nnviz_widget.engine.summary import Summary

__all__ = ["Stats", "Trace"]


class Trace:
    """One pass through the model.

    Parameters
    ----------
    recording : Recording
        What the recorder left.
    module_path : callable, optional
        Returns the path of a module of the user's model, or None where it is no part of it.
    recompute : callable, optional
        Takes a frozen set of ids and returns their activations, from the same weights and inputs; raises
        where these are no longer to be had.
    budget : int, optional
        Bytes of activations to hold; the ones not used for longest are let go.
    epoch : int
        The epoch of the weights that the pass used.
    frozen : frozenset of str, optional
        Names of the parameters that are not trained; by default the weights of the pass say so themselves,
        which copies of them do not know.

    Attributes
    ----------
    output : object
        What the model returned, detached.
    inputs : tuple of Tensor
        The tensors that the model was given, in order; `args` and `kwargs` are the call itself.
    ops : list of Op
        Every operation with its arguments; `refs` tells which value in it a node or group gave.
    seconds : float
        Wall time of the pass.
    consistent : bool
        False where weights moved while the pass ran.
    complete : bool
        False for the part of a pass that failed.
    kind : str
        ``run``, or ``shapes``: a pass over shapes alone, where every question about values raises.
    note : str
        Why there are only shapes, for people; empty for a run.
    interventions : tuple of Intervention
        Those that the pass ran under.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        module_path: Callable[[nn.Module], str | None] | None = None,
        recompute: Callable[[frozenset[str]], Mapping[str, Tensor]] | None = None,
        budget: int | None = None,
        epoch: int = 0,
        frozen: frozenset[str] | None = None,
    ) -> None:
        self._recording = recording
        self._frozen = frozen
        self._drawing = threading.Lock()
        self.output: Any = recording.output
        self.args: tuple[Any, ...] = recording.args
        self.kwargs: dict[str, Any] = recording.kwargs
        self.inputs: tuple[Tensor, ...] = tuple(t for _, t in tensors_of(self.args) + tensors_of(self.kwargs))
        self.ops: list[Op] = recording.ops
        self.refs: dict[str, Ref] = recording.refs
        self.seconds = recording.seconds
        self.consistent = recording.consistent
        self.complete = recording.complete
        self.kind = recording.kind
        self.note = recording.note
        self.interventions = recording.interventions
        self.epoch = epoch
        self._module_path = module_path
        self._recompute = recompute
        self._activations = recording.activations
        self._activations.budget = budget
        self._activations.shrink()

    def __repr__(self) -> str:
        return f"Trace({self.graph.model}, {len(self.graph.nodes)} nodes, {self.seconds * 1e3:.1f} ms)"

    @property
    def graph(self) -> Graph:
        """Nodes, edges and groups of the pass; drawn when first asked for."""
        with self._drawing:
            return self._recording.graph

    def resolve(self, layer: str | nn.Module, call: int = 0) -> str:
        """Return the id of the node or group that `layer` names.

        Parameters
        ----------
        layer : str or nn.Module
            Dotted path, node or group id, or a module of the model.
        call : int
            Which use of a module that is used several times, from 0.

        Raises
        ------
        UnknownLayerError
            Nothing of that name ran.
        """
        if isinstance(layer, nn.Module):
            path = self._module_path(layer) if self._module_path is not None else None
            if path is None:
                raise UnknownLayerError(f"This {type(layer).__name__} is not a part of the traced model.")
        elif isinstance(layer, str):
            path = layer
        else:
            raise UnknownLayerError(
                f"A layer is a dotted path, a node id or a module, not {type(layer).__name__} {layer!r}."
            )
        name = f"{path}@{call}" if call else path
        if name in self.refs or name in self._activations or name in self.graph:
            return name
        if path in self.graph:
            uses = sum(node.path == path and node.kind == "module" for node in self.graph.nodes)
            uses = uses or sum(group.path == path for group in self.graph.groups)
            raise UnknownLayerError(
                f"{path!r} ran {max(uses, 1)} time(s), so call={call} does not exist.",
                hint="Calls count from 0.",
            )
        raise UnknownLayerError(
            f"No layer {path!r} ran in this pass.{nearest(path, self.graph.ids())}",
            hint="trace.graph.ids() lists all of them.",
        )

    def activation(self, layer: str | nn.Module, call: int = 0) -> Tensor:
        """Return what a layer gave, as it was when it gave it.

        Parameters
        ----------
        layer : str or nn.Module
            Dotted path, node or group id, or a module of the model. A group's activation is its module's
            output.
        call : int
            Which use of a module that is used several times, from 0.

        Returns
        -------
        Tensor
            On the device of the model, detached; the first one where the layer gave several. Treat it as
            read-only.

        Raises
        ------
        UnknownLayerError
            Nothing of that name ran.
        InputError
            It gave no tensor, or its activation was not kept and cannot be computed again.
        NNVizError
            The trace has shapes only.
        """
        name = self.resolve(layer, call)
        self.need_values()
        try:
            tensor = self._activations[name]
        except KeyError:
            tensor = self._again(name)
        return tensor.detach() if tensor.requires_grad else tensor

    def activations(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor | None]]:
        """Go through the activations of many nodes and groups, each once; None where one gave no tensor.

        What was let go is computed again, as much in one pass as the budget allows, and not kept.

        Parameters
        ----------
        names : iterable of str
            Ids. Those that are at hand come first.
        """
        self.need_values()
        gone: list[str] = []
        for name in names:
            if self._activations.holds(name):
                yield name, self.activation(name)
            elif name in self._activations and self._recompute is not None:
                gone.append(name)
            else:
                yield name, None
        while gone:
            assert self._recompute is not None
            taken, size = [gone.pop()], 0
            while gone and size <= (self._activations.budget or 0):
                size += self._nbytes_of(gone[-1])
                taken.append(gone.pop())
            found = self._recompute(frozenset(taken))
            for name in taken:
                yield name, found.get(name)

    def _nbytes_of(self, name: str) -> int:
        ref = self.refs.get(name)
        spec = self.ops[ref.op].outputs[ref.port] if ref is not None else None
        return prod(spec.shape) * spec.dtype.itemsize if spec is not None and spec.dtype is not None else 0

    def need_values(self) -> None:
        """Raise `NNVizError` where this trace has shapes only."""
        if self.kind != "run":
            raise NNVizError(
                f"This trace has shapes and no values. {self.note}".strip(),
                hint="The graph, its parameters and its FLOPs are known; run the model for the rest.",
            )

    def label(self, kind: str, note: str) -> None:
        """Say what kind of trace this is, before its graph is drawn."""
        self.kind = self._recording.kind = kind
        self.note = self._recording.note = note

    def holds(self, layer: str | nn.Module, call: int = 0) -> bool:
        """Whether the activation is at hand: asking for it runs no model."""
        return self._activations.holds(self.resolve(layer, call))

    def stats(
        self,
        layer: str | nn.Module,
        call: int = 0,
        *,
        sample: int | None = None,
        channel: int | None = None,
        bins: int = 64,
    ) -> Stats:
        """Return mean, spread, range, zeros, NaN, Inf and a histogram of a layer's activation.

        Parameters
        ----------
        layer, call
            As for `activation`.
        sample : int, optional
            Of one sample of the batch; by default of all.
        channel : int, optional
            Of one channel (index along `channel_axis`); by default of all.
        bins : int
            Bars of the histogram.
        """
        tensor = self.activation(layer, call)
        channels = self.channel_axis(layer, call) if channel is not None else 1
        for axis, index, word in ((0, sample, "sample"), (channels, channel, "channel")):
            if index is not None:
                if tensor.dim() <= axis or not 0 <= index < tensor.shape[axis]:
                    size = tensor.shape[axis] if tensor.dim() > axis else 0
                    raise InputError(f"{word}={index} does not exist; this activation has {size}.")
                tensor = tensor.narrow(axis, index, 1)
        return statistics(tensor, bins=bins)

    def summary(self, depth: int | None = 3, *, operations: bool = False) -> Summary:
        """Return a table of all that ran: shapes, parameters, FLOPs and memory, and their exact totals.

        Parameters
        ----------
        depth : int, optional
            Deepest rows to list, the model itself being 0; None lists all. What is deeper counts in the row
            above it.
        operations : bool
            Whether operations outside of leaf modules (``add``, ``matmul``) have rows of their own.

        Returns
        -------
        Summary
            Prints as a table, is one in a notebook, and has its `rows` and totals as plain data.
        """
        from nnviz_widget.engine.summary import summarise  # noqa: PLC0415  tables are not always wanted

        graph = self.graph
        shapes = {
            group.id: self.ops[ref.op].outputs[ref.port].shape
            for group in graph.groups
            if (ref := self.refs.get(group.id or "output")) is not None
        }
        weights = self._recording.weights
        if self._frozen is not None:
            weights = [weight._replace(trainable=weight.name not in self._frozen) for weight in weights]
        given = {id(tensor): tensor for tensor in self.inputs}.values()
        return summarise(
            graph,
            shapes,
            weights,
            sum(tensor.numel() * tensor.element_size() for tensor in given),
            depth=depth,
            operations=operations,
        )

    def channel_axis(self, layer: str | nn.Module, call: int = 0) -> int:
        """Return the axis of a layer's activation that holds its channels (or features), the batch being 0.

        It follows from the operations: 1 after a convolution, the last where the model works on
        ``[N, H, W, C]``. Where it does not follow, it is taken to be 1, and of ``[N, tokens, features]`` the
        last.

        Parameters
        ----------
        layer, call
            As for `activation`.
        """
        ref = self.refs.get(self.resolve(layer, call))
        if ref is None:
            return 1
        axis = self._channel_axes.get(ref)
        if axis is None and len(self.ops[ref.op].outputs[ref.port].shape) == 3:
            return 1 if any(op.name == "conv1d" for op in self.ops) else 2
        return axis or 1

    @cached_property
    def _channel_axes(self) -> dict[Ref, int]:
        return channel_axes(self.ops)

    @property
    def nbytes(self) -> int:
        """Bytes of the activations that are held; tensors in the same memory count once."""
        return self._activations.nbytes

    def release(self) -> None:
        """Let go of all activations; they are computed again when asked for."""
        self._activations.clear()

    def _again(self, name: str) -> Tensor:
        if self._recompute is None or name not in self._activations:
            gone = name in self._activations or not self.complete
            raise InputError(f"The activation of {name!r} {'was not kept' if gone else 'is no tensor'}.")
        tensor = self._recompute(frozenset({name}))[name]
        self._activations.put(name, tensor)
        return tensor
