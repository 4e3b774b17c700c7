"""Which tensor is which value, and whose memory it is.

The recorder asks here: what produced this tensor, which other values live in the memory that is about to be
written, may it be written at all. Three rules are kept:

* a kept activation never changes: before memory that it shares is written, it is copied
  (`Memory.secure`), or a way to compute it again is written down;
* memory that the run did not make itself (parameters, buffers, inputs, constants) is never written: the
  write, and everything that reads that memory later, goes to a private copy (`Memory.divert`);
* tensors are held weakly, so that recording costs no more memory than what is asked to be kept.

Values are keyed by the identity of the tensor object, memory by the identity of its storage. Nothing here
knows functions, modules or graphs.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.activations import Activations, Cell, size_of, storage_key, version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from torch import Tensor

    from nnviz_widget.engine.activations import Recipe
    from nnviz_widget.engine.recording import Layout, Ref

__all__ = ["Kept", "Memory", "layout_of"]

#: Bytes up to which it is found out exactly whether two tensors overlap.
_LARGEST = 1 << 26


class Memory:
    """Values and storages of one run."""

    def __init__(self) -> None:
        #: Tensor, value and storage, by the identity of the tensor object.
        self._values: dict[int, tuple[weakref.ref[Tensor], Ref, int]] = {}
        self._living: dict[int, list[weakref.ref[Tensor]]] = {}
        self._foreign: dict[int, object] = {}
        #: The newest cell over each storage, which leads to the others.
        self._cells: dict[int, Cell] = {}
        self._kept: dict[Ref, Cell] = {}
        #: Private copy of each diverted storage, and the way back.
        self._private: dict[int, Tensor] = {}
        self._origin: dict[int, int] = {}
        self._stand_ins: dict[int, tuple[Tensor, Tensor]] = {}
        #: True once some tensor has a stand-in: only then need arguments be looked through for them.
        self.diverted = False

    # -- values ---------------------------------------------------------------------------------------------

    def find(self, tensor: Tensor) -> Ref | None:
        """Return the value that this tensor object holds now, or None for one never seen."""
        entry = self._values.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def sibling(self, tensor: Tensor) -> Tensor | None:
        """Return another tensor alive in the same storage, if any; the same view of it where there is one."""
        found = None
        for alive in self._alive(storage_key(tensor)):
            if alive is not tensor:
                found = alive
                if alive.dtype == tensor.dtype and layout_of(alive) == layout_of(tensor):
                    break
        return found

    def bind(self, tensor: Tensor, ref: Ref, *, foreign: bool = False) -> None:
        """Let `tensor` hold the value `ref` from now on; `foreign` memory is not the run's own to write."""
        identity = id(tensor)
        old = self._values.get(identity)
        key = storage_key(tensor)
        if old is not None and old[0]() is tensor and old[2] == key:
            self._values[identity] = (old[0], ref, key)
        else:
            weak = weakref.ref(tensor)
            self._values[identity] = (weak, ref, key)
            living = self._living.get(key)
            if living is None:
                self._living[key] = [weak]
            elif living[0]() is None:  # memory that was freed and given out again
                self._living[key] = [*(other for other in living if other() is not None), weak]
            else:
                living.append(weak)
        if foreign and key:
            # The storage is held, so that its address cannot come to mean other memory.
            self._foreign[key] = tensor

    def _alive(self, key: int) -> Iterator[Tensor]:
        for weak in self._living.get(key, ()):
            tensor = weak()
            if tensor is not None:
                entry = self._values.get(id(tensor))
                if key and entry is not None and entry[2] == key:
                    yield tensor

    def overlapping(self, written: Tensor) -> list[Tensor]:
        """List the other tensors alive that share memory with `written`, or whose stand-ins do."""
        key = storage_key(written)
        origin = self._origin.get(key, 0)
        if not key or len(self._living.get(key, ())) + bool(origin) < 2:
            return []
        low, high = _span(written)
        found = []
        for tensor in [*self._alive(key), *self._alive(origin)]:
            start, end = _span(tensor)
            if tensor is not written and start < high and low < end and _interlock(tensor, written):
                found.append(tensor)
        return found

    # -- kept activations -----------------------------------------------------------------------------------

    def keep(self, tensor: Tensor) -> Cell:
        """Keep what `tensor` holds now, whatever is written into its memory later."""
        entry = self._values.get(id(tensor))
        if entry is None or entry[0]() is not tensor:
            return self._new_cell(tensor, storage_key(tensor))
        _, ref, key = entry
        known = self._kept.get(ref)
        if known is not None and known.tensor is tensor:
            return known
        cell = self._kept[ref] = self._new_cell(tensor, key)
        return cell

    def _new_cell(self, tensor: Tensor, key: int) -> Cell:
        cell = self._cells[key] = Cell(tensor, self._cells.get(key))
        return cell

    def kept(self, ref: Ref) -> Cell | None:
        """Return the cell that keeps this value, if one does."""
        return self._kept.get(ref)

    def secure(self, written: Tensor, recipe: Callable[[Ref], Recipe | None]) -> None:
        """See to it that the kept activations survive a write to this memory: by a recipe, or else a copy."""
        cell = self._cells.pop(storage_key(written), None)
        while cell is not None:
            if cell.tensor is not None:
                ref = self.find(cell.tensor)
                how = recipe(ref) if ref is not None and self._kept.get(ref) is cell else None
                if how is not None:
                    cell.tensor, cell.recipe = None, how
                else:
                    cell.tensor = cell.tensor.clone()
                    cell.version = version_of(cell.tensor)
            cell.older, cell = None, cell.older

    # -- memory that is not ours ----------------------------------------------------------------------------

    def is_foreign(self, tensor: Tensor) -> bool:
        """Whether this tensor lies in memory that the run did not make."""
        return storage_key(tensor) in self._foreign

    def divert(self, tensor: Tensor) -> Tensor:
        """Return the tensor's stand-in in a private copy of its memory, made when first asked for."""
        return self._stand_in(tensor, storage_key(tensor))

    def replace(self, tensor: Tensor, by: Tensor) -> None:
        """Use `by` wherever `tensor` is used from now on."""
        self._stand_ins[id(tensor)] = (tensor, by)
        self.diverted = True

    def current(self, tensor: Tensor) -> Tensor:
        """Return the tensor to compute with: its stand-in where it has one, else itself."""
        known = self._stand_ins.get(id(tensor))
        if known is not None and known[0] is tensor:
            return known[1]
        key = storage_key(tensor)
        return self._stand_in(tensor, key) if key in self._private else tensor

    def _stand_in(self, tensor: Tensor, key: int) -> Tensor:
        known = self._stand_ins.get(id(tensor))
        if known is not None and known[0] is tensor:
            return known[1]
        with torch.no_grad():
            flat = self._private.get(key)
            if flat is None:
                flat = self._private[key] = _over(_copy(tensor.untyped_storage()), tensor)
                self._origin[storage_key(flat)] = key
        if flat.dtype == tensor.dtype:
            # A view of one flat tensor, so that autograd sees writes through one view in all others.
            view = flat.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
        else:
            view = _over(flat.untyped_storage(), tensor, layout_of(tensor))
        ref = self.find(tensor)
        self.replace(tensor, view)
        if ref is not None:
            self.bind(view, ref)
        return view


class Kept:
    """The activations that are asked for, while a pass runs.

    Parameters
    ----------
    keep : "all", collection of str, or None
        Ids to keep.
    budget : int, optional
        Bytes; where more is asked for, the largest are let go.
    """

    def __init__(self, keep: str | Collection[str] | None, budget: int | None) -> None:
        self.memory = Memory()
        self._all = keep == "all"
        self._wanted = frozenset() if keep is None or isinstance(keep, str) else frozenset(keep)
        self._budget = budget
        self._cells: dict[str, Cell] = {}
        self._bytes = 0

    def keep(self, name: str, tensor: Tensor) -> None:
        """Keep what `tensor` holds now under the id `name`, if that is asked for."""
        if self._all or name in self._wanted:
            self._cells[name] = self.memory.keep(tensor)
            if self._budget is not None:
                self._bytes += tensor.numel() * tensor.element_size()  # at most
                if self._bytes > self._budget:
                    self._shrink(self._budget)

    def drop(self, name: str) -> None:
        """Forget an id that turned out to be none."""
        self._cells.pop(name, None)

    def _shrink(self, budget: int) -> None:
        # Somewhat below the budget, so as not to look again at every operation.
        target = budget - budget // 5
        places = Activations(self._cells).places()
        self._bytes = sum(size_of(cells) for cells in places)
        for cells in sorted(places, key=size_of, reverse=True):
            if self._bytes <= target:
                return
            if not any(cell.tensor is not None and self.memory.is_foreign(cell.tensor) for cell in cells):
                self._bytes -= size_of(cells)
                for cell in cells:
                    cell.tensor = None

    def activations(self) -> Activations:
        """Return what was kept.

        Without what changed in a way that could not be seen (by an extension written in C, for instance).
        """
        for cell in self._cells.values():
            cell.older = None
            tensor = cell.tensor
            if (
                tensor is not None
                and cell.version != version_of(tensor)
                and not self.memory.is_foreign(tensor)
            ):
                cell.tensor = None
        return Activations(self._cells)


def _copy(storage: Any) -> torch.UntypedStorage:
    copied: torch.UntypedStorage = storage.clone()
    return copied


def _over(storage: torch.UntypedStorage, like: Tensor, layout: Layout | None = None) -> Tensor:
    """Return a tensor of the type of `like` over a storage: all of it, flat, or in that layout."""
    empty: Any = torch.empty(0, dtype=like.dtype, device=like.device)
    if layout is None:
        empty.set_(storage)
    else:
        shape, stride, offset = layout
        empty.set_(storage, offset, shape, stride)
    tensor: Tensor = empty
    return tensor


def layout_of(tensor: Tensor) -> Layout:
    """Return shape, strides and storage offset."""
    return tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset())


def _interlock(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors in the same stretch of memory share an element: two columns of a matrix do not."""
    high, end = _span(a)[1], _span(b)[1]
    if a.dtype != b.dtype or max(high, end) > _LARGEST:
        return True  # not worth finding out
    marks = torch.zeros(max(high, end) // a.element_size(), dtype=torch.bool)
    marks.as_strided(a.size(), a.stride(), a.storage_offset()).fill_(True)
    return bool(marks.as_strided(b.size(), b.stride(), b.storage_offset()).any())


def _span(tensor: Tensor) -> tuple[int, int]:
    if tensor.numel() == 0:
        return 0, 0
    size = tensor.element_size()
    start = int(tensor.storage_offset())
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return start * size, (start + reach + 1) * size
