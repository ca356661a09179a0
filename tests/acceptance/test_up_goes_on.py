"""`invigilator up` with its own Procfile: whatever is killed but an engine, credit goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from events.publisher import Publisher
from invigilator.demo.reference import ReferenceLms
from invigilator.local.forkserver import UNKNOWN_STATUS
from invigilator.local.liveness import is_alive
from invigilator.local.procfile import read_procfile
from worker.engines import resolve
from worker.errors import ConfigurationError
from worker.settings import Settings

INVIGILATOR = Path(sys.executable).with_name("invigilator")
PATIENCE_S = 300  # before the test gives up
ENGINES = ("postgres", "valkey-server")


@dataclass
class Up:
    """Runs `invigilator up` on a data folder."""

    folder: Path
    lms: ReferenceLms
    settings: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def log(self) -> Path:
        return self.folder / "up.log"

    def start(self, **settings: str) -> None:
        others = {name: value for name, value in os.environ.items() if not name.startswith("INVIGILATOR_")}
        ours = {"DATA_DIR": str(self.folder / "data"), "LMS_URL": self.lms.url, "POLL_S": "0.3", **settings}
        variables = {f"INVIGILATOR_{name}": value for name, value in ours.items()}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [INVIGILATOR, "up"], env=others | variables, cwd=self.folder, stdout=log, stderr=log
            )

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self._is_running(), f"it ended while waiting for {what}\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"waited in vain for {what}\n{self.log.read_text()}"
            time.sleep(0.1)

    def _is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def broker_url(self) -> SecretStr | None:
        try:
            return resolve(Settings(_env_file=None, data_dir=self.folder / "data")).broker_url
        except ConfigurationError:
            return None

    def says(self, words: str) -> bool:
        return words in self.log.read_text()

    def submits(self, user_id: str) -> None:
        """Let a learner take an exam, and wait until the LMS has the credit."""
        self.until(lambda: self.broker_url() is not None, "the engines")
        url = self.broker_url()
        assert url is not None
        with Publisher(url.get_secret_value(), source="/lms", shards=1) as lms:
            lms.upsert_exam(exam_id="7", course_id="phys", content_id="block-7", exam_name="Mechanics")
            lms.upsert_learner(user_id=user_id, username=f"learner-{user_id}", email=f"{user_id}@example.org")
            lms.create_attempt(exam_id="7", user_id=user_id, taking_as_proctored=True)
            lms.update_status(exam_id="7", user_id=user_id, to_status="started")
            lms.update_status(exam_id="7", user_id=user_id, to_status="submitted")
        self.until(lambda: self.credit_of(user_id) == "submitted", f"the credit of {user_id}")

    def credit_of(self, user_id: str) -> str | None:
        return next((status for target, status in self.lms.credit.items() if user_id in target), None)

    def parts(self) -> list[psutil.Process]:
        """What the fork server has forked."""
        return [one for helper in self.helpers() for one in helper.children()]

    def helpers(self) -> list[psutil.Process]:
        """The guard and the fork server."""
        assert self.process is not None
        return [one for one in psutil.Process(self.process.pid).children() if one.name() not in ENGINES]

    def left(self) -> list[psutil.Process]:
        data_dir = str(self.folder / "data")
        return [one for one in psutil.process_iter() if _is_of(one, data_dir)]


def _is_of(process: psutil.Process, data_dir: str) -> bool:
    try:
        words = [*process.cmdline(), process.environ().get("INVIGILATOR_DATA_DIR", "")]
        return process.pid != os.getpid() and any(data_dir in word for word in words)
    except psutil.Error:
        return False


@pytest.fixture
def up(tmp_path: Path, postgres_url: str) -> Iterator[Up]:
    """`postgres_url` is asked for because it skips the test where engines cannot run."""
    with ReferenceLms() as lms:
        up = Up(tmp_path, lms)
        try:
            yield up
        finally:
            for leftover in up.left():
                leftover.kill()
            if up.process is not None:
                up.process.wait()


def test_whatever_is_killed_credit_goes_on(up: Up) -> None:
    # Given a system that works
    up.start()
    up.submits("42")
    assert up.process is not None
    # When each of its processes is killed, Flower among them
    killed = up.parts()
    assert len(killed) == len(read_procfile())
    for one in killed:
        one.kill()
    # Then each is started again
    ends = [f"{name} ended by itself (killed by SIGKILL)" for name in read_procfile()]
    up.until(lambda: all(map(up.says, ends)), "the ends of all")
    up.until(lambda: len(up.parts()) == len(killed), "everything to run again")
    # When the guard and the fork server are killed, and then a part that this one had forked
    parts, helpers = up.parts(), up.helpers()
    for one in helpers:
        one.kill()
    ends = [f"{name} ended by itself (killed by SIGKILL)" for name in ("guard", "fork server")]
    up.until(lambda: all(map(up.says, ends)), "the ends of both")
    next(one for one in parts if "consume" in " ".join(one.cmdline())).kill()
    # Then that part is started again, and the next learner gets the credit
    up.until(lambda: up.says(f"commands ended by itself (status {UNKNOWN_STATUS})"), "the end of commands")
    up.submits("43")
    assert len(up.helpers()) == len(helpers)
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(PATIENCE_S) == 0, up.log.read_text()
    assert up.left() == []
    assert not any(map(is_alive, parts))
