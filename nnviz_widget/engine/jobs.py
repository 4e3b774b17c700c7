"""The one engine thread: who runs next, who is cancelled, who holds it still.

A job is a function of a cancel token. One thread runs one job at a time, the most urgent first (click before
hover before prefetch, then in order of arrival). A job in a slot replaces the job that was in it, queued or
running. Every job ends exactly once: done, failed or cancelled. Cancelling is a request: the running function
notices it at its next ``token.check()``, so it never works for longer than about 50 ms between two checks.

The thread starts with the first job and holds nothing but the queue while it is idle, so an engine that is
forgotten without ``close()`` is still collected, and its thread ends. What a job computes, and torch, live
elsewhere.
"""

from __future__ import annotations

import atexit
import heapq
import itertools
import logging
import threading
import time
import weakref
from contextlib import ExitStack, contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from nnviz_widget.engine.teams import give_back
from nnviz_widget.engine.turns import short_turns
from nnviz_widget.errors import NNVizError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

__all__ = ["CancelToken", "Cancelled", "ClosedError", "Job", "Jobs", "Priority"]

T = TypeVar("T")
_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.2  # a waiting caller wakes this often, for Ctrl-C works in Python, not inside every lock
_JOIN_SECONDS = 30.0
_ANSWER_SECONDS = 0.25
_LONG_SECONDS = 0.05  # who waits longer makes room for the engine's team of threads, and gets it back


class Cancelled(NNVizError):  # noqa: N818  being cancelled is not an error
    """The job was cancelled: by its caller, by a newer job in its slot, or because the engine closed."""

    code = "cancelled"

    def __init__(self, message: str = "The job was cancelled.") -> None:
        super().__init__(message)


class ClosedError(NNVizError):
    """The engine was closed; it runs nothing any more."""

    def __init__(self) -> None:
        super().__init__("This engine is closed.", hint="Make a new one: nnviz_widget.Engine(model).")


class Priority(IntEnum):
    """How urgent a job is; the smallest runs first."""

    CLICK = 0
    HOVER = 1
    PREFETCH = 2


class CancelToken:
    """Tells a running job that nobody waits for it any more; safe to set and check from every thread."""

    __slots__ = ("_cancelled",)

    def __init__(self) -> None:
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Ask the job to stop at its next `check`."""
        self._cancelled = True

    def check(self) -> None:
        """Raise `Cancelled` once `cancel` was called; costs nothing otherwise."""
        if self._cancelled:
            raise Cancelled


class Job(Generic[T]):
    """One piece of work on the engine thread, and the handle to wait for it, cancel it or hear of its end.

    Attributes
    ----------
    state : str
        ``"queued"``, ``"running"``, and then one of ``"done"``, ``"failed"``, ``"cancelled"`` for ever.
    slot : hashable or None
        A newer job in the same slot cancels this one.
    token : CancelToken
        Handed to the function.
    """

    def __init__(self, fn: Callable[[CancelToken], T], priority: Priority, slot: Hashable) -> None:
        self.state = "queued"
        self.priority = priority
        self.slot = slot
        self.token = CancelToken()
        self._fn: Callable[[CancelToken], T] | None = fn
        self._value: Any = None
        self._error: BaseException | None = None
        self._lock = threading.RLock()  # re-entrant: the garbage collector may cancel jobs from any line
        self._ended = threading.Event()
        self._callbacks: list[Callable[[Job[T]], object]] = []

    @property
    def ended(self) -> bool:
        """Whether the job is done, failed or cancelled."""
        return self._ended.is_set()

    def cancel(self) -> bool:
        """Cancel the job: at once while it is queued, at its next check while it runs.

        Returns
        -------
        bool
            False when it had already ended.
        """
        self.token.cancel()
        with self._lock:
            if self.state != "queued":
                return self.state == "running"
            self.state = "cancelled"
        self._finish(None, Cancelled())
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Wait at most ``timeout`` seconds for the end; returns whether it has come."""
        return self._ended.wait(timeout)

    def result(self, timeout: float | None = None) -> T:
        """Wait for the end and return what the function returned, or raise what it raised.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most. By default as long as it takes.

        Raises
        ------
        Cancelled
            The job was cancelled.
        TimeoutError
            It did not end in time; it goes on.
        KeyboardInterrupt
            The caller was interrupted while it waited; the job is cancelled.
        """
        try:
            if timeout is not None:
                if not self._ended.wait(timeout):
                    raise TimeoutError(f"The job is still {self.state} after {timeout} s.")
            else:
                while not self._ended.wait(_POLL_SECONDS):
                    pass
        except KeyboardInterrupt:
            self.cancel()
            raise
        try:
            if self._error is not None:
                raise self._error
            value: T = self._value
            return value
        finally:
            del self  # the traceback holds this frame, the frame the job, the job the error: break the circle

    def error(self) -> BaseException | None:
        """Return what the ended job raised (`Cancelled` if it was cancelled), or None."""
        return self._error

    def add_done_callback(self, fn: Callable[[Job[T]], object]) -> None:
        """Call ``fn(job)`` once when the job ends, on the thread that ended it; at once if it has ended."""
        with self._lock:
            if not self._ended.is_set():
                self._callbacks.append(fn)
                return
        self._call(fn)

    def _run(self) -> None:
        """Run the function on this thread. Nothing it raises gets out."""
        with self._lock:
            if self.state != "queued":
                return
            self.state = "running"
            fn, self._fn = self._fn, None
        assert fn is not None
        value: Any = None
        error: BaseException | None = None
        try:
            self.token.check()
            value = fn(self.token)
            self.token.check()  # a cancelled job never has a result, even if it did not notice in time
        except BaseException as raised:  # noqa: BLE001  the thread must outlive any job; the waiting caller gets it
            value, error = None, raised
        del fn
        with self._lock:
            if error is None:
                self.state = "done"
            else:
                self.state = "cancelled" if isinstance(error, Cancelled) else "failed"
        self._finish(value, error)

    def _finish(self, value: Any, error: BaseException | None) -> None:
        with self._lock:
            self._fn = None
            self._value, self._error = value, error
            self._ended.set()
            callbacks, self._callbacks = self._callbacks, []
        for fn in callbacks:
            self._call(fn)

    def _call(self, fn: Callable[[Job[T]], object]) -> None:
        try:
            fn(self)
        except Exception:  # noqa: BLE001  a listener's bug is not the job's
            _log.exception("A callback of a finished job raised.")


class _Queue:
    """What the thread shares with `Jobs`. It knows neither `Jobs` nor any owner, so neither is kept alive."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.heap: list[tuple[int, int, Job[Any]]] = []
        self.slots: dict[Hashable, Job[Any]] = {}
        self.running: Job[Any] | None = None
        self.thread: threading.Thread | None = None
        self.holders: dict[int, int] = {}  # thread that paused -> how often
        self.inline = threading.RLock()  # one holder at a time does torch work
        self.closed = False

    def work(self) -> None:
        """Run jobs until closed; the body of the thread."""
        with ExitStack() as turns:
            short = False
            while True:
                with self.changed:
                    while not self.closed and (self.holders or not self.heap):
                        # The answer still has to leave the kernel, through threads of its own.
                        if not self.changed.wait(_ANSWER_SECONDS if short else None):
                            turns.close()
                            short = False
                    if self.closed:
                        return
                    job = heapq.heappop(self.heap)[2]
                    self.running = job
                if not short:
                    turns.callback(give_back)
                    turns.enter_context(short_turns)
                    short = True
                job._run()
                with self.changed:
                    self.running = None
                    if job.slot is not None and self.slots.get(job.slot) is job:
                        del self.slots[job.slot]
                    self.changed.notify_all()
                del job  # an idle thread holds no result and no closure

    def shut(self) -> threading.Thread | None:
        """Cancel everything and tell the thread to end; returns it."""
        with self.changed:
            self.closed = True
            waiting = [entry[2] for entry in self.heap]
            running, thread = self.running, self.thread
            self.heap.clear()
            self.slots.clear()
            self.changed.notify_all()
        for job in [*waiting, *([running] if running else [])]:
            job.cancel()
        return thread


class Jobs:
    """A queue of jobs and the one thread that runs them.

    Parameters
    ----------
    name : str
        Name of the thread.
    """

    def __init__(self, name: str = "nnviz-engine") -> None:
        self._name = name
        self._queue = _Queue()
        self._order = itertools.count()
        self._long = False  # the last call
        self._finalize = weakref.finalize(self, _Queue.shut, self._queue)
        self._finalize.atexit = False
        _open.add(self)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._queue.closed

    @property
    def waiting(self) -> bool:
        """Whether a job is queued: who can go on later lets it go first."""
        return any(not entry[2].ended for entry in list(self._queue.heap))

    @property
    def on_engine_thread(self) -> bool:
        """Whether the caller is the engine thread itself."""
        return threading.current_thread() is self._queue.thread

    @property
    def token(self) -> CancelToken | None:
        """The token of the running job when called from inside it, else None."""
        running = self._queue.running
        return running.token if running is not None and self.on_engine_thread else None

    def submit(
        self,
        fn: Callable[[CancelToken], T],
        *,
        priority: Priority = Priority.CLICK,
        slot: Hashable = None,
        queued: bool = False,
    ) -> Job[T]:
        """Queue ``fn(token)`` and return at once.

        Called on the engine thread (a job that needs another one), the function runs at once, under the token
        of the running job, unless it is to be `queued` (a job that goes on later, after others).

        Parameters
        ----------
        fn : callable
            Takes a `CancelToken` and calls its ``check()`` at least every 50 ms.
        priority : Priority
            The smallest runs first; equal ones in order of arrival.
        slot : hashable, optional
            Cancels the job that is in this slot, queued or running, and takes its place.
        queued : bool
            Queue it also on the engine thread.

        Raises
        ------
        ClosedError
            After `close`.
        """
        queue = self._queue
        job: Job[T] = Job(fn, priority, slot)
        if self.on_engine_thread and not queued:
            if queue.closed:
                raise ClosedError
            job.token = self.token or job.token
            job._run()
            return job
        with queue.changed:
            if queue.closed:
                raise ClosedError
            if queue.thread is None:
                queue.thread = threading.Thread(target=queue.work, name=self._name, daemon=True)
                queue.thread.start()
            replaced = None
            if slot is not None:
                replaced = queue.slots.get(slot)
                queue.slots[slot] = job
            queue.heap = [entry for entry in queue.heap if entry[2] is not replaced and not entry[2].ended]
            queue.heap.append((int(priority), next(self._order), job))
            heapq.heapify(queue.heap)  # a handful: scrubbing while paused must not pile up dead ones
            queue.changed.notify_all()
        if replaced is not None:
            replaced.cancel()
        return job

    def call(self, fn: Callable[[CancelToken], T], *, priority: Priority = Priority.CLICK) -> T:
        """Run ``fn(token)`` on the engine thread and wait for what it returns.

        A caller that holds the engine still (`paused`) gets it run on its own thread: waiting for a thread
        that waits for the caller would never end.
        """
        if threading.get_ident() in self._queue.holders and not self.closed:
            with self._queue.inline:
                return fn(self.token or CancelToken())
        if self.on_engine_thread:
            return self.submit(fn, priority=priority).result()

        def awaited(token: CancelToken) -> T:
            start = time.perf_counter()
            try:
                return fn(token)
            finally:
                self._long = time.perf_counter() - start > _LONG_SECONDS
                if self._long:
                    give_back()  # who waited computes next

        if self._long:
            give_back()  # the engine computes next, and for as long as last time, presumably
        return self.submit(awaited, priority=priority).result()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hold the engine still: waits for the running job to end, and nothing else runs inside the block.

        Jobs submitted meanwhile stay queued and run afterwards. May be nested, and several threads may hold
        at once.
        """
        queue, me = self._queue, threading.get_ident()
        with queue.changed:
            queue.holders[me] = queue.holders.get(me, 0) + 1
        try:
            with queue.changed:
                while queue.running is not None and not self.on_engine_thread:
                    queue.changed.wait(_POLL_SECONDS)
            yield
        finally:
            with queue.changed:
                queue.holders[me] -= 1
                if not queue.holders[me]:
                    del queue.holders[me]
                queue.changed.notify_all()

    def close(self) -> None:
        """Cancel every job, end the thread and wait for it. Safe to call twice, and from a job."""
        thread = self._queue.shut()
        _open.discard(self)
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_SECONDS)
            if thread.is_alive():
                _log.warning("%s is still busy %g s after it was closed.", self._name, _JOIN_SECONDS)


_open: weakref.WeakSet[Jobs] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End the threads before the interpreter tears down the modules that they use."""
    for jobs in list(_open):
        jobs.close()
