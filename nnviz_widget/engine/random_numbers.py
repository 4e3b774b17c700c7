"""Random numbers of a recorded run come from the engine's own generator.

A model may draw in eval mode (Monte Carlo dropout, noise, sampling). The global generators belong to the
user, who may be training on another thread at this moment: they are neither advanced nor put back, they are
not touched. While an operation that may draw is running, a dispatch mode hands the engine's generator to
the operators below it. The generator starts from the same seed in every run, so two runs on the same input
agree.

Python's and NumPy's own generators are not covered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OwnRandomness"]

_aten = torch.ops.aten
#: Operators whose default overload takes no generator, and the overload that does.
_WITH_GENERATOR = {
    getattr(getattr(_aten, name), plain): getattr(getattr(_aten, name), seeded)
    for name, plain, seeded in (
        ("rand", "default", "generator"),
        ("randn", "default", "generator"),
        ("randint", "default", "generator"),
        ("randint", "low", "low_generator"),
        ("randperm", "default", "generator"),
    )
}


class OwnRandomness(TorchDispatchMode):
    """Give every operator that draws a generator of the engine's.

    Parameters
    ----------
    seed : int
        Where the generator of each device starts.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}
        self._drew = False

    def drew(self) -> bool:
        """Whether anything was drawn since this was last asked."""
        drew, self._drew = self._drew, False
        return drew

    def generator(self, device: torch.device) -> torch.Generator:
        """Return the engine's generator on that device."""
        if device not in self._generators:
            self._generators[device] = torch.Generator(device=device).manual_seed(self.seed)
        return self._generators[device]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        self._drew = True
        device = _device(args, kwargs)
        seeded = _WITH_GENERATOR.get(func, func)
        if any(argument.name == "generator" for argument in seeded._schema.arguments):
            if kwargs.get("generator") is None and not any(isinstance(a, torch.Generator) for a in args):
                kwargs["generator"] = self.generator(device)
            return seeded(*args, **kwargs)
        emulate = _EMULATED.get(func.overloadpacket)
        if emulate is not None:
            return emulate(self.generator(device), *args, **kwargs)
        return self._borrow(device, func, args, kwargs)

    def _borrow(self, device: torch.device, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator that knows only the global generator, and put that one back as it was."""
        own = self.generator(device)
        module: Any = torch if device.type == "cpu" else torch.get_device_module(device)
        before = module.get_rng_state()
        try:
            module.set_rng_state(own.get_state())
            result = func(*args, **kwargs)
            own.set_state(module.get_rng_state())
        finally:
            module.set_rng_state(before)
        return result


def _device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            return value.device
    device = kwargs.get("device")
    return torch.device("cpu") if device is None else torch.device(device)


def _rand_like(generator: torch.Generator, x: torch.Tensor, **options: Any) -> torch.Tensor:
    return torch.empty_like(x, **options).uniform_(generator=generator)


def _randn_like(generator: torch.Generator, x: torch.Tensor, **options: Any) -> torch.Tensor:
    return torch.empty_like(x, **options).normal_(generator=generator)


def _randint_like(generator: torch.Generator, x: torch.Tensor, *bounds: int, **options: Any) -> torch.Tensor:
    low, high = bounds if len(bounds) == 2 else (0, bounds[0])
    return torch.empty_like(x, **options).random_(low, high, generator=generator)


def _dropout(
    generator: torch.Generator, x: torch.Tensor, p: float, train: bool | None
) -> tuple[torch.Tensor, torch.Tensor]:
    if train is False or p == 0:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    mask = torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - p, generator=generator)
    return x * mask * (0.0 if p == 1 else 1 / (1 - p)), mask


_EMULATED: dict[Any, Callable[..., Any]] = {
    _aten.rand_like: _rand_like,
    _aten.randn_like: _randn_like,
    _aten.randint_like: _randint_like,
    _aten.native_dropout: _dropout,
}
