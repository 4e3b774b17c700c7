"""Which layer of one network is which of another: by path, and what is left by order.

Plain functions of lists, without torch. A layer that has the same path and does the same in both is the same
one. Between two such anchors, what is left on either side is aligned as two sequences are: in order, only
what does the same, and of all such ways the one that agrees most in shapes and names (Needleman and Wunsch
1970, without a price for gaps). So a copy with other names, and one with layers cut out, both fit.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nnviz_widget.engine.trace import Trace

__all__ = ["Layer", "Match", "align", "layers_of"]

#: Of one table; beyond, only what is equal from both ends is paired.
_MOST_CELLS = 25_000_000

#: What these give is whatever was in memory.
_UNFILLED = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})

Shape = tuple[int, ...]


class Layer(NamedTuple):
    """What is known of a layer before it is compared.

    Attributes
    ----------
    id : str
        Node or group id.
    does : str
        What it does: the operation of a node, the type of a group. Layers that differ in it are never paired
        by order.
    shape : tuple of int
        Of its output.
    """

    id: str
    does: str
    shape: Shape


class Match(NamedTuple):
    """Two layers that belong together.

    Attributes
    ----------
    a, b : str
        Ids in the first and in the second network.
    by : str
        ``"path"`` or ``"order"``.
    """

    a: str
    b: str
    by: str


def layers_of(trace: Trace) -> tuple[list[Layer], list[Layer]]:
    """Return the layers and the groups of a run that gave numbers of floating point, as they ran."""

    def known(name: str, does: str) -> list[Layer]:
        ref = trace.refs.get(name)
        if ref is None:
            return []
        spec = trace.ops[ref.op].outputs[ref.port]
        floating = spec.dtype is not None and spec.dtype.is_floating_point
        return [Layer(name, does, tuple(spec.shape))] if floating else []

    graph = trace.graph
    nodes = [
        layer
        for node in graph.nodes
        if node.kind in {"module", "op", "output"} and node.op not in _UNFILLED
        for layer in known(node.id, node.op)
    ]
    groups = [layer for group in graph.groups if group.id for layer in known(group.id, group.type)]
    return nodes, groups


def align(first: Sequence[Layer], second: Sequence[Layer]) -> list[Match]:
    """Pair the layers of two networks.

    Parameters
    ----------
    first, second : sequence of Layer
        Each in order of execution.

    Returns
    -------
    list of Match
        In the order of `first`; every layer at most once.
    """
    at = {layer.id: place for place, layer in enumerate(second)}
    same = [
        (i, at[layer.id])
        for i, layer in enumerate(first)
        if layer.id in at and second[at[layer.id]].does == layer.does
    ]
    found = {i: (j, "path") for i, j in same}
    taken = {j for _, j in same}
    before = (-1, -1)
    for anchor in [*_rising(same), (len(first), len(second))]:
        left = [i for i in range(before[0] + 1, anchor[0]) if i not in found]
        right = [j for j in range(before[1] + 1, anchor[1]) if j not in taken]
        for i, j in _in_order([first[i] for i in left], [second[j] for j in right]):
            found[left[i]] = (right[j], "order")
        before = anchor
    return [Match(first[i].id, second[found[i][0]].id, found[i][1]) for i in sorted(found)]


def _rising(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest part of the pairs in which both numbers grow."""
    ends: list[int] = []  # the least last number of a rising row of each length
    rows: list[int] = []  # where that row ends
    before: list[int] = []
    for place, (_, j) in enumerate(pairs):
        length = bisect_left(ends, j)
        before.append(rows[length - 1] if length else -1)
        if length == len(ends):
            ends.append(j)
            rows.append(place)
        else:
            ends[length], rows[length] = j, place
    chosen = []
    place = rows[-1] if rows else -1
    while place >= 0:
        chosen.append(pairs[place])
        place = before[place]
    return chosen[::-1]


def _in_order(first: Sequence[Layer], second: Sequence[Layer]) -> list[tuple[int, int]]:
    """Return the pairs of two sequences that agree most, both in order."""
    start, ends = 0, min(len(first), len(second))
    while start < ends and first[start][1:] == second[start][1:]:
        start += 1
    end = 0
    while end < ends - start and first[-1 - end][1:] == second[-1 - end][1:]:
        end += 1
    pairs = [(i, i) for i in range(start)]
    rows, columns = first[start : len(first) - end], second[start : len(second) - end]
    if rows and columns and len(rows) * len(columns) <= _MOST_CELLS:
        pairs += [(start + i, start + j) for i, j in _best(_agreement(rows, columns))]
    return pairs + [(len(first) - i, len(second) - i) for i in range(end, 0, -1)]


def _agreement(rows: Sequence[Layer], columns: Sequence[Layer]) -> NDArray[np.float32]:
    """Return how well each layer fits each other one; 0 where they do different things."""

    def equal(of: str) -> Any:
        words: dict[object, int] = {}
        sides = [
            np.array([words.setdefault(_feature(layer, of), len(words)) for layer in side])
            for side in (rows, columns)
        ]
        return sides[0][:, None] == sides[1][None, :]

    scores = equal("does") * (4.0 + 2.0 * equal("shape") + equal("dims") + equal("name"))
    return np.asarray(scores, np.float32)


def _feature(layer: Layer, of: str) -> object:
    if of == "name":
        return layer.id.partition("@")[0].rpartition(".")[2]
    if of == "dims":
        return len(layer.shape)
    return layer.does if of == "does" else layer.shape


def _best(scores: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Return the pairs of rows and columns, rising in both, whose scores sum to most."""
    height, width = scores.shape
    sums = np.zeros(width + 1, np.float32)
    paired = np.zeros((height, width), np.bool_)
    above = np.zeros((height, width), np.bool_)  # the best without this row is as good
    for i in range(height):
        with_this = np.where(scores[i] > 0, sums[:-1] + scores[i], -1.0)
        best = np.maximum(sums[1:], with_this)
        row = np.concatenate(([np.float32(0)], np.maximum.accumulate(best)))
        above[i] = sums[1:] >= row[1:]
        paired[i] = (with_this >= row[1:]) & (with_this > sums[1:])
        sums = row
    pairs = []
    i, j = height - 1, width - 1
    while i >= 0 and j >= 0:
        if paired[i, j]:
            pairs.append((i, j))
            i, j = i - 1, j - 1
        elif above[i, j]:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]
