"""The previous release, taken from git. CHANGELOG.md names its commit."""

import io
import re
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_LATEST = re.compile(r"^## \[(?P<version>\d[^]]*)\].*\n+Commit `(?P<commit>[0-9a-f]{7,40})`", re.MULTILINE)
_PROGRAM = """\
#!{python}
import sys
sys.path.insert(0, {tree!r})
from {module} import {function}
sys.exit({function}())
"""


@dataclass(frozen=True, slots=True)
class Release:
    """A release of Invigilator that runs in this environment, with the packages that are installed here."""

    version: str
    tree: Path
    """Its source."""
    programs: Path
    """The folder of its `invigilator` and `celery`."""

    @property
    def procfile(self) -> Path:
        return self.tree / "Procfile"

    @property
    def head(self) -> str:
        """Its last revision of the schema."""
        return max(file.name[:4] for file in (self.tree / "db/migrations/versions").glob("[0-9]*.py"))


def previous_release(folder: Path) -> Release:
    """Unpack the latest release that CHANGELOG.md names.

    Without the whole history, as in a shallow clone or in an unpacked archive, the test is skipped. Where git has
    the whole history and not the commit, the changelog is wrong, and the test fails.

    Parameters:
        folder: an empty one.
    """
    latest = _LATEST.search((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert latest is not None, "CHANGELOG.md names no release with its commit"
    tree, programs = folder / "tree", folder / "programs"
    with tarfile.open(fileobj=io.BytesIO(_archive(latest["commit"]))) as archive:
        archive.extractall(tree, filter="data")
    programs.mkdir()
    project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, entry_point in (project["scripts"] | {"celery": "celery.__main__:main"}).items():
        module, _, function = entry_point.partition(":")
        program = programs / name
        program.write_text(
            _PROGRAM.format(python=sys.executable, tree=str(tree), module=module, function=function),
            encoding="utf-8",
        )
        program.chmod(0o755)
    return Release(latest["version"], tree, programs)


def _archive(commit: str) -> bytes:
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", commit]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        reason = f"git has no commit {commit} (the previous release): fetch the whole history; {error}"
        if not _has_whole_history():
            pytest.skip(reason)
        pytest.fail(reason)


def _has_whole_history() -> bool:
    command = ["git", "-C", str(ROOT), "rev-parse", "--is-shallow-repository"]
    try:
        answer = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return False
    return answer.strip() == "false"
