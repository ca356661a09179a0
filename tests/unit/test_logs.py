"""Logs: constant events with fields, all of them in the documents, in one form for us and our libraries."""

import ast
import io
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cache
from logging.handlers import WatchedFileHandler
from pathlib import Path

import pytest
from structlog.typing import EventDict

from worker import logs
from worker.logs import Writer, warn_once

ROOT = Path(__file__).parents[2]
SOURCES = [file for room in ("db", "invigilator", "worker") for file in (ROOT / room).rglob("*.py")]
PAGE = ROOT / "docs/observability.md"
RUNBOOK = ROOT / "docs/operate.md"
COMMAND = re.compile(r"(invigilator|effects|attempts) ")
WHAT_OTHERS_SAY = [
    "PublishError (OutOfMemoryError)",
    "session is read-only",
    "queue of notifications is 100% full",
]
METHODS = {"debug", "info", "warning", "error", "critical", "exception", "log"}
PHRASE = re.compile(r"[A-Za-z -]{5,60}")
ROW = re.compile(
    r"^\| `(?P<event>[^`]+)` \| (?P<levels>(?:debug|info|warning|error)(?:, (?:info|warning))*) \|",
    re.MULTILINE,
)


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes())


def calls(file: Path) -> Iterator[ast.Call]:
    """The calls of loggers in a module."""
    for node in ast.walk(parsed(file)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="logger" | "log" | "_logger"), attr=method)):
                if method in METHODS:
                    yield node
            case ast.Call(func=ast.Attribute(attr="warn_once") | ast.Name(id="warn_once")):
                yield node


CALLS = [(file, call) for file in SOURCES if file.name != "logs.py" for call in calls(file)]


def arguments(call: ast.Call) -> list[ast.expr]:
    """The positional arguments after the level."""
    has_level = isinstance(call.func, ast.Attribute) and call.func.attr == "log"
    return call.args[1:] if has_level else call.args


def test_every_event_is_a_constant_phrase_and_the_rest_are_fields() -> None:
    assert len(CALLS) > 40
    for file, call in CALLS:
        place = f"{file.relative_to(ROOT)}:{call.lineno}"
        match arguments(call):
            case [ast.Constant(value=str(event))]:
                assert PHRASE.fullmatch(event), place
            case _:
                pytest.fail(f"{place}: an event is one constant phrase, and what it is about are fields")


def test_nobody_goes_round_our_loggers() -> None:
    around = [file for file in SOURCES if "getLogger(__name__)" in file.read_text()]
    assert around == []


def test_what_the_runbook_quotes_is_what_we_say() -> None:
    # Given all texts of the code, and what the table for the person on call has in quotes
    known = "\n".join(
        node.value
        for file in (*SOURCES, *(ROOT / "events").rglob("*.py"))
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    _, _, rest = RUNBOOK.read_text().partition("\n## When something fails\n")
    table, _, _ = rest.partition("\n#")
    seen = [row.split(" | ")[0] for row in table.splitlines() if row.startswith("| ")]
    quoted = [quote for cell in seen for quote in re.findall(r"`([^`]+)`", cell)]
    assert len(quoted) > 40
    # Then each piece of it is in a text, but for commands, and for what others say
    pieces = [piece.strip(" :") for quote in quoted if not COMMAND.match(quote) for piece in quote.split("…")]
    assert [piece for piece in pieces if " " in piece and piece not in known] == WHAT_OTHERS_SAY


def levels(call: ast.Call) -> set[str]:
    """The level at which a call logs. None are known where the call itself chooses."""
    method = call.func.attr if isinstance(call.func, ast.Attribute) else "warn_once"
    return {"warn_once": {"warning"}, "log": set()}.get(method, {method})


def test_the_documents_tell_of_every_event_and_its_levels() -> None:
    rows = {event: set(told.split(", ")) for event, told in ROW.findall(PAGE.read_text())}
    logged: dict[str, set[str]] = {}
    for _, call in CALLS:
        event = ast.literal_eval(arguments(call)[0])
        logged[event] = logged.get(event, set()) | levels(call)
    assert rows.keys() == logged.keys()
    assert {event: found for event, found in logged.items() if not found <= rows[event]} == {}


def test_a_warning_comes_once_for_the_same_fields(logged: list[EventDict]) -> None:
    warn_once.cache_clear()
    for setting in ("A", "A", "B"):
        warn_once("a setting is ignored", setting=setting)
    assert [line["setting"] for line in logged] == ["A", "B"]


# --- in a process of its own -------------------------------------------------------------------------------------

PROGRAM = """
import logging
from uuid import UUID
from worker import logs

logger = logs.get_logger("worker.example")
logger.warning("before", learner="ada")
logs.configure({form!r}, {level!r})
logger.debug("detail", effect=UUID(int=7))
logger.info("try done", effect=UUID(int=7), number=3, nothing=None, forged="x\\n2026 \\x1b[31m")
logging.getLogger("kombu").info("connected to %s", "rabbit")
logging.getLogger("kombu").debug("a body")
logging.getLogger("httpx").info("GET /credit/state?user_id=7")
try:
    raise ValueError("its text")
except ValueError:
    logging.getLogger("uvicorn.error").exception("broken")
"""


ODD = """
from worker import logs

logs.configure("json", "info")
for value in ("Zoë", "\\ud800", 2**70, [1], float("inf")):
    logs.get_logger("worker.example").info("odd", value=value)
"""


def lines(form: str | None, level: str = "info") -> list[str]:
    """What the program writes to its standard error, which is no terminal."""
    return written_by(PROGRAM.format(form=form, level=level))


def written_by(program: str) -> list[str]:
    """What a program writes to its standard error."""
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout == ""
    return ran.stderr.splitlines()


def test_each_line_is_an_object_where_nobody_reads_it() -> None:
    # When nobody says how to log, and standard error is no terminal
    before, ours, library, broken = map(json.loads, lines(None))
    # Then each line is JSON, of libraries too, and the time is in UTC
    assert (before["event"], before["learner"]) == ("before", "ada")
    moment = datetime.fromisoformat(ours.pop("timestamp"))
    assert moment.utcoffset() == timedelta(0)
    assert ours == {
        "event": "try done",
        "level": "info",
        "logger": "worker.example",
        "effect": "00000000-0000-0000-0000-000000000007",
        "number": 3,
        "forged": "x\n2026 \x1b[31m",
    }
    assert {**library, "timestamp": ""} == {
        "event": "connected to rabbit",
        "level": "info",
        "logger": "kombu",
        "timestamp": "",
    }
    assert broken["exception"].endswith("ValueError: its text")


def test_a_line_is_an_object_in_ascii_whatever_is_in_it() -> None:
    written = written_by(ODD)
    assert all(line.isascii() for line in written)
    assert [json.loads(line)["value"] for line in written] == ["Zoë", "\ud800", 2**70, "[1]", None]


def test_a_person_can_read_it_and_no_field_forges_a_line() -> None:
    written = lines("readable")
    [ours] = [line for line in written if "try done" in line]
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z \[info +\] try done ", ours)
    assert r"forged='x\n2026 \x1b[31m'" in ours
    assert "\x1b" not in "".join(written)


def test_only_our_own_lines_are_written_below_info() -> None:
    assert [json.loads(line)["event"] for line in lines("json", "debug")] == [
        "before",
        "detail",
        "try done",
        "connected to rabbit",
        "broken",
    ]
    assert [json.loads(line)["event"] for line in lines("json", "error")] == ["before", "broken"]


class Slow(io.StringIO):
    """A stream whose first piece takes until it may go on, and whose pieces are remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        self.pieces: list[str] = []

    def write(self, piece: str) -> int:
        self.pieces.append(piece)
        self.begun.set()
        self.may_go_on.wait()
        return len(piece)


@contextmanager
def slow_line() -> Iterator[tuple[Writer, Slow, "Future[None]"]]:
    """A writer, its stream, and a thread whose line "one" is written when the stream may go on, or at the end."""
    stream = Slow()
    writer = Writer(logging.StreamHandler(stream))
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(writer.leave, "one")
        stream.begun.wait()
        try:
            yield writer, stream, slow
        finally:
            stream.may_go_on.set()


def test_who_logs_while_another_writes_does_not_wait_and_loses_nothing() -> None:
    # Given a thread whose line takes long to be written
    with slow_line() as (writer, stream, slow):
        # When others log, then they go on at once
        writer.leave("two")
        writer.leave("three")
        assert not slow.done()
    # and theirs are written with the next piece, in their order
    assert stream.pieces == ["one\n", "two\nthree\n"]


def test_who_warns_goes_on_when_the_line_is_written() -> None:
    # Given a thread whose line takes long to be written, and another that has left a line
    with slow_line() as (writer, stream, slow), ThreadPoolExecutor(1) as pool:
        writer.leave("two")
        # When somebody warns
        warned = pool.submit(writer.write, "three")
        stream.may_go_on.set()
        # Then all three are written when the warning has returned
        warned.result()
        assert "".join(stream.pieces) == "one\ntwo\nthree\n"
        slow.result()


def test_a_line_that_cannot_be_written_is_lost_and_the_next_one_is_not() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    writer = Writer(handler)
    closed = io.StringIO()
    closed.close()
    handler.setStream(closed)
    writer.write("lost")
    handler.setStream(stream)
    writer.write("kept")
    assert stream.getvalue() == "kept\n"


def test_lines_of_many_threads_are_all_written_each_whole() -> None:
    stream = io.StringIO()
    writer = Writer(logging.StreamHandler(stream))
    lines = [f"line {number}" for number in range(4_000)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(writer.leave, lines))
    assert sorted(stream.getvalue().splitlines()) == sorted(lines)


def test_a_file_whose_folder_was_away_is_written_again(tmp_path: Path) -> None:
    folder, away = tmp_path / "logs", tmp_path / "away"
    folder.mkdir()
    handler = WatchedFileHandler(folder / "log")
    writer = Writer(handler)
    writer.write("one")
    folder.rename(away)
    for line in ("lost", "lost, too"):
        writer.write(line)
    folder.mkdir()
    writer.write("two")
    handler.close()
    assert (folder / "log").read_text() == "two\n"


def test_whoever_logs_while_a_line_is_written_by_the_same_thread_does_not_wait_for_itself() -> None:
    # Given a stream that logs, as the handler of a signal may that comes just then
    stream = io.StringIO()
    writer = Writer(logging.StreamHandler(stream))

    def interrupted(piece: str) -> int:
        del stream.write
        writer.write("from within")
        return stream.write(piece)

    stream.write = interrupted  # type: ignore[method-assign]
    writer.write("one")
    assert sorted(stream.getvalue().splitlines()) == ["from within", "one"]


def test_whoever_leaves_too_many_lines_waits_for_the_one_who_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a thread whose line takes long to be written, and as many left lines as there may be
    monkeypatch.setattr(logs, "MANY_LEFT", 2)
    waited: list[str] = []
    with slow_line() as (writer, _, _):
        monkeypatch.setattr(writer, "finish", lambda: waited.append("four"))
        for line in ("two", "three"):
            writer.leave(line)
        assert not waited
        # When one more is left, then its thread waits
        writer.leave("four")
        assert waited == ["four"]
