"""The graph as compact JSON: what the page is sent, and what is saved to a file.

Rows of a graph repeat themselves: the same keys in every one, the same shapes, source lines, types and
names. So each table (nodes, edges, groups) is written column by column, each text and each shape once in a
list that the columns point into, and a column whose values are all equal as one value. Columns stand under
the kind of what they hold, so that a reader needs no list of fields::

    {"format": "nnviz-graph", "version": 1, "model": "Net",
     "texts": ["conv", "net.py:12", ...], "shapes": [[1, 3, 8, 8], ...],
     "nodes": {"length": 2, "text": {"id": [0, 4]}, "number": {"call": [0]}, "shapes": {...}}, ...}

Nothing is lost: `unpack` gives back an equal graph. The page's reader is ``js/src/state/packed.ts``.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields
from itertools import count
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from nnviz_widget.engine.graph import Edge, Graph, Group, Node
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nnviz_widget.engine.graph import Shape

__all__ = ["FORMAT", "VERSION", "pack", "unpack"]

FORMAT = "nnviz-graph"
VERSION = 1

#: What a field holds, by its annotation.
_KINDS = {"str": "text", "list[str]": "texts", "Shape": "shape", "list[Shape]": "shapes", "int": "number"}

Row = TypeVar("Row", Node, Edge, Group)


def pack(graph: Graph | Mapping[str, Any]) -> dict[str, Any]:
    """Return the graph as compact JSON-able data.

    Parameters
    ----------
    graph : Graph or mapping
        A graph, or all that its `to_dict` gives; only read.

    Returns
    -------
    dict
        About a fifth of what `Graph.to_dict` gives.
    """
    # Values, each once, in the order in which they were first met.
    texts: defaultdict[str, int] = defaultdict(count().__next__)
    shapes: defaultdict[Shape, int] = defaultdict(count().__next__)
    write: dict[str, Callable[[Any], Any]] = {
        "number": int,
        "text": texts.__getitem__,
        "texts": lambda values: [texts[value] for value in values],
        "shape": lambda value: shapes[tuple(value)],
        "shapes": lambda values: [shapes[tuple(value)] for value in values],
    }
    get = attrgetter if isinstance(graph, Graph) else itemgetter
    part: dict[str, Any] = {name: get(name)(graph) for name in ("model", "kind", "nodes", "edges", "groups")}
    tables = {
        name: _columns(kind, part[name], get, write)
        for name, kind in (("nodes", Node), ("edges", Edge), ("groups", Group))
    }
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": part["model"],
        **({"kind": part["kind"]} if part["kind"] != "run" else {}),
        "texts": list(texts),
        "shapes": [list(shape) for shape in shapes],
        **tables,
    }


def unpack(data: Mapping[str, Any]) -> Graph:
    """Read back what `pack` wrote.

    Raises
    ------
    InputError
        It is no packed graph, or one of a later version.
    """
    if data.get("format") != FORMAT:
        raise InputError(
            "This is not a saved graph.", hint="Graph.load reads what trace.graph.save(path) wrote."
        )
    if data["version"] != VERSION:
        raise InputError(
            f"This graph was saved in version {data['version']} of the format; version {VERSION} is known.",
            hint="Update nnviz-widget to read it.",
        )
    texts, shapes = data["texts"], [tuple(shape) for shape in data["shapes"]]
    read: dict[str, Callable[[Any], Any]] = {
        "number": int,
        "text": lambda place: texts[place],
        "texts": lambda places: [texts[place] for place in places],
        "shape": lambda place: shapes[place],
        "shapes": lambda places: [shapes[place] for place in places],
    }
    return Graph(
        model=data["model"],
        kind=data.get("kind", "run"),
        nodes=_rows(Node, data["nodes"], read),
        edges=_rows(Edge, data["edges"], read),
        groups=_rows(Group, data["groups"], read),
    )


def _columns(
    kind: type[Any],
    rows: Sequence[Any],
    get: Callable[[str], Callable[[Any], Any]],
    write: Mapping[str, Callable[[Any], Any]],
) -> dict[str, Any]:
    table: dict[str, Any] = {"length": len(rows)}
    for field in fields(kind):
        holds = _KINDS[str(field.type)]
        column = [*map(write[holds], map(get(field.name), rows))]
        if column:
            alike = column.count(column[0]) == len(column)
            table.setdefault(holds, {})[field.name] = column[:1] if alike else column
    return table


def _rows(kind: type[Row], table: Mapping[str, Any], read: Mapping[str, Callable[[Any], Any]]) -> list[Row]:
    length = table["length"]
    columns: dict[str, list[Any]] = {}
    for holds in table.keys() & read.keys():
        for name, written in table[holds].items():
            column = written if len(written) == length else written * length
            columns[name] = [read[holds](value) for value in column]
    return [kind(**{name: column[at] for name, column in columns.items()}) for at in range(length)]
