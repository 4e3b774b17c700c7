"""The selection: its form, which unit it means, and what `select` makes of a user's wish.

A selection is a small dict that clicks and Python both write: ``layer`` (id of a node or group),
``channel``, ``pixel`` ``[y, x]``, ``sample``, ``class``; nulls allowed. What a page wrote is brought into
this form here and never refused, because an error in a trait has nobody to go to.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from nnviz_widget.errors import InputError, UnknownNameError, nearest
from nnviz_widget.explorer import layers
from nnviz_widget.explorer.results import find_logits

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from nnviz_widget.explorer.exploration import Exploration

__all__ = ["choose", "clean", "gradient", "nothing", "unit_of"]


def nothing() -> dict[str, Any]:
    """Return the selection of nothing, with the first sample on the screen."""
    return {"layer": None, "channel": None, "pixel": None, "sample": 0, "class": None}


def clean(given: Any, samples: int) -> dict[str, Any]:
    """Return a selection of the right form; whatever does not fit becomes null.

    Parameters
    ----------
    given : object
        What was written into the trait.
    samples : int
        Number of samples; another one is no choice.
    """
    given = given if isinstance(given, dict) else {}
    layer, pixel, sample = given.get("layer"), given.get("pixel"), given.get("sample")
    if isinstance(pixel, (list, tuple)) and len(pixel) == 2 and all(_is_index(value) for value in pixel):
        pixel = [int(value) for value in pixel]
    else:
        pixel = None
    return {
        "layer": layer if isinstance(layer, str) and len(layer) <= 1000 else None,
        "channel": _index(given.get("channel")),
        "pixel": pixel,
        "sample": sample if _is_index(sample) and sample < samples else 0,
        "class": _index(given.get("class")),
    }


def unit_of(selection: dict[str, Any], kind: str) -> tuple[str, tuple[int, ...]] | None:
    """Return node and unit that a selection means, or None where it means none.

    Parameters
    ----------
    selection : dict
        A clean selection.
    kind : str
        What the activation of its layer is: ``"maps"``, ``"tokens"`` or ``"vector"``.
    """
    if selection["class"] is not None:
        return "output", (selection["class"],)
    layer, channel, pixel = selection["layer"], selection["channel"], selection["pixel"]
    if layer is None or channel is None:
        return None
    if kind == "vector":
        return layer, (channel,)
    if pixel is None:
        return None
    return (layer, (pixel[0], channel)) if kind == "tokens" else (layer, (channel, *pixel))


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _index(value: Any) -> int | None:
    return value if _is_index(value) else None


def choose(
    exploration: Exploration,
    selection: dict[str, Any],
    *,
    layer: Any,
    channel: int | None,
    pixel: Sequence[int] | None,
    sample: int | None,
    target: int | str | None,
) -> dict[str, Any]:
    """Return the selection that a click there would make, after putting its sample on the screen.

    Parameters
    ----------
    exploration : Exploration
        What is selected in; waits for its first run.
    selection : dict
        The present one.
    layer, channel, pixel, sample, target
        As for `Explorer.select`.

    Raises
    ------
    InputError
        Something of that does not exist.
    """
    exploration.wait()
    chosen = dict(selection)
    if layer is not None or channel is not None or pixel is not None:
        node = selection["layer"] if layer is None else exploration.resolve(layer)
        chosen |= {"layer": node, "channel": None, "pixel": None, "class": None}
        if channel is not None or pixel is not None:
            chosen |= _part_of(exploration, node, channel, pixel)
    elif sample is None and target is None:
        chosen = nothing() | {"sample": selection["sample"]}
    if target is not None:
        chosen |= {"class": _class_index(exploration, target), "pixel": None}
    if sample is not None:
        chosen["sample"] = _index_below(exploration.batch.total, "sample", sample)
    if chosen["sample"] != exploration.sample:
        exploration.ask(lambda: exploration.run(chosen["sample"]))
    return chosen


def gradient(exploration: Exploration, selection: dict[str, Any]) -> NDArray[np.float32] | None:
    """Return the gradient of the selected unit or class on the input, or None where nothing is selected."""
    layer, kind = selection["layer"], "maps"
    if layer is not None and selection["class"] is None:
        kind = layers.extent(exploration, layer)[0]
    meant = unit_of(selection, kind)
    if meant is None:
        return None
    result: NDArray[np.float32] = exploration.unit_saliency(*meant).gradient.float().cpu().numpy()
    return result


def _part_of(
    exploration: Exploration, node: str | None, channel: int | None, pixel: Sequence[int] | None
) -> dict[str, Any]:
    if node is None:
        raise InputError("There is no layer selected to choose a channel of.", hint="Give layer as well.")
    if channel is None:
        raise InputError("pixel is given without a channel.", hint="Give channel as well.")
    kind, channels, height, width = exploration.ask(lambda: layers.extent(exploration, node))
    part: dict[str, Any] = {"channel": _index_below(channels, "channel", channel), "pixel": None}
    if pixel is not None:
        if kind == "vector":
            raise InputError(f"{node!r} has one number for each entry, so there is no pixel to choose.")
        if not hasattr(pixel, "__len__") or len(pixel) != 2:
            raise InputError(f"pixel={pixel!r} is not (y, x).")
        part["pixel"] = [
            _index_below(height, "pixel[0]", pixel[0]),
            _index_below(width, "pixel[1]", pixel[1]),
        ]
    return part


def _class_index(exploration: Exploration, target: int | str) -> int:
    found = find_logits(exploration.wait().output)
    if found is None:
        raise InputError("The model's output has no classes to choose from.")
    if isinstance(target, str):
        names = {name: index for index, name in (exploration.names or {}).items()}
        if target not in names:
            raise UnknownNameError(f"There is no class {target!r}.", hint=nearest(target, names).strip())
        target = names[target]
    return _index_below(found[1].shape[1], "target", target)


def _index_below(count: int, name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or not 0 <= operator.index(value) < count:
        raise InputError(f"{name}={value!r} does not exist.", hint=f"There are {count}, counting from 0.")
    return operator.index(value)
