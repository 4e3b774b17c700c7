"""Places in a model where a value can be read or changed while it runs: what a module gives, and its heads.

A site is written as the path of a module, or, with ``#heads`` behind it, stands for what the heads of an
attention gave, before the projection that mixes them: ``[B, T, heads, size]``. `hang` puts the hook there;
what is done with the value is the business of who hangs it.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  its name everywhere
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from nnviz_widget.engine.recording import tensors_of
from nnviz_widget.errors import InputError, NNVizError, UnknownLayerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nnviz_widget.engine.trace import Trace

__all__ = [
    "HEADS",
    "Edit",
    "Heads",
    "Swap",
    "Visit",
    "first_tensor",
    "hang",
    "heads_of",
    "module_of",
    "replace_first",
    "split_heads",
]

HEADS = "#heads"

Edit = Callable[[Tensor], Tensor]
#: Takes a site and the number of its call in this pass; returns what to do with the value, or None.
Visit = Callable[[str, int], "Edit | None"]
#: Takes the tensor that is about to be replaced, and what makes the other one of it.
Swap = Callable[[Tensor, Edit], Tensor]

#: Last names of the projections behind the heads, in torch, transformers, timm and diffusers.
_PROJECTIONS = {"out_proj", "o_proj", "c_proj", "out_lin", "proj", "dense", "o", "wo", "to_out", "out"}
_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "nhead")


@dataclass(frozen=True)
class Heads:
    """The heads of one attention.

    Attributes
    ----------
    path : str
        Of the ``nn.MultiheadAttention``, or of the projection that reads all heads.
    count : int
        How many.
    whole : bool
        Whether the path is that of a ``nn.MultiheadAttention``, which never calls its projection.
    """

    path: str
    count: int
    whole: bool


def _swap(tensor: Tensor, edit: Edit) -> Tensor:
    return edit(tensor)


def hang(modules: Mapping[str, nn.Module], site: str, visit: Visit, swap: Swap = _swap) -> Callable[[], None]:
    """Hang a hook at a site; returns what takes it down.

    Parameters
    ----------
    modules : mapping of str to nn.Module
        Of the model, by path.
    site : str
        Path, or path and ``#heads``.
    visit : callable
        Asked at each call of the site. What it returns is given the value, and returns the one to go on with.
        It runs unseen by torch's function modes, a recorder's among them.
    swap : callable
        For a recorder, that has to know which tensor stands for which.
    """
    calls = itertools.count()
    if site.endswith(HEADS):
        heads = heads_of(modules, site.removesuffix(HEADS))
        if heads.whole:
            return _hang_whole(modules[heads.path], site, heads.count, visit, swap)

        def enter(_: nn.Module, args: tuple[Any, ...]) -> Any:
            edit = visit(site, next(calls))
            if edit is None or not args:
                return None
            with torch._C.DisableTorchFunction():
                mixed = swap(args[0], lambda x: edit(split_heads(x, heads.count)).flatten(-2))
                return (mixed, *args[1:])

        return modules[heads.path].register_forward_pre_hook(enter).remove

    def leave(_: nn.Module, __: Any, output: Any) -> Any:
        edit = visit(site, next(calls))
        if edit is None:
            return None
        with torch._C.DisableTorchFunction():
            return replace_first(output, swap(first_tensor(output, site), edit))

    return modules[site].register_forward_hook(leave).remove


def _hang_whole(module: nn.Module, site: str, count: int, visit: Visit, swap: Swap) -> Callable[[], None]:
    """Hang a hook at an ``nn.MultiheadAttention``: with a projection that does nothing it gives heads."""
    calls = itertools.count()

    def leave(attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        edit = visit(site, next(calls))
        if edit is None:
            return None

        def again(_: Tensor) -> Tensor:
            projection = attention.out_proj
            eye = torch.eye(projection.weight.shape[0]).to(projection.weight)
            bare = copy.copy(attention)
            through = SimpleNamespace(weight=eye, bias=eye.new_zeros(len(eye)))
            bare.__dict__["_modules"] = {**attention._modules, "out_proj": through}
            value = bare.forward(*args, **kwargs)[0]
            turned = value.dim() == 3 and not attention.batch_first
            single = value.dim() == 2  # a sequence without a batch
            value = value.transpose(0, 1) if turned else value[None] if single else value
            value = edit(split_heads(value, count)).flatten(-2)
            value = value.transpose(0, 1) if turned else value[0] if single else value
            return F.linear(value, projection.weight, projection.bias)

        with torch._C.DisableTorchFunction():
            return replace_first(output, swap(first_tensor(output, site), again))

    return module.register_forward_hook(leave, with_kwargs=True).remove


def split_heads(value: Tensor, heads: int) -> Tensor:
    """Return ``[..., heads, size]``; `Tensor.unflatten` says the same, without types."""
    return value.reshape(*value.shape[:-1], heads, value.shape[-1] // heads)


def heads_of(modules: Mapping[str, nn.Module], path: str) -> Heads:
    """Find the heads of the attention that a module is, holds, or is a part of.

    Raises
    ------
    InputError
        There is none, there are several, or it does not tell how many heads it has.
    """
    whole = [name for name in _inside(modules, path) if isinstance(modules[name], nn.MultiheadAttention)]
    if len(whole) == 1:
        return Heads(whole[0], _count(modules, whole), whole=True)
    if whole:
        raise InputError(f"{path!r} holds several attentions.", hint=f"Choose one: {', '.join(whole[:6])}.")
    around = path
    for _ in range(3):
        found = [name for name in _inside(modules, around) if _projects(modules[name], name)]
        attending = [name for name in found if "att" in name.lower()]
        found = attending if len(found) > 1 and attending else found
        if len(found) > 1:
            raise InputError(
                f"{path!r} holds several attentions, or none that is known.",
                hint=f"Give the projection behind the heads: {', '.join(found[:6])}.",
            )
        if found:
            count = _count(modules, [*_inside(modules, around), *_above(around)])
            weight: Any = modules[found[0]].weight
            width = weight.shape[1 if isinstance(modules[found[0]], nn.Linear) else 0]
            if count and width % count == 0:
                return Heads(found[0], count, whole=False)
        if not around or not around.rpartition(".")[0]:
            break
        around = around.rpartition(".")[0]
    raise InputError(
        f"{path!r} has no heads that are known here.",
        hint="Heads are those of nn.MultiheadAttention, and of attentions with a linear projection behind "
        "them (out_proj, o_proj, c_proj, proj, attention.output.dense).",
    )


def _projects(module: nn.Module, name: str) -> bool:
    weight = getattr(module, "weight", None)
    linear = isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"  # that of GPT-2
    return linear and isinstance(weight, Tensor) and name.rpartition(".")[2] in _PROJECTIONS


def _inside(modules: Mapping[str, nn.Module], path: str) -> list[str]:
    return [name for name in modules if name == path or name.startswith(f"{path}." if path else "")]


def _above(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition(".")[0]
        yield path


def _count(modules: Mapping[str, nn.Module], paths: list[str]) -> int:
    """Return the number of heads that one of these modules, or its configuration, tells; else 0."""
    for holder in [*(modules[path] for path in paths)]:
        for source in (holder, getattr(holder, "config", None)):
            for name in _COUNTS:
                count = getattr(source, name, None)
                if type(count) is int and count > 0:
                    return count
    return 0


def module_of(trace: Trace, operation: str) -> str | None:
    """Return the module call that gives just what an operation of a forward gives; None for what is none.

    Raises
    ------
    UnknownLayerError
        No module gives it.
    """
    graph, ref = trace.graph, trace.refs.get(operation)
    node = next((one for one in graph.nodes if one.id == operation and one.kind == "op"), None)
    if node is None or ref is None:
        return None
    takers = {edge.target for edge in graph.edges if edge.source == operation}
    whole = [one.id for one in graph.groups if one.path and trace.refs.get(one.id) == ref]
    # What a part of the module reads as well would not be changed with what the module gives.
    if whole and not any(taker.startswith((f"{one}.", f"{one}/")) for one in whole for taker in takers):
        return max(whole, key=len)
    near = [one.id for one in graph.nodes if one.id in takers and one.kind == "module"]
    near += [node.parent] if node.parent else []
    raise UnknownLayerError(
        f"{operation!r} is an operation of a forward; only what modules give can be changed.",
        hint=(f"Change {' or '.join(map(repr, near))}, or make it" if near else "Make it")
        + " a module of its own: self.step = nn.Identity(), and x = self.step(x) behind it.",
    )


def first_tensor(output: Any, where: str) -> Tensor:
    """Return the tensor that stands for what a module gave: the first one in it."""
    found = tensors_of(output)
    if not found:
        raise NNVizError(f"{where!r} gave no tensor.", hint="Choose another layer.")
    return found[0][1]


def replace_first(output: Any, tensor: Tensor) -> Any:
    """Return a module's output with another tensor in the place of its first."""
    if isinstance(output, Tensor):
        return tensor
    leaves, spec = tree_flatten(output)
    at = next(i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor))
    leaves[at] = tensor
    return tree_unflatten(leaves, spec)
