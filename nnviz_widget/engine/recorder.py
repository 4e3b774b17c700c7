"""One forward pass, recorded: operations in the user's own vocabulary, activations, the graph.

`record` runs a module once, eagerly, on the real input, under a ``TorchFunctionMode`` (which sees every
torch function with the name the user wrote) and hooks on each module of the one it was given (never global
hooks: with those, transformer layers take a fused path in which their parts are not called). It is meant
for the engine's twin, on the engine's thread: hooks ignore calls from other threads, and everything it
hangs on the modules is gone when it returns, also after an exception or a cancel.

Left elsewhere: writing down the operations (``tape``), whose memory it is (``memory``), drawing the graph
(``assemble``), answering questions about the run (``trace``), which thread and when (``jobs``).
"""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils._pytree import tree_map
from torch.utils.hooks import RemovableHandle

from nnviz_widget.engine.activations import version_of
from nnviz_widget.engine.details import type_name
from nnviz_widget.engine.eager import uncompiled
from nnviz_widget.engine.failure import model_error, user_line
from nnviz_widget.engine.interventions import applied, current, touched
from nnviz_widget.engine.memory import Kept
from nnviz_widget.engine.recording import STATE, Frame, Op, Recording, Ref, tensors_of
from nnviz_widget.engine.sharing import named_parts
from nnviz_widget.engine.tape import Stop, Tape, spec_of
from nnviz_widget.errors import NNVizError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from torch import Tensor, nn

    from nnviz_widget.engine.sites import Edit

__all__ = ["Op", "Recording", "Ref", "record"]


class Token(Protocol):
    """Something that can end the run: `check` raises when the work is no longer wanted."""

    def check(self) -> None: ...


def record(
    module: nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    keep: str | Collection[str] | None = "all",
    grad: bool = False,
    attached: bool = False,
    stop_at: str | None = None,
    token: Token | None = None,
    progress: Callable[[int, int], None] | None = None,
    budget: int | None = None,
    seed: int = 0,
) -> Recording:
    """Run `module(*args, **kwargs)` once and return what happened.

    Parameters
    ----------
    module : nn.Module
        The engine's twin, in the mode (eval) in which it is to run. Its parameters, buffers and the inputs
        are left bit for bit as they are: what the forward writes into them goes to private copies.
    args, kwargs
        As the module takes them, on its device.
    keep : "all", collection of str, or None
        Ids of the nodes and groups whose activation to keep.
    grad : bool
        Run with autograd. Gradients can then be taken with respect to those inputs that require them.
    attached : bool
        Leave the output on its autograd graph.
    stop_at : str, optional
        Node or group id: the run ends as soon as its output exists, which is then in `Recording.stopped`.
    token : object with `check`, optional
        Asked at every module and operation; raising ends the run.
    progress : callable, optional
        Called with how many modules have begun, and of how many.
    budget : int, optional
        Bytes of activations to keep; the largest are let go first.
    seed : int
        Of the generator that random operations of the model draw from, the same ones in every run.

    Raises
    ------
    ModelError
        The model raised; `.trace` then holds the part that ran, `.node`, `.source` and `.shapes` say where.
    OutOfMemoryError
        The device ran out of memory.
    """
    recorder = Recorder(
        module, kept=Kept(keep, budget), stop_at=stop_at, token=token, progress=progress, seed=seed
    )
    return recorder.run(tuple(args), dict(kwargs or {}), grad=grad, attached=attached)


class Recorder:
    """The hooks of one run, around its tape. `record` is the way to use it; who measures derives from it."""

    tape_type = Tape

    def __init__(
        self,
        module: nn.Module,
        *,
        kept: Kept,
        stop_at: str | None,
        token: Token | None,
        progress: Callable[[int, int], None] | None,
        seed: int,
    ) -> None:
        self.module = module
        self.root = Frame(module, "", 0, None)
        self.kept = kept
        self.memory = kept.memory
        self.check = token.check if token is not None else _nothing
        self._paths: dict[int, list[str]] = {}
        #: The model's own tensors, and the name and kind of each by identity.
        self.tensors: list[Tensor] = []
        owned: dict[int, tuple[str, str]] = {}
        for path, child in named_parts(module):
            self._paths.setdefault(id(child), []).append(path)
            for kind, tensors in (("parameter", child._parameters), ("buffer", child._buffers)):
                for name, tensor in tensors.items():
                    if tensor is not None and id(tensor) not in owned:
                        owned[id(tensor)] = (f"{path}.{name}" if path else name, kind)
                        self.tensors.append(tensor)
        self.tape = self.tape_type(self.root, owned, kept=kept, stop_at=stop_at, check=self.check, seed=seed)
        #: The last exception that left a module call, and the operation that raised it.
        self.failed: tuple[BaseException, Op] | None = None
        self._progress = progress
        self._thread = threading.get_ident()
        self._begun = 0
        self._calls: dict[str, int] = {}
        #: A number that no other hook has, and where it hangs.
        self._key = RemovableHandle(OrderedDict()).id
        self._hung: list[nn.Module] = []

    # -- the run --------------------------------------------------------------------------------------------

    def run(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, grad: bool, attached: bool = False
    ) -> Recording:
        """Run the module and gather the recording."""
        recording = Recording(self.tape.ops, self.tape.refs, args=args, kwargs=kwargs, root=self.root)
        recording.interventions = current()
        before = [version_of(tensor) for tensor in self.tensors]
        start = time.perf_counter()

        def close() -> Recording:
            recording.seconds = time.perf_counter() - start
            recording.activations = self.kept.activations()
            recording.stopped = self.tape.stopped
            recording.harmless = not self.memory.diverted and not self.tape.drew
            recording.consistent = before == [version_of(tensor) for tensor in self.tensors]
            return recording

        try:
            with torch.set_grad_enabled(grad):
                # Rebuilt containers: what the model does to its lists and dicts stays with it. With autograd
                # the model also gets copies, as it may write into its input, which a leaf forbids.
                args, kwargs = tree_map(_unleaf if grad else _same, (args, kwargs))
                self._bind_inputs(args, kwargs, grad=grad)
                self.tape.changing = touched()
                with applied(self.module, self._swap):
                    self._hang_hooks()  # after those of interventions: they are to see what these give
                    with uncompiled(self.module), self.tape:
                        output = self.module(*args, **kwargs)
                self.check()
                recording.output = self._finish(output, attached=attached)
        except Stop:
            recording.complete = False
        except NNVizError:
            raise
        except torch.OutOfMemoryError as error:
            where = self.tape.frame.id or type(self.module).__name__
            raise OutOfMemoryError(
                f"The device ran out of memory in {where!r}.",
                hint="Pass a smaller batch, or move the model to a device with more memory.",
            ) from error
        except Exception as error:
            recording.complete = False
            raise model_error(self, error, close()) from error
        finally:
            self._take_hooks_down()
        return close()

    def _bind_inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, grad: bool) -> None:
        named = tensors_of(args) + tensors_of(kwargs)
        for name, tensor in named:
            if self.memory.find(tensor) is not None:
                continue  # the same tensor given twice
            alone = len(named) == 1
            node = "input" if alone else f"input:{name}"
            op = Op(0, "input", "" if alone else name, None, outputs=(spec_of(tensor),), node=node)
            self.memory.bind(
                tensor, Ref(self.tape.append(op).index), foreign=not (grad and tensor.requires_grad)
            )
            self.tape.made(op.node, tensor)

    def _finish(self, output: Any, *, attached: bool) -> Any:
        """Record the outputs; return the structure that the model returned, detached unless `attached`."""
        current = self.memory.current
        named = [(name, current(tensor)) for name, tensor in tensors_of(output)]
        for name, tensor in named:
            alone = len(named) == 1
            node = "output" if alone else f"output:{name}"
            ref = self.tape.ref(tensor)
            op = Op(0, "output", "" if alone else name, None, (), {}, (ref,), (spec_of(tensor),), node)
            self.tape.append(op)
            self.tape.made(node, tensor)
        if len(named) > 1:
            # Of several outputs the first that could be scores stands for all of them.
            scores = [tensor for _, tensor in named if tensor.is_floating_point() and tensor.dim() > 1]
            self.tape.made("output", [*scores, named[0][1]][0])
        if attached:
            return tree_map(lambda x: current(x) if isinstance(x, torch.Tensor) else x, output)
        if self.memory.diverted or any(tensor.requires_grad for _, tensor in named):
            output = tree_map(lambda x: current(x).detach() if isinstance(x, torch.Tensor) else x, output)
        return output

    # -- modules --------------------------------------------------------------------------------------------

    def _hang_hooks(self) -> None:
        """Put the hooks where torch keeps them; a handle for each would take as long as a small layer."""
        key, enter, leave = self._key, self._enter, self._leave
        for child in self.module.modules():
            self._hung.append(child)
            before: Any = child._forward_pre_hooks
            before[key] = enter
            before.move_to_end(key, last=False)
            child._forward_pre_hooks_with_kwargs[key] = True
            child._forward_hooks[key] = leave
            if not isinstance(child, torch.jit.ScriptModule):
                # Always called: a forward may catch what one of its parts raises, and go on.
                child._forward_hooks_always_called[key] = True

    def _take_hooks_down(self) -> None:
        key = self._key
        for child in self._hung:
            child._forward_pre_hooks.pop(key, None)
            child._forward_pre_hooks_with_kwargs.pop(key, None)
            child._forward_hooks.pop(key, None)
            if not isinstance(child, torch.jit.ScriptModule):
                child._forward_hooks_always_called.pop(key, None)

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != self._thread:
            return
        self.check()
        find = self.memory.find
        given: tuple[Any, ...] = args
        if len(args) != 1 or kwargs or type(args[0]) is not torch.Tensor:
            given = tuple([tensor for _, tensor in tensors_of((args, kwargs))])
        # What nobody made so far is a constant of the caller's, not of the module that it is given to.
        inputs = tuple([find(tensor) or self._constant(tensor) for tensor in given])
        parent = self.tape.frame
        if module is self.module and self._begun == 0:
            frame = self.root
        else:
            path = self._path(module, parent.path)
            call = self._calls.get(path, 0)
            self._calls[path] = call + 1
            frame = Frame(module, path, call, parent)
            parent.children.append(frame)
            parent.called = True
        frame.inputs = inputs
        frame.first = len(self.tape.ops)
        frame.error = sys.exc_info()[1]
        # A container of torch's own runs its parts on behalf of whoever called it.
        frame.source = parent.source if parent.torchs and parent.parent else user_line(sys._getframe(1))
        self.tape.frame = frame
        self._begun += 1
        if self._progress is not None:
            self._progress(min(self._begun, len(self._paths)), len(self._paths))

    def _swap(self, tensor: Tensor, edit: Edit) -> Tensor:
        """Let an intervention put another tensor in the place of one, as the same value of the graph."""
        before = self.memory.current(tensor)
        after = edit(before)
        ref = self.memory.find(before)
        if ref is not None:
            self.memory.bind(after, ref)
        return after

    def _constant(self, tensor: Tensor) -> Ref:
        with torch._C.DisableTorchFunction():
            return self.tape.ref(tensor)

    def _refs(self, tensors: list[Tensor]) -> tuple[Ref, ...]:
        """Return the values of those tensors that were made or seen in this run."""
        find = self.memory.find
        return tuple([ref for tensor in tensors if (ref := find(tensor)) is not None])

    def _path(self, module: nn.Module, parent: str) -> str:
        paths = self._paths.get(id(module))
        if paths is None:  # made while the model runs
            return f"{parent}.<{type(module).__name__}>".lstrip(".")
        if len(paths) > 1:
            # A module with several names is called by the one that its caller knows.
            inside = f"{parent}." if parent else ""
            return next((path for path in paths if path.startswith(inside)), paths[0])
        return paths[0]

    def _leave(self, module: nn.Module, _: tuple[Any, ...], output: Any) -> Any:
        if threading.get_ident() != self._thread:
            return None
        frame = self.tape.frame
        while frame.module is not module and frame.parent is not None:
            frame = frame.parent
        self.tape.frame = frame.parent or frame
        error = sys.exc_info()[1]
        if error is not None and error is not frame.error:
            self.fail(error, frame)
            self.settle(frame)
            return None
        self.check()
        with torch._C.DisableTorchFunction():
            return self._left(frame, output)

    def fail(self, error: BaseException, frame: Frame) -> Op:
        """Take down the operation that raised; where none did, one that stands for the module's `raise`."""
        if self.failed is not None and _caused(error, self.failed[0]):
            return self.failed[1]
        if self.tape.failed is not None and _caused(error, self.tape.failed[0]):
            _, op, frame = self.tape.failed
        else:
            op = Op(0, "failure", "raise", None, (), {}, frame.inputs, source=frame.source)
        op.kind = "failure"
        self.tape.place(op, frame)
        self.failed = (error, op)
        return op

    def settle(self, frame: Frame) -> None:
        """Decide whether a call is one node; then all that ran in it belongs to that node."""
        frame.leaf = frame.looks_like_leaf()
        if frame.leaf and not frame.solo:
            for child in frame.children:
                op = self.tape.ops[child]  # type: ignore[index]  # a leaf has called no module
                if op.kind not in STATE:
                    self.kept.drop(op.node)
                    self.tape.refs.pop(op.node, None)
                    op.node = frame.id

    def _left(self, frame: Frame, output: Any) -> Any:
        """Take down what a call gave; return what its caller shall get, or None for just that."""
        result = None
        self.settle(frame)
        if type(output) is torch.Tensor:
            tensors = [output]
        else:
            tensors = [self.memory.current(tensor) for _, tensor in tensors_of(output)]
        frame.outputs = self._refs(tensors)
        if frame.leaf and tensors and not any(ref.op >= frame.first for ref in frame.outputs):
            result = self._pass_through(frame, output, tensors)
        self.tape.changing.discard(frame.id)
        if tensors:
            self.tape.made(frame.id, result if result is not None else self.memory.current(tensors[0]))
        return result

    def _pass_through(self, frame: Frame, output: Any, tensors: list[Tensor]) -> Tensor | None:
        """Give a leaf an operation of its own where none that ran in it made its output."""
        refs = frame.outputs
        specs = tuple(spec_of(tensor) for tensor in tensors)
        op = Op(0, "identity", "identity", None, refs, {}, refs, specs, frame.id, source=frame.source)
        result = None
        if len(refs) < len(tensors):
            op.kind, op.name = "opaque", type_name(frame.module).lower()
            op.func, op.args, op.inputs = frame.module.__call__, frame.inputs, frame.inputs
            op.unsafe = "what it does inside could not be seen"
        elif type(output) is torch.Tensor:
            # Another object for the same data keeps the way past this module and the way through it apart.
            result = output.view_as(output)
            tensors = [result]
        op.index = len(self.tape.ops)
        self.tape.ops.append(op)
        frame.children.append(op.index)
        for port, tensor in enumerate(tensors):
            self.memory.bind(tensor, Ref(op.index, port))
        frame.outputs = self._refs(tensors)
        return result


def _caused(error: BaseException, by: BaseException) -> bool:
    return by is error or by is error.__cause__ or by is error.__context__


def _nothing() -> None:
    pass


def _same(value: Any) -> Any:
    return value


def _unleaf(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) and value.requires_grad else value
