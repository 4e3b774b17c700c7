"""Painting: bytes that a page drew become an input of the model, and only what is on the screen is answered.

While somebody draws, a frame is one message each way: the picture, then predictions, thumbnails of the nodes
in sight and the tiles of the open layer. When the drawing rests, the page runs the painted sample as any
other: from then on every number is exact.

`Canvas` brings pictures into the range of the model's inputs. Where nothing was painted the input is that of
the sample, bit for bit, although bytes are coarser.
"""

from __future__ import annotations

import time
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from nnviz_widget.engine.tiles import planes, tiles
from nnviz_widget.errors import InputError, NNVizError
from nnviz_widget.explorer import params
from nnviz_widget.explorer.changing import changed_of, run_of
from nnviz_widget.explorer.layers import on_patches
from nnviz_widget.explorer.pictures import draw_sample, levels
from nnviz_widget.explorer.replies import Reply
from nnviz_widget.explorer.results import predictions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from nnviz_widget.engine.trace import Trace
    from nnviz_widget.explorer.exploration import Exploration
    from nnviz_widget.explorer.pictures import Denormalize
    from nnviz_widget.explorer.replies import Question

__all__ = ["PAINTING", "Affine", "input_from_array", "input_from_picture", "probe", "show"]

_PROBES = 33
#: How far a probe may lie from a straight line, in levels of the picture: a byte is 1 / 255.
_STRAIGHT = 1e-3
_STRIP_COUNT, _STRIP_SIZE = 4, 36

#: The sample that is painted on as it is looked at, with what it was drawn from: strokes come in their tens.
_grounds: weakref.WeakKeyDictionary[Exploration, tuple[tuple[int, int], NDArray[np.uint8]]]
_grounds = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Affine:
    """What undoing the normalisation does: ``picture = scale * input + shift``, for each channel.

    Attributes
    ----------
    scale, shift : Tensor
        ``[C]``, float64; the picture is between 0 and 1.
    """

    scale: Tensor
    shift: Tensor

    def invert(self, picture: Tensor) -> Tensor:
        """Return the input ``[C, H, W]`` (float64) that is looked at as this picture."""
        return (picture.double() - self.shift[:, None, None]) / self.scale[:, None, None]


def probe(denormalize: Denormalize, row: Tensor) -> Affine | None:
    """Find out what a function that undoes a normalisation does, or None where that is no affine map.

    It is asked about flat pictures over the range of a sample, and the answer is held against the sample
    itself: whatever mixes channels, bends values or looks at the picture as a whole is found out.

    Parameters
    ----------
    denormalize : callable
        From `pictures.read_denormalize`.
    row : Tensor
        One sample, ``[1, C, H, W]``.
    """
    values = row.detach().float().cpu()
    channels = values.shape[1]
    low, high = float(values.min()), float(values.max())
    if not 0 < high - low < float("inf"):
        low, high = -1.0, 1.0
    asked = torch.linspace(low, high, _PROBES, dtype=torch.float64)
    try:
        flat = [levels(denormalize(torch.full_like(values, float(v))), channels) for v in asked]
        told = torch.stack([picture[:, 0, 0] for picture in flat])
        shown = levels(denormalize(values), channels)
    except Exception:  # noqa: BLE001 - the user's function, on inputs that are none of his
        return None
    if told.shape != (_PROBES, channels) or shown.shape != values.shape[1:]:
        return None
    known = [line for channel in range(channels) if (line := _line(asked, told[:, channel])) is not None]
    if len(known) < channels:
        return None
    scale, shift = torch.tensor(known, dtype=torch.float64).unbind(1)
    expected = (scale[:, None, None] * values[0].double() + shift[:, None, None]).clamp(0, 1)
    straight = (expected - shown.clamp(0, 1)).abs().max() <= 1 / 255
    return Affine(scale, shift) if straight else None


def _line(asked: Tensor, told: Tensor) -> tuple[float, float] | None:
    """Return slope and intercept where the answers lie on a line, as far as they were not cut off."""
    inside = (told > 1e-6) & (told < 1 - 1e-6)
    x, y = asked[inside], told[inside]
    if len(x) < 3:
        return None
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    intercept = y.mean() - slope * x.mean()
    bent = (slope * x + intercept - y).abs().max() > _STRAIGHT or slope.abs() < 1e-9
    return None if bent else (float(slope), float(intercept))


def input_from_picture(exploration: Exploration, picture: NDArray[np.uint8], base: int) -> Tensor:
    """Return the input that is looked at as a painted picture.

    Where the normalisation is known it is done again; elsewhere the painted difference is added to the
    sample, as a share of the range of its values. Pixels that were not painted are those of the sample.

    Parameters
    ----------
    exploration : Exploration
        What is explored.
    picture : array
        uint8 ``[H, W, 3]``, of the size of the sample.
    base : int
        The sample that was painted on.

    Returns
    -------
    Tensor
        ``[1, C, H, W]``, in the type of the samples.
    """
    row = exploration.batch.row(base)
    if row.dim() != 4 or not row.is_floating_point():
        raise InputError("Only pictures of numbers can be painted.")
    _, channels, height, width = row.shape
    if picture.shape != (height, width, 3):
        raise InputError(f"The picture is {picture.shape[:2]}, the model's input {(height, width)}.")
    original = _ground(exploration, base)
    wanted = _channels(picture, channels)
    affine = exploration.affine(row) if channels in (1, 3) else None
    if affine is not None:
        painted = affine.invert(wanted)
    else:
        sample = row[0].detach().double().cpu()
        span = float(sample.max() - sample.min()) or 1.0
        painted = sample + span * (wanted - _channels(original, channels))
    same = torch.from_numpy((picture == original).all(-1))
    return torch.where(same, row[0].cpu(), painted.to(row.dtype))[None]


def _ground(exploration: Exploration, base: int) -> NDArray[np.uint8]:
    """Return a sample as it is looked at; one of the batch is drawn once while it is painted on."""
    batch = exploration.batch
    if base >= batch.count:
        return draw_sample(batch.row(base), 0, exploration.denormalize).rgb
    key = (base, 0 if batch.main.is_inference() else batch.main._version)
    kept = _grounds.get(exploration)
    if kept is None or kept[0] != key:
        kept = key, draw_sample(batch.row(base), 0, exploration.denormalize).rgb
        _grounds[exploration] = kept
    return kept[1]


def input_from_array(exploration: Exploration, array: Any, base: int) -> Tensor:
    """Return what `Explorer.paint` was given as an input: a picture of bytes, or the input itself."""
    row = exploration.batch.row(base)
    given = array.detach().cpu() if isinstance(array, torch.Tensor) else torch.as_tensor(np.array(array))
    wanted = tuple(row.shape[1:])
    if given.dtype == torch.uint8 and given.dim() == 3 and given.shape[-1] == 3 and row.is_floating_point():
        return input_from_picture(exploration, given.numpy(), base)
    if tuple(given.shape) == (1, *wanted):
        given = given[0]
    if tuple(given.shape) != wanted:
        raise InputError(
            f"The array has the shape {tuple(given.shape)}, one sample has {wanted}.",
            hint="Give an input as the model takes it, or a picture of bytes [H, W, 3].",
        )
    return given.to(row.dtype)[None]


def show(exploration: Exploration, painted: Tensor, base: int) -> int:
    """Make a painted input the sample after the others; returns its number. It is not run yet."""
    batch = exploration.batch
    if batch.painted is not None and base == batch.count:
        base = batch.painted[0]
    exploration.batch = replace(batch, painted=(base, painted))
    return batch.count


def _channels(picture: NDArray[np.uint8], channels: int) -> Tensor:
    """Return a picture as ``[channels, H, W]`` from 0 to 1: colours, or how bright it is."""
    values = torch.from_numpy(np.array(picture)).permute(2, 0, 1).double() / 255
    if channels == 3:
        return values
    if channels == 4:
        return torch.cat((values, values.mean(0, keepdim=True)))
    return values.mean(0, keepdim=True).expand(channels, -1, -1)


# ---- the operations ----------------------------------------------------------------------------------------


def _paint(exploration: Exploration, question: Question) -> Reply:
    """Run a picture and answer with what is on the screen."""
    started = time.perf_counter()
    p = question.p
    base = params.integer(p, "base", 0, exploration.batch.count)
    trace = run_of(exploration, {"changed": p.get("changed")})
    picture = _picture(exploration, question)
    nodes = _nodes(p.get("nodes"))
    layer = params.name(p, "layer") if p.get("layer") is not None else None
    max_side = params.integer(p, "max_side", 1, 2049, default=64)
    painted = input_from_picture(exploration, picture, base)
    sample = show(exploration, painted, base)
    args, kwargs = exploration.batch.sample(sample)

    looks: dict[str, Callable[[Tensor], object]] = {}
    for node, channels in nodes.items():
        if node in trace.refs and node != layer:
            looks[node] = _strip_look(trace, node, channels)
    shown = exploration.resolve(layer) if layer is not None else None
    if shown is not None:
        looks[shown] = _layer_look(trace, shown, max_side, nodes.get(shown))
    with exploration.altered.again(exploration, changed_of(p)):
        found = exploration.engine.glimpse(trace, args, kwargs, looks=looks)
    question.token.check()
    exploration.note_epoch(found.epoch)

    arrays: dict[str, NDArray[Any]] = {}
    meta: dict[str, Any] = {"sample": sample, "recorded": found.recorded}
    strips: list[dict[str, Any]] = []
    stack: list[Tensor] = []
    start = 0
    for node, channels in nodes.items():
        part = found.seen.get(node)
        if part is None:
            continue
        strip = part[0] if node == shown else part
        if strip is None:
            continue
        kind, pictures = strip
        strips.append({"node": node, "kind": kind, "start": start, "channels": channels})
        stack.append(pictures)
        start += len(pictures)
    arrays["tiles"] = _stretched(stack).cpu().numpy()
    if shown is not None and shown in found.seen:
        drawn = found.seen[shown][1]
        arrays |= {"maps": drawn.values, "low": drawn.low, "high": drawn.high, "strength": drawn.strength}
        bad = [{"channel": int(c), "count": int(drawn.bad[c])} for c in np.flatnonzero(drawn.bad)]
        grid = None if drawn.grid is None else dict(zip(("rows", "cols", "skip"), drawn.grid, strict=True))
        meta["maps"] = {
            "node": shown,
            "kind": drawn.kind,
            "shape": list(drawn.shape),
            "scale": drawn.scale,
            "bad": bad,
        } | ({"grid": grid} if grid is not None else {})
    meta |= {
        "strips": strips,
        "predictions": predictions(found.output, exploration.names, None),
        "forward": round(found.seconds * 1e3, 2),
        "recomputed": round(found.recomputed, 4),
        "ms": round((time.perf_counter() - started) * 1e3, 2),
    }
    return Reply(arrays, meta, epoch=found.epoch)


def _picture(exploration: Exploration, question: Question) -> NDArray[np.uint8]:
    if len(question.buffers) != 1:
        raise InputError("'paint' needs one buffer, the picture.")
    shape = (*exploration.batch.main.shape[2:4], 3)
    flat = np.frombuffer(question.buffers[0], np.uint8)
    if len(shape) != 3 or flat.size != shape[0] * shape[1] * shape[2]:
        raise InputError(f"The picture has {flat.size} bytes, expected those of {shape}.")
    return flat.reshape(shape)


def _nodes(given: Any) -> dict[str, list[int]]:
    """Read which nodes are in sight, and which channels their strips show."""
    if not isinstance(given, list) or len(given) > 400:
        raise InputError("'nodes' must be a list of at most 400 nodes.")
    nodes: dict[str, list[int]] = {}
    for entry in given:
        node = params.name(entry if isinstance(entry, dict) else {}, "node")
        channels = entry.get("channels")
        if not isinstance(channels, list) or len(channels) > _STRIP_COUNT:
            raise InputError(f"'channels' must be a list of at most {_STRIP_COUNT} numbers.")
        nodes[node] = list(params.integers(entry, "channels", _STRIP_COUNT)) if channels else []
    return {node: channels for node, channels in nodes.items() if channels}


def _strip_look(trace: Trace, node: str, channels: list[int]) -> Callable[[Tensor], object]:
    """Return a look that draws the channels of a node's strip, which `_stretched` makes bytes of.

    The same channels as before, not the strongest ones anew: that takes a fraction of the time, and pictures
    that change their places while one draws can not be followed.
    """
    axis = trace.channel_axis(node)
    patches = any(op.name == "conv2d" for op in trace.ops)

    def look(tensor: Tensor) -> tuple[str, Tensor] | None:
        try:
            kind, stack = planes(tensor, axis=axis)
        except NNVizError:
            return None
        if kind == "tokens" and patches:
            laid = on_patches(stack)
            kind, stack = ("tokens" if laid is stack else "maps"), laid
        if max(channels) >= len(stack) or not stack.numel():
            return None
        values = stack[channels].float().nan_to_num(0.0, 0.0, 0.0)
        mode = "area" if max(values.shape[1:]) > _STRIP_SIZE else "nearest"
        return kind, interpolate(values[:, None], size=(_STRIP_SIZE, _STRIP_SIZE), mode=mode)[:, 0]

    return look


def _stretched(strips: list[Tensor]) -> Tensor:
    """Return the tiles of all strips as bytes ``[n, size, size]``, each stretched to its own range."""
    if not strips:
        return torch.zeros(0, _STRIP_SIZE, _STRIP_SIZE, dtype=torch.uint8)
    values = torch.cat(strips)
    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    span = torch.where(high > low, high - low, torch.ones_like(high))
    return ((values - low) / span * 255).round().byte()


def _layer_look(
    trace: Trace, node: str, max_side: int, channels: list[int] | None
) -> Callable[[Tensor], object]:
    """Return a look that draws all channels of the open layer, and its strip."""
    axis = trace.channel_axis(node)
    patches = any(op.name == "conv2d" for op in trace.ops)
    strip = _strip_look(trace, node, channels) if channels else None

    def look(tensor: Tensor) -> object:
        drawn = tiles(tensor, max_side=max_side, axis=axis, patches=patches)
        return (strip(tensor) if strip is not None else None), drawn

    return look


PAINTING: Mapping[str, Any] = {"paint": _paint}
