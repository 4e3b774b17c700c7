"""Where positions are: which axes of inputs and of layers they lie on, and the way from a layer to the input.

Torch names no axes. A recorded pass tells which one holds the channels (``engine.axes``); the others, after
the batch, are positions: pixels, time steps, tokens. The tokens of a vision transformer are patches behind a
class token, and are put back on their grid here. Also here: which layer a map of positions is taken from
where nobody says.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from math import isclose, prod
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F  # noqa: N812  its name everywhere

from nnviz_widget.engine.axes import channel_axes
from nnviz_widget.engine.recording import Ref, tensors_of
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nnviz_widget.engine.attribution.task import Task
    from nnviz_widget.engine.recording import Op, Recording

__all__ = [
    "Layout",
    "default_layer",
    "enlarged",
    "layout_of",
    "lies_on",
    "on_grid",
    "patches",
    "positions_first",
]

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
_ATTENTION = frozenset({"multi_head_attention", "scaled_dot_product_attention"})
_NORMS = frozenset({"layer_norm", "rms_norm", "batch_norm"})
#: So many tokens may stand before the patches: of the class, of distillation, registers.
_MOST_EXTRA = 16
_TRIED = 6

#: What was learned about a twin, by the shapes of its inputs.
_known: weakref.WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], Layout]] = weakref.WeakKeyDictionary()


@dataclass
class Layout:
    """What one pass tells of axes.

    Attributes
    ----------
    inputs : list of int
        Axis of the channels of each explained input; the others after 0 are positions.
    layers : dict of str to (int, int or None, tuple of int)
        Of each module call (``path@call``) whose value has the batch first: which value it gave, numbered in
        the order of execution, the axis of its channels where known, and its shape.
    pools : set of int
        Values that an adaptive pooling made.
    norms : set of int
        Values that a normalisation made.
    attention : int
        Number of the last self-attention; -1 where there is none.
    spatial : bool
        Whether the model's own output has positions.
    series : bool
        Whether windows move along a single axis somewhere.
    chosen : str
        The layer that `default_layer` took.
    """

    inputs: list[int]
    layers: dict[str, tuple[int, int | None, tuple[int, ...]]] = field(default_factory=dict)
    pools: set[int] = field(default_factory=set)
    norms: set[int] = field(default_factory=set)
    attention: int = -1
    spatial: bool = False
    series: bool = False
    chosen: str = ""


def layout_of(task: Task) -> Layout:
    """Return the axes of a task's inputs and layers; the first time for inputs of these shapes by a pass."""
    known = _known.setdefault(task.passes.module, {})
    key = tuple((tuple(x.shape[1:]), x.dtype) for x in task.inputs)
    if key not in known:
        known[key] = _read(task, task.recording())
    return known[key]


def _read(task: Task, recording: Recording) -> Layout:
    axes = channel_axes(recording.ops)
    given: dict[tuple[int, tuple[int, ...]], Ref] = {}
    inputs = [op for op in recording.ops if op.kind == "input"]
    distinct = {id(t): t for _, t in tensors_of(recording.args) + tensors_of(recording.kwargs)}
    for op, tensor in zip(inputs, distinct.values(), strict=False):
        given[tensor.data_ptr(), tuple(tensor.shape)] = Ref(op.index)
    refs = [given.get((x.data_ptr(), tuple(x.shape)), Ref(-1)) for x in task.inputs]
    layout = Layout([_channels(axes.get(ref), x.dim()) for ref, x in zip(refs, task.inputs, strict=True)])
    modules = {path for path, _ in task.passes.module.named_modules(remove_duplicate=False)}
    for node, ref in recording.refs.items():
        shape = recording.ops[ref.op].outputs[ref.port].shape
        if node.partition("@")[0] in modules and task.samples in shape[:2]:
            layout.layers[node] = (ref.op, axes.get(ref), shape)
    for op in recording.ops:
        if op.name.startswith("adaptive_"):
            layout.pools.add(op.index)
        elif op.name in _NORMS:
            layout.norms.add(op.index)
        elif _attends(op):
            layout.attention = op.index
    outputs = [op for op in recording.ops if op.kind == "output" and len(op.outputs[0].shape) > 1]
    layout.spatial = bool(outputs) and len(outputs[0].outputs[0].shape) > 2
    layout.series = any(op.name == "conv1d" for op in recording.ops)
    return layout


def _attends(op: Op) -> bool:
    if op.name in _ATTENTION:
        return True
    shape = op.outputs[0].shape if op.outputs else ()
    return op.name == "softmax" and len(shape) == 4 and shape[2] == shape[3]


def _channels(axis: int | None, dims: int) -> int:
    """Return the axis of the channels; where it does not follow, the one that is usual."""
    return axis if axis is not None else min(dims - 1, 2 if dims == 3 else 1)


def default_layer(task: Task) -> str:
    """Return the last layer that still has positions and on more than one of which the score depends.

    Of a convolutional network that is the one before the global pooling. What a transformer gives after its
    last attention reaches the score through the class token alone, so that there it is the normalisation
    before that attention. Of a model whose output has positions, it is the coarsest layer.

    Raises
    ------
    InputError
        No layer has positions.
    """
    layout = layout_of(task)
    if not layout.chosen:
        candidates = _candidates(task, layout)
        if not candidates:
            raise InputError(
                "No layer of this model has positions (pixels, time steps or tokens), so there is no map.",
                hint="Methods that explain the input itself work: saliency, integrated_gradients, occlusion.",
            )
        layout.chosen = candidates[0]
        if len(candidates) > 1:
            _, _, gradients = task.layer_gradients(candidates, task.inputs, task.every)
            reached = [
                int((positions_first(gradient, layer, task) != 0).any(1).flatten(1).sum(1).max())
                for layer, gradient in zip(candidates, gradients, strict=True)
            ]
            layout.chosen = next(
                (layer for layer, count in zip(candidates, reached, strict=True) if count > 1), candidates[0]
            )
    return layout.chosen


def _candidates(task: Task, layout: Layout) -> list[str]:
    """Return the layers with positions, the likeliest first."""
    named: dict[int, str] = {}
    sizes: dict[int, int] = {}
    inputs = [_sizes(task, i) for i in range(len(task.inputs))]
    for node, (value, axis, shape) in layout.layers.items():
        positions = prod(shape[1:]) // shape[_channels(axis, len(shape))]
        fits = any(
            len(shape) - 2 == len(one) or (len(shape) == 3 and patches(positions, one) is not None)
            for one in inputs
        )
        usable = fits and len(shape) > 2 and positions > 1 and value not in layout.pools
        # One value may be that of a block, of its last part and of the whole stage: the stage names it best.
        if node and usable and (value not in named or node.count(".") < named[value].count(".")):
            named[value], sizes[value] = node, positions
    order = sorted(named, reverse=True)
    if layout.spatial:
        coarsest = min(sizes.values(), default=0)
        return [named[value] for value in order if sizes[value] == coarsest][:1]
    before = [value for value in order if value < layout.attention and value in layout.norms]
    return [named[value] for value in dict.fromkeys([*order[:1], *before[:1], *order[1:_TRIED]])]


def positions_first(values: Tensor, layer: str, task: Task) -> Tensor:
    """Return what a layer gave, or a gradient on it, as ``[N, C, positions ...]``; patches on their grid."""
    path, call = task.passes.resolve(layer)
    known = layout_of(task).layers.get(f"{path}@{call}" if call else path)
    if values.shape[0] != task.samples and values.dim() > 1 and values.shape[1] == task.samples:
        values = values.transpose(0, 1)  # a sequence with the steps first
    if values.dim() < 2:
        return values.reshape(len(values), 1)
    axis = known[1] if known is not None and len(known[2]) == values.dim() else None
    return on_grid(values.movedim(_channels(axis, values.dim()), 1), task)


def on_grid(values: Tensor, task: Task) -> Tensor:
    """Return values of tokens, ``[N, C, T]``, on the grid of the patches where they are those of an image."""
    inputs = [_sizes(task, i) for i in range(len(task.inputs))]
    grids = (patches(values.shape[2], sizes) for sizes in inputs) if values.dim() == 3 else ()
    grid = next((grid for grid in grids if grid is not None), None)
    if grid is None or any(len(sizes) == 1 for sizes in inputs):
        return values
    return values[:, :, values.shape[2] - prod(grid) :].reshape(*values.shape[:2], *grid)


def patches(tokens: int, sizes: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the grid on which so many tokens are the patches of an input; None where they fit none.

    Parameters
    ----------
    tokens : int
        How many there are, with the class token and others that stand before the patches.
    sizes : tuple of int
        Of the input, along its positions.
    """
    for extra in range(min(_MOST_EXTRA, tokens - 1) if len(sizes) > 1 else 0):
        side = (prod(sizes) / (tokens - extra)) ** (1 / len(sizes))  # of a patch
        grid = tuple(round(size / side) for size in sizes)
        if prod(grid) == tokens - extra and all(
            isclose(size / count, side, rel_tol=0.02) for size, count in zip(sizes, grid, strict=True)
        ):
            return grid
    return None


def _sizes(task: Task, index: int) -> tuple[int, ...]:
    axis = layout_of(task).inputs[index]
    shape = task.inputs[index].shape
    return tuple(size for place, size in enumerate(shape) if place not in (0, axis))


def lies_on(maps: Tensor, task: Task, index: int) -> bool:
    """Whether maps ``[B, 1, positions ...]`` have as many axes of positions as an input."""
    return maps.dim() - 2 == len(_sizes(task, index))


def enlarged(maps: Tensor, task: Task, index: int, mode: str = "linear") -> Tensor:
    """Return maps of positions in the shape of an input, the same in all of its channels.

    Parameters
    ----------
    maps : Tensor
        ``[B, 1, positions ...]``, of a layer.
    task : Task
        Has the inputs.
    index : int
        Which of them.
    mode : str
        ``"linear"`` along each axis of positions, or ``"nearest"``.

    Returns
    -------
    Tensor
        ``[B, ...]``, like the input; zeros where the map lies on another input, with other axes.
    """
    axis, like = layout_of(task).inputs[index], task.inputs[index]
    sizes, axes = _sizes(task, index), maps.dim() - 2
    shape = (len(maps), *like.shape[1:])
    if axes and not lies_on(maps, task, index):
        if not any(lies_on(maps, task, other) for other in range(len(task.inputs))):
            raise InputError(
                f"The layer has positions along {axes} axes, and the input along {len(sizes)}.",
                hint="Choose another layer.",
            )
        return maps.new_zeros(shape)
    if mode not in {"linear", "nearest"}:
        raise InputError(f"A map is enlarged in the mode 'linear' or 'nearest', not {mode!r}.")
    if axes and tuple(maps.shape[2:]) != sizes:
        if mode == "nearest":
            maps = F.interpolate(maps, size=sizes)
        else:
            maps = F.interpolate(maps, size=sizes, mode=_MODES[len(sizes)], align_corners=False)
    return maps.reshape(*maps.shape, *[1] * (len(shape) - maps.dim())).movedim(1, axis).expand(shape)
