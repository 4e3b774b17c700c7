"""Whether the values add up to what the score does when the input changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nnviz_widget.engine.attribution.gradients import precise
from nnviz_widget.engine.metrics.case import Reading, answers
from nnviz_widget.engine.metrics.registry import metric
from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch import Tensor

    from nnviz_widget.engine.metrics.case import Case

__all__ = ["range_of"]


@metric(
    "completeness",
    better="lower",
    values="0 and more; 0.05 is good",
    paper="Sundararajan et al. 2017, arXiv:1703.01365",
)
def completeness(case: Case, *, baselines: Any = None) -> Generator[float, None, Reading]:
    """Add up all values, and compare with the whole change of the score.

    ``|sum(values) - (F(x) - F(x'))| / |F(x) - F(x')|``, with x' the baseline (Sundararajan et al. 2017): 0.05
    means that 5 % of the change is not accounted for. Only methods that promise completeness (integrated
    gradients, DeepLIFT, Shapley values) are held to it, and maps from elsewhere; another method where
    `baselines` is given. Controls, and one number for many elements that promises nothing, have none.

    Options
    -------
    baselines : str, number, Tensor or tuple
        x'. By default the method's own; zero for a map from elsewhere.
    """
    promised = case.delta is not None and baselines is None
    grouped = case.options.get("feature_mask") is not None  # an element has the number of its whole feature
    asked = case.explain is None or baselines is not None
    if not promised and (grouped or not case.moves or not asked):
        return Reading(
            torch.full((case.task.samples,), torch.nan),
            note=f"{case.name} does not promise that its values add up to anything." if case.moves else "",
        )
    summed = torch.stack([value.flatten(1).sum(1) for value in case.full_values()]).sum(0)
    if case.delta is not None and promised and not grouped:
        delta = case.delta.to(summed.device, summed.dtype)
        change = summed - delta
    else:
        change = (yield from _change(case, baselines)).to(summed.device)
        reported = case.delta if promised else None
        delta = summed - change if reported is None else reported.to(change.device, change.dtype)
    return Reading(delta.abs() / change.abs().clamp(min=1e-12))


def _change(case: Case, baselines: Any) -> Generator[float, None, Tensor]:
    """Ask how far the score is from that of the baseline, ``[N]``."""
    own = case.options.get("baselines", "zero") if baselines is None else baselines
    starts = case.task.baselines(own, int(case.options.get("seed", case.seed)))
    inputs = case.task.inputs

    def make(rows: Tensor, numbers: Tensor) -> list[Tensor]:
        return [
            torch.where(numbers.to(x.device).reshape(-1, *[1] * (x.dim() - 1)) == 0, x[at], start[at])
            for x, start in zip(inputs, starts, strict=True)
            for at in (rows.to(x.device),)
        ]

    scores = yield from answers(case, 2, make)
    return scores[:, 0] - scores[:, 1]


@metric(
    "infidelity",
    better="lower",
    values="0 to 1; 1 explains nothing",
    paper="Yeh et al. 2019, arXiv:1901.09392",
)
def infidelity(
    case: Case,
    *,
    n_perturb_samples: int = 32,
    perturbation: str = "noise",
    stdevs: float = 0.1,
    baselines: Any = "mean",
    normalize: bool = True,
    batch_size: Any = "auto",
) -> Generator[float, None, Reading]:
    """Change the input at random, and see whether the values foretell how far the score falls.

    ``E[(I . phi - (F(x) - F(x - I)))^2]`` over random changes I, with phi the values (Yeh et al. 2019).
    Normalised, phi is first given the scale that fits best, and the result is divided by
    ``E[(F(x) - F(x - I))^2]``: the share of the change that the values do not foretell. Without that, it is
    in units of the squared score, and the scale of the values decides.

    Options
    -------
    n_perturb_samples : int
        Random changes of each sample.
    perturbation : str
        ``"noise"``: Gaussian noise on everything; ``"square"``: a random window, of a quarter of each side,
        takes the values of the baseline.
    stdevs : float
        Spread of the noise, as a share of the sample's own range.
    baselines : str, number, Tensor or tuple
        What stands in the window.
    normalize : bool
        As told above.
    batch_size : int or "auto"
        Variants in one pass.
    """
    if type(n_perturb_samples) is not int or n_perturb_samples < 1:
        raise InputError(f"n_perturb_samples is a whole number from 1, not {n_perturb_samples!r}.")
    changes = _Changes(case, perturbation, float(stdevs), baselines)
    values, inputs, samples = case.full_values(), case.task.inputs, case.task.samples
    foretold = torch.zeros(samples, n_perturb_samples, dtype=values[0].dtype, device=values[0].device)

    def make(rows: Tensor, numbers: Tensor) -> list[Tensor]:
        made = []
        for row, number in zip(rows.tolist(), numbers.tolist(), strict=True):
            # The first of all is the sample as it is.
            drawn = changes.draw(row, number - 1) if number else [torch.zeros_like(x[row]) for x in inputs]
            if number:
                parts = [(precise(c) * v[row]).sum() for c, v in zip(drawn, values, strict=True)]
                foretold[row, number - 1] = torch.stack(parts).sum()
            made.append([x[row] - change for x, change in zip(inputs, drawn, strict=True)])
        return [torch.stack(each) for each in zip(*made, strict=True)]

    scores = yield from answers(case, n_perturb_samples + 1, make, size=batch_size)
    falls = (scores[:, :1] - scores[:, 1:]).to(foretold)
    if not normalize:
        return Reading((foretold - falls).square().mean(1))
    size = foretold.square().sum(1, keepdim=True)
    scale = torch.where(size > 0, (foretold * falls).sum(1, keepdim=True) / size.clamp(min=1e-30), 0.0)
    missed = (scale * foretold - falls).square().mean(1)
    return Reading(missed / falls.square().mean(1).clamp(min=1e-30))


class _Changes:
    """Random changes of samples, each the same whatever is drawn before it."""

    def __init__(self, case: Case, kind: str, spread: float, baselines: Any) -> None:
        if kind not in ("noise", "square"):
            raise InputError(f"perturbation={kind!r} is not known.", hint="Known are 'noise' and 'square'.")
        self._inputs, self._kind, self._seed = case.task.inputs, kind, case.seed
        self._spreads = [spread * range_of(x) for x in self._inputs]
        self._starts = case.task.baselines(baselines, case.seed) if kind == "square" else ()
        self._positions = case.positions

    def draw(self, row: int, number: int) -> list[Tensor]:
        """Return change number `number` of a sample, one for each input."""
        generator = torch.Generator().manual_seed(self._seed + 1_000_003 * (row + 1) + number)
        if self._kind == "noise":
            return [
                torch.randn(x.shape[1:], generator=generator).to(x.device, x.dtype) * spread[row]
                for x, spread in zip(self._inputs, self._spreads, strict=True)
            ]
        flags = []
        for shape in self._positions.shapes:
            inside = torch.ones(shape, dtype=torch.bool)
            for axis, side in enumerate(shape):
                width = max(1, side // 4)
                first = int(torch.randint(side - width + 1, (), generator=generator))
                along = torch.arange(side)
                fits = (along >= first) & (along < first + width)
                inside &= fits.reshape([-1 if i == axis else 1 for i in range(len(shape))])
            flags.append(inside.flatten())
        laid = self._positions.spread(torch.cat(flags)[None])
        return [
            (x[row] - start[row]) * flag[0].to(x.device)
            for x, start, flag in zip(self._inputs, self._starts, laid, strict=True)
        ]


def range_of(x: Tensor) -> Tensor:
    """Return the range of values of each sample, ``[N]``."""
    flat = x.reshape(x.shape[0], -1)
    return flat.amax(1) - flat.amin(1)
