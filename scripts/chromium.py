"""Find a Chromium for the browser tests, install one where there is none, and print its path.

Looked for on the PATH and in Playwright's own store, as ``tests/browser/lab.py`` does. Where there is none,
root on a machine with apt gets the system's package, anyone else Playwright's build.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find() -> str | None:
    """Return the path of a Chromium or Chrome that is installed, or None."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    return playwrights_own()


def playwrights_own() -> str | None:
    """Return the Chromium that Playwright has downloaded, or None."""
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def install() -> None:
    """Install a Chromium: the system's as root with apt, Playwright's otherwise."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=quiet, stdout=sys.stderr)
        command = [
            "apt-get",
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
            "chromium",
            "fonts-liberation",
        ]
        subprocess.run(command, check=True, env=quiet, stdout=sys.stderr)
    else:
        command = [sys.executable, "-m", "playwright", "install", "chromium"]
        subprocess.run(command, check=True, stdout=sys.stderr)


def main() -> None:
    path = find()
    if path is None:
        print("No Chromium here: installing one for the browser tests", file=sys.stderr, flush=True)
        install()
        path = find()
    if path is None:
        sys.exit("No Chromium here, and none could be installed: put one on the PATH as `chromium`.")
    print(path)


if __name__ == "__main__":
    main()
