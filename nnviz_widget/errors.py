"""The one family of errors that users meet.

Every message says what was given, what was expected and what to do next. Errors know nothing of torch, of
messages or of widgets, so that each part of the package can raise them; how an error travels to the page is
the business of ``explorer.operations``.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "InputError",
    "ModelError",
    "NNVizError",
    "OutOfMemoryError",
    "StaleError",
    "UnknownLayerError",
    "UnknownNameError",
    "nearest",
]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``" Did you mean 'layer1'?"``, or an empty string when nothing is close."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


class NNVizError(Exception):
    """Base of every error that this package raises on purpose.

    Parameters
    ----------
    message : str
        What was given and what was expected.
    hint : str, optional
        What to do next; shown after the message.
    """

    code = "internal"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.message = message
        self.hint = hint


class InputError(NNVizError, ValueError):
    """An argument has the wrong type, shape, range or length."""

    code = "bad_request"


class UnknownNameError(InputError, LookupError):
    """A layer, class, option or operation of that name does not exist."""


class UnknownLayerError(UnknownNameError):
    """No layer of that name ran in the traced pass."""


class StaleError(NNVizError):
    """What was asked for belongs to weights that have changed since."""

    code = "stale_epoch"


class OutOfMemoryError(NNVizError):
    """The device has too little memory even for the smallest chunk."""

    code = "out_of_memory"


class ModelError(NNVizError):
    """The user's model raised while it ran.

    Attributes
    ----------
    source : str
        ``file:line`` of the user's code that raised, or an empty string.
    node : str
        Id of the graph node that failed, or an empty string.
    shapes : tuple of str
        Shapes of the tensors that reached it.
    trace : object or None
        The partial trace up to the failure, where one could be kept.
    """

    code = "model_error"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        source: str = "",
        node: str = "",
        shapes: tuple[str, ...] = (),
        trace: object | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.source = source
        self.node = node
        self.shapes = shapes
        self.trace = trace
