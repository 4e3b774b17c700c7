"""Whether the map changes when the network forgets what it has learned; else it does not show the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.metrics.case import Reading, part_of
from nnviz_widget.engine.metrics.maps import Structure, alike, ordered
from nnviz_widget.engine.metrics.registry import metric
from nnviz_widget.engine.random_numbers import OwnRandomness
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from torch import Tensor, nn

    from nnviz_widget.engine.attribution.task import Task
    from nnviz_widget.engine.metrics.case import Case

__all__ = ["layers_from_top", "start_anew"]

_ORDERS = ("cascade", "independent")


@metric(
    "parameter_randomisation",
    better="lower",
    values="-1 to 1; below 0.5 the map shows the network",
    paper="Adebayo et al. 2018, arXiv:1810.03292",
)
def parameter_randomisation(
    case: Case, *, order: str = "cascade", steps: int = 5, layers: Sequence[str] | None = None
) -> Generator[float, None, Reading]:
    """Replace trained weights by random ones, layer by layer, and see whether the map notices.

    On a private copy of the model, layers are initialised anew from the output down to the input, each step
    adding to those before (``"cascade"``), or each alone (``"independent"``). After each step Spearman's rank
    correlation between the map and that of the trained model is taken (Adebayo et al. 2018); the value is the
    mean over the steps. Near 1 the picture shows the input, not what the network knows. ``details`` has the
    correlation of each step for signed and for absolute maps, and the structural similarity (SSIM) of images.

    Options
    -------
    order : str
        ``"cascade"`` or ``"independent"``.
    steps : int
        Points of the cascade, spread evenly from the last layer alone to all layers.
    layers : sequence of str, optional
        Paths of the modules to take, the topmost first; all with weights of their own by default.
    """
    if order not in _ORDERS:
        raise InputError(f"order={order!r} is not known.", hint=f"Known are {', '.join(_ORDERS)}.")
    if type(steps) is not int or steps < 1:
        raise InputError(f"steps is a whole number from 1, not {steps!r}.")
    task = case.task
    if case.explain is None:
        return Reading(
            torch.full((task.samples,), torch.nan),
            note=f"{case.name} cannot be asked about another network.",
        )
    paths = list(layers) if layers is not None else _layers_from_top(case)
    if not paths:
        raise InputError("The model has no weights that could be made random.")
    ends = _ends(len(paths), steps) if order == "cascade" else list(range(1, len(paths) + 1))
    if case.moves:
        found = yield from _forgetting(case, paths, ends, order)
    else:
        found = [_unmoved(case)] * len(ends)
    told = [
        {
            "layer": paths[end - 1],
            "layers": 1 if order == "independent" else end,
            "spearman_signed": one.signed.tolist(),
            "spearman_absolute": one.absolute.tolist(),
            "ssim": one.ssim,
        }
        for end, one in zip(ends, found, strict=True)
    ]
    y = torch.stack([one.absolute if case.absolute else one.signed for one in found], 1)
    x = [end / len(paths) for end in ends]
    return Reading(y.mean(1), {"parameter_randomisation": (x, y)}, {"order": order, "steps": told})


def _forgetting(
    case: Case, paths: list[str], ends: list[int], order: str
) -> Generator[float, None, list[_Alike]]:
    """Make layers of a private copy random, step by step, and compare the map of each step."""
    assert case.explain is not None
    task, module, maps = case.task, case.scratch(), _Maps(case)
    passes = task.passes.on(module)
    parts = [module.get_submodule(passes.resolve(path)[0]) for path in paths]
    found: list[_Alike] = []
    begun = 0
    for number, end in enumerate(ends):
        chosen = range(begun if order == "cascade" else end - 1, end)
        kept = _kept([parts[i] for i in chosen]) if order == "independent" else []
        for i in chosen:
            start_anew(parts[i], case.seed + i)
        begun = end
        values = yield from part_of(case.explain(task.again(passes=passes)), number, len(ends))
        _restore(kept)
        found.append(maps.compared(values))
    task.passes.forward_passes += passes.forward_passes
    task.passes.backward_passes += passes.backward_passes
    return found


@dataclass(frozen=True)
class _Alike:
    """How alike two maps are: rank correlations ``[N]``, and the structural similarity of images."""

    signed: Tensor
    absolute: Tensor
    ssim: list[float] | None


class _Maps:
    """The map of the trained model, with which others are compared."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._trained = self._read(case.values)

    def compared(self, values: tuple[Tensor, ...]) -> _Alike:
        """Compare the map of another model."""
        trained, now = self._trained, self._read(values)
        similar = None
        if trained.structure is not None and now.structure is not None:
            similar = trained.structure.alike(now.structure).tolist()
        return _Alike(alike(trained.signed, now.signed), alike(trained.absolute, now.absolute), similar)

    def _read(self, values: tuple[Tensor, ...]) -> _Read:
        signed, absolute = _both(self._case, values)
        pictures = _pictures(self._case, absolute)
        return _Read(
            ordered(signed), ordered(absolute), Structure(pictures) if pictures is not None else None
        )


@dataclass(frozen=True)
class _Read:
    """What is compared of a map: its orders ``[N, D]``, and what it is as an image."""

    signed: Tensor
    absolute: Tensor
    structure: Structure | None


def _unmoved(case: Case) -> _Alike:
    """Return how alike a map is to itself: wholly, but what is the same everywhere has no order."""
    maps = _both(case, case.values)
    signed, absolute = ((x.amax(1) > x.amin(1)).double() for x in maps)
    return _Alike(signed, absolute, None if _pictures(case, maps[0]) is None else [1.0] * case.task.samples)


def _both(case: Case, values: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Return the map by sums and by sizes over the channels, ``[N, D]`` each."""
    of = case.positions.importance
    return of(values, absolute=False), of(values, absolute=True)


def _pictures(case: Case, numbers: Tensor) -> Tensor | None:
    """Return the part of ``[N, D]`` that belongs to the first input as images; None where it is none."""
    positions = case.positions
    shape = positions.shapes[0]
    if not positions.spatial or len(shape) != 2:
        return None
    return numbers[:, : positions.counts[0]].reshape(-1, *shape)


def _layers_from_top(case: Case) -> list[str]:
    """Return `layers_from_top` of the model; found out once for all rows of a table."""
    if "layers_from_top" not in case.shared:
        case.shared["layers_from_top"] = layers_from_top(case.task)
    found: list[str] = case.shared["layers_from_top"]
    return found


def layers_from_top(task: Task) -> list[str]:
    """Return the paths of the modules with parameters of their own, the one that runs last first."""
    named = dict(task.passes.module.named_modules())
    reached: dict[str, int] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            reached.setdefault(path, len(reached))

        return hook

    handles = [part.register_forward_pre_hook(note(path)) for path, part in named.items()]
    try:
        # One sample is enough, and settles the target, too.
        task.scores([x[:1] for x in task.inputs], torch.zeros(1, dtype=torch.long))
    finally:
        for handle in handles:
            handle.remove()

    def when(path: str) -> int:
        """Return when a module began; one whose weights another uses, when the module around it did."""
        while path not in reached and path:
            path = path.rpartition(".")[0]
        return reached.get(path, 0)

    layers = [path for path, part in named.items() if any(True for _ in part.parameters(recurse=False))]
    return sorted(layers, key=when)[::-1]


def start_anew(module: nn.Module, seed: int) -> None:
    """Initialise a module as if it had just been made, without touching the global random numbers.

    Parameters
    ----------
    module : nn.Module
        Changed in place. With ``reset_parameters`` it knows how; else each of its own parameters is drawn
        from a normal distribution with the mean and the spread that it has.
    seed : int
        Of what is drawn.
    """
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    with torch.no_grad(), OwnRandomness(seed):
        try:
            if callable(reset):
                reset()
                return
        except TypeError:
            pass  # it wants to be told how
        for tensor in module.parameters(recurse=False):
            if tensor.is_floating_point() and tensor.numel() > 1:
                tensor.normal_(float(tensor.mean()), float(tensor.std()))


def _kept(modules: Sequence[nn.Module]) -> list[tuple[Tensor, Tensor]]:
    """Return the tensors of modules with copies of their values."""
    tensors = [tensor for part in modules for tensor in (*part.parameters(), *part.buffers())]
    return [(tensor, tensor.detach().clone()) for tensor in tensors]


@torch.no_grad()
def _restore(kept: list[tuple[Tensor, Tensor]]) -> None:
    for tensor, value in kept:
        tensor.copy_(value)


def _ends(layers: int, steps: int) -> list[int]:
    """Return after how many layers of a cascade to look: after the first, after all, and evenly between."""
    if steps == 1 or layers == 1:
        return [layers]
    return sorted(
        {round(1 + (layers - 1) * step / (min(steps, layers) - 1)) for step in range(min(steps, layers))}
    )
