"""Attributions as files: arrays, and figures that tell how they were made."""

from __future__ import annotations

import io
import textwrap
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from nnviz_widget.errors import NNVizError
from nnviz_widget.explorer.explaining import flat_maps
from nnviz_widget.explorer.pictures import draw_sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nnviz_widget.engine.attribution.result import Attribution
    from nnviz_widget.explorer.exploration import Exploration

__all__ = ["written"]

_CLIP = 99.0


def written(exploration: Exploration, shown: Sequence[tuple[int, Attribution]], kind: str) -> bytes:
    """Return attributions as the bytes of one file.

    Parameters
    ----------
    exploration : Exploration
        Whose samples they explain.
    shown : sequence of (int, Attribution)
        Sample and attribution, in the order of the page.
    kind : str
        ``npz`` (of several, a zip archive with one each), ``png`` or ``svg``.
    """
    buffer = io.BytesIO()
    if kind == "npz" and len(shown) == 1:
        shown[0][1].save(buffer)
    elif kind == "npz":
        with zipfile.ZipFile(buffer, "w") as archive:
            for i, (sample, attribution) in enumerate(shown):
                one = io.BytesIO()
                attribution.save(one)
                archive.writestr(f"{i:02d}_{attribution.method}_sample{sample}.npz", one.getvalue())
    else:
        _figure(exploration, shown).savefig(buffer, format=kind, bbox_inches="tight", dpi=160)
    return buffer.getvalue()


def _figure(exploration: Exploration, shown: Sequence[tuple[int, Attribution]]) -> Any:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  an optional dependency
    except ImportError as error:
        raise NNVizError("Figures are drawn by matplotlib.", hint="pip install matplotlib") from error
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.9 * columns, 3.7 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (sample, attribution) in zip(axes, shown, strict=False):
        signed, _ = flat_maps(attribution.tensors[0][0], one=attribution.layer_values is not None)
        reach = float(np.percentile(np.abs(signed), _CLIP)) or float(np.abs(signed).max()) or 1.0
        extent = (0, signed.shape[1], signed.shape[0], 0)
        rgb = draw_sample(exploration.batch.row(sample), 0, exploration.denormalize).rgb
        axis.imshow(rgb.mean(-1), cmap="gray", extent=extent, vmin=-60, vmax=315)
        drawn = axis.imshow(signed, cmap="RdBu_r", vmin=-reach, vmax=reach, alpha=0.75, extent=extent)
        figure.colorbar(drawn, ax=axis, orientation="horizontal", shrink=0.8, pad=0.02)
        axis.set_title(attribution.method, fontsize=9)
        told = textwrap.fill(f"sample {sample}, target {_short(attribution.target)}: {attribution.call}", 46)
        axis.text(0, -0.22, told, transform=axis.transAxes, fontsize=5, va="top", family="monospace")
    return figure


def _short(target: Any) -> str:
    one = target[0] if isinstance(target, list) and len(target) == 1 else target
    return str(one)[:40]
