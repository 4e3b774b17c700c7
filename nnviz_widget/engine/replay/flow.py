"""One batch of variants on its way through the operations that follow from what was changed.

Each value that varies is a `Patch` as long as the rules know how boxes go on and boxes are small, and then a
whole tensor with a row for each variant. What does not vary is read from the unchanged run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from nnviz_widget.engine.recording import Op, Ref, tensors_of
from nnviz_widget.engine.replay.convolving import ALONE, Tail
from nnviz_widget.engine.replay.patches import Patch, boxes_of, crop, laid
from nnviz_widget.engine.replay.plan import filled
from nnviz_widget.engine.replay.registry import Call, NotLocalError, rule_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from nnviz_widget.engine.replay.run import Replay, Route
    from nnviz_widget.engine.sites import Edit

    T = TypeVar("T")
    Boxes = tuple[NDArray[np.int64], tuple[int, ...]]
    Box = tuple[Sequence[int], NDArray[np.int64], Sequence[int]]

__all__ = ["Flow", "apply"]

#: A change that covers more than this share of a value is taken to be everywhere.
_MOST = 0.6
_ROWS = (0, 1)


class Flow:
    """The values of one batch of variants.

    Parameters
    ----------
    replay : Replay
        Holds the unchanged run.
    rows : sequence of int
        Which sample each variant is one of.
    route : Route
        The operations to run.
    check : callable
        Raises where the work is no longer wanted.

    Attributes
    ----------
    patches : dict of Ref to Patch
        Values that differ in a box.
    wholes : dict of Ref to Tensor
        Values that differ anywhere, ``[B, ...]``.
    flops : float
        Floating point operations so far.
    operations : int
        How many operations ran, and of how many only a part (`local`).
    """

    def __init__(self, replay: Replay, rows: Sequence[int], route: Route, check: Callable[[], None]) -> None:
        self.replay = replay
        self.plan = replay.plan
        self.rows = list(rows)
        self.patches: dict[Ref, Patch] = {}
        self.wholes: dict[Ref, Tensor] = {}
        self.flops = 0.0
        self.operations = self.local = 0
        self._route = route
        self._check = check
        #: Values that the caller gave: never written into.
        self._given: set[Ref] = set()
        #: Is told everything that is made, as it is made.
        self._told: Callable[[Ref, Patch | Tensor], None] | None = None
        #: Whether the unchanged run becomes the changed one on the way: what was made is read from there.
        self._through = False
        #: Where values change, as far as that is known.
        self._boxes: dict[Ref, Boxes] = {}
        #: Operations that ran along with those before them.
        self._folded: set[int] = set()

    def run(self, edits: Mapping[Ref, Edit]) -> None:
        """Let the changed values through."""
        made = self._route.made
        for ref in sorted(edits):
            if ref not in made:
                self._edit(ref, edits[ref])
        for index in self._route.order:
            self._check()
            op = self.plan.ops[index]
            if index in self._folded:
                self.operations += 1
            elif op.kind == "identity" and len(op.inputs) == len(op.outputs):
                for port, ref in enumerate(op.inputs):
                    self._same(ref, Ref(index, port))
            else:
                self._step(op)
            for ref in (Ref(index, port) for port in range(len(op.outputs))):
                if ref in edits:
                    self._edit(ref, edits[ref])
                self._note(ref)
            for ref in self._route.done[index]:
                self.patches.pop(ref, None)
                self.wholes.pop(ref, None)

    def follow(
        self,
        seed: Ref,
        value: Tensor,
        tell: Callable[[Ref, Patch | Tensor], None],
        *,
        through: bool = False,
        boxes: Boxes | None = None,
    ) -> None:
        """Let one changed value through.

        Parameters
        ----------
        seed, value
            What changes, and what it is instead.
        tell : callable
            Is given every value that changed, as soon as it is made.
        through : bool
            Whether `tell` makes it a part of the unchanged run.
        boxes : tuple, optional
            Where it changes, as `boxes_of` finds it, where that is known.
        """
        self._told, self._through = tell, through
        if boxes is not None:
            self._boxes[seed] = boxes
        self.run({seed: lambda _: value})

    def base(self, ref: Ref) -> Tensor:
        """Return a value of the unchanged run, with a row for each sample, or one for all."""
        return self.replay.base(ref)

    def remember(self, key: object, make: Callable[[], T]) -> T:
        """Return what was made before under this key, or make it."""
        return self.replay.remember(key, make)

    def whole(self, ref: Ref) -> Tensor:
        """Return what the variants hold, ``[B, ...]``; not to be written into."""
        found = self.wholes.get(ref)
        if found is not None:
            return found
        value, batch = self.base(ref), self.plan.batches.get(ref)
        if ref in self.patches and not self._through:
            made = self.wholes[ref] = laid(value, self.rows, self.patches[ref])
            return made
        if batch is None:
            return value
        return rows_of(value, batch.axis, batch.each, self.rows)

    def cut(
        self,
        ref: Ref,
        axes: Sequence[int],
        starts: NDArray[np.int64],
        sizes: Sequence[int],
        *,
        fill: float = 0.0,
    ) -> Tensor:
        """Return what the variants hold in boxes; they may reach outside, where `fill` is."""
        patch = self.patches.get(ref)
        same = patch is not None and (patch.axes, patch.sizes) == (tuple(axes), tuple(sizes))
        if patch is not None and same and (patch.starts == starts).all():
            return patch.tensor
        value = self.base(ref)
        every = tuple(sorted({*axes, *(patch.axes if patch is not None else ())}))
        if every != tuple(axes):
            assert patch is not None
            at, long = np.zeros((len(starts), len(every)), np.int64), []
            for place, axis in enumerate(every):
                if axis in axes:
                    at[:, place] = starts[:, list(axes).index(axis)]
                    long.append(sizes[list(axes).index(axis)])
                else:
                    long.append(value.shape[axis])
            axes, starts, sizes = every, at, long
        return crop(value, self.rows, axes, starts, sizes, fill=fill, over=None if self._through else patch)

    def apply(self, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """Run an operation; it writes in place only into what nobody else reads."""
        convolved = self._convolved(op, args, kwargs)
        if convolved is not None:
            return [convolved]
        first = op.inputs[0] if op.inplace and op.inputs else None
        mine = first is not None and first in self._route.made and first in self._route.done[op.index]
        return apply(op, args, kwargs, inplace=mine and first not in self._given)

    def beside(self, op: Op) -> Patch | None:
        """Return where that varies which is added to a convolution in the same call.

        Raises
        ------
        NotLocalError
            It varies everywhere.
        """
        ref = self._tail(op).beside
        if ref in self.wholes:
            raise NotLocalError
        return None if ref is None else self.patches.get(ref)

    def convolve(self, op: Op, args: tuple[Any, ...], box: Box) -> Tensor:
        """Run a convolution on a part of its input, with other arguments than those recorded.

        Parameters
        ----------
        op : Op
            Of the plan.
        args : tuple
            As torch takes them.
        box : tuple
            Axes, starts and sizes of what it gives.
        """
        made = self._convolved(op, args, {}, box)
        if made is None:
            made = getattr(torch, op.name)(*args)
        return made

    def _convolved(
        self, op: Op, args: tuple[Any, ...], kwargs: dict[str, Any], box: Box | None = None
    ) -> Tensor | None:
        """Run a convolution with what follows folded in; None where torch is to run it alone."""
        tail = self._tail(op)
        beside = None
        if tail.beside is not None:
            beside = self.whole(tail.beside) if box is None else self.cut(tail.beside, *box)
        made = self.replay.kernels.run(op, args, kwargs, tail, beside)
        if made is not None:
            self._folded.update(follower.index for follower in tail.ops)
        return made

    # -- inside ---------------------------------------------------------------------------------------------

    def _note(self, ref: Ref) -> None:
        """Tell of a value that was made; nobody writes into it any more."""
        made = self.patches.get(ref, self.wholes.get(ref))
        if self._told is not None and made is not None:
            self._told(ref, made)
            self._given.add(ref)

    def _edit(self, ref: Ref, edit: Edit) -> None:
        changed = edit(self.whole(ref))
        self.patches.pop(ref, None)
        self.wholes.pop(ref, None)
        self._given.add(ref)
        patch = self._boxed(changed, ref)
        if patch is not None and patch.share(changed.shape) <= _MOST:
            self.patches[ref] = patch
        else:
            self.wholes[ref] = changed
        self._note(ref)

    def _boxed(self, changed: Tensor, ref: Ref) -> Patch | None:
        """Return where a value differs from the unchanged one, and what it holds there."""
        if self.plan.batches.get(ref) != _ROWS or changed.dim() < 2:
            return None
        known = self._boxes.get(ref)
        starts, sizes = known if known is not None else boxes_of(changed, self.base(ref), self.rows)
        axes = [axis for axis in range(1, changed.dim()) if sizes[axis - 1] < changed.shape[axis]]
        if not axes:
            return None
        at, long = starts[:, [axis - 1 for axis in axes]], [sizes[axis - 1] for axis in axes]
        return Patch(crop(changed, range(len(changed)), axes, at, long), tuple(axes), at)

    def _same(self, source: Ref, target: Ref) -> None:
        if source in self.patches:
            self.patches[target] = self.patches[source]
        elif source in self.wholes:
            self.wholes[target] = self.wholes[source]
        else:
            return
        if source in self._given or source not in self._route.done[target.op]:
            self._given.add(target)

    def _step(self, op: Op) -> None:
        self.operations += 1
        varying = [ref for ref in op.inputs if ref in self.patches or ref in self.wholes]
        found = rule_of(op.name) if op.kind == "call" else None
        if found is not None and all(ref in self.patches for ref in varying):
            names, rule = found
            try:
                patches = rule(Call(op, self, names))
            except NotLocalError:
                pass
            else:
                last = self._last(op)
                for port, patch in enumerate([*patches, *(patches[0] for _ in last.aliases)]):
                    self.patches[Ref(last.index, port)] = patch
                self.local += 1 + (len(self._tail(op).ops) if last is not op else 0)
                self.flops += (
                    self.plan.flops[op.index] * len(self.rows) * patches[0].share(op.outputs[0].shape)
                )
                return
        args = filled(op.args, len(self.rows), self.whole)
        kwargs = filled(op.kwargs, len(self.rows), self.whole)
        tensors = self.apply(op, args, kwargs)
        last = self._last(op)
        if last is not op:
            tensors *= len(last.outputs)
        for port, tensor in enumerate(tensors):
            self.wholes[Ref(last.index, port)] = tensor
        self.flops += self.plan.flops[op.index] * len(self.rows)

    def _last(self, op: Op) -> Op:
        """Return the last of the operations that ran with this one."""
        tail = self._tail(op).ops
        return tail[-1] if tail and tail[-1].index in self._folded else op

    def _tail(self, op: Op) -> Tail:
        # Of frames that fly by, not of numbers that are kept: what is folded in rounds otherwise.
        return self._route.tails.get(op.index, ALONE) if self._through else ALONE


def apply(op: Op, args: tuple[Any, ...], kwargs: dict[str, Any], *, inplace: bool = False) -> list[Tensor]:
    """Run an operation on tensors.

    Parameters
    ----------
    op : Op
        As recorded.
    args, kwargs
        Tensors in the place of references.
    inplace : bool
        Whether an operation in place may write into its first argument; else it gets a copy.

    Returns
    -------
    list of Tensor
        Its outputs, as the recorder counts them.
    """
    func = op.func
    assert func is not None
    if op.inplace and not inplace:
        plain = _plain(op)
        if kwargs.get("inplace") is True:
            kwargs = {**kwargs, "inplace": False}
        elif plain is not None:
            func = plain
        else:
            args = (args[0].clone(), *args[1:])
    if op.name == "view" and not any(isinstance(part, torch.dtype) for part in (*args, *kwargs.values())):
        func = torch.Tensor.reshape  # where a box was laid, memory may be in another order
    result = func(*args, **kwargs)
    outputs = [result] if type(result) is Tensor else [tensor for _, tensor in tensors_of(result)]
    if op.inplace and not outputs:
        outputs = [args[0]]
    outputs += [outputs[0] for _ in op.aliases]
    if len(outputs) != len(op.outputs):
        raise RuntimeError(f"{op.name} gave {len(outputs)} tensors, not {len(op.outputs)}")
    kind = op.outputs[0].dtype
    if op.inplace and kind is not None and outputs[0].dtype != kind:
        outputs[0] = outputs[0].to(kind)
    return outputs


def _plain(op: Op) -> Callable[..., Any] | None:
    """Return the method that does the same as one in place, and gives a new tensor."""
    raw = str(getattr(op.func, "__name__", ""))
    if raw == f"{op.name}_" or (raw.startswith("__i") and raw.endswith("__")):
        found = getattr(Tensor, op.name, None)
        return found if callable(found) else None
    return None


def rows_of(value: Tensor, axis: int, each: int, rows: Sequence[int]) -> Tensor:
    """Return these rows of a value; `each` places along an axis are one row."""
    if value.shape[axis] == each == 1:
        return value.expand(*value.shape[:axis], len(rows), *value.shape[axis + 1 :])
    at = torch.as_tensor(rows, device=value.device)
    if each > 1:
        at = (at[:, None] * each + torch.arange(each, device=value.device)).flatten()
    return value.index_select(axis, at)
