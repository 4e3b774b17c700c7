"""The collector during a long build: looks seldom, still looks, and is put back as it was."""

from __future__ import annotations

import gc
import threading

import pytest

from nnviz_widget.explorer.collecting import OWN, USERS, seldom


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


def test_the_narrowest_of_those_under_way_holds():
    with seldom(OWN):
        assert gc.get_threshold()[0] == OWN
        with seldom(USERS):
            assert gc.get_threshold()[0] == USERS
        assert gc.get_threshold()[0] == OWN


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


def ids_in(generation: int) -> set[int]:
    return {id(one) for one in gc.get_objects(generation)}


@pytest.mark.parametrize("new", [USERS, OWN])
def test_what_was_built_is_old_afterwards_and_was_looked_at_once_at_most(new: int):
    looks: list[int] = []

    def hear(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            looks.append(info["generation"])

    gc.callbacks.append(hear)
    try:
        with seldom(new):
            built = [[number] for number in range(120_000)]
        seen, old = list(looks), ids_in(2)
    finally:
        gc.callbacks.remove(hear)
    assert set(seen) <= {0}
    assert len(seen) == 120_000 // new
    assert all(id(one) in old for one in built)


def test_a_short_build_is_left_to_the_collector():
    gc.collect()
    for _ in range(5):
        gc.collect(0)  # what was looked at before is no part of the build
    with seldom():
        built = [[number] for number in range(1_000)]
        young = ids_in(0)
    assert all(id(one) in young for one in built)
    assert ids_in(2).isdisjoint(map(id, built))


def test_after_many_large_builds_the_collector_gets_to_see_the_young_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nnviz_widget.explorer.collecting._MOST", 300_000)
    gc.collect()
    aged, kept = [], []
    for _ in range(4):
        with seldom(OWN):
            built = [[number] for number in range(120_000)]
            kept.append(built)
            gc.disable()  # so that nothing moves before it is looked at
        aged.append(id(built[0]) in ids_in(2))
        gc.enable()
    assert aged == [True, True, False, False]
    gc.collect()
    with seldom(OWN):
        built = [[number] for number in range(120_000)]
    assert id(built[0]) in ids_in(2)


def test_what_somebody_froze_stays_frozen():
    kept = [[number] for number in range(1_000)]
    gc.freeze()
    try:
        with seldom():
            built = [[number] for number in range(120_000)]
        assert gc.get_freeze_count() > len(kept)
        assert all(ids_in(generation).isdisjoint(map(id, kept)) for generation in range(3))
        assert built
    finally:
        gc.unfreeze()


def test_what_somebody_else_sets_meanwhile_stays():
    with seldom():
        gc.set_threshold(123)
        with seldom(OWN):
            assert gc.get_threshold()[0] == 123
    assert gc.get_threshold()[0] == 123


def test_a_collector_that_is_off_stays_off():
    gc.set_threshold(0)
    with seldom():
        assert gc.get_threshold()[0] == 0
    assert gc.get_threshold()[0] == 0
