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


def test_what_was_built_is_old_afterwards_without_a_second_look():
    looks: list[int] = []

    def hear(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            looks.append(info["generation"])

    gc.callbacks.append(hear)
    try:
        with seldom():
            built = [[number] for number in range(120_000)]
        more = [[number] for number in range(5_000)]
    finally:
        gc.callbacks.remove(hear)
    assert set(looks[:2]) == {0}  # while it was built
    old = {id(one) for one in gc.get_objects(2)}
    assert all(id(one) in old for one in built)
    assert more


def test_a_short_build_is_left_to_the_collector():
    gc.collect()
    with seldom():
        built = [[number] for number in range(1_000)]
        young = {id(one) for one in gc.get_objects(0)}
    assert all(id(one) in young for one in built)
    old = {id(one) for one in gc.get_objects(2)}
    assert not any(id(one) in old for one in built)


def test_garbage_of_many_builds_is_collected_in_the_end(monkeypatch: pytest.MonkeyPatch):
    class Knot:
        def __init__(self) -> None:
            self.own = self

        def __del__(self) -> None:
            gone.append(1)

    gone: list[int] = []
    monkeypatch.setattr("nnviz_widget.explorer.collecting._ALL_AFTER", 5)
    gc.collect()
    for _ in range(4):
        with seldom():
            built = [[number] for number in range(120_000)]
            knots = [Knot() for _ in range(3)]
        del built, knots  # by now they are old
    assert gone


def test_what_somebody_froze_stays_frozen():
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with seldom():
            built = [[number] for number in range(120_000)]
        assert gc.get_freeze_count() == frozen
        assert built
    finally:
        gc.unfreeze()


def test_what_somebody_else_sets_meanwhile_stays():
    with seldom():
        gc.set_threshold(123)
    assert gc.get_threshold()[0] == 123


def test_a_collector_that_is_off_stays_off():
    gc.set_threshold(0)
    with seldom():
        assert gc.get_threshold()[0] == 0
    assert gc.get_threshold()[0] == 0
