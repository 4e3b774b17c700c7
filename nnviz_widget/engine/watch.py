"""What the user did to the model since the last look: rebound tensors, new values, changed attributes.

Reading only. What changed in *structure* (modules, parameters, hooks, objects) needs a new twin; a changed
*value* (a tensor's version or address, a number) only a new link. Attributes that the model's own forward
writes, such as the attention map it keeps for later, are neither: `Watched.restore` learns them.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nnviz_widget.engine.sharing import copy_value, tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Glance", "Held", "Probe", "Seen", "Watched"]

_SCALARS = frozenset(
    {bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size}
)
_CONTAINERS = (list, dict, set)
_HOLDERS = (*_CONTAINERS, tuple)
_PLAIN = frozenset({list, dict, set, OrderedDict})
_DICTS = frozenset({dict, OrderedDict})
_EMPTY: dict[str, object] = {}
_INTERNALS = frozenset(nn.Module().__dict__) | {"_compiled_call_impl"}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_TOGETHER = 64  # tensors that are probed by one operation
_SAMPLES = 256  # values of each tensor that a probe compares
_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of a value


@dataclass(eq=True)
class Seen:
    """One look at a model: compared, it tells whether anything changed."""

    structure: list[object] = field(default_factory=list)
    numbers: list[object] = field(default_factory=list)
    marks: list[tuple[int, ...]] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list, compare=False)

    def add(self, tensor: Tensor | None) -> None:
        """Note a tensor's identity, version and address."""
        if tensor is not None:
            self.tensors.append(tensor)
            self.marks.append(_mark(tensor))

    def still(self) -> bool:
        """Whether no counter of these tensors has moved since."""
        return self.marks == [_mark(tensor) for tensor in self.tensors]


def _mark(tensor: Tensor) -> tuple[int, ...]:
    try:
        return id(tensor), tensor._version, tensor.data_ptr()
    except RuntimeError:  # inference tensors count no versions, sparse ones have no address
        return id(tensor), _address(tensor)


def _address(tensor: Tensor) -> int:
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return 0


class Glance:
    """The same look once more, and quickly: as long as nothing was rebound, only counters can have moved.

    Parameters
    ----------
    watched : list of Watched
        All modules of a model.
    seen : Seen
        A look at them.
    """

    def __init__(self, watched: list[Watched], seen: Seen) -> None:
        self._seen = seen
        self._holders: list[Any] = []
        for each in watched:
            own = each.original.__dict__
            self._holders += [own, *(own[kind] for kind in ("_parameters", "_buffers", "_modules", *_HOOKS))]
            self._holders += each.containers
        self._before = [_copied(holder) for holder in self._holders]

    def again(self) -> Seen | None:
        """Return what is seen now, or None where something was rebound."""
        try:
            # Equality looks at identity first, so all but what was rebound takes no time; and a tensor
            # that was rebound to another of the same shape refuses to say whether it is equal.
            if self._holders != self._before:
                return None
        except (RuntimeError, ValueError, TypeError):
            return None
        seen = self._seen
        return Seen(seen.structure, seen.numbers, [_mark(t) for t in seen.tensors], seen.tensors)


def _copied(holder: Any) -> Any:
    """Copy what an attribute holds, to be compared with."""
    kind = type(holder)
    if kind in _DICTS and not holder:
        return _EMPTY  # most are: one stands for all
    # Its own method: `copy.copy` takes an ordered dict apart and puts it together again.
    return holder.copy() if kind in _PLAIN else copy.copy(holder)


class Watched:
    """One module, its twin, and what the twin was last given.

    Parameters
    ----------
    original, twin : nn.Module
        The same module where the model runs itself: then only its tensors are watched.
    scratch : set of str
        Attributes already known to be written by the forward.
    """

    def __init__(self, original: nn.Module, twin: nn.Module, scratch: set[str]) -> None:
        self.original, self.twin, self.scratch = original, twin, scratch
        self._source: dict[str, Any] = {}
        self._given: dict[str, Any] = {}
        self._length: dict[str, int] = {}
        # The attributes at the last look, held so that no id is used twice, and what was found in them.
        self._ids: list[int] = []
        self._held: list[object] = []
        self._shape: tuple[object, ...] = ()
        self._numbers: tuple[object, ...] = ()
        self._tensors: list[Tensor] = []
        self.containers: list[Any] = []
        self._linked = True
        if original is not twin:
            own, given = original.__dict__, twin.__dict__
            for name in own.keys() - _INTERNALS:
                if name in own and name in given:
                    self._note(name, own[name], given[name])

    def look(self, seen: Seen) -> None:
        """Add what this module is now to ``seen``."""
        if self.original is self.twin:
            for tensor in (*self.original.parameters(recurse=False), *self.original.buffers(recurse=False)):
                seen.add(tensor)
            return
        own, structure = self.original.__dict__, seen.structure
        if own["_modules"]:
            structure.append(list(own["_modules"].items()))
        if own["_parameters"]:
            for name, parameter in list(own["_parameters"].items()):
                structure.append((name, id(parameter)))
                seen.add(parameter)
        if own["_buffers"]:
            for name, buffer in list(own["_buffers"].items()):
                structure.append(name)
                seen.add(buffer)
        for kind in _HOOKS:
            if own[kind]:
                structure.append((kind, list(own[kind])))
        self._look_at_attributes(own)
        structure.append(self._shape)
        seen.numbers.append(self._numbers)
        for tensor in self._tensors:
            seen.add(tensor)
        for container in self.containers:
            structure.append(len(container))
            for tensor in tensors_in(container):
                seen.add(tensor)

    def _look_at_attributes(self, own: dict[str, Any]) -> None:
        """Sort what the user hung on the module; hardly ever does anything change, which is quick to see."""
        ids = [*map(id, own.values())]
        if ids == self._ids:
            return
        items = list(own.items())
        self._held = [value for _, value in items]
        self._ids, self._linked = [*map(id, self._held)], False
        items = [(name, v) for name, v in items if name not in _INTERNALS and name not in self.scratch]
        followed = {name for name, v in items if type(v) in _SCALARS or isinstance(v, Tensor)}
        self._shape = tuple(name if name in followed else (name, id(v)) for name, v in items)
        self._numbers = tuple(v for _, v in items if type(v) in _SCALARS)
        self._tensors = [v for _, v in items if isinstance(v, Tensor)]
        self.containers = [v for _, v in items if isinstance(v, _HOLDERS)]

    def link(self, make: Callable[[Tensor], Tensor]) -> None:
        """Give the twin the buffers, tensors and numbers that the original has now."""
        own, twin = self.original.__dict__, self.twin.__dict__
        if own["_buffers"]:
            for name, tensor in list(own["_buffers"].items()):
                made = tensor if tensor is None else make(tensor)
                if twin["_buffers"].get(name) is not made:
                    twin["_buffers"][name] = made
        if self._linked:
            return
        self._linked = True
        for name, value in list(own.items()):
            if name in self._source and self._source[name] is not value:
                if isinstance(value, Tensor):
                    self._give(name, value, make(value))
                elif type(value) in _SCALARS:
                    self._give(name, value, value)

    def written(self) -> set[str]:
        """Return the names of the twin's attributes that the pass added, replaced or grew."""
        twin, given = self.twin.__dict__, self._given
        return {
            name
            for name in twin.keys() - _INTERNALS
            if given.get(name, self) is not twin[name]
            or (name in self._length and len(twin[name]) != self._length[name])
        }

    def restore(self, modules: dict[int, nn.Module], make: Callable[[Tensor], Tensor]) -> None:
        """Undo what `written` tells and remember it as scratch."""
        twin = self.twin.__dict__
        for name in self.written():
            self.scratch.add(name)
            self._ids = []
            if name not in self._given:
                del twin[name]
            elif twin[name] is not self._given[name]:
                twin[name] = self._given[name]
            if name in twin and isinstance(twin[name], _CONTAINERS) and len(twin[name]) != self._length[name]:
                value = self.original.__dict__.get(name, twin[name])
                self._give(name, value, copy_value(value, modules, make))

    def _give(self, name: str, source: Any, value: Any) -> None:
        self.twin.__dict__[name] = value
        self._note(name, source, value)

    def _note(self, name: str, source: Any, value: Any) -> None:
        """Remember what the twin has, and what of the original it stands for."""
        self._source[name], self._given[name] = source, value
        if isinstance(value, _CONTAINERS):
            self._length[name] = len(value)
        else:
            self._length.pop(name, None)


class Probe:
    """A few values of each tensor, compared bit by bit: sees the writes that move no version counter.

    Parameters
    ----------
    tensors : list of Tensor
        Those with plain dense memory are sampled, the others are not.
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        self._key = [(id(t), _address(t)) for t in tensors]
        groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        with torch.no_grad():
            for tensor in tensors:
                view = _samples(tensor)
                if view is not None:
                    groups.setdefault((tensor.device, tensor.dtype), []).append(view)
        # In parts so small that torch does not wake its other threads for them, which are busy with training.
        self._groups = [
            views[i : i + _TOGETHER] for views in groups.values() for i in range(0, len(views), _TOGETHER)
        ]
        self._values = self._read()

    def fits(self, tensors: list[Tensor]) -> bool:
        """Whether this probe looks at these tensors."""
        return self._key == [(id(t), _address(t)) for t in tensors]

    def changed(self) -> bool:
        """Look again; whether any sampled value differs from the last look."""
        old, self._values = self._values, self._read()
        return not all(torch.equal(a, b) for a, b in zip(old, self._values, strict=True))

    def _read(self) -> list[Tensor]:
        with torch.no_grad():
            return [_bits(torch.cat(views)) for views in self._groups]


class Held:
    """Tells whether a few tensors still hold what they held when it was made.

    Parameters
    ----------
    tensors : list of Tensor
        Those that matter for one answer, fewer than all of the model's.
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        self._seen = Seen()
        for tensor in tensors:
            self._seen.add(tensor)
        self._probe = Probe(tensors)

    def still(self) -> bool:
        """Look at counters, addresses and a few values."""
        return self._seen.still() and not self._probe.changed()


def _bits(values: Tensor) -> Tensor:
    """Return the same memory as whole numbers: no more of them than values, for the sake of other threads."""
    return values.view(_WHOLE[min(values.element_size(), 8)])


def _samples(tensor: Tensor) -> Tensor | None:
    """Return a strided view of about `_SAMPLES` values, one in each row where there are fewer rows."""
    count = tensor.numel()
    dense = tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_meta
    if not count or not dense or type(tensor) not in (Tensor, nn.Parameter):
        return None
    extent = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    if extent != count:  # a view with holes, or expanded
        return None
    # A little more than evenly spread: the samples then walk through the columns too, and still miss no row.
    step = -(-count // _SAMPLES)
    step += count // len(tensor) // _SAMPLES if tensor.dim() > 1 else 0
    return tensor.detach().as_strided((-(-count // step),), (step,))
