"""What a method works with: the inputs to explain, the target, the baselines, and the model to run.

A method thinks in *rows*: variants of samples, as many in one batch as fit. It never sees how the model takes
its arguments, which device they are on, whether it is token ids that are explained through their embeddings,
how large a batch is best, or whose thread it is on.
"""

from __future__ import annotations

import copy
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from nnviz_widget.engine.attribution.arguments import Arguments
from nnviz_widget.engine.attribution.baselines import baseline_of
from nnviz_widget.engine.attribution.chunks import Chunks, Sizes
from nnviz_widget.engine.attribution.targets import Target, scores_of
from nnviz_widget.engine.interventions import current
from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.replay.plan import UnsafeError
from nnviz_widget.engine.replay.replays import UNFORESEEN, Ledger
from nnviz_widget.engine.sites import first_tensor
from nnviz_widget.errors import InputError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch.autograd.graph import GradientEdge

    from nnviz_widget.engine.attribution.chunks import Known
    from nnviz_widget.engine.passes import Passes
    from nnviz_widget.engine.recording import Recording
    from nnviz_widget.engine.replay.replays import Recomputed, Replayed, Replays

    T = TypeVar("T")

__all__ = ["Task"]


class Task:
    """One question about one batch of samples.

    Parameters
    ----------
    passes : Passes
        Runs the model.
    args, kwargs
        As the model takes them, on its device. Explained are their tensors of floating point that have the
        batch axis; where there is none, the embeddings of their whole numbers.
    target : object
        As `Target` takes it.
    extra : tuple
        Further positional arguments, not explained.
    sizes : Sizes
        What is known about good chunks.
    replays : Replays, optional
        What is known about running only a part of the model; without it, all of it is run.

    Attributes
    ----------
    inputs : tuple of Tensor
        What is explained, ``[N, ...]`` each.
    samples : int
        N.
    every : Tensor
        ``[0, ..., N-1]``: the rows of a batch of all samples, unchanged.
    cautions : list of str
        What speaks against trusting the result; `caution` adds to it.
    decided : dict
        Options that were left to the method, and what it took.
    embedded : bool
        Whether the inputs are embeddings of whole numbers, ``[N, T, D]``.
    watched : bool
        Whether somebody looks at partial results, so that the first should come early.
    """

    def __init__(
        self,
        passes: Passes,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        target: Any = None,
        extra: tuple[Any, ...] = (),
        sizes: Sizes | None = None,
        replays: Replays | None = None,
    ) -> None:
        self.passes = passes
        self.cautions: list[str] = []
        self.decided: dict[str, Any] = {}
        self._target: Target | None = None
        self._given = target
        self.watched = False
        self._several = False
        self._unit: str | nn.Module | None = None
        self._sizes = sizes if sizes is not None else Sizes()
        self._replays = replays
        self._ledger = Ledger()
        self._arguments = Arguments(args, kwargs, extra)
        self.samples = self._arguments.samples
        self.every = torch.arange(self.samples)
        self.inputs = self._arguments.explained
        self._embedding = "" if self.inputs else self._find_embedding()
        self.embedded = bool(self._embedding)
        for dtype in {x.dtype for x in self.inputs} & {torch.float16, torch.bfloat16}:
            self.caution(
                f"The model computes with {'two' if dtype == torch.bfloat16 else 'three'} digits "
                f"({str(dtype).removeprefix('torch.')}): small differences in precision look like structure."
            )

    def explain_unit(self, layer: str | nn.Module, index: Any) -> None:
        """Explain a unit inside the model from here on, in the place of its output.

        Parameters
        ----------
        layer : str or nn.Module
            Whose output the unit is a part of.
        index : int, tuple of int, list, Tensor or callable
            Which part, as a target says it of the output.
        """
        self._unit, self._given, self._target = layer, index, None

    @property
    def of_unit(self) -> bool:
        """Whether a unit inside the model is explained, not its output."""
        return self._unit is not None

    # -- the model ------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise where the work is no longer wanted."""
        self.passes.check()

    @property
    def target(self) -> Target:
        """What is explained; known after the first pass."""
        if self._target is None:
            with torch.no_grad():
                output, _ = self._run(self.inputs, self.every)
            self._settle(output, self.every)
        assert self._target is not None
        return self._target

    @property
    def told(self) -> Any:
        """The target in plain numbers; as it was given by methods that never looked at a score."""
        return self._given if self._target is None else self._target.told

    def recording(self, rows: int = 0) -> Recording:
        """Return what the model does, operation by operation, without values.

        Parameters
        ----------
        rows : int
            So often the first sample; 0 for the unchanged samples.
        """
        if not rows:
            self.passes.forward_passes += self.samples
        args, kwargs = self._arguments.repeated(rows) if rows else self._arguments.call()
        return record(self.passes.module, args, kwargs, keep=None, token=self.passes.token)

    def output(self) -> Any:
        """Return what the model gives for the unchanged samples, without a graph."""
        if current() and self._replays is not None and self._replays.again(self):
            with suppress(UnsafeError, *UNFORESEEN):
                output = self._replays.of(self).output(self.check)
                self.passes.forward_passes += self.samples
                return output
        output, _ = self._run(self.inputs, self.every, unit=False)
        return output

    def scores(self, tensors: Sequence[Tensor], rows: Tensor) -> Tensor:
        """Return the target's score of each row, without a graph.

        Parameters
        ----------
        tensors : sequence of Tensor
            In the place of `inputs`, ``[B, ...]`` each.
        rows : Tensor
            Which sample each row is a variant of, ``[B]``, whole numbers.

        Returns
        -------
        Tensor
            ``[B]``.
        """
        output, _ = self._run(tensors, rows)
        return self._scores(output, rows).detach()

    def gradients(
        self,
        tensors: Sequence[Tensor],
        rows: Tensor,
        *,
        at: Callable[[Tensor, Sequence[Tensor]], Sequence[Tensor | GradientEdge]] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the target's score of each row and its gradient on each tensor.

        Parameters
        ----------
        tensors, rows
            As for `scores`.
        at : callable, optional
            Takes the scores and the leaves of their graph, and returns where gradients are wanted instead.

        Returns
        -------
        scores : Tensor
            ``[B]``.
        gradients : tuple of Tensor
            Like the tensors, or what `at` named.
        """
        if self._several and len(rows) == 1:
            # Twice the same: for a single row, libraries have kernels of their own that round otherwise.
            twice = [torch.cat([x, x]) for x in tensors]
            scores, found = self.gradients(twice, torch.cat([rows, rows]), at=at)
            return scores[:1], tuple(gradient[:1] for gradient in found)
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        output, _ = self._run(leaves, rows, grad=True)
        scores = self._scores(output, rows)
        return scores.detach(), self.passes.gradients(scores, at(scores, leaves) if at else leaves)

    def layer_gradients(
        self, layers: Sequence[str | nn.Module], tensors: Sequence[Tensor], rows: Tensor
    ) -> tuple[Tensor, list[Tensor], tuple[Tensor, ...]]:
        """Return scores, what each layer gave, and the gradient of the scores on that.

        Parameters
        ----------
        layers : sequence of str or nn.Module
            Dotted path, ``path@call``, or module.
        tensors, rows
            As for `scores`.

        Returns
        -------
        scores : Tensor
            ``[B]``.
        activations : list of Tensor
            Detached, one for each layer.
        gradients : tuple of Tensor
            Like the activations.
        """
        if self.passes.plain and self._unit is None:
            # The graph begins at the layers: what comes before them is run as if nobody asked for gradients.
            edits = dict.fromkeys(map(self.passes.site, layers), _beginning)
            output, values = self._run(tensors, rows, read=layers, edits=edits)
        else:
            leaves = [tensor.detach().requires_grad_() for tensor in tensors]
            output, values = self._run(leaves, rows, grad=True, read=layers)
        scores = self._scores(output, rows)
        found = self.passes.gradients(scores, values)
        return scores.detach(), [value.detach() for value in values], found

    def run(
        self,
        tensors: Sequence[Tensor],
        rows: Tensor,
        *,
        read: Sequence[str | nn.Module] = (),
        edits: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
        grad: bool = False,
    ) -> tuple[Tensor, Any, list[Tensor]]:
        """Run as `Passes.forward` does; returns scores, output and what the layers gave."""
        output, values = self._run(tensors, rows, read=read, edits=edits, grad=grad)
        return self._scores(output, rows), output, values

    def run_from(self, node: str, value: Tensor, rows: Tensor) -> tuple[Tensor, Any]:
        """Run a single sample up to a layer, variants of what that gives from there on.

        What comes past the layer has one row, which broadcasts in whatever works element by element;
        elsewhere the model raises, or gives another number of rows.

        Parameters
        ----------
        node : str
            Path (``path@call``) of the module.
        value : Tensor
            What it gives instead, ``[B, ...]``.
        rows : Tensor
            Zeros, ``[B]``.

        Returns
        -------
        scores, output
            As of `run`.

        Raises
        ------
        InputError
            The output has another number of rows.
        """
        output, _ = self._run(self.inputs, self.every, edits={node: lambda _: value})
        given = len(scores_of(output))
        if given != len(rows):
            raise InputError(f"The output has {given} row(s) for {len(rows)} variants of {node!r}.")
        self.passes.forward_passes += len(rows) - 1
        return self._scores(output, rows), output

    # -- replays --------------------------------------------------------------------------------------------

    @property
    def embedding(self) -> str:
        """Path of the layer whose output is explained in the place of whole numbers; else empty."""
        return self._embedding

    @property
    def context(self) -> tuple[Tensor, ...]:
        """The tensors that the model is given and that are not explained."""
        return self._arguments.context

    def given(self) -> list[tuple[Tensor, int]]:
        """List the tensors that the model is given (`Arguments.listed`)."""
        return self._arguments.listed()

    @property
    def debug(self) -> bool:
        """Whether some of all that is replayed is compared with the whole model."""
        return self._replays is not None and self._replays.debug

    @property
    def planned(self) -> bool:
        """Whether it is known how variants are replayed, or that they can not be."""
        return self._replays is None or self._replays.known(self)

    def replayed(self, node: str, *, known: bool = False) -> Replayed | None:
        """Return what runs variants of the input, or of a layer, only where they differ.

        Parameters
        ----------
        node : str
            ``"input"``, or the path of a module.
        known : bool
            Give None where that needs passes of the model first.

        Raises
        ------
        UnsafeError
            Such variants must be run in full; the text says why.
        """
        if self._replays is None or (known and not self.planned):
            return None
        found = self._replays.of(self)
        found.refuse(node)
        return found

    def replay(
        self, replayed: Replayed, node: str, changed: Sequence[Tensor], rows: Tensor
    ) -> tuple[Tensor, Any]:
        """Run variants only where they differ; returns scores and output."""
        self.passes.forward_passes += len(rows)
        before = replayed.replay.flops, replayed.replay.whole_flops
        unit = self.passes.site(self._unit) if self._unit is not None else ""
        output = replayed.run(node, changed, rows, unit=unit, check=self.check)
        self._ledger.replayed(replayed.replay, len(rows), before)
        return self._scores(output, rows), output

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Leave passes that only check a replay out of the count: nobody asked for them."""
        before = self.passes.forward_passes
        try:
            yield
        finally:
            self.passes.forward_passes = before

    def refuse_replay(self, why: str) -> None:
        """Run this model in full from here on, and say why."""
        if self._replays is not None:
            self._replays.refuse(self, why)
        self.ran_in_full(why=why)

    def ran_in_full(self, rows: int = 0, why: str = "") -> None:
        """Note that variants were run in full, and why where they could not be replayed."""
        self._ledger.in_full(rows)
        self._ledger.note = why or self._ledger.note

    @property
    def recomputed(self) -> Recomputed | None:
        """How much of the model ran for variants so far; None where there were none."""
        return self._ledger.told()

    def read(
        self, layers: Sequence[str | nn.Module], tensors: Sequence[Tensor], rows: Tensor
    ) -> list[Tensor]:
        """Return what layers give for each row, ``[B, ...]``, without a graph and without a target."""
        return [value.detach() for value in self._run(tensors, rows, read=layers)[1]]

    def unscored(self, tensors: Sequence[Tensor], rows: Tensor, *, grad: bool = False) -> Tensor:
        """Run for what happens inside, without a target; returns a number per row that depends on all."""
        output, _ = self._run(tensors, rows, grad=grad)
        return scores_of(output).flatten(1).sum(1)

    # -- rows and chunks ------------------------------------------------------------------------------------

    def batched(
        self,
        count: int,
        work: Callable[[int, int], T],
        *,
        size: Any = "auto",
        kind: str | Callable[[], str] = "forward",
        first: int = 0,
    ) -> Iterator[tuple[int, int, T]]:
        """Do work on ``count`` rows in chunks; yields ``(start, stop, result)`` in order.

        Parameters
        ----------
        count : int
            How many rows there are.
        work : callable
            Takes start and stop, and returns what they give.
        size : int or "auto"
            Rows in a chunk. ``"auto"`` begins small, grows while a row takes less time in a larger chunk,
            and remembers. Out of memory halves it either way.
        kind : str or callable
            Names what is run, for the memory of sizes; asked before each chunk where it may change.
        first : int
            After how many rows there is something to see, where somebody watches: a chunk ends there. Until
            then, and where it is 0, chunks have at most a tenth of the rows.

        Raises
        ------
        OutOfMemoryError
            Not even one row fits.
        """
        if size not in ("auto", None) and (type(size) is not int or size < 1):
            raise InputError(f"The size of a chunk is a whole number of rows, or 'auto', not {size!r}.")
        sizes: dict[str, Chunks] = {}

        def chunks_of(name: str) -> Chunks:
            if name not in sizes:
                sizes[name] = Chunks(
                    self.known(name),
                    count,
                    size if type(size) is int else None,
                    watched=self.watched,
                    seconds=self.passes.first_seconds / self.samples,
                    elements=sum(x[0].numel() for x in self.inputs),
                )
            return sizes[name]

        on_cuda, start = self.inputs[0].is_cuda, 0
        # Of a processor that others use too, the time that was ours tells more than that on the wall.
        clock = time.thread_time if self.inputs[0].device.type == "cpu" else time.perf_counter
        while start < count:
            self.check()
            name = kind if isinstance(kind, str) else kind()
            chunks = chunks_of(name)
            stop = min(count, start + chunks.size)
            if self.watched and start < first < stop:
                stop = first
            began = clock()
            # Not where not even two rows fit.
            self._several = count > 1 and self.known(name).ceiling > 1
            try:
                result = work(start, stop)
                if on_cuda:
                    torch.cuda.synchronize(self.inputs[0].device)
            except (torch.OutOfMemoryError, OutOfMemoryError) as error:
                if not chunks.halve():
                    raise OutOfMemoryError(
                        f"Not even one sample of {tuple(self.inputs[0].shape[1:])} fits into the memory.",
                        hint="Use a smaller input, or a device with more memory.",
                    ) from error
                if on_cuda:
                    torch.cuda.empty_cache()
                continue
            finally:
                self._several = False
            chunks.took(stop - start, clock() - began)
            yield start, stop, result
            start = stop

    def known(self, kind: str) -> Known:
        """Return what is known about chunks of a kind of work on inputs like these."""
        return self._sizes.of((kind, *(tuple(x.shape[1:]) for x in self.inputs)))

    def rows(self, tensor: Tensor, rows: Tensor) -> Tensor:
        """Return a row of `tensor`, ``[N, ...]``, for each variant; a single sample is left to broadcast."""
        return tensor if self.samples == 1 else tensor.index_select(0, rows.to(tensor.device))

    def like_inputs(self, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return what broadcasts to the inputs as values of their shape, in their precision or float32."""
        return tuple(
            value.to(x.device, torch.float64 if x.dtype == torch.float64 else torch.float32)
            .expand_as(x)
            .contiguous()
            for value, x in zip(values, self.inputs, strict=True)
        )

    def like_scores(self, values: Tensor) -> Tensor:
        """Return a number for each sample where and as precise as attributions are."""
        x = self.inputs[0]
        return values.to(x.device, torch.float64 if x.dtype == torch.float64 else torch.float32)

    def baselines(self, given: Any, seed: int = 0) -> tuple[Tensor, ...]:
        """Return baselines like `inputs`, from whatever names them (`baseline_of`)."""
        return baseline_of(given, self.inputs, seed)

    def again(self, tensors: Sequence[Tensor] | None = None, passes: Passes | None = None) -> Task:
        """Return the same question about other inputs, or about another model.

        Parameters
        ----------
        tensors : sequence of Tensor, optional
            Like `inputs`. The target stays what it is.
        passes : Passes, optional
            Runs the other model, of the same structure.
        """
        assert self.target is not None  # settled here, not by what is asked next
        other = copy.copy(self)
        other.cautions, other.decided, other._ledger = [], {}, Ledger()
        if passes is not None:
            other.passes = passes
            if self._embedding:
                other._embedding = other._find_embedding()
        if tensors is not None:
            other._arguments = self._arguments.instead(tensors)
            other.inputs = tuple(tensor.detach() for tensor in tensors)
        return other

    def caution(self, text: str) -> None:
        """Tell what speaks against trusting the result."""
        if text not in self.cautions:
            self.cautions.append(text)

    # -- inside ---------------------------------------------------------------------------------------------

    def _run(
        self,
        tensors: Sequence[Tensor],
        rows: Tensor,
        *,
        read: Sequence[str | nn.Module] = (),
        edits: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
        grad: bool = False,
        unit: bool = True,
    ) -> tuple[Any, list[Tensor]]:
        edits = dict(edits or {})
        if self._embedding:
            own = edits.get(self._embedding)
            # A copy: the model may add positions to it in place.
            edits[self._embedding] = lambda _: tensors[0].clone() if own is None else own(tensors[0])
        args, kwargs = self._arguments.instead(tensors).call(None if rows is self.every else rows)
        if self._unit is None or not unit:
            return self.passes.forward(args, kwargs, len(rows), read=read, edits=edits, grad=grad)
        wanted = [*read, self._unit]
        _, values = self.passes.forward(args, kwargs, len(rows), read=wanted, edits=edits, grad=grad)
        return values.pop(), values

    def _scores(self, output: Any, rows: Tensor) -> Tensor:
        self._settle(output, rows)
        return self.target.scores(output, rows)

    def _settle(self, output: Any, rows: Tensor) -> None:
        if self._target is None and (self._given is not None or rows is self.every):
            self._target = self._made_definite(output, len(rows))

    def _made_definite(self, output: Any, rows: int) -> Target:
        try:
            return Target(self._given, output, rows, self.samples)
        except InputError as error:
            if self._unit is None or callable(self._given):
                raise
            shape = tuple(scores_of(output).shape[1:])
            raise InputError(
                f"neuron={self._given!r} is no unit of {self._unit!r}, which gives {shape} for one sample.",
                hint="Give one number for each of its axes, from 0.",
            ) from error

    def _find_embedding(self) -> str:
        """Find the embedding layer that looks up the first whole-number input, and what it gives."""
        module = self.passes.module
        layers = {path: part for path, part in module.named_modules() if isinstance(part, nn.Embedding)}
        given = self._arguments.with_rows
        found: dict[str, Tensor] = {}
        handles = []

        def note(path: str) -> Callable[..., None]:
            def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
                same = args and any(args[0].shape == ids.shape and torch.equal(args[0], ids) for ids in given)
                if same and path not in found:
                    found[path] = first_tensor(output, path).detach().clone()

            return hook

        try:
            handles = [part.register_forward_hook(note(path)) for path, part in layers.items()]
            args, kwargs = self._arguments.call()
            self.passes.forward(args, kwargs, self.samples)
        finally:
            for handle in handles:
                handle.remove()
        if not found:
            raise InputError(
                "The inputs are whole numbers, and no nn.Embedding of the model looks them up: nothing here "
                "has a gradient.",
                hint="Pass tensors of floating point, such as the embeddings themselves.",
            )
        path, value = next(iter(found.items()))
        self.inputs = (value,)
        return path


def _beginning(tensor: Tensor) -> Tensor:
    """Let a graph begin at what a layer gave, or go on through it, for the rest of a pass."""
    torch.set_grad_enabled(True)
    kept = tensor.clone()
    return kept if kept.requires_grad else kept.requires_grad_()
