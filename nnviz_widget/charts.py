"""Charts as bqplot figures: plain functions of numbers.

A figure knows nothing of explorers, engines or selections; whoever shows one hands it new numbers. bqplot
is only imported here, so a host without it loses the charts and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bqplot
import ipywidgets
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike

__all__ = ["close_figure", "histogram", "update_histogram"]

_INK = "#4c78a8"


def histogram(
    counts: ArrayLike, edges: ArrayLike, *, title: str = "", label: str = "activation"
) -> bqplot.Figure:
    """Draw a histogram.

    Parameters
    ----------
    counts : array ``[bins]``
        How many values fell into each bin.
    edges : array ``[bins + 1]``
        Borders of the bins, ascending.
    title : str
        Shown above.
    label : str
        Name of the horizontal axis.

    Returns
    -------
    figure : bqplot.Figure
        Hand it new numbers with `update_histogram`, free it with `close_figure`.

    Raises
    ------
    ValueError
        When there is not one edge more than counts.
    """
    centers, heights = _bars(counts, edges)
    x, y = bqplot.LinearScale(), bqplot.LinearScale(min=0.0)
    bars = bqplot.Bars(x=centers, y=heights, scales={"x": x, "y": y}, colors=[_INK], padding=0.0, stroke=_INK)
    across = bqplot.Axis(scale=x, label=label, grid_lines="none", num_ticks=6)
    up = bqplot.Axis(scale=y, label="count", grid_lines="dashed", num_ticks=4, tick_format="~s")
    up.orientation = (
        "vertical"  # a trait in some versions, a property in others: no argument of the constructor
    )
    return bqplot.Figure(
        marks=[bars],
        axes=[across, up],
        title=title,
        fig_margin={"top": 32, "bottom": 40, "left": 56, "right": 16},
        layout=ipywidgets.Layout(width="100%", height="240px"),
    )


def update_histogram(figure: bqplot.Figure, counts: ArrayLike, edges: ArrayLike, *, title: str = "") -> None:
    """Give a figure that `histogram` made other numbers; parameters as there."""
    bars = figure.marks[0]
    centers, heights = _bars(counts, edges)
    with bars.hold_sync():
        bars.x, bars.y = centers, heights
    figure.title = title


def close_figure(figure: bqplot.Figure) -> None:
    """Close a figure with its marks, axes, scales and layouts, which a figure alone does not."""
    for widget in list(_parts(figure)):
        widget.close()


def _bars(counts: ArrayLike, edges: ArrayLike) -> tuple[Any, Any]:
    heights, borders = np.asarray(counts), np.asarray(edges, dtype=float)
    if heights.ndim != 1 or borders.shape != (len(heights) + 1,):
        raise ValueError(f"{heights.shape} counts need one edge more, not {borders.shape}")
    return (borders[:-1] + borders[1:]) / 2, heights


def _parts(figure: bqplot.Figure) -> Iterator[ipywidgets.Widget]:
    seen: set[int] = set()
    pending: list[Any] = [figure]
    while pending:
        value = pending.pop()
        if isinstance(value, (list, tuple)):
            pending.extend(value)
        elif isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, ipywidgets.Widget) and id(value) not in seen:
            seen.add(id(value))
            pending.extend(getattr(value, name) for name in value.keys)
            yield value
