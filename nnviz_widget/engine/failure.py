"""Where the user's code is, and what to say when it raises.

Finds the line of the user's own code (outside torch, this package and Python's library) that ran an
operation or raised, and turns an exception in a recorded forward into a `ModelError` that carries the
partial run.
"""

from __future__ import annotations

import linecache
import sysconfig
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nnviz_widget.engine.recording import STATE
from nnviz_widget.errors import ModelError

if TYPE_CHECKING:
    from types import FrameType

    from nnviz_widget.engine.recorder import Recorder
    from nnviz_widget.engine.recording import Recording

__all__ = ["line_label", "line_text", "model_error", "shape_label", "user_line"]

_TORCH = str(Path(torch.__file__).parent)
_HERE = str(Path(__file__).parent)
_PYTHON = sysconfig.get_paths()["stdlib"]
#: File name -> whether it is not the user's.
_internal: dict[str, bool] = {}


def _is_internal(file: str) -> bool:
    known = _internal.get(file)
    if known is None:
        library = file.startswith(_PYTHON) and "-packages" not in file
        known = library or file.startswith(
            ("<frozen", _TORCH + "/", _TORCH + "\\", _HERE + "/", _HERE + "\\")
        )
        _internal[file] = known
    return known


def user_line(frame: FrameType | None) -> tuple[str, int]:
    """Return file and line of the innermost frame of the user's, or ``("", 0)`` before the run began."""
    while frame is not None:
        file = frame.f_code.co_filename
        known = _internal.get(file)
        if not (_is_internal(file) if known is None else known):
            return file, frame.f_lineno
        if frame.f_code.co_name == "run" and file.startswith(_HERE):
            break
        frame = frame.f_back
    return "", 0


@lru_cache(maxsize=4096)
def line_label(source: tuple[str, int]) -> str:
    """Return ``file.py:12``; ``cell:12`` for a line of a notebook; empty for none."""
    file, line = source
    if not file:
        return ""
    return f"{_short_name(file)}:{line}"


def line_text(source: tuple[str, int]) -> str:
    """Return the line itself, as it is written; empty where its file cannot be read."""
    linecache.checkcache(source[0])  # the file may have been edited and loaded again
    return linecache.getline(*source).strip()


@lru_cache(maxsize=1024)
def _short_name(file: str) -> str:
    return "cell" if "ipykernel_" in file or file.startswith("<ipython-input") else Path(file).name


def shape_label(shape: tuple[int, ...]) -> str:
    """Return ``1×3×224×224``, or ``scalar``."""
    return "×".join(map(str, shape)) if shape else "scalar"


def model_error(recorder: Recorder, error: Exception, recording: Recording) -> ModelError:
    """Finish the partial recording with the node that failed, and say what happened there."""
    from nnviz_widget.engine.trace import Trace  # noqa: PLC0415 - a trace knows recordings, not the reverse

    op = recorder.fail(error, recorder.tape.frame)
    recorder.settle(recorder.tape.frame)
    recording.failed = op.node
    given = [
        (recorder.tape.ops[ref.op].kind, recorder.tape.ops[ref.op].outputs[ref.port]) for ref in op.inputs
    ]
    shapes = tuple(shape_label(spec.shape) for kind, spec in given if kind not in STATE)
    weights = [shape_label(spec.shape) for kind, spec in given if kind in STATE]
    hint = f"Shapes that reached it: {', '.join(shapes)}" if shapes else ""
    hint += f"; its weights: {', '.join(weights)}" if hint and weights else ""
    source = line_label(_raising_line(error) or op.source)
    where = f" in {op.node}" if op.node else ""
    where += f" ({source})" if source else ""
    return ModelError(
        f"The model raised {type(error).__name__}{where}: {str(error).strip().rstrip('.')}.",
        hint=f"{hint}." if hint else "",
        source=source,
        node=op.node,
        shapes=shapes,
        trace=Trace(recording),
    )


def _raising_line(error: BaseException) -> tuple[str, int] | None:
    found: tuple[str, int] | None = None
    step = error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if not _is_internal(file):
            found = (file, step.tb_lineno)
        step = step.tb_next
    return found
