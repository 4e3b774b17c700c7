"""Threads that compute together, given back by whoever has nothing to compute.

OpenMP gives every thread that computes with torch a team of its own, which stays. As soon as all teams
together have more threads than there are processors, GNU's OpenMP no longer keeps them awake between two
operations, and waking them takes longer than many an operation: on two cores a forward pass of ResNet-50
takes 1.5 times as long. That of the user would, because there is an engine; so an engine that rests has no
team. A team that was given back is there again with the next operation.

Staying awake has its price: where other programs want the same processors, a page that draws or a neighbour
on a virtual machine, a team waits for its members, up to milliseconds at each operation. So nothing is given
back around short passes, of which many follow each other.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

__all__ = ["give_back"]

_SOFT = 1  # omp_pause_soft: everything but the threads stays


def give_back() -> None:
    """Let go of the calling thread's team; nothing happens where it has none, or OpenMP is not GNU's."""
    pause = _pause()
    if pause is not None:
        pause(_SOFT)


@cache
def _pause() -> Any:
    """Return ``omp_pause_resource_all`` of the library that torch has loaded."""
    try:
        loaded = ctypes.CDLL(None)
        found = loaded.omp_pause_resource_all
    except (AttributeError, OSError, TypeError):  # no OpenMP; no such table of names (Windows)
        return None
    # LLVM's and Intel's have one pool for all, which is not this thread's to give.
    return None if hasattr(loaded, "kmp_set_blocktime") else found
