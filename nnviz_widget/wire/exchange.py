"""One request and all that is said about it: numbered chunks, a window, exactly one terminal.

Constraints:

- Exactly one terminal for each request: its last chunk, an error or a cancelled. What comes later is
  dropped.
- Chunks are numbered from 0. At most `WINDOW` of them are unacknowledged; the rest wait here, not in the
  socket. An acknowledgement may come late (kernels that read only between cells), so after a stall one more
  window goes.
- A reply of one or two messages is not acknowledged and keeps nothing here; of a longer one, what is
  unacknowledged can be asked for again.

Whose turn it is among many requests, and who sends, is the business of ``session.py``.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Protocol

from nnviz_widget.wire.arrays import pack
from nnviz_widget.wire.messages import json_safe

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from nnviz_widget.wire.messages import Buffer, Request

    Arrays = Mapping[str, NDArray[Any]]

__all__ = ["STALL_SECONDS", "WINDOW", "Exchange", "quietly"]

logger = logging.getLogger("nnviz_widget")

WINDOW = 4
UNACKNOWLEDGED = 2
STALL_SECONDS = 2.0
PROGRESS_SECONDS = 0.2


class _Home(Protocol):
    """What an exchange needs from its session."""

    lock: threading.RLock
    clock: Callable[[], float]

    def post(self, content: dict[str, Any], buffers: list[Buffer] | None = None) -> None: ...

    def finished(self, exchange: Exchange) -> None: ...


class Exchange:
    """One request and everything that is said about it; made by `Session`, used by whoever does the work.

    All methods may be called from any thread, also after the end: then they do nothing.

    Attributes
    ----------
    request : Request
        What was asked.
    """

    def __init__(self, session: _Home, request: Request) -> None:
        self.request = request
        self._session = session
        self._queue: deque[tuple[dict[str, Any], list[Buffer]]] = deque()
        self._unacked: OrderedDict[int, tuple[dict[str, Any], list[Buffer]]] = OrderedDict()
        self._next_seq = 0
        self._ended = False
        self._sent_at = 0.0
        self._progress_at: float | None = None
        self._on_cancel: list[Callable[[], object]] = []
        self._on_ready: Callable[[], None] | None = None

    @property
    def closed(self) -> bool:
        """True once a terminal was sent or waits to be sent: nobody needs more work on it."""
        return self._ended

    @property
    def ready(self) -> bool:
        """True while another part can be sent without piling up."""
        return len(self._queue) == 0

    def part(self, arrays: Arrays, meta: Mapping[str, Any] | None = None, *, epoch: int) -> None:
        """Send one part of a stream; more follows.

        Parameters
        ----------
        arrays : mapping of str to array
            See `nnviz_widget.wire.arrays.pack`.
        meta : mapping, optional
            JSON beside the arrays.
        epoch : int
            Epoch of the weights and the input that this was computed from.
        """
        self._chunks(arrays, meta, epoch, last=False)

    def finish(
        self, arrays: Arrays | None = None, meta: Mapping[str, Any] | None = None, *, epoch: int
    ) -> None:
        """Send the last part, or the only one, and end the request; parameters as for `part`."""
        self._chunks(arrays or {}, meta or {}, epoch, last=True)

    def progress(self, done: float, total: float, note: str = "") -> None:
        """Say how far the work is; at most five times a second, the others are left out."""
        now = self._session.clock()
        with self._session.lock:
            if self._ended or (self._progress_at is not None and now - self._progress_at < PROGRESS_SECONDS):
                return
            self._progress_at = now
            message = {"t": "progress", "rid": self.request.rid, "done": done, "total": total}
            self._session.post(json_safe(message | ({"note": note} if note else {})))

    def fail(
        self, code: str, message: str, *, hint: str = "", detail: Mapping[str, Any] | None = None
    ) -> None:
        """End the request with an error.

        Parameters
        ----------
        code : str
            One of `nnviz_widget.wire.messages.ERROR_CODES`.
        message, hint : str
            What went wrong and what to do next, for the user.
        detail : mapping, optional
            JSON with more of it, such as the failing node.
        """
        error: dict[str, Any] = {"t": "error", "rid": self.request.rid, "code": code, "message": message}
        if hint:
            error["hint"] = hint
        if detail:
            error["detail"] = dict(detail)
        self._end(error)

    def cancel(self) -> None:
        """End the request as cancelled and tell the one who works on it."""
        callbacks = self._on_cancel
        if self._end({"t": "cancelled", "rid": self.request.rid}):
            for callback in callbacks:
                quietly(callback)

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call back when the request is cancelled; at once when it already ended."""
        with self._session.lock:
            if not self._ended:
                self._on_cancel.append(callback)
                return
        quietly(callback)

    def when_ready(self, callback: Callable[[], None]) -> None:
        """Call back once, when another part can be sent or the request has ended; maybe at once."""
        with self._session.lock:
            if not self._ended and self._queue:
                self._on_ready = callback
                return
        quietly(callback)

    # ---- called by the session, with its lock held ------------------------------------------------------

    def acknowledge(self, seq: int, *, again: bool) -> None:
        """Forget what has arrived, send once more what is missing, and go on."""
        for known in [known for known in self._unacked if known <= seq]:
            del self._unacked[known]
        if again:
            for message, buffers in self._unacked.values():
                self._session.post(message, buffers)
        self.pump()

    def pump(self, *, stalled: bool = False) -> None:
        """Send what the window allows; after a stall, one window more."""
        credit = WINDOW if stalled else WINDOW - len(self._unacked)
        while self._queue and credit > 0:
            message, buffers = self._queue.popleft()
            credit -= 1
            self._sent_at = self._session.clock()
            self._unacked[message["seq"]] = (message, buffers)
            if message["last"] and message["seq"] < UNACKNOWLEDGED:
                self._unacked.clear()
            if len(self._unacked) > 2 * WINDOW:
                self._unacked.popitem(last=False)
            self._session.post(message, buffers)
            if message["last"]:
                self._session.finished(self)
        if not self._queue and self._on_ready is not None:
            callback, self._on_ready = self._on_ready, None
            quietly(callback)

    def is_stalled(self, now: float) -> bool:
        """Whether chunks have waited for an acknowledgement for too long."""
        return bool(self._queue) and now - self._sent_at >= STALL_SECONDS

    @property
    def is_tail(self) -> bool:
        """Whether something that was sent may still be asked for again."""
        return bool(self._unacked)

    # ---- inner ------------------------------------------------------------------------------------------

    def _chunks(self, arrays: Arrays, meta: Mapping[str, Any] | None, epoch: int, *, last: bool) -> None:
        parts = list(pack(arrays))
        safe = None if meta is None else json_safe(dict(meta))
        with self._session.lock:
            if self._ended:
                return
            self._ended = last
            for index, packed in enumerate(parts):
                final = index == len(parts) - 1
                message: dict[str, Any] = {
                    "t": "chunk",
                    "rid": self.request.rid,
                    "seq": self._next_seq,
                    "last": last and final,
                    "epoch": epoch,
                    "arrays": packed.arrays,
                }
                # The first chunk says what the numbers mean; the last one is where a reader looks for it.
                if safe is not None and (index == 0 or final):
                    message["meta"] = safe
                self._next_seq += 1
                self._queue.append((message, packed.buffers))
            self.pump()

    def _end(self, terminal: dict[str, Any]) -> bool:
        with self._session.lock:
            if self._ended and not self._queue:
                return False
            # Chunks that wait for their turn are not sent any more: the terminal is this one.
            self._ended = True
            self._queue.clear()
            self._unacked.clear()
            self._session.post(json_safe(terminal))
            self._session.finished(self)
            callback, self._on_ready = self._on_ready, None
        if callback is not None:
            quietly(callback)
        return True


def quietly(callback: Callable[[], object]) -> None:
    """Call back; an error there is logged and is not ours."""
    try:
        callback()
    except Exception:
        logger.exception("a callback of the wire failed")
