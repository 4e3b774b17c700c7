"""Activations that were asked for: held within a budget of bytes, or computed again from what is held.

A kept activation is a `Cell`. Where a model overwrites one in place (the usual ``ReLU(inplace=True)`` behind
a batch norm), a copy would cost memory and time that nobody may ever want; if the value follows from other
kept values by one cheap operation, the cell holds that as a `Recipe` instead, with its own copies of the few
weights that it takes. It gives the same bits. Running a model to get an activation back is not done here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

__all__ = ["Activations", "Cell", "Recipe", "size_of", "storage_key", "version_of"]


class Cell:
    """One kept activation: a tensor, a recipe for it, or both; neither once it was let go.

    While a pass runs, the cells over one piece of memory form a chain, from the newest to the `older` ones.
    """

    __slots__ = ("older", "recipe", "tensor", "version")

    def __init__(self, tensor: Tensor, older: Cell | None = None) -> None:
        self.tensor: Tensor | None = tensor
        self.recipe: Recipe | None = None
        self.older = older
        self.version = version_of(tensor)

    @property
    def depth(self) -> int:
        """How many recipes in a row lead here."""
        return self.recipe.depth if self.recipe is not None else 0

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return self.tensor.numel() * self.tensor.element_size() if self.tensor is not None else 0

    def value(self) -> Tensor | None:
        """Return the activation, computed if need be; None where that is no longer possible."""
        if self.tensor is None and self.recipe is not None:
            self.tensor = self.recipe.compute()
            self.version = version_of(self.tensor) if self.tensor is not None else 0
        return self.tensor


class Recipe:
    """One operation on kept values.

    Parameters
    ----------
    func : callable
        What to call.
    args, kwargs
        With what; a `Cell` stands for its value, at any depth of tuples and lists.
    inplace : bool
        Whether it writes into its first argument, of which it then gets a copy.
    """

    def __init__(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, inplace: bool
    ) -> None:
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.inplace = inplace
        cells = [part for part in (*args, *kwargs.values()) if isinstance(part, Cell)]
        self.depth = 1 + max((cell.depth for cell in cells), default=0)

    def compute(self) -> Tensor | None:
        """Compute the value; None where an ingredient is gone."""
        try:
            args = [_ingredient(part) for part in self.args]
            kwargs = {key: _ingredient(part) for key, part in self.kwargs.items()}
        except LookupError:
            return None
        with torch.no_grad():
            if self.inplace:
                args[0] = args[0].clone()
            result = self.func(*args, **kwargs)
        return result if isinstance(result, torch.Tensor) else None


def _ingredient(part: Any) -> Any:
    if not isinstance(part, Cell):
        return part
    value = part.value()
    if value is None:
        raise LookupError("an activation was let go")
    return value


class Activations(Mapping[str, "torch.Tensor"]):
    """Activations by id. Reading one may compute it; those not read for longest are let go over the budget.

    Parameters
    ----------
    cells : mapping of str to Cell
        What there is; an id stays known after its activation was let go.
    budget : int, optional
        Bytes to hold.
    """

    def __init__(self, cells: Mapping[str, Cell] | None = None, budget: int | None = None) -> None:
        self.cells: OrderedDict[str, Cell] = OrderedDict(cells or {})
        self.budget = budget
        self._lock = threading.RLock()

    def __getitem__(self, name: str) -> Tensor:
        """Return an activation; KeyError where it is unknown or was let go."""
        with self._lock:
            cell = self.cells[name]
            grew = cell.tensor is None
            value = cell.value()
            if value is None:
                raise KeyError(name)
            self.cells.move_to_end(name)
            if grew:
                self.shrink(spare=name)
            return value

    def __iter__(self) -> Iterator[str]:
        return iter(list(self.cells))

    def __len__(self) -> int:
        return len(self.cells)

    def __contains__(self, name: object) -> bool:
        return name in self.cells

    def holds(self, name: str) -> bool:
        """Whether reading this one costs nothing, or a single cheap operation."""
        cell = self.cells.get(name)
        return cell is not None and (cell.tensor is not None or cell.recipe is not None)

    def put(self, name: str, tensor: Tensor) -> None:
        """Put back an activation that was let go."""
        with self._lock:
            cell = self.cells.get(name)
            if cell is None:
                self.cells[name] = Cell(tensor)
            else:
                cell.tensor, cell.version = tensor, version_of(tensor)
            self.cells.move_to_end(name)
            self.shrink(spare=name)

    def places(self) -> list[list[Cell]]:
        """List what is held by the memory it lies in, that which was not read for longest first."""
        found: dict[int, list[Cell]] = {}
        for cell in self.cells.values():
            if cell.tensor is not None:
                place = storage_key(cell.tensor) or -id(cell)
                found[place] = [*found.pop(place, ()), cell]  # as late as the last that was read
        return list(found.values())

    @property
    def nbytes(self) -> int:
        """Bytes held; tensors in the same memory count once."""
        return sum(size_of(cells) for cells in self.places())

    def shrink(self, spare: str = "") -> None:
        """Let go of what was not read for longest, until the budget holds; never of `spare`."""
        if self.budget is None:
            return
        with self._lock:
            if sum([cell.nbytes for cell in self.cells.values()]) <= self.budget:  # at most
                return
            places = self.places()
            excess = sum(size_of(cells) for cells in places) - self.budget
            for cells in places:
                if excess <= 0:
                    return
                if self.cells.get(spare) not in cells:
                    excess -= size_of(cells)
                    for cell in cells:
                        cell.tensor = None

    def clear(self) -> None:
        """Let go of all of them; the ids stay known."""
        with self._lock:
            for cell in self.cells.values():
                cell.tensor = cell.recipe = None


def storage_key(tensor: Tensor) -> int:
    """Identify the storage of a tensor; 0 for tensors that have none (sparse, nested, functorch's)."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError, AttributeError):
        return 0


def version_of(tensor: Tensor) -> int:
    """Return how often the tensor was written in place; -1 where nobody counts."""
    try:
        return tensor._version
    except RuntimeError:  # inference tensors
        return -1


def size_of(cells: list[Cell]) -> int:
    """Bytes of cells that lie in the same memory."""
    return max(cell.nbytes for cell in cells)
