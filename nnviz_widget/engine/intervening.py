"""The part of the engine that changes a run: interventions, knock-outs, patches between two inputs.

A part of the facade, and as thin: ``interventions``, ``knock_outs`` and ``patching`` do the work.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from nnviz_widget.engine.admission import prepared
from nnviz_widget.engine.attribution.asking import arguments, literal
from nnviz_widget.engine.interventions import KINDS, Intervention, Place, current, likely_axis, within
from nnviz_widget.engine.sites import HEADS, heads_of, module_of
from nnviz_widget.engine.trace import Trace
from nnviz_widget.errors import InputError, UnknownLayerError, UnknownNameError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import TypeVar

    from nnviz_widget.engine.attribution.stream import Runs
    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.knock_outs import KnockOuts, KnockOutStream
    from nnviz_widget.engine.patching import PatchEffects, PatchStream
    from nnviz_widget.engine.twin import Twin

    T = TypeVar("T")

__all__ = ["Intervening"]

_PARTS = ("channel", "unit", "head", "position")


class Intervening:
    """What `Engine` can change in a run."""

    _twin: Twin
    _traces: Any

    def _call(self, work: Callable[[CancelToken], T]) -> T:
        """Run on the engine's thread."""
        raise NotImplementedError

    def _path_of(self, module: nn.Module) -> str | None:
        """Return the path of a module of the user's model."""
        raise NotImplementedError

    def _shared_runs(self) -> Runs:
        """Return what all runs of this engine share."""
        raise NotImplementedError

    def intervene(
        self,
        layer: str | nn.Module,
        kind: str = "ablate",
        *,
        channel: int | Sequence[int] | None = None,
        unit: int | Sequence[int] | None = None,
        head: int | Sequence[int] | None = None,
        position: int | Sequence[int] | None = None,
        axis: int | None = None,
        **options: Any,
    ) -> AbstractContextManager[Intervention]:
        """Change what a layer gives, in everything that this thread asks the engine inside the block.

        `trace`, `attribute`, `unit_saliency` and all else see the changed network; the user's model, other
        engines and other threads do not. Blocks nest: the outer change is made first. Without a part named
        by `channel`, `unit`, `head` or `position`, the whole layer is changed.

        Parameters
        ----------
        layer : str or nn.Module
            Dotted path, node id of a traced graph, or module; ``path@1`` is the second use of a module.
        kind : str
            ``"ablate"`` (zero, or with ``value="mean"`` the channel's mean over samples and positions),
            ``"scale"`` (by ``factor``), ``"clamp"`` (between ``low`` and ``high``, or one of them),
            ``"replace"`` (by ``value``, a number or a tensor that broadcasts to the part) or ``"patch"`` (by
            what the layer gives for ``source``: other inputs, or a trace of them).
        channel : int or sequence of int, optional
            Along the axis of the channels, or features.
        unit : int or tuple of int, optional
            Index in one sample's activation, such as ``(channel, y, x)``.
        head : int or sequence of int, optional
            Of the attention that the layer is or holds: what the head gives before the heads are mixed.
        position : int or tuple of int, optional
            Along the other axes: a token, ``(y, x)`` of a map.
        axis : int, optional
            Of the channels, the batch being 0; by default where a trace of this engine, or the type of the
            layer, says that they are.
        **options
            ``value``, ``factor``, ``low``, ``high`` or ``source``, as the kind takes them.

        Returns
        -------
        context manager
            Gives the `Intervention`, which prints as its Python.

        Raises
        ------
        UnknownLayerError
            No such module. Of the operations of a forward only those can be changed that give what a module
            gives; the error says what to do for others.
        InputError
            A part or an option that there is not, that is missing, or that does not fit. What lies outside
            an activation is found when the layer runs.

        Examples
        --------
        >>> with engine.intervene("layer2.0.conv1", "ablate", channel=7):
        ...     without = engine.trace(images).output
        """
        site = self._site(layer)
        parts = {"channel": channel, "unit": unit, "head": head, "position": position}
        checked = {name: _numbers(name, given) for name, given in parts.items()}
        _compatible(checked)
        made = _options(kind, options)
        name = site
        if head is not None:
            path, _, call = site.partition("@")
            heads = heads_of(self._modules(), path)
            outside = [one for one in checked["head"] or () if one >= heads.count]
            if outside:
                raise InputError(f"head={outside[0]} does not exist: {path!r} has {heads.count}, from 0.")
            site = f"{path}{HEADS}@{call}" if call else f"{path}{HEADS}"
            place = Place(name, checked["head"], None, checked["position"], -2)
        else:
            axis = self._axis(name) if axis is None else axis
            place = Place(name, checked["channel"], checked["unit"], checked["position"], axis)
        said = self._written(name, kind, parts, options)
        if kind == "patch":
            made["source"] = self._source_value(site, made["source"])
        return _in_force(Intervention(self._twin, kind, site, place, made, said))

    def output(self, inputs: Any, additional_forward_args: Any = None) -> Any:
        """Return what the model gives, with the interventions in force, and keep nothing of what is inside.

        Parameters
        ----------
        inputs, additional_forward_args
            As for `Engine.attribute`.

        Returns
        -------
        object
            As the model returns it, without a graph.
        """
        args, kwargs, extra = self._arguments(inputs, additional_forward_args)

        def work(token: CancelToken) -> Any:
            def run(module: nn.Module, _: int) -> Any:
                with self._twin.running():
                    task = self._shared_runs().task_of(module, args, kwargs, token, extra=extra)
                    return task.output()

            return self._twin.steadily(run)[0]

        return self._call(work)

    def knock_outs(self, inputs: Any, layer: str | nn.Module, **options: Any) -> KnockOuts:
        """Return how much each channel of a layer matters to the target: what is lost without it.

        Parameters
        ----------
        inputs, target, additional_forward_args
            As for `Engine.attribute`; the effects are means over the samples.
        layer : str or nn.Module
            Dotted path, node id of a module, or module.
        value : "zero" or "mean"
            What a channel is replaced by: zero, or its mean over samples and positions.
        heads : bool
            Knock out the heads of the attention that the layer is or holds, not channels.
        channels : sequence of int, optional
            Only these.
        perturbations_per_eval : int or "auto"
            Variants in one pass.

        Returns
        -------
        KnockOuts
            ``effects`` (the target's score falls by so much), ``ranking`` (the most important first),
            ``probabilities`` where the target is a class; prints as a table.
        """
        with self.stream_knock_outs(inputs, layer, **options) as stream:
            return stream.result()

    def stream_knock_outs(
        self,
        inputs: Any,
        layer: str | nn.Module,
        *,
        target: Any = None,
        additional_forward_args: Any = None,
        value: str = "zero",
        heads: bool = False,
        channels: Sequence[int] | None = None,
        perturbations_per_eval: int | str = "auto",
    ) -> KnockOutStream:
        """Return an iterator of rankings that fill up, the strongest channels first; closing it cancels.

        Parameters
        ----------
        inputs, layer, target, additional_forward_args, value, heads, channels, perturbations_per_eval
            As for `knock_outs`.
        """
        from nnviz_widget.engine.knock_outs import KnockOutStream  # noqa: PLC0415  not always wanted

        if value not in ("zero", "mean"):
            raise InputError(f'value is "zero" or "mean", not {value!r}.')
        site = self._site(layer, heads=heads)
        args, kwargs, extra = self._arguments(inputs, additional_forward_args)
        return KnockOutStream(
            self._call,
            self._shared_runs(),
            site,
            (args, kwargs, extra),
            target=target,
            mean=value == "mean",
            channels=_numbers("channels", channels),
            size=perturbations_per_eval,
        )

    def patch_effects(self, clean: Any, corrupted: Any, **options: Any) -> PatchEffects:
        """Return how far each layer's activation, put into another input's run, brings its prediction back.

        Each layer of the run on `corrupted` is given what it gives for `clean`, whole or part by part, and
        the score is compared: 0 is as without the patch, 1 as for `clean`. Known as causal tracing, or
        activation patching.

        Parameters
        ----------
        clean : Tensor, tuple or dict
            The inputs whose activations are put in, as for `Engine.attribute`.
        corrupted : Tensor, tuple or dict
            The inputs that are run, of the same shape.
        layers : sequence of str or nn.Module, optional
            By default the blocks of the network, in the order in which they run.
        each : str
            ``"layer"`` (the whole of it), ``"position"`` (tokens; of maps a grid of regions), ``"channel"``
            or ``"head"``.
        target : int, tuple of int or callable, optional
            The score, as for `Engine.attribute`. By default the logit of the best class for `clean`, less
            that for `corrupted` where it is another class; of language models at the last position.
        grid : int
            Regions along each side of a map.
        perturbations_per_eval : int or "auto"
            Variants in one pass.

        Returns
        -------
        PatchEffects
            ``effects`` by layer, and ``matrix()``, layers by parts.

        References
        ----------
        Meng, Bau, Andonian and Belinkov 2022, arXiv:2202.05262; Vig et al. 2020, arXiv:2004.12265.
        """
        with self.stream_patch_effects(clean, corrupted, **options) as stream:
            return stream.result()

    def stream_patch_effects(
        self,
        clean: Any,
        corrupted: Any,
        *,
        layers: Sequence[str | nn.Module] | None = None,
        each: str = "layer",
        target: Any = None,
        additional_forward_args: Any = None,
        grid: int = 7,
        perturbations_per_eval: int | str = "auto",
    ) -> PatchStream:
        """Return an iterator of heat maps that fill up; closing it cancels.

        Parameters
        ----------
        clean, corrupted, layers, each, target, additional_forward_args, grid, perturbations_per_eval
            As for `patch_effects`.
        """
        from nnviz_widget.engine.patching import EACH, PatchStream  # noqa: PLC0415  not always wanted

        if each not in EACH:
            raise UnknownNameError(f"each={each!r} is none of {', '.join(EACH)}.{nearest(str(each), EACH)}")
        if type(grid) is not int or grid < 1:
            raise InputError(f"grid is a whole number from 1, not {grid!r}.")
        sites = None if layers is None else [self._site(one, heads=each == "head") for one in layers]
        return PatchStream(
            self._call,
            self._shared_runs(),
            self._arguments(clean, additional_forward_args),
            self._arguments(corrupted, additional_forward_args),
            sites=sites,
            each=each,
            target=target,
            grid=grid,
            size=perturbations_per_eval,
        )

    # -- inside ---------------------------------------------------------------------------------------------

    def _modules(self) -> Mapping[str, nn.Module]:
        return dict(self._twin.module.named_modules(remove_duplicate=False))

    def _site(self, layer: str | nn.Module, *, heads: bool = False) -> str:
        """Return ``path@call`` of what names a module."""
        if isinstance(layer, nn.Module):
            found = self._path_of(layer)
            if found is None:
                raise UnknownLayerError(f"This {type(layer).__name__} is not a part of the model.")
            layer = found
        modules = self._modules()
        for trace in list(self._traces) if "/" in str(layer) else ():
            layer = module_of(trace, str(layer)) or layer
        path, _, call = str(layer).partition("@")
        if path not in modules or not path or (call and not call.isdigit()):
            raise UnknownLayerError(
                f"There is no module {layer!r} in the model.{nearest(path, modules)}",
                hint="This needs a module; the output has none.",
            )
        if heads:
            heads_of(modules, path)
            path += HEADS
        return f"{path}@{int(call)}" if call and int(call) else path

    def _axis(self, site: str) -> int:
        """Return the axis of a layer's channels, as a pass that was recorded says, or else its type."""
        for trace in list(self._traces):
            if site in trace.refs:
                axis: int = trace.channel_axis(site)
                return axis
        return likely_axis(self._modules()[site.partition("@")[0]])

    def _arguments(self, inputs: Any, extra: Any = None) -> tuple[Any, Any, Any]:
        args, kwargs = arguments(inputs)
        extras = () if extra is None else tuple(extra) if isinstance(extra, (tuple, list)) else (extra,)
        device = self._twin.device if self._twin.placed else None
        (args, extras), kwargs = prepared((args, extras), kwargs, device)
        return args, kwargs, extras

    def _source_value(self, site: str, source: Any) -> Tensor:
        """Return what a site gives for a source: in the network as it is, without any intervention."""
        if isinstance(source, Trace):
            source.need_values()
            if not site.partition("@")[0].endswith(HEADS):
                return source.activation(site).detach()
            args, kwargs = tuple(source.args), dict(source.kwargs)
        else:
            args, kwargs, _ = self._arguments(source)

        def read(token: CancelToken) -> Tensor:
            def run(module: nn.Module, _: int) -> Tensor:
                with self._twin.running():
                    task = self._shared_runs().task_of(module, args, kwargs, token)
                    return task.read([site], task.inputs, task.every)[0]

            return self._twin.steadily(run)[0]

        with within(()):
            return self._call(read)

    def _written(self, name: str, kind: str, parts: Mapping[str, Any], options: Mapping[str, Any]) -> str:
        given = {key: one for key, one in (*parts.items(), *options.items()) if one is not None}
        texts = {key: key if key == "source" else literal(one, key) for key, one in given.items()}
        told = "".join(f", {key}={text}" for key, text in texts.items())
        return f'engine.intervene("{name}", "{kind}"{told})'


@contextmanager
def _in_force(intervention: Intervention) -> Iterator[Intervention]:
    with within((*current(), intervention)):
        yield intervention


def _numbers(name: str, given: Any) -> tuple[int, ...] | None:
    """Return whole numbers from 0, however they were given."""
    if given is None:
        return None
    parts = (
        [given] if isinstance(given, int) else list(given) if isinstance(given, (tuple, list, range)) else []
    )
    if not parts or not all(type(part) is int and part >= 0 for part in parts):
        raise InputError(f"{name}={given!r} is no whole number from 0, and no sequence of them.")
    return tuple(parts)


def _compatible(parts: Mapping[str, tuple[int, ...] | None]) -> None:
    named = [name for name in _PARTS if parts[name] is not None]
    if len({"channel", "unit", "head"} & set(named)) > 1 or {"unit", "position"} <= set(named):
        raise InputError(
            f"{' and '.join(named)} name different parts.",
            hint="A channel or a head may have a position; a unit has one of its own.",
        )


def _options(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check the options of a kind."""
    if kind not in KINDS:
        raise UnknownNameError(
            f"There is no intervention {kind!r}.{nearest(str(kind), KINDS)}",
            hint=f"There are {', '.join(KINDS)}.",
        )
    for name in given:
        if name not in KINDS[kind]:
            near = nearest(name, (*KINDS[kind], *_PARTS, "axis"))
            known = ", ".join(KINDS[kind])
            raise InputError(f"{kind!r} has no option {name!r}; it takes {known}.{near}")
    options = {name: value for name, value in given.items() if value is not None}
    if kind == "ablate":
        value = options.setdefault("value", "zero")
        if value not in ("zero", "mean"):
            raise InputError(
                f'value={value!r}: a layer is ablated by "zero" or "mean".', hint='Or "replace" it.'
            )
        return options
    if not options:
        raise InputError(f"{kind!r} needs {' or '.join(KINDS[kind])}.")
    for name in ("factor", "low", "high"):
        if name in options and (
            isinstance(options[name], bool) or not isinstance(options[name], (int, float))
        ):
            raise InputError(f"{name}={options[name]!r} is no number.")
    value = options.get("value", 0)
    if isinstance(value, bool) or not isinstance(value, (int, float, Tensor)):
        raise InputError(f"value is a number or a tensor, not {type(value).__name__}.")
    if (
        options.get("low") is not None
        and options.get("high") is not None
        and options["low"] > options["high"]
    ):
        raise InputError(f"low={options['low']} is above high={options['high']}.")
    return options
