"""Answers about one layer, as arrays for the wire: maps, raw values, statistics, the saliency of a unit.

Each function asks the engine and turns what it returns into numpy arrays and JSON. All run on the engine's
thread. What a channel is depends on what the activation is: a map ``[H, W]``, one feature of all tokens, or
one entry of a vector; `channels_of` brings each of them into one form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from nnviz_widget.engine.statistics import statistics as describe_values
from nnviz_widget.engine.tiles import patch_grid, planes
from nnviz_widget.errors import InputError, NNVizError
from nnviz_widget.explorer.pictures import draw_sample
from nnviz_widget.explorer.results import gradient_maps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.statistics import Stats
    from nnviz_widget.engine.trace import Trace
    from nnviz_widget.explorer.exploration import Exploration, Shown

    Answer = tuple[dict[str, NDArray[Any]], dict[str, Any]]

__all__ = [
    "activation",
    "extent",
    "maps",
    "on_patches",
    "pixel",
    "saliency",
    "statistics",
    "stats",
    "strips",
    "values",
]


def channels_of(trace: Trace, node: str) -> tuple[str, Tensor]:
    """Return the kind of a layer's activation and one sample of it as ``[C, H, W]``, as its tiles show it."""
    return planes(trace.activation(node), axis=trace.channel_axis(node))


def _ran(trace: Trace, op: str) -> bool:
    return any(node.op == op for node in trace.graph.nodes)


def on_patches(stack: Tensor) -> Tensor:
    """Lay tokens ``[D, T, 1]`` out on the image patches that they stand for, where they fill a square."""
    grid = patch_grid(stack.shape[1])
    if grid is None:
        return stack
    rows, columns, skip = grid
    return stack[:, skip:, 0].reshape(-1, rows, columns)


def maps(exploration: Exploration, trace: Trace, node: str, max_side: int) -> Answer:
    """Return all channels of a layer as bytes with their ranges.

    Parameters
    ----------
    exploration, trace
        What is explored, and its run on the screen or that of the changed network. The strengths, which put
        the channels in order, are those of the first in both: a channel keeps its place.
    node : str
        Id of a node or group.
    max_side : int
        Tiles are reduced to this many pixels along their longer side.
    """
    tiles = exploration.engine.tiles(trace, node, max_side=max_side)
    bad = np.asarray(tiles.bad)
    meta: dict[str, Any] = {
        "node": node,
        "kind": tiles.kind,
        "shape": list(tiles.shape),
        "scale": tiles.scale,
        "bad": [{"channel": int(channel), "count": int(bad[channel])} for channel in np.flatnonzero(bad)],
    }
    if tiles.grid is not None:
        rows, columns, skip = tiles.grid
        meta["grid"] = {"rows": rows, "cols": columns, "skip": skip}
    strength = tiles.strength
    known = exploration.current
    if known is not None and known is not trace and _can_tell(known, node):
        first = exploration.engine.tiles(known, node, max_side=1).strength
        strength = first if first.shape == strength.shape else strength
    arrays = {"tiles": tiles.values, "low": tiles.low, "high": tiles.high, "strength": strength}
    return {name: np.asarray(array) for name, array in arrays.items()}, meta


def _can_tell(trace: Trace, node: str) -> bool:
    return node in trace.refs and trace.holds(node)


def strips(
    trace: Trace,
    nodes: Sequence[str],
    *,
    count: int,
    size: int,
    token: CancelToken,
    beside: Trace | None = None,
) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """Return the strongest maps of many nodes, each stretched to its own range, ``[total, size, size]``.

    Beside another run they are of the channels, and stretched to the ranges, of that one: what differs can
    be seen. Nodes that have no activation (the graph changed meanwhile, or the run broke off before them) are
    left out.
    """
    pictures: list[Tensor] = []
    channels: list[Tensor] = []
    found: list[dict[str, Any]] = []
    start = 0
    patches = _ran(trace, "conv2d")
    for node in nodes:
        token.check()
        laid = _laid_out(trace, node, patches=patches)
        if laid is None:
            continue
        kind, stack = laid
        like = (
            _laid_out(beside, node, patches=patches) if beside is not None and beside is not trace else None
        )
        same = like is not None and like[1].shape == stack.shape
        chosen, tiles = _strongest(stack, count, size, like=like[1] if like is not None and same else stack)
        found.append({"node": node, "kind": kind, "start": start})
        pictures.append(tiles)
        channels.append(chosen)
        start += len(chosen)
    if not pictures:
        return np.zeros((0, size, size), np.uint8), found
    # One copy to the host for all of them: on a GPU every copy waits for the device.
    chosen_channels = torch.cat(channels).tolist()
    ends = [*(strip["start"] for strip in found[1:]), start]
    for strip, end in zip(found, ends, strict=True):
        strip["channels"] = chosen_channels[strip["start"] : end]
    return torch.cat(pictures).cpu().numpy(), found


def _laid_out(trace: Trace, node: str, *, patches: bool) -> tuple[str, Tensor] | None:
    """Return what a strip is cut from, tokens on their patches; None where there is nothing."""
    try:
        kind, stack = channels_of(trace, node)
    except NNVizError:
        return None
    if stack.numel() == 0:
        return None
    if kind == "tokens" and patches:
        laid = on_patches(stack)
        return ("tokens" if laid is stack else "maps"), laid
    return kind, stack


def _strongest(stack: Tensor, count: int, size: int, *, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the channels of ``[C, H, W]`` that are strongest in `like`, and their tiles as bytes.

    Strong by mean magnitude; 0 and 255 are the ends of a channel's range in `like`.
    """
    known = like.float().nan_to_num(0.0, 0.0, 0.0)
    chosen = torch.arange(len(known), device=known.device)
    if len(known) > count:
        chosen = known.abs().mean((1, 2)).topk(count).indices
        known = known[chosen]
    known = _sized(known, size)
    values = known if like is stack else _sized(stack[chosen].float().nan_to_num(0.0, 0.0, 0.0), size)
    low, high = known.amin((1, 2), keepdim=True), known.amax((1, 2), keepdim=True)
    span = torch.where(high > low, high - low, torch.ones_like(high))
    return chosen, ((values - low) / span * 255).round().clamp(0, 255).byte()


def _sized(values: Tensor, size: int) -> Tensor:
    mode = "area" if max(values.shape[1:]) > size else "nearest"
    return interpolate(values[:, None], size=(size, size), mode=mode)[:, 0]


def values(trace: Trace, node: str, channel: int) -> NDArray[np.float32]:
    """Return one channel as it is, ``[H, W]``."""
    _, stack = channels_of(trace, node)
    _check_channel(channel, stack, node)
    result: NDArray[np.float32] = stack[channel].float().cpu().numpy()
    return result


def stats(trace: Trace, node: str, channel: int | None) -> Answer:
    """Return histogram and moments of a layer for one sample, or of one channel of it."""
    found = _statistics(trace, node, channel)
    numbers = {
        name: getattr(found, name) for name in ("mean", "std", "min", "max", "zeros", "nan", "inf", "numel")
    }
    return {
        "counts": np.asarray(found.counts, dtype=np.int32),
        "edges": np.asarray(found.edges, dtype=np.float32),
    }, numbers


def statistics(exploration: Exploration, node: str, channel: int | None) -> Stats:
    """Return the same for the run on the screen, as an object."""
    return _statistics(exploration.trace_of(exploration.sample), node, channel)


def _statistics(trace: Trace, node: str, channel: int | None) -> Stats:
    if channel is None:
        return trace.stats(node, sample=0)
    kind, stack = channels_of(trace, node)
    if kind == "vector":
        return trace.stats(node, sample=0)  # the histogram of one number says nothing
    _check_channel(channel, stack, node)
    return describe_values(stack[channel])


def saliency(exploration: Exploration, shown: Shown) -> Answer:
    """Return a gradient on the input as two cropped maps."""
    drawn = gradient_maps(shown.gradient)
    meta = {
        "node": shown.node,
        "unit": list(shown.unit),
        "value": shown.value,
        "scale": drawn.scale,
        "magnitude_scale": drawn.magnitude_scale,
        "box": list(drawn.box),
        "sample": exploration.sample,
    }
    return {"signed": drawn.signed, "magnitude": drawn.magnitude}, meta


def field(exploration: Exploration, shown: Shown) -> dict[str, Any]:
    """Return the receptive field of the unit that is shown."""
    trace = exploration.trace_of(exploration.sample)
    found = exploration.engine.receptive_field(trace, shown.node, shown.unit)
    height, width = _extent_of_input(shown.gradient)
    return {"box": list(found.box or (0, 0, height, width)), "exact": found.exact}


def pixel(exploration: Exploration, sample: int, y: int, x: int) -> dict[str, Any]:
    """Return what is known about one input pixel: its values, and the newest saliency there."""
    row = exploration.batch.row(sample)
    shown = exploration.saliency
    rgb = draw_sample(row, 0, exploration.denormalize).rgb
    return {
        "values": _at(row[0], y, x),
        "display": rgb[y, x].tolist() if y < rgb.shape[0] and x < rgb.shape[1] else None,
        "saliency": None if shown is None or sample != exploration.sample else _at(shown.gradient, y, x),
        "unit": None if shown is None else list(shown.unit),
    }


def activation(exploration: Exploration, layer: str) -> NDArray[np.float32]:
    """Return the activation of a layer for the sample on the screen, without batch axis."""
    trace = exploration.trace_of(exploration.sample)
    tensor = trace.activation(exploration.resolve(layer))
    result: NDArray[np.float32] = tensor[0].float().cpu().numpy()
    return result


def extent(exploration: Exploration, node: str) -> tuple[str, int, int, int]:
    """Return kind, channels, height and width of a layer's activation."""
    kind, stack = channels_of(exploration.trace_of(exploration.sample), node)
    channels, height, width = stack.shape
    return (kind, width, 1, 1) if kind == "vector" else (kind, channels, height, width)


def _check_channel(channel: int, stack: Tensor, node: str) -> None:
    if channel >= len(stack):
        raise InputError(f"channel {channel} does not exist: {node!r} has {len(stack)}, counting from 0.")


def _extent_of_input(sample: Tensor) -> tuple[int, int]:
    if sample.dim() < 2:
        return 1, sample.numel()
    return int(sample.shape[-2]), int(sample.shape[-1])


def _at(sample: Tensor, y: int, x: int) -> list[float]:
    """Return the values of all channels at one place."""
    place = sample.reshape(-1)[x] if sample.dim() < 2 else sample[..., y, x]
    return [float(value) for value in place.reshape(-1)[:64].float().cpu()]
