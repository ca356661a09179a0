"""Runs programs of Node.js, such as npm, in a folder with nothing of ours around it."""

import shutil
import subprocess
from pathlib import Path

from tests.engines import unavailable
from tests.install.environments import PATIENCE_S


def run(*command: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command, which skips on a laptop without it, and fails in CI."""
    if shutil.which(command[0]) is None:
        unavailable(f"{command[0]} is not installed")
    return subprocess.run(
        command,
        cwd=folder,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def install(package: str, folder: Path) -> None:
    """Install a package of npm. Skips on a laptop without a network, fails in CI."""
    installed = run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", package, folder=folder)
    if installed.returncode != 0:
        unavailable(f"npm install failed: {installed.stderr[-500:]}")
