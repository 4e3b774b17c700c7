"""What is being explored: an engine, a batch, and the run of the sample that is on the screen.

This is the state behind one explorer, without widget and without wire: operations ask it, the widget shows
what it announces. It holds the widget only through the function `announce`, which holds it weakly, so that
work under way never keeps a closed widget alive. Everything that computes runs on the engine's thread.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from nnviz_widget.engine.jobs import Cancelled, ClosedError, Job, Priority
from nnviz_widget.engine.tiles import unit_at
from nnviz_widget.errors import InputError, ModelError, NNVizError, UnknownLayerError
from nnviz_widget.explorer.changing import Altered, key_of
from nnviz_widget.explorer.collecting import OWN, seldom
from nnviz_widget.explorer.comparing import Contrast
from nnviz_widget.explorer.explaining import Shelf
from nnviz_widget.explorer.inspecting import Changes
from nnviz_widget.explorer.results import find_logits, path_change, predictions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from nnviz_widget.engine.engine import Engine
    from nnviz_widget.engine.influence import Influence
    from nnviz_widget.engine.trace import Trace
    from nnviz_widget.explorer.inputs import Batch
    from nnviz_widget.explorer.painting import Affine
    from nnviz_widget.explorer.pictures import Denormalize

__all__ = ["Exploration", "Shown", "StaleError", "describe"]

logger = logging.getLogger("nnviz_widget")

PROGRESS_SECONDS = 0.2

T = TypeVar("T")


def _nobody(**_traits: Any) -> None:
    """Hear what is announced before there is a widget."""


@dataclass(frozen=True)
class Shown:
    """The saliency on the screen.

    Attributes
    ----------
    node : str
        Id of the node or group whose unit it is.
    unit : tuple of int
        Index into one sample's activation.
    gradient : Tensor
        Shaped like one sample of the input, without batch axis.
    value : float
        The unit's activation.
    epoch : int
        Of the weights that both were computed from.
    run : int
        Number of the run that it belongs to.
    changed : str
        The interventions under which it was computed (`changing.key_of`); empty for the network as it is.
    """

    node: str
    unit: tuple[int, ...]
    gradient: Tensor
    value: float
    epoch: int
    run: int
    changed: str = ""


class Exploration:
    """One engine, one batch and the newest run.

    Parameters
    ----------
    engine : Engine
        Owned from now on: `close` closes it.
    batch : Batch
        All samples.
    names : mapping or None
        Class index -> name.
    targets : list of int or None
        True class of each sample.
    denormalize : callable
        From `pictures.read_denormalize`.

    Attributes
    ----------
    announce : callable
        ``announce(**traits)``: hears of everything that the screen should show; set by the widget.
    current : Trace or None
        The run on the screen, or the part of it that ran before the model raised.
    sample : int
        Which sample that run is of.
    failure : NNVizError or None
        Why there is nothing, or not all, on the screen.
    shelf : Shelf
        The attributions that the page shows.
    changes : Changes
        The weights that the page changed.
    contrast : Contrast
        What the sample on the screen is compared with.
    altered : Altered
        The run of the network with a page's interventions.
    """

    def __init__(
        self,
        engine: Engine,
        batch: Batch,
        *,
        names: Mapping[int, str] | None,
        targets: list[int] | None,
        denormalize: Denormalize,
    ) -> None:
        self.engine = engine
        self.batch = batch
        self.names = names
        self.targets = targets
        self.denormalize = denormalize
        self.announce: Callable[..., None] = _nobody
        self.sample = 0
        self._announced = False
        self.run_number = 0
        self.current: Trace | None = None
        self.failure: NNVizError | None = None
        self.saliency: Shown | None = None
        self.known_epoch = 0
        self.shelf = Shelf()
        self.changes = Changes()
        self.contrast = Contrast()
        self.altered = Altered()
        self.influenced: Influence | None = None
        self._affine: Affine | str | None = "unknown"
        self._graph: dict[str, Any] = {}
        self._run_job: Job[Any] | None = None

    # ---- the run on the screen ----------------------------------------------------------------------------

    def start(self, sample: int) -> Job[dict[str, Any]]:
        """Trace a sample on the engine's thread and announce it; returns at once."""
        self._run_job = self.engine.jobs.submit(lambda _: self.run(sample), slot="run")
        return self._run_job

    def stop(self) -> bool:
        """Cancel the run under way; False when there is none."""
        job = self._run_job
        return job is not None and job.cancel()

    def ask(self, question: Callable[[], T]) -> T:
        """Run a question on the engine's thread and wait for its answer."""
        return self.engine.jobs.call(lambda _: question())

    def later(self, task: Callable[[], object], *, slot: str) -> None:
        """Run a task when the engine has nothing better to do; a newer one in the slot replaces it."""
        try:
            self.engine.jobs.submit(lambda _: task(), priority=Priority.PREFETCH, slot=slot)
        except ClosedError:
            return

    def wait(self) -> Trace:
        """Return the run on the screen; waits for the first one, and starts it where it was stopped."""
        # A run is there a moment before it is announced; who waits for it reads what was announced.
        if not self._announced and self.failure is None:
            try:
                self.ask(self._ensure)
            except Cancelled:
                raise
            except Exception as error:
                if self.failure is None:
                    raise
                logger.debug("the first run failed: %s", error)
        return self.trace_of(self.sample)

    def _ensure(self) -> None:
        if self.current is None and self.failure is None:
            self.run(self.sample)

    def run(self, sample: int) -> dict[str, Any]:
        """Trace a sample, make it the current one and announce it; on the engine's thread.

        Returns
        -------
        meta : dict
            What a page that asked for it wants to know.

        Raises
        ------
        NNVizError
            The model raised, or there was too little memory. What was on the screen stays; where nothing
            was, the part of the graph that ran is announced.
        """
        if not self.batch.given:
            return self._show_tree()
        args, kwargs = self.batch.sample(sample)
        started = time.perf_counter()
        try:
            with seldom(), self._progress():
                trace = self.engine.trace(*args, **kwargs)
        except Cancelled:
            if self.current is None:
                self.announce(status=_stopped())
            raise
        except NNVizError as error:
            self._fail(error)
            raise
        except Exception as error:
            logger.exception("tracing the model failed")
            self._fail(NNVizError(f"The model could not be traced: {type(error).__name__}: {error}"))
            raise
        milliseconds = (time.perf_counter() - started) * 1e3
        return self._show(trace, sample, milliseconds)

    @contextmanager
    def _progress(self) -> Iterator[None]:
        """Announce how far the run is, five times a second, while there is nothing else on the screen."""
        if self.current is not None and self.failure is None:
            yield
            return
        said = float("-inf")

        def tell(done: int, total: int) -> None:
            nonlocal said
            now = time.monotonic()
            if now - said >= PROGRESS_SECONDS:
                said = now
                stage = "running the model"
                self.announce(status={"state": "loading", "stage": stage, "done": done, "total": total})

        tell(0, 0)
        self.engine.progress = tell
        try:
            yield
        finally:
            self.engine.progress = None

    @seldom(OWN)
    def _show(self, trace: Trace, sample: int, milliseconds: float) -> dict[str, Any]:
        graph = trace.graph.to_dict()
        changed = graph != self._graph
        before = self.current if changed and self.failure is None else None
        turned = path_change(trace, before, None if sample == self.sample else sample)
        self.current, self.sample, self.failure, self.saliency = trace, sample, None, None
        self.influenced = None
        self.altered.clear()
        self.run_number += 1
        self.known_epoch = max(self.known_epoch, trace.epoch)
        scored = predictions(trace.output, self.names, self.target_of(sample))
        run = self._run_of(sample, trace.epoch, milliseconds, scored, consistent=trace.consistent)
        news: dict[str, Any] = {}
        if changed:
            # First: what the page then asks for the new run are nodes of its graph.
            news["graph"] = self._graph = graph
        news |= {"run": run | turned, "epoch": self.known_epoch, "status": self.verdict(trace)}
        if self.run_number == 1 or changed:
            news["info"] = {"flops": sum(node.flops for node in trace.graph.nodes)}
        self.announce(**news)
        self._announced = True
        return {
            "sample": sample,
            "ms": run["ms"],
            "epoch": trace.epoch,
            "predictions": scored,
            "graph_changed": changed,
        }

    def target_of(self, sample: int) -> int | None:
        """Return the true class of a sample, where it is known."""
        return self.targets[sample] if self.targets and sample < len(self.targets) else None

    def _run_of(
        self, sample: int, epoch: int, milliseconds: float, scored: dict[str, Any], *, consistent: bool = True
    ) -> dict[str, Any]:
        """Return the trait that tells the page of a run."""
        return {
            "sample": sample,
            "epoch": epoch,
            "run": self.run_number,
            "ms": round(milliseconds, 2),
            "consistent": consistent,
            "predictions": scored,
        }

    def _show_tree(self) -> dict[str, Any]:
        """Announce the modules of a model that there are no inputs for."""
        why = "No inputs were given, so the model was not run."
        self.failure = NNVizError(why, hint="Give some: explore(model, inputs).")
        graph = self.engine.tree().to_dict()
        changed, self._graph = graph != self._graph, graph
        self.run_number += 1
        scored = {"task": "other", "classes": [], "note": "not run"}
        run = self._run_of(0, self.known_epoch, 0.0, scored)
        note = {"title": "Modules only.", "message": f"{why} There are no shapes and no values."}
        self.announce(run=run, graph=graph, status={"state": "ready", "note": note})
        known = {key: run[key] for key in ("sample", "ms", "epoch", "predictions")}
        return known | {"graph_changed": changed}

    def _fail(self, error: NNVizError) -> None:
        """Announce a failure where nothing else is on the screen; elsewhere only who asked is told."""
        if self.current is not None and self.failure is None:
            return
        self.failure = error
        partial = getattr(error, "trace", None)
        told = describe(error)
        if partial is not None:
            self.current = partial
        if partial is not None and _anything_ran(partial):
            self._graph = partial.graph.to_dict()
        else:
            self._graph = self.engine.tree().to_dict()
            told["hint"] = f"{told['hint']} Below are the modules alone, as nothing ran.".strip()
        self.announce(status={"state": "error", "error": told}, graph=self._graph)

    def verdict(self, trace: Trace) -> dict[str, Any]:
        """Status of a finished run: ready, with a note where only shapes ran; an error about classes."""
        problem = self.class_problem(trace)
        if problem is None and trace.kind == "run":
            return {"state": "ready", **self.changes.status}
        if problem is None:
            message = f"{trace.note} There are no values, so no maps and no saliency."
            return {"state": "ready", "note": {"title": "Shapes only.", "message": message}}
        return {"state": "error", "error": describe(problem)}

    def class_problem(self, trace: Trace) -> InputError | None:
        """Whether class names and targets fit the output; where they can not be compared they do."""
        found = find_logits(trace.output)
        if found is None:
            return None
        classes = found[1].shape[1]
        if self.names is not None and (len(self.names) != classes or max(self.names) >= classes):
            return InputError(
                f"class_names has {len(self.names)} names, the model's output has {classes} classes.",
                hint=f"Give {classes} names, in the order of the outputs.",
            )
        if self.targets is not None and max(self.targets) >= classes:
            return InputError(
                f"target has class {max(self.targets)}, the model's output has {classes} classes.",
                hint=f"Classes count from 0 to {classes - 1}.",
            )
        return None

    def affine(self, row: Tensor) -> Affine | None:
        """Return what `denormalize` does to a picture where that is affine; found out once."""
        if isinstance(self._affine, str):
            from nnviz_widget.explorer.painting import probe  # noqa: PLC0415  only where somebody paints

            self._affine = probe(self.denormalize, row)
        return self._affine

    def paint(self, array: Any) -> None:
        """Show an input of the user's own as the sample after the others, and run it."""
        from nnviz_widget.explorer.painting import input_from_array, show  # noqa: PLC0415

        before = self.batch
        base = self.sample if before.painted is None or self.sample < before.count else before.painted[0]
        sample = show(self, input_from_array(self, array, base), base)
        try:
            self.run(sample)
        except BaseException:
            self.batch = before
            raise

    # ---- questions ----------------------------------------------------------------------------------------

    def trace_of(self, sample: int) -> Trace:
        """Return the trace of a sample if it is the current one; numbers of two runs are never mixed."""
        if self.current is None:
            raise self.failure or NNVizError("Nothing was traced yet.", hint="Wait for the first run.")
        if sample != self.sample:
            raise StaleError(f"Sample {sample} is not on the screen, {self.sample} is.")
        return self.current

    def resolve(self, layer: Any) -> str:
        """Return the id of a node or group; ``output`` also where the model's output has parts."""
        trace = self.trace_of(self.sample)
        try:
            return trace.resolve(layer)
        except UnknownLayerError:
            found = find_logits(trace.output) if layer == "output" else None
            outputs = [node.id for node in trace.graph.nodes if node.kind == "output"]
            if layer != "output" or not outputs:
                raise
            wanted = f"output:{found[0]}" if found else outputs[0]
            return wanted if wanted in outputs else outputs[0]

    def unit_saliency(
        self, layer: Any, unit: tuple[int, ...], changed: Sequence[dict[str, Any]] = ()
    ) -> Shown:
        """Return the gradient of a unit for the sample on the screen; the newest one is kept.

        `unit` is an index in one sample's activation; three numbers are ``(channel, y, x)`` in its picture.
        With `changed`, interventions of a page, it is that of the network with these.
        """
        trace = self.trace_of(self.sample)
        node = self.resolve(layer)
        ref = trace.refs.get(node)
        if ref is not None:
            shape = trace.ops[ref.op].outputs[ref.port].shape
            unit = unit_at(shape, unit, axis=trace.channel_axis(node))
        kept, key = self.saliency, key_of([*changed])
        asked = (node, unit, self.run_number, key)
        known = None if kept is None else (kept.node, kept.unit, kept.run, kept.changed)
        if kept is not None and known == asked and kept.epoch == self.engine.epoch:
            return kept
        if changed:
            trace = self.altered.run(self, [*changed])
        with self.altered.again(self, [*changed]):
            found = self.engine.saliency(trace, node, unit)
        gradient = found.values[0] if isinstance(found.values, tuple) else found.values
        self.saliency = Shown(
            node, unit, gradient[0].detach(), found.value, found.epoch, self.run_number, key
        )
        self.note_epoch(found.epoch)
        return self.saliency

    def read_epoch(self) -> None:
        """Announce the weights' epoch if it moved; cheap, on the engine's thread."""
        self.note_epoch(self.engine.epoch)

    def note_epoch(self, epoch: int) -> None:
        """Announce an epoch that is newer than the known one."""
        if epoch > self.known_epoch:
            self.known_epoch = epoch
            self.announce(epoch=epoch)

    def poll(self) -> None:
        """Read the epoch when the engine has nothing better to do; returns at once."""
        self.later(self.read_epoch, slot="epoch")

    def close(self) -> None:
        """Cancel everything, end the thread, free what was kept."""
        self.engine.close()
        self.changes.reset()
        self.contrast.clear()
        self.altered.clear()
        self.shelf.clear()
        self.current = self.saliency = self.influenced = self._run_job = None


class StaleError(NNVizError):
    """The question belongs to another run than the one on the screen."""

    code = "stale_epoch"


def describe(error: NNVizError) -> dict[str, Any]:
    """Return an error as JSON for the status of the page."""
    if isinstance(error, ModelError):
        return {
            "title": "The model raised while it ran",
            "message": error.message,
            "hint": error.hint,
            "source": error.source,
            "node": error.node,
            "shapes": list(error.shapes),
        }
    titles = {"bad_request": "This input does not fit", "out_of_memory": "Not enough memory"}
    return {
        "title": titles.get(error.code, "The model could not be explored"),
        "message": error.message,
        "hint": error.hint,
    }


def _anything_ran(trace: Trace) -> bool:
    """Whether a pass that broke off has more to show than its inputs and the call that raised at the root."""
    ran = (node for node in trace.graph.nodes if node.kind in {"module", "op"})
    return any(node.path or node.op != "raise" for node in ran)


def _stopped() -> dict[str, Any]:
    return {
        "state": "error",
        "error": {
            "title": "Stopped",
            "message": "The run was stopped before it ended.",
            "hint": "Call refresh() to run the model again.",
        },
    }
