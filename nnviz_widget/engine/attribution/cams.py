"""Class activation maps: what a layer gave at each position, weighted by how the score depends on it.

Five of them follow from the same two things, what the layer gave and the gradient on it, and so from one
pass. A map has the layer's resolution and is enlarged to the input; it is kept signed, because cutting off
what speaks against the class is a choice of the picture (``relu_attributions=True`` is the papers' own map).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  its name everywhere
from torch import Tensor

from nnviz_widget.engine.attribution.gradients import precise
from nnviz_widget.engine.attribution.positions import default_layer, enlarged, lies_on, positions_first
from nnviz_widget.engine.attribution.registry import described, method, method_named
from nnviz_widget.engine.attribution.result import Part
from nnviz_widget.engine.variants import Variants, outcomes
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from nnviz_widget.engine.attribution.result import Attribution
    from nnviz_widget.engine.attribution.task import Task

    Formula = Callable[[Tensor, Tensor], Tensor]

__all__ = [
    "ALL",
    "FORMULAS",
    "activations_and_gradients",
    "chosen_layer",
    "grad_cam_map",
    "separate",
    "whole_map",
]

_TINY = 1e-8


def _grad_cam(values: Tensor, gradients: Tensor) -> Tensor:
    return (gradients.mean(2, keepdim=True) * values).sum(1, keepdim=True)


def _grad_cam_plus_plus(values: Tensor, gradients: Tensor) -> Tensor:
    # The paper explains exp(score), whose second and third derivative are then squares and cubes of the
    # first: its weights g^2 / (2 g^2 + sum(A) g^3) are 1 / (2 + sum(A) g). The factor exp(score) is the same
    # at all positions and in all channels, and is left out.
    below = 2 + values.sum(2, keepdim=True) * gradients
    shares = torch.where(below != 0, 1 / below, torch.zeros_like(below))
    return ((shares * gradients.clamp(min=0)).sum(2, keepdim=True) * values).sum(1, keepdim=True)


def _layer_cam(values: Tensor, gradients: Tensor) -> Tensor:
    return (gradients.clamp(min=0) * values).sum(1, keepdim=True)


def _hires_cam(values: Tensor, gradients: Tensor) -> Tensor:
    return (gradients * values).sum(1, keepdim=True)


def _xgrad_cam(values: Tensor, gradients: Tensor) -> Tensor:
    whole = values.sum(2, keepdim=True)
    whole = torch.where(whole.abs() > _TINY, whole, torch.full_like(whole, _TINY))
    return ((gradients * values).sum(2, keepdim=True) / whole * values).sum(1, keepdim=True)


#: From what a layer gave and the gradient on it, ``[N, C, positions]`` each, to a map ``[N, 1, positions]``.
FORMULAS: Mapping[str, Formula] = {
    "grad_cam": _grad_cam,
    "grad_cam_plus_plus": _grad_cam_plus_plus,
    "layer_cam": _layer_cam,
    "hires_cam": _hires_cam,
    "xgrad_cam": _xgrad_cam,
}


@method("grad_cam", cost="F + B", family="cam", paper="Selvaraju et al. 2016, arXiv:1610.02391")
def grad_cam(task: Task, *, layer: Any = None, relu_attributions: bool = False) -> Iterator[Part]:
    """Weight each channel of a layer by its mean gradient, and add them up: where the class is seen.

    Options
    -------
    layer : str or nn.Module
        Dotted path, ``path@call`` or module; by default the last one that still has positions.
    relu_attributions : bool
        Keep only what speaks for the target, as the paper does.
    """
    yield _map(task, "grad_cam", layer, relu_attributions)


@method("grad_cam_plus_plus", cost="F + B", family="cam", paper="Chattopadhay et al. 2017, arXiv:1710.11063")
def grad_cam_plus_plus(task: Task, *, layer: Any = None, relu_attributions: bool = False) -> Iterator[Part]:
    """Weight channels by those gradients that speak for the class, so that several objects count alike.

    Options
    -------
    layer, relu_attributions
        As of grad_cam.
    """
    yield _map(task, "grad_cam_plus_plus", layer, relu_attributions)


@method("layer_cam", cost="F + B", family="cam", paper="Jiang et al. 2021, doi:10.1109/TIP.2021.3089943")
def layer_cam(task: Task, *, layer: Any = None, relu_attributions: bool = False) -> Iterator[Part]:
    """Weight each position of each channel by its own positive gradient: sharp in early layers too.

    Options
    -------
    layer, relu_attributions
        As of grad_cam.
    """
    yield _map(task, "layer_cam", layer, relu_attributions)


@method("hires_cam", cost="F + B", family="cam", paper="Draelos and Carin 2020, arXiv:2011.08891")
def hires_cam(task: Task, *, layer: Any = None, relu_attributions: bool = False) -> Iterator[Part]:
    """Multiply what a layer gave by its gradient, position by position: only what the model used.

    Options
    -------
    layer, relu_attributions
        As of grad_cam.
    """
    yield _map(task, "hires_cam", layer, relu_attributions)


@method("xgrad_cam", cost="F + B", family="cam", paper="Fu et al. 2020, arXiv:2008.02312")
def xgrad_cam(task: Task, *, layer: Any = None, relu_attributions: bool = False) -> Iterator[Part]:
    """Weight each channel by its share of the score, gradient times activation.

    Options
    -------
    layer, relu_attributions
        As of grad_cam.
    """
    yield _map(task, "xgrad_cam", layer, relu_attributions)


@method("score_cam", cost="C F", family="cam", paper="Wang et al. 2019, arXiv:1910.01279")
def score_cam(
    task: Task, *, layer: Any = None, relu_attributions: bool = False, perturbations_per_eval: Any = "auto"
) -> Iterator[Part]:
    """Show the model the input through each channel of a layer, and weight the channel by the score.

    Options
    -------
    layer, relu_attributions
        As of grad_cam.
    perturbations_per_eval : int or "auto"
        Masked inputs in one pass.
    """
    layer = chosen_layer(task, layer)
    (given,) = task.read([layer], task.inputs, task.every)
    values = precise(positions_first(given, layer, task))
    if values.dim() < 3:
        raise InputError(
            f"The layer {layer!r} has no positions, so there is nothing to see the input through.",
            hint="Choose a layer before the pooling.",
        )
    samples, channels = values.shape[:2]
    # The strongest channels first: what they show is most of the map.
    order = values.abs().flatten(2).mean(2).argsort(stable=True, dim=1, descending=True)
    scores = torch.full((samples, channels), -torch.inf, dtype=values.dtype, device=values.device)
    rows = torch.arange(samples * channels) % samples

    def picked(start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return sample and channel of each variant."""
        at = rows[start:stop].to(values.device)
        return at, order[at, torch.arange(start, stop, device=values.device) // samples]

    def make(start: int, stop: int) -> list[Tensor]:
        at, channel = picked(start, stop)
        maps = values[at, channel][:, None]
        made = []
        for i, x in enumerate(task.inputs):
            seen = x[at.to(x.device)]
            if lies_on(maps, task, i):
                seen = seen * _from_0_to_1(enlarged(maps, task, i)).to(x.device, x.dtype)
            made.append(seen)
        return made

    def found() -> Tensor:
        weights = torch.softmax(scores, 1).reshape(samples, channels, *[1] * (values.dim() - 2))
        return _shown((weights * values).sum(1, keepdim=True), relu_attributions)

    variants = Variants(rows, make)
    for start, stop, chunk in outcomes(
        task, variants, size=perturbations_per_eval, first=task.samples * max(1, channels // 10)
    ):
        scores[picked(start, stop)] = chunk.to(scores.device, scores.dtype)
        if stop >= samples:
            yield Part(stop, len(variants), lambda: whole_map(task, found()), layer_values=found)


def chosen_layer(task: Task, layer: Any) -> Any:
    """Return the layer that a map is taken from, and take down which one where it was left open."""
    if layer is None:
        layer = task.decided["layer"] = default_layer(task)
    return layer


def activations_and_gradients(task: Task, layer: Any) -> tuple[Tensor, Tensor]:
    """Return what a layer gave and the gradient of the target's score on it, ``[N, C, positions ...]``."""
    _, (values,), (gradients,) = task.layer_gradients([layer], task.inputs, task.every)
    values = precise(positions_first(values, layer, task))
    gradients = precise(positions_first(gradients, layer, task))
    if values.dim() < 3:
        task.caution(
            f"The layer {layer!r} has no positions, so the map is the same everywhere: it says how much, and "
            "not where. Choose a layer before the pooling."
        )
    elif not gradients.any():
        task.caution(
            f"The score does not depend on what {layer!r} gives at these positions, so the map is empty. "
            "Choose another layer."
        )
    return values, gradients


def whole_map(task: Task, maps: Tensor) -> tuple[Tensor, ...]:
    """Return a map of a layer, ``[N, 1, positions ...]``, enlarged to each of the inputs."""
    return tuple(enlarged(maps, task, i) for i in range(len(task.inputs)))


def grad_cam_map(values: Tensor, gradients: Tensor, *, relu: bool) -> Tensor:
    """Return the map of Grad-CAM, ``[N, 1, positions ...]``."""
    return _made(values, gradients, "grad_cam", relu)


def _map(task: Task, name: str, layer: Any, relu: bool) -> Part:
    found = _made(*activations_and_gradients(task, chosen_layer(task, layer)), name, relu)
    return Part(1, 1, lambda: whole_map(task, found), layer_values=lambda: found)


def _made(values: Tensor, gradients: Tensor, name: str, relu: bool) -> Tensor:
    """Apply a formula; positions are one axis to it."""
    flat = (x.flatten(2) if x.dim() > 2 else x[..., None] for x in (values, gradients))
    found = FORMULAS[name](*flat)
    return _shown(found.reshape(len(values), 1, *values.shape[2:]), relu)


def _from_0_to_1(maps: Tensor) -> Tensor:
    """Return each map stretched to the range from 0 to 1; zeros for one that is the same everywhere."""
    shape = (-1, *[1] * (maps.dim() - 1))
    low, high = maps.flatten(1).amin(1).reshape(shape), maps.flatten(1).amax(1).reshape(shape)
    return torch.where(high > low, (maps - low) / (high - low), torch.zeros_like(maps))


def _shown(maps: Tensor, relu: bool) -> Tensor:
    return F.relu(maps) if relu else maps


def _all(task: Task, *, layer: Any = None, relu_attributions: bool = False) -> Iterator[Part]:
    """Make the maps of all five formulas from one pass, one after the other in the order of `FORMULAS`."""
    values, gradients = activations_and_gradients(task, chosen_layer(task, layer))
    maps = [_made(values, gradients, name, relu_attributions) for name in FORMULAS]
    yield Part(
        1,
        1,
        lambda: tuple(each for one in maps for each in whole_map(task, one)),
        layer_values=lambda: torch.stack(maps),
    )


#: What `Engine.cams` asks.
ALL = described("cams", _all, cost="F + B", family="cam")


def separate(found: Attribution) -> dict[str, Attribution]:
    """Return the five attributions that the answer to `ALL` is made of, by the names of their methods."""
    each = len(found.tensors) // len(FORMULAS)
    maps = found.layer_values
    assert maps is not None
    apart = {}
    for i, name in enumerate(FORMULAS):
        values = found.tensors[i * each : (i + 1) * each]
        apart[name] = replace(
            found,
            values=values if each > 1 else values[0],
            layer_values=maps[i],
            method=name,
            call=found.call.replace(f'method="{ALL.name}"', f'method="{name}"'),
            question=found.question and replace(found.question, method=method_named(name)),
        )
    return apart
