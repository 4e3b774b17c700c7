"""The kernel's end of the wire: which requests are open, and in which context everything is sent.

Constraints:

- `receive` runs on any thread, at any time, concurrently with itself and with the user's code. It never
  raises, and it only notes and hands on; the work happens elsewhere.
- Everything is sent inside a copy of the context of the newest page message. A kernel may route the next
  message of a page to the thread that last published on the comm; sent plainly from a cell, clicks wait for
  that cell.
- The newest request of a slot wins; a message that comes twice is answered once.

One request's life is in ``exchange.py``. No torch, no widgets: what sends and what time it is are handed in.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeVar

from nnviz_widget.wire.exchange import Exchange
from nnviz_widget.wire.messages import (
    PROTOCOL,
    Ack,
    Buffer,
    Cancel,
    Hello,
    PageMessage,
    Request,
    Visible,
    json_safe,
    parse,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Exchange", "Session"]

logger = logging.getLogger("nnviz_widget")

MAX_OPEN = 64
MAX_FINISHED = 256
MAX_TAILS = 8

T = TypeVar("T")


class Session:
    """Everything between the comm of one widget and the operations.

    Parameters
    ----------
    send : callable
        ``send(content, buffers)``: publishes one custom message; may be called from any thread, under a lock.
    on_request : callable
        ``on_request(exchange)``: starts the work on a new request and returns at once.
    on_visible : callable, optional
        ``on_visible(visible)``: called when the first view comes into sight and when the last one leaves it.
    clock : callable
        Seconds that only grow.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any], list[Buffer]], None],
        on_request: Callable[[Exchange], None],
        *,
        on_visible: Callable[[bool], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lock = threading.RLock()
        self.clock = clock
        self._send = send
        self._on_request = on_request
        self._on_visible = on_visible
        self._open: dict[str, Exchange] = {}
        self._tails: OrderedDict[str, Exchange] = OrderedDict()
        self._finished: OrderedDict[str, None] = OrderedDict()
        self._visible: set[str] = set()
        self._context: contextvars.Context | None = None
        self._closed = False

    @property
    def visible(self) -> bool:
        """Whether any view is in sight."""
        return bool(self._visible)

    @property
    def open_requests(self) -> list[str]:
        """Ids of the requests without a terminal, the oldest first."""
        with self.lock:
            return list(self._open)

    def receive(self, content: object, buffers: object = None) -> None:
        """Take one message of a page; never raises.

        Parameters
        ----------
        content : object
            JSON as it came.
        buffers : object
            List of binary parts, or None.
        """
        try:
            # Sends from now on belong to this message, even if it turns out to be nonsense.
            self._context = contextvars.copy_context()
            if not self._closed:
                self._dispatch(parse(content, buffers))
        except Exception:
            logger.exception("a message of the page could not be handled")

    def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call `function` inside the context of the newest page message, or plainly before the first one."""
        context = self._context
        if context is None:
            return function(*args, **kwargs)
        # A context cannot be entered twice at a time; a copy can.
        return context.copy().run(function, *args, **kwargs)

    def tick(self) -> None:
        """Let streams go on whose acknowledgements are late; call it about once a second."""
        now = self.clock()
        with self.lock:
            for exchange in list(self._open.values()):
                if exchange.is_stalled(now):
                    exchange.pump(stalled=True)

    def close(self) -> None:
        """Cancel what is open and say nothing any more."""
        for exchange in self._snapshot():
            exchange.cancel()
        with self.lock:
            self._closed = True
            self._tails.clear()
            self._visible.clear()
            self._context = None

    # ---- called by exchanges ------------------------------------------------------------------------------

    def post(self, content: dict[str, Any], buffers: list[Buffer] | None = None) -> None:
        """Publish one message; a comm that is gone is no reason to fail."""
        if self._closed:
            return
        try:
            self.run(self._send, content, buffers or [])
        except Exception:
            logger.exception("a message to the page could not be sent")

    def finished(self, exchange: Exchange) -> None:
        """Note that the terminal of an exchange was sent."""
        rid = exchange.request.rid
        self._open.pop(rid, None)
        self._finished[rid] = None
        while len(self._finished) > MAX_FINISHED:
            self._finished.popitem(last=False)
        if exchange.is_tail:
            self._tails[rid] = exchange
        while len(self._tails) > MAX_TAILS:
            self._tails.popitem(last=False)

    # ---- inner ------------------------------------------------------------------------------------------

    def _snapshot(self) -> list[Exchange]:
        with self.lock:
            return list(self._open.values())

    def _dispatch(self, message: PageMessage) -> None:
        if isinstance(message, Request):
            self._start(message)
        elif isinstance(message, Cancel):
            exchange = self._open.get(message.rid)
            if exchange is not None:
                exchange.cancel()
        elif isinstance(message, Ack):
            self._acknowledge(message)
        elif isinstance(message, Hello):
            open_requests = self.open_requests
            with self.lock:
                self.post({"t": "hello", "v": PROTOCOL, "view": message.view, "open": open_requests})
        elif isinstance(message, Visible):
            self._see(message)
        elif message.rid is not None and message.rid not in self._open:
            self._refuse(message.rid, message.code, message.message)
        else:
            logger.debug("ignored a message of the page: %s", message.message)

    def _start(self, request: Request) -> None:
        replaced: list[Exchange] = []
        with self.lock:
            if request.rid in self._open or request.rid in self._finished:
                return  # the same message twice: the answer is on its way, or was given
            if request.slot:
                replaced = [
                    other
                    for other in self._open.values()
                    if (other.request.view, other.request.slot) == (request.view, request.slot)
                ]
            full = len(self._open) - len(replaced) >= MAX_OPEN
            exchange = Exchange(self, request)
            if not full:
                self._open[request.rid] = exchange
        for other in replaced:
            other.cancel()
        if full:
            self._refuse(request.rid, "busy", f"{MAX_OPEN} requests are open already; wait for their answers")
            return
        try:
            self._on_request(exchange)
        except Exception:
            logger.exception("the request %s could not be started", request.op)
            exchange.fail("internal", f"The operation {request.op!r} could not be started.")

    def _refuse(self, rid: str, code: str, message: str) -> None:
        with self.lock:
            self.post(json_safe({"t": "error", "rid": rid, "code": code, "message": message}))

    def _acknowledge(self, ack: Ack) -> None:
        with self.lock:
            exchange = self._open.get(ack.rid) or self._tails.get(ack.rid)
            if exchange is None:
                return
            exchange.acknowledge(ack.seq, again=ack.again)
            if not exchange.is_tail:
                self._tails.pop(ack.rid, None)

    def _see(self, message: Visible) -> None:
        with self.lock:
            before = self.visible
            if message.visible:
                if len(self._visible) < MAX_OPEN:
                    self._visible.add(message.view)
            else:
                self._visible.discard(message.view)
            after = self.visible
            unseen = [
                exchange
                for exchange in self._open.values()
                if exchange.request.view not in self._visible
                and exchange.request.slot.startswith(("hover", "prefetch"))
            ]
        if not message.visible:
            for exchange in unseen:
                if exchange.request.view == message.view:
                    exchange.cancel()
        if before != after and self._on_visible is not None:
            self._on_visible(after)
