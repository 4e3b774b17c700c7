"""Captum's own classes, for those of its methods that are not written here.

Captum hangs hooks on modules and attributes beside them, and may leave them there when it is interrupted.
Therefore it works on a second copy of the modules, over the same tensors, which is thrown away afterwards; it
sees nothing but a module from the explained tensors to the target's score. Its ``LRP`` is not among them,
because it runs without an error, and is wrong, on networks with shortcuts; what draws from the global random
numbers is not either.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nnviz_widget.engine.attribution.gradients import precise
from nnviz_widget.engine.attribution.registry import method
from nnviz_widget.engine.attribution.result import Part
from nnviz_widget.engine.sharing import CannotShareError, copy_modules
from nnviz_widget.errors import InputError, NNVizError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

    from nnviz_widget.engine.attribution.task import Task

__all__: list[str] = []

_CLASSES = (
    "DeepLift",
    "DeepLiftShap",
    "ShapleyValues",
    "LayerActivation",
    "LayerConductance",
    "LayerDeepLift",
    "LayerDeepLiftShap",
    "LayerFeatureAblation",
    "LayerGradCam",
    "LayerIntegratedGradients",
    "NeuronConductance",
    "NeuronDeconvolution",
    "NeuronDeepLift",
    "NeuronDeepLiftShap",
    "NeuronFeatureAblation",
    "NeuronGradient",
    "NeuronGuidedBackprop",
    "NeuronIntegratedGradients",
)


@method(
    "captum",
    cost="as Captum says",
    family="layer",
    shape="layer",
    paper="Kokhlikyan et al. 2020, arXiv:2009.07896",
    needs="captum>=0.9",
)
def captum(
    task: Task, *, attribution: str = "LayerDeepLift", layer: Any = None, arguments: Any = None
) -> Iterator[Part]:
    """Compute with a class of Captum's, such as LayerDeepLift or NeuronConductance: needs captum.

    Options
    -------
    attribution : str
        Name of the class.
    layer : str or nn.Module
        Dotted path or module, for the classes of layers and neurons.
    arguments : dict
        What its ``attribute`` takes beside inputs, target and further arguments of the model, such as
        ``{"neuron_selector": (3, 2, 2), "n_steps": 20}``.
    """
    attr = _captum()
    if attribution not in _CLASSES:
        raise InputError(
            f"The attribution {attribution!r} is not offered.{nearest(str(attribution), _CLASSES)}",
            hint=f"Offered are {', '.join(_CLASSES)}.",
        )
    of_layer = attribution.startswith(("Layer", "Neuron"))
    if of_layer and layer is None:
        raise InputError(f"{attribution} is about a layer; say which one with layer=.")
    scored = attribution == "NeuronConductance" or not attribution.startswith(("Neuron", "LayerActivation"))
    if scored:
        task.target  # noqa: B018  settled by the unchanged samples
    passes = task.passes
    task.passes = passes.on(_second(passes.module))
    try:
        model = _Scores(task, scored=scored)
        parts = dict(task.passes.module.named_modules(remove_duplicate=False))
        given = (model, parts[task.passes.resolve(layer)[0]]) if of_layer else (model,)
        found = _run(getattr(attr, attribution)(*given), attribution, task, arguments)
    finally:
        passes.forward_passes += task.passes.forward_passes
        passes.backward_passes += task.passes.backward_passes
        task.passes = passes
    values, delta = found
    yield Part(1, 1, lambda: values, delta=None if delta is None else lambda: delta)


def _captum() -> ModuleType:
    try:
        return import_module("captum.attr")
    except ImportError as error:
        raise NNVizError(
            f"This needs Captum, and it cannot be imported ({error}).",
            hint='Install it with: pip install "captum>=0.9".',
        ) from error


def _second(module: nn.Module) -> nn.Module:
    """Return another copy of the modules over the same tensors."""
    try:
        return copy_modules(module, lambda tensor: tensor)[0]
    except CannotShareError as error:
        raise NNVizError(
            f"Captum works on a copy of the modules, and there is none: {error}.",
            hint="Use one of the other methods.",
        ) from error


def _run(
    method: Any, name: str, task: Task, arguments: Mapping[str, Any] | None
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Return what Captum gives, as tensors, and its convergence delta where it was asked for."""
    inputs = tuple(x.detach().clone() for x in task.inputs)
    rows = task.every.to(inputs[0].device)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the hooks that it sets
            # Whichever way it repeats the samples, it repeats their numbers along with them.
            found = method.attribute(inputs, additional_forward_args=(rows,), **dict(arguments or {}))
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, TypeError, RuntimeError) as error:
        raise InputError(
            f"Captum's {name} does not work here: {error}.",
            hint="Its modules may each be called once only; the methods of this package have no such limit.",
        ) from error
    delta = None
    if (arguments or {}).get("return_convergence_delta"):
        found, delta = found
    tensors = found if isinstance(found, tuple) else (found,)
    return tuple(precise(tensor.detach()) for tensor in tensors), delta


class _Scores(nn.Module):
    """The model as Captum shall see it: from the explained tensors to one score per row.

    Parameters
    ----------
    task : Task
        Runs the model.
    scored : bool
        Whether the score is looked at; else the sum of what the model gives stands for it.
    """

    def __init__(self, task: Task, *, scored: bool) -> None:
        super().__init__()
        self.model = task.passes.module
        self._task, self._scored = task, scored
        self.eval()

    def forward(self, *given: Tensor) -> Tensor:
        """Return the scores of rows; the last argument tells whose variants they are."""
        tensors, rows = given[:-1], given[-1].cpu()
        grad = torch.is_grad_enabled()
        if self._scored:
            return self._task.run(tensors, rows, grad=grad)[0]
        return self._task.unscored(tensors, rows, grad=grad)
