"""See inside any PyTorch model, live, in a notebook.

Public names load lazily (PEP 562): ``import nnviz_widget`` imports neither torch nor ipywidgets, so that a
notebook can start while they are still being read from disk.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nnviz_widget.errors import NNVizError

if TYPE_CHECKING:
    from nnviz_widget import demo as demo
    from nnviz_widget.engine.comparing import compare as compare
    from nnviz_widget.engine.engine import Engine as Engine
    from nnviz_widget.engine.graph import Graph as Graph
    from nnviz_widget.engine.sources.onnx_files import load_onnx as load_onnx
    from nnviz_widget.explorer.explore import explore as explore
    from nnviz_widget.explorer.widget import Explorer as Explorer

__version__ = "0.1.0"
__all__ = ["Engine", "Explorer", "Graph", "NNVizError", "compare", "demo", "explore", "load_onnx"]

# Tracebacks of what goes wrong behind a page are for who listens here, never for the page or a cell's output.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_HOMES = {
    "Engine": "nnviz_widget.engine.engine",
    "Explorer": "nnviz_widget.explorer.widget",
    "Graph": "nnviz_widget.engine.graph",
    "compare": "nnviz_widget.engine.comparing",
    "explore": "nnviz_widget.explorer.explore",
    "load_onnx": "nnviz_widget.engine.sources.onnx_files",
}


def __getattr__(name: str) -> Any:
    if name == "demo":
        return import_module("nnviz_widget.demo")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
