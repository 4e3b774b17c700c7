"""Arrays of numbers <-> descriptions and binary buffers, in one message or in chunks.

Constraints:

- One message may hold up to 1 MiB. Measured in JupyterLab, 800 KiB take 17 ms as one message and 24 ms as
  four: a small frame that follows another waits for the acknowledgement of the first.
- Above that, chunks of at most 512 KiB, because one socket carries everything that the notebook says.
  Measured, 4 MiB take 120 ms in these and 235 ms in chunks of 256 KiB.
- An array is split along its first axis only, so that a page can draw what it has; small arrays travel whole
  in the first chunk, because they say what the numbers of the big one mean.
- Numbers are little-endian; 64-bit ones are narrowed, because no browser wants them.

Only numpy here: no torch, no messages, no flow control. The page's side is ``js/src/wire/codec.ts``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from nnviz_widget.wire.messages import Buffer

__all__ = ["CHUNK_BYTES", "ONE_MESSAGE_BYTES", "Packed", "pack", "unpack"]

ONE_MESSAGE_BYTES = 1024 * 1024
CHUNK_BYTES = 512 * 1024

_TYPES: dict[str, np.dtype[Any]] = {
    "u1": np.dtype("u1"),
    "i1": np.dtype("i1"),
    "i4": np.dtype("<i4"),
    "f2": np.dtype("<f2"),
    "f4": np.dtype("<f4"),
}


@dataclass
class Packed:
    """What one message carries: descriptions and, in the same order, the bytes."""

    arrays: list[dict[str, Any]] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    nbytes: int = 0

    def add(self, name: str, array: NDArray[Any], rows: tuple[int, int] | None = None) -> None:
        """Append an array of a wire type, or its rows ``[start, stop)``."""
        descriptor: dict[str, Any] = {"name": name, "dtype": _name_of(array.dtype)}
        if rows is None:
            part = array
            descriptor["shape"] = list(array.shape)
        else:
            part = array[rows[0] : rows[1]]
            descriptor.update(shape=list(part.shape), start=rows[0], total=len(array))
        self.arrays.append(descriptor)
        # A memoryview of an array without elements cannot be cast to bytes.
        self.buffers.append(part.data.cast("B") if part.size else b"")
        self.nbytes += part.nbytes


def pack(
    arrays: Mapping[str, NDArray[Any]],
    *,
    one_message: int = ONE_MESSAGE_BYTES,
    chunk: int = CHUNK_BYTES,
) -> Iterator[Packed]:
    """Split arrays into what single messages carry.

    Parameters
    ----------
    arrays : mapping of str to array
        Real numbers or booleans. Float64 becomes float32, booleans u1, other integers int32 where they fit.
    one_message : int
        Up to so many bytes go into one message.
    chunk : int
        Otherwise the bytes of one part; a single row may exceed it.

    Yields
    ------
    packed : Packed
        At least one. The memory of the arrays is shared, not copied, where their type allows: do not write to
        them any more.

    Raises
    ------
    TypeError
        For arrays that are not numbers.
    OverflowError
        For integers that do not fit 32 bits.
    """
    ready = {name: _as_wire(name, array) for name, array in arrays.items()}
    total = sum(array.nbytes for array in ready.values())
    current = Packed()
    if total <= one_message:
        for name, array in ready.items():
            current.add(name, array)
        yield current
        return
    for name, array in ready.items():
        if array.nbytes <= chunk // 8 or array.ndim == 0 or len(array) < 2:
            current.add(name, array)
    for name, array in ready.items():
        if array.nbytes <= chunk // 8 or array.ndim == 0 or len(array) < 2:
            continue
        row = max(1, array.nbytes // len(array))
        start = 0
        while start < len(array):
            room = (chunk - current.nbytes) // row
            if room < 1 and current.arrays:
                yield current
                current = Packed()
                continue
            stop = min(len(array), start + max(1, room))
            current.add(name, array, (start, stop))
            start = stop
    if current.arrays:
        yield current


def unpack(parts: Sequence[tuple[Sequence[Mapping[str, Any]], Sequence[Buffer]]]) -> dict[str, NDArray[Any]]:
    """Put the arrays of the chunks of one reply together; the inverse of `pack`, for tests and other hosts.

    Parameters
    ----------
    parts : sequence of (descriptors, buffers)
        In the order in which they were sent.

    Returns
    -------
    arrays : dict of str to array
        f2 stays half precision.

    Raises
    ------
    ValueError
        When a buffer does not fit its description or rows are missing.
    """
    found: dict[str, list[NDArray[Any]]] = {}
    totals: dict[str, int | None] = {}
    for descriptors, buffers in parts:
        for descriptor, buffer in zip(descriptors, buffers, strict=True):
            name = descriptor["name"]
            dtype = _TYPES.get(descriptor["dtype"])
            if dtype is None:
                raise ValueError(f"array {name!r}: unknown type {descriptor['dtype']!r}")
            array = np.frombuffer(buffer, dtype=dtype).reshape(descriptor["shape"])
            have = sum(len(part) for part in found.get(name, [])) if array.ndim else 0
            if descriptor.get("start", 0) != have:
                raise ValueError(f"array {name!r}: rows from {descriptor.get('start', 0)}, expected {have}")
            found.setdefault(name, []).append(array)
            totals[name] = descriptor.get("total")
    whole = {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in found.items()}
    for name, array in whole.items():
        total = totals[name]
        if total is not None and len(array) != total:
            raise ValueError(f"array {name!r} ended after {len(array)} of {total} rows")
    return whole


def _name_of(dtype: np.dtype[Any]) -> str:
    return f"{dtype.kind}{dtype.itemsize}"


def _as_wire(name: str, array: NDArray[Any]) -> NDArray[Any]:
    array = np.asarray(array)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f":
        target = "f2" if size == 2 else "f4"
    elif kind == "b" or (kind == "u" and size == 1):
        target = "u1"
    elif kind == "i" and size == 1:
        target = "i1"
    elif kind in "iu":
        target = "i4"
        if array.size and (array.max() > 2**31 - 1 or array.min() < -(2**31)):
            raise OverflowError(f"array {name!r} has integers that do not fit 32 bits")
    else:
        raise TypeError(f"array {name!r} of type {array.dtype} has no place on the wire")
    return np.ascontiguousarray(array, dtype=_TYPES[target]).reshape(array.shape)
