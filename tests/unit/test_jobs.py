"""The engine thread: order, slots, cancelling, holding still, closing. Events step the jobs."""

from __future__ import annotations

import _thread
import gc
import signal
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING

import pytest

from nnviz_widget.engine.jobs import Cancelled, CancelToken, ClosedError, Job, Jobs, Priority

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 30  # seconds until a test that hangs fails


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    jobs = Jobs("test-engine")
    yield jobs
    jobs.close()


class Busy:
    """A job that runs until it is released or cancelled."""

    def __init__(self, jobs: Jobs, **options: object) -> None:
        self.started, self.released = threading.Event(), threading.Event()
        self.job: Job[str] = jobs.submit(self._work, **options)  # type: ignore[arg-type]

    def _work(self, token: CancelToken) -> str:
        self.started.set()
        while not self.released.wait(0.001):
            token.check()
        return "released"

    def wait_until_started(self) -> Busy:
        assert self.started.wait(PATIENCE)
        return self


def test_a_job_returns_what_its_function_returns_and_runs_on_the_engine_thread(jobs: Jobs) -> None:
    job = jobs.submit(lambda token: threading.current_thread().name)
    assert job.result(PATIENCE) == "test-engine"
    assert job.state == "done"


def test_a_job_raises_what_its_function_raises_and_the_next_one_still_runs(jobs: Jobs) -> None:
    failing = jobs.submit(lambda token: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        failing.result(PATIENCE)
    assert failing.state == "failed"
    assert jobs.submit(lambda token: 2).result(PATIENCE) == 2


def test_clicks_run_before_hovers_before_prefetches_and_equals_in_order(jobs: Jobs) -> None:
    busy = Busy(jobs).wait_until_started()
    ran: list[str] = []
    wanted = [
        ("prefetch", Priority.PREFETCH),
        ("hover 1", Priority.HOVER),
        ("click 1", Priority.CLICK),
        ("hover 2", Priority.HOVER),
        ("click 2", Priority.CLICK),
    ]
    queued = [jobs.submit(lambda token, name=name: ran.append(name), priority=p) for name, p in wanted]
    busy.released.set()
    for job in queued:
        job.result(PATIENCE)
    assert ran == ["click 1", "click 2", "hover 1", "hover 2", "prefetch"]


def test_the_newest_job_of_a_slot_cancels_the_running_and_the_queued_one(jobs: Jobs) -> None:
    running = Busy(jobs, slot="maps").wait_until_started()
    other = jobs.submit(lambda token: "other", slot="saliency")
    queued = jobs.submit(lambda token: "queued", slot="maps")
    newest = jobs.submit(lambda token: "newest", slot="maps")
    assert newest.result(PATIENCE) == "newest"
    assert other.result(PATIENCE) == "other"
    assert (running.job.state, queued.state) == ("cancelled", "cancelled")


def test_a_queued_job_ends_at_once_when_cancelled_and_never_runs(jobs: Jobs) -> None:
    busy = Busy(jobs).wait_until_started()
    ran = threading.Event()
    queued = jobs.submit(lambda token: ran.set())
    assert queued.cancel()
    assert queued.state == "cancelled"
    with pytest.raises(Cancelled):
        queued.result(0)
    busy.released.set()
    jobs.submit(lambda token: None).result(PATIENCE)
    assert not ran.is_set()


def test_a_cancelled_job_has_no_result_even_if_it_did_not_notice_in_time(jobs: Jobs) -> None:
    started, go_on = threading.Event(), threading.Event()

    def deaf(token: CancelToken) -> str:
        started.set()
        go_on.wait(PATIENCE)
        return "too late"

    job = jobs.submit(deaf)
    assert started.wait(PATIENCE)
    job.cancel()
    go_on.set()
    with pytest.raises(Cancelled):
        job.result(PATIENCE)


def test_every_job_tells_its_listeners_exactly_once_how_it_ended(jobs: Jobs) -> None:
    ends: list[tuple[str, str]] = []
    busy = Busy(jobs).wait_until_started()
    listed = {
        "done": jobs.submit(lambda token: 1),
        "failed": jobs.submit(lambda token: 1 / 0),
        "cancelled": jobs.submit(lambda token: 1),
    }
    for name, job in listed.items():
        job.add_done_callback(lambda job, name=name: ends.append((name, job.state)))
    for _ in range(3):
        listed["cancelled"].cancel()
    busy.released.set()
    for job in listed.values():
        assert job.wait(PATIENCE)
    jobs.submit(lambda token: None).result(PATIENCE)
    assert sorted(ends) == [("cancelled", "cancelled"), ("done", "done"), ("failed", "failed")]
    assert not listed["done"].cancel()
    listed["done"].add_done_callback(lambda job: ends.append(("late", job.state)))
    assert ends[-1] == ("late", "done")


def test_a_listener_that_raises_stops_neither_the_others_nor_the_thread(
    jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    busy = Busy(jobs).wait_until_started()
    job = jobs.submit(lambda token: 1)
    heard = threading.Event()
    job.add_done_callback(lambda job: 1 / 0)
    job.add_done_callback(lambda job: heard.set())
    busy.released.set()
    assert heard.wait(PATIENCE)
    assert jobs.submit(lambda token: 2).result(PATIENCE) == 2
    assert "ZeroDivisionError" in caplog.text


def test_pausing_waits_for_the_running_job_and_holds_the_next_until_the_end_of_the_block(jobs: Jobs) -> None:
    busy = Busy(jobs).wait_until_started()
    after = jobs.submit(lambda token: "after")
    threading.Timer(0.05, busy.released.set).start()
    with jobs.paused(), jobs.paused():
        assert busy.job.state == "done"
        assert after.state == "queued"
        assert jobs.call(lambda token: threading.current_thread()) is threading.current_thread()
        with pytest.raises(ZeroDivisionError):
            jobs.call(lambda token: 1 / 0)
    assert after.result(PATIENCE) == "after"


def test_a_pause_that_raises_lets_the_engine_go_on(jobs: Jobs) -> None:
    with pytest.raises(ZeroDivisionError), jobs.paused():
        raise ZeroDivisionError
    assert jobs.submit(lambda token: 1).result(PATIENCE) == 1


def test_dead_jobs_do_not_pile_up_while_the_engine_is_held(jobs: Jobs) -> None:
    with jobs.paused():
        scrubbed = [jobs.submit(lambda token, i=i: i, slot="scrub") for i in range(1000)]
        assert len(jobs._queue.heap) == 1
    assert scrubbed[-1].result(PATIENCE) == 999


def test_a_job_that_asks_for_another_one_gets_it_at_once_under_its_own_token(jobs: Jobs) -> None:
    def outer(token: CancelToken) -> bool:
        return jobs.submit(lambda inner: inner is token and jobs.token is token).result()

    assert jobs.submit(outer).result(PATIENCE)
    assert jobs.token is None


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own answer to Ctrl-C, also where the shell behind the tests ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupted_caller_cancels_its_job(jobs: Jobs) -> None:
    interrupt_on_start = threading.Event()

    def work(token: CancelToken) -> None:
        _thread.interrupt_main()
        interrupt_on_start.set()
        while True:
            token.check()
            time.sleep(0)  # give the waiting main thread its turn

    job = jobs.submit(work)
    with pytest.raises(KeyboardInterrupt):
        job.result()
    assert job.wait(PATIENCE)
    assert job.state == "cancelled"


def test_closing_cancels_what_runs_and_what_waits_and_ends_the_thread() -> None:
    jobs = Jobs("closing-engine")
    busy = Busy(jobs).wait_until_started()
    queued = jobs.submit(lambda token: 1)
    jobs.close()
    jobs.close()
    assert (busy.job.state, queued.state) == ("cancelled", "cancelled")
    assert "closing-engine" not in {t.name for t in threading.enumerate()}
    with pytest.raises(ClosedError, match="closed"):
        jobs.submit(lambda token: 1)


def test_closing_from_a_job_ends_that_job_and_the_thread() -> None:
    jobs = Jobs("self-closing-engine")
    job = jobs.submit(lambda token: jobs.close())
    with pytest.raises(Cancelled):
        job.result(PATIENCE)
    thread = jobs._queue.thread
    assert thread is not None
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_forgotten_queue_ends_its_thread_and_keeps_neither_owner_nor_results() -> None:
    class Owner:
        def __init__(self) -> None:
            self.jobs = Jobs("forgotten-engine")

        def work(self, token: CancelToken) -> Owner:
            return self

    owner = Owner()
    assert owner.jobs.submit(owner.work).result(PATIENCE) is owner
    thread = owner.jobs._queue.thread
    assert thread is not None
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_threads_take_shorter_turns_only_while_an_engine_works(jobs: Jobs) -> None:
    before = sys.getswitchinterval()
    with jobs.paused():
        assert sys.getswitchinterval() == before
    other = Jobs("other-engine")
    both = [Busy(jobs).wait_until_started(), Busy(other).wait_until_started()]
    assert sys.getswitchinterval() < before
    for busy in both:
        busy.released.set()
    other.close()
    # A moment longer, for the answers to leave.
    deadline = time.monotonic() + PATIENCE
    while sys.getswitchinterval() != before:
        assert time.monotonic() < deadline


def test_no_thread_starts_before_the_first_job() -> None:
    before = threading.active_count()
    jobs = Jobs()
    assert threading.active_count() == before
    jobs.close()


def test_many_threads_may_submit_and_cancel_at_once(jobs: Jobs) -> None:
    ended: list[str] = []

    def storm(view: int) -> None:
        for i in range(200):
            job = jobs.submit(lambda token: token.check(), slot=view if i % 2 else None)
            job.add_done_callback(lambda job: ended.append(job.state))
            if i % 3 == 0:
                job.cancel()

    threads = [threading.Thread(target=storm, args=(view,)) for view in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    jobs.submit(lambda token: None, priority=Priority.PREFETCH).result(PATIENCE)
    assert len(ended) == 800
    assert set(ended) <= {"done", "cancelled"}
