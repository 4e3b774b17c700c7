"""The network as a page changed it: its interventions in force, and the run of the sample on the screen then.

A page sends its list along with each question (`changed`), so two pages of one notebook may differ; the
kernel keeps the run of the newest list. What the predictions become is told by ``intervening``.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from nnviz_widget.engine.interventions import KINDS, current, within
from nnviz_widget.engine.tiles import unit_at
from nnviz_widget.errors import InputError, NNVizError
from nnviz_widget.explorer import params

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from nnviz_widget.engine.interventions import Intervention
    from nnviz_widget.engine.trace import Trace
    from nnviz_widget.explorer.exploration import Exploration

__all__ = ["Altered", "changed_of", "in_force", "inputs_of", "run_of", "sample_of"]

_MOST = 64  # interventions on one shelf


class Altered:
    """The run of the changed network: the newest, with what it was made with."""

    def __init__(self) -> None:
        self._key = (0, "")
        self._trace: Trace | None = None
        self._made: tuple[Intervention, ...] = ()

    def run(self, exploration: Exploration, changed: list[dict[str, Any]]) -> Trace:
        """Return the trace of the sample on the screen under these interventions; runs it once."""
        key = (exploration.run_number, key_of(changed))
        if self._trace is None or self._key != key:
            self.clear()  # its memory first
            args, kwargs = exploration.batch.sample(exploration.sample)
            with in_force(exploration, changed):
                self._trace = exploration.engine.trace(*args, **kwargs)
                self._key, self._made = key, current()
        return self._trace

    @contextmanager
    def again(self, exploration: Exploration, changed: list[dict[str, Any]]) -> Iterator[None]:
        """Let what the run was made with be in force: the same objects, which graphs that are kept know."""
        if not changed:
            yield
            return
        self.run(exploration, changed)
        with within(self._made):
            yield

    @property
    def key(self) -> str:
        """The list of the run, as `key_of` writes it."""
        return self._key[1]

    def clear(self) -> None:
        """Forget the run."""
        self._trace, self._made = None, ()


class Made(NamedTuple):
    """What became of each intervention of a list: its Python, or why it cannot be made."""

    calls: list[str]
    errors: list[str]


def key_of(changed: list[dict[str, Any]]) -> str:
    """Return a text that is the same for the same list; empty for none."""
    return json.dumps(changed, sort_keys=True) if changed else ""


def changed_of(p: Mapping[str, Any], name: str = "changed") -> list[dict[str, Any]]:
    """Read a list of interventions; none where there is none."""
    given = p.get(name)
    if given is None:
        return []
    if not isinstance(given, list) or len(given) > _MOST or not all(isinstance(one, dict) for one in given):
        raise InputError(f"{name!r} must be a list of at most {_MOST} objects.")
    return given


def run_of(exploration: Exploration, p: Mapping[str, Any]) -> Trace:
    """Return the run on the screen that is asked about, of the changed network where the question says so."""
    trace = exploration.trace_of(sample_of(exploration, p))
    changed = changed_of(p)
    return exploration.altered.run(exploration, changed) if changed else trace


@contextmanager
def in_force(exploration: Exploration, changed: list[dict[str, Any]]) -> Iterator[Made]:
    """Let those interventions that are switched on be in force in the block; others are only named."""
    made = Made([], [])
    with ExitStack() as stack:
        for one in changed:
            call, error = "", ""
            try:
                intervention = _intervention(exploration, one)
                if one.get("on") is True:
                    call = _named(str(stack.enter_context(intervention)), one)
                else:
                    with intervention as shown:
                        call = _named(str(shown), one)
            except NNVizError as failure:
                error = str(failure)
            made.calls.append(call)
            made.errors.append(error)
        yield made


def _intervention(exploration: Exploration, one: Mapping[str, Any]) -> AbstractContextManager[object]:
    """Return what `Engine.intervene` makes of an object of the page."""
    kind = params.choice(one, "kind", tuple(KINDS))
    node = exploration.resolve(params.name(one, "layer"))
    options: dict[str, Any] = {}
    for part in ("channel", "head"):
        number = params.integer(one, part, 0, 2**31, default=None)
        if number is not None:
            options[part] = number
    if one.get("unit") is not None:
        trace = exploration.current
        ref = None if trace is None else trace.refs.get(node)
        unit = params.integers(one, "unit", 8)
        if trace is not None and ref is not None:
            shape = trace.ops[ref.op].outputs[ref.port].shape
            unit = unit_at(shape, unit, axis=trace.channel_axis(node))
        options["unit"] = unit
    if kind == "patch":
        options["source"] = inputs_of(exploration, sample_of(exploration, one, "source"))
        return exploration.engine.intervene(node, kind, **options)
    for name in KINDS[kind]:
        value = one.get(name)
        if value is None:
            continue
        mean = kind == "ablate" and value in ("zero", "mean")
        if not mean and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise InputError(f"{name!r} must be a number.")
        options[name] = value
    return exploration.engine.intervene(node, kind, **options)


def _named(call: str, one: Mapping[str, Any]) -> str:
    """Write the source of a patch as people write it."""
    source = one.get("source")
    return (
        call.replace("source=source", f"source=inputs[{source}:{source + 1}]") if source is not None else call
    )


def sample_of(exploration: Exploration, p: Mapping[str, Any], name: str = "sample") -> int:
    """Read the number of a sample; that of the run on the screen where there is none."""
    return params.integer(p, name, 0, exploration.batch.total, default=exploration.sample)


def inputs_of(exploration: Exploration, sample: int) -> Any:
    """Return a sample as the engine takes inputs."""
    args, kwargs = exploration.batch.sample(sample)
    return kwargs or args
