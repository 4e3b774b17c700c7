"""Make ``.venv`` where there is none and install the package into it, editable, with the tested versions.

Standard library only: this runs on the machine's own Python before anything is installed. The argument is one
of the extras in ``pyproject.toml``. torch comes as pip finds it; where a CPU build of the tested version lies
at hand (``PIP_FIND_LINKS``, ``PIP_EXTRA_INDEX_URL``), pip prefers it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"


def has_pip() -> bool:
    """Return whether the environment is there and was not left half made."""
    if not PYTHON.exists():
        return False
    return (
        subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    )


def main(extra: str) -> None:
    if sys.version_info < (3, 10):  # noqa: UP036 - it runs before pip could refuse this Python
        sys.exit(
            f"Python 3.10 or newer is needed; {sys.executable} is {sys.version.split()[0]}. "
            "Name another one: make PYTHON=python3.12 ..."
        )
    if not has_pip():
        print(f"Making .venv with Python {sys.version.split()[0]}", flush=True)
        try:
            venv.create(VENV, with_pip=True)
        except subprocess.CalledProcessError:
            shutil.rmtree(VENV, ignore_errors=True)
            sys.exit(
                "This Python cannot make virtual environments (Debian and Ubuntu: apt install python3-venv)."
            )
    print(f"Installing nnviz_widget[{extra}]; the first time takes some minutes", flush=True)
    command = [PYTHON, "-m", "pip", "install", "--quiet", "-c", "constraints.txt", "-e", f".[{extra}]"]
    sys.exit(subprocess.run(command, cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main(*sys.argv[1:])
