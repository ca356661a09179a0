"""The settings that the demo changes."""

from pathlib import Path

import pytest

from invigilator.demo.reference import MailSink, ReferenceLms
from invigilator.demo.run import settings_for
from invigilator.local.up import environment
from worker.settings import load


def test_its_commands_need_no_signature(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INVIGILATOR_COMMAND_KEYS_FILE", "keys.toml")
    with ReferenceLms(fail_fraction=0, seed=1) as lms, MailSink() as sink:
        variables = environment(settings_for(load(), lms, sink))
    assert "INVIGILATOR_COMMAND_KEYS_FILE" not in variables
    assert variables["INVIGILATOR_LMS_URL"].startswith("http://127.0.0.1:")
