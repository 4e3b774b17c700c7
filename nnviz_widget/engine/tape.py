"""The tape of a run: every torch function that ran, with its arguments as references to what made them.

A ``TorchFunctionMode`` that writes down each call, sees to it that nothing is written that must not be, and
hands random operations the engine's generator. It knows in which module call it is (`Tape.frame`, moved by
the hooks of ``recorder``), and nothing else of modules. What kind of call it is, is ``vocabulary``'s to
say; whose memory it is, ``memory``'s.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from nnviz_widget.engine.activations import Recipe
from nnviz_widget.engine.details import read_label
from nnviz_widget.engine.failure import user_line
from nnviz_widget.engine.memory import Kept, layout_of
from nnviz_widget.engine.random_numbers import OwnRandomness
from nnviz_widget.engine.recording import Alias, Frame, Op, Ref, Spec, tensors_of
from nnviz_widget.engine.vocabulary import Traits, may_draw, traits_of, written_arguments
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

__all__ = ["SHARED", "Stop", "Tape", "spec_of"]

#: Why an operation in place is not simply run again that changed further values.
SHARED = "writes into memory that other values share"

_PLAIN = frozenset(
    {int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.Size, type(...)}
)
#: Operations that may be run again rather than their result copied, if their weights are vectors.
_CHEAP = frozenset({"batch_norm", "add", "sub", "mul"})
_SMALL = 16_384
_DEEPEST = 4
_ORDINARY = frozenset({torch.Tensor, torch.nn.Parameter})


class Stop(BaseException):
    """The value that the run was for has been made."""


class Tape(TorchFunctionMode):
    """Record what runs inside ``with tape:``.

    Parameters
    ----------
    frame : Frame
        The module call to begin in.
    owned : mapping of int to (str, str)
        Name and kind (``parameter`` or ``buffer``) of the model's own tensors, by identity.
    kept : Kept
        What to keep.
    stop_at : str, optional
        Id of the node or group at whose output `Stop` is raised, the value being in `stopped`.
    check : callable
        Asked before each operation; raises when the run is no longer wanted.
    seed : int
        Of the engine's generator.

    Attributes
    ----------
    ops : list of Op
        What ran, in order.
    refs : dict of str to Ref
        First output of each node and group, by id.
    failed : tuple of (exception, Op, Frame), or None
        The operation that raised last.
    """

    def __init__(
        self,
        frame: Frame,
        owned: Mapping[int, tuple[str, str]],
        *,
        kept: Kept,
        stop_at: str | None,
        check: Callable[[], None],
        seed: int,
    ) -> None:
        super().__init__()
        self.frame = frame
        self.kept = kept
        self.memory = kept.memory
        self.check = check
        self.ops: list[Op] = []
        self.refs: dict[str, Ref] = {}
        self.stopped: Tensor | None = None
        self.failed: tuple[BaseException, Op, Frame] | None = None
        self._owned = owned
        self._left_torch = ""
        #: Parameters and buffers in use, by the number of the operation that stands for each.
        self._state: dict[int, Tensor] = {}
        self._stop_at = stop_at
        self._randomness = OwnRandomness(seed)
        #: One for each shape and type: most of them occur many times.
        self._specs: dict[tuple[torch.Size, torch.dtype], tuple[Spec]] = {}
        #: Whether an operation drew random numbers.
        self.drew = False
        #: Module calls whose output an intervention is still going to change.
        self.changing: set[str] = set()

    def made(self, name: str, tensor: Tensor) -> None:
        """Keep the output of a node or group, and stop there if that was the goal."""
        self.kept.keep(name, tensor)
        ref = self.memory.find(tensor)
        if ref is not None:
            self.refs[name] = ref
        if name == self._stop_at and name not in self.changing:
            self.stopped = tensor
            raise Stop

    def append(self, op: Op) -> Op:
        """Add an operation that already knows its node."""
        op.index = len(self.ops)
        self.ops.append(op)
        self.frame.children.append(op.index)
        return op

    def place(self, op: Op, frame: Frame) -> None:
        """Add an operation to a module call, and name its node after both."""
        if frame.solo:
            op.node = frame.id
        else:
            count = frame.counts.get(op.name, 0)
            frame.counts[op.name] = count + 1
            op.node = f"{frame.id}/{op.name}#{count}" if count else f"{frame.id}/{op.name}"
            if not op.inputs and op.kind == "call":
                op.node = f"const:{op.node}"  # zeros, arange, ...: made from nothing
        op.index = len(self.ops)
        self.ops.append(op)
        frame.children.append(op.index)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        traits = traits_of(func)
        if self.memory.diverted:
            args, kwargs = self.current(args), self.current(kwargs)
        if traits.metadata and not traits.writes:
            return func(*args, **kwargs)
        self.check()
        if traits.forbidden:
            raise InputError(
                "The model calls backward() in its forward, which would write into parameters' gradients.",
                hint="Use torch.autograd.grad there.",
            )
        if traits.writes == "flag":
            return self._set_flag(func, args, kwargs)
        if traits.writes == "data":
            return self._set_data(func, args[0], args[1])
        return self._run(func, traits, args, kwargs)

    def compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do what the user's line asks for, and nothing else: the time in here is the operation's own."""
        return func(*args, **kwargs)

    def _run(self, func: Any, traits: Traits, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        inputs: list[Ref] = []
        frame = self.frame
        # What runs in a module of torch's own was run by whoever called that.
        source = frame.source if frame.torchs else user_line(sys._getframe(2))
        encode = self._encode
        encoded = tuple([value if type(value) in _PLAIN else encode(value, inputs) for value in args])
        named = {
            key: value if type(value) in _PLAIN else encode(value, [] if key == "out" else inputs)
            for key, value in kwargs.items()
        }
        op = Op(0, "call", traits.name, func, encoded, named, tuple(inputs), source=source)
        written: list[Tensor] = []
        if traits.writes or "inplace" in kwargs or "out" in kwargs:
            args, kwargs, written = self._before_writing(op, func, traits, args, kwargs)
        if traits.exposes:
            self.memory.secure(args[0], self._recipe)
        try:
            if traits.random and may_draw(traits, args, kwargs):
                with self._randomness as randomness:
                    result = self.compute(func, args, kwargs)
                if randomness.drew():
                    self.drew = True
                    op.unsafe = "draws random numbers"
            else:
                result = self.compute(func, args, kwargs)
        except Exception as error:
            self.failed = (error, op, frame)
            raise
        outputs = [result] if type(result) is torch.Tensor else [tensor for _, tensor in tensors_of(result)]
        if outputs or written:
            return self._record(op, traits, result, outputs, written)
        if traits.reads and inputs:
            op.kind = "decision"
            reads = f"Python reads a value here ({traits.reads})"
            op.unsafe = "the data leaves torch here (numpy)" if traits.exposes else reads
            op.read = "" if traits.exposes else read_label(result)
            # From here on, what comes from nowhere may have been computed from it.
            self._left_torch = f"may have come back from {'numpy' if traits.exposes else 'Python'}"
            self.place(op, frame)
        return result

    def _record(
        self, op: Op, traits: Traits, result: Any, outputs: list[Tensor], written: list[Tensor]
    ) -> Any:
        if written:
            op.inplace = True
            for tensor in written:
                if not any(tensor is output for output in outputs):
                    outputs.append(tensor)
        elif _is_ordinary(result) and self.memory.find(result) is not None:
            # A call that had nothing to do (dropout in eval, `.contiguous()`) gave back its argument.
            # Another object for the same data keeps the way past this call apart from the way through it.
            op.kind = "identity"
            result = result.view_as(result)
            outputs = [result]
        if traits.data_shaped:
            op.unsafe = "the shape of its result depends on the data"
        self.place(op, self.frame)
        op.outputs = self._specs_of(outputs)
        for port, tensor in enumerate(outputs):
            self.memory.bind(tensor, Ref(op.index, port))
        if written:
            self._rebind_aliases(op, outputs, written)
        if not self.frame.solo:
            self.made(op.node, outputs[0])
        return result

    def _specs_of(self, tensors: list[Tensor]) -> tuple[Spec, ...]:
        if len(tensors) != 1 or type(tensors[0]) not in _ORDINARY:
            return tuple([spec_of(tensor) for tensor in tensors])
        tensor = tensors[0]
        try:
            key = (tensor.shape, tensor.dtype)
        except RuntimeError:  # nested
            return (spec_of(tensor),)
        known = self._specs.get(key)
        if known is None:
            known = self._specs[key] = (spec_of(tensor),)
        return known

    def _rebind_aliases(self, op: Op, outputs: list[Tensor], written: list[Tensor]) -> None:
        """Give a new value to every other tensor alive in the memory that was written."""
        aliases: list[Alias] = []
        specs = list(op.outputs)
        for tensor in written:
            for other in self.memory.overlapping(tensor):
                before = self.memory.find(other)
                if before is None or any(other is output for output in outputs):
                    continue
                aliases.append(Alias(len(specs), before, layout_of(other), layout_of(tensor)))
                self.memory.bind(other, Ref(op.index, len(specs)))
                specs.append(spec_of(other))
                outputs = [*outputs, other]
        if aliases:
            op.aliases = tuple(aliases)
            op.inputs = (*op.inputs, *(alias.before for alias in aliases))
            op.outputs = tuple(specs)
            op.unsafe = SHARED

    def _before_writing(
        self, op: Op, func: Any, traits: Traits, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any], list[Tensor]]:
        """Divert what must not be written, copy what must not change; return the arguments to call with."""
        targets = [tensor for _, tensor in tensors_of(list(written_arguments(func, traits, args, kwargs)))]
        foreign = [target for target in targets if self.memory.is_foreign(target)]
        if foreign:
            for target in foreign:
                self.memory.divert(target)
            op.unsafe = "writes into tensors that are not the run's own"
            args, kwargs = self.current(args), self.current(kwargs)
            targets = [self.memory.current(target) for target in targets]
        for target in targets:
            self.memory.secure(target, self._recipe)
        return args, kwargs, targets

    def _recipe(self, ref: Ref) -> Recipe | None:
        """Return how to compute a value again from kept ones, if one cheap operation does."""
        op = self.ops[ref.op]
        if op.name not in _CHEAP or op.kind != "call" or op.unsafe or ref.port or torch.is_grad_enabled():
            return None
        try:
            args = tuple([self._ingredient(part) for part in op.args])
            kwargs = {key: self._ingredient(part) for key, part in op.kwargs.items()}
        except LookupError:
            return None
        assert op.func is not None
        recipe = Recipe(op.func, args, kwargs, inplace=op.inplace)
        return recipe if recipe.depth <= _DEEPEST else None

    def _ingredient(self, part: Any) -> Any:
        """Return what a recipe takes for an argument; LookupError where it is not to be had cheaply."""
        if not isinstance(part, Ref):
            if type(part) in _PLAIN:
                return part
            raise LookupError("a nest of arguments")
        op = self.ops[part.op]
        state = self._state.get(part.op)
        if state is not None and state.numel() <= _SMALL:
            return state.detach().clone()  # as it is now; training may go on
        cell = self.memory.kept(part)
        if cell is None or op.kind not in {"call", "identity"}:
            raise LookupError(op.name)
        return cell

    def _set_flag(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Set a property (`requires_grad_`); on a stand-in, if the tensor is not the run's own."""
        target = args[0]
        self.ref(target)
        if not self.memory.is_foreign(target):
            return func(*args, **kwargs)
        stand_in = target.detach()
        self.memory.bind(stand_in, self.ref(target), foreign=True)
        self.memory.replace(target, stand_in)
        return func(stand_in, *args[1:], **kwargs)

    def _set_data(self, func: Any, target: Tensor, data: Tensor) -> None:
        """Set `target.data = data`; of a tensor that is not the run's own, only what the run sees of it."""
        self.ref(target)
        value = self.ref(data)
        if self.memory.is_foreign(target):
            stand_in = data.detach()
            self.memory.bind(stand_in, value)
            self.memory.replace(target, stand_in)
        else:
            func(target, data)
            self.memory.bind(target, value)

    # -- arguments ------------------------------------------------------------------------------------------

    def _encode(self, value: Any, inputs: list[Ref]) -> Any:
        """Replace tensors by references, at any depth of tuples, lists, dicts and slices."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind in _ORDINARY or isinstance(value, torch.Tensor):
            ref = self.memory.find(value) or self.ref(value)
            inputs.append(ref)
            return ref
        if isinstance(value, (tuple, list)):
            parts = [self._encode(part, inputs) for part in value]
            return parts if isinstance(value, list) else tuple(parts)
        if isinstance(value, dict):
            return {key: self._encode(part, inputs) for key, part in value.items()}
        if isinstance(value, slice):
            return slice(*(self._encode(part, inputs) for part in (value.start, value.stop, value.step)))
        return value

    def current(self, value: Any) -> Any:
        """Put stand-ins in the place of tensors that have one."""
        if isinstance(value, torch.Tensor):
            return self.memory.current(value)
        if type(value) in (tuple, list):
            return type(value)([self.current(part) for part in value])
        if type(value) is dict:
            return {key: self.current(part) for key, part in value.items()}
        if type(value) is slice:
            return slice(*(self.current(part) for part in (value.start, value.stop, value.step)))
        return value

    def ref(self, tensor: Tensor) -> Ref:
        """Return the value of a tensor; one never seen becomes a source (parameter, buffer or constant)."""
        ref = self.memory.find(tensor)
        if ref is not None:
            return ref
        name, kind = self._owned.get(id(tensor), ("", "constant"))
        if kind == "constant":
            twin = self.memory.sibling(tensor)
            if twin is not None:
                return self._view(twin, tensor)
            count = self.frame.counts.get("constant", 0)
            self.frame.counts["constant"] = count + 1
            name = f"{self.frame.id}/constant#{count}" if count else f"{self.frame.id}/constant"
        op = Op(0, kind, name, None, (), {}, (), self._specs_of([tensor]), f"const:{name}")
        if kind == "constant":
            op.node = self.frame.id if self.frame.solo else op.node
            op.unsafe = self._left_torch
            op.source = user_line(sys._getframe(1))
            op.value = tensor
        else:
            self._state[len(self.ops)] = tensor
        ref = Ref(self.append(op).index)
        self.memory.bind(tensor, ref, foreign=True)
        if not self.frame.solo:
            self.kept.keep(op.node, tensor)
        return ref

    def _view(self, of: Tensor, tensor: Tensor) -> Ref:
        """Return the value of a tensor that came from nowhere, yet lies in the memory of one that did not."""
        base = self.ref(of)
        shape, stride, offset = layout_of(tensor)
        if (shape, stride, offset) == layout_of(of) and tensor.dtype == of.dtype:
            self.memory.bind(tensor, base, foreign=self.memory.is_foreign(of))
            return base
        op = Op(len(self.ops), "call", "view", torch.as_strided, (base, shape, stride, offset), {}, (base,))
        op.unsafe = "shares memory in a way that was not seen"
        self.place(op, self.frame)
        op.outputs = (spec_of(tensor),)
        self.memory.bind(tensor, Ref(op.index), foreign=self.memory.is_foreign(of))
        return Ref(op.index)


def _is_ordinary(result: Any) -> bool:
    # By name: what fakes are made of takes a while to import.
    return type(result) in _ORDINARY or type(result).__name__ == "FakeTensor"


def spec_of(tensor: Tensor) -> Spec:
    """Return shape and type."""
    try:
        return Spec(tuple(tensor.shape), tensor.dtype)
    except RuntimeError:  # nested tensors have no shape
        return Spec((), tensor.dtype)
