"""Many passes of a model for one question: forwards, gradients, what layers gave, and changes on the way.

A single pass that is looked into from all sides is ``recorder``'s. Here the model runs again and again on
batches, as fast as it can, and only what was asked for is kept: hooks on a few modules, a look for a cancel
before some modules, and at places spread over a backward. Nothing stays behind on the modules, and nothing is
ever written into ``.grad``.

A model that draws random numbers, or writes into its own tensors while it runs, would do so to the user's;
such a model is run by the recorder each time, which diverts both. It is slower, and harmless.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from nnviz_widget.engine.eager import uncompiled
from nnviz_widget.engine.interventions import applied
from nnviz_widget.engine.recorder import record
from nnviz_widget.engine.sites import HEADS, first_tensor, hang, replace_first
from nnviz_widget.engine.tape import Stop
from nnviz_widget.errors import InputError, UnknownLayerError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch.autograd.graph import GradientEdge

    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.sites import Edit

    Look = Callable[[Tensor], object]

__all__ = ["Passes", "first_tensor", "graph_of", "replace_first"]

_CHECK_SECONDS = 0.025  # a cancel is looked for about this often inside one backward
_LOOK_SECONDS = 0.005  # and in a forward, where it costs less and modules take unlike times
_LOOKS = 8  # in one forward at least, however short it is
_FUSED = (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)
_KEPT_BYTES = 31 << 20  # just below the largest block from which glibc learns


class Passes:
    """Runs one module many times.

    Parameters
    ----------
    module : nn.Module
        The engine's twin, or a private copy of it.
    token : CancelToken
        Looked at inside every pass; may be replaced between two of them.
    plain : bool
        Whether the model leaves its tensors and the random numbers alone (`Recording.harmless`).
    seconds : float
        What the first forward of the unchanged samples took; 0 where that is not known.

    Attributes
    ----------
    forward_passes, backward_passes : int
        Rows that went through so far.
    plain : bool
        As it was given.
    first_seconds : float
        As `seconds` was given.
    """

    def __init__(
        self, module: nn.Module, token: CancelToken, *, plain: bool = True, seconds: float = 0.0
    ) -> None:
        _keep_freed_memory()
        self.module = module
        self.token = token
        self.forward_passes = 0
        self.backward_passes = 0
        self.plain = plain
        self.first_seconds = seconds
        self._modules = dict(module.named_modules(remove_duplicate=False))
        self._parts = list(dict.fromkeys(self._modules.values()))
        self._fused = any(isinstance(part, _FUSED) for part in self._parts)
        self._seconds = 0.0

    def on(self, module: nn.Module) -> Passes:
        """Return what runs another module of the same structure; it counts for itself."""
        return Passes(module, self.token, plain=self.plain, seconds=self.first_seconds)

    def check(self) -> None:
        """Raise where the work is no longer wanted."""
        self.token.check()

    def resolve(self, layer: str | nn.Module) -> tuple[str, int]:
        """Return path and call of the module that `layer` names: a dotted path, a node id, or the module.

        Raises
        ------
        UnknownLayerError
            It is no module of this model.
        """
        if isinstance(layer, nn.Module):
            found = next((path for path, part in self._modules.items() if part is layer), None)
            if found is None:
                raise UnknownLayerError(f"This {type(layer).__name__} is not a part of the model.")
            return found, 0
        path, _, call = str(layer).partition("@")
        if path.removesuffix(HEADS) not in self._modules or (call and not call.isdigit()):
            raise UnknownLayerError(
                f"There is no module {layer!r} in the model.{nearest(path, self._modules)}",
                hint="This needs a module; operations of a forward have none.",
            )
        return path, int(call or 0)

    def site(self, layer: str | nn.Module) -> str:
        """Return ``path@call`` of what names a module, as a recording names what it gave."""
        return _name(self.resolve(layer))

    def forward(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        rows: int,
        *,
        read: Sequence[str | nn.Module] = (),
        edits: Mapping[str, Edit] | None = None,
        grad: bool = False,
        stop: bool = False,
        looks: Mapping[tuple[str, int, bool], Look] | None = None,
    ) -> tuple[Any, list[Tensor]]:
        """Run the model once.

        Parameters
        ----------
        args, kwargs
            As the model takes them.
        rows : int
            How many samples these are, for the count.
        read : sequence of str or nn.Module
            Modules whose output (the first tensor of it) is wanted; with ``#heads`` after the path, what the
            heads of an attention gave (``sites``).
        edits : mapping of str to callable, optional
            Changes what a module gives: takes its output, returns what its callers shall get instead.
        grad : bool
            Build the autograd graph.
        stop : bool
            Run no further than to the last module of `read`.
        looks : mapping, optional
            As for `glance`; only where the model is plain.

        Returns
        -------
        output : object
            What the model returned; None where the run was stopped before.
        values : list of Tensor
            What each module of `read` gave, after its edit; never overwritten by what ran later.
        """
        self.forward_passes += rows
        start = time.perf_counter()
        if self.plain:
            output = None
            with (
                self._hooked(read, edits or {}, rows, stop=stop) as kept,
                torch.set_grad_enabled(grad),
                uncompiled(self.module),
                _looking(self._modules, looks or {}),
                suppress(Stop),
            ):
                output = self.module(*args, **kwargs)
            missing = [layer for layer in read if self.resolve(layer) not in kept]
            values = [] if missing else [kept[self.resolve(layer)] for layer in read]
        else:
            output, values, missing = self._recorded(args, kwargs, rows, read, edits or {}, grad=grad)
        if missing:
            raise UnknownLayerError(f"{_name(self.resolve(missing[0]))!r} did not run on this input.")
        self.check()
        self._seconds = max(time.perf_counter() - start, 1e-6)
        return output, values

    def gradients(
        self, scores: Tensor, tensors: Sequence[Tensor | GradientEdge], *, keep: bool = False
    ) -> tuple[Tensor, ...]:
        """Return the gradient of the sum of the scores on each tensor; zeros where nothing flows.

        Parameters
        ----------
        scores : Tensor
            One number per row, ``[B]``.
        tensors : sequence of Tensor or GradientEdge
            Leaves or values of the same pass, or edges of its graph over which something flows.
        keep : bool
            Keep the graph for another backward.
        """
        self.backward_passes += scores.shape[0]
        if not scores.requires_grad:
            raise InputError(
                "No gradient flows from the target to the input: the model detaches it, or rounds it.",
                hint="Methods that perturb the input (occlusion, rise) need none.",
            )
        with torch.enable_grad():
            total = scores.sum()
        if 2 * self._seconds > _CHECK_SECONDS:
            self._interruptible(total)
        with self._any_backward():
            wanted = cast("Sequence[Tensor]", tensors)  # torch takes both in one list
            found = torch.autograd.grad(total, wanted, retain_graph=keep, allow_unused=True)
        self.check()
        return tuple(
            torch.zeros_like(tensor) if gradient is None and isinstance(tensor, Tensor) else gradient
            for gradient, tensor in zip(found, tensors, strict=True)
        )

    def alone(self, path: str) -> bool:
        """Whether there is such a module, and it has no other name: calls of it can be counted."""
        part = self._modules.get(path)
        return part is not None and sum(other is part for other in self._modules.values()) == 1

    def glance(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        looks: Mapping[tuple[str, int, bool], Look],
    ) -> Any:
        """Run the model once and look at some values while they are there; nothing is copied or kept.

        Parameters
        ----------
        args, kwargs
            As the model takes them.
        looks : mapping
            From path and call of a module, and whether its input is meant (the first tensor that it is given)
            or its output, to what is called with that tensor.

        Returns
        -------
        output : object
            What the model returned.
        """
        return self.forward(args, kwargs, 1, looks=looks)[0]

    # -- inside ---------------------------------------------------------------------------------------------

    @contextmanager
    def _hooked(
        self, read: Sequence[str | nn.Module], edits: Mapping[str, Edit], rows: int, *, stop: bool = False
    ) -> Iterator[dict[tuple[str, int], Tensor]]:
        """Hang the hooks of one pass; yields what the modules gave, by path and call."""
        kept: dict[tuple[str, int], Tensor] = {}
        wanted = {self.resolve(layer) for layer in read}
        changes = {self.resolve(layer): edit for layer, edit in edits.items()}

        def look(*_: Any) -> None:
            self.check()

        def visit(path: str, call: int) -> Edit | None:
            key = (path, call)
            edit = changes.get(key)
            if edit is None and key not in wanted:
                return None

            def take(tensor: Tensor) -> Tensor:
                # A copy: the next module may write into what this one gave.
                tensor = edit(tensor) if edit is not None else tensor.clone()
                if key not in wanted:
                    return tensor
                kept[key] = tensor
                if stop and len(kept) == len(wanted):
                    raise Stop
                return tensor.clone()

            return take

        with ExitStack() as hooks:
            hooks.enter_context(_on_all(self._watched(rows), look))
            if self.plain:  # the recorder applies them itself
                hooks.enter_context(applied(self.module))
            for path in {path for path, _ in (*wanted, *changes)}:
                hooks.callback(hang(self._modules, path, visit))
            yield kept

    def _recorded(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        rows: int,
        read: Sequence[str | nn.Module],
        edits: Mapping[str, Edit],
        *,
        grad: bool,
    ) -> tuple[Any, list[Tensor], list[str | nn.Module]]:
        with self._hooked(read, edits, rows) as kept:
            run = record(
                self.module, tuple(args), dict(kwargs), keep=None, grad=grad, token=self.token, attached=grad
            )
        missing = [layer for layer in read if self.resolve(layer) not in kept]
        return run.output, [] if missing else [kept[self.resolve(layer)] for layer in read], missing

    def _watched(self, rows: int) -> Sequence[nn.Module]:
        """Return the modules before which a cancel is looked for: so many that it is found soon, no more.

        A hook on every module takes a tenth of a pass of ResNet-18.
        """
        seconds = max(self.first_seconds, self._seconds) * rows
        # With a hook on them, transformer layers run their parts one by one, as traced.
        if not seconds or self._fused:
            return self._parts
        return self._parts[:: max(1, int(len(self._parts) * min(_LOOK_SECONDS / seconds, 1 / _LOOKS)))]

    def _interruptible(self, result: Tensor) -> None:
        """Let a long backward, which is one call into C++, look for a cancel at some of its nodes."""
        nodes = sorted(graph_of(result), key=lambda node: node._sequence_nr())
        stops = min(len(nodes), math.ceil(2 * self._seconds / _CHECK_SECONDS)) - 1
        check = self.check
        for i in range(1, stops + 1):
            nodes[i * len(nodes) // (stops + 1)].register_prehook(lambda _: check())

    @contextmanager
    def _any_backward(self) -> Iterator[None]:
        """On CUDA, cuDNN refuses the backward of recurrent layers in eval mode; torch's own kernels do it."""
        if torch.cuda.is_available() and any(isinstance(part, nn.RNNBase) for part in self._parts):
            with torch.backends.cudnn.flags(enabled=False):
                yield
        else:
            yield


@cache
def _keep_freed_memory() -> None:
    """Let the C library keep what one pass frees for the next one, instead of handing it back each time.

    On a small network the kernel otherwise spends as long on giving out the same empty pages again as the
    pass takes to compute. glibc moves its limits to the largest block that was ever freed: one is enough,
    and nobody has to write into it.
    """
    torch.empty(_KEPT_BYTES, dtype=torch.uint8)


@contextmanager
def _on_all(modules: Sequence[nn.Module], hook: Callable[..., None]) -> Iterator[None]:
    """Hang one hook in front of all modules that take any."""
    handles = []
    try:
        for module in modules:
            if not isinstance(module, torch.jit.ScriptModule):
                handles.append(module.register_forward_pre_hook(hook))  # noqa: PERF401  each is taken down
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _looking(modules: Mapping[str, nn.Module], looks: Mapping[tuple[str, int, bool], Look]) -> Iterator[None]:
    """Hang hooks behind all others, which see what those left."""
    calls: dict[str, int] = {}

    def enter(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[Any, ...]) -> None:
            look = looks.get((path, calls.get(path, 0), True))
            if look is not None and given and isinstance(given[0], Tensor):
                look(given[0])

        return hook

    def leave(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            look = looks.get((path, calls.get(path, 0), False))
            calls[path] = calls.get(path, 0) + 1
            if look is not None:
                look(first_tensor(output, path))

        return hook

    with ExitStack() as hooks:
        for path in {path for path, _, _ in looks}:
            hooks.callback(modules[path].register_forward_pre_hook(enter(path)).remove)
            hooks.callback(modules[path].register_forward_hook(leave(path)).remove)
        yield


def _name(resolved: tuple[str, int]) -> str:
    path, call = resolved
    return f"{path}@{call}" if call else path


def graph_of(result: Tensor) -> Iterator[Any]:
    """Yield the nodes of the autograd graph behind a tensor."""
    waiting, seen = [result.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += [following for following, _ in node.next_functions]
