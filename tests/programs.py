"""Programs that are not ours, such as an LMS may use."""

import shutil
import subprocess
from pathlib import Path

from tests.engines import unavailable

PATIENCE_S = 300  # before a test gives up; never how long anything should take


def run_program(*command: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a program in a folder. Skips on a laptop where it is not installed, fails in CI."""
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
