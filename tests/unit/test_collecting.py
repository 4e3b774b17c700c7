"""The collector during a long build: looks seldom, still looks, and is put back as it was."""

from __future__ import annotations

import gc
import threading

import pytest

from nnviz_widget.explorer.collecting import seldom


@pytest.fixture(autouse=True)
def own_thresholds():
    before = gc.get_threshold()
    gc.set_threshold(500, 7, 9)
    yield
    gc.set_threshold(*before)


def test_thresholds_are_put_back_also_after_an_exception():
    @seldom()
    def build() -> None:
        inside.append(gc.get_threshold())
        raise ValueError("stop")

    inside: list[tuple[int, int, int]] = []
    with pytest.raises(ValueError, match="stop"):
        build()
    assert inside[0][0] > 10_000
    assert gc.get_threshold() == (500, 7, 9)


def test_builds_that_overlap_on_two_threads_leave_what_the_first_one_found():
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with seldom():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with seldom():
        thread.start()
        assert entered.wait(10)
    assert gc.get_threshold()[0] > 10_000
    leave.set()
    thread.join(10)
    assert gc.get_threshold() == (500, 7, 9)


def test_garbage_is_still_collected():
    class Knot:
        def __init__(self) -> None:
            self.own = self

        def __del__(self) -> None:
            gone.append(1)

    gone: list[int] = []
    with seldom():
        for _ in range(200_000):
            Knot()
        assert gone


def test_what_somebody_else_sets_meanwhile_stays():
    with seldom():
        gc.set_threshold(123)
    assert gc.get_threshold()[0] == 123


def test_a_collector_that_is_off_stays_off():
    gc.set_threshold(0)
    with seldom():
        assert gc.get_threshold()[0] == 0
    assert gc.get_threshold()[0] == 0
