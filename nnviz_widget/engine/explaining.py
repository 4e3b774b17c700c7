"""The part of the engine that explains outputs: attribution, by name, whole or streamed.

A part of the facade, and as thin: ``attribution`` does the work.
"""

from __future__ import annotations

from collections.abc import Sized
from contextlib import closing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from torch import Tensor, nn

    from nnviz_widget.engine.attribution.registry import MethodInfo
    from nnviz_widget.engine.attribution.result import Attribution
    from nnviz_widget.engine.attribution.stream import AttributionStream, Runs
    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.maximization.stream import MaximizationStream
    from nnviz_widget.engine.metrics.evaluation import Evaluation
    from nnviz_widget.engine.metrics.registry import MetricInfo
    from nnviz_widget.engine.metrics.sanity import Sanity
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

    @property
    def memory_budget(self) -> int:
        """Bytes that one trace may hold of activations."""
        raise NotImplementedError

    @property
    def debug(self) -> bool:
        """Whether all that can be is replayed, faster or not, and a sample of it compared with the whole."""
        return self._shared_runs().replays.debug

    @debug.setter
    def debug(self, on: bool) -> None:
        self._shared_runs().replays.debug = bool(on)

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
        from nnviz_widget.engine.attribution.stream import AttributionStream  # noqa: PLC0415

        question = ask(
            method,
            inputs,
            target=target,
            additional_forward_args=additional_forward_args,
            options=options,
            device=self._twin.device if self._twin.placed else None,
            path=self._path_of,
        )
        return AttributionStream(self._call, self._shared_runs(), question)

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

    def metrics(self) -> dict[str, MetricInfo]:
        """Return every metric by its name: one line about it, which way is better, its range and options."""
        from nnviz_widget.engine.metrics.registry import known_metrics  # noqa: PLC0415  not always wanted

        return known_metrics()

    def evaluate(
        self,
        attributions: Any,
        metrics: Any = None,
        mask: Any = None,
        *,
        data: Iterable[Any] | None = None,
        sign: str = "auto",
        seed: int = 0,
        progress: Callable[[int, int], object] | None = None,
    ) -> Evaluation:
        """Return a table that says how far to trust explanations, beside two that know nothing of the model.

        Parameters
        ----------
        attributions : Attribution, list, or dict
            What `attribute` returned, for the same inputs and target; a dict names the rows. With `data`, the
            methods: names, ``(name, options)``, or functions of inputs and targets that return an attribution
            or a tensor.
        metrics : str, list, or dict, optional
            Names in `metrics`, ``(name, options)`` among them, or a dict from names to options. By default
            deletion and insertion, the metrics of localisation where there is a mask, and the agreement of
            several methods.
        mask : array or Tensor, optional
            ``[N, H, W]``, true where the object is; ``[H, W]`` for all samples.
        data : iterable, optional
            Of ``(inputs, target)`` or ``(inputs, target, mask)``, batch by batch, such as a ``DataLoader``.
        sign : str
            How positions are put in order: by the ``"absolute"`` or the ``"signed"`` sum over their channels.
            ``"auto"`` takes signed values of maps that tell for from against (class activation maps,
            occlusion, surrogates), and absolute ones of gradients.
        seed : int
            Of the random map, and of everything else that is drawn.
        progress : callable, optional
            Called in the caller's thread with how much is done, and of how much; of data in batches.

        Returns
        -------
        Evaluation
            Prints as a table; ``rows``, ``by_class``, ``curves``, ``agreement`` and ``readings`` are data,
            and `figure()` draws it. The rows ``random`` and ``center`` are always there.
        """
        found: Evaluation | None = None
        total = 100 if data is None else len(data) if isinstance(data, Sized) else 0
        tables = self.stream_evaluate(attributions, metrics, mask, data=data, sign=sign, seed=seed)
        with closing(tables):
            if progress is None and data is None:
                found = tables.result()
            else:
                for number, found in enumerate(tables, 1):
                    if progress is not None:
                        progress(number if data is not None else round(100 * found.progress), total)
        assert found is not None
        return found

    def stream_evaluate(
        self,
        attributions: Any,
        metrics: Any = None,
        mask: Any = None,
        *,
        data: Iterable[Any] | None = None,
        sign: str = "auto",
        seed: int = 0,
    ) -> Any:
        """Return an iterator of tables that fill up, with data after each batch; closing it cancels.

        Parameters
        ----------
        attributions, metrics, mask, data, sign, seed
            As for `evaluate`.

        Returns
        -------
        iterator of Evaluation
            An `EvaluationStream`, or a generator over data.
        """
        from nnviz_widget.engine.metrics.dataset import methods_of, over_data  # noqa: PLC0415
        from nnviz_widget.engine.metrics.evaluating import EvaluationStream, rows_of  # noqa: PLC0415
        from nnviz_widget.engine.metrics.registry import metrics_asked  # noqa: PLC0415

        if data is not None:
            methods = methods_of(attributions)
            return over_data(self, methods, data, metrics=metrics, sign=sign, seed=seed)
        rows = rows_of(attributions)
        asked = metrics_asked(metrics, masked=mask is not None, methods=len(rows))
        runs = self._shared_runs()
        return EvaluationStream(self._call, runs, rows, asked, mask=mask, sign=sign, seed=seed)

    def sanity(
        self, attribution: Attribution, *, threshold: float = 0.5, steps: int = 5, seed: int = 0
    ) -> Sanity:
        """Return whether a map shows the network at all: whether it changes when the network forgets.

        Parameters
        ----------
        attribution : Attribution
            What `attribute` returned.
        threshold : float
            From this correlation on it fails.
        steps : int
            Points of the cascade of layers that are made random, from the last layer to all of them.
        seed : int
            Of the random weights.

        Returns
        -------
        Sanity
            ``passes``, and why in words; prints as these.
        """
        from nnviz_widget.engine.metrics.sanity import METRIC, sanity_of  # noqa: PLC0415  not always wanted

        table = self.evaluate({"map": attribution}, {METRIC: {"steps": steps}}, seed=seed)
        return sanity_of(table, "map", threshold)

    def maximize(self, layer: str | nn.Module, channel: Any = None, **options: Any) -> Tensor:
        """Return pictures that a part of the model answers to most.

        Parameters
        ----------
        layer : str or nn.Module
            Dotted path or module; ``"output"`` with the number of a class for `channel` gives that class. The
            model is run no further than to this layer.
        channel : int or list of int, optional
            Maximise the mean of this channel; of several, one picture each. With none of `channel`, `unit`,
            `direction`, `objective` and `invert`, the mean square of all that the layer gives: together with
            `start` that is DeepDream.
        unit : tuple of int
            Maximise one unit, such as ``(channel, y, x)``.
        direction : Tensor
            Maximise along a direction of the layer: a number for each channel, or for each unit.
        objective : callable
            Maximise a function of what the layer gives, ``[B, ...]``, to one number per picture, ``[B]``.
        invert : Tensor
            Find a picture to which the layer answers as to this one (feature inversion).
        start : Tensor
            Begin with this picture, not with noise; ``[C, H, W]`` or ``[B, C, H, W]``, as the model takes it.
        steps : int
            How many, 256 by default.
        seed : int
            Of all that is drawn; 0 by default. The same seed gives the same pictures.
        images : int
            How many pictures of the same thing, each from noise of its own.
        image_size : int or (int, int)
            Sides in pixels; by default those of `start` or `invert`, else 128.
        channels : int
            Of the pictures; by default what the first convolution takes.
        value_range : (low, high)
            Of the values that the model takes, numbers or one for each channel; by default 0 to 1.
        mean, std : float or sequence of float
            What normalises pictures between 0 and 1 for the model, in the place of `value_range`.
        parametrization : str
            ``"fourier"`` (waves, weighted as in natural pictures) or ``"pixel"``.
        decorrelate : bool
            Mix colours from lightness and contrasts; True by default.
        decay : float
            How fast the weight of waves falls with their frequency; 1 by default.
        total_variation, l2 : float
            Weights of the mean difference between neighbouring pixels and of the mean squared distance from
            grey, which are taken off the objective; 0 by default.
        jitter, scale, rotate : float
            How far the picture is shaken at each step: pixels, share of the size, degrees. By default a
            sixteenth of the shorter side, 0.1 and 10; nothing for `invert`.
        learning_rate : float
            Of Adam, 0.05 by default.

        Returns
        -------
        Tensor
            ``[images, C, H, W]``, in the range of the model's inputs.

        Raises
        ------
        UnknownLayerError
            No such module.
        InputError
            An option that there is not, or that does not fit the layer.

        References
        ----------
        Olah, Mordvintsev and Schubert 2017, Feature visualization; Mahendran and Vedaldi 2014,
        arXiv:1412.0035 (inversion); Mordvintsev, Olah and Tyka 2015 (DeepDream).
        """
        with self.stream_maximize(layer, channel, **options) as stream:
            return stream.result().images

    def stream_maximize(
        self, layer: str | nn.Module, channel: Any = None, *, every: int = 8, **options: Any
    ) -> MaximizationStream:
        """Return an iterator of pictures as they form; closing it cancels.

        Parameters
        ----------
        layer, channel, **options
            As for `maximize`.
        every : int
            Steps between two pictures.

        Returns
        -------
        iterator of Maximization
            ``images``, ``pictures`` (between 0 and 1), ``objective``, ``step``, ``progress``, ``seconds``.
        """
        from nnviz_widget.engine.maximization.asking import wish_for  # noqa: PLC0415  not always wanted
        from nnviz_widget.engine.maximization.stream import MaximizationStream  # noqa: PLC0415

        twin = self._twin
        wish = wish_for(layer, channel, options, module=twin.module, device=twin.device, path=self._path_of)
        return MaximizationStream(self._call, twin, wish, every=every)

    def _shared_runs(self) -> Runs:
        from nnviz_widget.engine.attribution.stream import Runs  # noqa: PLC0415  not always wanted

        if self._runs is None:
            self._runs = Runs(self._twin, lambda: self.memory_budget)
        return self._runs
