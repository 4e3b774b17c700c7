"""Gradients that only follow what speaks for the target: the ReLU's part of the backward is another one.

Guided backpropagation and the deconvolutional network differ from the gradient in the ReLUs alone. They are
caught where they are called, by whatever name (``nn.ReLU``, ``F.relu``, ``x.relu_()``), used once or many
times, in place or not; nothing is hung on the model. The maps are clean pictures of what a network looks at,
and poor explanations: they change little when the weights are replaced by random ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F  # noqa: N812  its name everywhere

from nnviz_widget.engine.attribution.backwards import OtherBackward, Sent
from nnviz_widget.engine.attribution.cams import activations_and_gradients, chosen_layer, grad_cam_map
from nnviz_widget.engine.attribution.gradients import precise
from nnviz_widget.engine.attribution.positions import enlarged
from nnviz_widget.engine.attribution.registry import method
from nnviz_widget.engine.attribution.result import Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from nnviz_widget.engine.attribution.task import Task

__all__: list[str] = []


@method("guided_backprop", cost="F + B", family="gradient", paper="Springenberg et al. 2014, arXiv:1412.6806")
def guided_backprop(task: Task) -> Iterator[Part]:
    """Follow the gradient only where neuron and gradient are both positive: a picture, not an explanation."""
    values = _rectified(task, guided=True)
    yield Part(1, 1, lambda: values)


@method("deconvolution", cost="F + B", family="gradient", paper="Zeiler and Fergus 2013, arXiv:1311.2901")
def deconvolution(task: Task) -> Iterator[Part]:
    """Send the score back, cutting off what is negative on the way: a picture, not an explanation."""
    values = _rectified(task, guided=False)
    yield Part(1, 1, lambda: values)


@method("guided_grad_cam", cost="2 (F + B)", family="cam", paper="Selvaraju et al. 2016, arXiv:1610.02391")
def guided_grad_cam(task: Task, *, layer: Any = None, interpolate_mode: str = "linear") -> Iterator[Part]:
    """Multiply guided backpropagation by Grad-CAM: fine lines, but only where the class is seen.

    Options
    -------
    layer : str or nn.Module
        Dotted path, ``path@call`` or module; by default the last one that still has positions.
    interpolate_mode : str
        How the map is enlarged: ``"linear"`` along each axis, as the paper, or ``"nearest"``, as Captum.
    """
    values, gradients = activations_and_gradients(task, chosen_layer(task, layer))
    maps = grad_cam_map(values, gradients, relu=True)
    fine = _rectified(task, guided=True)
    large = [enlarged(maps, task, i, interpolate_mode) for i in range(len(fine))]
    found = tuple(a * b.to(a.dtype) for a, b in zip(fine, large, strict=True))
    yield Part(1, 1, lambda: found, layer_values=lambda: maps)


def _rectified(task: Task, *, guided: bool) -> tuple[Tensor, ...]:
    with Rectified(guided=guided) as relus:
        _, gradients = task.gradients(task.inputs, task.every)
    if not relus.met:
        task.caution(
            "The model calls no ReLU, and only there does this method differ from the gradient: this is the "
            "plain gradient (saliency)."
        )
    return tuple(precise(gradient) for gradient in gradients)


class Rectified(OtherBackward):
    """While a forward runs in this block, ReLUs send other gradients back.

    Parameters
    ----------
    guided : bool
        Send back what is positive of the true gradient; else what is positive of the gradient that arrives,
        wherever the ReLU's own input was.
    """

    def __init__(self, *, guided: bool) -> None:
        super().__init__({"relu"}, reads=False)
        self._guided = guided

    def send(self, sent: Sent) -> Tensor:
        """Return the positive part of a gradient."""
        return F.relu(sent.own if self._guided else sent.arriving)
