"""One number for every node and group of a trace: what a drawing of it can be coloured by.

Counts come from the graph, values from the activations, times from ``timing``. Everything here is keyed by
id, in the order of the graph (`Graph.ids`), and None where there is nothing to tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnviz_widget.engine.graph import Group, Node
from nnviz_widget.engine.statistics import dead_fraction, mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from nnviz_widget.engine.graph import Graph
    from nnviz_widget.engine.trace import Trace

    Measured = dict[str, float | None]

__all__ = ["MEASURES", "OF_THE_GRAPH", "count_up", "describe"]

#: Counts that the graph has; a group's is the sum over what is in it.
OF_THE_GRAPH = ("params", "flops", "bytes")
#: Everything that can be measured.
MEASURES = (*OF_THE_GRAPH, "time", "mean", "dead")


def count_up(graph: Graph, what: str) -> Measured:
    """Return the parameters, FLOPs or bytes of every node, and of every group the sum over its nodes.

    Parameters
    ----------
    graph : Graph
    what : str
        One of `OF_THE_GRAPH`. Weights that are used again count where they were first used; bytes are those
        of the outputs of what computed something.
    """
    found: dict[str, float | None] = {group.id: 0 for group in graph.groups}
    parents = {group.id: group.parent for group in graph.groups}
    for node in graph.nodes:
        number = _own_bytes(node) if what == "bytes" else getattr(node, what)
        found[node.id] = number
        group = node.parent
        while True:
            found[group] = (found[group] or 0) + number
            if group == "":
                break
            group = parents[group]
    return {name: found[name] for name in graph.ids()}


def describe(
    trace: Trace,
    what: str,
    *,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Return the mean activation, or the fraction of dead channels, of every layer, operation and group.

    Parameters
    ----------
    trace : Trace
        With values. A group's activation is its module's output.
    what : str
        ``mean`` (of the finite values) or ``dead`` (see `nnviz_widget.engine.statistics.dead_fraction`).
    check : callable
        Called between activations; raises when the numbers are no longer wanted.
    progress : callable, optional
        Called with how many activations were read, and of how many.
    """
    graph = trace.graph
    wanted = [item.id for item in graph if isinstance(item, Group) or item.kind in {"module", "op"}]
    found: Measured = dict.fromkeys(graph.ids())
    for done, (name, tensor) in enumerate(trace.activations(wanted)):
        check()
        if progress is not None:
            progress(done, len(wanted))
        if tensor is not None:
            found[name] = _number(trace, name, tensor, what)
    return found


def _number(trace: Trace, name: str, tensor: Tensor, what: str) -> float | None:
    return mean(tensor) if what == "mean" else dead_fraction(tensor, trace.channel_axis(name))


def _own_bytes(node: Node) -> int:
    return node.bytes if node.kind in {"module", "op"} and node.status != "identity" else 0
