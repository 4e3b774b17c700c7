"""Which function takes which operation apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from nnviz_widget.engine.arithmetic.result import Arithmetic
    from nnviz_widget.engine.arithmetic.values import Case

__all__ = ["KNOWN", "explains"]

Explain: TypeAlias = "Callable[[Case], Arithmetic]"

#: By the user's word for the operation (`Op.name`).
KNOWN: dict[str, Explain] = {}


def explains(names: str) -> Callable[[Explain], Explain]:
    """Enter a function for some operations."""

    def enter(function: Explain) -> Explain:
        KNOWN.update(dict.fromkeys(names.split(), function))
        return function

    return enter
