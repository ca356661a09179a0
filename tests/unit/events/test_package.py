"""The package: what is at its top level, and that its name may be another one."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import events

FOLDER = Path(events.__file__).parent
LOADED = """
import sys, events.vocabulary
print([name for name in ("kombu", "pydantic") if name in sys.modules])
"""


@pytest.mark.parametrize("name", events.__all__)
def test_a_name_at_the_top_level_can_be_used(name: str) -> None:
    assert getattr(events, name).__name__ == name


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'events' has no attribute 'Subscriber'"):
        _ = events.Subscriber  # type: ignore[attr-defined]


def test_the_vocabulary_alone_loads_no_library() -> None:
    run = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("*.py")), ids=lambda file: str(file.relative_to(FOLDER)))
def test_modules_import_each_other_relatively(file: Path) -> None:
    imports = [node for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, ast.ImportFrom)]
    absolute = [node.module for node in imports if node.level == 0 and str(node.module).startswith("events")]
    assert absolute == [], "the client's distribution has no package `events`; write `from .module import …`"


def test_both_distributions_have_one_version() -> None:
    client, whole = (
        tomllib.loads(file.read_text())
        for file in (FOLDER / "pyproject.toml", FOLDER.parent / "pyproject.toml")
    )
    assert client["project"]["version"] == whole["project"]["version"]
