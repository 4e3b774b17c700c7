"""What a benchmark found is kept from its first case on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.benchmarks import measure

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_benchmark_that_is_cut_leaves_what_it_found_beside_the_last_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    whole, partial = tmp_path / "trial.json", tmp_path / "trial.partial.json"
    whole.write_text("of an earlier run")
    report = measure.Report("trial")
    report.add(measure.Case("a", "ours", "theirs", {"ours": [0.1, 0.2], "theirs": [0.3, 0.8]}, inverse=True))
    report.figure("b", [0.004])
    found = json.loads(partial.read_text())
    assert [case["ratio"]["median"] for case in found["cases"]] == [3.5]
    assert found["figures"]["b"]["median"] == 4
    assert whole.read_text() == "of an earlier run"
    assert report.write(tmp_path) == whole
    assert json.loads(whole.read_text()) == found
    assert not partial.exists()
