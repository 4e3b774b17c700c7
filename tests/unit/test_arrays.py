"""Arrays <-> descriptors and buffers: exact, split only where it helps, and equal to the page's reading."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnviz_widget.wire.arrays import CHUNK_BYTES, ONE_MESSAGE_BYTES, pack, unpack

FIXTURES = Path(__file__).parent.parent / "fixtures" / "wire"
WIRE_TYPES = ["u1", "i1", "<i4", "<f2", "<f4"]


def round_trip(arrays, **limits):
    parts = list(pack(arrays, **limits))
    return parts, unpack([(part.arrays, part.buffers) for part in parts])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_arrays_come_back_bit_for_bit_however_they_are_split(data):
    names = data.draw(st.lists(st.sampled_from("abcd"), unique=True, max_size=4))
    arrays = {
        name: data.draw(
            hnp.arrays(data.draw(st.sampled_from(WIRE_TYPES)), hnp.array_shapes(min_dims=0, max_side=9))
        )
        for name in names
    }
    limit = data.draw(st.integers(0, 200))
    parts, back = round_trip(arrays, one_message=limit, chunk=data.draw(st.integers(16, 64)))
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()
    assert len(parts) == 1 or sum(part.nbytes for part in parts) > limit


def test_a_reply_that_fits_goes_in_one_message():
    parts, _ = round_trip({"tiles": np.zeros((256, 64, 64), np.uint8)})
    assert len(parts) == 1
    assert parts[0].nbytes == ONE_MESSAGE_BYTES
    assert "start" not in parts[0].arrays[0]


def test_a_longer_reply_goes_in_chunks_with_the_small_arrays_first():
    tiles = np.arange(512 * 64 * 64, dtype=np.int64).astype(np.uint8).reshape(512, 64, 64)
    low = np.linspace(-1, 0, 512)
    parts, back = round_trip({"tiles": tiles, "low": low})
    assert len(parts) > 2
    assert all(part.nbytes <= CHUNK_BYTES for part in parts)
    assert [array["name"] for array in parts[0].arrays] == ["low", "tiles"]
    rows = [part.arrays[-1] for part in parts]
    assert [row["total"] for row in rows] == [512] * len(parts)
    assert [row["start"] for row in rows] == list(np.cumsum([0] + [row["shape"][0] for row in rows])[:-1])
    np.testing.assert_array_equal(back["tiles"], tiles)
    np.testing.assert_array_equal(back["low"], low.astype(np.float32))


def test_a_row_that_is_larger_than_a_chunk_still_goes():
    wide = np.random.default_rng(0).integers(0, 255, (3, 2 * CHUNK_BYTES), dtype=np.uint8)
    parts, back = round_trip({"wide": wide})
    assert len(parts) == 3
    np.testing.assert_array_equal(back["wide"], wide)


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (np.array([True, False]), "u1"),
        (np.array([1.5, np.nan]), "f4"),
        (np.array([1, 2], dtype=np.uint16), "i4"),
        (np.array([1, 2], dtype=">i4"), "i4"),
        (np.array([1, 2], dtype=">f4"), "f4"),
        (np.arange(12.0).reshape(3, 4).T, "f4"),
    ],
)
def test_other_types_are_narrowed_without_changing_the_numbers(given, dtype):
    parts, back = round_trip({"a": given})
    assert parts[0].arrays[0]["dtype"] == dtype
    np.testing.assert_array_equal(back["a"], given)


def test_arrays_share_their_memory_with_the_message():
    array = np.zeros(1000, np.uint8)
    buffer = next(pack({"a": array})).buffers[0]
    array[0] = 7
    assert bytes(buffer[:1]) == b"\x07"


def test_what_is_not_a_number_or_does_not_fit_is_refused():
    with pytest.raises(OverflowError, match="'a'"):
        list(pack({"a": np.array([2**40])}))
    with pytest.raises(TypeError, match="'a'"):
        list(pack({"a": np.array(["x"])}))
    with pytest.raises(TypeError, match="complex"):
        list(pack({"a": np.array([1j])}))


def test_parts_that_do_not_fit_together_are_refused():
    descriptor = {"name": "a", "dtype": "u1", "shape": [2], "start": 0, "total": 4}
    with pytest.raises(ValueError, match="2 of 4"):
        unpack([([descriptor], [b"ab"])])
    with pytest.raises(ValueError, match="expected 2"):
        unpack([([descriptor], [b"ab"]), ([descriptor], [b"ab"])])
    with pytest.raises(ValueError, match="unknown type"):
        unpack([([descriptor | {"dtype": "c8"}], [b"ab"])])


@pytest.mark.parametrize("name", ["every_type", "split"])
def test_the_golden_messages_are_written_and_read_as_recorded(name):
    """The page's tests read the same files; a change here is a change of the protocol."""
    golden = json.loads((FIXTURES / f"{name}.json").read_text())
    binary = (FIXTURES / f"{name}.bin").read_bytes()
    arrays = {
        entry["name"]: np.array(
            [float(value) for value in entry["values"]], dtype=np.dtype(f"<{entry['dtype']}")
        ).reshape(entry["shape"])
        for entry in golden["arrays"]
    }
    parts = list(pack(arrays, **golden["limits"]))
    assert [part.arrays for part in parts] == [message["arrays"] for message in golden["messages"]]
    assert b"".join(bytes(buffer) for part in parts for buffer in part.buffers) == binary
    offset, read = 0, []
    for message in golden["messages"]:
        buffers = []
        for size in message["sizes"]:
            buffers.append(binary[offset : offset + size])
            offset += size
        read.append((message["arrays"], buffers))
    for key, array in unpack(read).items():
        np.testing.assert_array_equal(array, arrays[key])
