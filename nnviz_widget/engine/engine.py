"""The engine: what can be asked of a model, without any widget.

Every question is one method, one job on the engine's thread, and one plain answer. This facade checks what it
is given, sends the work to the thread, and adds to errors what the user can do next. The model is run by
``recorder`` on the ``twin``, gradients are taken by ``units``, receptive fields by ``receptive``, pictures by
``tiles``; what explains an output is in ``explaining``, what changes a run in ``intervening``, what sets two
runs side by side in ``comparing``.
"""

from __future__ import annotations

import weakref
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nnviz_widget.engine.admission import check_model, prepared, usable_device
from nnviz_widget.engine.advice import advised
from nnviz_widget.engine.comparing import Comparing
from nnviz_widget.engine.explaining import Explaining
from nnviz_widget.engine.inspecting import Inspecting
from nnviz_widget.engine.intervening import Intervening
from nnviz_widget.engine.interventions import current, within
from nnviz_widget.engine.jobs import CancelToken, Jobs
from nnviz_widget.engine.measures import MEASURES, OF_THE_GRAPH, count_up, describe
from nnviz_widget.engine.probing import Probing
from nnviz_widget.engine.receptive import ReceptiveField, receptive_field
from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.recording import Ref
from nnviz_widget.engine.shapes import module_tree, record_shapes
from nnviz_widget.engine.sharing import named_weights, unwrap
from nnviz_widget.engine.sources import Source, adapt
from nnviz_widget.engine.timing import device_clock, time_parts
from nnviz_widget.engine.trace import Trace
from nnviz_widget.engine.twin import Twin
from nnviz_widget.engine.units import Saliency, Units, locate
from nnviz_widget.errors import InputError, ModelError, NNVizError, OutOfMemoryError, StaleError, nearest

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Self, TypeVar

    from torch import Tensor
    from torch.export import ExportedProgram

    from nnviz_widget.engine.graph import Graph
    from nnviz_widget.engine.interventions import Intervention
    from nnviz_widget.engine.recording import Recording
    from nnviz_widget.engine.tiles import Tiles

    T = TypeVar("T")

__all__ = ["Engine"]

_CPU_BUDGET = 1 << 30
_DEVICE_SHARE = 8  # of a GPU's memory, one part in so many


class Engine(Explaining, Intervening, Probing, Inspecting, Comparing):
    """See inside a PyTorch model while leaving it exactly as it is.

    Parameters
    ----------
    model : nn.Module, torch.export.ExportedProgram, keras.Model, or path of an ``.onnx`` file
        Any module, on any device, in train or eval mode, also while it is being trained. The engine always
        shows how it behaves in eval mode; the model's own flags, hooks, gradients, buffers and random numbers
        are not touched. What ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel`` wrap is
        shown without the wrapper; what TorchScript compiled is one opaque node. Keras must compute with
        torch; a file needs the extra ``[onnx]``.
    device : torch.device or str, optional
        Where to compute; elsewhere than the model, the engine keeps a copy of its weights there. By default
        where the model is.

    Attributes
    ----------
    model : object
        The user's model, as it was given.
    jobs : Jobs
        The engine's one thread.
    memory_budget : int
        Bytes that one trace may hold of activations, and that the kept graphs may hold together.
    progress : callable or None
        Called on the engine's thread while a trace runs, with how many modules have begun, and of how many.

    Raises
    ------
    InputError
        The model is no module, or has no weights yet.

    Examples
    --------
    >>> with Engine(model) as engine:
    ...     trace = engine.trace(images)
    ...     saliency = engine.unit_saliency(trace, "layer3", unit=(12, 7, 7))
    """

    def __init__(
        self,
        model: nn.Module | ExportedProgram | Source | str | os.PathLike[str],
        *,
        device: torch.device | str | None = None,
    ) -> None:
        self._source = model if isinstance(model, Source) else adapt(model)
        check_model(self._source.module)
        self._name = type(unwrap(self._source.module)).__name__
        self.model: Any = self._source.given
        self.progress: Callable[[int, int], None] | None = None
        self._twin = Twin(self._source.module, device=usable_device(device))
        self._units = Units(self._twin, _default_budget(self._twin.device))
        self._runs = self._live = None
        self._traces: weakref.WeakSet[Trace] = weakref.WeakSet()
        self.jobs = Jobs(f"nnviz-engine-{type(self._source.module).__name__}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.jobs.closed else f"on {self.device}"
        return f"Engine({self._name}, {state})"

    @property
    def device(self) -> torch.device:
        """Where the engine computes; inputs are moved there."""
        return self._twin.device

    @property
    def epoch(self) -> int:
        """Counts the changes of the weights: a trace with a smaller one is stale. Safe on every thread."""
        return self._twin.read_epoch()

    @property
    def note(self) -> str:
        """What to know about how this model is shown: without which wrapper, and whether it runs itself.

        A model that cannot be twinned runs itself, and must not be trained at the same moment. Mostly empty.
        """
        return " ".join(note for note in (self._source.note, self._twin.note) if note)

    @property
    def memory_budget(self) -> int:
        """Bytes that one trace may hold of activations, and that the kept graphs may hold together."""
        return self._units.budget

    @memory_budget.setter
    def memory_budget(self, budget: int) -> None:
        if type(budget) is not int or budget < 0:
            raise InputError(f"memory_budget is a number of bytes, not {budget!r}.")
        self._units.budget = budget

    def trace(self, *args: Any, shapes_only: bool = False, **kwargs: Any) -> Trace:
        """Run the model once and keep what happened inside.

        Where memory does not suffice, and where weights have no values (the meta device), the pass is over
        shapes alone: `Trace.kind` is then ``shapes`` and `Trace.note` says why.

        Parameters
        ----------
        *args, **kwargs
            Exactly as ``model(*args, **kwargs)`` takes them. Tensors are copied, and moved to the engine's
            device; NumPy arrays become tensors. Types are never converted: images of whole numbers, or of
            float64 for a float32 model, raise as they do in the model.
        shapes_only : bool
            Compute nothing: a graph with shapes, parameters and FLOPs, without any value.

        Returns
        -------
        Trace
            The graph, the output, and every layer's activation.

        Raises
        ------
        ModelError
            The model raised. Its ``trace`` holds the part that ran, ``node`` and ``source`` say where.
        InputError
            There is no tensor among the inputs where one belongs.
        """
        args, kwargs = prepared(args, kwargs, self.device if self._twin.placed else None)
        interventions = current(self._twin)
        note = "Only shapes were asked for." if shapes_only else self._without_values()
        if note:
            return self._call(lambda token: self._trace_shapes(args, kwargs, note, token))

        def work(token: CancelToken) -> Trace:
            try:
                recording, epoch, consistent = self._record(args, kwargs, token)
            except (OutOfMemoryError, ModelError) as error:
                if not _lacks_memory(error):
                    raise
                return self._shapes_instead(args, kwargs, error, token)
            mine = weakref.ref(self)
            trace = Trace(
                recording,
                module_path=lambda module: _path(mine(), module),
                recompute=lambda ids: _recompute(mine(), args, kwargs, ids, epoch, made_with=interventions),
                budget=self.memory_budget,
                epoch=epoch,
                frozen=self._frozen(),
            )
            trace.consistent = consistent
            self._traces.add(trace)
            return trace

        return self._call(work)

    def tree(self) -> Graph:
        """Return the model's modules and their parameters, without running it.

        Returns
        -------
        Graph
            Of kind ``tree``: groups and nodes, no shapes, no operations and no edges.
        """

        def work(_: CancelToken) -> Graph:
            self._twin.sync()
            return module_tree(self._twin.module)

        return self._call(work)

    def unit_saliency(
        self, trace: Trace, layer: str | nn.Module, unit: int | tuple[int, ...], sample: int = 0
    ) -> Tensor | tuple[Tensor, ...]:
        """Return the gradient of one unit on the input.

        Parameters
        ----------
        trace : Trace
            Of this engine; gives the input. The weights are those of now.
        layer : str or nn.Module
            Dotted path, node or group id, or a module of the model; ``"output"`` with the unit of a class
            gives the saliency of that class.
        unit : int or tuple of int
            Index in one sample's activation, such as ``(channel, y, x)``; no batch axis.
        sample : int
            Which sample of the batch.

        Returns
        -------
        Tensor
            Of the shape of the whole input; rows of other samples hold their own gradient, which is zero
            unless the model mixes samples. float32, or float64 where the input is. A tuple for several inputs
            of floating point. `saliency` also tells the epoch, and whether the weights held still.

        Raises
        ------
        UnknownLayerError
            No such layer ran.
        InputError
            No such unit or sample, or no gradient: whole-number inputs, layers that are detached.
        """
        return self.saliency(trace, layer, unit, sample).values

    def unit_saliencies(
        self, trace: Trace, layer: str | nn.Module, units: Sequence[int | tuple[int, ...]], sample: int = 0
    ) -> Tensor | tuple[Tensor, ...]:
        """Return the gradients of several units on the input, many of them in one backward pass.

        Parameters
        ----------
        trace, layer, sample
            As for `unit_saliency`.
        units : sequence of int or tuple of int
            Each as for `unit_saliency`. All units of a map give the Jacobian of that map.

        Returns
        -------
        Tensor
            ``[len(units), *input.shape]``; a tuple for several inputs of floating point.
        """
        if not len(units):
            raise InputError("There is no unit in the list.", hint="Name at least one.")
        name = self._resolve(trace, layer)
        found = self._call(lambda token: self._units.saliencies(trace, name, units, sample, token))
        return found[0] if len(found) == 1 else found

    def saliency(
        self, trace: Trace, layer: str | nn.Module, unit: int | tuple[int, ...], sample: int = 0
    ) -> Saliency:
        """Return what `unit_saliency` returns, with the unit's value and the epoch of the weights."""
        name = self._resolve(trace, layer)
        return self._call(lambda token: self._units.saliency(trace, name, unit, sample, token))

    def receptive_field(
        self, trace: Trace, layer: str | nn.Module, unit: int | tuple[int, ...], sample: int = 0
    ) -> ReceptiveField:
        """Return every input pixel that has a path to one unit, whatever the values.

        Parameters
        ----------
        trace, layer, unit, sample
            As for `unit_saliency`.

        Returns
        -------
        ReceptiveField
            ``mask`` (``[H, W]`` for images), the ``box`` around it, and whether it is ``exact``. Of several
            inputs the first image, or else the first.
        """
        name = self._resolve(trace, layer)
        ref = trace.refs.get(name)
        inputs = [op for op in trace.ops if op.kind == "input"]
        if ref is None or not inputs:
            raise InputError(f"{name!r} has no receptive field: it gave no tensor that depends on an input.")
        source = next((op for op in inputs if len(op.outputs[0].shape) == 4), inputs[0])
        index = locate(tuple(trace.ops[ref.op].outputs[ref.port].shape), unit, sample, name)
        tensors: dict[str, Tensor] = {}

        def lookup(path: str) -> Tensor:
            if not tensors:
                module = self._twin.module
                tensors.update([*module.named_parameters(), *module.named_buffers()])
            return tensors[path]

        return self._call(
            lambda token: receptive_field(
                trace.ops, ref, index, Ref(source.index), lookup=lookup, check=token.check
            )
        )

    def tiles(self, trace: Trace, layer: str | nn.Module, sample: int = 0, **options: Any) -> Tiles:
        """Return a layer's feature maps as small pictures of whole numbers.

        Parameters
        ----------
        trace, layer, sample
            As for `unit_saliency`.
        **options
            As `nnviz_widget.engine.tiles.tiles` takes them: ``max_side``, ``channels``.
        """
        from nnviz_widget.engine.tiles import tiles  # noqa: PLC0415  pictures are not always wanted

        name = self._resolve(trace, layer)
        patches = any(op.name == "conv2d" for op in trace.ops)
        options = {"axis": trace.channel_axis(name), "patches": patches, **options}
        return self._call(lambda _: tiles(trace.activation(layer), sample, **options))

    def time_layers(
        self,
        trace: Trace,
        *,
        repeats: int = 5,
        warmup: int = 2,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, float | None]:
        """Measure how long each layer, operation and group takes, on the inputs of a trace.

        Recorded passes with a stopwatch that stands still while the recorder works, so that a time is that of
        the model's own code; see ``nnviz_widget.engine.timing``. On a GPU each operation is waited for: the
        times are those of operations that run alone, and their sum is more than a pass that overlaps them.

        Parameters
        ----------
        trace : Trace
            Of this engine; gives the inputs. The weights are those of now.
        repeats : int
            Passes that count, from 1; each number is the median over them.
        warmup : int
            Passes before them that do not count.
        progress : callable, optional
            Called on the engine's thread with how many passes are done, and of how many.

        Returns
        -------
        dict of str to float or None
            Seconds by node and group id, in the order of ``trace.graph.ids()``; ``""`` is the whole model. A
            group's time is from its entry to its exit, all that runs in it included. None for what does not
            run (inputs, outputs, stored constants) or did not run in every pass.
        """
        for name, number, least in (("repeats", repeats, 1), ("warmup", warmup, 0)):
            if type(number) is not int or number < least:
                raise InputError(f"{name} is a whole number from {least}, not {number!r}.")
        self._own(trace)

        def work(token: CancelToken) -> dict[str, float | None]:
            self._twin.sync()
            with self._twin.running():
                times = time_parts(
                    self._twin.module,
                    trace.args,
                    trace.kwargs,
                    repeats=repeats,
                    warmup=warmup,
                    clock=device_clock(self.device),
                    token=token,
                    progress=progress,
                )
            return {name: times.get(name) for name in trace.graph.ids()}

        return self._call(work)

    def measure(
        self, trace: Trace, what: str, *, progress: Callable[[int, int], None] | None = None
    ) -> dict[str, float | None]:
        """Return one number for every layer, operation and group of a trace.

        Parameters
        ----------
        trace : Trace
            Of this engine.
        what : str
            ``params`` (how many), ``flops`` (two for a multiply-add), ``bytes`` (memory of the outputs),
            ``time`` (seconds, as `time_layers` measures it), ``mean`` (of the activation), or ``dead``: the
            fraction of channels that are exactly zero at every position of every sample of the trace's batch,
            0 to 1.
        progress : callable, optional
            Called on the engine's thread with how much is done, and of how much.

        Returns
        -------
        dict of str to float or None
            By node and group id, in the order of ``trace.graph.ids()``. Counts of a group are the sums over
            what is in it, its mean and its dead channels those of its output. None where there is nothing to
            tell: no activation, or one that holds indices or a mask.
        """
        if what not in MEASURES:
            raise InputError(
                f"There is no measure {what!r}.{nearest(str(what), MEASURES)}",
                hint=f"Measures are {', '.join(MEASURES)}.",
            )
        if what == "time":
            return self.time_layers(trace, progress=progress)
        if what in OF_THE_GRAPH:
            return count_up(trace.graph, what)
        self._own(trace)
        return self._call(lambda token: describe(trace, what, check=token.check, progress=progress))

    def refresh(self) -> int:
        """Read the weights anew and forget what was computed from older ones; returns the new epoch.

        Changes are noticed without it, except writes through ``.data`` to a few single elements.
        """
        return self._call(lambda _: self._refresh())

    def paused(self) -> AbstractContextManager[None]:
        """Hold the engine still: the block begins when the running job has ended, and no other starts in it.

        What the block itself asks of the engine is answered on the caller's own thread.
        """
        return self.jobs.paused()

    def close(self) -> None:
        """Cancel what runs, end the thread, and let go of all memory. Traces stay readable."""
        self.jobs.close()
        self._units.clear()
        self._runs = self._live = None
        self._twin.close()
        self._source = Source(nn.Module(), note=self._source.note)

    # -- inside
    # -----------------------------------------------------------------------------------------------

    def _call(self, work: Callable[[CancelToken], T]) -> T:
        threads, interventions = torch.get_num_threads(), current(self._twin)

        def run(token: CancelToken) -> T:
            with _plain_mode(self.device, threads), within(interventions):
                return work(token)

        return self.jobs.call(run)

    def _path_of(self, module: nn.Module) -> str | None:
        return _path(self, module)

    def _frozen(self) -> frozenset[str]:
        """Names of the user's parameters that are not trained; copies of them do not tell."""
        named = named_weights(unwrap(self._source.module))
        return frozenset(name for name, tensor in named if not tensor.requires_grad)

    def _record(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        token: CancelToken,
        ids: frozenset[str] | None = None,
    ) -> tuple[Recording, int, bool]:
        def run(module: nn.Module, _: int) -> Recording:
            with self._twin.running():
                return record(
                    module,
                    args,
                    kwargs,
                    keep="all" if ids is None else ids,
                    token=token,
                    progress=self.progress,
                    budget=self.memory_budget if ids is None else None,
                )

        try:
            return self._twin.steadily(run)
        except ModelError as error:
            raise advised(error, self._twin.module, args, kwargs) from error.__cause__

    def _without_values(self) -> str:
        """Return why the model cannot be run at all, or nothing."""
        hollow = any(tensor.is_meta for _, tensor in named_weights(unwrap(self._source.module)))
        return "The weights are on the meta device, without values." if hollow else ""

    def _trace_shapes(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], note: str, token: CancelToken
    ) -> Trace:
        epoch = self._twin.sync()
        module, progress = self._twin.module, self.progress
        recording = record_shapes(module, args, kwargs, note=note, token=token, progress=progress)
        mine = weakref.ref(self)
        trace = Trace(
            recording,
            module_path=lambda part: _path(mine(), part),
            epoch=epoch,
            frozen=self._frozen(),
        )
        self._traces.add(trace)
        return trace

    def _shapes_instead(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], error: NNVizError, token: CancelToken
    ) -> Trace:
        """Return the shapes of a pass that memory did not suffice for; where these fail too, its error."""
        note = "There is too little memory to run the model on this input."
        try:
            return self._trace_shapes(args, kwargs, note, token)
        except NNVizError:
            raise error from error.__cause__

    def _refresh(self) -> int:
        self._units.clear()
        return self._twin.refresh()

    def _own(self, trace: Trace) -> None:
        """Raise where this is no trace of this engine, or one without values."""
        if not isinstance(trace, Trace):
            raise InputError(f"Expected a trace of engine.trace(...), not {type(trace).__name__}.")
        if trace not in self._traces:
            raise InputError("This trace was made by another engine.", hint="Trace the input with this one.")
        trace.need_values()

    def _resolve(self, trace: Trace, layer: str | nn.Module) -> str:
        self._own(trace)
        return trace.resolve(layer)


@contextmanager
def _plain_mode(device: torch.device, threads: int) -> Iterator[None]:
    """Compute as on a fresh thread, whatever modes the caller is in, and with the caller's number of threads.

    How work is split between threads decides how sums are rounded: the answers shall be those of the caller's
    own forward, bit for bit.
    """
    with ExitStack() as stack:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in {"cpu", device.type} & {"cpu", "cuda", "mps", "xpu"}:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if device.type == "cuda":
            stack.enter_context(torch.cuda.device(device))
        yield


def _lacks_memory(error: NNVizError) -> bool:
    """Whether an error is that of a device, or of the machine, without memory for a tensor."""
    cause = error.__cause__
    return isinstance(error, OutOfMemoryError) or isinstance(cause, MemoryError) or "Allocator" in str(cause)


def _default_budget(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory) // _DEVICE_SHARE
    return _CPU_BUDGET


def _recompute(
    engine: Engine | None,
    args: Any,
    kwargs: Any,
    ids: frozenset[str],
    epoch: int,
    *,
    made_with: tuple[Intervention, ...],
) -> Mapping[str, Tensor]:
    """Run a trace's pass again for the activations it let go of."""
    if engine is None or engine.jobs.closed:
        raise InputError("The activation was let go to save memory, and the engine is closed.")

    def work(token: CancelToken) -> Recording:
        recording, now, consistent = engine._record(args, kwargs, token, ids)
        if now != epoch or not consistent:
            raise StaleError(
                "The activation was let go to save memory, and the weights have changed since.",
                hint="Trace the input again, or raise engine.memory_budget.",
            )
        return recording

    with within(made_with):
        return engine._call(work).activations


def _path(engine: Engine | None, module: nn.Module) -> str | None:
    if engine is None:
        return None
    known = engine._source.path_of(module) if engine._source.path_of is not None else None
    if known is not None:
        return known
    root = unwrap(engine._source.module)
    for name, part in root.named_modules(remove_duplicate=False):
        if part is module:
            return ".".join(step for step in name.split(".") if step != "_orig_mod")
    return "" if module is engine.model else None
