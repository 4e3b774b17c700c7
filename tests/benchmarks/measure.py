"""Interleaved timing, its statistics, its table and its JSON. Knows nothing of what is measured.

A contestant is a callable. It is timed by the wall clock, unless it returns a float, which then is its own
measure in seconds (a browser's clock, a device event). All contestants of a case run once in each round, in
an order that rotates from round to round, so that a slow spell of the machine hits them all; ratios are
taken within a round, never between medians of different minutes.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RESULTS = Path(__file__).parent / "results"


@dataclass
class Case:
    """One comparison: `subject` against `peer`, both in seconds, paired by round.

    `aim` is what the project asks of the median ratio, as text; nothing fails on it.
    """

    name: str
    subject: str
    peer: str
    times: dict[str, list[float]]
    aim: str = ""
    inverse: bool = False
    notes: dict[str, Any] = field(default_factory=dict)

    def ratios(self) -> list[float]:
        """Return subject / peer of each round (peer / subject when `inverse`: 'times faster')."""
        pairs = zip(self.times[self.subject], self.times[self.peer], strict=True)
        return [peer / subject if self.inverse else subject / peer for subject, peer in pairs]

    def to_dict(self) -> dict[str, Any]:
        """Return what goes into the JSON."""
        return {
            "case": self.name,
            "subject": self.subject,
            "peer": self.peer,
            "ratio_is": f"{self.peer} / {self.subject}" if self.inverse else f"{self.subject} / {self.peer}",
            "aim": self.aim,
            "ratio": spread(self.ratios()),
            "milliseconds": {name: spread(times, scale=1000) for name, times in self.times.items()},
            **({"notes": self.notes} if self.notes else {}),
        }


def spread(values: Sequence[float], *, scale: float = 1.0) -> dict[str, float]:
    """Return min, median, 95th percentile, max and number of the values, times `scale`."""
    ordered = sorted(value * scale for value in values)
    last = len(ordered) - 1
    return {
        "min": round(ordered[0], 4),
        "median": round(statistics.median(ordered), 4),
        "p95": round(ordered[min(last, round(0.95 * last))], 4),
        "max": round(ordered[-1], 4),
        "n": len(ordered),
    }


def interleave(
    contestants: dict[str, Callable[[], float | None]], *, rounds: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Run every contestant once a round and return their times in seconds, round by round."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(-warmup, rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            own = contestants[name]()
            elapsed = time.perf_counter() - start
            if number >= 0:
                times[name].append(elapsed if own is None else own)
    return times


def machine() -> dict[str, Any]:
    """Describe the machine as far as it matters to a time: no names, no addresses."""
    import os

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = (
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        )
        model = next(lines, model)
    described: dict[str, Any] = {
        "processor": model,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }
    try:
        import torch
    except ImportError:
        return described
    described |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        described["device"] = torch.cuda.get_device_name()
    return described


@dataclass
class Report:
    """What one benchmark found. Each line is printed at once; `write` keeps the JSON.

    What is there so far stands in `<benchmark>.partial.json`, for a benchmark that is cut short.
    """

    benchmark: str
    cases: list[Case] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, case: Case) -> None:
        """Keep a case and print its line at once."""
        self.cases.append(case)
        ratio = spread(case.ratios())
        subject, peer = (spread(case.times[name], scale=1000)["median"] for name in (case.subject, case.peer))
        text = " ".join(f"{ratio[key]:7.2f}" for key in ("min", "median", "max"))
        print(
            f"  {case.name:<44} {case.subject} {subject:.1f} ms, {case.peer} {peer:.1f} ms\n"
            f"  {'':<44} x {text}   (min median max of {ratio['n']}; aim {case.aim or '-'})",
            flush=True,
        )
        self._save(self._partial)

    def figure(self, name: str, values: Sequence[float], *, aim: str = "", scale: float = 1000) -> None:
        """Keep a figure that has no peer (by default seconds in, milliseconds out)."""
        summary = spread(values, scale=scale)
        self.figures[name] = {**summary, "aim": aim}
        print(
            f"  {name:<44} min {summary['min']:.1f}  median {summary['median']:.1f}  "
            f"p95 {summary['p95']:.1f}  max {summary['max']:.1f}   (aim {aim or '-'})",
            flush=True,
        )
        self._save(self._partial)

    def write(self, folder: Path = RESULTS) -> Path:
        """Write `<benchmark>.json` and return where."""
        path = folder / f"{self.benchmark}.json"
        self._save(path)
        self.discard()
        return path

    def discard(self) -> None:
        """Keep nothing."""
        self._partial.unlink(missing_ok=True)

    @property
    def _partial(self) -> Path:
        return RESULTS / f"{self.benchmark}.partial.json"

    def _save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "benchmark": self.benchmark,
            "machine": machine(),
            "cases": [case.to_dict() for case in self.cases],
            "figures": self.figures,
        }
        path.write_text(json.dumps(content, indent=1) + "\n")
