"""Every notebook runs from top to bottom in a fresh kernel, without an error and without a warning."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"
STUB = ROOT / "tests" / "torchvision_stub.py"

pytestmark = pytest.mark.kernel


def executed(path):
    """Run a notebook as JupyterLab would, in its own folder; a cell that raises fails the test."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        # torchvision next to a torch that its compiled operators do not fit: see the stub.
        extra_arguments=[f"--IPKernelApp.exec_files={STUB}"],
    )
    client.execute()
    return notebook


def outputs(notebook):
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            yield cell, output


def text(output):
    return json.dumps(output, default=str)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_without_error_or_warning(path, request, monkeypatch):
    if path != NOTEBOOKS[0]:  # that everything imports without a word is proved once
        for name, value in request.getfixturevalue("warm_kernels").items():
            monkeypatch.setenv(name, value)
    notebook = executed(path)
    for cell, output in outputs(notebook):
        assert output.output_type != "error", text(output)
        assert output.get("name") != "stderr", f"{cell.source}\n\nwrote to stderr:\n{output.get('text')}"
        assert "Warning" not in text(output.get("text", "")), output.text
        assert "There is no torchvision" not in text(output.get("text", "")), output.text
    if path.stem != "03_engine_without_widget":
        assert any(WIDGET in output.get("data", {}) for _, output in outputs(notebook))


def committed(path):
    """Return a notebook as it is kept; whoever ran `make demo` has outputs in the working copy, and may."""
    kept = subprocess.run(
        ["git", "show", f"HEAD:notebooks/{path.name}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return nbformat.reads(
        kept.stdout if kept.returncode == 0 else path.read_text(encoding="utf-8"), as_version=4
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_without_outputs_and_starts_with_a_title(path):
    notebook = committed(path)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_there_are_the_notebooks_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {path.stem for path in NOTEBOOKS} >= {
        "01_explore",
        "02_your_own_model",
        "03_engine_without_widget",
        "04_any_model",
    }
    for path in NOTEBOOKS:
        assert f"notebooks/{path.name}" in readme
