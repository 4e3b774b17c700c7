"""Operations that send back something else than their gradient, while a forward runs.

Guided backpropagation, DeepLIFT and relevance propagation are a backward pass in which some operations
follow another rule. The operations are caught where they are called, by the name that the user would write
(``relu`` for ``nn.ReLU``, ``F.relu`` and ``x.relu_()`` alike), used once or many times, in place or not.
Nothing is hung on the model, and the values of the forward stay what they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from nnviz_widget.engine.vocabulary import traits_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["OtherBackward", "Sent"]


@dataclass
class Sent:
    """What goes back through one argument of one call.

    Attributes
    ----------
    name : str
        Of the operation.
    own : Tensor
        The true gradient on the argument.
    arriving : Tensor
        The gradient that arrives at the result.
    value : Tensor
        The argument, as it was.
    result : Tensor
        What the operation gave.
    again : callable
        Runs the operation again on another value of this argument.
    """

    name: str
    own: Tensor
    arriving: Tensor
    value: Tensor
    result: Tensor
    again: Callable[[Tensor], Tensor]


class OtherBackward(TorchFunctionMode):
    """Base of the modes that change what operations send back; `send` says what.

    Parameters
    ----------
    names : collection of str
        Operations that are changed.
    reads : bool
        Whether `send` and `arrive` read arguments and results; they are kept for it.

    Attributes
    ----------
    met : int
        How many of them were called.
    """

    def __init__(self, names: Collection[str], *, reads: bool = True) -> None:
        super().__init__()
        self.met = 0
        self.reads = reads
        self._paused = False
        self._names = names

    def pause(self, paused: bool) -> None:
        """Let operations be what they are, or go on changing them."""
        self._paused = paused

    def send(self, sent: Sent) -> Tensor:
        """Return what goes back through an argument in the place of its gradient."""
        raise NotImplementedError

    def arrive(self, name: str, arriving: Tensor, result: Tensor) -> Tensor:
        """Return what goes into the backward of an operation; by default what arrives."""
        del name, result
        return arriving

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        traits = traits_of(func)
        if self._paused or traits.name not in self._names or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        self.met += 1
        writes = traits.writes == "first" or bool(kwargs.get("inplace"))
        changed: Any = (args[0] if args else kwargs["input"]) if writes else None
        ways: list[tuple[Tensor, Any]] = []

        def inner(value: Any) -> Any:
            """Return a tensor of this call's own for one that the model has, and note the way back."""
            if not isinstance(value, Tensor) or isinstance(value, nn.Parameter):
                return value
            own = value.clone() if value is changed else value.view_as(value)
            if value.requires_grad:
                ways.append((self._kept(value), own.grad_fn))
            return own

        own_args, own_kwargs = tree_map(inner, (args, kwargs))
        result = func(*own_args, **own_kwargs)
        if ways and isinstance(result, Tensor) and result.requires_grad:
            self._attach(func, traits.name, (args, kwargs), ways, result)
        return result if changed is None else changed.copy_(result)

    def _kept(self, tensor: Tensor) -> Tensor:
        """Return a tensor's values; a copy where a rule reads them, for the model may write into it."""
        return tensor.detach().clone() if self.reads else tensor.detach()

    def _attach(
        self, func: Any, name: str, given: tuple[Any, Any], ways: list[tuple[Tensor, Any]], result: Any
    ) -> None:
        """Put the rule between what arrives at the result and what leaves each argument."""
        value = self._kept(result)
        arrived: list[Tensor] = []

        def arrive(gradient: Tensor) -> Tensor:
            arrived[:] = [gradient]
            return self.arrive(name, gradient, value)

        result.register_hook(arrive)
        for before, node in ways:

            def leave(own: tuple[Tensor, ...], before: Tensor = before) -> tuple[Tensor, ...]:
                sent = Sent(name, own[0], arrived[0], before, value, _again(func, given))
                return (self.send(sent), *own[1:])

            node.register_prehook(leave)


def _again(func: Any, given: tuple[tuple[Any, ...], dict[str, Any]]) -> Callable[[Tensor], Tensor]:
    """Return what calls a function of one tensor again, out of place."""
    args, kwargs = given

    def run(value: Tensor) -> Tensor:
        found: Tensor = func(value.clone(), *args[1:], **{k: v for k, v in kwargs.items() if k != "input"})
        return found

    return run
