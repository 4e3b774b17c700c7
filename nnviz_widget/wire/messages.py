"""The words of the wire, as the kernel sees them: what a page may say, and what may be answered.

Constraints that shape them:

- A page's message is JSON of unknown origin. Nothing in it is trusted: not its type, size or depth. `parse`
  never raises; what cannot be understood becomes an `Invalid`, with the request id where one could be read.
- The correlation field is ``rid``, never ``id``: some kernels keep every ``id`` that they ever sent.
- What is answered must survive strict JSON: no NaN, no infinity, no lone surrogate.

Arrays are in ``arrays.py``; what happens to a message is in ``session.py``; the page's side is
``js/src/wire/types.ts``, held to this one by the fixtures in ``tests/fixtures/wire``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "ERROR_CODES",
    "PROTOCOL",
    "Ack",
    "Buffer",
    "Cancel",
    "Hello",
    "Invalid",
    "PageMessage",
    "Request",
    "Visible",
    "json_safe",
    "parse",
]

PROTOCOL = 1

ERROR_CODES = frozenset(
    {
        "bad_request",
        "unsupported",
        "stale_epoch",
        "cancelled",
        "model_error",
        "out_of_memory",
        "shape_unsupported",
        "busy",
        "internal",
    }
)

MAX_NAME = 64
MAX_SLOT = 128
MAX_ITEMS = 20_000
MAX_TEXT = 256 * 1024
MAX_DEPTH = 12
MAX_BUFFERS = 4
MAX_BUFFER_BYTES = 10 * 1024 * 1024

Buffer: TypeAlias = "bytes | bytearray | memoryview"


@dataclass(frozen=True)
class Request:
    """A page asks for one operation.

    Attributes
    ----------
    rid : str
        Names the request in every message about it; made by the page, unique.
    view, slot : str
        A newer request in the same slot (if it has a name) of the same view replaces this one.
    op : str
        Name of the operation; whether it exists is not known here.
    params : mapping
        Its parameters as they came: JSON of bounded size, otherwise unchecked.
    buffers : tuple of buffer
        Binary parts.
    """

    rid: str
    view: str
    slot: str
    op: str
    params: Mapping[str, Any]
    buffers: tuple[Buffer, ...] = ()


@dataclass(frozen=True)
class Cancel:
    """A page no longer wants an answer."""

    rid: str


@dataclass(frozen=True)
class Ack:
    """A page has chunk `seq` and all before it; with `again` it asks for what follows once more."""

    rid: str
    seq: int
    again: bool = False


@dataclass(frozen=True)
class Hello:
    """A page asks whether anybody is there, and which of its requests are still open."""

    view: str
    version: int


@dataclass(frozen=True)
class Visible:
    """A view came into sight or left it."""

    view: str
    visible: bool


@dataclass(frozen=True)
class Invalid:
    """What could not be understood. An answer is possible only where `rid` could be read."""

    rid: str | None
    code: str
    message: str


PageMessage: TypeAlias = "Request | Cancel | Ack | Hello | Visible | Invalid"


class _BadError(Exception):
    """A message is not what it should be; never leaves this module."""

    def __init__(self, message: str, code: str = "bad_request") -> None:
        super().__init__(message)
        self.code = code


def parse(content: object, buffers: object = None) -> PageMessage:
    """Understand one message of a page.

    Parameters
    ----------
    content : object
        The JSON content, of whatever type it came.
    buffers : object
        The binary parts, or None.

    Returns
    -------
    message : Request, Cancel, Ack, Hello, Visible or Invalid
        Never raises.
    """
    rid: str | None = None
    try:
        if not isinstance(content, dict):
            raise _BadError(f"a message is an object, not {type(content).__name__}")
        given = content.get("rid")
        rid = given if _is_name(given) and given else None
        kind = content.get("t")
        reader = _READERS.get(kind) if isinstance(kind, str) else None
        if reader is None:
            raise _BadError(f"unknown kind of message {_short(kind)}", "unsupported")
        return reader(content, buffers)
    except _BadError as bad:
        return Invalid(rid, bad.code, str(bad))


def _read_request(content: dict[Any, Any], buffers: object) -> Request:
    rid, version = _read_rid(content), content.get("v")
    if not _is_int(version) or version != PROTOCOL:
        raise _BadError(
            f"this kernel speaks version {PROTOCOL} of the protocol and the page version {_short(version)}; "
            "reload the page, or restart the kernel after an upgrade",
            "unsupported",
        )
    view, slot, op = content.get("view", ""), content.get("slot", ""), content.get("op")
    if not _is_name(view) or not _is_name(slot, MAX_SLOT):
        raise _BadError("'view' and 'slot' must be short texts")
    if not _is_name(op) or not op:
        raise _BadError(f"'op' must be a text of 1 to {MAX_NAME} characters")
    params = content.get("p")
    params = {} if params is None else params
    if not isinstance(params, dict):
        raise _BadError(f"'p' must be an object, not {type(params).__name__}")
    if not _is_bounded(params):
        raise _BadError(f"'p' is too big (at most {MAX_ITEMS} values, {MAX_DEPTH} deep)")
    return Request(rid, view, slot, op, params, _read_buffers(buffers))


def _read_cancel(content: dict[Any, Any], _buffers: object) -> Cancel:
    return Cancel(_read_rid(content))


def _read_ack(content: dict[Any, Any], _buffers: object) -> Ack:
    rid, seq = _read_rid(content), content.get("seq")
    if not _is_int(seq) or not -1 <= seq < 2**31:
        raise _BadError("'seq' must be a whole number from -1")
    return Ack(rid, seq, content.get("again") is True)


def _read_hello(content: dict[Any, Any], _buffers: object) -> Hello:
    view, version = content.get("view"), content.get("v")
    if not _is_name(view) or not _is_int(version):
        raise _BadError("'hello' needs 'view' and 'v'")
    return Hello(view, version)


def _read_visible(content: dict[Any, Any], _buffers: object) -> Visible:
    view, visible = content.get("view"), content.get("visible")
    if not _is_name(view) or not isinstance(visible, bool):
        raise _BadError("'visible' needs 'view' and true or false")
    return Visible(view, visible)


_READERS: dict[str, Callable[[dict[Any, Any], object], PageMessage]] = {
    "req": _read_request,
    "cancel": _read_cancel,
    "ack": _read_ack,
    "hello": _read_hello,
    "visible": _read_visible,
}


def _read_rid(content: dict[Any, Any]) -> str:
    rid = content.get("rid")
    if not _is_name(rid) or not rid:
        raise _BadError(f"'rid' must be a text of 1 to {MAX_NAME} characters")
    return rid


def _read_buffers(buffers: object) -> tuple[Buffer, ...]:
    if buffers is None:
        return ()
    if not isinstance(buffers, (list, tuple)) or len(buffers) > MAX_BUFFERS:
        raise _BadError(f"at most {MAX_BUFFERS} buffers")
    if not all(isinstance(buffer, (bytes, bytearray, memoryview)) for buffer in buffers):
        raise _BadError("buffers must be bytes")
    if sum(memoryview(buffer).nbytes for buffer in buffers) > MAX_BUFFER_BYTES:
        raise _BadError(f"at most {MAX_BUFFER_BYTES} bytes in all buffers")
    return tuple(buffers)


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_name(value: object, limit: int = MAX_NAME) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= limit


def _short(value: object) -> str:
    """Show a value of unknown size in a message of known size."""
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a very large number"
    if isinstance(value, (str, int, float)) or value is None:
        text = repr(value)
        return text if len(text) <= MAX_NAME else text[:MAX_NAME] + "…"
    return type(value).__name__


def _is_bounded(value: object) -> bool:
    """Walk without recursion, so that depth costs a comparison and not the stack."""
    items, text = 0, 0
    pending: list[tuple[object, int]] = [(value, 0)]
    while pending:
        here, depth = pending.pop()
        items += 1
        if isinstance(here, str):
            text += len(here)
        elif isinstance(here, (dict, list)):
            if depth >= MAX_DEPTH or items + len(here) > MAX_ITEMS:
                return False
            if isinstance(here, dict):
                text += sum(len(key) if isinstance(key, str) else 1 for key in here)
            children = here.values() if isinstance(here, dict) else here
            pending.extend((child, depth + 1) for child in children)
        if items > MAX_ITEMS or text > MAX_TEXT:
            return False
    return True


def json_safe(value: Any) -> Any:
    """Copy a value so that strict JSON can carry it.

    Numbers that JSON does not know (NaN, infinity) become None, numpy scalars and arrays become Python's,
    tuples and sets become lists, text loses lone surrogates, and anything else becomes its ``str``.

    Parameters
    ----------
    value : object
        Nested dicts, sequences, numbers, texts.

    Returns
    -------
    safe : object
        A copy of plain Python values.
    """
    safe: Any
    if value is None or isinstance(value, bool):
        safe = value
    elif isinstance(value, str):
        safe = value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    elif isinstance(value, int):
        safe = int(value)
    elif isinstance(value, float):
        safe = float(value) if math.isfinite(value) else None
    elif isinstance(value, dict):
        safe = {
            key if type(key) is str and key.isascii() else str(json_safe(key)): json_safe(child)
            for key, child in value.items()
        }
    elif isinstance(value, (list, tuple, set, frozenset)):
        safe = [json_safe(child) for child in value]
    elif hasattr(value, "tolist"):
        safe = json_safe(value.tolist())  # numpy, without importing it
    else:
        safe = json_safe(str(value))
    return safe
