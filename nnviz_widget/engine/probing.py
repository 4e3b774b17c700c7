"""The part of the engine that answers hands on the input and the output: live runs, influence, lens, changes.

A part of the facade, and as thin: ``live``, ``influence``, ``lens``, ``linear_probes`` and ``counterfactual``
do the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeVar

    from torch import Tensor, nn

    from nnviz_widget.engine.attribution.stream import Runs
    from nnviz_widget.engine.counterfactual import Counterfactual, CounterfactualStream
    from nnviz_widget.engine.influence import Influence
    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.lens import LogitLens
    from nnviz_widget.engine.linear_probes import LinearProbes, ProbeStream
    from nnviz_widget.engine.live import Glimpse, Live
    from nnviz_widget.engine.trace import Trace
    from nnviz_widget.engine.twin import Twin

    T = TypeVar("T")

__all__ = ["Probing"]


class Probing:
    """What `Engine` answers about a changed input, and about the output."""

    _twin: Twin
    _live: Live | None = None

    def _call(self, work: Callable[[CancelToken], T]) -> T:
        """Run on the engine's thread."""
        raise NotImplementedError

    def _own(self, trace: Trace) -> None:
        """Raise where this is no trace of this engine, or one without values."""
        raise NotImplementedError

    def _shared_runs(self) -> Runs:
        raise NotImplementedError

    def _site(self, layer: str | nn.Module, *, heads: bool = False) -> str:
        """Return ``path@call`` of what names a module."""
        raise NotImplementedError

    def _arguments(self, inputs: Any, extra: Any = None) -> tuple[Any, Any, Any]:
        """Return inputs as the model takes them, on its device."""
        raise NotImplementedError

    def glimpse(
        self,
        trace: Trace,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None = None,
        *,
        looks: Mapping[str, Callable[[Tensor], object]] | None = None,
    ) -> Glimpse:
        """Run another input as fast as the model runs by itself, and look at a few layers on the way.

        Parameters
        ----------
        trace : Trace
            Of this engine, of an input of the same shape.
        args, kwargs
            As the model takes them, on the engine's device.
        looks : mapping, optional
            From the id of a node or group to a function of its activation. It is called while the model runs,
            and what it is given may be overwritten afterwards: return what is to be kept.

        Returns
        -------
        Glimpse
            ``output``, what the looks returned in ``seen``, and how long it took.
        """
        from nnviz_widget.engine.live import Live  # noqa: PLC0415  not always wanted

        self._own(trace)
        if self._live is None:
            self._live = Live(self._shared_runs())
        live = self._live
        return self._call(lambda token: live.run(trace, args, kwargs or {}, looks or {}, token))

    def influence(
        self,
        trace: Trace,
        pixel: int | tuple[int, ...],
        layers: Sequence[str | nn.Module] | None = None,
        *,
        sample: int = 0,
        change: float = 0.0,
    ) -> Influence:
        """Return what one number of the input, or one pixel, does to every layer.

        The other way round than `unit_saliency`: one place of the input, all units of all layers. Exact, by
        forward-mode derivatives; `Influence.how` says where the model only allows something else.

        Parameters
        ----------
        trace : Trace
            Of this engine; gives the input. The weights are those of now.
        pixel : int or tuple of int
            An index in one sample of the input, without the batch axis; or, of an image, ``(y, x)`` for all
            channels of that pixel together.
        layers : sequence of str or nn.Module, optional
            Dotted paths, ids or modules; by default every node and group.
        sample : int
            Which sample of the batch.
        change : float
            Also run the model with this added there, and return what that changes (`Influence.measured`).

        Returns
        -------
        Influence
            ``derivatives`` and ``measured`` by id, each of the shape of the activation; ``strength()``.

        Raises
        ------
        InputError
            There is no such place, or the inputs are whole numbers.
        UnknownLayerError
            No such layer ran.
        """
        from nnviz_widget.engine.influence import influence  # noqa: PLC0415  not always wanted

        self._own(trace)
        names = list(trace.refs) if layers is None else [trace.resolve(layer) for layer in layers]
        return self._call(
            lambda token: influence(
                self._twin, trace, pixel, names, sample=sample, change=float(change), token=token
            )
        )

    def reach(
        self, inputs: Any, box: Sequence[int], additional_forward_args: Any = None
    ) -> dict[str, tuple[tuple[int, int], ...]]:
        """Return what part of each layer a change inside a box of the input reaches.

        The other way round than `receptive_field`: it is how far the box grows on its way through windows.
        What a replay of that change computes anew; where it is most of a layer, or an operation mixes all
        places, all of the layer.

        Parameters
        ----------
        inputs, additional_forward_args
            As for `Engine.attribute`; the first sample of the first input is meant.
        box : sequence of int
            Begin and end along each axis behind the channels, half open: ``(y0, x0, y1, x1)`` of an image,
            ``(t0, t1)`` of a series.

        Returns
        -------
        dict of str to tuple
            By node and group id, in the order in which they run, begin and end along each axis behind the
            samples, channels among them. Layers that the change does not reach are left out.

        Raises
        ------
        InputError
            The box lies outside, or the model cannot be replayed; the message says why.
        """
        from nnviz_widget.engine.replay.reaching import reach  # noqa: PLC0415  not always wanted

        args, kwargs, extra = self._arguments(inputs, additional_forward_args)
        runs = self._shared_runs()

        def work(token: CancelToken) -> dict[str, tuple[tuple[int, int], ...]]:
            def run(module: nn.Module, _: int) -> dict[str, tuple[tuple[int, int], ...]]:
                with runs.twin.running():
                    return reach(runs.task_of(module, args, kwargs, token, extra=extra), tuple(box))

            return runs.twin.steadily(run)[0]

        return self._call(work)

    def logit_lens(self, trace: Trace, layers: Sequence[str | nn.Module] | None = None) -> LogitLens:
        """Return what a transformer would answer after each of its blocks.

        Final norm and head on what each block gave: what comes after the last block runs on the value of
        another one. For language models (GPT-2, Llama and their like) and vision transformers.

        Parameters
        ----------
        trace : Trace
            Of this engine; gives the input. The weights are those of now.
        layers : sequence of str or nn.Module, optional
            Whose values to read; by default those of all blocks.

        Returns
        -------
        LogitLens
            ``logits`` ``[blocks, N, K]`` (``[blocks, N, T, K]`` of a language model), ``layers``, ``top(k)``.

        Raises
        ------
        InputError
            The model has no row of blocks over one stream of tokens.
        """
        from nnviz_widget.engine.lens import logit_lens  # noqa: PLC0415  not always wanted

        self._own(trace)
        names = None if layers is None else [trace.resolve(layer) for layer in layers]
        runs = self._shared_runs()
        return self._call(lambda token: logit_lens(runs, trace, names, token))

    def linear_probes(
        self, inputs: Any, labels: Any, layers: Sequence[str | nn.Module] | None = None, **options: Any
    ) -> LinearProbes:
        """Return how well a linear classifier tells the classes apart after each stage of the network.

        Each layer's activation is averaged over its positions (the pixels of a map, the tokens of a text), so
        a sample is one number for each channel. On these, standardised, a softmax regression is fitted in
        float64, and judged on samples that were held out from it: every sample is, once.

        Parameters
        ----------
        inputs : Tensor, tuple or dict
            As for `attribute`; hundreds of samples tell more than a handful.
        labels : Tensor or sequence of int
            The true class of each sample.
        layers : sequence of str or nn.Module, optional
            By default the blocks of the network, in the order in which they run.
        folds : int
            How many parts the samples are held out in, with the classes as even as can be.
        l2 : float
            The penalty: half of it times the squares of the weights.
        seed : int
            Of the shuffle before the folds are cut.
        additional_forward_args : tuple, optional
            As for `attribute`.
        internal_batch_size : int or "auto"
            Samples in one pass.

        Returns
        -------
        LinearProbes
            ``layers``, ``accuracy`` with its ``stderr``, ``chance``, ``fitted``, ``predicted``; prints as a
            table.

        Raises
        ------
        InputError
            Labels that do not fit, of one class alone, or a layer without channels for each sample.

        References
        ----------
        Alain and Bengio 2016, arXiv:1610.01644.

        Examples
        --------
        >>> probes = engine.linear_probes(images, labels)
        >>> dict(zip(probes.layers, probes.accuracy.tolist()))
        """
        with self.stream_linear_probes(inputs, labels, layers, **options) as stream:
            return stream.result()

    def stream_linear_probes(
        self,
        inputs: Any,
        labels: Any,
        layers: Sequence[str | nn.Module] | None = None,
        *,
        folds: int = 5,
        l2: float = 1.0,
        seed: int = 0,
        additional_forward_args: Any = None,
        internal_batch_size: int | str = "auto",
    ) -> ProbeStream:
        """Return an iterator of results that fill up, a layer at a time; closing it cancels.

        Parameters
        ----------
        inputs, labels, layers, folds, l2, seed, additional_forward_args, internal_batch_size
            As for `linear_probes`.
        """
        from nnviz_widget.engine.linear_probes import (  # noqa: PLC0415  not always wanted
            ProbeStream,
            read_labels,
        )

        if type(folds) is not int or folds < 2:
            raise InputError(f"folds is a whole number from 2, not {folds!r}.")
        if isinstance(l2, bool) or not isinstance(l2, (int, float)) or not 0 < l2 < float("inf"):
            raise InputError(f"l2 is a number above 0, not {l2!r}.")
        return ProbeStream(
            self._call,
            self._shared_runs(),
            self._arguments(inputs, additional_forward_args),
            read_labels(labels),
            sites=None if layers is None else [self._site(layer) for layer in layers],
            folds=folds,
            l2=float(l2),
            seed=seed,
            size=internal_batch_size,
        )

    def counterfactual(
        self,
        inputs: Any,
        target: Any = None,
        *,
        method: str = "pgd",
        norm: str = "linf",
        epsilon: Any = 8 / 255,
        step_size: Any = None,
        steps: int = 40,
        lower: Any = float("-inf"),
        upper: Any = float("inf"),
    ) -> Counterfactual:
        """Return inputs changed a little, so that the model answers otherwise.

        Parameters
        ----------
        inputs : Tensor, tuple, or dict
            As the model takes them; the first of floating point is changed.
        target : int, list or Tensor, optional
            The class wanted, of all samples or of each; by default any other than the present one.
        method : str
            ``"pgd"`` (many small steps), ``"fgsm"`` (one), or ``"gradient"``: the smallest step along the
            gradient of the input as it is, within the budget.
        norm : str
            What the budget holds for: ``"linf"``, the largest change, or ``"l2"``, the length of all changes.
        epsilon : float or Tensor
            The budget, in units of the inputs; a number, or one for each channel.
        step_size : float or Tensor, optional
            Of PGD; by default ``2.5 * epsilon / steps``.
        steps : int
            Of PGD.
        lower, upper : float or Tensor
            Range of the inputs, numbers or one for each channel.

        Returns
        -------
        Counterfactual
            ``values``, ``perturbation``, ``success``, ``predicted``, ``scores``, ``linf``, ``l2``.

        Raises
        ------
        InputError
            An option that does not fit, or an output that is no row of class scores.
        """
        with self.stream_counterfactual(
            inputs,
            target,
            method=method,
            norm=norm,
            epsilon=epsilon,
            step_size=step_size,
            steps=steps,
            lower=lower,
            upper=upper,
        ) as stream:
            return stream.result()

    def stream_counterfactual(self, inputs: Any, target: Any = None, **options: Any) -> CounterfactualStream:
        """Return an iterator of the changed input after each step; closing it cancels.

        Parameters
        ----------
        inputs, target, **options
            As for `counterfactual`.
        """
        from nnviz_widget.engine.counterfactual import (  # noqa: PLC0415  not always wanted
            CounterfactualStream,
            asked,
        )

        args, kwargs, aim = asked(inputs, target, options, self._twin.device if self._twin.placed else None)
        return CounterfactualStream(self._call, self._twin, args, kwargs, aim)
