"""The wheel holds all that the package needs, and runs from an empty environment without Node."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import textwrap
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUNDLE_LIMIT = 350_000
"""Bytes of script and style together: they travel into the page with every explorer."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel as `make wheel` does."""
    assert (ROOT / "nnviz_widget/static/index.js").exists(), "the front end is not built: make build"
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", target, "."], cwd=ROOT, check=True)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def empty_environment(wheel, tmp_path_factory):
    """Return the Python of an environment with the wheel; torch and the rest are borrowed from this one."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*install, wheel], check=True)
    (site_packages,) = home.glob("lib/python*/site-packages")
    # A path file adds a directory without reading the path files inside it: the editable install of this
    # repository stays unseen.
    (site_packages / "outer.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def run(python, code, tmp_path):
    """Run code in the environment, with a PATH that has no Node and nothing of the repository in sight."""
    environment = {**os.environ, "PATH": str(python.parent), "PYTHONSAFEPATH": "1"}
    environment.pop("PYTHONPATH", None)
    result = subprocess.run(
        [python, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_wheel_holds_the_front_end_the_demo_networks_and_the_licence(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "nnviz_widget/static/index.js",
        "nnviz_widget/static/index.css",
        "nnviz_widget/demo/weights/shapes.safetensors",
        "nnviz_widget/demo/weights/digits.safetensors",
        "nnviz_widget/demo/weights/digits_samples.safetensors",
        "nnviz_widget/py.typed",
    } <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_wheel_holds_every_python_module_and_nothing_beside_the_package(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "nnviz_widget").rglob("*.py")}
    assert modules <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"nnviz_widget"}


def test_bundle_is_at_most_350_kilobytes():
    static = ROOT / "nnviz_widget" / "static"
    sizes = {name: (static / name).stat().st_size for name in ("index.js", "index.css")}
    assert sum(sizes.values()) <= BUNDLE_LIMIT, sizes


def test_installed_wheel_shows_an_explorer_where_there_is_no_node(empty_environment, tmp_path):
    said = run(
        empty_environment,
        """
        import shutil
        import sys
        from pathlib import Path

        assert shutil.which("node") is None, "this test must not see Node"
        import nnviz_widget as nnviz

        assert Path(nnviz.__file__).is_relative_to(sys.prefix), nnviz.__file__
        demo = nnviz.demo.shapes()
        w = nnviz.explore(demo.model, demo.inputs, class_names=demo.class_names, target=demo.targets)
        bundle = Path(nnviz.__file__).parent / "static" / "index.js"
        assert w._esm == bundle.read_text(encoding="utf-8")
        assert w._css
        mimetypes, _ = w._repr_mimebundle_()
        w.close()
        print(*sorted(mimetypes))
        """,
        tmp_path,
    )
    assert "application/vnd.jupyter.widget-view+json" in said


def test_importing_the_installed_package_loads_neither_torch_nor_ipywidgets(empty_environment, tmp_path):
    said = run(
        empty_environment,
        "import sys, nnviz_widget; print({'torch', 'ipywidgets', 'anywidget', 'bqplot'} & set(sys.modules))",
        tmp_path,
    )
    assert said.strip() == "set()"
