"""Fixtures for the command line without any configuration and without running engines."""

from pathlib import Path

import pytest

from tests.commandline import CommandLine


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> CommandLine:
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "BROKER_URL", "DATA_DIR", "COMMAND_SHARDS", "COMMAND_KEYS_FILE"):
        monkeypatch.delenv(f"INVIGILATOR_{name}", raising=False)
    return CommandLine(monkeypatch, capsys)
