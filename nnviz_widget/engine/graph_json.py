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

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from nnviz_widget.engine.graph import Edge, Graph, Group, Node
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["FORMAT", "VERSION", "pack", "unpack"]

FORMAT = "nnviz-graph"
VERSION = 1

#: What a field holds, by its annotation.
_KINDS = {"str": "text", "list[str]": "texts", "Shape": "shape", "list[Shape]": "shapes", "int": "number"}

Row = TypeVar("Row", Node, Edge, Group)


def pack(graph: Graph) -> dict[str, Any]:
    """Return the graph as compact JSON-able data.

    Parameters
    ----------
    graph : Graph
        It is only read.

    Returns
    -------
    dict
        About a fifth of what `Graph.to_dict` gives.
    """
    texts, shapes = _Table(), _Table()
    write: dict[str, Callable[[Any], Any]] = {
        "number": int,
        "text": texts.place,
        "texts": lambda values: [texts.place(value) for value in values],
        "shape": shapes.place,
        "shapes": lambda values: [shapes.place(value) for value in values],
    }
    tables = {
        name: _columns(kind, rows, write)
        for name, kind, rows in (
            ("nodes", Node, graph.nodes),
            ("edges", Edge, graph.edges),
            ("groups", Group, graph.groups),
        )
    }
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": graph.model,
        **({"kind": graph.kind} if graph.kind != "run" else {}),
        "texts": texts.values,
        "shapes": [list(shape) for shape in shapes.values],
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


class _Table:
    """Values, each once, in the order in which they were first met."""

    def __init__(self) -> None:
        self._places: dict[Any, int] = {}

    def place(self, value: Any) -> int:
        return self._places.setdefault(value, len(self._places))

    @property
    def values(self) -> list[Any]:
        return list(self._places)


def _columns(
    kind: type[Any], rows: Sequence[Any], write: Mapping[str, Callable[[Any], Any]]
) -> dict[str, Any]:
    table: dict[str, Any] = {"length": len(rows)}
    for field in fields(kind):
        holds = _KINDS[str(field.type)]
        column = [write[holds](getattr(row, field.name)) for row in rows]
        if column:
            alike = all(value == column[0] for value in column)
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
