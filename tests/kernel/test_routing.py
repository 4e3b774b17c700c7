"""Clicks and cells on real kernels: with subshells a click is answered while a cell runs, elsewhere after it.

No clock is asked: a busy cell ends only when the test says so, so an answer before that came while it ran.
"""

from __future__ import annotations

import base64

import numpy as np
import pytest

from nnviz_widget.wire.arrays import unpack
from tests.kernel.conftest import custom, is_idle, is_state

pytestmark = pytest.mark.kernel

VALUES = {"node": "0", "sample": 0, "channel": 2}


def answered_while_busy(kernel, rid, cell, release):
    """Whether the answer came while the cell ran; lets the cell end either way."""
    if kernel.subshell is not None:
        answer = kernel.answer(rid)
        assert not any(is_idle(message, cell) for message in kernel.heard)
        release.touch()
    else:
        release.touch()
        answer = kernel.answer(rid)
        assert any(is_idle(message, cell) for message in kernel.heard), "answered without a subshell?"
    kernel.finish(cell)
    assert custom(answer)["t"] == "chunk", custom(answer)
    return answer


def test_a_click_is_answered_with_the_numbers_of_the_model(kernel):
    kernel.explore()
    answer = kernel.answer(kernel.click("values", VALUES))
    content = custom(answer)
    arrays = unpack([(content["arrays"], answer["buffers"])])
    expected = kernel.run("print(model[0](batch[:1])[0, 2].tolist())")
    np.testing.assert_allclose(arrays["values"], eval(expected), rtol=1e-6)
    kernel.run("w.close()")


@pytest.mark.parametrize(
    "before",
    ["", "w.select('0', channel=1)", "w.refresh()", "w.status = {'state': 'ready'}; w.send_state('status')"],
    ids=["plain", "trait set in the cell", "engine publishes from the cell", "state sent by hand"],
)
def test_a_click_during_a_cell(kernel, release, before):
    kernel.explore()
    kernel.answer(kernel.click("values", VALUES))
    cell = kernel.start(f"{before}\nprint('busy', flush=True)\nbusy_until({str(release)!r})")
    kernel.until(lambda m: m["msg_type"] == "stream" and "busy" in m["content"]["text"])
    rid = kernel.click("values", VALUES | {"node": "1"})
    answered_while_busy(kernel, rid, cell, release)
    kernel.run("w.close()")


def test_a_click_during_the_very_cell_that_made_the_explorer(kernel, release):
    cell = kernel.start(
        f"w = nnviz.explore(model, batch)\nprint(w.model_id, flush=True)\nbusy_until({str(release)!r})"
    )
    stream = kernel.until(lambda m: m["msg_type"] == "stream" and m["parent_header"].get("msg_id") == cell)
    kernel.comm = stream["content"]["text"].split()[0]
    kernel.open_page()
    rid = kernel.click("values", VALUES)
    answered_while_busy(kernel, rid, cell, release)
    kernel.run("w.close()")


def test_a_page_that_comes_back_is_heard(kernel, release):
    kernel.explore()
    kernel.answer(kernel.click("values", VALUES))
    kernel.close_page()
    kernel.open_page()
    cell = kernel.start(f"busy_until({str(release)!r})")
    answered_while_busy(kernel, kernel.click("values", VALUES), cell, release)
    kernel.run("w.close()")


def test_nonsense_from_the_page_stops_nothing_and_prints_nothing(kernel):
    kernel.explore()
    start = len(kernel.heard)
    for content in (
        None,
        3,
        "x",
        [],
        {},
        {"t": "req"},
        {"t": "req", "rid": "n1", "v": 1, "op": 5},
        {"t": ["ack"]},
    ):
        kernel.say(content)
    kernel.say({"t": "visible", "view": "a", "visible": True})
    kernel.answer(kernel.click("values", VALUES))
    said = [custom(message) for message in kernel.heard[start:] if custom(message)]
    assert next(message for message in said if message.get("rid") == "n1")["code"] == "bad_request"
    assert not [m for m in kernel.heard[start:] if m["msg_type"] in ("stream", "error", "display_data")]
    kernel.run("w.close()")


def test_replies_leave_nothing_behind_on_the_comm(kernel):
    kernel.explore()
    for _ in range(10):
        kernel.answer(kernel.click("values", VALUES))
    assert kernel.run("print(len(getattr(w.comm, '_reply_subshell_ids', {})))").split()[-1] == "0"
    kernel.run("w.close()")


def test_a_question_does_not_make_the_notebook_blink_and_is_still_known_to_be_dealt_with(kernel):
    kernel.explore()
    kernel.say({"v": 1, "t": "hello", "view": "a"})
    kernel.until(lambda m: custom(m).get("t") == "hello")
    start = len(kernel.heard)
    kernel.answer(kernel.click("values", VALUES))
    said = kernel.until(lambda m: is_state(m, "idle") and m in kernel.heard[start:])
    asked = said["parent_header"]["msg_id"]
    mine = [m for m in kernel.heard[start:] if m["parent_header"].get("msg_id") == asked]
    assert not any(is_state(message, "busy") for message in mine)
    # A cell is called busy as ever, and so is a change of a trait, which somebody may observe.
    cell = kernel.start("pass")
    kernel.finish(cell)
    assert any(is_state(m, "busy") and m["parent_header"]["msg_id"] == cell for m in kernel.heard[start:])
    changed = kernel.send({"method": "update", "state": {}, "buffer_paths": []})
    kernel.until(lambda m: is_idle(m, changed))
    assert any(is_state(m, "busy") and m["parent_header"]["msg_id"] == changed for m in kernel.heard[start:])
    kernel.run("w.close()")


def test_the_cell_shows_the_widget_and_a_still_picture_that_the_page_renews(kernel):
    cell = kernel.start("w = nnviz.explore(model, batch)\nprint(w.model_id)\nw")
    kernel.comm = kernel.finish(cell).split()[0]
    shown = [
        m["content"]
        for m in kernel.heard
        if m["msg_type"] == "display_data" and m["parent_header"].get("msg_id") == cell
    ]
    assert shown[0]["data"]["application/vnd.jupyter.widget-view+json"]["model_id"] == kernel.comm
    assert "nnviz-still" in shown[1]["data"]["text/html"]
    kernel.open_page()
    png = b"\x89PNG\r\n\x1a\n" + bytes(100)
    assert custom(kernel.answer(kernel.click("still", buffers=[png])))["t"] == "chunk"
    update = kernel.until(lambda m: m["msg_type"] == "update_display_data")["content"]
    assert update["transient"]["display_id"] == shown[1]["transient"]["display_id"]
    assert base64.b64encode(png).decode() in update["data"]["text/html"]
    assert custom(kernel.answer(kernel.click("still", buffers=[b"<svg>"])))["code"] == "bad_request"
    kernel.run("w.close()")


def test_running_a_cell_again_closes_what_it_made_before(kernel):
    kernel.run("kept = []")
    code = "w = nnviz.explore(model, batch); v = nnviz.explore(model, batch); kept += [w, v]"
    kernel.run(code, cell="one")
    kernel.run("other = nnviz.explore(model, batch)", cell="two")
    kernel.run(code, cell="one")
    closed = kernel.run("print([e.comm is None for e in kept], other.comm is None)").strip()
    assert closed == "[True, True, False, False] False"
    kernel.run("[e.close() for e in kept]; other.close()")
