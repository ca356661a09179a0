"""The LMS that docs/connect.md shows: it runs as it stands there, and does what an LMS must."""

import re
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from worker.errors import Misconfigured
from worker.findings import Verdict
from worker.lms.check import Subject, check
from worker.lms.credentials import BearerToken
from worker.lms.http import HttpLms
from worker.lms.ports import CallKey, CreditRequirement, Deadline
from worker.settings import Settings

PAGE = Path(__file__).parents[3] / "docs" / "connect.md"
REQUIREMENT = CreditRequirement("42", "phys", "b7")


@dataclass(frozen=True)
class Shown:
    """The program of the page, listening."""

    url: str
    names: dict[str, Any]

    def credit(self) -> list[tuple[str, str | None]]:
        return self.names["database"].execute("SELECT name, status FROM credit").fetchall()  # type: ignore[no-any-return]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shown]:
    [code] = re.findall(r"^```python\n(# lms\.py\n.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    monkeypatch.setenv("LMS_TOKEN", "right")
    monkeypatch.setenv("LMS_DATABASE", ":memory:")
    names: dict[str, Any] = {"__name__": "lms"}
    exec(compile(code, str(PAGE), "exec"), names)
    names["Lms"].log_message = lambda *_: None
    with closing(names["database"]), ThreadingHTTPServer(("127.0.0.1", 0), names["Lms"]) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Shown(f"http://127.0.0.1:{server.server_port}", names)
        server.shutdown()
        thread.join()


@pytest.fixture
def lms(shown: Shown) -> Iterator[HttpLms]:
    with closing(HttpLms(shown.url, BearerToken("right"))) as lms:
        yield lms


def key(number: int, sequence: int) -> CallKey:
    return CallKey(UUID(int=number), sequence)


def soon() -> Deadline:
    return Deadline.after(30)


def test_it_passes_the_check(shown: Shown) -> None:
    settings = Settings(_env_file=None, lms_url=shown.url, lms_token="right")
    found = list(check(settings, Subject(course_id="phys")))
    assert [one for one in found if one.verdict is not Verdict.OK] == []
    assert len(found) == 10


def test_a_late_call_changes_nothing_also_after_a_removal(shown: Shown, lms: HttpLms) -> None:
    lms.set_status(REQUIREMENT, "satisfied", key(1, 20), soon())
    lms.set_status(REQUIREMENT, "submitted", key(2, 10), soon())
    assert shown.credit() == [("b7", "satisfied")]
    lms.remove(REQUIREMENT, key(3, 40), soon())
    lms.set_status(REQUIREMENT, "failed", key(4, 30), soon())
    assert shown.credit() == [("b7", None)]


def test_a_repeated_reset_resets_once(shown: Shown, lms: HttpLms) -> None:
    lms.delete_student_attempt("ada", "phys", "b7", None, key(1, 1), soon())
    assert shown.names["STUDENTS"] == {"ada": {}}
    shown.names["STUDENTS"]["ada"]["b7"] = "a new answer"
    lms.delete_student_attempt("ada", "phys", "b7", None, key(1, 2), soon())
    assert shown.names["STUDENTS"] == {"ada": {"b7": "a new answer"}}
    lms.delete_student_attempt("ada", "phys", "b7", None, key(2, 1), soon())
    assert shown.names["STUDENTS"] == {"ada": {}}


def test_it_knows_its_courses_and_its_token(shown: Shown, lms: HttpLms) -> None:
    assert lms.course_name("42", "phys", None, soon()) == "Physics"
    assert lms.course_name("42", "botany", None, soon()) is None
    with closing(HttpLms(shown.url, BearerToken("wrong"))) as stranger, pytest.raises(Misconfigured):
        stranger.course_name("42", "phys", None, soon())
