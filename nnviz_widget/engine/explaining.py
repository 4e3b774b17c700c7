"""The part of the engine that explains outputs: attribution, by name, whole or streamed.

A part of the facade, and as thin: ``attribution`` does the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from torch import nn

    from nnviz_widget.engine.attribution.registry import MethodInfo
    from nnviz_widget.engine.attribution.result import Attribution
    from nnviz_widget.engine.attribution.stream import AttributionStream, Runs
    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.twin import Twin

    T = TypeVar("T")

__all__ = ["Explaining"]


class Explaining:
    """What `Engine` answers about outputs."""

    _twin: Twin
    _runs: Runs | None = None

    def _call(self, work: Callable[[CancelToken], T]) -> T:
        """Run on the engine's thread."""
        raise NotImplementedError

    def _path_of(self, module: nn.Module) -> str | None:
        """Return the path of a module of the user's model."""
        raise NotImplementedError

    def methods(self) -> dict[str, MethodInfo]:
        """Return every method of attribution by its name: one line about it, its options and its cost."""
        from nnviz_widget.engine.attribution.registry import known_methods  # noqa: PLC0415  not always wanted

        return known_methods()

    def attribute(
        self,
        inputs: Any,
        method: str | MethodInfo = "saliency",
        *,
        target: Any = None,
        additional_forward_args: Any = None,
        **options: Any,
    ) -> Attribution:
        """Return which parts of the inputs (or of a layer) speak for the target.

        Parameters
        ----------
        inputs : Tensor, tuple of Tensor, or dict
            One batched input, several in the order in which the model takes them, or keyword arguments. All
            of floating point are explained together; whole numbers through the embedding that looks them up.
        method : str
            A name in `methods`, or what `methods` tells of it.
        target : int, tuple of int, list, Tensor or callable, optional
            A class for all samples; an index into one sample's output, such as ``(class, y, x)`` of a
            segmentation map or ``(position, word)`` of a language model; one of either for each sample; or a
            function from the output to one number per row. By default the class with the largest score.
        additional_forward_args : object or tuple, optional
            Further positional arguments of the model, which are not explained.
        **options
            Of the method; `methods` tells their names and defaults. ``layer`` takes a dotted path, a node id
            or a module.

        Returns
        -------
        Attribution
            Signed values of the shape of the input, errors where the method knows them, and the cost.

        Raises
        ------
        UnknownNameError
            No such method.
        InputError
            No such option, or a value that does not fit.
        """
        options |= {"target": target, "additional_forward_args": additional_forward_args}
        with self.stream(inputs, method, **options) as stream:
            return stream.result()

    def stream(
        self,
        inputs: Any,
        method: str | MethodInfo = "saliency",
        *,
        target: Any = None,
        additional_forward_args: Any = None,
        **options: Any,
    ) -> AttributionStream:
        """Return an iterator of partial attributions, each better than the last; closing it cancels.

        Parameters
        ----------
        inputs, method, target, additional_forward_args, **options
            As for `attribute`.
        """
        from nnviz_widget.engine.attribution.asking import ask  # noqa: PLC0415  not always wanted
        from nnviz_widget.engine.attribution.stream import AttributionStream, Runs  # noqa: PLC0415

        question = ask(
            method,
            inputs,
            target=target,
            additional_forward_args=additional_forward_args,
            options=options,
            device=self._twin.device if self._twin.placed else None,
            path=self._path_of,
        )
        if self._runs is None:
            self._runs = Runs(self._twin)
        return AttributionStream(self._call, self._runs, question)

    def cams(
        self,
        inputs: Any,
        *,
        layer: str | nn.Module | None = None,
        target: Any = None,
        additional_forward_args: Any = None,
        relu_attributions: bool = False,
    ) -> dict[str, Attribution]:
        """Return all five class activation maps, from a single pass.

        Parameters
        ----------
        inputs, target, additional_forward_args
            As for `attribute`.
        layer : str or nn.Module, optional
            Dotted path, node id or module; by default the last layer that still has positions.
        relu_attributions : bool
            Keep only what speaks for the target.

        Returns
        -------
        dict of str to Attribution
            ``grad_cam``, ``grad_cam_plus_plus``, ``layer_cam``, ``hires_cam`` and ``xgrad_cam``, as
            `attribute` gives each of them; passes and seconds are those of all five.
        """
        from nnviz_widget.engine.attribution.cams import ALL, separate  # noqa: PLC0415  not always wanted

        found = self.attribute(
            inputs,
            ALL,
            target=target,
            additional_forward_args=additional_forward_args,
            layer=layer,
            relu_attributions=relu_attributions,
        )
        return separate(found)
