"""What one recorded pass leaves behind: operations, their references to each other, activations, the output.

Plain containers, filled by ``recorder`` and ``assemble``, read by ``trace`` and by everything that walks or
replays a run. Nothing here runs a model.

Every tensor of a run is one *value*: output number ``port`` of operation number ``op``, written ``Ref(op,
port)``. Inputs, parameters, buffers and constants are outputs of operations that have no callable, so that
a replay needs no second mechanism. An operation that writes in place makes a new value for the same memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch

from nnviz_widget.engine.activations import Activations
from nnviz_widget.engine.sharing import named_parts, weights_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from nnviz_widget.engine.graph import Graph
    from nnviz_widget.engine.interventions import Intervention

__all__ = ["STATE", "Alias", "Frame", "Layout", "Op", "Recording", "Ref", "Spec", "Weight", "tensors_of"]

#: Kinds of sources that belong to the model and are read by name.
STATE = frozenset({"parameter", "buffer"})
#: Shape, strides and storage offset.
Layout: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], int]


class Ref(NamedTuple):
    """Value number `port` of operation number `op`."""

    op: int
    port: int = 0


class Spec(NamedTuple):
    """Shape and type of a value."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None


class Weight(NamedTuple):
    """Size of a parameter or buffer of the model; of one with several names, under the first of them."""

    name: str
    kind: str
    numel: int
    nbytes: int
    trainable: bool


class Alias(NamedTuple):
    """Another live value in the memory that an operation wrote to, and the new value it thereby became.

    Attributes
    ----------
    port : int
        Output of the operation that stands for the new value.
    before : Ref
        The value it was.
    layout, written : tuple
        ``(shape, strides, storage offset)`` of the alias and of the tensor that was written.
    """

    port: int
    before: Ref
    layout: Layout
    written: Layout


@dataclass(slots=True)
class Op:
    """One recorded operation.

    Attributes
    ----------
    index : int
        Its place in `Recording.ops`.
    kind : str
        ``call``; ``decision`` (a value was read into Python: ``if x.sum() > 0``, ``.item()``,
        ``.numpy()``); ``identity`` (a module that gave back what it was given); ``opaque`` (a module whose
        inside could not be seen); ``output``; or a source without inputs: ``input``, ``parameter``,
        ``buffer``, ``constant``.
    name : str
        The user's word for it (``conv2d``, ``add``); of a source: which one (``encoder.pos_embedding``).
    func : callable or None
        What was called; None for sources, which take their value from the run (`value`, or by `name`).
    args, kwargs
        As it was called, every tensor replaced by its `Ref`, also inside lists, tuples, dicts and slices.
    inputs : tuple of Ref
        The tensors among the arguments, flat, in order; then the aliases that it overwrote in part.
    outputs : tuple of Spec
        One for each tensor in the result, flat, in order; of an operation in place the first is the new
        value.
    node : str
        Id of the graph node that it belongs to.
    inplace : bool
        Whether it wrote into memory that it was given.
    unsafe : str
        Why it must not simply be run again, empty where it may.
    aliases : tuple of Alias
        Further values that it changed through shared memory.
    source : tuple of (str, int)
        File and line of the user's code that ran it.
    value : Tensor or None
        The tensor itself, for constants; never for parameters and buffers, which stay live by name.
    read : str
        Of a decision, what Python got, in a word; empty for too much.
    """

    index: int
    kind: str
    name: str
    func: Callable[..., Any] | None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[Ref, ...] = ()
    outputs: tuple[Spec, ...] = ()
    node: str = ""
    inplace: bool = False
    unsafe: str = ""
    aliases: tuple[Alias, ...] = ()
    source: tuple[str, int] = ("", 0)
    value: Tensor | None = None
    read: str = ""


class Frame:
    """One call of a module while it runs: where it stands, what ran in it, what came out."""

    __slots__ = (
        "call", "called", "children", "counts", "error", "first", "id", "inputs", "leaf", "module",
        "outputs", "parent", "path", "solo", "source", "torchs",
    )  # fmt: skip

    def __init__(self, module: nn.Module, path: str, call: int, parent: Frame | None) -> None:
        self.module = module
        self.path = path
        self.call = call
        self.parent = parent
        self.id = f"{path}@{call}" if call else path
        #: Operations (by index) and calls of other modules, in order.
        self.children: list[int | Frame] = []
        #: How often each operation ran directly in here.
        self.counts: dict[str, int] = {}
        #: Number of the first operation in here.
        self.first = 0
        self.inputs: tuple[Ref, ...] = ()
        self.outputs: tuple[Ref, ...] = ()
        self.leaf = False
        #: Whether it called another module.
        self.called = False
        #: Whether the class is torch's own, and whether it has no parts: then it is a leaf whatever runs in
        #: it.
        self.torchs = type(module).__module__.startswith(("torch.nn.", "torch.ao.nn."))
        self.solo = self.torchs and not module._modules and parent is not None
        #: The exception that was being handled when the call began.
        self.error: BaseException | None = None
        self.source: tuple[str, int] = ("", 0)

    def release(self) -> None:
        """Let go of what is around each call in here: in a circle all of it would wait for the collector."""
        waiting = [self]
        while waiting:
            frame = waiting.pop()
            frame.parent = None
            waiting += [child for child in frame.children if isinstance(child, Frame)]

    def looks_like_leaf(self, more: int = 0) -> bool:
        """Whether this call, as far as it went (and `more` operations), is one node of the graph.

        It is for a module of torch's own that called no other; for any module that ran nothing; and for one
        without parts that ran a single operation. The root is always a group.
        """
        if self.parent is None or self.called:
            return False
        if self.torchs:
            return True
        ran = sum(self.counts.values()) - self.counts.get("constant", 0) + more
        return ran == 0 or (ran == 1 and not self.module._modules)


@dataclass
class Recording:
    """Everything one pass left.

    Attributes
    ----------
    ops : list of Op
        In order of execution, sources where they were first used.
    refs : dict of str to Ref
        The value that each node and group gave (its first tensor).
    args, kwargs
        What the model was given.
    output : object
        What the model returned; None after a stop.
    activations : mapping of str to Tensor
        The tensors of `refs` that were asked for. Never overwritten by what ran later.
    stopped : Tensor or None
        The value at `stop_at`, attached to its autograd graph where the pass had one.
    seconds : float
        Wall time of the pass.
    consistent : bool
        False where weights moved while the pass ran.
    complete : bool
        False after a stop, a cancel or a failure.
    harmless : bool
        Whether the model drew no random numbers and wrote into no tensor that it did not make itself: then it
        may also run without a recorder.
    failed : str
        Id of the node or group at which the model raised, else empty.
    kind, note : str
        ``run``, or ``shapes`` for a pass without values; and why there are none.
    weights : list of Weight
        Parameters and buffers of the model that ran, each once; known when the graph is.
    interventions : tuple of Intervention
        Those that were in force, the outermost first.
    """

    ops: list[Op]
    refs: dict[str, Ref] = field(default_factory=dict)
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    output: Any = None
    activations: Activations = field(default_factory=Activations)
    stopped: Tensor | None = None
    seconds: float = 0.0
    consistent: bool = True
    complete: bool = True
    harmless: bool = True
    failed: str = ""
    kind: str = "run"
    note: str = ""
    weights: list[Weight] = field(default_factory=list)
    interventions: tuple[Intervention, ...] = ()
    root: Frame | None = None
    _graph: Graph | None = None

    @property
    def graph(self) -> Graph:
        """The graph of what ran, drawn when first asked for."""
        if self._graph is None:
            from nnviz_widget.engine.assemble import assemble  # noqa: PLC0415 - it reads recordings

            assert self.root is not None
            parts = list(named_parts(self.root.module))
            self._graph = assemble(self, parts)
            self._graph.kind = self.kind
            self.weights = list(_weights(parts))
            self.root.release()  # it holds on to the modules
            self.root = None
        return self._graph


def _weights(parts: list[tuple[str, nn.Module]]) -> Iterator[Weight]:
    known: set[int] = set()
    for kind in ("parameter", "buffer"):
        for name, tensor in weights_of(parts, f"_{kind}s"):
            if id(tensor) in known:
                continue
            known.add(id(tensor))
            size = tensor.numel()
            yield Weight(name, kind, size, size * tensor.element_size(), tensor.requires_grad)


def tensors_of(value: Any, name: str = "") -> list[tuple[str, Tensor]]:
    """List the tensors in a nest of tuples, lists, dicts and dataclasses, each with the path of keys to it.

    Objects of other kinds are not looked into (the key-value caches of language models among them).
    """
    found: list[tuple[str, Tensor]] = []
    _collect(value, name, found)
    return found


def _collect(value: Any, name: str, found: list[tuple[str, Tensor]]) -> None:
    if isinstance(value, torch.Tensor):
        found.append((name, value))
    elif isinstance(value, (list, tuple)):
        names = getattr(value, "_fields", None) or range(len(value))
        for key, part in zip(names, value, strict=False):
            _collect(part, f"{name}.{key}" if name else str(key), found)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            _collect(part, f"{name}.{key}" if name else str(key), found)
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            part = getattr(value, entry.name, None)
            _collect(part, f"{name}.{entry.name}" if name else entry.name, found)
