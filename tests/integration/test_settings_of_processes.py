"""Every process, as it is started: a misspelt setting or an unreadable `.env` ends it in one line."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from invigilator.local.procfile import read_procfile
from tests.forkserver import run_to_end

BIN = Path(sys.executable).parent
PATIENCE_S = 120
COMMANDS = [*read_procfile().values(), "invigilator up", "invigilator status", "celery -A worker.app report"]


def run(command: str, folder: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    given = {"BROKER_URL": "redis://127.0.0.1:1", "DATABASE_URL": "postgresql://127.0.0.1:1/none", **settings}
    environment = {
        "PATH": f"{BIN}{os.pathsep}{os.defpath}",
        **{f"INVIGILATOR_{name}": value for name, value in given.items()},
    }
    return run_to_end(shlex.split(command), environment, folder, PATIENCE_S)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_setting_ends_it_in_one_line(command: str, tmp_path: Path) -> None:
    # Given a file that is not UTF-8
    (tmp_path / ".env").write_bytes(b"# one\nINVIGILATOR_LMS_TOKEN=sec\xffret\n")
    # When the process is started
    ran = run(command, tmp_path)
    # Then it ends, and says in which line of which file
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"invigilator: {tmp_path}/.env: line 2 is not UTF-8")
    assert len(ran.stderr.splitlines()) == 1
    # And a misspelt variable ends it as well
    ran = run(command, tmp_path, ENV_FILE="", SMTP_URI="smtp://u:secret@h")
    assert ran.returncode == 1
    assert ran.stderr.startswith(
        "invigilator: INVIGILATOR_SMTP_URI is no setting: INVIGILATOR_SMTP_URL is meant"
    )
    assert len(ran.stderr.splitlines()) == 1
    assert "secret" not in ran.stderr


@pytest.mark.parametrize(
    "command",
    [line for name, line in read_procfile().items() if name not in ("relay", "web")],  # these patch nothing
)
def test_a_patch_that_does_not_exist_ends_it_in_one_line(command: str, tmp_path: Path) -> None:
    ran = run(command, tmp_path, WITHOUT_PATCHES="bogus")
    assert ran.returncode == 1
    *_, last = ran.stderr.splitlines()  # Celery warns root first
    assert last.startswith("invigilator: INVIGILATOR_WITHOUT_PATCHES names 'bogus', which is no patch")
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("command", ["invigilator status", "celery -A worker.app report"])
def test_an_unknown_variable_is_warned_of_once(command: str, tmp_path: Path) -> None:
    ran = run(command, tmp_path, FROM_THE_FUTURE="secret")
    [line] = [line for line in ran.stderr.splitlines() if "INVIGILATOR_FROM_THE_FUTURE" in line]
    told = json.loads(line)
    assert (told["event"], told["setting"]) == ("a setting is ignored", "INVIGILATOR_FROM_THE_FUTURE")
    assert "secret" not in ran.stderr
