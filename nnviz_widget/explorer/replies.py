"""What goes into an operation and what comes out of it; how operations run is in ``operations``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from numpy.typing import NDArray

    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.wire.messages import Buffer

__all__ = ["Question", "Reply", "Stream"]


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
