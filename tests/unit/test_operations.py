"""Operations that stream: advanced while the page keeps up, ended when it does not want them any more."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

from nnviz_widget.engine.engine import Engine
from nnviz_widget.errors import InputError
from nnviz_widget.explorer.exploration import Exploration
from nnviz_widget.explorer.inputs import read_batch
from nnviz_widget.explorer.operations import Operations
from nnviz_widget.explorer.replies import Reply
from nnviz_widget.wire.exchange import WINDOW
from nnviz_widget.wire.session import Session

BIG = {"a": np.zeros((3 * WINDOW, 400 * 1024), np.uint8)}  # more than one window of chunks


class Bench:
    """Operations over a real engine, with a page that acknowledges when the test says so."""

    def __init__(self):
        model = nn.Linear(2, 2)
        self.exploration = Exploration(
            Engine(model), read_batch(model, torch.zeros(1, 2)), names=None, targets=None, denormalize=None
        )
        self.sent = []
        self.arrived = threading.Condition()
        self.host = {}
        self.session = Session(self.hear, self.start)
        self.operations = Operations(self.exploration, self.host)

    def start(self, exchange):
        self.operations.start(exchange)

    def hear(self, content, buffers):
        with self.arrived:
            self.sent.append(content)
            self.arrived.notify_all()

    def ask(self, operation, rid="r"):
        self.operations = Operations(self.exploration, {"stream": operation})
        self.session.receive({"v": 1, "t": "req", "rid": rid, "op": "stream"})

    def wait(self, wanted):
        with self.arrived:
            assert self.arrived.wait_for(lambda: any(wanted(m) for m in self.sent), timeout=60)

    def settle(self):
        """Wait until the engine has nothing left to do."""
        self.exploration.ask(lambda: None)


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.exploration.close()


def test_a_stream_sends_its_parts_and_ends_with_what_it_returns(bench):
    def stream(exploration, question):
        for step in range(3):
            yield Reply({"a": np.full(2, step)}, {"step": step})
        return Reply(meta={"steps": 3})

    bench.ask(stream)
    bench.wait(lambda m: m.get("last"))
    assert [m["meta"] for m in bench.sent] == [{"step": 0}, {"step": 1}, {"step": 2}, {"steps": 3}]
    assert [m["last"] for m in bench.sent] == [False, False, False, True]


def test_a_stream_rests_while_the_page_is_behind_and_the_engine_is_free_meanwhile(bench):
    made = []

    def stream(exploration, question):
        for step in range(2):
            made.append(step)
            yield Reply(BIG)
        return Reply()

    bench.ask(stream)
    bench.wait(lambda m: m.get("seq") == WINDOW - 1)
    bench.settle()
    assert made == [0], "the second part is not computed before the first has left"
    seen = 0
    while not any(m.get("last") for m in bench.sent):
        bench.wait(lambda m: m.get("seq") == seen)  # noqa: B023 - asked at once
        bench.session.receive({"t": "ack", "rid": "r", "seq": seen})
        seen += 1
    assert made == [0, 1]


def test_a_cancelled_stream_is_closed_wherever_it_rests(bench):
    closed = threading.Event()

    def stream(exploration, question):
        try:
            while True:
                yield Reply(BIG)
        finally:
            closed.set()

    bench.ask(stream)
    bench.wait(lambda m: m.get("seq") == WINDOW - 1)
    bench.settle()
    bench.session.receive({"t": "cancel", "rid": "r"})
    assert closed.wait(60)
    assert [m["t"] for m in bench.sent][-1] == "cancelled"


def test_a_stream_that_fails_on_the_way_ends_with_that_error(bench):
    def stream(exploration, question):
        yield Reply()
        raise InputError("no further", hint="go back")

    bench.ask(stream)
    bench.wait(lambda m: m["t"] == "error")
    assert bench.sent[-1] == {
        "t": "error",
        "rid": "r",
        "code": "bad_request",
        "message": "no further",
        "hint": "go back",
    }


def test_out_of_memory_is_said_as_such(bench):
    def hungry(exploration, question):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    bench.ask(hungry)
    bench.wait(lambda m: m.get("code") == "out_of_memory")
    assert "2.00 GiB" in bench.sent[-1]["message"]
