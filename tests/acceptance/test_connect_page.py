"""An afternoon with docs/connect.md: its files are saved, and its commands are typed, as they stand there."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from invigilator.local.server import free_port
from tests.engines import unavailable

PAGE = (Path(__file__).parents[2] / "docs" / "connect.md").read_text(encoding="utf-8")
PROGRAMS = Path(sys.executable).parent
SAVED = re.compile(r"^```(?:ini|toml|python)\n(?P<text># (?P<name>\S+)\n.*?)^```$", re.MULTILINE | re.DOTALL)
"""A block that begins with the name of its file."""
TYPED = re.compile(r"^```sh\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LMS_PORT, API_PORT = "8000", "8080"
PATIENCE_S = 300  # before the test gives up


@dataclass(frozen=True)
class Afternoon:
    """Somebody who has followed the page: a folder, what runs in it, and what the typed commands have printed."""

    folder: Path
    variables: dict[str, str]
    ports: dict[str, int]

    def adapted(self, text: str) -> str:
        """The page's text with ports that are free here."""
        for shown, free in self.ports.items():
            text = text.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{free}")
        return text

    def save_files(self) -> None:
        for block in SAVED.finditer(PAGE):
            (self.folder / block["name"]).write_text(self.adapted(block["text"]), encoding="utf-8")

    def type(self, marker: str) -> str:
        """Run the one block of commands that has this text, and return what it prints."""
        [block] = [block["text"] for block in TYPED.finditer(PAGE) if marker in block["text"]]
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.adapted(block)],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert ended.returncode == 0, f"{block}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    @contextmanager
    def running(self, *command: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Run a program in the folder until the block ends."""
        name, *arguments = command
        with (self.folder / f"{command[-1]}.log").open("wb") as log:
            process = subprocess.Popen(
                [PROGRAMS / name, *arguments],
                cwd=self.folder,
                env=self.variables,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process
        finally:
            process.terminate()
            process.wait()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            said = "\n".join(log.read_text() for log in self.folder.glob("*.log"))
            assert time.monotonic() < deadline, f"waited in vain for {what}\n{said}"
            time.sleep(0.1)

    def get(self, path: str) -> int:
        """Return the status of a call to the API; 0 when it does not answer."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.ports[API_PORT]}{path}", timeout=60
            ) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


@pytest.fixture(scope="module")
def afternoon(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Afternoon]:
    """The page, to the end of "Tell it what happens". `postgres_url` skips it where engines cannot run."""
    if shutil.which("curl") is None:
        unavailable("curl is not installed")
    ports = {port: free_port() for port in (LMS_PORT, API_PORT)}
    others = {name: value for name, value in os.environ.items() if not name.startswith("INVIGILATOR_")}
    variables = {
        **others,
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "INVIGILATOR_WEB_ADDRESS": f"127.0.0.1:{ports[API_PORT]}",
        "LMS_TOKEN": "secret",
        "PORT": str(ports[LMS_PORT]),
        "PYTHONUNBUFFERED": "1",
    }
    somebody = Afternoon(tmp_path_factory.mktemp("afternoon"), variables, ports)
    somebody.save_files()
    with somebody.running("python", "lms.py"), somebody.running("invigilator", "up"):
        somebody.until(lambda: somebody.get("/readyz") == 200, "the API")
        yield somebody


@pytest.fixture(scope="module")
def told(afternoon: Afternoon) -> Sequence[str]:
    """The outcomes of the commands of the page."""
    answer = json.loads(afternoon.type("course.upsert.v1"))
    return [command["outcome"] for command in answer["commands"]]


def test_the_commands_are_applied_and_the_lms_is_called(afternoon: Afternoon, told: Sequence[str]) -> None:
    assert told == ["applied"] * 5
    assert json.loads(afternoon.type("/v1/attempt?"))["attempt"]["status"] == "submitted"

    def has_credit() -> bool:
        with closing(sqlite3.connect(afternoon.folder / "lms.sqlite")) as database:
            return ("42", "submitted") in database.execute("SELECT user_id, status FROM credit").fetchall()

    afternoon.until(has_credit, "the credit")


def test_a_command_that_cannot_be_carried_out_says_why(afternoon: Afternoon, told: Sequence[str]) -> None:
    [command] = json.loads(afternoon.type('"user_id": "43"'))["commands"]
    assert (command["outcome"], command["code"]) == ("rejected", "attempt_not_found")


def test_the_copied_lms_passes_the_check(afternoon: Afternoon) -> None:
    printed = afternoon.type("lms check")
    assert "a call without our credentials" in printed
    assert "problem" not in printed


def test_the_comparison_finds_what_differs(afternoon: Afternoon, told: Sequence[str]) -> None:
    # Given that both systems say the same, the program of the page says nothing
    assert afternoon.type("compare.py").strip() == ""
    # When they do not
    (afternoon.folder / "old.jsonl").write_text(
        '{"exam_id": "7", "user_id": "42", "status": "verified"}\n'
        '{"exam_id": "8", "user_id": "42", "status": "started"}\n'
    )
    ended = subprocess.run(
        [sys.executable, "compare.py", "old.jsonl", "new.jsonl"],
        cwd=afternoon.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    # Then each difference is a line
    assert ended.returncode == 1
    assert ended.stdout.splitlines() == [
        "exam 7, learner 42: verified in the old system, submitted in Invigilator",
        "exam 8, learner 42: started in the old system, no attempt in Invigilator",
    ]


def test_the_rules_can_be_asked_about_one_case(afternoon: Afternoon) -> None:
    assert json.loads(afternoon.type("decide"))["credit"] == "submitted"


def test_the_log_can_be_followed_over_http(afternoon: Afternoon, told: Sequence[str]) -> None:
    if afternoon.get("/v1/events?limit=1") == 404:
        unavailable("GET /v1/events is not there")
    with afternoon.running("python", "follow.py"):
        printed = afternoon.folder / "follow.py.log"
        afternoon.until(
            lambda: "exam.attempt.status-changed.v1" in printed.read_text(), "the event of the submission"
        )


def test_following_from_a_position_that_is_gone_says_what_to_do(afternoon: Afternoon, tmp_path: Path) -> None:
    (tmp_path / "cursor").write_text("9" * 18)
    ended = subprocess.run(
        [sys.executable, afternoon.folder / "follow.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert ended.returncode == 1
    assert re.fullmatch(
        r"The position is gone\. Read the attempts, then write \d+ into the file cursor\.\n", ended.stderr
    )


def test_following_goes_on_when_the_api_is_away(afternoon: Afternoon, tmp_path: Path) -> None:
    nobody = free_port()
    program = (afternoon.folder / "follow.py").read_text()
    (tmp_path / "follow.py").write_text(program.replace(str(afternoon.ports[API_PORT]), str(nobody)))
    elsewhere = replace(afternoon, folder=tmp_path)
    with elsewhere.running("python", "follow.py") as following:
        said = tmp_path / "follow.py.log"
        elsewhere.until(lambda: said.read_text().count("trying again") >= 2, "a second try")
        assert following.poll() is None
