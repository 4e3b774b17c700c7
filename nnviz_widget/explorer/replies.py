"""What goes into an operation and what comes out of it; how operations run is in ``operations``."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from numpy.typing import NDArray

    from nnviz_widget.engine import streaming
    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.replay.replays import Recomputed
    from nnviz_widget.wire.messages import Buffer

__all__ = ["Question", "Reply", "Stream", "growing", "saved"]

Found = TypeVar("Found")

_PART_SECONDS = 0.15  # a page is told of a growing result this often at most


@dataclass
class Reply:
    """One part of an answer: arrays, JSON beside them, and the epoch if it is not that of the run."""

    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    epoch: int | None = None


@dataclass(frozen=True)
class Question:
    """What an operation is given: parameters, binary parts, its cancel token, whom to tell how far it is."""

    p: Mapping[str, Any]
    buffers: tuple[Buffer, ...]
    token: CancelToken
    progress: Callable[[int, int], None]


#: Yields parts and returns the last; None where it has only worked, and others may go first.
Stream: TypeAlias = "Generator[Reply | None, None, Reply]"


def saved(found: Recomputed | None) -> dict[str, Any] | None:
    """Return how much of the model ran for variants, for the page."""
    return None if found is None else {"share": round(found.share, 4), "told": str(found)}


def growing(
    stream: streaming.Stream[Found], token: CancelToken, reply: Callable[[Found], Reply]
) -> Generator[Reply | None, None, Found]:
    """Take a computation to its end, step by step, and tell the page now and then what there is.

    Parameters
    ----------
    stream : Stream
        Of the engine; closed at the end, whatever that is.
    token : CancelToken
        Of the request.
    reply : callable
        Makes a part of the answer from what there is.

    Returns
    -------
    found : object
        The whole result.
    """
    said = float("-inf")
    found: Found | None = None
    try:
        while (part := stream.step(token)) is not None:
            found = part
            now = time.perf_counter()
            tell = stream.progress < 1 and now - said >= _PART_SECONDS
            said = now if tell else said
            yield reply(found) if tell else None
    finally:
        stream.close()
    if found is None:
        raise InputError("There is nothing to compute for this input.")
    return found
