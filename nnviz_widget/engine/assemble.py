"""Draw the graph of a finished recording: which operations make a node, what goes where, what was never used.

Works on what the recorder left (module calls, operations, references); runs nothing and touches no tensor.

Weights stand inside the node that applies them (a linear layer's matrix is no box of its own); parameters
and buffers that are used as data (a position embedding that is added, a table that is indexed) are
constants with an edge.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

from nnviz_widget.engine.details import module_detail, op_detail, type_name
from nnviz_widget.engine.failure import line_label, line_text
from nnviz_widget.engine.flops import flops_of
from nnviz_widget.engine.graph import Edge, Graph, Group, Node, fold_siblings
from nnviz_widget.engine.recording import STATE, Ref
from nnviz_widget.engine.sharing import weights_of
from nnviz_widget.engine.vocabulary import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

    from nnviz_widget.engine.recording import Frame, Op, Recording, Spec

__all__ = ["assemble"]

#: Kinds of operations that are kinds of nodes as well.
_KINDS = frozenset({"input", "constant", "output"})
#: Operations that apply weights: the parameters and buffers that they are called with stand inside their
#: node.
_APPLY_WEIGHTS = words(
    """
    conv1d  conv2d  conv3d  conv  conv_transpose1d  conv_transpose2d  conv_transpose3d  linear  bilinear
    addmm  baddbmm  matmul  mm  bmm  mv  embedding  embedding_bag  batch_norm  layer_norm  group_norm
    instance_norm  rms_norm  lstm  gru  rnn_tanh  rnn_relu  lstm_cell  gru_cell  rnn_tanh_cell
    rnn_relu_cell  prelu  multi_head_attention
    """
)
#: Those that scale or shift: a vector of parameters stands inside, a grid of them (a position embedding) is
#: data.
_SCALE_OR_SHIFT = frozenset({"add", "sub", "mul", "div", "addcmul", "pow"})


def assemble(recording: Recording, parts: list[tuple[str, nn.Module]]) -> Graph:
    """Return the graph of a recording, which must still have its module calls.

    The `parts` are the modules of the model by each of their names (`named_parts`).
    """
    return _Drawing(recording, parts).graph


def _below(parts: list[tuple[str, nn.Module]]) -> dict[str, dict[int, None]]:
    """Return the parameters at and below each module, by its path, in torch's order."""
    below: dict[str, dict[int, None]] = {}
    #: Of each module, those that hold it, itself included.
    holders: dict[str, tuple[dict[int, None], ...]] = {}
    for path, part in parts:
        own = below[path] = {}
        holders[path] = (*holders.get(path.rpartition(".")[0], ()), own) if path else (own,)
        if part._parameters:
            held = {id(tensor): None for tensor in part._parameters.values() if tensor is not None}
            for holder in holders[path]:
                holder.update(held)
    return below


@lru_cache(maxsize=4096)
def _memory(outputs: tuple[Spec, ...]) -> tuple[str, int]:
    """Return the type of the first output, and the bytes of all."""
    dtype = outputs[0].dtype if outputs else None
    size = sum(prod(spec.shape) * spec.dtype.itemsize for spec in outputs if spec.dtype is not None)
    return str(dtype).removeprefix("torch.") if dtype is not None else "", size


class _Drawing:
    def __init__(self, recording: Recording, parts: list[tuple[str, nn.Module]]) -> None:
        root = recording.root
        assert root is not None
        self.recording = recording
        self.ops = recording.ops
        self.graph = Graph(model=type(root.module).__name__)
        self.nodes: dict[str, Node] = {}
        #: Every name of every parameter; tied ones have several.
        self.parameters = dict(weights_of(parts))
        self.sizes = {id(tensor): tensor.numel() for tensor in self.parameters.values()}
        #: Parameters at and below each module, by path.
        self.below = _below(parts)
        #: Which node counted a parameter first.
        self.counted: dict[int, str] = {}
        group = Group(
            id="", type=self.graph.model, params=sum(self.sizes.values()), source=line_label(root.source)
        )
        self.graph.groups.append(group)
        self._fill(root, group)
        self._draw_edges()
        self._count_groups()
        if recording.complete:
            self._mark_unused()
        self._mark_failed()
        fold_siblings(self.graph)

    # -- nodes ----------------------------------------------------------------------------------------------

    def _fill(self, frame: Frame, group: Group) -> None:
        for child in frame.children:
            if isinstance(child, int):
                op = self.ops[child]
                if op.kind not in STATE:
                    self._add_data_sources([op], group)
                    self._add(self._op_node(op, frame), group)
            elif child.leaf:
                ops = [self.ops[index] for index in child.children if isinstance(index, int)]
                if ops:
                    self._add_data_sources(ops, group)
                    self._add(self._leaf_node(child, ops), group)
            elif child.children:
                inner = Group(
                    id=child.id,
                    path=child.path,
                    call=child.call,
                    type=type(child.module).__name__,
                    parent=group.id,
                    params=sum(self.sizes[tensor] for tensor in self.below.get(child.path, ())),
                    source=line_label(child.source),
                )
                self.graph.groups.append(inner)
                group.children.append(inner.id)
                self._fill(child, inner)

    def _add(self, node: Node, group: Group) -> None:
        node.parent = group.id
        group.children.append(node.id)
        self.nodes[node.id] = node
        self.graph.nodes.append(node)

    def _add_data_sources(self, ops: Iterable[Op], group: Group) -> None:
        """Put the parameters and buffers that these operations use as data before them."""
        for op in ops:
            for ref in op.inputs:
                source = self.ops[ref.op]
                if source.kind in STATE and source.node not in self.nodes and self._is_data(source, op):
                    node = self._node(
                        source.node, (source.name, 0), (source.kind, "constant"), [source], source.outputs
                    )
                    node.params = self._count([source.name], node)
                    self._add(node, group)

    def _is_data(self, source: Op, op: Op) -> bool:
        """Whether a parameter or buffer is an input of this operation rather than its weight."""
        if op.name in _APPLY_WEIGHTS:
            return False
        owner = op.node.partition("@")[0]
        if not op.node.startswith("const:") and "/" not in op.node and source.name.startswith(f"{owner}."):
            return False  # a leaf's own
        vector = sum(size > 1 for size in source.outputs[0].shape) <= 1
        return not (op.name in _SCALE_OR_SHIFT and vector and source.kind == "parameter")

    def _op_node(self, op: Op, frame: Frame) -> Node:
        kind = op.kind if op.kind in _KINDS else "op"
        if op.node.startswith("const:"):
            kind = "constant"
        outputs = op.outputs[: len(op.outputs) - len(op.aliases)]
        word = op.kind if op.kind in _KINDS else op.name
        node = self._node(op.node, (frame.path, frame.call), (word, kind), [op], outputs)
        node.detail = op.name if op.kind in {"input", "output"} else op_detail(op)
        if op.kind == "decision":
            node.value, node.code = op.read, line_text(op.source)
        weights = [source.name for ref in op.inputs if (source := self.ops[ref.op]).kind == "parameter"]
        node.params = self._count([name for name in weights if f"const:{name}" not in self.nodes], node)
        return node

    def _leaf_node(self, frame: Frame, ops: list[Op]) -> Node:
        calls = [op for op in ops if op.kind not in {*STATE, "constant"}]
        main = calls[-1] if calls else ops[-1]
        if len(calls) > 1:
            # The costliest; of equals the last that did something.
            main = max(reversed(calls), key=lambda op: (flops_of(op, self.ops), op.kind != "identity"))
        specs = [self.ops[ref.op].outputs[ref.port] for ref in frame.outputs]
        node = self._node(frame.id, (frame.path, frame.call), (main.name, "module"), calls, specs)
        node.type = type_name(frame.module)
        node.detail = module_detail(frame.module)
        node.source = line_label(frame.source)
        node.params = self._count_tensors(self.below.get(frame.path, ()), node)
        return node

    def _node(
        self, name: str, at: tuple[str, int], what: tuple[str, str], ops: list[Op], outputs: Sequence[Spec]
    ) -> Node:
        node = Node(id=name, path=at[0], call=at[1], op=what[0], kind=what[1])
        node.output_shapes = [spec.shape for spec in outputs]
        node.dtype, node.bytes = _memory(tuple(outputs))
        node.flops = sum([flops_of(op, self.ops) for op in ops])
        node.source = line_label(ops[0].source) if ops else ""
        if ops and all(op.kind == "identity" for op in ops):
            node.status = "identity"
        return node

    def _count(self, names: Iterable[str], node: Node) -> int:
        return self._count_tensors(
            [id(self.parameters[name]) for name in names if name in self.parameters], node
        )

    def _count_tensors(self, tensors: Iterable[int], node: Node) -> int:
        """Sum the sizes of parameters that no node counted before; say which one did."""
        total = 0
        for tensor in tensors:
            first = self.counted.setdefault(tensor, node.id)
            if first != node.id:
                node.shared = first
            else:
                total += self.sizes[tensor]
        return total

    # -- edges ----------------------------------------------------------------------------------------------

    def _draw_edges(self) -> None:
        ops, nodes, edges = self.ops, self.nodes, self.graph.edges
        #: What already goes into each node.
        drawn: dict[str, set[Ref]] = {}
        forgotten = self._overwritten_in_vain()
        for op in ops:
            name = op.node
            target = nodes.get(name)
            if target is None or op.kind in STATE:
                continue
            read = op.inputs
            if op.aliases:
                direct = len(read) - len(op.aliases)
                kept = [alias.before for alias in op.aliases if Ref(op.index, alias.port) not in forgotten]
                read = (*read[:direct], *kept)
            for ref in read:
                source = ops[ref.op]
                if source.node == name or source.node not in nodes:
                    continue
                if source.kind in STATE and not self._is_data(source, op):
                    continue
                known = drawn.setdefault(name, set())
                if ref in known:
                    continue
                known.add(ref)
                shape = source.outputs[ref.port].shape
                edges.append(Edge(source.node, name, shape))
                target.input_shapes.append(shape)

    def _overwritten_in_vain(self) -> set[Ref]:
        """Return the values that an operation gave to other tensors in its memory, and that nobody read."""
        written: set[Ref] = set()
        read: set[Ref] = set()
        if not any(op.aliases for op in self.ops):
            return written
        for op in reversed(self.ops):
            if op.kind in STATE:
                continue
            read.update(op.inputs[: len(op.inputs) - len(op.aliases)])
            for alias in op.aliases:
                value = Ref(op.index, alias.port)
                written.add(value)
                if value in read:
                    read.add(alias.before)
        return written - read

    # -- totals and marks -----------------------------------------------------------------------------------

    def _count_groups(self) -> None:
        groups = {group.id: group for group in self.graph.groups}
        for node in self.graph.nodes:
            group = groups[node.parent]
            group.flops += node.flops
            while group.id:
                group = groups[group.parent]
                group.flops += node.flops

    def _mark_unused(self) -> None:
        """Mark every node that neither an output nor a decision of Python's came from."""
        used: set[int] = set()
        pending = [op.index for op in self.ops if op.kind in {"output", "decision"}]
        while pending:
            index = pending.pop()
            if index not in used:
                used.add(index)
                pending += [ref.op for ref in self.ops[index].inputs]
        useful = {self.ops[index].node for index in used}
        for node in self.graph.nodes:
            if node.id not in useful:
                node.status = "unused"

    def _mark_failed(self) -> None:
        """Mark the nodes that raised, and the groups around the one that ended the run."""
        for op in self.ops:
            if op.kind == "failure" and op.node in self.nodes:
                self.nodes[op.node].status = "failed"
        last = self.nodes.get(self.recording.failed)
        groups = {group.id: group for group in self.graph.groups}
        parent = last.parent if last is not None else None
        while parent is not None:
            groups[parent].status = "failed"
            parent = groups[parent].parent if parent else None
