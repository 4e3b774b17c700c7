"""The part of the engine that sets two runs side by side: two inputs, two models, two checkpoints.

A part of the facade, and as thin: ``comparison`` does the work. `compare` is the same for two models without
an engine at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from nnviz_widget.engine.admission import check_model, prepared
from nnviz_widget.engine.attribution.asking import arguments
from nnviz_widget.engine.sharing import unwrap
from nnviz_widget.engine.sources import adapt
from nnviz_widget.engine.twin import Twin
from nnviz_widget.errors import InputError, UnknownNameError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from nnviz_widget.engine.comparison.result import Comparison
    from nnviz_widget.engine.comparison.stream import ComparisonStream
    from nnviz_widget.engine.jobs import CancelToken

    T = TypeVar("T")

__all__ = ["Comparing", "compare"]

#: What data parallel training and `torch.compile` put before the names of a checkpoint.
_PREFIXES = ("module.", "_orig_mod.")


class Comparing:
    """What `Engine` answers about two runs."""

    _twin: Twin

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

    def compare(self, inputs_a: Any, inputs_b: Any, **options: Any) -> Comparison:
        """Set two inputs side by side: how much each layer sees of the difference between them.

        Parameters
        ----------
        inputs_a, inputs_b : Tensor, tuple or dict
            As the model takes them, of the same shapes; sample i of one is compared with sample i of the
            other.
        layers : sequence of str or nn.Module, optional
            Dotted paths, ids or modules of A; by default every layer and group.
        examples : str
            Over what CKA is taken: ``"samples"``, or ``"positions"`` of maps, series and tokens, with the
            channels as features. ``"auto"`` takes positions for a single sample, or else samples;
            `Pair.examples` says which it was.
        cka : str
            ``"linear"``, or ``"unbiased"``: from unbiased estimates, for fewer examples than features.

        Returns
        -------
        Comparison
            ``pairs`` with CKA, relative difference and correlation, ``map(layer, channel)``, the predictions
            of both; prints as a table.

        Raises
        ------
        InputError
            Inputs of other shapes, or an option that there is not.

        References
        ----------
        Kornblith, Norouzi, Lee and Hinton 2019, arXiv:1905.00414; of the unbiased estimate Nguyen, Raghu and
        Kornblith 2021, arXiv:2010.15327.

        Examples
        --------
        >>> comparison = engine.compare(images[:1], images[:1] + noise)
        >>> comparison.pair("layer3").cka
        """
        with self.stream_compare(inputs_a, inputs_b, **options) as stream:
            return stream.result()

    def stream_compare(self, inputs_a: Any, inputs_b: Any, **options: Any) -> ComparisonStream:
        """Return an iterator of comparisons that fill up layer by layer; closing it cancels.

        Parameters
        ----------
        inputs_a, inputs_b, **options
            As for `compare`.
        """
        given = [self._prepared(one) for one in (inputs_a, inputs_b)]
        shapes = [
            [tuple(leaf.shape) for leaf in tree_leaves(one) if isinstance(leaf, Tensor)] for one in given
        ]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"The first inputs have the shape {_listed(shapes[0])}, the others {_listed(shapes[1])}.",
                hint="Compare inputs of the same shape: as many samples, of one size.",
            )
        return self._stream(None, given[0], given[1], **options)

    def compare_models(self, other: Any, inputs: Any, **options: Any) -> Comparison:
        """Set this model and another one, or another checkpoint of this one, side by side on one input.

        Layers are paired by path, and what is left by order of execution; `Pair.by` says which.

        Parameters
        ----------
        other : nn.Module, or dict of str to Tensor
            Another model, as `Engine` takes it; or a state dict of this one: it is loaded into a private
            copy, this model is not touched. It runs where this one does, in eval mode.
        inputs : Tensor, tuple or dict
            As both models take them.
        layers, examples, cka
            As for `compare`.

        Returns
        -------
        Comparison
            As of `compare`: A is this model, B the other.

        Raises
        ------
        InputError
            The checkpoint does not fit, the two have different numbers of classes, or an option that there is
            not.
        ModelError
            One of the two raised.

        Examples
        --------
        >>> before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        >>> train(model)
        >>> print(engine.compare_models(before, images))
        """
        with self.stream_compare_models(other, inputs, **options) as stream:
            return stream.result()

    def stream_compare_models(self, other: Any, inputs: Any, **options: Any) -> ComparisonStream:
        """Return an iterator of comparisons that fill up layer by layer; closing it cancels.

        Parameters
        ----------
        other, inputs, **options
            As for `compare_models`. What `opened` gave for a model is taken as well.
        """
        twin = other if isinstance(other, Twin) else self.opened(other)
        given = self._prepared(inputs)
        # Each has its own copy: a model may write into its input.
        return self._stream(twin, given, self._prepared(inputs), **options)

    def opened(self, other: Any) -> Twin:
        """Return what runs another model, or another checkpoint of this one; for several comparisons with it.

        Parameters
        ----------
        other : nn.Module, or dict of str to Tensor
            As for `compare_models`.
        """
        device = self._twin.device if self._twin.placed else None
        if isinstance(other, Mapping):
            return Twin(self._call(lambda _: _checkpoint(self._twin, other)), device=device)
        module = adapt(other).module
        check_model(module)
        if any(tensor.is_meta for tensor in unwrap(module).parameters()):
            raise InputError("The other model's weights are on the meta device, without values.")
        return Twin(module, device=device)

    # -- inside ---------------------------------------------------------------------------------------------

    def _prepared(self, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = arguments(inputs)
        return prepared(args, kwargs, self._twin.device if self._twin.placed else None)

    def _stream(
        self,
        other: Twin | None,
        inputs_a: Any,
        inputs_b: Any,
        *,
        layers: Sequence[str | nn.Module] | None = None,
        examples: str = "auto",
        cka: str = "linear",
    ) -> ComparisonStream:
        from nnviz_widget.engine.comparison.stream import (  # noqa: PLC0415  not always wanted
            CKA,
            OVER,
            ComparisonStream,
        )

        for name, value, known in (("examples", examples, OVER), ("cka", cka, CKA)):
            if value not in known:
                raise UnknownNameError(
                    f"{name}={value!r} is none of {', '.join(known)}.{nearest(str(value), known)}"
                )
        names = None if layers is None else [self._named(layer) for layer in layers]
        return ComparisonStream(
            self._call,
            self._twin,
            other,
            inputs_a,
            inputs_b,
            budget=self.memory_budget,
            layers=names,
            over=examples,
            cka=cka,
        )

    def _named(self, layer: str | nn.Module) -> str:
        if not isinstance(layer, nn.Module):
            return layer
        path = self._path_of(layer)
        if path is None:
            raise InputError(f"This {type(layer).__name__} is not a part of the model.")
        return path


def compare(model_a: Any, model_b: Any, inputs: Any, *, device: Any = None, **options: Any) -> Comparison:
    """Set two models, or two checkpoints of one, side by side on one input.

    Parameters
    ----------
    model_a : nn.Module
        As `Engine` takes it. Not changed.
    model_b : nn.Module, or dict of str to Tensor
        Another model, or a state dict of the first one. Not changed.
    inputs : Tensor, tuple or dict
        As both models take them.
    device : torch.device or str, optional
        Where to compute; by default where the first model is.
    layers, examples, cka
        As for `Engine.compare`.

    Returns
    -------
    Comparison
        As of `Engine.compare_models`, which is the way to ask again and again.

    Examples
    --------
    >>> print(nnviz.compare(model, pruned, images))
    """
    from nnviz_widget.engine.engine import Engine  # noqa: PLC0415  the engine is made of this module

    with Engine(model_a, device=device) as engine:
        return engine.compare_models(model_b, inputs, **options)


def _checkpoint(twin: Twin, state: Mapping[Any, Any]) -> nn.Module:
    """Return a private copy of the model with the weights of a state dict; on the engine's thread."""
    inner = next((key for key in ("state_dict", "model", "model_state_dict") if key in state), None)
    if inner is not None and isinstance(state[inner], Mapping):
        raise InputError(
            f"This checkpoint holds more than weights: {', '.join(map(str, state))}.",
            hint=f"Give its weights: checkpoint[{inner!r}].",
        )
    strange = [
        name for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if not state or strange:
        what = f"{strange[0]!r} is no weight" if strange else "it is empty"
        raise InputError(
            f"A checkpoint is a state dict, names to tensors; {what}.",
            hint="Give model.state_dict(), or another model.",
        )
    twin.sync()
    copy = twin.scratch(twin.module)
    own = {name: value for name, value in copy.state_dict().items() if isinstance(value, Tensor)}
    given = dict(state)
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in given) and not any(n.startswith(prefix) for n in own):
            given = {name.removeprefix(prefix): value for name, value in given.items()}
    missing = [name for name in own if name not in given]
    unknown = [name for name in given if name not in own]
    other = [name for name in own if name in given and own[name].shape != given[name].shape]
    problems = []
    if missing:
        problems.append(f"it lacks {_few(missing)}")
    if unknown:
        problems.append(f"it has {_few(unknown)}, which the model does not")
    if other:
        name = other[0]
        problems.append(
            f"{name!r} is {tuple(given[name].shape)}, not {tuple(own[name].shape)}"
            + (f", and so are {len(other) - 1} more" if len(other) > 1 else "")
        )
    if problems:
        raise InputError(
            f"The checkpoint is not one of this model: {'; '.join(problems)}.",
            hint="Of another architecture give the model itself.",
        )
    copy.load_state_dict(given)
    return copy


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    return str(shapes[0]) if len(shapes) == 1 else str(list(shapes))
