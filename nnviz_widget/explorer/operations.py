"""Operations: name -> engine call -> results on the wire. The only place where engine and wire meet.

An operation is a function of the exploration and a page's parameters, run on the engine's thread. It
returns one `Reply`; a stream is a generator that yields parts and returns the last. A stream is only
advanced while the page keeps up and nobody else waits: between two parts the thread belongs to others.

What a click costs the handler is `Operations.start`: look up the name, queue a job.
"""

from __future__ import annotations

import logging
import time
from math import nan
from types import GeneratorType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from nnviz_widget.engine.jobs import Cancelled, Priority
from nnviz_widget.engine.measures import MEASURES
from nnviz_widget.errors import ModelError, NNVizError, nearest
from nnviz_widget.explorer import layers, params, pictures
from nnviz_widget.explorer.changing import changed_of, run_of
from nnviz_widget.explorer.comparing import COMPARING
from nnviz_widget.explorer.explaining import EXPLAINING
from nnviz_widget.explorer.inspecting import INSPECTING
from nnviz_widget.explorer.intervening import INTERVENING
from nnviz_widget.explorer.painting import PAINTING
from nnviz_widget.explorer.probing import PROBING, influenced
from nnviz_widget.explorer.replies import Question, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.explorer.exploration import Exploration
    from nnviz_widget.explorer.replies import Stream
    from nnviz_widget.wire.messages import Request
    from nnviz_widget.wire.session import Exchange

__all__ = ["Operations"]

logger = logging.getLogger("nnviz_widget")

Operation: TypeAlias = "Callable[[Exploration, Question], Reply | Stream]"


class Operations:
    """Answers the requests of one explorer.

    Parameters
    ----------
    exploration : Exploration
        What is asked about.
    host : mapping of str to callable
        Operations that need the widget itself, such as ``still``.
    """

    def __init__(self, exploration: Exploration, host: Mapping[str, Operation]) -> None:
        self._exploration = exploration
        self._known: dict[str, Operation] = {**_OPERATIONS, **host}

    def start(self, exchange: Exchange) -> None:
        """Queue the work on a request; returns at once."""
        request = exchange.request
        if request.op == "stop":
            self._exploration.stop()
            exchange.finish(epoch=self._exploration.known_epoch)
            return
        operation = self._known.get(request.op)
        if operation is None:
            hint = nearest(request.op, self._known).strip()
            exchange.fail("unsupported", f"There is no operation {request.op!r}.", hint=hint)
            return
        self._submit(exchange, lambda token: self._answer(exchange, operation, token))

    def _submit(
        self, exchange: Exchange, work: Callable[[CancelToken], None], *, queued: bool = False
    ) -> None:
        try:
            job = self._exploration.engine.jobs.submit(
                work, priority=_priority(exchange.request), queued=queued
            )
        except NNVizError as error:
            _refuse(exchange, error)
            return
        # Cancelled by the page, or with the engine: each tells the other.
        exchange.on_cancel(job.cancel)
        job.add_done_callback(lambda ended: exchange.cancel() if ended.state == "cancelled" else None)

    def _answer(self, exchange: Exchange, operation: Operation, token: CancelToken) -> None:
        request = exchange.request
        question = Question(request.params, request.buffers, token, exchange.progress)
        try:
            result = operation(self._exploration, question)
            if isinstance(result, GeneratorType):
                self._advance(exchange, result, token)
            elif isinstance(result, Reply):
                token.check()
                exchange.finish(result.arrays, result.meta, epoch=self._epoch_of(result))
        except Exception as error:  # noqa: BLE001 - whatever it was, the page gets an answer
            _refuse(exchange, error)

    def _advance(self, exchange: Exchange, stream: Stream, token: CancelToken) -> None:
        """Take parts while the page keeps up; then leave the thread, and go on when it has caught up."""
        try:
            while not exchange.closed:
                token.check()
                if not exchange.ready:
                    exchange.when_ready(
                        lambda: self._submit(exchange, lambda again: self._resume(exchange, stream, again))
                    )
                    return
                part = next(stream)
                if part is not None:
                    exchange.part(part.arrays, part.meta, epoch=self._epoch_of(part))
                elif self._exploration.engine.jobs.waiting:
                    self._submit(exchange, lambda again: self._resume(exchange, stream, again), queued=True)
                    return
        except StopIteration as end:
            exchange.finish(end.value.arrays, end.value.meta, epoch=self._epoch_of(end.value))
            return
        except BaseException:
            stream.close()
            raise
        stream.close()

    def _resume(self, exchange: Exchange, stream: Stream, token: CancelToken) -> None:
        try:
            self._advance(exchange, stream, token)
        except Exception as error:  # noqa: BLE001 - as in `_answer`
            _refuse(exchange, error)

    def _epoch_of(self, reply: Reply) -> int:
        if reply.epoch is not None:
            return reply.epoch
        trace = self._exploration.current
        return self._exploration.known_epoch if trace is None else trace.epoch


def _priority(request: Request) -> Priority:
    if request.slot.startswith("hover"):
        return Priority.HOVER
    return Priority.PREFETCH if request.slot.startswith(("prefetch", "explain")) else Priority.CLICK


def _refuse(exchange: Exchange, error: Exception) -> None:
    """Turn any exception into the one terminal of a request."""
    if isinstance(error, Cancelled):
        exchange.cancel()
    elif isinstance(error, NNVizError):
        detail = {}
        if isinstance(error, ModelError):
            detail = {"source": error.source, "node": error.node, "shapes": list(error.shapes)}
        exchange.fail(error.code, error.message, hint=error.hint, detail=detail)
    elif "out of memory" in str(error).lower():
        exchange.fail("out_of_memory", f"Not enough memory: {str(error).splitlines()[0]}")
    else:
        logger.error("the operation %r failed", exchange.request.op, exc_info=error)
        text = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        exchange.fail("internal", f"{exchange.request.op} failed: {text}", hint="The log has the details.")


# ---- the operations ----------------------------------------------------------------------------------------


def _inputs(exploration: Exploration, question: Question) -> Reply:
    size = params.integer(question.p, "size", 1, 513, default=48)
    thumbs = pictures.draw_thumbnails(exploration.batch.main, size, exploration.denormalize)
    return Reply({"thumbs": thumbs}, {"count": exploration.batch.count, "shown": len(thumbs)})


def _input(exploration: Exploration, question: Question) -> Reply:
    row = exploration.batch.row(_sample(exploration, question))
    picture = pictures.draw_sample(row, 0, exploration.denormalize)
    shape = list(exploration.batch.main.shape[1:])
    return Reply({"rgb": picture.rgb}, {"shape": shape, "kind": picture.kind})


def _run(exploration: Exploration, question: Question) -> Reply:
    return Reply(meta=exploration.run(_sample(exploration, question)))


def _strips(exploration: Exploration, question: Question) -> Reply:
    nodes = params.names(question.p, "nodes", 400)
    count = params.integer(question.p, "count", 1, 17, default=4)
    size = params.integer(question.p, "size", 4, 129, default=36)
    trace = run_of(exploration, question.p)
    tiles, strips = layers.strips(
        trace, nodes, count=count, size=size, token=question.token, beside=exploration.current
    )
    return Reply({"tiles": tiles}, {"strips": strips}, epoch=trace.epoch)


def _maps(exploration: Exploration, question: Question) -> Reply:
    started = time.perf_counter()
    trace = run_of(exploration, question.p)
    node = exploration.resolve(params.name(question.p, "node"))
    max_side = params.integer(question.p, "max_side", 1, 2049, default=128)
    arrays, meta = layers.maps(exploration, trace, node, max_side)
    return Reply(arrays, meta | {"ms": _milliseconds(started)}, epoch=trace.epoch)


def _values(exploration: Exploration, question: Question) -> Reply:
    trace = run_of(exploration, question.p)
    node = exploration.resolve(params.name(question.p, "node"))
    channel = params.integer(question.p, "channel", 0, 2**31)
    of_influence = question.p.get("of") == "influence"
    read = (
        influenced(exploration, trace, node, channel) if of_influence else layers.values(trace, node, channel)
    )
    return Reply({"values": read}, {"node": node, "channel": channel}, epoch=trace.epoch)


def _stats(exploration: Exploration, question: Question) -> Reply:
    trace = run_of(exploration, question.p)
    node = exploration.resolve(params.name(question.p, "node"))
    channel = params.integer(question.p, "channel", 0, 2**31, default=None)
    arrays, meta = layers.stats(trace, node, channel)
    return Reply(arrays, meta, epoch=trace.epoch)


def _measure(exploration: Exploration, question: Question) -> Reply:
    by = params.choice(question.p, "by", MEASURES)
    trace = run_of(exploration, question.p)
    measured = exploration.engine.measure(trace, by, progress=question.progress)
    numbers = [nan if number is None else number for number in measured.values()]
    return Reply({"values": np.asarray(numbers, dtype=np.float32)}, {"by": by})


def _saliency(exploration: Exploration, question: Question) -> Stream:
    exploration.trace_of(_sample(exploration, question))
    started = time.perf_counter()
    unit = params.integers(question.p, "unit", 8)
    node = params.name(question.p, "node")
    shown = exploration.unit_saliency(node, unit, changed_of(question.p))
    question.token.check()
    arrays, meta = layers.saliency(exploration, shown)
    # The picture first; its frame takes as long again where the user's cell holds the interpreter.
    yield Reply(arrays, meta | {"ms": _milliseconds(started)}, epoch=shown.epoch)
    return Reply(meta={"field": layers.field(exploration, shown)}, epoch=shown.epoch)


def _pixel(exploration: Exploration, question: Question) -> Reply:
    sample = _sample(exploration, question)
    main = exploration.batch.main
    height, width = (main.shape[-2], main.shape[-1]) if main.dim() > 2 else (1, main.shape[-1])
    y = params.integer(question.p, "y", 0, int(height))
    x = params.integer(question.p, "x", 0, int(width))
    return Reply(meta=layers.pixel(exploration, sample, y, x))


def _milliseconds(started: float) -> float:
    return round((time.perf_counter() - started) * 1e3, 2)


def _sample(exploration: Exploration, question: Question) -> int:
    return params.integer(question.p, "sample", 0, exploration.batch.total, default=exploration.sample)


_OPERATIONS: dict[str, Operation] = {
    "inputs": _inputs,
    "input": _input,
    "run": _run,
    "strips": _strips,
    "maps": _maps,
    "values": _values,
    "stats": _stats,
    "measure": _measure,
    "saliency": _saliency,
    "pixel": _pixel,
    **COMPARING,
    **EXPLAINING,
    **INSPECTING,
    **INTERVENING,
    **PAINTING,
    **PROBING,
}
