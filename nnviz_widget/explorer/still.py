"""What is shown in a cell: the live widget, and beside it a still picture for the notebook as it is saved.

A notebook that is opened again without its kernel has no widget to show. So the explorer is displayed as
two outputs: the live view, and an ``<img>`` whose data the page hands over after changes settle. While the
live view is there, style hides the picture; without it only the picture is left. Both travel through
IPython's own display machinery; where there is none (a script, another host), nothing here happens.
"""

from __future__ import annotations

import base64
import html
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnviz_widget.wire.messages import Buffer

__all__ = ["CSS", "MAX_BYTES", "Still"]

logger = logging.getLogger("nnviz_widget")

MAX_BYTES = 3 * 1024 * 1024
PNG = b"\x89PNG\r\n\x1a\n"

#: Hides the picture, and the output that it is in, wherever the live view of the same cell is drawn.
CSS = """
.jp-OutputArea:has(.nnviz) .jp-OutputArea-child:has(> .jp-OutputArea-output .nnviz-still),
.output_area:has(.nnviz) ~ .output_area:has(.nnviz-still),
.output_container:has(.nnviz) .output:has(.nnviz-still) { display: none !important; }
"""


class Still:
    """The still picture of one explorer, in every cell where it is displayed.

    Parameters
    ----------
    title : str
        What the picture shows, for its description and until there is a picture.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._data: str | None = None
        self._handles: list[Any] = []

    def show(self, bundle: dict[str, Any], metadata: dict[str, Any]) -> bool:
        """Display the widget's bundle and the picture; False where there is no notebook to display in."""
        if not _in_kernel():
            return False
        from IPython.display import display  # noqa: PLC0415 - not every host has it

        display(bundle, raw=True, metadata=metadata)  # type: ignore[no-untyped-call]
        handle = display(self._bundle(), raw=True, display_id=True)  # type: ignore[no-untyped-call]
        if handle is not None:
            self._handles.append(handle)
        return True

    def update(self, png: Buffer) -> None:
        """Take a new picture and put it into the cells; ValueError for what is not a PNG or too big."""
        data = bytes(png)
        if not data.startswith(PNG):
            raise ValueError("the picture is not a PNG")
        if len(data) > MAX_BYTES:
            raise ValueError(f"the picture has {len(data)} bytes, more than {MAX_BYTES}")
        self._data = base64.b64encode(data).decode("ascii")
        for handle in self._handles:
            handle.update(self._bundle(), raw=True)

    def markup(self) -> str:
        """HTML of the picture; until there is one, a line that says how to get the live view."""
        title = html.escape(self._title, quote=True)
        if self._data is None:
            return f'<p class="nnviz-still"><em>{title}. Run this cell to explore it.</em></p>'
        return (
            f'<img class="nnviz-still" style="max-width: 100%" alt="{title} as it was last explored"'
            f' src="data:image/png;base64,{self._data}">'
        )

    def _bundle(self) -> dict[str, str]:
        return {"text/html": self.markup(), "text/plain": self._title}

    def forget(self) -> None:
        """Let go of the cells; their last picture stays in the notebook."""
        self._handles.clear()


def _in_kernel() -> bool:
    try:
        from IPython import get_ipython  # noqa: PLC0415 - not every host has it
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")
