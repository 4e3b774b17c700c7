"""The engine's own view of the user's model: it shares every tensor and owns its hooks and its flags.

A click may be answered while the user's own cell trains the model on another thread, so the user's modules
are never touched: not their flags, not their hooks, not their attributes. `Twin.sync`, before each job,
follows what the user did to the model since (rebound tensors, changed numbers, replaced modules), and counts
it: the *epoch* only grows, and grows whenever a weight, a buffer or an attribute may have changed. It reads
the tensors' version counters and addresses, and at the start and end of a job also a few values of each
tensor, because ``p.data.add_(...)`` moves no counter. A write through ``.data`` to a few single elements may
therefore go unseen; what an optimiser does is seen, and so is a whole filter, of up to 256.

A model that cannot be twinned runs itself, under a guard that puts everything back afterwards (`Twin.shared`
is False then). Running one pass, and the random numbers drawn in it, are ``recorder``'s business.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from nnviz_widget.engine.edits import Change, Edits
from nnviz_widget.engine.guard import guarded
from nnviz_widget.engine.sharing import CannotShareError, copy_modules, unwrap
from nnviz_widget.engine.watch import Glance, Held, Probe, Seen, Watched
from nnviz_widget.errors import InputError, ModelError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Twin"]

T = TypeVar("T")

_FREEZE_ATTEMPTS = 3


class Twin:
    """A copy of the model's modules over the very same tensors, in eval mode.

    Parameters
    ----------
    model : nn.Module
        The user's model; never changed. Wrappers of ``torch.compile``, ``DataParallel`` and
        ``DistributedDataParallel`` are looked through.
    device : torch.device, optional
        Where the twin computes. Where the model is elsewhere, the twin holds copies of its tensors, refreshed
        when they change. By default where the model is.

    Attributes
    ----------
    module : nn.Module
        What to run, inside `running`.
    shared : bool
        False when the model could not be twinned and runs itself: then not while it is being trained.
    note : str
        Why it could not, for people; empty otherwise.
    epoch : int
        Grows with every change that was noticed; `sync` and `read_epoch` look for changes.
    device : torch.device
        Where inputs belong.
    placed : bool
        False for a model without tensors, which computes wherever its inputs are.
    """

    module: nn.Module

    def __init__(self, model: nn.Module, *, device: torch.device | str | None = None) -> None:
        self._root = unwrap(model)
        self._lock = threading.RLock()
        tensor = next(chain(self._root.parameters(), self._root.buffers()), None)
        home = tensor.device if tensor is not None else torch.device("cpu")
        self.placed = tensor is not None or device is not None
        self.device = home if device is None else torch.empty(0, device=device).device
        if self.device.type == home.type == "cpu":
            self.device = home  # "cpu:0" is no other place
        self._copies: _Copies | None = None if self.device == home else _Copies(self.device)
        self._edits = Edits()
        self.epoch, self.shared, self.note = 0, True, ""
        self._contended, self._last, self._unprobed = False, 0, False
        self._watched: list[Watched] = []
        self._built: list[object] = []
        self._probe: Probe | None = None
        self._glance: Glance | None = None
        self._seen = self._build()
        self._advance(self._seen, probe=True)
        self._link(self._seen)

    def sync(self, *, probe: bool = True) -> int:
        """Bring the twin up to date with the model; to be called at the start of each job.

        Parameters
        ----------
        probe : bool
            As for `read_epoch`.

        Returns
        -------
        int
            The epoch that the twin now stands for.
        """
        with self._lock:
            seen = self._look()
            if seen.structure is not self._built and seen.structure != self._built:
                seen = self._build()
            epoch = self._advance(seen, probe=probe)
            if self._copies is not None and not self._copies.refresh(epoch):
                self._build()
            self._edits.refresh(epoch)
            if self._glance is None:
                self._link(seen)
            return epoch

    def read_epoch(self, *, probe: bool = False) -> int:
        """Look for changes of the model and return the epoch; safe on every thread.

        Parameters
        ----------
        probe : bool
            Also compare a few values of each tensor. That sees what moves no counter, for about one
            millisecond and a wait for the device.
        """
        with self._lock:
            return self._advance(self._look(), probe=probe)

    def frozen(self) -> tuple[nn.Module, int, bool]:
        """Make a twin with private copies of every tensor, for a pass that training must not touch.

        Returns
        -------
        module : nn.Module
            The private twin (the model itself where it cannot be twinned).
        epoch : int
            The epoch it stands for.
        consistent : bool
            Whether the weights held still while they were copied.
        """
        if not self.shared:
            return self.module, self.sync(), False
        consistent, epoch = False, self.epoch
        copies = _Copies(self.device)
        for _ in range(_FREEZE_ATTEMPTS):
            epoch = self.sync()
            copies = _Copies(self.device)
            for tensor in self._look().tensors:
                copies(tensor)
            consistent = self._still(epoch)
            if consistent:
                break

        def make(tensor: Tensor) -> Tensor:
            copied = copies(tensor)
            self._edits.write(tensor, copied)
            return copied

        return copy_modules(self._root, make)[0], epoch, consistent

    def scratch(self, module: nn.Module) -> nn.Module:
        """Copy the twin, or what `frozen` gave, with private copies of every tensor, to be changed at will.

        Raises
        ------
        InputError
            The model cannot be copied.
        """
        if not self.shared:
            raise InputError(f"This needs a copy of the model. {self.note}")
        return copy_modules(module, _Copies(self.device))[0]

    def change(self, change: Change) -> None:
        """Run with some entries of a weight changed, on a private copy, from now on.

        Raises
        ------
        InputError
            The model runs itself, or the change does not fit.
        """
        if not self.shared:
            raise InputError(f"Its weights cannot be changed in private. {self.note}")
        with self._lock:
            self._edits.add(change)
            self._remake()

    def unchange(self, change: Change) -> None:
        """Take a change back."""
        with self._lock:
            self._edits.remove(change)
            self._remake()

    def original(self, path: str, name: str) -> Tensor:
        """Return the user's own tensor behind a parameter or buffer of one module.

        Raises
        ------
        InputError
            The module has no such weight.
        """
        module = self._root.get_submodule(path)
        own = {**module._parameters, **module._buffers}
        tensor = own.get(name)
        if tensor is None:
            known = [key for key, part in own.items() if part is not None]
            hint = f"It has {', '.join(known)}." if known else "Choose a layer that learns."
            raise InputError(f"{path!r} has no weight {name!r}.{nearest(name, known)}", hint=hint)
        return tensor

    @property
    def changes(self) -> int:
        """How many changes of weights are in force."""
        return len(self._edits)

    def _remake(self) -> None:
        """Build the twin anew over other tensors: what was computed before is of an older epoch."""
        self._seen = self._build()
        self.epoch += 1

    def steadily(
        self, run: Callable[[nn.Module, int], T], kept: Callable[[int], Held | None] | None = None
    ) -> tuple[T, int, bool]:
        """Run something on weights that hold still: on the model's own, and if they moved, on a copy of them.

        Parameters
        ----------
        run : callable
            Takes the module to run and the epoch of its weights; may be called again.
        kept : callable, optional
            Where what ``run`` needs was kept since that epoch, tells of the tensors that it depends on. One
            look at these afterwards, not two at all of the model's, sees any change since it was kept.

        Returns
        -------
        result
            What ``run`` returned last.
        epoch : int
            The epoch that it stands for.
        consistent : bool
            False where the weights moved during the pass and also while they were copied.
        """
        if kept is not None:
            epoch = self.sync(probe=False)
            held = kept(epoch)
            if held is not None:
                result, still = self._attempt(run, epoch, held.still)
                if still and result is not None:
                    return result, epoch, True
        epoch = self.sync()
        # While it is being trained step by step, do not waste a pass on finding out again.
        if not (self._contended and epoch != self._last):
            result, still = self._attempt(run, epoch, lambda: self._still(epoch))
            self._contended, self._last = not still, epoch
            if result is not None and (still or not self.shared):
                return result, epoch, still
        module, epoch, consistent = self.frozen()
        self._contended, self._last = True, epoch
        return run(module, epoch), epoch, consistent

    def _attempt(
        self, run: Callable[[nn.Module, int], T], epoch: int, still: Callable[[], bool]
    ) -> tuple[T | None, bool]:
        """Run on the model's own weights; returns the result, and whether they held still."""
        try:
            result = run(self.module, epoch)
        except (ModelError, RuntimeError):  # autograd, too, refuses a graph whose weights have moved
            if still():
                raise
            return None, False
        return result, still()

    def refresh(self) -> int:
        """Take everything for changed; returns the new epoch."""
        with self._lock:
            self._seen = self._build()
            self._probe = None
            self.epoch += 1
            return self.epoch

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the model in this block: afterwards the twin, or the model itself, is as it was before."""
        if not self.shared:
            with guarded(self._root):
                yield
            return
        try:
            yield
        finally:
            self._settle()

    def close(self) -> None:
        """Let go of the model and of every tensor."""
        with self._lock:
            self._watched.clear()
            self._edits = Edits()
            self._probe = self._copies = self._glance = None
            self._seen, self._built = Seen(), []
            self.module = self._root = nn.Module()

    def _still(self, epoch: int) -> bool:
        """Whether no value that the twin shares has changed since `sync` returned this epoch.

        What the user rebinds meanwhile does not matter: the twin goes on with what it was given.
        """
        with self._lock:
            moved = self._probe is not None and self._probe.changed()
            still = self.epoch == epoch and self._seen.still()
            if moved and still:  # no counter tells, so that nobody else would count it
                self.epoch += 1
            return still and not moved

    def _build(self) -> Seen:
        """Make the copy anew: at first, and when modules, parameters or hooks came, went or were replaced.

        Returns what the model looks like then.
        """
        try:
            self.module, pairs = copy_modules(self._root, self._make)
            self.shared, self.note = True, ""
        except CannotShareError as error:
            self.module, pairs = self._root, [(part, part) for part in self._root.modules()]
            self.shared = False
            self.note = (
                f"{type(self._root).__name__} runs itself, not a copy of its modules: {error}. "
                "It is put back as it was after each call; do not train it at the same moment."
            )
            if self._copies is not None:
                raise InputError(
                    f"The model cannot be shown on {self.device}: {error}.",
                    hint="Move the model there first.",
                ) from error
        self._glance = None
        known = {id(watched.original): watched.scratch for watched in self._watched}
        self._watched = [Watched(a, b, known.get(id(a), set())) for a, b in pairs]
        seen = self._look()
        self._built = seen.structure
        return seen

    def _link(self, seen: Seen) -> None:
        """Give the twin what the model was seen to have; from then on a glance tells whether that changed."""
        if self.shared:
            for watched in self._watched:
                watched.link(self._make)
            self._glance = Glance(self._watched, seen)
            self._built = seen.structure

    def _make(self, tensor: Tensor) -> Tensor:
        return self._edits(tensor, tensor if self._copies is None else self._copies(tensor))

    def _look(self) -> Seen:
        if self._glance is not None:
            seen = self._glance.again()
            if seen is not None:
                return seen
            self._glance = None
        seen = Seen()
        for watched in self._watched:
            watched.look(seen)
        return seen

    def _advance(self, seen: Seen, *, probe: bool) -> int:
        moved = seen != self._seen
        self._seen = seen
        if probe:
            if self._probe is None or not self._probe.fits(seen.tensors):
                self._probe = Probe(seen.tensors)
            elif self._probe.changed() and not self._unprobed:
                moved = True
        # Values that differ because of a change that the counters told already are not counted again.
        self._unprobed = not probe and (moved or self._unprobed)
        self.epoch += moved
        return self.epoch

    def _settle(self) -> None:
        """Undo what the pass wrote into the twin's attributes, and learn that these are results."""
        with self._lock:
            if not any(watched.written() for watched in self._watched):
                return
            seen = self._look()
            self._advance(seen, probe=False)
            rebuild = seen.structure != self._built
            modules = {id(watched.original): watched.twin for watched in self._watched}
            for watched in self._watched:
                watched.restore(modules, self._make)
            self._glance = None
            self._seen = self._look()  # without these attributes: that is no change of the model
            self._built = [None] if rebuild else self._seen.structure


class _Copies:
    """Copies of the model's tensors on another device, or private ones on the same device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._made: dict[int, tuple[Tensor, Tensor]] = {}
        self._epoch = -1

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return the copy of ``tensor``, always the same one."""
        if id(tensor) not in self._made:
            copied = tensor.detach().to(self._device, copy=True)
            if isinstance(tensor, nn.Parameter):
                copied = nn.Parameter(copied, requires_grad=False)
            self._made[id(tensor)] = (tensor, copied)
        return self._made[id(tensor)][1]

    @torch.no_grad()
    def refresh(self, epoch: int) -> bool:
        """Copy all values again in a new epoch; False where a shape changed and copies must be replaced."""
        if epoch == self._epoch:
            return True
        same = all(a.shape == b.shape and a.dtype == b.dtype for a, b in self._made.values())
        if not same:
            self._made.clear()
        for original, copied in self._made.values():
            copied.copy_(original)
        self._epoch = epoch
        return same
