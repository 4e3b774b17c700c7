"""An environment of its own for peers that the product is measured beside; never that of the product."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["install", "packages", "python"]


def install(folder: Path, requirements: Path) -> str:
    """Make the environment of some peers where it is missing; return why that is impossible."""
    stamp, wanted = folder / "installed.txt", requirements.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return ""
    venv.create(folder, with_pip=True)
    # What is installed for the product need not be installed again: torch among it.
    (packages(folder) / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [str(python(folder)), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        return result.stderr[-2000:]
    stamp.write_text(wanted)
    return ""


def python(folder: Path) -> Path:
    """Return the interpreter of an environment."""
    return folder / "bin/python"


def packages(folder: Path) -> Path:
    """Return where an environment keeps its packages."""
    return folder / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
