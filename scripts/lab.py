"""Open JupyterLab on one notebook, or print its address where there is no display.

    .venv/bin/python scripts/lab.py [--watch] notebooks/01_explore.ipynb

``--watch`` rebuilds the front end whenever a file under ``js/`` changes and lets the page follow: hot reload.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUIET = {
    # The very first start should show the notebook, not a question about news.
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
}


def has_display() -> bool:
    """Return whether a browser window can open on this machine."""
    if sys.platform in {"darwin", "win32"}:
        return not os.environ.get("SSH_CONNECTION")
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def write_settings() -> None:
    """Write JupyterLab's defaults into this virtual environment, never into the user's home."""
    settings = Path(sys.prefix) / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(QUIET, indent=2), encoding="utf-8")


def command(notebook: str) -> list[str]:
    """Return the command that serves the repository with the notebook in front."""
    lab = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={ROOT}",
        f"--LabApp.default_url=/lab/tree/{notebook}",
        "--log-level=WARN",
        "--LabApp.log_level=WARN",
    ]
    if not has_display():
        lab.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        lab.append("--allow-root")
    return lab


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watch", action="store_true")
    parser.add_argument("notebook")
    options = parser.parse_args()
    write_settings()
    os.chdir(ROOT)
    if not options.watch:
        print(f"Starting JupyterLab on {options.notebook}; Ctrl+C twice stops it.", flush=True)
        lab = command(options.notebook)
        os.execv(lab[0], lab)
    build = [sys.executable, "scripts/node.py", "node", "js/build.mjs"]
    watcher = subprocess.Popen([*build, "--watch"], stdin=subprocess.PIPE)
    try:
        environment = {**os.environ, "ANYWIDGET_HMR": "1"}
        sys.exit(subprocess.run(command(options.notebook), env=environment, check=False).returncode)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        watcher.terminate()
        watcher.wait()
        # What the watcher wrote is not minified; tests and wheels want the real thing.
        subprocess.run(build, check=False)


if __name__ == "__main__":
    main()
