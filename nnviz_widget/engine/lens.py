"""What a transformer would answer after each of its blocks: the rest of the model on what the block gave.

A block only adds to a stream that all blocks share, so what comes after the last one (a norm, a head, the
choice of a token) can be asked about any of them. It is asked here by giving the value of a block in the
place of that of the last one, so nothing has to be known about how the model ends, and for the last block the
answer is the model's own.

nostalgebraist 2020, Interpreting GPT: the logit lens.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nnviz_widget.engine.attribution.targets import scores_of
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nnviz_widget.engine.attribution.stream import Runs
    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.trace import Trace

__all__ = ["LogitLens", "blocks_of", "logit_lens"]


@dataclass(frozen=True)
class LogitLens:
    """What each block would answer.

    Attributes
    ----------
    layers : tuple of str
        Ids of the blocks, in order.
    logits : Tensor
        ``[blocks, N, K]``, or ``[blocks, N, T, K]`` for a model that answers at every token.
    epoch : int
        Of the weights.
    """

    layers: tuple[str, ...]
    logits: Tensor
    epoch: int

    def top(self, k: int = 5, *, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return the most probable classes (or words) of each block and their probabilities, ``[..., k]``."""
        probabilities = torch.softmax(self.logits.float() / temperature, -1)
        values, indices = probabilities.topk(min(k, probabilities.shape[-1]), -1)
        return indices, values


def blocks_of(trace: Trace) -> list[str]:
    """Return the ids of the blocks of a transformer: the longest row of siblings over one stream of tokens.

    Raises
    ------
    InputError
        There is none.
    """
    rows: dict[tuple[str, str, tuple[int, ...]], list[str]] = defaultdict(list)
    for group in trace.graph.groups:
        ref = trace.refs.get(group.id)
        parent, _, name = group.path.rpartition(".")
        if ref is None or not any(letter.isdigit() for letter in name):
            continue
        shape = trace.ops[ref.op].outputs[ref.port].shape
        if len(shape) == 3:
            rows[(parent, group.type, shape)].append(group.id)
    longest = max(rows.values(), key=len, default=[])
    if len(longest) < 2:
        raise InputError(
            "The logit lens needs a row of blocks over one stream of tokens, and this model has none.",
            hint="It is for transformers: language models, and vision transformers.",
        )
    return longest


def logit_lens(runs: Runs, trace: Trace, layers: Sequence[str] | None, token: CancelToken) -> LogitLens:
    """Return what the model answers where the last block's value is that of another.

    Parameters
    ----------
    runs : Runs
        Of the engine.
    trace : Trace
        Gives the input.
    layers : sequence of str, optional
        Ids whose values to read; by default of all blocks.
    token : CancelToken
        Looked at inside every pass.
    """
    blocks = blocks_of(trace)
    last = blocks[-1]
    names = list(blocks if layers is None else layers)
    shapes = tuple((tuple(t.shape), t.dtype) for t in trace.inputs)
    count = trace.inputs[0].shape[0] if trace.inputs and trace.inputs[0].dim() else 1

    def run(module: nn.Module, _epoch: int) -> Tensor:
        found = []
        with runs.twin.running():
            passes = runs.passes(module, trace.args, trace.kwargs, shapes, token)
            given = passes.forward(trace.args, trace.kwargs, count, read=[last, *names])[1]
            end, values = given[0], given[1:]
            for name, value in zip(names, values, strict=True):
                if value.shape != end.shape:
                    raise InputError(
                        f"{name!r} gives {tuple(value.shape)}, the stream of tokens is {tuple(end.shape)}."
                    )
                edits = {last: lambda _, value=value: value}
                output = passes.forward(trace.args, trace.kwargs, count, edits=edits)[0]
                found.append(scores_of(output).detach().cpu())
        return torch.stack(found)

    logits, epoch, _ = runs.twin.steadily(run)
    return LogitLens(tuple(names), logits, epoch)
