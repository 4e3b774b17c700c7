"""Let torchvision's models load beside a torch build that its compiled operators do not fit.

Importing this module declares the schemas of the two operators that `import torchvision` looks for, and
nothing more: classification models need no more. It is for tests and benchmarks, never for the product. Where
the compiled operators do load it does nothing.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util

import torch

SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def _compiled_operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return True
    found = importlib.machinery.PathFinder.find_spec("_C", list(spec.submodule_search_locations))
    if found is None or found.origin is None:
        return False
    try:
        torch.ops.load_library(found.origin)
    except OSError:
        return False
    return True


# Kept alive for as long as the process: the declarations go when the library object goes.
LIBRARY: torch.library.Library | None = None
if not _compiled_operators_load():
    LIBRARY = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS.values():
        LIBRARY.define(schema)
