"""What may be given as a model beside an ``nn.Module``, and what is run for it.

`adapt` turns each kind of model into one module that the twin can copy and the recorder can follow: a file
of ONNX, a ``torch.export.ExportedProgram``, a Keras model, a scripted module, a wrapper around another
model. Each kind has its own part beside this one, imported when it is met; no other part of the engine knows
where a module came from. What is no model at all is refused by ``admission``.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nnviz_widget.engine.sharing import unwrap, wrappers

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Source", "adapt"]


@dataclass(frozen=True)
class Source:
    """What is run for a model.

    Attributes
    ----------
    module : object
        The module to look into; whatever was given, where it is none of the kinds known here.
    note : str
        What the user should know about it, for people; empty where the model runs as it was given.
    given : object
        The model as it was given.
    path_of : callable, optional
        Path of a part of what was given, such as a layer of Keras, that is no module of `module`; None for
        strangers.
    """

    module: Any
    note: str = ""
    given: Any = None
    path_of: Callable[[object], str | None] | None = None


def adapt(model: Any) -> Source:
    """Return what is run for a model.

    Parameters
    ----------
    model : nn.Module, torch.export.ExportedProgram, keras.Layer, or path of an ``.onnx`` file
        Anything else comes back as it is.

    Raises
    ------
    InputError
        A file that does not exist or cannot be read, a Keras model that does not compute with torch.
    ImportError
        The package that reads this kind of model is not installed; names the extra that brings it.
    """
    if isinstance(model, os.PathLike) or (isinstance(model, str) and model.endswith(".onnx")):
        from nnviz_widget.engine.sources.onnx_files import load_onnx  # noqa: PLC0415  an extra

        note = "It was read from ONNX: names and parts are those of the file."
        return Source(load_onnx(model), note, model)
    if _comes_from("torch.export", "ExportedProgram", model):
        from nnviz_widget.engine.sources.exported import runnable  # noqa: PLC0415  takes a second to import

        return Source(*runnable(model), model)
    if _comes_from("keras", "Layer", model):
        from nnviz_widget.engine.sources.keras_layers import view_of  # noqa: PLC0415  an extra

        view = view_of(model)
        return Source(view, "It is shown with the layers of Keras as its parts.", model, view.path_of)
    if not isinstance(model, nn.Module):
        return Source(model, given=model)
    inner = unwrap(model)
    words = [f"It is shown without its wrapper {name}." for name in wrappers(model)]
    if isinstance(inner, torch.jit.ScriptModule):
        from nnviz_widget.engine.sources.scripted import around  # noqa: PLC0415  seldom

        words.append("It is compiled by TorchScript, so it is one node: its inside cannot be seen.")
        return Source(
            around(inner), " ".join(words), model, lambda part: "scripted" if part is inner else None
        )
    return Source(model, " ".join(words), model)


def _comes_from(module: str, name: str, model: object) -> bool:
    """Whether the model is of a class that nobody could have made without importing its home first."""
    home = sys.modules.get(module)
    kind = getattr(home, name, None) if home is not None else None
    return isinstance(kind, type) and isinstance(model, kind)
