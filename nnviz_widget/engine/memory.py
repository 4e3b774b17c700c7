"""Which tensor is which value, and whose memory it is.

The recorder asks here: what produced this tensor, which other values live in the memory that is about to be
written, may it be written at all. Three rules are kept:

* a kept activation never changes: before memory that it shares is written, it is copied (`Memory.write`);
* memory that the run did not make itself (parameters, buffers, inputs, constants) is never written: the
  write, and everything that reads that memory later, goes to a private copy (`Memory.divert`);
* tensors are held weakly, so that recording costs no more memory than what is asked to be kept.

Values are keyed by the identity of the tensor object, memory by the identity of its storage. Nothing here
knows functions, modules or graphs.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from torch import Tensor

    from nnviz_widget.engine.recording import Layout, Ref

__all__ = ["Cell", "Kept", "Memory", "layout_of", "storage_key", "version_of"]


class Cell:
    """One kept activation; several ids may name it."""

    __slots__ = ("ids", "nbytes", "tensor", "version")

    def __init__(self, tensor: Tensor, nbytes: int) -> None:
        self.tensor = tensor
        self.nbytes = nbytes
        self.version = version_of(tensor)
        self.ids: list[str] = []


class _Entry(NamedTuple):
    tensor: weakref.ref[Tensor]
    ref: Ref
    storage: int


class Memory:
    """Values and storages of one run."""

    def __init__(self) -> None:
        self._values: dict[int, _Entry] = {}
        self._living: dict[int, list[weakref.ref[Tensor]]] = {}
        self._foreign: dict[int, object] = {}
        self._cells: dict[int, list[Cell]] = {}
        self._private: dict[int, Tensor] = {}
        self._stand_ins: dict[int, tuple[Tensor, Tensor]] = {}
        #: True once some tensor has a stand-in: only then need arguments be looked through for them.
        self.diverted = False

    # -- values ---------------------------------------------------------------------------------------------

    def find(self, tensor: Tensor) -> Ref | None:
        """Return the value that this tensor object holds now, or None for one never seen."""
        entry = self._values.get(id(tensor))
        return entry.ref if entry is not None and entry.tensor() is tensor else None

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
        old = self._values.get(id(tensor))
        key = storage_key(tensor)
        if old is not None and old.tensor() is tensor and old.storage == key:
            self._values[id(tensor)] = _Entry(old.tensor, ref, key)
        else:
            weak = weakref.ref(tensor)
            self._values[id(tensor)] = _Entry(weak, ref, key)
            if key:
                living = self._living.get(key)
                if living is None or living[0]() is None:
                    self._living[key] = [w for w in living or () if w() is not None] + [weak]
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
                if entry is not None and entry.storage == key:
                    yield tensor

    def overlapping(self, written: Tensor) -> list[Tensor]:
        """List the other tensors alive that share memory with `written`."""
        key = storage_key(written)
        if not key or len(self._living.get(key, ())) < 2:
            return []
        low, high = _span(written)
        found = []
        for tensor in self._alive(key):
            start, end = _span(tensor)
            if tensor is not written and start < high and low < end:
                found.append(tensor)
        return found

    # -- kept activations -----------------------------------------------------------------------------------

    def keep(self, tensor: Tensor) -> Cell:
        """Keep what `tensor` holds now, whatever is written into its memory later."""
        key = storage_key(tensor)
        cells = self._cells.setdefault(key, [])
        for cell in cells:
            if cell.tensor is tensor:
                return cell
        # Memory that is there anyway, or kept already, costs nothing more.
        free = bool(cells) or key in self._foreign
        cell = Cell(tensor, 0 if free else tensor.numel() * tensor.element_size())
        cells.append(cell)
        return cell

    def forget(self, cell: Cell) -> None:
        """Stop protecting a kept activation."""
        cells = self._cells.get(storage_key(cell.tensor), [])
        if cell in cells:
            cells.remove(cell)

    def secure(self, written: Tensor) -> None:
        """Copy every kept activation in the memory that is about to be written."""
        for cell in self._cells.pop(storage_key(written), ()):
            cell.tensor = cell.tensor.clone()
            cell.nbytes = cell.tensor.numel() * cell.tensor.element_size()
            cell.version = version_of(cell.tensor)

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
                flat = self._private[key] = _over(tensor.untyped_storage().clone(), tensor)
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
    """Which activations are asked for, and the cells that hold them, within a budget of bytes.

    Parameters
    ----------
    keep : "all", collection of str, or None
        Ids to keep.
    budget : int, optional
        Bytes; where more is asked for, the largest are let go.
    """

    def __init__(self, keep: str | Collection[str] | None, budget: int | None) -> None:
        self.all = keep == "all"
        self.wanted = frozenset() if keep is None or isinstance(keep, str) else frozenset(keep)
        self.budget = budget
        self.memory = Memory()
        self._cells: dict[str, Cell] = {}
        self._bytes = 0
        self._dropped: set[str] = set()

    def keep(self, name: str, tensor: Tensor) -> None:
        """Keep what `tensor` holds now under the id `name`, if that is asked for."""
        if not self.all and name not in self.wanted:
            return
        cell = self.memory.keep(tensor)
        if not cell.ids:
            self._bytes += cell.nbytes
        cell.ids.append(name)
        self._cells[name] = cell
        if self.budget is not None and self._bytes > self.budget:
            self._shrink(self.budget)

    def drop(self, name: str) -> None:
        """Forget an id that turned out to be none."""
        cell = self._cells.pop(name, None)
        if cell is not None:
            cell.ids.remove(name)

    def _shrink(self, budget: int) -> None:
        for cell in sorted({id(c): c for c in self._cells.values()}.values(), key=lambda c: -c.nbytes):
            if self._bytes <= budget:
                return
            self._bytes -= cell.nbytes
            self.memory.forget(cell)
            self._dropped.update(cell.ids)
            for name in cell.ids:
                del self._cells[name]
            cell.ids = []

    def activations(self) -> tuple[dict[str, Tensor], set[str]]:
        """Return the activations by id, and the ids of those let go.

        Let go as well is what changed without a write that could be seen (by an extension in C, for
        instance).
        """
        kept = {}
        for name, cell in self._cells.items():
            if cell.version == version_of(cell.tensor) or self.memory.is_foreign(cell.tensor):
                kept[name] = cell.tensor
            else:
                self._dropped.add(name)
        return kept, self._dropped


def storage_key(tensor: Tensor) -> int:
    """Identify the storage of a tensor; 0 for tensors that have none (sparse, nested, functorch's)."""
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError, AttributeError):
        return 0


def _over(storage: torch.UntypedStorage, like: Tensor, layout: Layout | None = None) -> Tensor:
    """Return a tensor of the type of `like` over a storage: all of it, flat, or in that layout."""
    empty: Any = torch.empty(0, dtype=like.dtype, device=like.device)
    if layout is None:
        return empty.set_(storage)
    shape, stride, offset = layout
    return empty.set_(storage, offset, shape, stride)


def layout_of(tensor: Tensor) -> Layout:
    """Return shape, strides and storage offset."""
    return tuple(tensor.shape), tuple(tensor.stride()), tensor.storage_offset()


def _span(tensor: Tensor) -> tuple[int, int]:
    if tensor.numel() == 0:
        return 0, 0
    size = tensor.element_size()
    start = tensor.storage_offset()
    reach = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return start * size, (start + reach + 1) * size


def version_of(tensor: Any) -> int:
    """Return how often the tensor was written in place; -1 where nobody counts."""
    try:
        return int(tensor._version)
    except RuntimeError:  # inference tensors
        return -1
