"""`up` and `demo` from a wheel, with the extra `local` alone, for somebody without a checkout."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.install.environments import MODULES, PATIENCE_S, Environment

NO_FLOWER = (
    "Flower is not installed, so the tasks are not displayed; "
    "to install it: pip install 'invigilator[flower]'"
)
NO_WEB = "what the HTTP API needs is not installed; to install it: pip install 'invigilator[web]'"
FEW_LEARNERS = """
from functools import partial
from invigilator.cli.main import main
from invigilator.demo import run
run.generate = partial(run.generate, learners=48)
main()
"""
"""`invigilator demo` with a fifth of its learners. `tests/acceptance/test_demo.py` has all of them."""
RECONCILED = "reconciliation: 48 learners, 192 credit requirements compared: 0 differences"
COURSE = {"type": "course.upsert.v1", "data": {"course_id": "phys"}}


@pytest.fixture
def folder(tmp_path: Path, postgres_url: str) -> Path:
    """Where somebody stands, with modules that are called like ours; `postgres_url` skips where no engine runs."""
    folder = tmp_path / "my exams"
    for package in ("worker", "db", "events", "invigilator", "celery"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("raise SystemExit('not ours')")
    (folder / "celeryconfig.py").write_text("raise SystemExit('not ours')")
    return folder


def test_every_module_but_those_of_other_extras_can_be_imported(local: Environment, tmp_path: Path) -> None:
    script = shutil.copy(MODULES, tmp_path)
    run = local.run("python", str(script), folder=tmp_path)
    assert run.returncode == 0, run.stderr
    missing = [name for name in json.loads(run.stdout) if not name.startswith("invigilator.web.")]
    assert missing == [
        "invigilator.asyncapi.__main__",  # needs PyYAML, and is for developers
        "worker.celery.flower",
        "worker.feeds.openedx",
        "worker.feeds.openedx_data",
        "worker.otel",
    ]


def test_demo_runs_without_flower_and_says_so(local: Environment, folder: Path) -> None:
    run = local.run("python", "-P", "-c", FEW_LEARNERS, "demo", folder=folder)
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert NO_FLOWER in run.stdout
    assert RECONCILED in run.stdout
    assert (folder / ".invigilator" / "demo.log").exists()


def test_up_runs_where_the_user_stands(local: Environment, folder: Path) -> None:
    # Given settings in a file there
    (folder / ".env").write_text("INVIGILATOR_DATA_DIR=their data\n")
    with running_up(local, folder) as up:
        # When everything is up, and a command is published
        lines = read_until_workers_are_ready(up)
        (folder / "commands.jsonl").write_text(json.dumps(COURSE))
        publish = local.run("invigilator", "publish", "commands.jsonl", folder=folder)
        assert (publish.returncode, publish.stderr) == (0, "")
        # Then the processes are those of the environment, on the folder's data, and no Flower among them
        wait_until(lambda: outcomes(local, folder) == ["applied"])
        assert NO_FLOWER in lines
        assert NO_WEB in lines
        assert (folder / "their data" / "engines.json").exists()
        up.send_signal(signal.SIGTERM)
        assert up.wait(PATIENCE_S) == 0


def outcomes(local: Environment, folder: Path) -> list[str]:
    run = local.run("invigilator", "commands", "list", "--json", folder=folder)
    return [json.loads(line)["outcome"] for line in run.stdout.splitlines()]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)


def read_until_workers_are_ready(process: "subprocess.Popen[str]") -> str:
    """What `up` prints, to the moment when both of Celery's workers are ready, or to its end."""
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if printed.count(" ready.") == 2:
            return printed
    raise AssertionError(printed)


@contextmanager
def running_up(local: Environment, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """`invigilator up`; the guard ends what it has started when it is killed."""
    process = subprocess.Popen(
        [local.programs / "invigilator", "up"],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        yield process
        process.kill()
