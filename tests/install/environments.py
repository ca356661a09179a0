"""The wheel, and environments that hold nothing but what it asks for."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engines import unavailable

ROOT = Path(__file__).parents[2]
MODULES = Path(__file__).with_name("modules.py")
UV = Path(sys.executable).with_name("uv")
ALWAYS = ("--quiet", "--system-certs")
"""uv itself trusts only the authorities that it brings."""
PATIENCE_S = 300  # before a test gives up; never how long anything should take
NOT_THE_SOURCE = shutil.ignore_patterns(
    ".*", "build", "dist", "*.egg-info", "__pycache__", "benchmarks", "tests"
)
CONSTRAINTS = ROOT / "constraints.txt"


def interpreter(version: str | None) -> str:
    """Return the program of a Python, such as "3.12"; None: of the one that runs the tests.

    It is looked for on the path, and where pyenv and uv keep several Pythons. Where there is none, the test is
    skipped, in CI, too: no package of the system brings it.
    """
    if version is None:
        return sys.executable
    name = f"python{version}"
    beside = sorted(str(one) for one in Path(sys.base_prefix).parent.glob(f"*{version}.*/bin/{name}"))
    for program in (shutil.which(name), *beside):
        # What pyenv puts on the path may end with "command not found".
        if (
            program
            and subprocess.run([program, "--version"], capture_output=True, check=False).returncode == 0
        ):
            return program
    pytest.skip(f"there is no Python {version} here")


@dataclass(frozen=True)
class Environment:
    """A virtual environment without pip, so that everything in it is what something needs."""

    folder: Path
    constraints: Path = CONSTRAINTS

    @classmethod
    def create(
        cls, folder: Path, *, python: str = sys.executable, constraints: Path = CONSTRAINTS
    ) -> "Environment":
        """Make an empty one, of a Python."""
        subprocess.run(
            [python, "-m", "venv", "--without-pip", str(folder)],
            check=True,
            capture_output=True,
            timeout=PATIENCE_S,
        )
        return cls(folder, constraints)

    @property
    def programs(self) -> Path:
        """Where its programs are."""
        return self.folder / "bin"

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.programs / "python"

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        [packages] = self.folder.glob("lib/python*/site-packages")
        return packages

    @property
    def distributions(self) -> set[str]:
        """The names of what is installed, as their folders spell them."""
        return {folder.name.split("-")[0].lower() for folder in self.packages.glob("*.dist-info")}

    def install(self, *what: str) -> None:
        """Install, pinned by the constraints. Skips on a laptop without a network, fails in CI.

        uv does it with a twentieth of pip's CPU time. It compiles nothing: what runs here is compiled when it runs.
        """
        _uv("pip", "install", "--python", self.python, "--constraint", self.constraints, *what)

    def run(self, *command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
        """Run one of its programs in a folder, with nothing else of ours around it."""
        program, *arguments = command
        return subprocess.run(
            [self.programs / program, *arguments],
            cwd=folder,
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )


def build_wheel(source: Path, into: Path, *options: str) -> Path:
    """Build a wheel, by way of the source distribution unless `--wheel` is among the options.

    Skips on a laptop without a network, fails in CI.
    """
    ours = ("--build-constraint", CONSTRAINTS, "--out-dir", into, "--python", sys.executable)
    _uv("build", *ours, *options, source)
    [wheel] = into.glob("*.whl")
    return wheel


def _uv(*arguments: str | Path) -> None:
    ran = subprocess.run(
        [UV, *arguments, *ALWAYS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    if ran.returncode != 0:
        unavailable(f"uv {arguments[0]} failed: {ran.stderr[-500:]}")
