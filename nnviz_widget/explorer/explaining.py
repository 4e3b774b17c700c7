"""Attributions for the page: which methods there are, their maps as they sharpen, and files to take home.

What an operation is, and when it runs, is told in ``operations``. A stream gives way between its steps: where
others wait for the engine's thread, it goes on after them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nnviz_widget.engine.attribution.baselines import baseline_of
from nnviz_widget.engine.attribution.registry import MethodInfo, known_methods, method_named
from nnviz_widget.errors import InputError
from nnviz_widget.explorer import params
from nnviz_widget.explorer.changing import changed_of, key_of, run_of
from nnviz_widget.explorer.pictures import draw_sample
from nnviz_widget.explorer.replies import Reply, growing, saved
from nnviz_widget.explorer.results import next_token

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from nnviz_widget.engine.attribution.result import Attribution
    from nnviz_widget.engine.metrics.evaluation import Evaluation
    from nnviz_widget.explorer.exploration import Exploration
    from nnviz_widget.explorer.replies import Question, Stream

__all__ = ["EXPLAINING", "Shelf"]

_KEPT = 48


class Shelf:
    """The attributions that the page shows, by the page's own names for them; the newest are kept.

    Of a network that was changed they are kept apart, under what it was changed by (`changing.key_of`).
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], tuple[int, Attribution]] = OrderedDict()

    def put(self, key: str, sample: int, attribution: Attribution, changed: str = "") -> None:
        """Keep one."""
        self._kept[key, changed] = (sample, attribution)
        self._kept.move_to_end((key, changed))
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    def get(self, key: str, changed: str = "") -> tuple[int, Attribution]:
        """Return the sample and its attribution, or raise `InputError` where it is no longer kept."""
        if (key, changed) not in self._kept:
            raise InputError("This attribution is no longer kept.", hint="Compute it again.")
        return self._kept[key, changed]

    def all(self) -> dict[str, Attribution]:
        """Return all of them, the newest last."""
        return {key: attribution for (key, _), (_, attribution) in self._kept.items()}

    def clear(self) -> None:
        """Let go of all."""
        self._kept.clear()


def _methods(_: Exploration, __: Question) -> Reply:
    return Reply(meta={"methods": [_described(info) for info in known_methods().values()]})


def _described(info: MethodInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "description": info.description,
        "cost": info.cost,
        "family": info.family,
        "paper": info.paper,
        "options": {
            name: value
            for name, value in info.options.items()
            if isinstance(value, (bool, int, float, str)) or (value is None and name == "layer")
        },
    }


def _attribute(exploration: Exploration, question: Question) -> Stream:
    p = question.p
    key = params.name(p, "key")
    sample = params.integer(p, "sample", 0, exploration.batch.total, default=exploration.sample)
    info = method_named(params.name(p, "method"))
    args, kwargs = exploration.batch.sample(sample)
    options, changed = _options(exploration, info, p.get("options")), changed_of(p)
    with exploration.altered.again(exploration, changed):  # a stream keeps what it was asked under
        target = _target(exploration, p, sample)
        stream = exploration.engine.stream(kwargs or args, info.name, target=target, **options)
    found = yield from growing(
        stream, question.token, lambda part: Reply(*_shown(info, part), epoch=part.epoch)
    )
    exploration.shelf.put(key, sample, found, key_of(changed))
    return Reply(*_shown(info, found), epoch=found.epoch)


def _target(exploration: Exploration, p: Mapping[str, Any], sample: int) -> int | tuple[int, int] | None:
    """Return the class that is asked about; of a language model the likeliest after the last token."""
    target: int | None = params.integer(p, "target", 0, 2**31, default=None)
    tokens = exploration.batch.row(sample)
    if target is not None or tokens.is_floating_point():
        return target
    args, kwargs = exploration.batch.sample(sample)
    here = sample == exploration.sample and exploration.current is not None
    output = run_of(exploration, p).output if here else exploration.engine.output(kwargs or args)
    scores = next_token(output, tokens)
    return None if scores is None else (tokens.shape[1] - 1, int(scores[0].argmax()))


def _baseline(exploration: Exploration, given: object) -> Any:
    """Return what a page chose as a baseline: a name, a number, or ``sample:3`` for another sample."""
    if isinstance(given, str) and given.startswith("sample:"):
        index = given.removeprefix("sample:")
        if not index.isdecimal() or int(index[:9]) >= exploration.batch.total:
            raise InputError(f"There is no sample {index[:20]!r}.")
        args, kwargs = exploration.batch.sample(int(index))
        tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor)]
        wanted = tuple(t for t in tensors if t.is_floating_point())
        if not wanted:
            raise InputError("Whole-number inputs have no other sample as a baseline.")
        return wanted
    if isinstance(given, (str, int, float)) and not isinstance(given, bool):
        return given[:100] if isinstance(given, str) else given
    raise InputError("'baselines' must be a name or a number.")


def _options(exploration: Exploration, info: MethodInfo, given: object) -> dict[str, Any]:
    """Return the options that a page chose; of the type of their defaults, or refused."""
    if given is None:
        return {}
    if not isinstance(given, dict) or len(given) > 32:
        raise InputError("'options' must be an object of options.")
    info.checked(given)
    checked: dict[str, Any] = {}
    for name, value in given.items():
        default = info.options[name]
        if name == "baselines":
            checked[name] = _baseline(exploration, value)
            continue
        kinds = (
            (str,) if default is None else (int, float) if isinstance(default, float) else (type(default),)
        )
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise InputError(f"{name}={str(value)[:60]!r} does not fit {info.name!r}.")
        if isinstance(value, str) and len(value) > 1000:
            raise InputError(f"{name!r} is too long.")
        checked[name] = value
    return checked


def _baseline_picture(exploration: Exploration, question: Question) -> Reply:
    """Draw what a sample is compared with, as it is looked at."""
    sample = params.integer(question.p, "sample", 0, exploration.batch.total, default=exploration.sample)
    given = _baseline(exploration, question.p.get("baselines"))
    main = exploration.batch.row(sample)
    if not main.is_floating_point():
        raise InputError("Whole-number inputs are compared in their embeddings, which are no picture.")
    baseline = baseline_of(given, (main,))[0] if not isinstance(given, tuple) else given[0]
    picture = draw_sample(baseline.to(main.device, main.dtype), 0, exploration.denormalize)
    low, high = float(main.min()), float(main.max())
    return Reply({"rgb": picture.rgb}, {"low": low, "high": high})


def _metrics(exploration: Exploration, _: Question) -> Reply:
    told = [
        {"name": info.name, "description": info.description, "better": info.better, "values": info.values}
        for info in exploration.engine.metrics().values()
        if not info.needs_mask
    ]
    return Reply(meta={"metrics": told})


def _judge(exploration: Exploration, question: Question) -> Stream:
    """Fill a table that says how far to trust what is shown."""
    keys = params.names(question.p, "keys", _KEPT)
    metrics = params.names(question.p, "metrics", 32)
    if not keys or not metrics:
        raise InputError("A table needs attributions and metrics.")
    changed = changed_of(question.p)
    shown = {key: exploration.shelf.get(key, key_of(changed))[1] for key in keys}
    with exploration.altered.again(exploration, changed):
        tables = exploration.engine.stream_evaluate(shown, metrics)
    found = yield from growing(tables, question.token, lambda part: Reply(meta=_table(part)))
    return Reply(meta=_table(found))


def _table(found: Evaluation) -> dict[str, Any]:
    rows = [
        {
            "name": row["name"],
            "control": row["control"],
            "values": {info.name: row[info.name] for info in found.metrics},
        }
        for row in found.rows
    ]
    curves = {
        name: {row: {"x": list(map(float, c.x)), "y": list(map(float, c.y))} for row, c in of.items()}
        for name, of in found.curves.items()
    }
    return {
        "rows": rows,
        "curves": curves,
        "notes": list(found.notes),
        "progress": found.progress,
        "recomputed": saved(found.recomputed),
    }


def _shown(info: MethodInfo, found: Attribution) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return an attribution as two maps, and what to tell of it."""
    signed, magnitude = flat_maps(found.tensors[0][0], one=info.family == "cam")
    target = found.target[0] if isinstance(found.target, list) else found.target
    token, target = target if isinstance(target, tuple) else (None, target)
    meta: dict[str, Any] = {
        "method": found.method,
        "target": target,
        "token": token,
        "progress": found.progress,
        "seconds": found.seconds,
        "left": found.seconds_left,
        "forward": found.forward_passes,
        "backward": found.backward_passes,
        "recomputed": saved(found.recomputed),
        "cautions": list(found.cautions),
        "call": found.call,
        "consistent": found.consistent,
    }
    if found.moved is not None:
        meta["moved"] = found.moved
    # Where a feature's number stands at each of its elements, their sum is no change of the score.
    if found.delta is not None and found.options.get("feature_mask") is None:
        total = sum(float(values[0].sum()) for values in found.tensors) - float(found.delta[0])
        meta |= {"delta": float(found.delta[0]), "change": total}
    if found.stderr is not None:
        errors = found.stderr if not isinstance(found.stderr, tuple) else found.stderr[0]
        finite = errors[0][torch.isfinite(errors[0])]
        reach = float(found.tensors[0][0].abs().max())
        meta["stderr"] = float(finite.mean()) / reach if len(finite) and reach > 0 else None
    return {"signed": signed, "magnitude": magnitude}, meta


def flat_maps(values: Tensor, *, one: bool = False) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return one sample's attribution as a picture: the sum over channels, and the sum of magnitudes.

    Parameters
    ----------
    values : Tensor
        ``[C, H, W]``, ``[T, D]`` of embeddings or series, ``[F]``, or with more axes, which are summed too.
    one : bool
        All channels hold the same map: it is taken once.

    Returns
    -------
    signed, magnitude : array
        ``[H, W]`` each; a row of numbers is ``[1, W]``.
    """
    values = values.detach().float().cpu()
    if values.dim() < 2:
        signed, magnitude = values.reshape(1, -1), values.abs().reshape(1, -1)
    elif values.dim() == 2:
        signed, magnitude = values.sum(-1)[None], values.abs().sum(-1)[None]
    else:
        axes = tuple(range(values.dim() - 2))
        signed, magnitude = values.sum(axes), values.abs().sum(axes)
        if one:
            signed, magnitude = values[(0,) * len(axes)], values[(0,) * len(axes)].abs()
    return signed.numpy(), magnitude.numpy()


def _file(exploration: Exploration, question: Question) -> Reply:
    """Answer with one attribution as a file: a NumPy archive, or a figure with its parameters written in."""
    kind = params.choice(question.p, "kind", ("npz", "png", "svg"))
    keys = params.names(question.p, "keys", _KEPT)
    if not keys:
        raise InputError("'keys' names no attribution.")
    from nnviz_widget.explorer.figures import written  # noqa: PLC0415  matplotlib on demand

    network = key_of(changed_of(question.p))
    shown = [exploration.shelf.get(key, network) for key in keys]
    data = written(exploration, shown, kind)
    return Reply({"data": np.frombuffer(data, np.uint8)}, {"kind": kind})


EXPLAINING: Mapping[str, Any] = {
    "methods": _methods,
    "attribute": _attribute,
    "baseline": _baseline_picture,
    "metrics": _metrics,
    "judge": _judge,
    "attribution_file": _file,
}
