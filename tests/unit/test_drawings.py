"""Saving the drawing from Python: a page that is played by the test answers, or does not."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from nnviz_widget.errors import InputError, NNVizError
from nnviz_widget.explorer import drawings
from nnviz_widget.explorer.drawings import Drawings


class Pages:
    """Open pages: they hear every question, and answer on a thread of their own if they are told to."""

    def __init__(self, *answers: tuple[tuple[bytes, ...], str]) -> None:
        self.answers = answers
        self.asked: list[dict[str, str]] = []
        self.ended: list[int] = []
        self.drawings = Drawings(self.hear)

    def hear(self, message: dict[str, str]) -> None:
        self.asked.append(message)
        if self.answers:
            threading.Thread(target=self.answer, args=(message,)).start()

    def answer(self, message: dict[str, str]) -> None:
        for buffers, error in self.answers:
            request = SimpleNamespace(params={"ask": message["ask"], "error": error}, buffers=buffers)
            finish = lambda *, epoch: self.ended.append(epoch)  # noqa: E731 - one line for one call
            self.drawings.take(SimpleNamespace(request=request, finish=finish))  # type: ignore[arg-type]

    def heard_elsewhere(self) -> None:
        """A page's messages arrive on another thread than that of the cell."""
        thread = threading.Thread(target=self.drawings.hear)
        thread.start()
        thread.join()


def test_where_pages_are_heard_during_a_cell_the_file_is_there(tmp_path):
    pages = Pages(((b"<svg/>",), ""))
    pages.heard_elsewhere()
    saved = pages.drawings.save(tmp_path / "net.svg", whole=True)
    assert saved.done
    assert (tmp_path / "net.svg").read_bytes() == b"<svg/>"
    assert open(saved).read() == "<svg/>"  # noqa: PTH123, SIM115 - it stands for its path
    assert [(one["t"], one["format"], one["part"]) for one in pages.asked] == [("draw", "svg", "whole")]
    assert "6 bytes" in repr(saved)


def test_where_they_are_heard_after_it_the_file_comes_later(tmp_path):
    pages = Pages()
    pages.drawings.hear()
    saved = pages.drawings.save(tmp_path / "net.PNG", whole=False)
    assert not saved.done
    assert "waiting" in repr(saved)
    pages.answers = (((b"png",), ""),)
    pages.answer(pages.asked[0])
    assert saved.wait(0).read_bytes() == b"png"
    assert (pages.asked[0]["format"], pages.asked[0]["part"]) == ("png", "shown")


def test_the_first_of_several_pages_is_taken_and_all_are_answered(tmp_path):
    pages = Pages()
    pages.drawings.hear()
    saved = pages.drawings.save(tmp_path / "net.svg", whole=False)
    pages.answers = (((b"one",), ""), ((b"two",), ""))
    pages.answer(pages.asked[0])
    assert saved.wait(0).read_bytes() == b"one"
    assert pages.ended == [0, 0]


def test_a_page_that_could_not_draw_says_why(tmp_path):
    pages = Pages(((), "The PNG has too many bytes."))
    pages.heard_elsewhere()
    with pytest.raises(NNVizError, match="too many bytes"):
        pages.drawings.save(tmp_path / "net.png", whole=True)
    assert not (tmp_path / "net.png").exists()


def test_nobody_waits_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(drawings, "PATIENCE", 0.01)
    pages = Pages()
    pages.heard_elsewhere()
    with pytest.raises(NNVizError, match=r"No page answered.*keep it in sight"):
        pages.drawings.save(tmp_path / "net.svg", whole=False)


def test_without_a_page_it_says_what_to_do(tmp_path):
    with pytest.raises(NNVizError, match=r"No page shows this explorer.*Display the explorer"):
        Pages().drawings.save(tmp_path / "net.svg", whole=False)


@pytest.mark.parametrize(("name", "says"), [("net.pdf", r"\.svg or \.png"), ("no/net.svg", "no folder")])
def test_a_file_that_cannot_be_is_refused_before_anybody_is_asked(tmp_path, name, says):
    pages = Pages()
    pages.drawings.hear()
    with pytest.raises(InputError, match=says):
        pages.drawings.save(tmp_path / name, whole=False)
    assert pages.asked == []


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path):
    pages = Pages(((b"<svg/>",), ""))
    pages.heard_elsewhere()
    (tmp_path / "net.svg").mkdir()
    with pytest.raises(NNVizError, match="could not be written"):
        pages.drawings.save(tmp_path / "net.svg", whole=False)
