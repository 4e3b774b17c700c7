"""Runs that answer while somebody draws: the output, and looks at a few layers, as fast as the model itself.

A full trace keeps everything, for questions nobody has asked yet. Here it is known what is on the screen:
hooks on the modules that give these values (or are given them) look at each while it is there, and nothing
else is kept. A value that no module gives or takes, such as the first of two functions called in a row, is
read by the recorder, which takes longer; so is a model that must not run without it. A stroke that changes a
small part of the last picture is replayed: only what depends on it is computed (``replay.moving``).

What is made of a value is the caller's business, and which thread the engine's.
"""

from __future__ import annotations

import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.attribution.targets import scores_of
from nnviz_widget.engine.interventions import current
from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.recording import STATE
from nnviz_widget.engine.replay.moving import Moving
from nnviz_widget.engine.replay.plan import UnsafeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from nnviz_widget.engine.attribution.stream import Runs
    from nnviz_widget.engine.graph import Group, Node
    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.passes import Passes
    from nnviz_widget.engine.recording import Ref
    from nnviz_widget.engine.trace import Trace

    Place = tuple[str, int, bool]

__all__ = ["Glimpse", "Live"]


@dataclass(frozen=True)
class Glimpse:
    """What a run showed.

    Attributes
    ----------
    output : object
        What the model returned.
    seen : dict
        What the looks returned, by node and group id; without those that did not run this time.
    epoch : int
        Of the weights.
    seconds : float
        The whole run, with the looks.
    recorded : bool
        Whether the recorder had to run the model, which takes longer.
    recomputed : float
        Share of the model's arithmetic that ran, where only what a stroke changed was computed anew.
    """

    output: Any
    seen: dict[str, Any]
    epoch: int
    seconds: float
    recorded: bool
    recomputed: float = 1.0


class Live:
    """Runs inputs like those of one trace.

    Parameters
    ----------
    runs : Runs
        Of the engine.
    """

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._trace: weakref.ref[Trace] | None = None
        self._places: dict[str, Place | None] = {}
        self._moving: tuple[tuple[weakref.ref[nn.Module], int], Moving | None] | None = None
        self._passes: tuple[tuple[weakref.ref[nn.Module], int], Passes] | None = None

    def run(
        self,
        trace: Trace,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        looks: Mapping[str, Callable[[Tensor], object]],
        token: CancelToken,
    ) -> Glimpse:
        """Run the model and look at some layers.

        Parameters
        ----------
        trace : Trace
            Of an input like this one; tells where values come from.
        args, kwargs
            As the model takes them, on its device.
        looks : mapping
            From the id of a node or group to what is called with its activation at once: it may be
            overwritten afterwards.
        token : CancelToken
            Looked at several times in a pass.
        """
        if self._trace is None or self._trace() is not trace:
            self._trace, self._places = weakref.ref(trace), {}
            self._moving = self._passes = None
        shapes = tuple((tuple(t.shape), t.dtype) for t in trace.inputs)
        share = 1.0

        def work(module: nn.Module, epoch: int) -> tuple[Any, dict[str, Any], bool]:
            nonlocal share
            with self._runs.twin.running():
                passes = self._passes_of(
                    module, epoch, token, lambda: self._runs.passes(module, args, dict(kwargs), shapes, token)
                )
                places = self._places_of(trace, passes, list(looks)) if passes.plain else None
                if places is None:
                    return *_recorded(module, args, kwargs, looks, token), True
                moving = self._moved(module, args, kwargs, epoch, token)
                began = time.perf_counter()
                frame = moving.frame(_only(args), list(looks), token.check) if moving is not None else None
                if frame is None or moving is None:
                    output, seen = _glanced(passes, args, kwargs, looks, places)
                else:
                    share = moving.share
                    output = frame[0]
                    seen = {name: looks[name](tensor) for name, tensor in frame[1].items()}
                if moving is not None:
                    moving.took(time.perf_counter() - began, replayed=frame is not None)
                return output, seen, False

        start = time.perf_counter()
        (output, seen, recorded), epoch, _ = self._runs.twin.steadily(work)
        return Glimpse(output, seen, epoch, time.perf_counter() - start, recorded, share)

    def _passes_of(
        self, module: nn.Module, epoch: int, token: CancelToken, make: Callable[[], Passes]
    ) -> Passes:
        """Return what runs the module, the same in all of an epoch: no module comes or goes in one."""
        if module is not self._runs.twin.module:  # a copy for one frame, while the model is trained
            return make()
        state = (weakref.ref(module), epoch)
        if self._passes is None or self._passes[0] != state:
            self._passes = (state, make())
        passes = self._passes[1]
        passes.token = token
        return passes

    def _moved(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        epoch: int,
        token: CancelToken,
    ) -> Moving | None:
        """Return what runs only what changed since the last frame; None where all of it must be run."""
        state = (weakref.ref(module), epoch)
        if kwargs or current() or _only(args) is None or not _only(args).is_floating_point():
            return None
        if self._moving is None or self._moving[0] != state:
            moving = None
            with suppress(UnsafeError):
                task = self._runs.task_of(module, args, kwargs, token, target=scores_of)
                replayed = self._runs.replays.alone(task)
                replayed.refuse("input")
                moving = Moving(replayed)
            self._moving = (state, moving)
        return self._moving[1]

    def _places_of(self, trace: Trace, passes: Passes, names: list[str]) -> dict[str, Place] | None:
        """Return where each value can be seen from a module's hook; None where one can not."""
        fresh = [name for name in names if name not in self._places]
        if fresh:
            found = _find_places(trace, fresh)
            self._places |= dict.fromkeys(fresh) | _confirmed(trace, passes, found)
        places = {name: place for name in names if (place := self._places[name]) is not None}
        return places if len(places) == len(names) else None


def _only(args: tuple[Any, ...]) -> Any:
    """Return the one tensor of one sample that the model is given; None where there is more, or less."""
    one = args[0] if len(args) == 1 else None
    return one if isinstance(one, torch.Tensor) and one.dim() > 1 and len(one) == 1 else None


def _find_places(trace: Trace, names: list[str]) -> dict[str, Place]:
    """Return the module calls that give these values, or else that take them first."""
    given: dict[Ref, Place] = {}
    modules = [node for node in trace.graph.nodes if node.kind == "module"]
    parts: list[Group | Node] = [*trace.graph.groups, *modules]
    # Leaves last: of several calls that give one value, the innermost is the first to have it.
    for part in parts:
        ref = trace.refs.get(part.id)
        if ref is not None:
            given[ref] = (part.path, part.call, False)
    taken: dict[Ref, Place] = {}
    begun: set[str] = set()
    leaves = {node.id: node for node in modules}
    for op in trace.ops:
        leaf = leaves.get(op.node)
        if leaf is None or leaf.id in begun:
            continue
        begun.add(leaf.id)
        inputs = [ref for ref in op.inputs if trace.ops[ref.op].kind not in STATE]
        if inputs:
            taken.setdefault(inputs[0], (leaf.path, leaf.call, True))
    found: dict[str, Place] = {}
    for name in names:
        ref = trace.refs.get(name)
        if ref is not None and trace.ops[ref.op].kind == "output" and trace.ops[ref.op].inputs:
            ref = trace.ops[ref.op].inputs[0]
        place = given.get(ref) or taken.get(ref) if ref is not None else None
        if place is not None:
            found[name] = place
    return found


def _confirmed(trace: Trace, passes: Passes, found: dict[str, Place]) -> dict[str, Place]:
    """Leave out the places where, on the trace's own inputs, something else is seen than was recorded."""
    right: set[str] = set()

    def compare(name: str) -> Callable[[Tensor], object]:
        def look(tensor: Tensor) -> None:
            known = trace.activation(name) if trace.holds(name) else None
            same = known is not None and known.shape == tensor.shape and known.dtype == tensor.dtype
            # Not bit for bit: weights may have moved since the trace.
            if known is not None and same and torch.allclose(known, tensor, rtol=1e-3, atol=1e-4):
                right.add(name)

        return look

    found = {name: place for name, place in found.items() if passes.alone(place[0])}
    sure = {name: place for name, place in found.items() if not place[2]}
    doubtful = {name: place for name, place in found.items() if place[2]}
    if doubtful:
        looks = {name: compare(name) for name in doubtful}
        _glanced(passes, trace.args, trace.kwargs, looks, doubtful)
    return sure | {name: place for name, place in doubtful.items() if name in right}


def _glanced(
    passes: Passes,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    looks: Mapping[str, Callable[[Tensor], object]],
    places: Mapping[str, Place],
) -> tuple[Any, dict[str, Any]]:
    seen: dict[str, Any] = {}
    at: dict[Place, list[str]] = {}
    for name, place in places.items():
        at.setdefault(place, []).append(name)

    def all_of(names: list[str]) -> Callable[[Tensor], None]:
        def look(tensor: Tensor) -> None:
            for name in names:
                seen[name] = looks[name](tensor)

        return look

    output = passes.glance(args, kwargs, {place: all_of(names) for place, names in at.items()})
    return output, seen


def _recorded(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    looks: Mapping[str, Callable[[Tensor], object]],
    token: CancelToken,
) -> tuple[Any, dict[str, Any]]:
    run = record(module, args, kwargs, keep=frozenset(looks), token=token)
    seen = {name: look(run.activations[name]) for name, look in looks.items() if name in run.activations}
    return run.output, seen
