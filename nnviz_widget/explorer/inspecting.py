"""Numbers taken apart, activation curves and weights for the page, and weights that it changes.

What an operation is, and when it runs, is told in ``operations``. What is sent is what can be looked at: of
many channels the strongest, of a large matrix a part.
"""

from __future__ import annotations

from contextlib import ExitStack
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nnviz_widget.engine.tiles import unit_at
from nnviz_widget.errors import InputError
from nnviz_widget.explorer import params
from nnviz_widget.explorer.changing import run_of
from nnviz_widget.explorer.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from nnviz_widget.engine.arithmetic import Arithmetic
    from nnviz_widget.engine.weights import Weights
    from nnviz_widget.explorer.exploration import Exploration
    from nnviz_widget.explorer.replies import Question

__all__ = ["INSPECTING", "Changes"]

_CHANNELS = 24
_LONGEST = 4096
_KEYS = 512
_TILES = 512
_ROWS, _COLUMNS = 48, 96
_BARS = 40

Arrays = dict[str, "NDArray[Any]"]


class Changes:
    """The weights that a page changed, newest last; on the engine's private copies."""

    def __init__(self) -> None:
        self._blocks = ExitStack()
        self.listed: list[dict[str, Any]] = []

    def add(
        self, exploration: Exploration, layer: str, name: str, index: tuple[int, ...], value: float
    ) -> None:
        """Put a change in force."""
        self._blocks.enter_context(exploration.engine.weights_changed(layer, name, index, value))
        self.listed.append({"layer": layer, "name": name, "index": list(index), "value": value})

    def reset(self) -> None:
        """Take all changes back."""
        self.listed.clear()
        self._blocks.close()

    @property
    def status(self) -> dict[str, Any]:
        """What the page is told beside what it shows."""
        if not self.listed:
            return {}
        count = len(self.listed)
        title = f"{count} weight{'s are' if count > 1 else ' is'} changed."
        message = "All that is shown is of a private copy; your model is as it was. Reset in the tab Weights."
        return {"note": {"title": title, "message": message}}


def _arithmetic(exploration: Exploration, question: Question) -> Reply:
    p = question.p
    trace = run_of(exploration, p)
    node = exploration.resolve(params.name(p, "node"))
    unit = params.integers(p, "unit", 8)
    ref = trace.refs.get(node)
    if ref is not None:
        shape = trace.ops[ref.op].outputs[ref.port].shape
        unit = unit_at(shape, unit, axis=trace.channel_axis(node))
    found = exploration.engine.arithmetic(trace, node, unit)
    arrays, more = _shown(found, params.integer(p, "head", 0, 2**31, default=None))
    picture = trace.channel_axis(found.source) == 1 if found.source in trace.refs else False
    meta = {
        "node": found.node,
        "op": found.op,
        "at": found.at,
        "kind": found.kind,
        "unit": list(found.unit),
        "formula": found.formula,
        "note": found.note,
        "result": found.result,
        "actual": found.actual,
        "error": found.error,
        "changed_by": found.changed_by,
        "numbers": [[name, value] for name, value in found.numbers.items()],
        "operands": [
            {"name": part.name, "value": part.value, "node": part.node, "index": list(part.index)}
            for part in found.operands
        ],
        "source": found.source if picture else "",
        "first": found.first,
        **more,
    }
    return Reply(arrays, meta)


def _shown(found: Arithmetic, head: int | None) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays of one kind as they are drawn."""
    arrays = found.arrays
    told: Arrays = {}
    more: dict[str, Any] = {}
    if found.kind in {"weighted_sum", "choice"}:
        told, more = _window(found)
    elif found.kind == "attention":
        told, more = _attention(arrays, head)
    elif found.kind == "normalisation":
        members = arrays["members"].reshape(-1)
        counts, edges = np.histogram(members[torch.isfinite(members)].numpy(), _BARS)
        told = {"counts": counts.astype(np.int32), "edges": edges.astype(np.float32)}
    elif found.kind == "softmax":
        told = {name: _floats(arrays[name][:_LONGEST]) for name in ("logits", "exps", "shares")}
        more = {"place": int(found.numbers["place"])}
    elif found.kind == "lookup":
        told = {"row": _floats(arrays["row"][:_LONGEST])}
    elif found.kind == "gates":
        into, hidden = arrays["weight_ih"] @ arrays["input"], arrays["weight_hh"] @ arrays["hidden"]
        told = {"gates": _floats(torch.stack([into, hidden, arrays["bias"], arrays["sums"]], 1))}
    return told, more


def _window(found: Arithmetic) -> tuple[Arrays, dict[str, Any]]:
    """Return the strongest channels of a window as pictures, and the sum of each channel."""
    parts = {name: array for name, array in found.arrays.items() if name != "inside"}
    inside = found.arrays["inside"]
    flat = parts["patch"].dim() == 1
    window = (1, 1) if flat else (prod(inside.shape[:-1]), inside.shape[-1] if inside.dim() else 1)
    parts = {name: array.reshape(-1, *window) for name, array in parts.items()}
    sums = parts["products" if "products" in parts else "patch"].sum((1, 2))
    order = sums.abs().nan_to_num(0, 0, 0).argsort(descending=True, stable=True)
    # Three channels are the colours of an input: they stay in their order.
    shown = order[:_CHANNELS] if len(order) > 3 else torch.arange(len(order))
    inside = inside.reshape(window) if not flat else torch.ones(window)
    arrays = {name: _floats(array[shown]) for name, array in parts.items()}
    arrays |= {
        "channels": (shown + found.first).numpy().astype(np.int32),
        "partial": _floats(sums[shown]),
        "inside": inside.numpy().astype(np.uint8),
    }
    more = {
        "channel_count": len(sums),
        "rest": float(sums[order[_CHANNELS:]].sum()) if len(order) > 3 else 0.0,
    }
    if found.places is not None and found.places.shape[-1] <= 2:
        places = found.places.reshape(-1, found.places.shape[-1])
        if places.shape[1] == 1:
            places = torch.cat([places.clamp(max=0), places], 1)
        arrays["places"] = places.numpy().astype(np.int32)
    return arrays, more


def _attention(arrays: Mapping[str, Tensor], head: int | None) -> tuple[Arrays, dict[str, Any]]:
    sums = arrays["products"].sum(1)
    if head is None or head >= len(sums):
        head = int(sums.abs().argmax())
    told = {
        name: _floats(arrays[name][head, :_KEYS])
        for name in ("scores", "weights", "values", "products", "keys")
    }
    told |= {"query": _floats(arrays["query"][head]), "heads": _floats(sums)}
    return told, {"head": head, "key_count": arrays["scores"].shape[1]}


def _curve(exploration: Exploration, question: Question) -> Reply:
    trace = run_of(exploration, question.p)
    node = exploration.resolve(params.name(question.p, "node"))
    curve = exploration.engine.activation_curve(trace, node)
    arrays = {name: _floats(getattr(curve, name)) for name in ("x", "y", "slope", "counts", "edges")}
    meta = {key: getattr(curve, key) for key in ("node", "op", "formula", "saturated", "inputs", "note")}
    return Reply(arrays, meta)


def _weights(exploration: Exploration, question: Question) -> Reply:
    p = question.p
    node = params.name(p, "node")
    name = params.name(p, "name") if p.get("name") is not None else None
    found = exploration.engine.weights(node, name)
    arrays: Arrays = {
        "norms": _floats(found.norms[:_LONGEST]),
        "counts": found.counts.numpy().astype(np.int32),
        "edges": _floats(found.edges),
    }
    if found.singular_values is not None:
        arrays["singular"] = _floats(found.singular_values[:_LONGEST])
    more = _picture(found, p, arrays)
    meta = {
        "layer": found.layer,
        "type": found.type,
        "name": found.name,
        "names": found.names,
        "shape": list(found.values.shape),
        "kernel_shape": None if found.kernels is None else list(found.kernels.shape),
        "mean": found.mean,
        "std": found.std,
        "low": found.low,
        "high": found.high,
        "zeros": found.zeros,
        "dead": found.dead[:_LONGEST],
        "duplicates": [list(pair) for pair in found.duplicates],
        "notes": found.notes,
        "changes": exploration.changes.listed,
        **more,
    }
    return Reply(arrays, meta)


def _picture(found: Weights, p: Mapping[str, Any], arrays: Arrays) -> dict[str, Any]:
    """Add what is drawn: a tile for each filter and all slices of one, or a part of a matrix."""
    kernels = found.kernels
    if kernels is None or kernels.dim() < 3:
        matrix = found.values.reshape(1, -1) if kernels is None else kernels
        top = _start(p, "row", matrix.shape[0], _ROWS)
        left = _start(p, "column", matrix.shape[1], _COLUMNS)
        arrays["matrix"] = _floats(matrix[top : top + _ROWS, left : left + _COLUMNS])
        return {"picture": "matrix", "row": top, "column": left}
    window = (prod(kernels.shape[2:-1]), kernels.shape[-1])
    tiles = kernels.reshape(*kernels.shape[:2], *window)
    colours = tiles.shape[1] == 3 and min(window) > 1
    shown = tiles[:_TILES]
    if not colours:  # of many inputs the one that counts most
        strongest = shown.flatten(2).norm(dim=2).argmax(1)
        shown = shown[torch.arange(len(shown)), strongest][:, None]
        arrays["strongest"] = strongest.numpy().astype(np.int32)
    number = params.integer(p, "filter", 0, len(tiles), default=0)
    arrays |= {"tiles": _floats(shown), "slices": _floats(tiles[number, :_TILES])}
    return {"picture": "tiles", "filter": number, "colours": colours}


def _start(p: Mapping[str, Any], key: str, size: int, most: int) -> int:
    return min(params.integer(p, key, 0, 2**31, default=0), max(0, size - most))


def _change_weight(exploration: Exploration, question: Question) -> Reply:
    """Change one weight, or take all changes back, and run the sample on the screen again."""
    p = question.p
    if p.get("index") is None:
        exploration.changes.reset()
    else:
        node, name = params.name(p, "node"), params.name(p, "name")
        index = params.integers(p, "index", 8)
        value = p.get("value")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError("'value' must be a number.")
        found = exploration.engine.weights(node, name)
        shape = found.values.shape if found.kernels is None else found.kernels.shape
        if found.kernels is None and len(index) == 2:
            index = index[1:]  # a vector is drawn as one row
        if found.kernels is not None and len(index) < len(shape) and found.kernels.dim() > 4:
            index = (
                *index[:2],
                index[2] // shape[3],
                index[2] % shape[3],
                index[3],
            )  # volumes lie slice by slice
        elif found.kernels is not None and len(shape) == 3 and len(index) == 4:
            index = (*index[:2], index[3])
        if len(index) != len(shape) or any(at >= size for at, size in zip(index, shape, strict=True)):
            raise InputError(f"{found.layer}.{name} has no entry {list(index)}.")
        entry = index if found.kernels is None else found.entry(index)
        exploration.changes.add(exploration, found.layer, name, entry, float(value))
    exploration.run(exploration.sample)
    return Reply(meta={"changes": exploration.changes.listed})


def _floats(values: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = values.detach().float().cpu().contiguous().numpy()
    return found


INSPECTING: Mapping[str, Any] = {
    "arithmetic": _arithmetic,
    "curve": _curve,
    "weights": _weights,
    "change_weight": _change_weight,
}
