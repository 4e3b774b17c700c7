"""Comparing for the page: what stands beside the sample on the screen, how alike the layers are, the maps.

Beside it stands another sample of the batch, which the page picks, or what Python gave: another input,
another model, another checkpoint; and beside the network with a page's interventions that without them. What
an operation is, and when it runs, is told in ``operations``; what is computed, in the engine.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from nnviz_widget.engine.comparison.similarity import partners
from nnviz_widget.engine.tiles import patch_grid, planes, tiles
from nnviz_widget.errors import InputError, StaleError
from nnviz_widget.explorer import inputs as door
from nnviz_widget.explorer import params
from nnviz_widget.explorer.changing import changed_of, in_force, key_of
from nnviz_widget.explorer.replies import Reply, growing
from nnviz_widget.explorer.results import class_scores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from nnviz_widget.engine.comparison.result import Comparison
    from nnviz_widget.engine.comparison.stream import ComparisonStream
    from nnviz_widget.engine.trace import Trace
    from nnviz_widget.engine.twin import Twin
    from nnviz_widget.explorer.exploration import Exploration
    from nnviz_widget.explorer.inputs import Batch
    from nnviz_widget.explorer.replies import Question, Stream

__all__ = ["COMPARING", "Contrast", "choose", "whole"]

_MOST_SAMPLES = 64  # in one comparison over samples
_SHOWN = 6  # classes
_LONGEST = 1024  # side of a matrix of tokens, or of a vector
_FEWEST = 4  # positions by which channels are told apart

#: What a page names to compare with the network without its interventions.
_PLAIN = "plain"

Key = tuple[Any, ...]
Other = int | str | None


@dataclass(frozen=True)
class Given:
    """What Python gave to compare with.

    Attributes
    ----------
    kind : str
        ``inputs``, ``model`` or ``checkpoint``.
    name : str
        For the page.
    batch : Batch or None
        Other inputs.
    twin : Twin or None
        Another model, or another checkpoint.
    """

    kind: str
    name: str
    batch: Batch | None = None
    twin: Twin | None = None


@dataclass(frozen=True)
class Held:
    """The newest comparison, as far as it is.

    Attributes
    ----------
    key : tuple
        Of what it was made.
    comparison : Comparison
        Of the engine; its first sample is the one on the screen.
    """

    key: Key
    comparison: Comparison


class Contrast:
    """What stands beside the sample on the screen; on the engine's thread.

    Attributes
    ----------
    given : Given or None
        What Python gave.
    sample : int or None
        The sample that Python named instead.
    held : Held or None
        The newest comparison.
    """

    def __init__(self) -> None:
        self.given: Given | None = None
        self.sample: int | None = None
        self.held: Held | None = None
        self.version = 0

    def clear(self) -> None:
        """Let go of everything."""
        if self.given is not None and self.given.twin is not None:
            self.given.twin.close()
        self.given = self.sample = self.held = None


def choose(
    exploration: Exploration,
    *,
    inputs: Any = None,
    model: Any = None,
    state_dict: Any = None,
    sample: int | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Set something beside the sample on the screen; returns what the page is told of it.

    Raises
    ------
    InputError
        Not exactly one thing was given, or it does not fit.
    """
    every = {"inputs": inputs, "model": model, "state_dict": state_dict, "sample": sample}
    named = [key for key, value in every.items() if value is not None]
    if len(named) != 1:
        raise InputError(
            f"Compare with one of inputs=, model=, state_dict= and sample=; {len(named) or 'none'} given."
        )
    contrast, engine = exploration.contrast, exploration.engine
    told: dict[str, Any]
    if sample is not None:
        if type(sample) is not int or not 0 <= sample < exploration.batch.total:
            raise InputError(f"sample={sample!r} is not one of the {exploration.batch.total} samples.")
        contrast.clear()
        contrast.sample = sample
        told = {"kind": "sample", "name": name or f"sample {sample}", "sample": sample}
    else:
        if inputs is not None:
            given = Given("inputs", name or "other input", batch=_batch(exploration, inputs))
        elif model is not None:
            given = Given("model", name or f"other {_type(model)}", twin=engine.opened(model))
        else:
            given = Given("checkpoint", name or "checkpoint", twin=engine.opened(state_dict))
        contrast.clear()
        contrast.given = given
        told = {"kind": given.kind, "name": given.name}
    contrast.version += 1
    return told | {"version": contrast.version}


def whole(exploration: Exploration) -> Comparison:
    """Return the whole comparison of what the page compares; on the engine's thread.

    Raises
    ------
    InputError
        There is nothing yet to compare with.
    """
    contrast = exploration.contrast
    held = contrast.held
    if held is not None and held.comparison.progress == 1 and held.key[:2] == _now(exploration):
        return held.comparison
    other = contrast.sample if held is None or contrast.given is not None else held.key[2]
    changed = json.loads(held.key[4] or "[]") if held is not None else []
    with (
        in_force(exploration, changed),
        _stream(exploration, exploration.sample, other, "positions") as stream,
    ):
        return stream.result()


def _batch(exploration: Exploration, inputs: Any) -> Batch:
    model = exploration.engine.model
    batch = door.read_batch(
        model if isinstance(model, nn.Module) else nn.Module(), inputs, exploration.engine.device
    )
    shapes = [tuple(one.main.shape[1:]) for one in (exploration.batch, batch)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"A sample of these inputs has the shape {shapes[1]}, those on the screen {shapes[0]}.",
            hint="Bring them to one size.",
        )
    if batch.count not in (1, exploration.batch.count):
        raise InputError(
            f"There are {batch.count} other inputs for {exploration.batch.count} samples.",
            hint="Give one for each sample, or one for all.",
        )
    return batch


def _type(model: Any) -> str:
    return type(model).__name__ if isinstance(model, nn.Module) else "model"


def _now(exploration: Exploration) -> Key:
    return exploration.run_number, exploration.contrast.version


def _stream(exploration: Exploration, sample: int, other: Other, over: str) -> ComparisonStream:
    """Return what computes; the sample comes first in it."""
    engine, batch, given = exploration.engine, exploration.batch, exploration.contrast.given
    if other == _PLAIN:  # its own twin knows nothing of the interventions in force
        return engine.stream_compare_models(engine.model, _inputs(batch, [sample]))
    if isinstance(other, int):
        return engine.stream_compare(_inputs(batch, [sample]), _inputs(batch, [other]))
    if given is None:
        raise InputError(
            "There is nothing to compare with.",
            hint="Pick another sample, or in Python w.compare_with(model=..., state_dict=..., inputs=...).",
        )
    if given.batch is not None:
        theirs = 0 if given.batch.count == 1 else _source(batch, sample)
        return engine.stream_compare(_inputs(batch, [sample]), _inputs(given.batch, [theirs]))
    rows = [sample]
    options = {}
    if over == "samples":
        rows = [*dict.fromkeys([sample, *range(min(batch.count, _MOST_SAMPLES))])][:_MOST_SAMPLES]
        options = {"examples": "samples", "cka": "unbiased"}
    stream = engine.stream_compare_models(given.twin, _inputs(batch, rows), **options)
    stream.any_classes = True  # the page shows the layers of two networks with other heads, too
    return stream


def _source(batch: Batch, sample: int) -> int:
    """Return the sample itself, or for the painted one that which it was painted on."""
    return batch.painted[0] if batch.painted is not None and sample == batch.count else sample


def _inputs(batch: Batch, rows: list[int]) -> Any:
    """Return some samples as the model takes them."""
    cut = [batch.sample(row) for row in rows]
    args, kwargs = cut[0]
    if len(cut) > 1:

        def together(values: list[Any]) -> Any:
            fits = isinstance(values[0], Tensor) and values[0].dim() > 0 and len(values[0]) == 1
            return torch.cat(values) if fits else values[0]

        args = tuple(together([one[0][i] for one in cut]) for i in range(len(args)))
        kwargs = {name: together([one[1][name] for one in cut]) for name in kwargs}
    return kwargs or args


# ---- the operations ----------------------------------------------------------------------------------------


def _compare(exploration: Exploration, question: Question) -> Stream:
    """Stream how alike the layers are, as they are measured."""
    sample, other = _asked(exploration, question)
    over = params.choice(question.p, "examples", ("positions", "samples"))
    exploration.trace_of(sample)
    changed = changed_of(question.p)
    key = (*_now(exploration), other, sample, key_of(changed))
    exploration.contrast.held = None  # its memory first
    with in_force(exploration, changed):  # a stream keeps what was in force when it was asked for
        stream = _stream(exploration, sample, other, over)
    said = False

    def reply(found: Comparison) -> Reply:
        nonlocal said
        exploration.contrast.held = Held(key, found)
        told = _told(exploration, found, named=not said)
        said = True
        return told

    found = yield from growing(stream, question.token, reply)
    return reply(found)


def _asked(exploration: Exploration, question: Question) -> tuple[int, Other]:
    total = exploration.batch.total
    sample = params.integer(question.p, "sample", 0, total, default=exploration.sample)
    if question.p.get("other") == _PLAIN:
        return sample, _PLAIN
    return sample, params.integer(question.p, "other", 0, total, default=None)


def _told(exploration: Exploration, found: Comparison, *, named: bool) -> Reply:
    def numbers(name: str) -> NDArray[np.float32]:
        values = [getattr(pair, name) for pair in found.pairs]
        array = np.array([np.nan if value is None else value for value in values], np.float32)
        return np.where(np.isinf(array), np.float32(np.nan), array)

    notes = list(dict.fromkeys(pair.note for pair in found.pairs if pair.note))
    place = {note: i for i, note in enumerate(notes)}
    arrays = {name: numbers(name) for name in ("cka", "difference", "correlation")}
    arrays["note"] = np.array([place.get(pair.note, -1) for pair in found.pairs], np.int32)
    arrays["measured"] = np.array([pair.measured for pair in found.pairs], np.uint8)
    samples = next((pair.count for pair in found.pairs if pair.examples == "samples"), 0)
    meta: dict[str, Any] = {
        "what": found.what,
        "cka": found.cka,
        "samples": samples,
        "notes": notes,
        "progress": found.progress,
        "seconds": found.seconds,
        "classes": _classes(exploration, found),
    }
    if named:
        meta["pairs"] = [[pair.a, pair.b, pair.by, pair.group] for pair in found.pairs]
        meta["only"] = [found.only_a, found.only_b]
    return Reply(arrays, meta, epoch=found.epoch)


def _classes(exploration: Exploration, found: Comparison) -> list[dict[str, Any]]:
    """Return the likeliest classes of either, with both probabilities and logits."""
    if found.scores_a is None or found.scores_b is None:
        return []
    both = [class_scores(scores[:1]) for scores in (found.scores_a, found.scores_b)]
    best = [np.argsort(-np.nan_to_num(one[0], nan=-1.0), kind="stable")[:_SHOWN] for one in both]
    chosen = [*dict.fromkeys([*map(int, best[0]), *map(int, best[1][:3])])]
    names = exploration.names or {}
    return [
        {
            "index": index,
            "name": names.get(index, str(index)),
            "a": float(both[0][0][index]),
            "b": float(both[1][0][index]),
            "logit_a": float(both[0][1][index]),
            "logit_b": float(both[1][1][index]),
        }
        for index in chosen
    ]


def _held(exploration: Exploration, question: Question) -> Held:
    sample, other = _asked(exploration, question)
    exploration.trace_of(sample)
    held = exploration.contrast.held
    if held is None or held.key != (*_now(exploration), other, sample, key_of(changed_of(question.p))):
        raise StaleError("This comparison is no longer kept.", hint="Compare again.")
    return held


def _compare_maps(exploration: Exploration, question: Question) -> Reply:
    """Answer with the maps of a layer in both runs, and their differences."""
    started = time.perf_counter()
    held = _held(exploration, question)
    max_side = params.integer(question.p, "max_side", 1, 1025, default=128)
    plates = _plates(held, exploration.resolve(params.name(question.p, "node")))
    arrays: dict[str, NDArray[Any]] = {}
    shown = {"a": plates.a, "b": plates.b, "d": plates.difference()}
    for name, stack in shown.items():
        if stack is None:
            continue
        drawn = tiles(stack[None], max_side=max_side if plates.kind == "maps" else _LONGEST, axis=1)
        arrays |= {name: drawn.values, f"low_{name}": drawn.low, f"high_{name}": drawn.high}
        if name == "d":
            arrays["strength"] = drawn.strength
    if plates.partner is not None and plates.fit is not None:
        arrays |= {"partner": plates.partner.to(torch.int32).numpy(), "fit": plates.fit.numpy()}
    meta = {
        "node": plates.node,
        "other": plates.other,
        "kind": plates.kind,
        "shape_a": list(plates.a.shape),
        "shape_b": list(plates.b.shape),
        "skip": plates.skip,
        "channels_b": plates.channels_b,
        "ms": round((time.perf_counter() - started) * 1e3, 2),
    }
    return Reply(arrays, meta, epoch=held.comparison.epoch)


def _compare_values(exploration: Exploration, question: Question) -> Reply:
    """Answer with one channel of both as it is."""
    held = _held(exploration, question)
    plates = _plates(held, exploration.resolve(params.name(question.p, "node")))
    channel = params.integer(question.p, "channel", 0, len(plates.a))
    arrays = {"a": plates.a[channel].float().cpu().numpy()}
    if channel < len(plates.b):
        arrays["b"] = plates.b[channel].float().cpu().numpy()
    return Reply(arrays, {"node": plates.node, "channel": channel}, epoch=held.comparison.epoch)


@dataclass
class _Plates:
    """What is drawn of a pair of layers: planes of both, channel beside channel.

    ``partner`` and ``fit``: where B has other channels, the one that goes with each of A's, and their
    correlation.
    """

    node: str
    other: str
    kind: str
    a: Tensor
    b: Tensor
    skip: int
    channels_b: int
    partner: Tensor | None = None
    fit: Tensor | None = None

    def difference(self) -> Tensor | None:
        """B less A, where both have the same places."""
        if self.a.shape != self.b.shape or self.a.is_complex():
            return None
        return self.b.to(self.a.device).float() - self.a.float()


def _plates(held: Held, node: str) -> _Plates:
    found = held.comparison
    pair = found.pair(node)
    kind, a, skip = _stack(found.a, pair.a)
    _, b, _ = _stack(found.b, pair.b)
    plates = _Plates(pair.a, pair.b, kind, a, b, skip, len(b))
    if kind == "maps" and len(a) != len(b) and a.shape[1:] == b.shape[1:] and a[0].numel() >= _FEWEST:
        x, y = (one.reshape(len(one), -1).T for one in (a, b.to(a.device)))
        plates.partner, plates.fit = partners(x, y)
        plates.b = b[plates.partner.clamp_min(0).to(b.device)]
    return plates


def _stack(trace: Trace, node: str) -> tuple[str, Tensor, int]:
    """Return the kind of an activation, its planes, and how many tokens stand on none of them."""
    kind, stack = planes(trace.activation(node), axis=trace.channel_axis(node))
    if kind == "tokens":
        patches = any(op.name == "conv2d" for op in trace.ops)
        grid = patch_grid(stack.shape[1]) if patches else None
        if grid is None:
            return "tokens", stack[:, :, 0].T[None], 0
        rows, columns, skip = grid
        return "maps", stack[:, skip:, 0].reshape(-1, rows, columns), skip
    return kind, stack, -1


COMPARING: Mapping[str, Any] = {
    "compare": _compare,
    "compare_maps": _compare_maps,
    "compare_values": _compare_values,
}
