"""A flat graph of modules, folded back into the parts that its names tell of.

A file of ONNX is one long list of operators; their names are paths such as ``layer1/0/conv1``. What stands
together in the list under one path becomes a module of that path here, called with what it needs and
returning what others need. Nothing is reordered, so that the same is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import fx, nn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["nested"]


@dataclass(frozen=True)
class _Value:
    """What an earlier step gave, by name."""

    name: str


@dataclass(frozen=True)
class _Step:
    """One call: of the part named `target` where that is text, else of a function."""

    gives: tuple[str, ...]
    target: Any
    args: Any
    kwargs: Any


class _Scope(nn.Module):
    """Its steps, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[_Step] = []
        self.takes: tuple[str, ...] = ()
        self.returns: Any = None

    def forward(self, *values: Any) -> Any:
        known = dict(zip(self.takes, values, strict=True))
        for step in self.steps:
            call = self.get_submodule(step.target) if isinstance(step.target, str) else step.target
            found = call(*_filled(step.args, known), **_filled(step.kwargs, known))
            known.update(zip(step.gives, found if len(step.gives) > 1 else (found,), strict=True))
        return _filled(self.returns, known)


def _filled(value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, _Value):
        return known[value.name]
    if isinstance(value, (tuple, list)):
        return type(value)(_filled(part, known) for part in value)
    if isinstance(value, dict):
        return {key: _filled(part, known) for key, part in value.items()}
    return value


class _Read(nn.Module):
    """Gives a tensor that the file stores beside its operators."""

    def __init__(self, tensor: Any) -> None:
        super().__init__()
        self.register_buffer("value", tensor)

    def forward(self) -> Any:
        return self.value


def nested(flat: fx.GraphModule, name: str) -> nn.Module:
    """Return a module that computes the same, with a part for each path in the names of the parts.

    Parameters
    ----------
    flat : torch.fx.GraphModule
        Its parts are named by paths with slashes. They are taken over, not copied.
    name : str
        Of the class of what is returned.
    """
    nodes = [
        node
        for node in flat.graph.nodes
        # Constants that the conversion wrote into operators are left over, without a user.
        if node.op not in {"placeholder", "output"} and (node.users or node.all_input_nodes)
    ]
    # What is only read comes first, so that it parts nothing that stands together.
    nodes.sort(key=lambda node: node.op != "get_attr")
    paths: dict[fx.Node, tuple[str, ...]] = {}
    for node in nodes:
        if node.op == "call_module":
            paths[node] = tuple(str(node.target).split("/"))
        else:
            # One of several results stands with the operator that gave it.
            giver = next((part for part in node.all_input_nodes if part in paths), None)
            paths[node] = (*paths[giver][:-1], node.name) if giver is not None else (node.name,)
    for node in reversed(nodes):
        # A constant has no place of its own: it stands with whoever uses it first.
        user = next((part for part in node.users if part in paths), None)
        if node.op == "call_module" and not node.all_input_nodes and user is not None:
            paths[node] = (*paths[user][:-1], paths[node][-1])
    root: _Scope = type(name, (_Scope,), {})()
    _fill(root, flat, nodes, paths, 0)
    root.takes = tuple(node.name for node in flat.graph.nodes if node.op == "placeholder")
    output = next(node for node in flat.graph.nodes if node.op == "output")
    root.returns = _named(output.args[0])
    return root.eval()


def _fill(
    scope: _Scope,
    flat: fx.GraphModule,
    nodes: Sequence[fx.Node],
    paths: Mapping[fx.Node, tuple[str, ...]],
    depth: int,
) -> None:
    """Give a scope its steps: single operators, and scopes for what stands together one level deeper."""
    start = 0
    while start < len(nodes):
        head = paths[nodes[start]][: depth + 1]
        end = start
        while (
            end < len(nodes) and len(paths[nodes[end]]) > depth + 1 and paths[nodes[end]][: depth + 1] == head
        ):
            end += 1
        if end - start > 1:
            _add_scope(scope, flat, nodes[start:end], paths, depth)
        else:
            end = start + 1
            _add_single(scope, flat, nodes[start], paths[nodes[start]][depth:])
        start = end


def _add_scope(
    scope: _Scope,
    flat: fx.GraphModule,
    inside: Sequence[fx.Node],
    paths: Mapping[fx.Node, tuple[str, ...]],
    depth: int,
) -> None:
    within = set(inside)
    needed = dict.fromkeys(part for node in inside for part in node.all_input_nodes if part not in within)
    given = tuple(node.name for node in inside if any(user not in within for user in node.users))
    inner = _Scope()
    inner.takes = tuple(node.name for node in needed)
    inner.returns = _Value(given[0]) if len(given) == 1 else tuple(map(_Value, given))
    _fill(inner, flat, inside, paths, depth + 1)
    label = _fresh(paths[inside[0]][depth], scope)
    scope.add_module(label, inner)
    scope.steps.append(_Step(given, label, tuple(map(_Value, inner.takes)), {}))


def _add_single(scope: _Scope, flat: fx.GraphModule, node: fx.Node, path: tuple[str, ...]) -> None:
    target: Any = node.target
    if node.op in {"call_module", "get_attr"}:
        target = _fresh("_".join(path), scope)
        if node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            part: nn.Module = _Read(getattr(flat.get_submodule(owner), name))
        else:
            part = flat.get_submodule(str(node.target))
        scope.add_module(target, part)
    scope.steps.append(_Step((node.name,), target, _named(node.args), _named(node.kwargs)))


def _named(value: Any) -> Any:
    """Replace the nodes of a graph by their names, at any depth."""
    if isinstance(value, fx.Node):
        return _Value(value.name)
    if isinstance(value, (tuple, list)):
        return tuple(_named(part) for part in value)
    if isinstance(value, dict):
        return {key: _named(part) for key, part in value.items()}
    return value


def _fresh(name: str, scope: _Scope) -> str:
    """Return a name for a part without dots, that is none of the scope's own."""
    base = name.replace(".", "_") or "part"
    found, count = base, 1
    while hasattr(scope, found):
        found, count = f"{base}_{count}", count + 1
    return found
