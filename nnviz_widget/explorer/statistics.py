"""The histogram beside an explorer: a bqplot figure that follows its selection.

Drawing is the business of ``nnviz_widget.charts``, numbers come from the trace. The figure is made when it
is first asked for; a host without bqplot has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnviz_widget import charts

if TYPE_CHECKING:
    from nnviz_widget.engine.statistics import Stats

__all__ = ["StatisticsFigure"]


class StatisticsFigure:
    """One figure and what it shows."""

    def __init__(self) -> None:
        self.figure: Any = charts.histogram([0], [0.0, 1.0], title="Select a layer")

    def show(self, title: str, stats: Stats) -> None:
        """Draw the histogram of an activation; the fraction of zeros stands in the title."""
        label = f"{title} · {stats.zeros:.0%} zeros"
        charts.update_histogram(self.figure, stats.counts, stats.edges, title=label)

    def close(self) -> None:
        """Close the figure with all its parts."""
        charts.close_figure(self.figure)
