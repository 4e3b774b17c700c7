"""OpenMP's threads are given back by whoever is done; the operating system counts them."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")

COUNT = """
    import os, time
    import torch
    from torch import nn
    from nnviz_widget import Engine, explore
    from nnviz_widget.engine import jobs

    torch.set_num_threads(4)
    model, x = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU()).eval(), torch.randn(1, 3, 256, 256)

    def threads():
        return len(os.listdir("/proc/self/task"))

    def compute():
        with torch.no_grad():
            model(x)

    def until(count):
        soon(lambda: threads() == count)
        return threads()

    def soon(true):
        end = time.monotonic() + 20  # threads end when the system has the time
        while not true() and time.monotonic() < end:
            time.sleep(0.01)

    alone = threads()
    compute()
    assert threads() == alone + 3, "a team of four"
"""


def counted(code: str) -> None:
    script = textwrap.dedent(COUNT) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_where_calls_take_long_neither_who_asked_nor_the_engine_keeps_a_team() -> None:
    counted("""
        jobs._LONG_SECONDS = 0.0  # every call is long
        with Engine(model) as engine:
            engine.trace(x)  # what one took, the next is expected to take
            engine.trace(x)
            assert until(alone + 1) == alone + 1, "the engine's thread, and no team"
            assert torch.get_num_threads() == 4
            compute()
            assert threads() == alone + 1 + 3
    """)


def test_around_a_short_call_who_asked_keeps_the_team() -> None:
    counted("""
        jobs._LONG_SECONDS = 60.0  # none is, on the slowest machine
        with Engine(model) as engine:
            for _ in range(3):
                engine.trace(x)
            assert until(alone + 3 + 1) == alone + 3 + 1
    """)


def test_an_engine_that_rests_after_what_nobody_waited_for_has_no_team() -> None:
    counted("""
        w = explore(model, x)
        soon(lambda: w.status["state"] == "ready")
        rest = until(alone + 3 + 1)
        assert rest == alone + 3 + 1, f"{rest}: the engine's thread beside the team of who computed before"
        w.close()
    """)
