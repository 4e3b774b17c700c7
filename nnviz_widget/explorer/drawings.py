"""The drawing of the graph, asked from Python: the page draws it, so the page has to be asked.

`Drawings` sends the question to every page and writes the first answer into a file, on whatever thread it
comes. Where a page's messages are heard while a cell runs (JupyterLab's subshells), asking waits for the
answer; where they are heard only after the cell, waiting would wait for ever, and so the file comes later.
"""

from __future__ import annotations

import os
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnviz_widget.errors import InputError, NNVizError

if TYPE_CHECKING:
    from collections.abc import Callable

    from nnviz_widget.wire.messages import Buffer
    from nnviz_widget.wire.session import Exchange

__all__ = ["Drawings", "SavedDrawing"]

FORMATS = {".svg": "svg", ".png": "png"}
PATIENCE = 10.0
MAX_ASKED = 8

_NO_PAGE = "Display the explorer in a cell, keep it in sight, and ask again. Without a page, "\
    "w.trace.graph.save('net.json') writes the graph as JSON."  # fmt: skip


class SavedDrawing(os.PathLike[str]):
    """A file that the page draws; stands for its path wherever a path is taken.

    Attributes
    ----------
    path : pathlib.Path
        Where it is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._answered = threading.Event()
        self._error: NNVizError | None = None

    @property
    def done(self) -> bool:
        """Whether the file is there."""
        return self._answered.is_set() and self._error is None

    def wait(self, timeout: float | None = None) -> Path:
        """Wait for the page, at most so many seconds (by default ten), and return the path of the file.

        Raises
        ------
        NNVizError
            The page could not draw it, or did not answer.
        """
        timeout = PATIENCE if timeout is None else timeout
        if not self._answered.wait(timeout):
            raise NNVizError(
                f"No page answered within {timeout:g} s: {self.path} is not written.", hint=_NO_PAGE
            )
        if self._error is not None:
            raise self._error
        return self.path

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        if not self._answered.is_set():
            return f"SavedDrawing({str(self.path)!r}, waiting for the page)"
        state = f"{self.path.stat().st_size:,} bytes" if self.done and self.path.exists() else "failed"
        return f"SavedDrawing({str(self.path)!r}, {state})"

    def _answer(self, data: Buffer | None, error: str) -> None:
        try:
            if data is None:
                raise NNVizError(error or "The page sent no drawing.", hint="Its own menu may still save it.")
            self.path.write_bytes(data)
        except NNVizError as failure:
            self._error = failure
        except OSError as failure:
            self._error = NNVizError(f"{self.path} could not be written: {failure}")
        self._answered.set()


class Drawings:
    """Asks the pages of one explorer for its drawing.

    Parameters
    ----------
    post : callable
        ``post(message)``: sends one message to every page.
    """

    def __init__(self, post: Callable[[dict[str, Any]], None]) -> None:
        self._post = post
        self._asked: dict[str, SavedDrawing] = {}
        #: The thread on which the newest message of a page was heard; None before the first.
        self._ears: int | None = None

    def hear(self) -> None:
        """Note on which thread messages of a page arrive; called for each of them."""
        self._ears = threading.get_ident()

    def save(self, path: str | os.PathLike[str], *, whole: bool) -> SavedDrawing:
        """Ask for the drawing; see `Explorer.save_drawing`."""
        file = Path(path).expanduser().absolute()
        form = FORMATS.get(file.suffix.lower())
        if form is None:
            raise InputError(
                f"A drawing is saved as .svg or .png, not as {file.name!r}.",
                hint="w.trace.graph.save('net.json') writes the graph as JSON.",
            )
        if not file.parent.is_dir():
            raise InputError(f"There is no folder {str(file.parent)!r} to save {file.name!r} in.")
        if self._ears is None:
            raise NNVizError("No page shows this explorer, and it is the page that draws.", hint=_NO_PAGE)
        saved = SavedDrawing(file)
        ask = uuid.uuid4().hex
        while len(self._asked) >= MAX_ASKED:
            self._asked.pop(next(iter(self._asked)), None)
        self._asked[ask] = saved
        self._post({"t": "draw", "ask": ask, "format": form, "part": "whole" if whole else "shown"})
        if self._ears != threading.get_ident():
            try:
                saved.wait()
            finally:
                self._asked.pop(ask, None)
        return saved

    def take(self, exchange: Exchange) -> None:
        """Take a page's answer: the request for the operation ``drawing``."""
        request = exchange.request
        saved = self._asked.pop(str(request.params.get("ask")), None)
        if saved is not None:
            saved._answer(
                request.buffers[0] if request.buffers else None, str(request.params.get("error", ""))
            )
        exchange.finish(epoch=0)
