"""A second tree of modules over the same tensors.

``copy.deepcopy`` knows how to copy a model with its bound methods, lists of modules and tied weights. Three
things are added here: every tensor is shared (or passed through ``make``), never copied on its own accord;
what cannot be copied (locks, open files, loggers) is shared as well; and functions that close over a module
of the original are made again over its copy. What follows the original afterwards lives in ``twin``.
"""

from __future__ import annotations

import copy
import copyreg
import types
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "CannotShareError",
    "copy_modules",
    "copy_value",
    "named_parts",
    "named_weights",
    "parts_of",
    "tensors_in",
    "unwrap",
    "weights_of",
    "wrappers",
]

_BIG_ARRAY_BYTES = 1 << 20
_DEEPEST_CONTAINER = 4
#: A module holds a dozen of them, mostly empty; to `deepcopy` they cost more than the rest of a small module.
_PLAIN = frozenset({dict, OrderedDict, set, list})
#: What every module has from birth: containers of torch's own that no two modules share.
_INBORN = frozenset(nn.Module().__dict__)
#: What `deepcopy` gives back as it is.
_ATOMS = frozenset(
    {int, float, bool, complex, str, bytes, type(None), type, range, type(...)}
    | {types.FunctionType, types.BuiltinFunctionType}
)
_NEW = object().__reduce_ex__(4)[0]  # makes an object without calling `__init__`
#: What a class may have to say about how its objects are copied, and what torch says.
_PICKLING = {
    name: getattr(nn.Module, name, None)
    for name in ("__reduce_ex__", "__reduce__", "__getstate__", "__getnewargs__", "__getnewargs_ex__")
}
_ATTEMPTS = 3  # the user's own thread may be changing the dicts that are being copied


class CannotShareError(Exception):
    """The model has a part that cannot be copied while its tensors are shared; the message says which."""


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside wrappers (``torch.compile``, ``DataParallel``, ``DistributedDataParallel``)."""
    while (inner := _wrapped(model)) is not None:
        model = inner
    return model


def wrappers(model: nn.Module) -> list[str]:
    """Name the wrappers that `unwrap` looks through, the outermost first."""
    found = []
    while (inner := _wrapped(model)) is not None:
        found.append("torch.compile" if _compiled(model) is not None else type(model).__name__)
        model = inner
    return found


def _wrapped(model: nn.Module) -> nn.Module | None:
    inner = _compiled(model)
    if inner is None and type(model).__name__ in {"DataParallel", "DistributedDataParallel"}:
        inner = model._modules.get("module")
    return inner


def tensors_in(value: object) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, tuples and dicts; nothing else is looked into."""
    yield from _instances_in(value, Tensor)


def _instances_in(value: object, kind: type, depth: int = _DEEPEST_CONTAINER) -> Iterator[Any]:
    if isinstance(value, kind):
        yield value
    elif depth and isinstance(value, (list, tuple, dict)):
        for item in list(value.values()) if isinstance(value, dict) else list(value):
            if isinstance(item, (kind, list, tuple, dict)):
                yield from _instances_in(item, kind, depth - 1)


def _all_modules(model: nn.Module) -> dict[int, nn.Module]:
    """Return the modules of the tree and those in plain lists and dicts beside it, by their ids."""
    found: dict[int, nn.Module] = {}
    waiting = [model]
    while waiting:
        module = waiting.pop()
        if id(module) not in found:
            found[id(module)] = module
            waiting += [part for part in module._modules.values() if part is not None]
            for name, value in list(module.__dict__.items()):
                if name in _INBORN or type(value) in _ATOMS:
                    continue
                if (isinstance(value, (list, tuple)) or type(value) is dict) and value:
                    waiting += _instances_in(value, nn.Module)
    return found


def copy_modules(
    model: nn.Module, make: Callable[[Tensor], Tensor]
) -> tuple[nn.Module, list[tuple[nn.Module, nn.Module]]]:
    """Copy the tree of modules.

    Parameters
    ----------
    model : nn.Module
        The root; it is only read.
    make : callable
        Tensor of the original -> tensor of the copy. The identity shares it.

    Returns
    -------
    module : nn.Module
        The copy of the root, with every module of its tree in eval mode.
    pairs : list of (nn.Module, nn.Module)
        Each module that was met, also those hidden in plain lists and objects, with its copy.

    Raises
    ------
    CannotShareError
        A part is compiled by TorchScript, or copies itself in its own way.
    """
    parts = parts_of(model)
    for module in parts:
        if isinstance(module, torch.jit.ScriptModule):
            raise CannotShareError(f"{type(module).__name__} is compiled by TorchScript")
    for attempt in range(_ATTEMPTS):
        modules = _all_modules(model)
        memo = _prefilled(modules, make)
        try:
            twin = _copy(model, modules, memo, make)
            break
        except RuntimeError as error:
            if "during iteration" not in str(error) or attempt == _ATTEMPTS - 1:
                raise CannotShareError(f"it cannot be copied ({error})") from error
        except Exception as error:
            raise CannotShareError(f"it cannot be copied ({error})") from error
    met = {id(part): part for part in memo.get(id(memo), ()) if isinstance(part, nn.Module)}
    met |= modules
    pairs = [(part, memo[id(part)]) for part in met.values() if _compiled(part) is None and id(part) in memo]
    copies = parts_of(twin)
    _check(parts, copies, make)
    for _, part in pairs:
        own = part.__dict__
        for holder in (own, own.get("_forward_hooks"), own.get("_forward_pre_hooks")):
            if holder and types.FunctionType in map(type, holder.values()):
                _rebind_closures(holder, memo)
    for part in copies:
        # Not ``eval()``: a user's own ``train`` may do more than set a flag (LoRA layers merge their
        # weights).
        part.__dict__["training"] = False
    return twin, pairs


def copy_value(value: Any, modules: dict[int, nn.Module], make: Callable[[Tensor], Tensor]) -> Any:
    """Copy one attribute as `copy_modules` does; ``modules`` maps ids of modules to their copies."""
    memo: dict[int, Any] = {id(tensor): make(tensor) for tensor in tensors_in(value)}
    _share_what_refuses(value, memo, modules)
    memo.update(modules)
    with _Make(make):
        return copy.deepcopy(value, memo)


def _compiled(module: nn.Module) -> nn.Module | None:
    """Return what ``torch.compile`` wrapped, or None. By name, for importing dynamo takes a second."""
    return module._modules.get("_orig_mod") if type(module).__name__ == "OptimizedModule" else None


def _prefilled(modules: dict[int, nn.Module], make: Callable[[Tensor], Tensor]) -> dict[int, Any]:
    memo: dict[int, Any] = {}
    for module in modules.values():
        for name, value in list(module.__dict__.items()):
            kind = type(value)
            if kind in _ATOMS:
                continue
            if kind in _PLAIN and not value:
                if name not in _INBORN:
                    memo[id(value)] = kind()
            elif name in {"_parameters", "_buffers"}:
                for tensor in value.values():
                    if tensor is not None and id(tensor) not in memo:
                        memo[id(tensor)] = make(tensor)
            elif name != "_modules":
                for tensor in tensors_in(value):
                    if id(tensor) not in memo:
                        memo[id(tensor)] = make(tensor)
                if isinstance(value, np.ndarray) and value.nbytes > _BIG_ARRAY_BYTES:
                    memo[id(value)] = value
    return memo


class _Make(TorchFunctionMode):
    """Sends every tensor that a deep copy meets through ``make``: ``Tensor.__deepcopy__`` comes by here."""

    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._make = make

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__deepcopy__ or func is Tensor.clone:  # a Parameter copies itself by a clone
            return self._make(args[0])
        return func(*args, **(kwargs or {}))


def _copy(
    model: nn.Module, modules: dict[int, nn.Module], memo: dict[int, Any], make: Callable[[Tensor], Tensor]
) -> nn.Module:
    # The innermost first: a compiled part is replaced by a copy of what was compiled.
    compiled = [part for part in parts_of(model) if _compiled(part) is not None]
    start = dict(memo)
    with _Make(make):
        try:
            for part in reversed(compiled):
                memo[id(part)] = copy.deepcopy(_compiled(part), memo)
            _copy_ordinary(modules, memo)
            return copy.deepcopy(model, memo)
        except RuntimeError as error:
            if "during iteration" in str(error):
                raise
        except Exception:  # noqa: BLE001  anything may be hung on a model, and may refuse in its own way
            pass
        memo.clear()
        memo.update(start)
        for part in modules.values():
            for name, value in list(part.__dict__.items()):
                if name != "_modules":
                    _share_what_refuses(value, memo, modules)
        for part in reversed(compiled):
            memo[id(part)] = copy.deepcopy(_compiled(part), memo)
        return copy.deepcopy(model, memo)


def _copy_ordinary(modules: dict[int, nn.Module], memo: dict[int, Any]) -> None:
    """Do what `deepcopy` does, in a fraction of its time, for modules that it copies by their attributes."""
    # From the leaves up: then no part is copied inside another one, however deep the tree.
    ordinary = {kind for kind in {*map(type, modules.values())} if _is_ordinary(kind)}
    for part in reversed(list(modules.values())):
        if id(part) in memo:
            continue
        kind = type(part)
        state = part.__dict__.copy() if kind in ordinary else _state(part)
        if state is not None:
            state.pop("_compiled_call_impl", None)  # as torch leaves it out of every copy
            made: Any = kind.__new__(kind)
            memo[id(part)] = made
            copied = {}
            for name, value in state.items():
                its = type(value)
                if its in _ATOMS:
                    copied[name] = value
                elif its in _PLAIN and not value and name in _INBORN:
                    copied[name] = its()
                else:
                    copied[name] = _copied(value, memo)
            made.__setstate__(copied)


def _state(part: nn.Module) -> dict[str, Any] | None:
    """Return the attributes that `deepcopy` would copy, or None where it goes another way."""
    kind = type(part)
    if hasattr(kind, "__deepcopy__") or kind in copyreg.dispatch_table:
        return None
    reduced = part.__reduce_ex__(4)
    make, args, state, *more = reduced if isinstance(reduced, tuple) else (None, None, None)
    ordinary = make is _NEW and args == (kind,) and type(state) is dict and not any(more)
    return state if ordinary else None


def _is_ordinary(kind: type[nn.Module]) -> bool:
    """Whether a class leaves it to torch how its objects are copied."""
    if hasattr(kind, "__deepcopy__") or kind in copyreg.dispatch_table:
        return False
    slots = any("__slots__" in base.__dict__ for base in kind.__mro__)
    return not slots and all(getattr(kind, name, None) is own for name, own in _PICKLING.items())


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        return value
    if id(value) in memo:
        return memo[id(value)]
    if kind is dict:
        made = memo[id(value)] = {}
        memo.setdefault(id(memo), []).append(value)  # what is known by its id must live
        for key, part in value.items():
            made[key if type(key) in _ATOMS else _copied(key, memo)] = _copied(part, memo)
        return made
    return copy.deepcopy(value, memo)


def _share_what_refuses(
    value: object, memo: dict[int, Any], modules: dict[int, Any], depth: int = _DEEPEST_CONTAINER
) -> None:
    """Put into ``memo``, as their own copies, the innermost parts of ``value`` that cannot be copied.

    The ``modules`` are not looked into: they are copied on their own.
    """
    try:
        copy.deepcopy(value, {**memo, **modules})
    except Exception:  # noqa: BLE001  as above
        if isinstance(value, (list, tuple, set, dict)):
            if depth:
                for item in list(value.values()) if isinstance(value, dict) else list(value):
                    _share_what_refuses(item, memo, modules, depth - 1)
        else:
            memo[id(value)] = value


def _check(parts: list[nn.Module], copies: list[nn.Module], make: Callable[[Tensor], Tensor]) -> None:
    """Make sure that the copies share the tensors and not one module; the roots come first."""
    known = {*map(id, parts)}
    for part in copies:
        if id(part) in known:
            raise CannotShareError(f"{type(part).__name__} copies itself in its own way")
    tensors = {id(make(tensor)) for tensor in _owned(parts)}
    if not tensors.issuperset(map(id, _owned(copies))):
        raise CannotShareError(f"{type(copies[0]).__name__} copies its tensors in its own way")


def parts_of(model: nn.Module) -> list[nn.Module]:
    """Return the modules of the tree, each once; `Module.modules` makes up a name for each on the way."""
    found = {id(model): model}
    waiting = [model]
    while waiting:
        for part in waiting.pop()._modules.values():
            if part is not None and id(part) not in found:
                found[id(part)] = part
                waiting.append(part)
    return list(found.values())


def _owned(parts: list[nn.Module]) -> Iterator[Tensor]:
    """Yield the parameters and buffers of these modules, without those of their parts."""
    for part in parts:
        for tensors in (part._parameters, part._buffers):
            if tensors:
                for tensor in tensors.values():
                    if tensor is not None:
                        yield tensor


def named_parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield each module of the tree by each of its names, in the order of ``named_modules``.

    As that does with ``remove_duplicate=False``, which hands every module up through all that hold it.
    """
    waiting: list[tuple[str, nn.Module]] = [("", model)]
    while waiting:
        path, part = waiting.pop()
        yield path, part
        if part._modules:
            inside = f"{path}." if path else ""
            named = [(inside + name, child) for name, child in part._modules.items() if child is not None]
            waiting += reversed(named)


def named_weights(model: nn.Module, kind: str = "_parameters") -> Iterator[tuple[str, Tensor]]:
    """Yield each parameter (or, of the kind ``_buffers``, buffer) by each of its names, in torch's order."""
    return weights_of(named_parts(model), kind)


def weights_of(
    parts: Iterable[tuple[str, nn.Module]], kind: str = "_parameters"
) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters or buffers of these parts, without those of the parts in them, by their names."""
    for path, part in parts:
        tensors = getattr(part, kind)
        if tensors:
            inside = f"{path}." if path else ""
            for name, tensor in tensors.items():
                if tensor is not None:
                    yield inside + name, tensor


def _rebind_closures(holder: dict[Any, Any], memo: dict[int, Any]) -> None:
    """Replace functions such as ``lambda x: self.act(x)``: a copy must call its own modules."""
    for name, function in list(holder.items()):
        if not isinstance(function, types.FunctionType) or not function.__closure__:
            continue
        cells = []
        for cell in function.__closure__:
            content = cell.cell_contents if _filled(cell) else None
            new = memo.get(id(content)) if isinstance(content, nn.Module) else None
            cells.append(cell if new is None else types.CellType(new))
        if any(new is not old for new, old in zip(cells, function.__closure__, strict=True)):
            again = types.FunctionType(
                function.__code__,
                function.__globals__,
                function.__name__,
                function.__defaults__,
                tuple(cells),
            )
            again.__kwdefaults__ = function.__kwdefaults__
            holder[name] = again


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  an empty cell raises
    except ValueError:
        return False
    return True
