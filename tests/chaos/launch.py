"""Run a program with a crash point: `python -m tests.chaos.launch CRASH MARKER PROGRAM ARGUMENT…`.

CRASH is what `Crash.arguments` makes; MARKER is a file that appears when the point is reached.
"""

import sys
from importlib.metadata import entry_points
from pathlib import Path

from tests.chaos.points import Crash, install


def main() -> None:
    """Replace the function behind the point, then run a console script of this environment, in this process."""
    crash, marker, *command = sys.argv[1:]
    install(Crash.read(crash), Path(marker))
    sys.argv = command
    scripts = entry_points(group="console_scripts", name=command[0])
    sys.exit(next(iter(scripts)).load()())


if __name__ == "__main__":
    main()
