"""A recorded pass as a table: every module call with its output shape, parameters, operations and memory.

The rows are the graph's groups and leaves in order of execution; the totals come from the weights
themselves. Only shapes, types and counts are read: no tensor, no model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from nnviz_widget.engine.graph import Graph, Group, Node
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from nnviz_widget.engine.recording import Weight

__all__ = ["Summary", "SummaryRow", "summarise"]

_HEADINGS = ("Layer", "Type", "Output shape", "Parameters", "FLOPs", "Output memory")


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One call of a module, or one operation.

    Attributes
    ----------
    id : str
        Of the node or group in the graph.
    depth : int
        How deep it stands; 0 is the model itself.
    name : str
        The last part of its path, with the call where it is not the first.
    type : str
        Class name of the module; of an operation its name.
    output_shape : tuple of int or None
        Shape of the (first) tensor that it gave; None where it gave none.
    params : int
        Parameters in it that no earlier row had; weights that are used again count where they were first
        used.
    shared : str
        Id of the node that used some of its weights first, where there is one outside of it.
    flops : int
        Floating point operations in it, two for a multiply-add.
    bytes : int
        Memory of the outputs of all that ran in it, each output as a tensor of its own (also where it is a
        view or was written in place); what gave back what it was given counts nothing.
    """

    id: str
    depth: int
    name: str
    type: str
    output_shape: tuple[int, ...] | None
    params: int
    shared: str
    flops: int
    bytes: int


@dataclass(frozen=True)
class Summary:
    """A table of one pass; `print` it, or leave it as the last line of a cell.

    Attributes
    ----------
    model : str
        Class name of the model.
    rows : list of SummaryRow
        In order of execution, the model itself first.
    params, trainable_params, unused_params : int
        Parameters of the model, each counted once; those of them with ``requires_grad``; those that no
        part of this pass used.
    flops : int
        Of the whole pass, two for a multiply-add.
    input_bytes, activation_bytes, weight_bytes, buffer_bytes : int
        Memory of the tensors that the model was given, of the outputs of all that ran, of the parameters
        and of the buffers; tensors that stand in several places count once.
    """

    model: str
    rows: list[SummaryRow] = field(repr=False)
    params: int
    trainable_params: int
    unused_params: int
    flops: int
    input_bytes: int
    activation_bytes: int
    weight_bytes: int
    buffer_bytes: int

    def __str__(self) -> str:
        table = [_HEADINGS, *(_cells(row, "  " * row.depth) for row in self.rows)]
        widths = [max(len(line[at]) for line in table) for at in range(len(_HEADINGS))]
        lines = [_aligned(line, widths) for line in table]
        rule = "─" * max(map(len, lines))
        totals = [f"{label}: {value}" for label, value in self._totals()]
        return "\n".join([lines[0], rule, *lines[1:], rule, *totals])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """HTML for a notebook, in the colours of its theme; every name is escaped."""
        left = 'style="text-align: left"'
        head = "".join(f"<th {left if at < 3 else ''}>{name}</th>" for at, name in enumerate(_HEADINGS))
        body = "".join(f"<tr>{_html_cells(row)}</tr>" for row in self.rows)
        totals = "<br>".join(f"{label}: <b>{escape(value)}</b>" for label, value in self._totals())
        return (
            f'<div class="nnviz-summary" style="overflow-x: auto"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table><p>{totals}</p></div>"
        )

    def _totals(self) -> Iterator[tuple[str, str]]:
        frozen = self.params - self.trainable_params
        yield (
            "Parameters",
            f"{self.params:,} ({self.trainable_params:,} trainable, {frozen:,} not trainable)",
        )
        if self.unused_params:
            yield "Parameters that this pass did not use", f"{self.unused_params:,}"
        yield "FLOPs", f"{self.flops:,}"
        for label, size in (
            ("Inputs", self.input_bytes),
            ("Activations", self.activation_bytes),
            ("Weights", self.weight_bytes),
            ("Buffers", self.buffer_bytes),
        ):
            yield label, f"{size:,} bytes" + (f" ({_memory(size)})" if size >= 1000 else "")


def summarise(
    graph: Graph,
    shapes: dict[str, tuple[int, ...]],
    weights: Sequence[Weight],
    input_bytes: int,
    *,
    depth: int | None = 3,
    operations: bool = False,
) -> Summary:
    """Make the table; `Trace.summary` calls it.

    Parameters
    ----------
    graph : Graph
        Of the pass.
    shapes : dict
        Ids of groups -> shape of what they gave.
    weights : sequence of Weight
        Parameters and buffers of the model, each once.
    input_bytes : int
        Memory of what the model was given.
    depth : int, optional
        Deepest rows to list; None lists all. What is deeper counts in the row above it.
    operations : bool
        Whether operations outside of leaf modules (``add``, ``matmul``) have rows of their own.

    Raises
    ------
    InputError
        `depth` is no whole number from 0.
    """
    if depth is not None and (isinstance(depth, bool) or not isinstance(depth, int) or depth < 0):
        raise InputError(f"depth is a whole number from 0, or None for all; not {depth!r}.")
    parameters = [weight for weight in weights if weight.kind == "parameter"]
    total = sum(weight.numel for weight in parameters)
    rows = list(_Rows(graph, shapes, depth, operations))
    return Summary(
        model=graph.model,
        rows=rows,
        params=total,
        trainable_params=sum(weight.numel for weight in parameters if weight.trainable),
        unused_params=total - sum(node.params for node in graph.nodes),
        flops=sum(node.flops for node in graph.nodes),
        input_bytes=input_bytes,
        activation_bytes=sum(map(_own_bytes, graph.nodes)),
        weight_bytes=sum(weight.nbytes for weight in parameters),
        buffer_bytes=sum(weight.nbytes for weight in weights if weight.kind == "buffer"),
    )


class _Rows:
    """Walks a graph from its root."""

    def __init__(
        self, graph: Graph, shapes: dict[str, tuple[int, ...]], depth: int | None, operations: bool
    ) -> None:
        self._items = {item.id: item for item in graph}
        self._root = graph.groups[0]
        self._shapes = shapes
        self._depth = depth
        self._operations = operations

    def __iter__(self) -> Iterator[SummaryRow]:
        yield from self._walk(self._root, 0)

    def _walk(self, item: Node | Group, depth: int) -> Iterator[SummaryRow]:
        if isinstance(item, Node):
            if item.kind == "module" or (self._operations and item.kind in {"op", "constant"}):
                yield self._row(item, [item], depth)
            return
        yield self._row(item, list(self._inside(item)), depth)
        if self._depth is None or depth < self._depth:
            for child in item.children:
                yield from self._walk(self._items[child], depth + 1)

    def _inside(self, group: Group) -> Iterator[Node]:
        for name in group.children:
            child = self._items[name]
            if isinstance(child, Node):
                yield child
            else:
                yield from self._inside(child)

    def _row(self, item: Node | Group, inside: list[Node], depth: int) -> SummaryRow:
        own = {node.id for node in inside}
        if isinstance(item, Node):
            shape = item.output_shapes[0] if item.output_shapes else None
            kind = item.type or item.op
        else:
            shape, kind = self._shapes.get(item.id), item.type
        return SummaryRow(
            id=item.id,
            depth=depth,
            name=_name(item, self._items.get(item.parent)),
            type=kind,
            output_shape=shape,
            params=sum(node.params for node in inside),
            shared=next((node.shared for node in inside if node.shared and node.shared not in own), ""),
            flops=sum(node.flops for node in inside),
            bytes=sum(map(_own_bytes, inside)),
        )


def _own_bytes(node: Node) -> int:
    """Memory of the outputs of what computed something."""
    return node.bytes if node.kind in {"module", "op"} and node.status != "identity" else 0


def _name(item: Node | Group, above: Node | Group | None) -> str:
    if isinstance(item, Node) and item.kind != "module":
        return item.id.rpartition("/")[2].removeprefix("const:")
    if item.id == "":
        return item.type
    path = item.path
    if above is not None and above.path and path.startswith(f"{above.path}."):
        path = path[len(above.path) + 1 :]
    return f"{path}@{item.call}" if item.call else path


def _cells(row: SummaryRow, indent: str) -> tuple[str, ...]:
    counted = f"{row.params:,}" if row.params else ""
    shared = f"(shared with {row.shared})" if row.shared else ""
    return (
        indent + row.name,
        row.type,
        "×".join(map(str, row.output_shape)) if row.output_shape else "",
        f"{counted} {shared}".strip(),
        f"{row.flops:,}" if row.flops else "",
        _memory(row.bytes) if row.bytes else "",
    )


def _html_cells(row: SummaryRow) -> str:
    name, *others = _cells(row, "")
    cells = [f'<td style="text-align: left; padding-left: {0.5 + 1.2 * row.depth:.1f}em">{escape(name)}</td>']
    for at, text in enumerate(others):
        align = "left" if at < 2 else "right"
        cells.append(f'<td style="text-align: {align}; white-space: nowrap">{escape(text)}</td>')
    return "".join(cells)


def _aligned(cells: Iterable[str], widths: Sequence[int]) -> str:
    """Names to the left, numbers to the right."""
    padded: list[str] = [
        text.ljust(width) if at < 3 else text.rjust(width)
        for at, (text, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _memory(size: float) -> str:
    """Write bytes in decimal units, to three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.2f} TB"
