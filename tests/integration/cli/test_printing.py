"""What real processes print: into a pipe, into one that is closed, and on a narrow terminal."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests import sample_commands as c
from tests.forkserver import run_into, run_to_end
from tests.integration.cli.conftest import Record

Ran = subprocess.CompletedProcess[str]
Run = Callable[..., Ran]
PROGRAM = Path(sys.executable).with_name("invigilator")
PATIENCE_S = 150  # before a test gives up; never how long anything should take

EXAM = "block-v1:edX+DemoX+2026+type@sequential+block@9fca584977d04885bc911ea76a9ef29e"
USER = "5f0c8a5e-0000-4000-8000-000000000042"
ERROR = "the service of invigilator.effects.credit answered 503 Service Unavailable, and that three times in a row"
LISTS = [
    ("attempts", "list"),
    ("commands", "list"),
    ("effects", "list"),
    ("quarantine", "list"),
]
SHOWN = [("attempts", "show", "--exam", EXAM, "--user", USER), ("effects", "show")]


@pytest.fixture
def run(database_url: str, tmp_path: Path) -> Run:
    """Runs `invigilator` as a process of its own."""
    settings = {"INVIGILATOR_DATABASE_URL": database_url}

    def run(*arguments: str, stdout: int | None = None) -> Ran:
        command = ["invigilator", *arguments]
        if stdout is None:
            return run_to_end(command, settings, tmp_path, PATIENCE_S)
        return run_into(stdout, command, settings, tmp_path, PATIENCE_S)

    return run


@pytest.fixture
def effect_id(record: Record) -> str:
    """Ids as they are in production, and an effect that failed, with a long error."""
    record.handle(
        c.received(c.exam(EXAM)),
        c.received(c.learner(USER)),
        c.received(c.create(EXAM, USER, taking_as_proctored=True)),
        c.received(c.update(EXAM, "submitted", USER)),
    )
    record.quarantine(b"?")
    record.execute("UPDATE quarantine SET detail = :error", error=ERROR)
    record.execute("UPDATE effects SET state = 'failed', last_error = :error, tries = 3", error=ERROR)
    return str(record.effect_ids()[0])


def arguments_of(shown: Sequence[str], effect_id: str) -> Sequence[str]:
    return [*shown, effect_id] if shown[-1] == "show" else shown


def values(document: Any) -> set[str]:
    """Everything that a person may want to copy."""
    if isinstance(document, dict | list):
        parts = document.values() if isinstance(document, dict) else document
        return {value for part in parts for value in values(part)}
    return {document} if isinstance(document, str) else set()


def on_a_terminal(run: Run, *arguments: str) -> str:
    """What a person sees who has 80 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    seen = bytearray()
    try:
        ran = run(*arguments, stdout=theirs)
    finally:
        os.close(theirs)
    with suppress(OSError), os.fdopen(ours, "rb", buffering=0) as terminal:  # EIO at the end
        while some := terminal.read(65536):
            seen += some
    assert (ran.returncode, ran.stderr) == (0, "")
    return seen.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("shown", LISTS)
def test_a_list_keeps_values_whole_on_a_narrow_terminal_and_in_a_pipe(
    run: Run, effect_id: str, shown: Sequence[str]
) -> None:
    # Given rows whose values need more than 80 columns
    rows = [json.loads(line) for line in run(*shown, "--json").stdout.splitlines()]
    assert rows
    # When they are printed for a person
    piped = run(*shown)
    seen = on_a_terminal(run, *shown)
    # Then a pipe has a line for each, and nothing is broken into strips on a terminal either
    assert (piped.returncode, piped.stderr) == (0, "")
    header, *lines = piped.stdout.splitlines()
    assert len(lines) == len(rows)
    for row, line in zip(rows, lines, strict=True):
        wanted = values({name: row[name] for name in header.split()})
        assert {value for value in wanted if value not in line or value not in seen} == set()


@pytest.mark.parametrize("shown", SHOWN)
def test_a_document_keeps_values_whole_on_a_narrow_terminal(
    run: Run, effect_id: str, shown: Sequence[str]
) -> None:
    arguments = arguments_of(shown, effect_id)
    wanted = values(json.loads(run(*arguments, "--json").stdout))
    assert len(wanted) > 5
    seen = on_a_terminal(run, *arguments)
    assert {value for value in wanted if value not in seen} == set()


@pytest.mark.parametrize("as_json", [(), ("--json",)])
@pytest.mark.parametrize("shown", [*LISTS, *SHOWN])
def test_a_reader_that_has_gone_is_no_error(
    run: Run, effect_id: str, shown: Sequence[str], as_json: Sequence[str]
) -> None:
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    try:
        ran = run(*arguments_of(shown, effect_id), *as_json, stdout=writing_end)
    finally:
        os.close(writing_end)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_reader_that_goes_after_the_first_line_is_no_error(
    run: Run, record: Record, as_json: Sequence[str]
) -> None:
    # Given more than a pipe holds
    record.handle(*(c.received(c.update("A", "started"), f"{number}-{'x' * 200}") for number in range(1000)))
    reading_end, writing_end = os.pipe()
    with subprocess.Popen(["head", "-1"], stdin=reading_end, stdout=subprocess.PIPE) as head:
        os.close(reading_end)
        # When only the first line is read
        try:
            ran = run("commands", "list", "--limit", "1000", *as_json, stdout=writing_end)
        finally:
            os.close(writing_end)
        first, _ = head.communicate()
    # Then nobody complains
    assert (ran.returncode, ran.stderr) == (0, "")
    assert first.count(b"\n") == 1


def test_a_refusal_is_one_whether_or_not_somebody_reads_it(run: Run, effect_id: str, record: Record) -> None:
    record.set_state(record.effect_ids()[0], "done")
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    try:
        ran = run("effects", "cancel", effect_id, stdout=writing_end)
    finally:
        os.close(writing_end)
    assert ran.returncode == 1
    assert ran.stderr == f"invigilator: {effect_id}: is done, not pending or failed\n"


def test_what_a_terminal_cannot_show_is_escaped(
    database_url: str, effect_id: str, record: Record, tmp_path: Path
) -> None:
    record.execute("UPDATE attempts SET external_id = 'é'")
    # Not forked: Python reads the encoding when it starts.
    ran = subprocess.run(
        [PROGRAM, "attempts", "show", "--exam", EXAM, "--user", USER],
        env={"INVIGILATOR_DATABASE_URL": database_url, "PYTHONIOENCODING": "ascii"},
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"external_id: \\xe9\n" in ran.stdout
