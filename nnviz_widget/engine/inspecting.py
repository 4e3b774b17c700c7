"""The part of the engine that takes numbers apart and shows weights: arithmetic, curves, weights.

A part of the facade, and as thin: ``arithmetic``, ``weights`` and ``edits`` do the work.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from torch import nn

from nnviz_widget.engine.jobs import ClosedError
from nnviz_widget.errors import InputError, StaleError, UnknownLayerError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from torch import Tensor

    from nnviz_widget.engine.arithmetic import Arithmetic, Curve
    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.trace import Trace
    from nnviz_widget.engine.twin import Twin
    from nnviz_widget.engine.weights import Weights

    T = TypeVar("T")

__all__ = ["Inspecting"]


class Inspecting:
    """What `Engine` answers about single numbers and about weights."""

    _twin: Twin

    def _call(self, work: Callable[[CancelToken], T]) -> T:
        """Run on the engine's thread."""
        raise NotImplementedError

    def _path_of(self, module: nn.Module) -> str | None:
        """Return the path of a module of the user's model."""
        raise NotImplementedError

    def _resolve(self, trace: Trace, layer: str | nn.Module) -> str:
        """Return the id of what a layer names."""
        raise NotImplementedError

    def arithmetic(
        self, trace: Trace, node: str | nn.Module, unit: int | tuple[int, ...], sample: int = 0
    ) -> Arithmetic:
        """Tell how one number of a layer came about, with the real numbers that went in.

        Parameters
        ----------
        trace : Trace
            Of this engine, and of the weights as they are.
        node : str or nn.Module
            Node or group id, dotted path, or a module. Of a group the last operation is taken apart.
        unit : int or tuple of int
            Index in one sample's activation, such as ``(channel, y, x)``; no batch axis.
        sample : int
            Which sample of the batch.

        Returns
        -------
        Arithmetic
            Its ``result`` is the real number, ``actual``, to 1e-5 of the scale. Of kind ``unknown``, with the
            reason in ``note``, where the operation is not taken apart.

        Raises
        ------
        UnknownLayerError, InputError
            No such layer, unit or sample.
        StaleError
            The weights have changed since.
        """
        from nnviz_widget.engine.arithmetic import arithmetic  # noqa: PLC0415  not always wanted

        name = self._resolve(trace, node)
        return self._call(lambda _: arithmetic(trace, name, unit, sample, self._weight_of(trace)))

    def activation_curve(self, trace: Trace, node: str | nn.Module) -> Curve:
        """Return an activation function over the range of its real inputs, with their distribution.

        Parameters
        ----------
        trace, node
            As for `arithmetic`.

        Returns
        -------
        Curve
            The function, its derivative, a histogram of the inputs (all samples of the trace), and the
            fraction of them at which the derivative is smaller than 0.05 in magnitude: there, hardly any
            gradient passes.

        Raises
        ------
        InputError
            The layer is no activation function.
        """
        from nnviz_widget.engine.arithmetic import activation_curve  # noqa: PLC0415  not always wanted

        name = self._resolve(trace, node)
        return self._call(lambda _: activation_curve(trace, name, self._weight_of(trace)))

    def weights(self, layer: str | nn.Module, name: str | None = None) -> Weights:
        """Return the weights of a layer: kernels, norms, singular values, dead and duplicate filters.

        Parameters
        ----------
        layer : str or nn.Module
            Dotted path, node id, or a module. Only its own weights, not those of its parts.
        name : str, optional
            Which of them (``weight``, ``weight_ih_l0``); by default the first with two axes or more.

        Returns
        -------
        Weights
            Copies on the CPU. Inside `weights_changed`, as changed.

        Raises
        ------
        UnknownLayerError
            No such module.
        InputError
            It has no such weight.
        """
        from nnviz_widget.engine.weights import read_weights  # noqa: PLC0415  not always wanted

        path = self._module_path(layer)

        def work(_: CancelToken) -> Weights:
            self._twin.sync()
            return read_weights(self._twin.module.get_submodule(path), path, name)

        return self._call(work)

    @contextmanager
    def weights_changed(self, layer: str | nn.Module, name: str, index: Any, value: Any) -> Iterator[None]:
        """Run with some entries of a weight changed, inside this block; the user's model is not touched.

        What is asked of the engine inside the block (traces, saliency, attributions) is of the changed
        weights, which are a private copy. Blocks nest, and may end in any order.

        Parameters
        ----------
        layer : str or nn.Module
            As for `weights`.
        name : str
            ``weight``, ``bias``, ...
        index : int, slice, tuple or Tensor
            Entries, as in ``weight[index] = value``.
        value : float or Tensor
            What they become.

        Raises
        ------
        UnknownLayerError, InputError
            No such module, weight or entries; or the model is one that cannot be copied.
        """
        from nnviz_widget.engine.edits import Change  # noqa: PLC0415  not always wanted

        path = self._module_path(layer)

        def begin(_: CancelToken) -> Change:
            self._twin.sync()
            original = self._twin.original(path, name)
            change = Change(original, index, value)
            self._twin.change(change)
            return change

        change = self._call(begin)
        try:
            yield
        finally:
            with suppress(ClosedError):  # with the engine, the copies went
                self._call(lambda _: self._twin.unchange(change))

    def _module_path(self, layer: str | nn.Module) -> str:
        if isinstance(layer, nn.Module):
            found = self._path_of(layer)
            if found is None:
                raise UnknownLayerError(f"This {type(layer).__name__} is not a part of the model.")
            return found
        path = str(layer).partition("@")[0]
        known = dict(self._twin.module.named_modules(remove_duplicate=False))
        if path not in known:
            raise UnknownLayerError(
                f"There is no module {layer!r} in the model.{nearest(path, known)}",
                hint="Operations of a forward have no weights.",
            )
        return path

    def _weight_of(self, trace: Trace) -> Callable[[str], Tensor]:
        """Return what reads parameters and buffers as they were in a trace."""
        if self._twin.sync() != trace.epoch:
            raise StaleError("The weights have changed since this trace.", hint="Trace the input again.")
        module = self._twin.module
        named: dict[str, Tensor] = {}

        def read(name: str) -> Tensor:
            if not named:
                named.update([*module.named_parameters(remove_duplicate=False)])
                named.update([*module.named_buffers(remove_duplicate=False)])
            if name not in named:
                raise InputError(f"The model no longer has {name!r}.")
            return named[name].detach()

        return read
