"""Activations of one input put into the run of another, layer by layer and part by part: causal tracing.

How much of the difference between the two predictions each patch restores says where the network holds what
makes the difference. The variants are asked through ``variants``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from nnviz_widget.engine.attribution.targets import scores_of
from nnviz_widget.engine.axes import channel_axes
from nnviz_widget.engine.sites import HEADS, heads_of
from nnviz_widget.engine.streaming import Stream
from nnviz_widget.engine.variants import Variants, outcomes
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nnviz_widget.engine.attribution.stream import Runs
    from nnviz_widget.engine.attribution.task import Task
    from nnviz_widget.engine.jobs import CancelToken
    from nnviz_widget.engine.replay.replays import Recomputed
    from nnviz_widget.engine.streaming import Call, Step

__all__ = ["EACH", "PatchEffects", "PatchStream", "blocks", "sites_of"]

#: What one patch is: a whole layer, or a part of it.
EACH = ("layer", "position", "channel", "head")

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_IDLE = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity)
_MANY = 4096  # parts of one layer


@dataclass
class PatchEffects:
    """How far each patch brings the prediction for the clean input back.

    Attributes
    ----------
    layers : list of str
        In the order in which they run; with ``#heads`` where heads were patched.
    effects : dict of str to Tensor
        Mean over the samples of ``(patched - corrupted) / (clean - corrupted)``: 0 is no effect, 1 restores
        the score. ``[]`` of a whole layer, ``[T]`` of tokens, ``[gy, gx]`` of regions of a map, ``[C]`` of
        channels, ``[H]`` of heads; NaN where it is not known yet.
    each : str
        ``"layer"``, ``"position"``, ``"channel"`` or ``"head"``.
    clean, corrupted : float
        The score of either run, mean over the samples.
    target : object
        Whose score it is: a class, or two, the second of which is subtracted.
    progress : float
        From 0 to 1.
    seconds : float
        Wall time so far.
    forward_passes : int
        Rows that went through the model.
    recomputed : Recomputed or None
        How much of the model ran for them.
    epoch : int
        Of the weights.
    """

    layers: list[str]
    effects: dict[str, Tensor]
    each: str
    clean: float
    corrupted: float
    target: Any
    progress: float = 1.0
    seconds: float = 0.0
    forward_passes: int = 0
    recomputed: Recomputed | None = None
    epoch: int = 0

    def matrix(self) -> Tensor:
        """Return the effects as ``[layers, parts]``, parts flat; NaN where a layer has fewer than another."""
        flat = [self.effects[layer].reshape(-1) for layer in self.layers]
        found = torch.full((len(flat), max((len(row) for row in flat), default=0)), torch.nan)
        for i, row in enumerate(flat):
            found[i, : len(row)] = row
        return found


class PatchStream(Stream[PatchEffects]):
    """Heat maps that fill up; the last is the whole.

    Parameters
    ----------
    call, runs
        Of the engine.
    clean, corrupted : tuple
        Positional, keyword and further arguments of the model, on its device.
    sites : sequence of str, optional
        By default the blocks of the network.
    each : str
        One of `EACH`.
    target : object
        As `Engine.patch_effects` takes it.
    grid : int
        Regions along a side of a map.
    size : int or "auto"
        Variants in one pass.
    """

    def __init__(
        self,
        call: Call,
        runs: Runs,
        clean: tuple[Any, Any, Any],
        corrupted: tuple[Any, Any, Any],
        *,
        sites: Sequence[str] | None,
        each: str,
        target: Any,
        grid: int,
        size: Any,
    ) -> None:
        super().__init__(call, runs.twin)
        self._runs, self._clean, self._corrupted = runs, clean, corrupted
        self._sites, self._each, self._given, self._grid, self._size = sites, each, target, grid, size
        self._passes = 0
        self._recomputed: Recomputed | None = None
        self._watched = True

    def result(self) -> PatchEffects:
        """Compute all that is left and return the whole; other questions are answered in between."""
        self._watched = False
        return super().result()

    def _start(self, module: nn.Module, token: CancelToken) -> Iterator[_Found]:
        def task(inputs: tuple[Any, Any, Any], target: Any) -> Task:
            made = self._runs.task_of(module, inputs[0], inputs[1], token, target=target, extra=inputs[2])
            made.watched = self._watched
            return made

        return self._patched(task)

    def _patched(self, make: Callable[[tuple[Any, Any, Any], Any], Task]) -> Iterator[_Found]:
        clean, corrupted = make(self._clean, _whole), make(self._corrupted, _whole)
        shapes = [[tuple(x.shape) for x in one.inputs] for one in (clean, corrupted)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"The clean inputs have the shape {shapes[0]}, the corrupted ones {shapes[1]}.",
                hint="Patch between inputs of the same shape; pad the shorter text.",
            )
        sites, axes = sites_of(corrupted, self._sites, self._each)
        with torch.no_grad():
            _, first, values = clean.run(clean.inputs, clean.every, read=sites)
            _, second, ours = corrupted.run(corrupted.inputs, corrupted.every, read=sites)
        score, told = _score(self._given, first, second)
        task = make(self._corrupted, score)
        high, low = score(first).double().cpu(), score(second).double().cpu()
        parts = {
            site: _Parts(site, mine.detach(), other.detach(), axis, each=self._each, grid=self._grid)
            for site, mine, other, axis in zip(sites, ours, values, axes, strict=True)
        }
        found = _Found(0, sum(len(one) for one in parts.values()), list(parts), {}, high, low, told)
        for site, one in parts.items():
            found.effects[site] = torch.full(one.shape, torch.nan)
        samples, gap = task.samples, high - low
        # Where both predict the same there is nothing to restore.
        gap = torch.where(gap.abs() < 1e-9, torch.nan, gap)
        for site, one in parts.items():
            restored = torch.full((len(one), samples), torch.nan, dtype=torch.float64)
            variants = Variants(torch.arange(len(one) * samples) % samples, one.make, node=site)
            before = found.done
            for start, stop, scores in outcomes(task, variants, size=self._size, of=found.total * samples):
                rows = torch.arange(start, stop) % samples
                restored[torch.arange(start, stop) // samples, rows] = (
                    scores.double().cpu() - low[rows]
                ) / gap[rows]
                found.effects[site] = restored.nanmean(1).float().reshape(one.shape)
                found.done = before + stop // samples
                self._recomputed = task.recomputed
                self._passes = task.passes.forward_passes + clean.passes.forward_passes
                yield found

    def _made(self, step: Step) -> PatchEffects:
        found = cast("_Found", step)
        return PatchEffects(
            layers=found.layers,
            effects=dict(found.effects),
            each=self._each,
            clean=float(found.clean.mean()),
            corrupted=float(found.corrupted.mean()),
            target=found.target,
            progress=self.progress,
            seconds=self.seconds,
            forward_passes=self._passes,
            recomputed=self._recomputed,
            epoch=self.epoch,
        )


@dataclass
class _Found:
    """What there is after a chunk."""

    done: int
    total: int
    layers: list[str]
    effects: dict[str, Tensor] = field(repr=False)
    clean: Tensor
    corrupted: Tensor
    target: Any


class _Parts:
    """The patches of one layer: which elements each of them takes from the clean run."""

    def __init__(self, site: str, ours: Tensor, theirs: Tensor, axis: int, *, each: str, grid: int) -> None:
        if ours.shape != theirs.shape:
            raise InputError(
                f"{site!r} gives {tuple(theirs.shape)} for one input, {tuple(ours.shape)} for the other."
            )
        self.ours, self.theirs = ours, theirs
        dims = ours.dim()
        axis %= dims
        self.indices: list[tuple[Any, ...]]
        others = [i for i in range(1, dims) if i != axis]
        if each in ("channel", "head") and dims > 1:
            self.shape: tuple[int, ...] = (ours.shape[axis],)
            self.indices = [_at(dims, {axis: i}) for i in range(ours.shape[axis])]
        elif each == "position" and len(others) == 1:
            self.shape = (ours.shape[others[0]],)
            self.indices = [_at(dims, {others[0]: i}) for i in range(ours.shape[others[0]])]
        elif each == "position" and len(others) >= 2:
            y, x = others[-2:]
            rows, columns = _regions(ours.shape[y], grid), _regions(ours.shape[x], grid)
            self.shape = (len(rows), len(columns))
            self.indices = [_at(dims, {y: row, x: column}) for row in rows for column in columns]
        else:
            self.shape, self.indices = (), [_at(dims, {})]
        if len(self.indices) > _MANY:
            raise InputError(
                f"{site!r} has {len(self.indices)} of what each={each!r} patches; {_MANY} at most.",
                hint="Name other layers.",
            )

    def __len__(self) -> int:
        return len(self.indices)

    def make(self, start: int, stop: int) -> list[Tensor]:
        """Return variants of the layer's activation; all samples of a part, then those of the next."""
        samples = len(self.ours)
        rows = torch.arange(start, stop) % samples
        changed = self.ours.index_select(0, rows.to(self.ours.device))
        for row in range(stop - start):
            index = self.indices[(start + row) // samples]
            changed[row][index] = self.theirs[int(rows[row])][index]
        return [changed]


def _at(dims: int, fixed: dict[int, Any]) -> tuple[Any, ...]:
    """Return an index into one sample: without the first axis."""
    return tuple(fixed.get(i, slice(None)) for i in range(1, dims))


def _regions(side: int, count: int) -> list[slice]:
    count = min(side, count)
    edges = [round(i * side / count) for i in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def _whole(output: Any) -> Tensor:
    """Stand in for a target while only values are read."""
    return scores_of(output).flatten(1)[:, 0]


def _score(target: Any, clean: Any, corrupted: Any) -> tuple[Callable[[Any], Tensor], Any]:
    """Return what takes a model's output and gives a number for each row; and it in words."""
    if callable(target):
        return lambda output: target(output).detach(), getattr(target, "__name__", "function")
    if target is not None:
        index = (target,) if isinstance(target, int) else tuple(target)
        shape = tuple(scores_of(clean).shape[1:])
        if len(index) != len(shape) or not all(0 <= i < n for i, n in zip(index, shape, strict=True)):
            raise InputError(f"target={target!r} is no index into the output of one sample, {shape}.")
        return lambda output: scores_of(output)[(slice(None), *index)].detach(), target
    shape = tuple(scores_of(clean).shape)
    if len(shape) not in (2, 3):
        raise InputError(f"The output has the shape {shape}; say with target= which number to compare.")

    def last(output: Any) -> Tensor:
        scores = scores_of(output).detach()
        return scores[:, -1] if scores.dim() == 3 else scores

    if last(clean).shape[1] == 1:
        return lambda output: last(output)[:, 0], 0
    # One pair for all samples: that of the first, where the two predictions differ.
    best, other = last(clean).argmax(1), last(corrupted).argmax(1)
    differ = (best != other).nonzero()[:1, 0]
    at = int(differ[0]) if len(differ) else 0
    yes, no = int(best[at]), int(other[at])
    if yes == no:
        return lambda output: last(output)[:, yes], yes
    return lambda output: last(output)[:, yes] - last(output)[:, no], (yes, no)


def sites_of(task: Task, given: Sequence[str] | None, each: str) -> tuple[list[str], list[int]]:
    """Return what to patch, in the order in which it runs, and the axis of each one's channels."""
    recording = task.recording()
    modules = dict(task.passes.module.named_modules(remove_duplicate=False))
    if each == "head":
        found = list(given) if given is not None else _attentions(modules)
        if not found:
            raise InputError("No attention whose heads are known is in this model.")
        return found, [-2] * len(found)
    if given is not None:
        missing = [site for site in given if site not in recording.refs]
        if missing:
            raise InputError(f"{missing[0]!r} did not run on this input.")
    sites = list(given) if given is not None else blocks(task.passes.module)
    known = channel_axes(recording.ops)
    series = any(op.name == "conv1d" for op in recording.ops)
    chosen: list[tuple[str, int]] = []
    for site in sites:
        ref = recording.refs.get(site)
        if ref is None:
            continue
        spec = recording.ops[ref.op].outputs[ref.port]
        floats = spec.dtype is not None and spec.dtype.is_floating_point
        fits = floats and len(spec.shape) > 1 and spec.shape[0] == task.samples
        if given is None and not fits:
            continue
        axis = known.get(ref) or ((1 if series else 2) if len(spec.shape) == 3 else 1)
        places = prod(side for i, side in enumerate(spec.shape[1:], 1) if i != axis)
        if each == "position" and places < 2 and given is None:
            continue
        chosen.append((site, axis))
    if not chosen:
        raise InputError(f"No block of this model has what each={each!r} patches.", hint="Name some layers.")
    order = {site: recording.refs[site].op for site, _ in chosen}
    chosen.sort(key=lambda one: order[one[0]])
    return [site for site, _ in chosen], [axis for _, axis in chosen]


def _attentions(modules: dict[str, nn.Module]) -> list[str]:
    """Return the sites of all heads of a model, each once."""
    found: dict[str, str] = {}
    for path, module in modules.items():
        name = path.rpartition(".")[2].lower()
        if path and ("att" in name or isinstance(module, nn.MultiheadAttention)):
            try:
                heads = heads_of(modules, path)
            except InputError:
                continue
            if heads.path == path or heads.path.startswith(f"{path}."):
                found.setdefault(heads.path, path)
    return [f"{path}{HEADS}" for path in found.values()]


def blocks(module: nn.Module) -> list[str]:
    """Return the paths of the parts that a network is made of: stacks taken apart, blocks left whole."""
    found: list[str] = []

    def look(path: str, part: nn.Module) -> None:
        if isinstance(part, _IDLE):
            return
        if part is not module and not isinstance(part, _CONTAINERS) and not _stacks(part):
            found.append(path)
            return
        for name, child in part.named_children():
            look(f"{path}.{name}" if path else name, child)

    look("", module)
    return found


def _stacks(part: nn.Module) -> bool:
    """Whether a module holds a stack of blocks, which are modules with parts of their own."""
    return any(
        isinstance(inner, _CONTAINERS) and sum(bool(child._modules) for child in inner.children()) > 1
        for inner in part.modules()
    )
