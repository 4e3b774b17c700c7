"""The metrics by name, with their options; and what is said about options that are none.

A metric is a function, or a generator function where it runs the model. It takes a `Case` and keyword
options, yields how much of its work is done (from 0 to 1) after each piece of it, and returns a `Reading`.
The first line of its docstring is what people read about it.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nnviz_widget.engine.metrics.case import Reading
from nnviz_widget.errors import InputError, UnknownNameError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nnviz_widget.engine.metrics.case import Case

__all__ = ["MetricInfo", "known_metrics", "metric", "metrics_asked"]

#: Imported when metrics are first asked for, in the order in which people meet them.
_FAMILIES = ("curves", "road", "localisation", "fidelity", "stability", "randomisation", "agreement")
_BETTER = {"higher": "↑", "lower": "↓", "": ""}

Work = Generator[float, None, Reading]


@dataclass(frozen=True)
class MetricInfo:
    """What is known of a metric without running it.

    Attributes
    ----------
    name : str
        As `Engine.evaluate` takes it.
    description : str
        One line.
    better : str
        ``"higher"``, ``"lower"``, or nothing where neither is.
    values : str
        The range, in words.
    options : mapping of str to object
        Each option and its default.
    paper : str
        Where it comes from.
    needs_mask : bool
        Whether it compares with the place of the object.
    """

    name: str
    description: str
    better: str
    values: str
    options: Mapping[str, Any]
    paper: str
    needs_mask: bool
    run: Callable[..., Any]

    def __str__(self) -> str:
        return self.description

    @property
    def heading(self) -> str:
        """Its name with an arrow that says which way is better."""
        return f"{self.name} {_BETTER[self.better]}".strip()

    def checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return all options with their defaults; raise `InputError` for one that there is not."""
        for name in options:
            if name not in self.options:
                takes = ", ".join(self.options) or "no options"
                raise InputError(
                    f"The metric {self.name!r} has no option {name!r}.{nearest(name, self.options)}",
                    hint=f"It takes {takes}.",
                )
        return {**self.options, **options}

    def work(self, case: Case, options: Mapping[str, Any]) -> Work:
        """Compute it; yields how much is done, returns the `Reading`."""
        found = self.run(case, **options)
        if isinstance(found, Generator):
            found = yield from found
        assert isinstance(found, Reading)
        return found


_metrics: dict[str, MetricInfo] = {}


def metric(
    name: str, *, better: str, values: str, paper: str = "", needs_mask: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a metric. Its options are its keyword-only parameters."""

    def register(run: Callable[..., Any]) -> Callable[..., Any]:
        options = {
            parameter.name: parameter.default
            for parameter in inspect.signature(run).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
        line = (inspect.getdoc(run) or name).splitlines()[0]
        _metrics[name] = MetricInfo(name, line, better, values, options, paper, needs_mask, run)
        return run

    return register


def known_metrics() -> dict[str, MetricInfo]:
    """Return every metric by its name."""
    for family in _FAMILIES:
        import_module(f"nnviz_widget.engine.metrics.{family}")
    return dict(_metrics)


def metrics_asked(given: Any, *, masked: bool, methods: int) -> list[tuple[MetricInfo, dict[str, Any]]]:
    """Return the metrics that a user names, with all their options.

    Parameters
    ----------
    given : str, list, dict or None
        One name, several, names with ``(name, options)`` among them, or a dict from names to options. None
        takes deletion and insertion, the three of localisation where there is a mask, and the agreement where
        there are several methods.
    masked : bool
        Whether there is a mask.
    methods : int
        How many methods are compared.
    """
    known = known_metrics()
    if given is None:
        given = ["deletion", "insertion"]
        given += [info.name for info in known.values() if info.needs_mask and masked]
        given += ["agreement"] if methods > 1 else []
    pairs: list[Any] = [given] if isinstance(given, str) else list(given)
    if isinstance(given, dict):
        pairs = list(given.items())
    asked: dict[str, tuple[MetricInfo, dict[str, Any]]] = {}
    for pair in pairs:
        name, options = pair if isinstance(pair, tuple) and len(pair) == 2 else (pair, {})
        if not isinstance(name, str) or name not in known:
            raise UnknownNameError(
                f"There is no metric {name!r}.{nearest(str(name), known)}",
                hint="engine.metrics() lists all of them.",
            )
        if known[name].needs_mask and not masked:
            raise InputError(
                f"The metric {name!r} compares the map with the place of the object, and there is no mask.",
                hint="Pass mask=, true where the object is.",
            )
        asked[name] = (known[name], known[name].checked(options or {}))
    if not asked:
        raise InputError("There is no metric to compute.", hint="engine.metrics() lists all of them.")
    return list(asked.values())
