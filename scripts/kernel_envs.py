"""Installs the ipykernel versions that tests/kernel runs against, beside the environment and not into it.

Each ``tests/kernel/<name>.txt`` names one version (and what it alone needs, exactly pinned); it lands in
``.cache/<name>``, a folder that a kernel puts before everything else on its path. The dependencies come
from the environment, so a folder is small and made in seconds, once.

    python scripts/kernel_envs.py            # make what is missing
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "tests" / "kernel"
CACHE = ROOT / ".cache"


def folders() -> dict[str, Path]:
    """Return name -> folder of every pinned version, whether it is there or not."""
    return {pins.stem: CACHE / pins.stem for pins in sorted(PINS.glob("ipykernel-*.txt"))}


def install(name: str) -> Path:
    """Make one folder, unless it was made from the same pins before; returns it."""
    pins, folder = PINS / f"{name}.txt", CACHE / name
    wanted = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()
    stamp = folder / ".made-from"
    if stamp.is_file() and stamp.read_text() == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*command, "--target", str(folder), "--requirement", str(pins)], check=True)
    stamp.write_text(wanted)
    return folder


if __name__ == "__main__":
    for each in folders():
        print(install(each))
