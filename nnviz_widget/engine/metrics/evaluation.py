"""The result: a table of metrics with the two controls, curves, and the readings of every sample behind them.

Plain data and how it is written out. How it is computed lives elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nnviz_widget.engine.metrics.controls import CONTROLS
from nnviz_widget.engine.replay.replays import Recomputed
from nnviz_widget.errors import NNVizError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from nnviz_widget.engine.metrics.registry import MetricInfo

__all__ = ["Curve", "Evaluation"]

#: Factors of Student's t for 95 % with so few degrees of freedom that its expansion does not serve.
_FEW = {1: 12.706, 2: 4.303}


class Curve(NamedTuple):
    """A curve of a metric, the mean over the samples.

    Attributes
    ----------
    x, y : array
        Points.
    low, high : array
        Borders of the 95 % confidence interval of `y`; NaN for a single sample.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass
class Evaluation:
    """What the metrics say of some maps: a table; `print` it, or leave it as the last line of a cell.

    Attributes
    ----------
    metrics : list of MetricInfo
        The columns.
    readings : dict
        ``readings[name][metric]`` is an array with the value of every sample, NaN where there is none.
    curve_readings : dict
        ``curve_readings[curve][name]`` is ``(x, y)`` with ``y`` an array ``[samples, points]``.
    details : dict
        ``details[name][metric]``: what else a metric tells, as plain data.
    signs : dict
        ``"absolute"`` or ``"signed"`` by the name of the row: how its positions were put in order.
    targets : list
        The class of every sample, where there is one.
    notes : tuple of str
        What to know before trusting the table.
    progress : float
        From 0 to 1; 1 for a table that is whole.
    forward_passes, backward_passes : int
        Samples that went through the model for it.
    seconds : float
        Wall time spent in the engine.
    recomputed : Recomputed or None
        How much of the model ran for the variants that the metrics asked about (curves, perturbations); None
        where they asked about none.
    """

    metrics: list[MetricInfo]
    readings: dict[str, dict[str, NDArray[np.float64]]]
    curve_readings: dict[str, dict[str, tuple[list[float], NDArray[np.float64]]]] = field(
        default_factory=dict
    )
    details: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    signs: dict[str, str] = field(default_factory=dict)
    targets: list[Any] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    progress: float = 1.0
    forward_passes: int = 0
    backward_passes: int = 0
    seconds: float = 0.0
    recomputed: Recomputed | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The table as plain data, one dict for each map.

        ``name``; ``control``, true for the two rows that know nothing of the model; ``sign``; ``samples``; by
        the name of each metric its mean over the samples (None where there is none yet); and ``intervals``,
        by the same names the 95 % confidence interval ``(low, high)`` (None for a single sample).
        """
        return self._rows(None)

    @property
    def by_class(self) -> dict[Any, list[dict[str, Any]]]:
        """The same as `rows` for the samples of each class."""
        classes = sorted({target for target in self.targets if isinstance(target, int)})
        at = {each: [i for i, target in enumerate(self.targets) if target == each] for each in classes}
        return {each: self._rows(chosen) for each, chosen in at.items()}

    @property
    def curves(self) -> dict[str, dict[str, Curve]]:
        """By the name of the curve and of the row: the mean over the samples."""
        return {
            curve: {name: _mean_curve(x, y) for name, (x, y) in rows.items()}
            for curve, rows in self.curve_readings.items()
        }

    @property
    def agreement(self) -> dict[str, dict[str, float]]:
        """Rank correlation of each map with each other, the mean over the samples; empty if not asked."""
        return {
            name: {other: float(np.mean(rho)) for other, rho in found["agreement"]["with"].items()}
            for name, found in self.details.items()
            if "agreement" in found
        }

    def figure(self) -> Any:
        """Draw the curves, or the values where there are none, with matplotlib.

        Returns
        -------
        matplotlib.figure.Figure
            Not registered with pyplot; the last line of a cell shows it.

        Raises
        ------
        NNVizError
            matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure  # noqa: PLC0415  not needed for anything else
        except ImportError:
            raise NNVizError(
                "The figure is drawn by matplotlib, which is not installed.", hint="pip install matplotlib"
            ) from None
        curves = self.curves
        count = len(curves) or len(self.metrics)
        figure = Figure(figsize=(4.2 * min(count, 3), 3.2 * math.ceil(count / 3)), layout="constrained")
        axes = figure.subplots(math.ceil(count / 3), min(count, 3), squeeze=False).flat
        for axis, (name, rows) in zip(axes, curves.items(), strict=False):
            for row, curve in rows.items():
                style: dict[str, Any] = (
                    {"color": "0.55", "ls": "--" if row == "random" else ":"} if row in CONTROLS else {}
                )
                (line,) = axis.plot(curve.x, curve.y, label=row, **style)
                axis.fill_between(curve.x, curve.low, curve.high, color=line.get_color(), alpha=0.12, lw=0)
            axis.set_title(name)
            axis.set_xlabel(
                "share of the layers" if name == "parameter_randomisation" else "share of the positions"
            )
            axis.legend(fontsize="small")
        if not curves:
            for axis, info in zip(axes, self.metrics, strict=False):
                rows_now = [row for row in self.rows if row[info.name] is not None]
                colours = ["0.7" if row["control"] else "C0" for row in rows_now]
                axis.barh(
                    [row["name"] for row in rows_now], [row[info.name] for row in rows_now], color=colours
                )
                axis.invert_yaxis()
                axis.set_title(info.heading)
        for axis in list(axes):
            axis.set_visible(False)
        return figure

    def __str__(self) -> str:
        head = ["", *(info.heading for info in self.metrics)]
        lines = [head, *([row["name"], *self._cells(row)] for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        text = [
            "  ".join(
                [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
            )
            for line in lines
        ]
        rule = "─" * len(text[0])
        return "\n".join([text[0].rstrip(), rule, *(line.rstrip() for line in text[1:]), *self._remarks()])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """HTML for a notebook, in the colours of its theme: the best of each column bold, controls grey."""
        left, right = 'style="text-align: left"', 'style="text-align: right; white-space: nowrap"'
        head = "".join(
            f'<th {right} title="{escape(info.description)}">{escape(info.heading)}</th>'
            for info in self.metrics
        )
        rows = self.rows
        best = {info.name: _best(rows, info) for info in self.metrics}
        body = []
        for row in rows:
            cells = []
            for info, text in zip(self.metrics, self._cells(row), strict=True):
                shown = f"<b>{escape(text)}</b>" if row["name"] == best[info.name] else escape(text)
                cells.append(f"<td {right}>{shown}</td>")
            style = ' style="opacity: 0.6; font-style: italic"' if row["control"] else ""
            body.append(f"<tr{style}><td {left}>{escape(row['name'])}</td>{''.join(cells)}</tr>")
        remarks = "<br>".join(map(escape, self._remarks()))
        return (
            f'<div class="nnviz-evaluation" style="overflow-x: auto"><table>'
            f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table><p>{remarks}</p></div>"
        )

    # -- inside ---------------------------------------------------------------------------------------------

    def _rows(self, chosen: Sequence[int] | None) -> list[dict[str, Any]]:
        rows = []
        for name, found in self.readings.items():
            row: dict[str, Any] = {
                "name": name,
                "control": name in CONTROLS,
                "sign": self.signs.get(name, ""),
            }
            intervals: dict[str, tuple[float, float] | None] = {}
            row["samples"] = len(self.targets) if chosen is None else len(chosen)
            for info in self.metrics:
                values = found.get(info.name, np.array([]))
                if chosen is not None and len(values):
                    values = values[chosen]
                mean, half = _mean_and_half(values[:, None])
                row[info.name] = None if np.isnan(mean[0]) else float(mean[0])
                known = not np.isnan(half[0])
                intervals[info.name] = (float(mean[0] - half[0]), float(mean[0] + half[0])) if known else None
            rows.append({**row, "intervals": intervals})
        return rows

    def _cells(self, row: dict[str, Any]) -> list[str]:
        cells = []
        for info in self.metrics:
            value, interval = row[info.name], row["intervals"][info.name]
            text = "–" if value is None else f"{value:.3f}"
            if value is not None and interval is not None:
                text += f" ± {(interval[1] - interval[0]) / 2:.3f}"
            cells.append(text)
        return cells

    def _remarks(self) -> list[str]:
        """Return what stands below the table."""
        count = len(self.targets)
        remarks = [f"{count} samples; mean ± half of the 95 % confidence interval."] if count > 1 else []
        remarks += ["random and center know nothing of the model: a map that is no better tells nothing."]
        if self.progress < 1:
            remarks += [f"{self.progress:.0%} done."]
        return [*remarks, *self.notes]


def joined(parts: Iterable[Evaluation]) -> Evaluation:
    """Return the evaluation of all samples of several ones with the same rows and metrics."""
    parts = list(parts)
    first = parts[0]
    readings = {
        name: {metric: np.concatenate([p.readings[name][metric] for p in parts]) for metric in found}
        for name, found in first.readings.items()
    }
    curves = {
        curve: {
            name: (x, np.concatenate([p.curve_readings[curve][name][1] for p in parts]))
            for name, (x, _) in rows.items()
        }
        for curve, rows in first.curve_readings.items()
    }
    details = {
        name: {metric: _joined_details([p.details[name][metric] for p in parts]) for metric in found}
        for name, found in first.details.items()
    }
    return Evaluation(
        metrics=first.metrics,
        readings=readings,
        curve_readings=curves,
        details=details,
        signs=first.signs,
        targets=[target for p in parts for target in p.targets],
        notes=tuple(dict.fromkeys(note for p in parts for note in p.notes)),
        forward_passes=sum(p.forward_passes for p in parts),
        backward_passes=sum(p.backward_passes for p in parts),
        seconds=sum(p.seconds for p in parts),
        recomputed=Recomputed.of_all(p.recomputed for p in parts),
    )


def _joined_details(parts: list[Any]) -> Any:
    """Join lists with an entry per sample; all else is that of the first part."""
    first = parts[0]
    if isinstance(first, dict):
        return {key: _joined_details([part[key] for part in parts]) for key in first}
    if isinstance(first, list) and first and isinstance(first[0], dict):
        return [_joined_details(list(each)) for each in zip(*parts, strict=True)]
    if isinstance(first, list):
        return [value for part in parts for value in part]
    return first


def _mean_curve(x: list[float], y: NDArray[np.float64]) -> Curve:
    mean, half = _mean_and_half(y)
    return Curve(np.array(x, dtype=np.float64), mean, mean - half, mean + half)


def _mean_and_half(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and half the width of its 95 % confidence interval of each column, without the NaNs."""
    known = ~np.isnan(values)
    count = known.sum(0)
    mean = np.where(count > 0, np.where(known, values, 0).sum(0) / np.maximum(count, 1), np.nan)
    squares = np.where(known, (values - mean) ** 2, 0).sum(0)
    spread = np.sqrt(squares / np.maximum(count - 1, 1) / np.maximum(count, 1))
    factor = np.array([_student(int(n) - 1) for n in count])
    return mean, np.where(count > 1, factor * spread, np.nan)


def _student(freedom: int) -> float:
    """Return the factor of the 95 % interval of a mean: Student's t at 0.975, by its expansion."""
    if freedom < 1:
        return math.nan
    if freedom in _FEW:
        return _FEW[freedom]
    z, n = 1.959964, freedom
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + math.fsum(term / n ** (i + 1) for i, term in enumerate(terms))


def _best(rows: list[dict[str, Any]], info: MetricInfo) -> str:
    """Return the name of the best row that is no control."""
    known = [row for row in rows if not row["control"] and row[info.name] is not None]
    if not info.better or len(known) < 2:
        return ""
    return str((max if info.better == "higher" else min)(known, key=lambda row: row[info.name])["name"])
