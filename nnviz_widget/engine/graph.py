"""The picture of one run as plain data: nodes, edges, groups.

Here live the dataclasses that the recorder fills and the page draws, their JSON form, and how identical
siblings are found. No torch, no tensor, no layout: a graph can be pickled, sent, compared and read back
without any of them.

Ids are stable from run to run, so that a selection survives a new input: a module call is its path
(``layer1.0.conv1``, the second call ``layer1.0.conv1@1``), an operation is ``<group id>/<name>`` (the
second one ``<group id>/<name>#1``), then ``input``, ``output`` and ``const:...``. The root group's id is
the empty string.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field, fields
from itertools import count, islice
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

    from nnviz_widget.engine.difference import Difference

__all__ = ["Edge", "Graph", "Group", "Node", "Shape", "fold_siblings"]

Shape: TypeAlias = tuple[int, ...]


@dataclass(slots=True)
class Node:
    """One call of a leaf module, one operation, one input, output or constant.

    Attributes
    ----------
    id : str
        Unique in the graph and stable between runs of the same structure.
    path : str
        Path of the module (of the parameter, for a constant that is one); for an operation the path of the
        module whose forward ran it; ``""`` is the root.
    call : int
        Which call of that module, from 0.
    op : str
        What it does, in the user's vocabulary: ``conv2d``, ``relu``, ``cat``, ``add``.
    kind : str
        ``input``, ``module``, ``op``, ``constant`` or ``output``.
    type : str
        Class name of the module (``Conv2d``), empty for everything else.
    detail : str
        A short human hint: ``7×7 /2``, ``64→128``, ``p=0.5``.
    input_shapes, output_shapes : list of tuple of int
        Shapes of the tensors that came in (one for each edge) and went out.
    dtype : str
        Type of the first output: ``float32``.
    params : int
        Its own parameters; of weights that are used several times only the first use counts them.
    flops : int
        Floating point operations of this call, two for a multiply-add.
    bytes : int
        Memory of its outputs.
    source : str
        ``file.py:12``, the user's line that ran it.
    status : str
        ``ok``, ``identity`` (gave back what it was given), ``failed`` or ``unused`` (nothing came of it).
    parent : str
        Id of the group that it stands in.
    shared : str
        Id of the node that used the same weights first, where there is one.
    value : str
        Of a decision, what Python read there: ``True``, ``3``, ``0.731``; empty where that is not known.
    code : str
        Of a decision, the user's line that read it: ``if x.sum() > 0:``.
    """

    id: str
    path: str = ""
    call: int = 0
    op: str = ""
    kind: str = "op"
    type: str = ""
    detail: str = ""
    input_shapes: list[Shape] = field(default_factory=list)
    output_shapes: list[Shape] = field(default_factory=list)
    dtype: str = ""
    params: int = 0
    flops: int = 0
    bytes: int = 0
    source: str = ""
    status: str = "ok"
    parent: str = ""
    shared: str = ""
    value: str = ""
    code: str = ""


@dataclass(slots=True)
class Edge:
    """A tensor of this shape that went from one node to another."""

    source: str
    target: str
    shape: Shape = ()


@dataclass(slots=True)
class Group:
    """One call of a module that called others (or ran several operations of its own).

    Attributes
    ----------
    id, path, call, type, parent
        As for a node; the root group's id and path are empty.
    children : list of str
        Ids of the nodes and groups in it, in order of execution.
    fold : int
        How many structurally identical siblings follow each other here, this one included; 1 is none.
    params : int
        Parameters of the module, everything below included, each counted once.
    flops : int
        Sum over the nodes in it.
    source : str
        ``file.py:12``, the user's line that called it.
    status : str
        ``ok`` or ``failed`` (the run ended in here).
    """

    id: str
    path: str = ""
    call: int = 0
    type: str = ""
    children: list[str] = field(default_factory=list)
    fold: int = 1
    parent: str = ""
    params: int = 0
    flops: int = 0
    source: str = ""
    status: str = "ok"


@dataclass(slots=True)
class Graph:
    """What ran, and what went where.

    Attributes
    ----------
    model : str
        Class name of the model.
    kind : str
        ``run``, or what it is instead: ``shapes`` (a pass over shapes alone, without values) or ``tree`` (the
        modules and their parameters, without shapes, operations and edges).
    nodes : list of Node
        In order of execution; every edge goes from an earlier to a later node.
    edges : list of Edge
        Between nodes; each tensor at most once between two nodes.
    groups : list of Group
        The root first, each before those inside it.
    """

    model: str = ""
    nodes: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    kind: str = "run"

    def __getitem__(self, name: str) -> Node | Group:
        """Return the node or group of this id; ``KeyError`` where there is none."""
        for item in self:
            if item.id == name:
                return item
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(item.id == name for item in self)

    def __iter__(self) -> Iterator[Node | Group]:
        yield from self.nodes
        yield from self.groups

    def ids(self) -> list[str]:
        """Ids of all nodes, then of all groups."""
        return [item.id for item in self]

    @property
    def decisions(self) -> list[Node]:
        """The nodes at which Python read a value of the data: for another input the graph may be another."""
        return [node for node in self.nodes if node.op == "decision"]

    def diff(self, before: Graph) -> Difference:
        """Compare with the graph of an earlier run of the same model.

        Parameters
        ----------
        before : Graph
            Of another input, or of the same one with other weights.

        Returns
        -------
        Difference
            The nodes that are new, gone or wired in another way, the shapes that changed, and the decisions
            on data at which the two runs parted; ``str`` says it in a sentence.

        Examples
        --------
        >>> print(engine.trace(night).graph.diff(engine.trace(day).graph))  # doctest: +SKIP
        another path at net.py:12 (`if x.mean() > 0` was False): 3 operations new, 2 gone
        """
        from nnviz_widget.engine.difference import difference  # noqa: PLC0415 - it builds on this module

        return difference(self, before)

    def to_dict(self) -> dict[str, Any]:
        """Return the graph as JSON-able plain data (tuples become lists)."""
        return {
            "model": self.model,
            "kind": self.kind,
            "nodes": _plain(Node, self.nodes),
            "edges": _plain(Edge, self.edges),
            "groups": _plain(Group, self.groups),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Graph:
        """Read back what `to_dict` wrote; unknown keys are an error, missing ones take their defaults."""
        return cls(
            model=data.get("model", ""),
            kind=data.get("kind", "run"),
            nodes=[
                Node(
                    **{
                        **node,
                        "input_shapes": _shapes(node.get("input_shapes", ())),
                        "output_shapes": _shapes(node.get("output_shapes", ())),
                    }
                )
                for node in data.get("nodes", ())
            ],
            edges=[Edge(**{**edge, "shape": tuple(edge.get("shape", ()))}) for edge in data.get("edges", ())],
            groups=[
                Group(**{**group, "children": list(group.get("children", ()))})
                for group in data.get("groups", ())
            ],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph to a JSON file that `Graph.load` reads; an existing file is replaced.

        The file holds the compact form that ``nnviz_widget.engine.graph_json`` describes, with its version.
        """
        from nnviz_widget.engine.graph_json import pack  # noqa: PLC0415 - it builds on this module

        text = json.dumps(pack(self), ensure_ascii=False, separators=(",", ":"))
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Graph:
        """Read a graph that `save` wrote; neither torch nor the model is needed.

        Raises
        ------
        InputError
            The file holds something else, or was written by a later version.
        OSError
            It cannot be read.
        """
        from nnviz_widget.engine.graph_json import unpack  # noqa: PLC0415 - it builds on this module

        try:
            return unpack(json.loads(Path(path).read_text(encoding="utf-8")))
        except InputError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"{str(path)!r} holds no whole graph ({type(error).__name__}: {error}).",
                hint="Graph.load reads what trace.graph.save(path) wrote.",
            ) from error


#: The fields that are no plain texts and numbers: lists, and lists of shapes.
_FLAT = ("children", "shape")
_DEEP = ("input_shapes", "output_shapes")


def _plain(kind: type[Any], items: Sequence[Any]) -> list[dict[str, Any]]:
    names = [each.name for each in fields(kind)]
    flat, deep = [name for name in _FLAT if name in names], [name for name in _DEEP if name in names]
    read = attrgetter(*names)
    rows = [dict(zip(names, read(item), strict=True)) for item in items]
    for row in rows:
        for name in flat:
            row[name] = [*row[name]]
        for name in deep:
            row[name] = [[*shape] for shape in row[name]]
    return rows


def _shapes(shapes: Any) -> list[Shape]:
    return [tuple(shape) for shape in shapes]


def fold_siblings(graph: Graph, *, in_order: bool = False) -> None:
    """Set `Group.fold`: siblings that follow each other, feed each other and are built alike stand for one.

    Alike means: the same classes, operations, hints, parameters and output shapes inside, wired the same
    way. So the blocks of a transformer fold, a block with a downsampling branch does not fold with those
    without, and parallel branches (which do not feed each other) never fold. Where no edges are known
    (`in_order`), to follow each other is enough.
    """
    nodes = {node.id: node for node in graph.nodes}
    groups = {group.id: group for group in graph.groups}
    # The groups around each node, the outermost first. An edge connects one pair of siblings at most, there
    # where the ways from the root part.
    chains: dict[str, tuple[str, ...]] = {}

    def chain(name: str) -> tuple[str, ...]:
        if name not in chains:
            around = name in groups and name != ""
            chains[name] = (*chain(groups[name].parent), name) if around else ()
        return chains[name]

    above = {node.id: chain(node.parent) for node in graph.nodes}
    linked: set[tuple[str, str]] = set()
    for edge in graph.edges:
        one, other = above.get(edge.source, ()), above.get(edge.target, ())
        if one is not other:
            linked.update(islice(((a, b) for a, b in zip(one, other, strict=False) if a != b), 1))
    incoming: dict[str, list[str]] = {}
    for edge in graph.edges:
        incoming.setdefault(edge.target, []).append(edge.source)
    known: dict[str, tuple[list[Node], tuple[Any, ...]]] = {}
    wirings: dict[str, list[list[int]]] = {}
    numbers: defaultdict[tuple[Any, ...], int] = defaultdict(count().__next__)
    alikes = {node.id: numbers[_looks(node)] for node in graph.nodes}

    def inside(group: Group) -> tuple[list[Node], tuple[Any, ...]]:
        """Return the nodes in a group, and what each of them is."""
        found = known.get(group.id)
        if found is None:
            flat: list[Node] = []
            skeleton: list[Any] = [group.type]
            for child in group.children:
                below = groups.get(child)
                if below is None:
                    flat.append(nodes[child])
                    skeleton.append("")
                else:
                    flat += inside(below)[0]
                    skeleton.append((below.type, len(below.children)))
            found = known[group.id] = flat, (skeleton, [alikes[node.id] for node in flat])
        return found

    def wires(group: Group) -> list[list[int]]:
        """Return for each node in a group by its place where its tensors come from; -1 is outside."""
        if group.id not in wirings:
            flat = inside(group)[0]
            place = {node.id: index for index, node in enumerate(flat)}
            wirings[group.id] = [
                [place.get(source, -1) for source in incoming.get(node.id, ())] for node in flat
            ]
        return wirings[group.id]

    def alike(a: Group, b: Group) -> bool:
        return (in_order or (a.id, b.id) in linked) and inside(a)[1] == inside(b)[1] and wires(a) == wires(b)

    for group in graph.groups:
        run: list[Group] = []
        for child in [*group.children, ""]:
            follower = groups.get(child) if child else None
            if run and follower is not None and alike(run[-1], follower):
                run.append(follower)
                continue
            for member in run:
                member.fold = len(run)
            run = [follower] if follower is not None else []


def _looks(node: Node) -> tuple[Any, ...]:
    # What did nothing (dropout in eval) may differ in how often it would have done something.
    detail = node.detail if node.status != "identity" else ""
    shapes = tuple(node.output_shapes)
    return node.op, node.kind, node.type, detail, node.params, node.status, shapes
