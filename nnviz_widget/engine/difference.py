"""What differs between two runs of one model: the path that each took, and the shapes along it.

Plain functions of two graphs, without torch. Ids alone do not tell: where a branch is left out, the third
addition of a module becomes its second. So nodes are matched by what they are and by the user's line that
ran them: from the front and from the back in order, and what is left in between line by line.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nnviz_widget.engine.graph import Graph, Node, Shape

__all__ = ["Difference", "Parting", "difference"]


class Parting(NamedTuple):
    """A decision of Python's on data, after which two runs went different ways.

    Attributes
    ----------
    node : str
        Id of the decision in the later graph.
    value, before : str
        What Python read there, and in the earlier run: ``True``, ``3``; empty where that is not known.
    source : str
        ``file.py:12``, the line that decided.
    code : str
        That line, as it is written: ``if x.sum() > 0:``.
    """

    node: str
    value: str
    before: str
    source: str
    code: str

    def __str__(self) -> str:
        code = re.sub(r":\s*(#.*)?$", "", self.code)
        if self.value in {"True", "False"}:
            said = f"`{code}` was {self.value}" if code else f"a condition was {self.value}"
        elif self.value:
            said = f"`{code or 'item()'}` read {self.value}, before {self.before}"
        else:
            said = f"`{code}`" if code else "the data left torch"
        return f"{self.source} ({said})" if self.source else said


@dataclass(frozen=True)
class Difference:
    """What changed from one graph to a later one of the same model.

    Attributes
    ----------
    added : tuple of str
        Ids of the nodes that only the later graph has, in order of execution.
    removed : tuple of str
        Ids of the nodes that only the earlier one has. A later node may have inherited such an id.
    rewired : tuple of str
        Ids of nodes that both have, and that took their inputs from elsewhere.
    shapes : dict of str to (list of shapes, list of shapes)
        Output shapes before and now of each node that both have and whose shapes differ.
    partings : tuple of Parting
        The decisions after which the two runs went different ways.
    operations : (int, int)
        How many of the nodes that were added and removed are operations: neither inputs, outputs nor
        constants, nor decisions.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    rewired: tuple[str, ...] = ()
    shapes: dict[str, tuple[list[Shape], list[Shape]]] = field(default_factory=dict)
    partings: tuple[Parting, ...] = ()
    operations: tuple[int, int] = (0, 0)

    @property
    def same_structure(self) -> bool:
        """Whether both have the same nodes and edges; shapes and values may differ."""
        return not (self.added or self.removed or self.rewired)

    def __str__(self) -> str:
        shapes = f"{len(self.shapes)} shape{'s' if len(self.shapes) > 1 else ''} changed"
        if self.same_structure:
            return f"the same path, {shapes}" if self.shapes else "the same path"
        where = ", ".join(str(parting) for parting in self.partings[:2])
        if not self.partings and any(node.startswith("input") for node in self.shapes):
            where = "an input of another shape"
        new, gone = self.operations
        counts = [f"{new} operation{'' if new == 1 else 's'} new"] if new else []
        if gone:
            counts.append(f"{gone} gone" if new else f"{gone} operation{'' if gone == 1 else 's'} gone")
        if not counts:
            counts = ["the same operations, wired in another way"]
        return f"another path{f' at {where}' if where else ''}: {', '.join(counts)}"


def difference(now: Graph, before: Graph) -> Difference:
    """Compare two graphs; `Graph.diff` is how users call it."""
    partner = _match(before, now)  # earlier id -> later id
    known = set(partner.values())
    olds = {node.id: node for node in before.nodes}
    news = {node.id: node for node in now.nodes}
    added = [node for node in now.nodes if node.id not in known]
    removed = [node for node in before.nodes if node.id not in partner]
    rewired = _rewired(before, now, partner)
    shapes = {
        new: (list(olds[old].output_shapes), list(news[new].output_shapes))
        for old, new in partner.items()
        if olds[old].output_shapes != news[new].output_shapes
    }
    differs = bool(added or removed or rewired)
    return Difference(
        added=tuple(node.id for node in added),
        removed=tuple(node.id for node in removed),
        rewired=tuple(rewired),
        shapes=shapes,
        partings=tuple(_partings(before, now, partner, set(rewired))) if differs else (),
        operations=(_count(added), _count(removed)),
    )


def _count(nodes: Iterable[Node]) -> int:
    return sum(node.kind in {"module", "op"} and node.op != "decision" for node in nodes)


# -- which node is which ------------------------------------------------------------------------------------


def _match(before: Graph, now: Graph) -> dict[str, str]:
    """Return which later node each earlier one became."""
    pairs: dict[str, str] = {}
    named = {node.id for node in now.nodes if _is_named(node)}
    olds, news = ([node for node in graph.nodes if not _is_named(node)] for graph in (before, now))
    for node in before.nodes:
        if _is_named(node) and node.id in named:
            pairs[node.id] = node.id
    start, ends = 0, min(len(olds), len(news))
    while start < ends and _likeness(olds[start]) == _likeness(news[start]):
        start += 1
    end = 0
    while end < ends - start and _likeness(olds[-1 - end]) == _likeness(news[-1 - end]):
        end += 1
    between: dict[tuple[str, ...], deque[Node]] = defaultdict(deque)
    for node in news[start : len(news) - end]:
        between[_likeness(node)].append(node)
    for place, node in enumerate(olds):
        if place < start:
            pairs[node.id] = news[place].id
        elif place >= len(olds) - end:
            pairs[node.id] = news[place - len(olds)].id
        elif waiting := between[_likeness(node)]:
            pairs[node.id] = waiting.popleft().id
    return pairs


def _is_named(node: Node) -> bool:
    """Whether its id is a name that does not depend on how often something ran."""
    stored = node.kind == "constant" and node.op in {"parameter", "buffer"}
    return stored or node.kind in {"input", "output"}


def _likeness(node: Node) -> tuple[str, ...]:
    """Equal for the same step of the same code; settings and shapes may come from the data."""
    return node.kind, node.op, node.type, node.path, node.source


def _rewired(before: Graph, now: Graph, partner: dict[str, str]) -> list[str]:
    """Return the nodes that both have, whose inputs both have too, and are others."""
    taken: dict[str, list[str]] = defaultdict(list)
    for edge in now.edges:
        taken[edge.target].append(edge.source)
    took: dict[str, list[str | None]] = defaultdict(list)
    for edge in before.edges:
        if edge.target in partner:
            took[partner[edge.target]].append(partner.get(edge.source))
    known = set(partner.values())
    return [
        node.id
        for node in now.nodes
        if node.id in known
        and None not in took[node.id]
        and known.issuperset(taken[node.id])
        and sorted(map(str, took[node.id])) != sorted(taken[node.id])
    ]


# -- where they parted --------------------------------------------------------------------------------------


def _partings(before: Graph, now: Graph, partner: dict[str, str], rewired: set[str]) -> Iterable[Parting]:
    """Find the decision behind each difference: one with another value, the likeliest since the last one.

    A condition decides a path, a whole number counts turns; any other number is most often just computed
    with.
    """
    olds = {node.id: node for node in before.nodes}
    became = {new: olds[old] for old, new in partner.items()}
    lost = _lost_after(before, partner)
    waiting: list[Node] = []
    for node in now.nodes:
        old = became.get(node.id)
        here = old is None or node.id in rewired
        if here and waiting:
            yield _parting(waiting, became)
            waiting = []
        if old is not None and _decided(node, old):
            waiting.append(node)
        if old is not None and node.id in lost and waiting:
            yield _parting(waiting, became)
            waiting = []


def _parting(waiting: list[Node], became: dict[str, Node]) -> Parting:
    rank = [(_weight(node), place) for place, node in enumerate(waiting)]
    node = waiting[max(rank)[1]]
    return Parting(node.id, node.value, became[node.id].value, node.source, node.code)


def _decided(node: Node, old: Node) -> bool:
    return node.op == "numpy" or (node.op == "decision" and node.value != old.value)


def _weight(node: Node) -> int:
    if node.value in {"True", "False"}:
        return 3
    return 2 if re.fullmatch(r"-?\d+", node.value) else 1 if node.value else 0


def _lost_after(before: Graph, partner: dict[str, str]) -> set[str]:
    """Return the later ids of those nodes after which, in the earlier run, something came that is gone."""
    last, lost = "", set()
    for node in before.nodes:
        if node.id in partner:
            last = partner[node.id]
        else:
            lost.add(last)
    return lost
