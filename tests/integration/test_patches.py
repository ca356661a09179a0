"""The patches of libraries: each is still needed, helps, and can be switched off."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest
from structlog.typing import EventDict

from tests.misbehaviour import MISBEHAVES
from worker import effects_wiring, patches
from worker.errors import ConfigurationError
from worker.patches import PATCHES, Patch, Process
from worker.settings import load

NAMES = [patch.name for patch in PATCHES]
by_name = pytest.mark.parametrize("patch", PATCHES, ids=NAMES)


def look(url: str, without: list[str]) -> dict[str, bool]:
    """Which libraries misbehave in a process without some patches."""
    command = [sys.executable, "-m", "tests.misbehaviour", url, ",".join(without)]
    ended = subprocess.run(command, capture_output=True, check=False, text=True)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, bool] = json.loads(ended.stdout)
    return found


@pytest.fixture(scope="module")
def url(_valkey_url: str) -> str:
    """The URL of a Valkey."""
    return _valkey_url


@pytest.fixture(scope="module")
def unpatched(url: str) -> dict[str, bool]:
    return look(url, NAMES)


@pytest.fixture(scope="module")
def patched(url: str) -> dict[str, bool]:
    return look(url, [])


def test_every_patch_is_looked_at() -> None:
    assert list(MISBEHAVES) == NAMES


@by_name
def test_it_is_still_needed(patch: Patch, unpatched: dict[str, bool]) -> None:
    installed = version(patch.library)
    assert unpatched[patch.name], (
        f"{patch.library} {installed} no longer needs {patch.name}: remove it from worker/patches.py"
    )
    assert installed == patch.seen_with, (
        f"{patch.library} {installed} still needs {patch.name}: say so in its entry in worker/patches.py"
    )


@by_name
def test_it_helps(patch: Patch, patched: dict[str, bool]) -> None:
    assert not patched[patch.name]


def test_one_is_switched_off_alone(url: str) -> None:
    off = "kombu-compression"
    assert look(url, [off]) == {name: name == off for name in NAMES}


def test_what_is_switched_off_is_told_where_it_would_be_applied(
    monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    monkeypatch.setenv("INVIGILATOR_WITHOUT_PATCHES", "kombu-envelope, flower-events")
    patches.warn_of_switched_off(Process.CONSUME, load())
    assert logged == []
    patches.warn_of_switched_off(Process.WORKER, load())
    patches.warn_of_switched_off(Process.FLOWER, load())
    assert [(line["patch"], line["library"]) for line in logged] == [
        ("kombu-envelope", "kombu"),
        ("flower-events", "flower"),
    ]


def test_a_patch_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVIGILATOR_WITHOUT_PATCHES", "kombu-envelopes")
    with pytest.raises(ConfigurationError) as refused:
        patches.apply(Process.WORKER, load())
    assert str(refused.value) == (
        "INVIGILATOR_WITHOUT_PATCHES names 'kombu-envelopes', which is no patch; there are "
        f"{', '.join(NAMES)}"
    )
    with pytest.raises(ConfigurationError, match="which is no patch"):
        effects_wiring.check_settings(load())
