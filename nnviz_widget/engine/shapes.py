"""What a model would do, without doing it: a pass over shapes alone, and below that the tree of its modules.

For models that are too big to run, or whose weights were never loaded. `record_shapes` runs the forward on
torch's fake tensors, which have a shape, a type and a device and no memory: the recording has everything but
values. `module_tree` needs no forward at all. What a real run leaves is ``recorder``'s to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from nnviz_widget.engine.details import module_detail, type_name
from nnviz_widget.engine.graph import Graph, Group, Node, fold_siblings
from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.sharing import CannotShareError, copy_modules
from nnviz_widget.errors import ModelError, NNVizError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nnviz_widget.engine.recorder import Token
    from nnviz_widget.engine.recording import Recording

__all__ = ["module_tree", "record_shapes"]


def record_shapes(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    note: str = "",
    token: Token | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Recording:
    """Run the forward on shapes and return what it would do.

    Parameters
    ----------
    module : nn.Module
        The twin; its tensors may be on the meta device. None of them is read.
    args, kwargs
        As the module takes them; their values are not read either.
    note : str
        Why there are only shapes, for people.
    token, progress
        As for `record`.

    Returns
    -------
    Recording
        Of kind ``shapes``: operations, shapes and types, no activation. Its output is on the meta device.

    Raises
    ------
    ModelError
        The forward raised, or needs a value: a decision on data, ``.item()``, numpy.
    NNVizError
        The model cannot be copied.
    """
    # Imported here, for it takes a while and most models are run.
    from torch._subclasses.fake_tensor import (  # noqa: PLC0415
        DataDependentOutputException,
        DynamicOutputShapeException,
        FakeTensorMode,
    )

    # What the forward holds beside its weights (a tensor in a closure) may still be real.
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fakes: dict[int, tuple[Tensor, Tensor]] = {}

    def fake(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) not in fakes:
            fakes[id(value)] = (value, mode.from_tensor(value, static_shapes=True))
        return fakes[id(value)][1]

    try:
        hollow, _ = copy_modules(module, fake)
    except CannotShareError as error:
        raise NNVizError(
            f"The shapes of this model cannot be had without running it: {error}.",
            hint="engine.tree() gives its modules and their parameters.",
        ) from error
    inputs = tree_map(fake, (args, dict(kwargs)))
    try:
        with mode:
            recording = record(hollow, *inputs, keep=None, token=token, progress=progress)
    except ModelError as error:
        if isinstance(error.__cause__, (DataDependentOutputException, DynamicOutputShapeException)):
            error = ModelError(
                f"The forward needs a value at {error.node}, and a pass over shapes has none.",
                hint="Run it on a smaller input; engine.tree() gives its modules.",
                source=error.source,
                node=error.node,
                shapes=error.shapes,
                trace=error.trace,
            )
        if error.trace is not None:
            error.trace.label("shapes", note)  # type: ignore[attr-defined]  # it is a Trace, made by failure
        raise error from error.__cause__
    recording.kind, recording.note = "shapes", note
    recording.args, recording.kwargs = args, dict(kwargs)
    recording.output = tree_map(_hollow, recording.output)
    for op in recording.ops:
        op.value = _hollow(op.value)
    return recording


def _hollow(value: Any) -> Any:
    """Return a tensor of the meta device for a fake one, which is of no use outside its mode."""
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def module_tree(module: nn.Module) -> Graph:
    """Return the modules of a model as a graph without edges, in the order in which they were registered.

    Parameters
    ----------
    module : nn.Module
        It is only read.

    Returns
    -------
    Graph
        Of kind ``tree``: a group for each module with parts, a node for each without, and their parameters.
        Neither shapes nor operations: what the forward makes of the modules is not known.
    """
    graph = Graph(model=type_name(module), kind="tree")
    #: Which node counted a parameter first.
    first: dict[int, str] = {}

    def add(part: nn.Module, path: str, parent: Group | None) -> None:
        parts = [(name, child) for name, child in part._modules.items() if child is not None]
        if parent is not None and (not parts or isinstance(part, torch.jit.ScriptModule)):
            node = Node(path, path, op=type_name(part).lower(), kind="module", type=type_name(part))
            node.detail, node.parent = module_detail(part), parent.id
            weights = {id(tensor): tensor for tensor in part.parameters()}
            node.params = sum(tensor.numel() for key, tensor in weights.items() if key not in first)
            node.shared = next((first[key] for key in weights if key in first), "")
            for key in weights:
                first.setdefault(key, path)
            parent.children.append(path)
            graph.nodes.append(node)
            return
        group = Group(
            path, path, type=type_name(part), params=sum(tensor.numel() for tensor in part.parameters())
        )
        if parent is not None:
            group.parent = parent.id
            parent.children.append(path)
        graph.groups.append(group)
        for name, child in parts:
            add(child, f"{path}.{name}" if path else name, group)

    add(module, "", None)
    fold_siblings(graph, in_order=True)
    return graph
