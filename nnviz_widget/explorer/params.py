"""Reading the parameters of an operation, which a page wrote and which may therefore be anything.

Each function returns a value of the promised type and range, or raises `InputError` with the name of the
parameter. What the values mean is the business of ``operations.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnviz_widget.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["choice", "integer", "integers", "name", "names"]

_MISSING = object()


def choice(params: Mapping[str, Any], key: str, allowed: Collection[str]) -> str:
    """Return one of a few texts."""
    value = params.get(key)
    if not isinstance(value, str) or value not in allowed:
        raise InputError(f"{key!r} must be one of {', '.join(map(repr, allowed))}.")
    return value


def integer(params: Mapping[str, Any], key: str, low: int, high: int, *, default: Any = _MISSING) -> int:
    """Return a whole number with ``low <= value < high``; `default` where it is missing or null."""
    value = params.get(key)
    if value is None and default is not _MISSING:
        return default  # type: ignore[no-any-return]
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{key!r} must be a whole number.")
    if not low <= value < high:
        raise InputError(f"{key!r} is {_short(value)}, expected {low} to {high - 1}.")
    return value


def integers(params: Mapping[str, Any], key: str, most: int) -> tuple[int, ...]:
    """Return one to `most` whole numbers from 0."""
    values = params.get(key)
    if not isinstance(values, list) or not 1 <= len(values) <= most:
        raise InputError(f"{key!r} must be a list of 1 to {most} whole numbers.")
    if any(
        isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31 for value in values
    ):
        raise InputError(f"{key!r} must hold whole numbers from 0.")
    return tuple(values)


def name(params: Mapping[str, Any], key: str) -> str:
    """Return a text of at most 1,000 characters."""
    value = params.get(key)
    if not isinstance(value, str) or len(value) > 1000:
        raise InputError(f"{key!r} must be a text.")
    return value


def names(params: Mapping[str, Any], key: str, most: int) -> list[str]:
    """Return at most `most` texts."""
    values = params.get(key)
    if not isinstance(values, list) or len(values) > most:
        raise InputError(f"{key!r} must be a list of at most {most} texts.")
    if any(not isinstance(value, str) or len(value) > 1000 for value in values):
        raise InputError(f"{key!r} must hold texts.")
    return list(values)


def _short(value: int) -> str:
    return str(value) if abs(value) < 2**63 else "a very large number"
