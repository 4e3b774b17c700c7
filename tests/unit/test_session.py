"""The kernel's end of the wire, with a clock that is stepped and a page that is a list of what it got."""

from __future__ import annotations

import contextvars
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnviz_widget.wire.exchange import STALL_SECONDS, WINDOW
from nnviz_widget.wire.session import MAX_FINISHED, MAX_OPEN, Session

FIXTURES = Path(__file__).parent.parent / "fixtures" / "wire"
TERMINALS = ("error", "cancelled")
BIG = {"tiles": np.arange(12 * 384 * 1024, dtype=np.int64).astype(np.uint8).reshape(12, -1)}


class Page:
    """What a page would see, and a worker that answers when the test says so."""

    def __init__(self, on_request=None):
        self.now = 100.0
        self.sent: list[tuple[dict, list]] = []
        self.asked = []
        self.seen: list[bool] = []
        self.session = Session(
            lambda content, buffers: self.sent.append((content, buffers)),
            on_request or self.asked.append,
            on_visible=self.seen.append,
            clock=lambda: self.now,
        )

    def ask(self, rid, *, op="maps", view="a", slot="", p=None):
        message = {"v": 1, "t": "req", "rid": rid, "view": view, "slot": slot, "op": op, "p": p or {}}
        self.session.receive(message)
        return next((e for e in self.asked if e.request.rid == rid), None)

    def say(self, t, **fields):
        self.session.receive({"t": t, **fields})

    def messages(self, rid=None, t=None):
        return [
            m for m, _ in self.sent if (rid is None or m.get("rid") == rid) and (t is None or m["t"] == t)
        ]

    def terminals(self, rid):
        return [m for m in self.messages(rid) if m["t"] in TERMINALS or m.get("last")]

    def seqs(self, rid):
        return [m["seq"] for m in self.messages(rid, "chunk")]


@pytest.fixture
def page():
    return Page()


def test_what_is_said_equals_the_golden_messages():
    golden = json.loads((FIXTURES / "kernel.json").read_text())

    def said(act):
        page = Page()
        act(page, page.ask("a-1"))
        return page.sent[-1][0]

    low = {"low": np.zeros(2, np.float32)}
    meta = {"node": "conv", "bad": float("nan")}
    assert said(lambda _, e: e.finish(low, meta, epoch=3)) == golden["finish"]
    assert said(lambda _, e: e.part(low, epoch=3)) == golden["part"]
    assert said(lambda _, e: e.progress(1, 4, "forward")) == golden["progress"]
    error = golden["error"]
    assert (
        said(lambda _, e: e.fail(error["code"], error["message"], hint=error["hint"], detail=error["detail"]))
        == error
    )
    assert said(lambda _, e: e.cancel()) == golden["cancelled"]
    assert said(lambda page, _: page.say("hello", v=1, view="a")) == golden["hello"]


def test_a_reply_that_fits_is_one_message_and_its_own_end(page):
    exchange = page.ask("r")
    exchange.finish({"a": np.zeros(1000, np.uint8)}, {"ms": 1}, epoch=5)
    assert len(page.sent) == 1
    message, buffers = page.sent[0]
    assert message["last"] is True
    assert message["epoch"] == 5
    assert len(buffers[0]) == 1000
    assert page.session.open_requests == []


def test_after_the_end_nothing_more_is_said(page):
    exchange = page.ask("r")
    exchange.finish({}, {}, epoch=0)
    exchange.finish({}, {}, epoch=0)
    exchange.part({}, epoch=0)
    exchange.fail("internal", "late")
    exchange.progress(1, 2)
    exchange.cancel()
    page.say("cancel", rid="r")
    assert len(page.sent) == 1


@pytest.mark.parametrize("how", ["message", "slot", "close"])
def test_a_cancelled_request_ends_once_and_its_worker_is_told(page, how):
    told = []
    exchange = page.ask("r", slot="maps")
    exchange.on_cancel(lambda: told.append("cancelled"))
    if how == "message":
        page.say("cancel", rid="r")
    elif how == "slot":
        page.ask("newer", slot="maps")
    else:
        page.session.close()
    exchange.finish({"a": np.zeros(3)}, {}, epoch=0)
    assert told == ["cancelled"]
    assert [m["t"] for m in page.terminals("r")] == ["cancelled"]


def test_a_worker_that_comes_late_hears_of_the_cancel_at_once(page):
    told = []
    exchange = page.ask("r")
    exchange.cancel()
    exchange.on_cancel(lambda: told.append(1))
    exchange.when_ready(lambda: told.append(2))
    assert told == [1, 2]


def test_the_newest_of_a_slot_wins_within_its_view_only(page):
    page.ask("a1", view="a", slot="maps")
    page.ask("b1", view="b", slot="maps")
    page.ask("a2", view="a", slot="stats")
    page.ask("a3", view="a", slot="maps")
    page.ask("free1")
    page.ask("free2")
    assert page.session.open_requests == ["b1", "a2", "a3", "free1", "free2"]


def test_the_same_message_twice_is_answered_once(page):
    page.ask("r")
    page.ask("r")
    assert len(page.asked) == 1
    page.asked[0].finish({}, {}, epoch=0)
    page.ask("r")
    assert len(page.asked) == 1
    assert len(page.terminals("r")) == 1


def test_a_window_of_chunks_goes_and_each_acknowledgement_brings_the_next(page):
    exchange = page.ask("r")
    exchange.finish(BIG, {"kind": "maps"}, epoch=0)
    assert page.seqs("r") == list(range(WINDOW))
    assert exchange.closed
    page.say("ack", rid="r", seq=0)
    assert page.seqs("r") == list(range(WINDOW + 1))
    page.say("ack", rid="r", seq=2)  # one acknowledgement covers all before it
    assert page.seqs("r") == list(range(WINDOW + 3))
    for seq in range(3, 12):
        page.say("ack", rid="r", seq=seq)
    chunks = page.messages("r", "chunk")
    assert [m["seq"] for m in chunks] == list(range(12))
    assert [m["last"] for m in chunks] == [False] * 11 + [True]
    assert chunks[0]["meta"] == chunks[-1]["meta"] == {"kind": "maps"}
    assert all("meta" not in m for m in chunks[1:-1])
    whole = b"".join(bytes(b) for m, buffers in page.sent for b in buffers)
    assert whole == BIG["tiles"].tobytes()


def test_a_cancel_stops_the_chunks_that_wait(page):
    page.ask("r").finish(BIG, {}, epoch=0)
    page.say("cancel", rid="r")
    page.say("ack", rid="r", seq=3)
    assert page.seqs("r") == list(range(WINDOW))
    assert [m["t"] for m in page.terminals("r")] == ["cancelled"]


def test_late_acknowledgements_let_one_more_window_go(page):
    page.ask("r").finish(BIG, {}, epoch=0)
    page.session.tick()
    assert len(page.seqs("r")) == WINDOW
    page.now += STALL_SECONDS
    page.session.tick()
    assert page.seqs("r") == list(range(2 * WINDOW))
    page.session.tick()
    assert len(page.seqs("r")) == 2 * WINDOW
    page.say("ack", rid="r", seq=7)
    assert page.seqs("r") == list(range(12))


@pytest.mark.parametrize("lost", [0, 2, 11])
def test_a_lost_chunk_is_sent_again_also_when_it_was_the_last(page, lost):
    page.ask("r").finish(BIG, {}, epoch=0)
    got: dict[int, list] = {}
    read, dropped = 0, False
    while len(got) < 12:
        if read == len(page.sent):  # silence: the page asks for what follows its last one
            page.say("ack", rid="r", seq=max(got, default=-1), again=True)
            assert read < len(page.sent)
        message, buffers = page.sent[read]
        read += 1
        if message["seq"] == lost and not dropped:
            dropped = True
            continue
        if message["seq"] == len(got):
            got[message["seq"]] = buffers
            page.say("ack", rid="r", seq=message["seq"])
        elif message["seq"] > len(got):
            page.say("ack", rid="r", seq=len(got) - 1, again=True)
    assert b"".join(bytes(got[seq][0]) for seq in range(12)) == BIG["tiles"].tobytes()


def test_a_finished_stream_keeps_nothing_once_it_is_acknowledged(page):
    page.ask("r").finish(BIG, {}, epoch=0)
    for seq in range(12):
        page.say("ack", rid="r", seq=seq)
    before = len(page.sent)
    page.say("ack", rid="r", seq=5, again=True)
    assert len(page.sent) == before


def test_two_messages_are_kept_for_nobody(page):
    exchange = page.ask("r")
    exchange.part({}, {"half": 1}, epoch=0)
    exchange.finish({}, {"half": 2}, epoch=0)
    assert page.seqs("r") == [0, 1]
    assert not exchange.is_tail
    page.say("ack", rid="r", seq=0, again=True)
    assert page.seqs("r") == [0, 1]


def test_a_stream_says_when_it_can_take_more(page):
    exchange = page.ask("r")
    exchange.part(BIG, epoch=0)
    assert not exchange.ready
    woken = []
    exchange.when_ready(lambda: woken.append(1))
    for seq in range(7):
        page.say("ack", rid="r", seq=seq)
    assert woken == []
    page.say("ack", rid="r", seq=7)  # the twelfth and last chunk of this part leaves
    assert woken == [1]
    assert exchange.ready
    exchange.finish({}, {"done": True}, epoch=0)
    page.say("ack", rid="r", seq=11)
    assert page.messages("r", "chunk")[-1]["last"] is True


def test_progress_is_said_five_times_a_second_at_most(page):
    exchange = page.ask("r")
    for step in range(100):
        exchange.progress(step, 100)
        page.now += 0.01
    assert len(page.messages("r", "progress")) == 5


def test_hello_tells_which_requests_are_still_open(page):
    page.ask("r1").finish({}, {}, epoch=0)
    page.ask("r2")
    page.say("hello", v=1, view="a")
    assert page.sent[-1][0] == {"t": "hello", "v": 1, "view": "a", "open": ["r2"]}


def test_every_send_runs_in_the_context_of_the_newest_page_message(page):
    who = contextvars.ContextVar("who", default="nobody")
    heard = []
    session = Session(lambda content, _: heard.append((content["t"], who.get())), page.asked.append)
    assert session.run(who.get) == "nobody"

    def from_page(name, message):
        def deliver():
            who.set(name)
            session.receive(message)

        contextvars.copy_context().run(deliver)

    from_page("first", {"v": 1, "t": "req", "rid": "r", "op": "maps"})
    worker = threading.Thread(target=lambda: page.asked[0].progress(1, 2))
    worker.start()
    worker.join()
    from_page("second", {"t": "nonsense"})
    page.asked[0].finish({}, {}, epoch=0)
    assert heard == [("progress", "first"), ("chunk", "second")]
    assert session.run(who.get) == "second"
    assert who.get() == "nobody"
    # re-entrant: a send that sends
    assert session.run(lambda: session.run(who.get)) == "second"


def test_visibility_is_told_when_the_first_view_comes_and_the_last_one_goes(page):
    for view, visible in [("a", True), ("b", True), ("a", False), ("a", False), ("b", False), ("a", True)]:
        page.say("visible", view=view, visible=visible)
    assert page.seen == [True, False, True]
    assert page.session.visible


def test_a_view_that_is_hidden_gives_up_hover_and_prefetch_but_not_clicks(page):
    for view in "ab":
        page.say("visible", view=view, visible=True)
        page.ask(f"{view}1", view=view, slot="hover:x")
        page.ask(f"{view}2", view=view, slot="prefetch")
        page.ask(f"{view}3", view=view, slot="maps")
    page.say("visible", view="a", visible=False)
    assert page.session.open_requests == ["a3", "b1", "b2", "b3"]


def test_too_many_open_requests_are_refused_and_the_others_go_on(page):
    for number in range(MAX_OPEN + 3):
        page.ask(f"r{number}")
    assert len(page.session.open_requests) == MAX_OPEN
    assert [m["code"] for m in page.messages(t="error")] == ["busy"] * 3
    page.say("cancel", rid="r0")
    assert page.ask("another") is not None


def test_a_worker_or_a_comm_that_fails_stops_nothing(page, caplog):
    def explode(exchange):
        raise RuntimeError("no engine")

    broken = Page(explode)
    broken.ask("r")
    assert [(m["t"], m["code"]) for m in broken.messages("r")] == [("error", "internal")]

    def closed(content, buffers):
        raise OSError("comm is gone")

    session = Session(closed, page.asked.append)
    session.receive({"v": 1, "t": "req", "rid": "r", "op": "maps"})
    page.asked[0].finish({}, {}, epoch=0)
    assert session.open_requests == []
    page.asked[0].cancel()
    assert "could not be sent" in caplog.text


def test_a_closed_session_says_nothing_and_keeps_nothing(page):
    exchange = page.ask("r")
    page.say("visible", view="a", visible=True)
    page.session.close()
    said = len(page.sent)
    exchange.finish({}, {}, epoch=0)
    page.ask("later")
    page.say("hello", v=1, view="a")
    assert len(page.sent) == said
    assert not page.session.visible


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=6,
)
RIDS = st.sampled_from(["r1", "r2", "r3"])
GOOD = st.one_of(
    st.builds(
        lambda rid, slot, op: {"v": 1, "t": "req", "rid": rid, "view": "a", "slot": slot, "op": op},
        RIDS,
        st.sampled_from(["", "maps", "hover"]),
        st.sampled_from(["finish", "stream", "fail", "wait", "explode"]),
    ),
    st.builds(lambda rid: {"t": "cancel", "rid": rid}, RIDS),
    st.builds(
        lambda rid, seq, again: {"t": "ack", "rid": rid, "seq": seq, "again": again},
        RIDS,
        st.integers(-1, 15) | st.integers(),
        st.booleans(),
    ),
    st.builds(lambda view, see: {"t": "visible", "view": view, "visible": see}, RIDS, st.booleans()),
    st.just({"t": "hello", "v": 1, "view": "a"}),
)
ALMOST = st.builds(
    lambda message, change: message | change, GOOD, st.dictionaries(st.text(), JSON, max_size=2)
)
BROKEN = st.builds(
    lambda message, key, value: message | {key: value},
    GOOD,
    st.sampled_from(["t", "rid", "v", "view", "slot", "op", "p", "seq", "again", "visible"]),
    JSON,
)


def act(exchange):
    if exchange.request.op == "finish":
        exchange.finish({"a": np.zeros(3)}, {}, epoch=0)
    elif exchange.request.op == "stream":
        exchange.finish(BIG, {}, epoch=0)
    elif exchange.request.op == "fail":
        exchange.fail("model_error", "no")
    elif exchange.request.op == "explode":
        raise RuntimeError("boom")


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(GOOD, ALMOST, BROKEN, JSON), max_size=25))
def test_no_sequence_of_messages_raises_or_stops_the_next_good_one(messages):
    page = Page(act)
    for message in messages:
        page.session.receive(message, None)
        page.now += 0.5
        page.session.tick()
    for rid in list(page.session.open_requests):
        page.say("cancel", rid=rid)
    page.ask("good", op="finish")
    assert page.messages("good")[-1]["last"] is True
    rids = {m["rid"] for m in page.messages() if "rid" in m}
    for rid in rids:
        # a wrong rid is refused each time it comes; one that was started has exactly one end
        started = [m for m in page.messages(rid) if m["t"] == "chunk"]
        ends = {(m["t"], m.get("seq")) for m in page.terminals(rid) if m["t"] != "error"}
        assert len(ends) <= 1 or not started


def test_thousands_of_requests_leave_a_bounded_memory(page):
    for number in range(5000):
        page.ask(f"r{number}", slot="scrub").finish({}, {}, epoch=0)
        page.asked.clear()
    assert page.session.open_requests == []
    assert len(page.session._finished) == MAX_FINISHED
