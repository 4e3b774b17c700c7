"""An input that changes a little from frame to frame, as under a brush.

Each frame starts from the one before: what a stroke changed is written into what is kept, so that the next
stroke is as small again, however much was painted in all. A frame that is another picture altogether is run
in full, and so are those of networks so small that this is faster.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_map

from nnviz_widget.engine.replay.patches import boxes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from nnviz_widget.engine.replay.flow import Boxes
    from nnviz_widget.engine.replay.replays import Replayed

__all__ = ["Moving"]

#: A stroke that covers more of the picture than this is another picture.
_MOST = 0.35
#: After so many frames of either kind it is known which is faster.
_TRIES = 3


class Moving:
    """Frames of one sample.

    Parameters
    ----------
    replayed : Replayed
        Of the sample to begin with; not used by anybody else.

    Attributes
    ----------
    share : float
        Of the arithmetic of the last frame.
    """

    def __init__(self, replayed: Replayed) -> None:
        self.share = 1.0
        self._replayed = replayed
        self._last: Tensor | None = None
        self._fastest: dict[bool, float] = {}
        self._frames = {True: 0, False: 0}

    def took(self, seconds: float, *, replayed: bool) -> None:
        """Learn from a frame."""
        self._frames[replayed] += 1
        self._fastest[replayed] = min(seconds, self._fastest.get(replayed, seconds))

    def frame(
        self, given: Tensor, wanted: Sequence[str], check: Callable[[], None]
    ) -> tuple[Any, dict[str, Tensor]] | None:
        """Return output and activations of the next frame, or None where it is to be run in full.

        Parameters
        ----------
        given : Tensor
            The input, ``[1, ...]``.
        wanted : sequence of str
            Ids of nodes and groups.
        check : callable
            Raises where the work is no longer wanted: the frame is then the one before.
        """
        replay, seed = self._replayed.replay, self._replayed.seed
        before, self._last = self._last, given
        self.share = 1.0
        refs = {name: replay.plan.refs.get(name) for name in wanted}
        if None in refs.values() or self._slower():
            return None
        goals = [ref for ref in refs.values() if ref is not None]
        stroke = _stroke(given, replay.base(seed))
        if stroke is not None:
            flops = replay.flops
            replay.advance(seed, given, goals, check, stroke)
            self.share = (replay.flops - flops) / max(sum(replay.plan.flops), 1.0)
        elif before is not None and _stroke(given, before) is not None:
            # Somebody began to paint on another picture.
            with torch.no_grad():
                replay.begin(seed, given)
        else:
            return None
        with torch.no_grad():
            output = tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, replay.output())
            return output, {name: replay.base(ref) for name, ref in refs.items() if ref is not None}

    def _slower(self) -> bool:
        if min(self._frames.values()) < _TRIES:
            return self._frames[True] >= _TRIES and self._frames[False] < _TRIES
        return self._fastest[True] > self._fastest[False]


def _stroke(given: Tensor, other: Tensor) -> Boxes | None:
    """Return where two pictures differ; None where that is most of them, or they are of two kinds."""
    if given.shape != other.shape or given.dtype != other.dtype:
        return None
    starts, sizes = boxes_of(given, other, [0])
    share = prod(size / side for size, side in zip(sizes[1:], given.shape[2:], strict=True))
    return (starts, sizes) if share <= _MOST else None
