"""Layer-wise relevance propagation: the score itself is sent back and shared out, layer by layer.

The rules for layers are those of zennit, which is installed by itself (``nnviz_widget[lrp]``). It changes
modules and their weights while it works, and therefore works on a private copy of them. What modules do not
do, but the code between them does (adding a shortcut, averaging over positions), is shared out here in
proportion. A model with operations for which there is no rule is refused: its relevance would look like an
answer and mean nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nnviz_widget.engine.attribution.backwards import OtherBackward, Sent
from nnviz_widget.engine.attribution.gradients import precise
from nnviz_widget.engine.attribution.integrated import completeness
from nnviz_widget.engine.attribution.registry import method
from nnviz_widget.engine.attribution.result import Part
from nnviz_widget.engine.sharing import copy_modules
from nnviz_widget.engine.vocabulary import words
from nnviz_widget.errors import InputError, NNVizError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from nnviz_widget.engine.attribution.task import Task
    from nnviz_widget.engine.recording import Op, Recording

__all__: list[str] = []

_COMPOSITES = (
    "epsilon_plus",
    "epsilon_gamma_box",
    "epsilon_alpha2_beta1",
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1_flat",
)
#: Modules with weights that zennit has rules for, and norms that are merged into them.
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LAYERS_TOO = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
#: Sums of what they are given: shared out in proportion.
_SUMS = words("add sub mean sum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d")
#: Each element by itself: what arrives goes on.
_BY_ELEMENT = words(
    """
    relu relu6 hardtanh leaky_relu elu selu celu gelu silu mish softplus softsign sigmoid tanh hardswish
    hardsigmoid logsigmoid
    """
)
#: The gradient carries relevance unchanged.
_CARRIED = words(
    """
    identity embedding dropout flatten unflatten reshape view view_as permute transpose movedim squeeze
    unsqueeze contiguous clone cat stack getitem split chunk unbind pad expand narrow index_select
    max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d to type_as
    """
)
_TINY = 1e-6


@method(
    "lrp",
    cost="F + B",
    family="relevance",
    paper="Bach et al. 2015, doi:10.1371/journal.pone.0130140",
    needs="nnviz_widget[lrp]",
)
def lrp(task: Task, *, composite: str = "epsilon_plus", low: Any = None, high: Any = None) -> Iterator[Part]:
    """Share the score out among the inputs, layer by layer: needs nnviz_widget[lrp].

    Options
    -------
    composite : str
        Which rule is for which layer, in zennit's words: ``"epsilon_plus"``, ``"epsilon_gamma_box"``,
        ``"epsilon_alpha2_beta1"``, ``"epsilon_plus_flat"`` or ``"epsilon_alpha2_beta1_flat"``.
    low, high : number or Tensor
        Of epsilon_gamma_box: the least and greatest values that an input may have; by default those in it.
    """
    zennit = _zennit()
    if composite not in _COMPOSITES:
        raise InputError(
            f"There is no composite {composite!r}.{nearest(str(composite), _COMPOSITES)}",
            hint=f"Known are {', '.join(_COMPOSITES)}.",
        )
    recording = task.recording()
    merged = _checked(task, recording)
    options: dict[str, Any] = {}
    if composite == "epsilon_gamma_box":
        options = _bounds(task, low, high)
    canonizer = zennit.canonizers.NamedMergeBatchNorm(merged)
    rules = zennit.composites.COMPOSITES[composite](canonizers=[canonizer], **options)
    module = _private(task.passes.module)
    own = task.again(passes=task.passes.on(module))
    leaves = [x.detach().requires_grad_() for x in own.inputs]
    with rules.context(module):
        with Shared(module):
            scores, _, _ = own.run(leaves, own.every, grad=True)
        # What is sent back is the score, not a slope of one.
        found = own.passes.gradients(scores * scores.detach(), leaves)
    task.passes.forward_passes += own.passes.forward_passes
    task.passes.backward_passes += own.passes.backward_passes
    values = tuple(precise(relevance.detach()) for relevance in found)
    delta = completeness(values, precise(scores.detach()))
    yield Part(1, 1, lambda: values, delta=lambda: delta)


def _zennit() -> ModuleType:
    try:
        zennit = import_module("zennit")
    except (ImportError, RuntimeError) as error:
        raise NNVizError(
            f"Relevance propagation needs zennit, and it cannot be imported ({error}).",
            hint='Install it with: pip install "nnviz_widget[lrp]".',
        ) from error
    return zennit


def _private(module: nn.Module) -> nn.Module:
    """Return a copy with tensors of its own, whose activations write into nothing."""
    made: dict[int, tuple[Tensor, Tensor]] = {}

    def make(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            copied = tensor.detach().clone()
            if isinstance(tensor, nn.Parameter):
                copied = nn.Parameter(copied, requires_grad=False)
            made[id(tensor)] = (tensor, copied)
        return made[id(tensor)][1]

    return copy_modules(module, make)[0]


def _checked(task: Task, recording: Recording) -> list[tuple[list[str], str]]:
    """Return which layers each batch norm is merged into; raise where something has no rule."""
    modules = dict(task.passes.module.named_modules(remove_duplicate=False))
    refused: list[str] = []
    merged: list[tuple[list[str], str]] = []
    alone: list[str] = []
    varies = _from_input(recording)
    for op in recording.ops:
        if op.kind not in {"call", "opaque"}:
            continue
        path, _, call = op.node.partition("@")
        module = modules.get(path)
        if isinstance(module, (*_LAYERS, *_LAYERS_TOO)):
            if call:
                refused.append(f"{path!r}, which is used more than once")
        elif isinstance(module, _BATCH_NORMS):
            before = _layer_before(op, recording, modules) if module.affine else ""
            if before and module.track_running_stats:
                merged.append(([before], path))
            else:
                alone.append(path)
        elif op.name not in _SUMS | _BY_ELEMENT | _CARRIED:
            mixed = sum(varies[ref.op] for ref in op.inputs)
            if mixed > (op.name in {"mul", "div"}):  # to scale by a weight is fine
                refused.append(f"{op.name} at {op.node!r}")
    if refused:
        more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
        raise InputError(
            f"There is no rule of relevance propagation for {', '.join(dict.fromkeys(refused[:3]))}{more}.",
            hint="There are rules for convolutions, linear layers, ReLUs and sums. Integrated gradients are "
            "for all models.",
        )
    if alone:
        task.caution(
            f"Relevance passes unchanged through {len(alone)} batch norm(s), such as {alone[0]!r}: there is "
            "no layer before them into which they could be merged."
        )
    return merged


def _layer_before(op: Op, recording: Recording, modules: dict[str, nn.Module]) -> str:
    """Return the layer whose result a batch norm alone reads; empty where there is none."""
    if not op.inputs or "@" in op.node:
        return ""
    source = op.inputs[0]
    maker = recording.ops[source.op]
    readers = sum(source in other.inputs for other in recording.ops)
    single = readers == 1 and "@" not in maker.node
    return maker.node if single and isinstance(modules.get(maker.node), (*_LAYERS, *_LAYERS_TOO)) else ""


def _from_input(recording: Recording) -> list[bool]:
    """Return for each operation whether what it gives comes from the input, not from weights alone."""
    found: list[bool] = []
    for op in recording.ops:
        found.append(op.kind == "input" or any(found[ref.op] for ref in op.inputs))
    return found


def _bounds(task: Task, low: Any, high: Any) -> dict[str, Any]:
    """Return the box of the first layer's rule, like the (single) input."""
    (x,) = task.inputs if len(task.inputs) == 1 else (None,)
    if x is None:
        raise InputError("The composite epsilon_gamma_box is for a single input.")
    found = {}
    for name, given, of in (("low", low, torch.amin), ("high", high, torch.amax)):
        if given is None:
            axes = tuple(range(1, x.dim()))
            found[name] = of(x, axes, keepdim=True).expand_as(x).clone()
        else:
            found[name] = torch.as_tensor(given, dtype=x.dtype, device=x.device).expand_as(x).clone()
    return found


class Shared(OtherBackward):
    """While a forward runs in this block: operations between modules share relevance out.

    Parameters
    ----------
    module : nn.Module
        A private copy; hooks stay on it.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(_SUMS | _BY_ELEMENT)
        for part in module.modules():
            if type(part).__module__.startswith("torch.nn.") and not part._modules:
                # What such a module does is zennit's business.
                part.register_forward_pre_hook(lambda *_: self.pause(True))
                part.register_forward_hook(lambda *_: self.pause(False))

    def arrive(self, name: str, arriving: Tensor, result: Tensor) -> Tensor:
        """Return relevance for each unit of the result, of a sum."""
        if name not in _SUMS:
            return arriving
        return arriving / (result + torch.where(result < 0, -_TINY, _TINY))

    def send(self, sent: Sent) -> Tensor:
        """Return an argument's share of what arrives."""
        return sent.own * sent.value if sent.name in _SUMS else sent.arriving
