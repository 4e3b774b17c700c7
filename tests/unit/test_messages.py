"""What a page may say: everything else becomes an `Invalid` and never an exception."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnviz_widget.wire import messages
from nnviz_widget.wire.messages import Ack, Cancel, Hello, Invalid, Request, Visible, json_safe, parse

FIXTURES = Path(__file__).parent.parent / "fixtures" / "wire"
REQUEST = {"v": 1, "t": "req", "rid": "r1", "view": "v", "slot": "maps", "op": "maps", "p": {"node": "conv"}}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


def test_messages_that_the_page_sends_are_understood():
    for case in json.loads((FIXTURES / "page.json").read_text()):
        assert type(parse(case["message"])).__name__ == case["kind"], case


def test_each_kind_keeps_its_fields():
    assert parse(REQUEST, [b"png"]) == Request("r1", "v", "maps", "maps", {"node": "conv"}, (b"png",))
    assert parse({"t": "cancel", "rid": "r1"}) == Cancel("r1")
    assert parse({"t": "ack", "rid": "r1", "seq": 3}) == Ack("r1", 3)
    assert parse({"t": "ack", "rid": "r1", "seq": -1, "again": True}) == Ack("r1", -1, again=True)
    assert parse({"t": "hello", "v": 7, "view": "v"}) == Hello("v", 7)
    assert parse({"t": "visible", "view": "v", "visible": False}) == Visible("v", visible=False)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"v": 2}, "unsupported"),
        ({"v": True}, "unsupported"),
        ({"v": None}, "unsupported"),
        ({"v": 10**400}, "unsupported"),
        ({"t": "shout"}, "unsupported"),
        ({"t": ["req"]}, "unsupported"),
        ({"op": ""}, "bad_request"),
        ({"op": "x" * 65}, "bad_request"),
        ({"op": 3}, "bad_request"),
        ({"view": None}, "bad_request"),
        ({"slot": "s" * 129}, "bad_request"),
        ({"p": [1]}, "bad_request"),
        ({"p": {"a": list(range(30_000))}}, "bad_request"),
        ({"p": {"a": "x" * 300_000}}, "bad_request"),
    ],
)
def test_a_request_with_a_wrong_field_is_refused_by_its_id(change, code):
    refused = parse(REQUEST | change)
    assert isinstance(refused, Invalid)
    assert (refused.rid, refused.code) == ("r1", code)
    assert len(refused.message) < 300


@pytest.mark.parametrize("rid", [None, "", "x" * 65, 3, ["r"]])
def test_a_request_without_an_id_can_not_be_answered(rid):
    refused = parse(REQUEST | {"rid": rid})
    assert isinstance(refused, Invalid)
    assert refused.rid is None


def test_depth_does_not_cost_the_stack():
    nested: object = 1
    for _ in range(100_000):
        nested = [nested]
    refused = parse(REQUEST | {"p": {"a": nested}})
    assert isinstance(refused, Invalid)
    while isinstance(nested, list):  # freed by hand: the interpreter itself would recurse
        nested = nested.pop()


@pytest.mark.parametrize("buffers", ["text", [1], [b""] * 5, [bytes(messages.MAX_BUFFER_BYTES + 1)], {}])
def test_buffers_of_the_wrong_kind_number_or_size_are_refused(buffers):
    assert isinstance(parse(REQUEST, buffers), Invalid)


@settings(max_examples=500, deadline=None)
@given(content=JSON, buffers=JSON)
def test_parse_never_raises_on_any_json(content, buffers):
    parse(content, buffers)


@settings(max_examples=500, deadline=None)
@given(
    content=st.fixed_dictionaries(
        {"t": st.sampled_from(["req", "cancel", "ack", "hello", "visible"]) | JSON},
        optional=dict.fromkeys(("v", "rid", "view", "slot", "op", "p", "seq", "again", "visible"), JSON),
    )
)
def test_parse_never_raises_on_what_is_almost_a_message(content):
    parse(content)


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_what_is_made_safe_survives_strict_json(value):
    text = json.dumps(json_safe(value), allow_nan=False, ensure_ascii=False).encode("utf-8")
    json.loads(text)


def test_safe_values_are_plain_python():
    given = {"a": np.float32(0.5), 3: np.arange(2), "nan": float("nan"), "t": (1, {2}), "s": "\ud800<b>"}
    assert json_safe(given) == {"a": 0.5, "3": [0, 1], "nan": None, "t": [1, [2]], "s": "?<b>"}
