"""How far a change of the input reaches, layer by layer: the boxes of a replay, without its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nnviz_widget.engine.replay.patches import Patch
from nnviz_widget.engine.replay.plan import UnsafeError
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from nnviz_widget.engine.attribution.task import Task

__all__ = ["reach"]

Sides = tuple[tuple[int, int], ...]


def reach(task: Task, box: tuple[int, ...]) -> dict[str, Sides]:
    """Return what part of each layer a change inside a box of the (first) input reaches.

    Parameters
    ----------
    task : Task
        Gives the input and the model.
    box : tuple of int
        Begins, then ends, along the axes behind the channels; of the tokens of embeddings, of all but the
        last.

    Returns
    -------
    dict of str to tuple
        By node and group id; begin and end along each axis behind the samples.
    """
    try:
        replayed = task.replayed("input")
    except UnsafeError as error:
        raise InputError(f"This model cannot be replayed: {error}.") from error
    assert replayed is not None
    x = task.inputs[0][:1]
    places = list(range(1, x.dim() - 1)) if task.embedded else list(range(2, x.dim()))
    half = len(places)
    inside = [
        0 <= begin < end <= x.shape[axis]
        for axis, begin, end in zip(places, box[:half], box[half:], strict=False)
    ]
    if len(box) != 2 * half or not all(inside):
        sides = tuple(x.shape[axis] for axis in places)
        raise InputError(f"The box {tuple(box)} does not lie inside {sides}: begins first, then ends.")
    index = [slice(None)] * x.dim()
    for axis, begin, end in zip(places, box[:half], box[half:], strict=True):
        index[axis] = slice(begin, end)
    changed = x.clone()
    changed[tuple(index)] += 1
    found = replayed.replay.changes(replayed.seed, changed)
    sides_of: dict[str, Sides] = {}
    for name, ref in sorted(replayed.replay.plan.refs.items(), key=lambda item: item[1]):
        change = found.get(ref)
        if isinstance(change, Patch):
            at, sizes = change.along(range(1, change.tensor.dim()))
            sides_of[name] = tuple(
                (int(begin), int(begin) + size) for begin, size in zip(at[0], sizes, strict=True)
            )
        elif isinstance(change, torch.Tensor):
            sides_of[name] = tuple((0, int(side)) for side in change.shape[1:])
    return sides_of
