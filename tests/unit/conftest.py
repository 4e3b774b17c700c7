"""What the unit tests share."""

from __future__ import annotations

import pytest


@pytest.fixture
def front_end(monkeypatch, tmp_path):
    """A front end that is there: the built one, or two empty files where it was not built yet."""
    from nnviz_widget.explorer import widget

    if not (widget.STATIC / "index.js").is_file():
        for name in ("index.js", "index.css"):
            (tmp_path / name).write_text("export default {}\n" if name.endswith("js") else "\n")
        monkeypatch.setattr(widget, "STATIC", tmp_path)
        widget.front_end.cache_clear()
        yield
        widget.front_end.cache_clear()
    else:
        yield
